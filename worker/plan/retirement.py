"""May a previous account be deleted now? Decided from plain values. Pure; no clock of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worker.ledger.transitions import CLAIM, VOLUMES_FOLLOW
from worker.model.entries import Account, Entry, HoldKind, HoldReason, Intent, Publication, current
from worker.model.sightings import Consumer, Node
from worker.model.targets import CleanupKind, CleanupPolicy
from worker.model.times import format_duration, format_time
from worker.plan.holders import Holder, Holders, holders, secret_back_at

PROPAGATION = timedelta(minutes=2)
"""A use of a key this soon after it was superseded says nothing: volumes and caches follow with a delay."""


@dataclass(frozen=True, slots=True)
class Delete:
    """The account may go now. `affected`: its remaining holders, where the longest hold has passed."""

    why: str
    affected: HoldReason | None = None
    free: tuple[Holder, ...] = ()
    """Containers that started after it was superseded, with the facts by which they cannot have its key."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The account may go at `until`, not earlier."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody uses the key, or may: the next run decides again. `until`: the end of the hold, None: no limit."""

    reason: HoldReason
    until: datetime | None


def ripe_at(previous: Publication, cleanup: CleanupPolicy) -> datetime | None:
    """The earliest moment at which a publication may go, by its grace period alone; None: it is current.

    It waits until all accounts of the request have appeared: something on the way may have sent the request twice.
    """
    if previous.superseded_at is None:
        return None
    grace = cleanup.grace if cleanup.kind is CleanupKind.RETAIN_LATEST else cleanup.idle
    return max(previous.superseded_at + grace, (previous.requested_at or previous.at) + CLAIM)


def next_release(entry: Entry, now: datetime) -> datetime | None:
    """When the next account becomes deletable, by grace and claim alone; None: there is none."""
    claim = entry.claimed_until(now)
    if claim is not None:
        return claim
    times = [ripe_at(publication, entry.generator.cleanup) for publication in entry.history]
    return min((at for at in times if at is not None and at > now), default=None)


def may_yet_publish(entry: Entry, intent: Intent) -> bool:
    """May the run of an intent still write the Secret, although its claim has ended?

    A run that noted nothing may be dead, or stopped right before that write.
    The API server refuses the write once another run has published, for its resourceVersion is out of date.
    """
    publication = current(entry)
    return not intent.refused and (publication is None or publication.at <= intent.requested_at)


@dataclass(frozen=True, slots=True)
class Usage:
    """The use of a superseded account's key, as far as the worker sees it.

    `last_used`: None where OpenAI knows of no use. `looked_at`: when the worker looked for consumers, None: now.
    """

    last_used: datetime | None = None
    consumers: Collection[Consumer] = ()
    looked_at: datetime | None = None
    another_used: datetime | None = None
    """The last use of another key of the account: somebody made one by hand."""
    nodes: Mapping[str, Node] | None = None
    """The consumers' nodes by name; None: the worker may not read nodes."""


@dataclass(frozen=True, slots=True)
class RetirePolicy:
    """How long a superseded account stays. `max_hold`: the longest hold after it was superseded, None: no limit."""

    cleanup: CleanupPolicy
    unseen_hold: timedelta
    max_hold: timedelta | None = None


def decide_retirement(
    previous: Publication, usage: Usage, policy: RetirePolicy, *, now: datetime
) -> Delete | Wait | Held:
    """May a superseded account be deleted? Raises ValueError for a current one."""
    found = holders(previous, usage.consumers, usage.nodes, looked_at=usage.looked_at or now)
    verdict = _without_limit(previous, usage, policy, found=found, now=now)
    if isinstance(verdict, Delete):
        return replace(verdict, free=found.free)
    if not isinstance(verdict, Held) or policy.max_hold is None or previous.superseded_at is None:
        return verdict
    limit = previous.superseded_at + policy.max_hold
    if limit <= now:
        return Delete(f"after --max-hold {format_duration(policy.max_hold)}", verdict.reason)
    return Held(verdict.reason, min(limit, verdict.until or limit))


