"""May a previous account be deleted now? Decided from plain values. Pure; no clock of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worker.ledger.holds import NOT_IDLE, POSSIBLY, UNSEEN, is_by_containers
from worker.ledger.transitions import CLAIM, VOLUMES_FOLLOW
from worker.model.entries import Account, Entry, Intent, Publication, current
from worker.model.sightings import Consumer
from worker.model.targets import CleanupKind, CleanupPolicy
from worker.model.times import format_duration, format_time
from worker.plan.holders import holders, secret_back_at

PROPAGATION = timedelta(minutes=2)
"""A use of a key this soon after it was superseded says nothing: volumes and caches follow with a delay."""


# --- retirement --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delete:
    """May be deleted now. `hit`: who holds it all the same, where the longest hold has passed."""

    why: str
    hit: str | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """May be deleted at `until`, not earlier."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody uses the key, or may; asked again in the next run. `until`: held no longer than this, None: no limit."""

    why: str
    until: datetime | None


def ripe_at(previous: Publication, cleanup: CleanupPolicy) -> datetime | None:
    """The earliest moment at which a publication may go, by its grace period alone; None: it is current.

    Not before all that its request may have made has appeared: something on the way may have sent it twice.
    """
    if previous.superseded_at is None:
        return None
    grace = cleanup.grace if cleanup.kind is CleanupKind.RETAIN_LATEST else cleanup.idle
    return max(previous.superseded_at + grace, (previous.requested_at or previous.at) + CLAIM)


def next_release(entry: Entry, now: datetime) -> datetime | None:
    """When the next account may go that may not go yet, by grace and claim alone; None: there is none."""
    claim = entry.claimed_until(now)
    if claim is not None:
        return claim
    times = [ripe_at(publication, entry.generator.cleanup) for publication in entry.history]
    return min((at for at in times if at is not None and at > now), default=None)


def may_yet_publish(entry: Entry, intent: Intent) -> bool:
    """May the run of an intent still write the Secret, although its claim has ended?

    One that noted nothing may be dead, or stopped right before that write. Once another key was published since, the
    write is refused, for it is made under the resourceVersion of before.
    """
    publication = current(entry)
    return not intent.refused and (publication is None or publication.at <= intent.requested_at)


def decide_retirement(
    previous: Publication,
    cleanup: CleanupPolicy,
    last_used: datetime | None,
    unseen_hold: timedelta,
    now: datetime,
    *,
    consumers: Collection[Consumer] = (),
    looked_at: datetime | None = None,
    max_hold: timedelta | None = None,
) -> Delete | Wait | Held:
    """May a superseded account go, given who consumes its Secret and when its key was last used (None: never)?

    `looked_at`: when the consumers were looked for, None: now. `max_hold`: since it was superseded; whoever holds it
    for longer loses it.
    """
    looked_at = looked_at or now
    verdict = _retirement(previous, cleanup, last_used, unseen_hold, now, consumers=consumers, looked_at=looked_at)
    if not isinstance(verdict, Held) or max_hold is None or previous.superseded_at is None:
        return verdict
    limit = previous.superseded_at + max_hold
    if limit <= now:
        return Delete(f"after --max-hold {format_duration(max_hold)}", verdict.why)
    return Held(verdict.why, min(limit, verdict.until or limit))


def _retirement(
    previous: Publication,
    cleanup: CleanupPolicy,
    last_used: datetime | None,
    unseen_hold: timedelta,
    now: datetime,
    *,
    consumers: Collection[Consumer],
    looked_at: datetime,
) -> Delete | Wait | Held:
    ripe, superseded = ripe_at(previous, cleanup), previous.superseded_at
    if ripe is None or superseded is None:
        raise ValueError("a current account is not retired")
    if ripe > now:
        return Wait(ripe)
    certain, possible = holders(previous, consumers)
    if certain:
        return Held(_named(certain), None)
    followed = secret_back_at(previous) + VOLUMES_FOLLOW
    if now < followed and any(consumer.follows for consumer in consumers):
        return Wait(followed)
    used = max(superseded, last_used or superseded)
    idle = used + cleanup.idle
    if possible and idle > now:
        return Held(f"{POSSIBLY} {_named(possible)}", idle)
    if cleanup.kind is CleanupKind.IDLE:
        if idle > now:
            return Held(
                f"{NOT_IDLE} for {format_duration(cleanup.idle)}: its key was used at {format_time(used)}", idle
            )
        return Delete(f"its key was idle for {format_duration(cleanup.idle)}")
    limit = superseded + unseen_hold
    # A use is explained by holders that an earlier run has seen for certain, and that were gone when looked for now.
    explained = previous.held is not None and is_by_containers(previous.held) and used < looked_at
    if used > superseded and not explained:
        settled = superseded + 2 * PROPAGATION
        if settled > now:
            return Wait(settled)  # it was in use just now: is it still, once all who follow the Secret have followed?
    if used > superseded + PROPAGATION and not explained:
        unseen = f"{UNSEEN}: its key was used at {format_time(used)}, after it was superseded"
        if limit > now:
            return Held(f"{unseen}; it goes at {format_time(limit)}", limit)
        return Delete(f"after --unseen-hold {format_duration(unseen_hold)}", unseen)
    return Delete(f"superseded at {format_time(superseded)}")


def _named(consumers: Collection[Consumer]) -> str:
    """How many they are, and the first few by name."""
    names = sorted({consumer.name for consumer in consumers})
    return f"{len(names)}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"


def ended_claims(entry: Entry, now: datetime) -> tuple[Intent, ...]:
    return tuple(intent for intent in entry.unpublished if intent.claimed_until <= now)


def reachable(entry: Entry, account: Account) -> Account:
    """The account, seen through the admin key that the target's last publication in the same project was made with: the
    Secret of its own may be gone, or renamed.
    """
    project = account.access.project
    same = [publication for publication in entry.history if publication.account.access.project == project]
    latest = max(same, key=lambda publication: publication.at, default=None)
    return replace(account, access=latest.account.access) if latest is not None else account
