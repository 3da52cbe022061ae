"""Which containers may still carry a previous account's key. Decided from plain values. Pure."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from enum import Enum

from worker.ledger.transitions import CLOCKS_APART
from worker.model.entries import Publication
from worker.model.sightings import Consumer

STALE = timedelta(minutes=5)
"""A container that started this soon after an account was superseded may still have its key. The kubelet reads the
Secret before it makes the container, and possibly from a cache."""


def holders(previous: Publication, consumers: Collection[Consumer]) -> tuple[list[Consumer], list[Consumer]]:
    """Which consumers carry a superseded account's key for certain, and which may, once volumes have followed.

    While the Secret is gone, its volumes keep their data, also for containers that start in between.
    Such a container then keeps the old key from a `subPath`.
    """
    if previous.superseded_at is None:
        raise ValueError("a current account is held by its Secret")
    certain, possible = [], []
    for consumer in consumers:
        carries = _carries(previous, consumer)
        if carries is _Carries.CERTAINLY:
            certain.append(consumer)
        elif carries is _Carries.POSSIBLY:
            possible.append(consumer)
    return certain, possible


class _Carries(Enum):
    CERTAINLY = "certainly"
    POSSIBLY = "possibly"
    NO = "no"


def _carries(previous: Publication, consumer: Consumer) -> _Carries:
    """Does this consumer carry the superseded account's key?"""
    started, superseded = consumer.started_at, previous.superseded_at
    if superseded is None:
        raise ValueError("a current account is held by its Secret")
    if consumer.follows:
        # Its volume follows the Secret to the next key, except while the Secret is gone: then it keeps the old one.
        left_behind = previous.frozen and (started is None or started <= superseded + STALE)
        return _Carries.CERTAINLY if left_behind else _Carries.NO
    if started is None:
        # It has not started, so nobody knows which key the kubelet has read for it.
        return _Carries.POSSIBLY
    if started < superseded:
        # It read the Secret while this key could be there, unless its last read was before the key's request.
        # Nodes' clocks and the API server's differ a little.
        earliest = (previous.requested_at or previous.at) - CLOCKS_APART
        return _Carries.CERTAINLY if earliest <= (consumer.read_until or started) else _Carries.NO
    if consumer.mounted and _while_gone(previous, started):
        # The node's volume kept the old key while the Secret was gone, and the container took it from there.
        return _Carries.CERTAINLY
    left = secret_back_at(previous) if consumer.mounted else superseded
    # It started after the key had left the Secret; soon after that, the kubelet may still have read a cached copy.
    return _Carries.POSSIBLY if started <= left + STALE else _Carries.NO


def _while_gone(previous: Publication, moment: datetime) -> bool:
    """Was the Secret deleted then, as far as is known?"""
    return previous.frozen or (previous.secret_gone and moment < secret_back_at(previous))


def secret_back_at(previous: Publication) -> datetime:
    if previous.followed_from is None:
        raise ValueError("a current account is in its Secret")
    return previous.followed_from