def _without_limit(
    previous: Publication, usage: Usage, policy: RetirePolicy, *, found: Holders, now: datetime
) -> Delete | Wait | Held:
    cleanup = policy.cleanup
    ripe, superseded = ripe_at(previous, cleanup), previous.superseded_at
    if ripe is None or superseded is None:
        raise ValueError("a current account is not retired")
    if ripe > now:
        return Wait(ripe)
    if found.certain:
        kind = HoldKind.FROZEN if previous.immutable else HoldKind.CONTAINERS
        return Held(HoldReason(kind, _named(found.certain)), None)
    followed = secret_back_at(previous) + VOLUMES_FOLLOW
    if now < followed and any(consumer.follows for consumer in usage.consumers):
        # Volumes have not followed yet: their containers may still read the old key.
        return Wait(followed)
    used = max(superseded, usage.last_used or superseded, usage.another_used or superseded)
    idle = used + cleanup.idle
    if found.possible and idle > now:
        return Held(HoldReason(HoldKind.POSSIBLE, _named(found.possible)), idle)
    if cleanup.kind is CleanupKind.IDLE:
        return _by_idle_policy(cleanup, used, now)
    return _by_unseen_use(previous, usage, policy, now=now, superseded=superseded)


def _by_idle_policy(cleanup: CleanupPolicy, used: datetime, now: datetime) -> Delete | Held:
    idle = used + cleanup.idle
    if idle <= now:
        return Delete(f"its key was idle for {format_duration(cleanup.idle)}")
    detail = f"for {format_duration(cleanup.idle)}: its key was used at {format_time(used)}"
    return Held(HoldReason(HoldKind.NOT_IDLE, detail), idle)


def _by_unseen_use(
    previous: Publication, usage: Usage, policy: RetirePolicy, *, now: datetime, superseded: datetime
) -> Delete | Wait | Held:
    """A use after the account was superseded, with no holder in sight, means a consumer that nobody sees."""
    limit = superseded + policy.unseen_hold
    if usage.another_used is not None and usage.another_used + policy.unseen_hold > now:
        # No Secret holds that key, so no restart ends its use.
        return _unseen(
            f"another key of the account was used at {format_time(usage.another_used)}", limit, policy, now=now
        )
    used = max(superseded, usage.last_used or superseded)
    looked_at = usage.looked_at or now
    by_containers = previous.held is not None and previous.held.kind in (HoldKind.CONTAINERS, HoldKind.FROZEN)
    if used == superseded or (by_containers and used < looked_at):
        # Unused, or used by holders that an earlier run saw and that were gone when this one looked.
        return Delete(f"superseded at {format_time(superseded)}")
    settled = superseded + 2 * PROPAGATION
    if settled > now:
        # Consumers that follow the Secret may still have used the old key; a later use is somebody else's.
        return Wait(settled)
    if used <= superseded + PROPAGATION:
        return Delete(f"superseded at {format_time(superseded)}")
    return _unseen(f"its key was used at {format_time(used)}, after it was superseded", limit, policy, now=now)


def _unseen(detail: str, limit: datetime, policy: RetirePolicy, *, now: datetime) -> Delete | Held:
    """Somebody whom no list of pods shows uses the account: it is held, but not for longer than that."""
    if limit > now:
        return Held(HoldReason(HoldKind.UNSEEN, f"{detail}; it goes at {format_time(limit)}"), limit)
    return Delete(f"after --unseen-hold {format_duration(policy.unseen_hold)}", HoldReason(HoldKind.UNSEEN, detail))


def _named(found: Collection[Holder]) -> str:
    """How many they are, and the first few by name, with the fact that decides."""
    shown = sorted({holder.name: str(holder) for holder in found}.items())
    return f"{len(shown)}: {', '.join(text for _, text in shown[:3])}{', …' if len(shown) > 3 else ''}"


def ended_claims(entry: Entry, now: datetime) -> tuple[Intent, ...]:
    return tuple(intent for intent in entry.unpublished if intent.claimed_until <= now)


def reachable(entry: Entry, account: Account) -> Account:
    """The account with the admin key of the target's last publication in the same project."""
    project = account.access.project
    same = [publication for publication in entry.history if publication.account.access.project == project]
    latest = max(same, key=lambda publication: publication.at, default=None)
    # The Secret of the account's own admin key may be gone, or renamed.
    if latest is None:
        return account
    return replace(account, access=replace(latest.account.access, fallback=account.access.fallback))
