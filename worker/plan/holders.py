"""Which containers may still carry a previous account's key. Decided from plain values. Pure."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from worker.model.entries import Publication
from worker.model.sightings import Consumer

STALE = timedelta(minutes=5)
"""A container started this soon after an account was superseded may still have got its key: the kubelet reads the
Secret before it makes the container, and possibly from a cache."""


CLOCKS_APART = timedelta(minutes=1)


def holders(previous: Publication, consumers: Collection[Consumer]) -> tuple[list[Consumer], list[Consumer]]:
    """Which consumers carry a superseded account's key for certain, and which may, once volumes have followed.

    Where the Secret was deleted, its volumes keep what they have until it is there again, also for containers that
    start in between: those then keep it from a `subPath`.
    """
    superseded = previous.superseded_at
    if superseded is None:
        raise ValueError("a current account is held by its Secret")
    # Nodes' clocks and the API server's differ a little.
    earliest = (previous.requested_at or previous.at) - CLOCKS_APART
    certain, possible = [], []
    for consumer in consumers:
        started = consumer.started_at
        if consumer.follows:
            if previous.frozen and (started is None or started <= superseded + STALE):
                certain.append(consumer)
        elif started is None:
            possible.append(consumer)
        elif started < superseded:
            if earliest <= (consumer.read_until or started):
                certain.append(consumer)
        elif consumer.mounted and _while_gone(previous, started):
            certain.append(consumer)
        elif started <= (secret_back_at(previous) if consumer.mounted else superseded) + STALE:
            possible.append(consumer)
    return certain, possible


def _while_gone(previous: Publication, moment: datetime) -> bool:
    """Was the Secret deleted then, as far as is known?"""
    return previous.frozen or (previous.secret_gone and moment < secret_back_at(previous))


def secret_back_at(previous: Publication) -> datetime:
    if previous.followed_from is None:
        raise ValueError("a current account is in its Secret")
    return previous.followed_from
