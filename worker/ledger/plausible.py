"""Times that cannot be genuine: a wrong clock wrote them, or somebody's editor. Pure.

Guarantees: no time that lies ahead makes a target wait longer than a genuine one would.
A time that is taken back never lets an account go earlier than its grace from now on.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from worker.ledger.transitions import CLAIM, CLOCKS_APART
from worker.model.entries import Entry, Intent, Publication

LONGEST_THROTTLE = timedelta(days=1)
LONGEST_PAUSE = timedelta(hours=1)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
"""Before any key of ours: an account that was asked for at an unknown time may be held by every container."""


def plausible(entry: Entry, now: datetime) -> Entry:
    """The entry without times that lie further ahead than a run writes them."""
    horizon = now + CLOCKS_APART
    if not _any_ahead(entry, horizon):
        return entry
    throttle = entry.throttle
    if throttle is not None and throttle.until > now + LONGEST_THROTTLE:
        throttle = replace(throttle, until=now)
    later = entry.failures.next_attempt_at
    if later is not None and later > now + _longest_pause(entry):
        later = now
    last, refused = entry.last_rotated_at, entry.refused_scopes
    return replace(
        entry,
        history=tuple(_publication(publication, horizon, now) for publication in entry.history),
        unpublished=tuple(_intent(intent, horizon, now) for intent in entry.unpublished),
        last_rotated_at=now if last is not None and last > horizon else last,
        failures=replace(entry.failures, next_attempt_at=later),
        healings=replace(entry.healings, at=_not_ahead(entry.healings.at, horizon, now)),
        throttle=throttle,
        refused_scopes=refused and replace(refused, at=min(refused.at, now)),
    )


def _any_ahead(entry: Entry, horizon: datetime) -> bool:
    """Does any time lie ahead at all? Few entries have one, and thousands are read."""
    times = [entry.last_rotated_at, entry.failures.next_attempt_at, entry.healings.at]
    times.append(entry.throttle.until if entry.throttle is not None else None)
    times.append(entry.refused_scopes.at if entry.refused_scopes is not None else None)
    for publication in entry.history:
        times += [publication.at, publication.requested_at, publication.superseded_at, publication.secret_back_at]
        times += [publication.missed_at, publication.held.since if publication.held is not None else None]
        times.append(publication.restart.at if publication.restart is not None else None)
    for intent in entry.unpublished:
        times += [intent.requested_at, intent.claimed_until, intent.missed_at]
    return any(time is not None and time > horizon for time in times)


def _longest_pause(entry: Entry) -> timedelta:
    """Where OpenAI asked for a pause, the next attempt waits for it as well."""
    return LONGEST_THROTTLE if entry.throttle is not None else LONGEST_PAUSE + CLOCKS_APART


def _publication(publication: Publication, horizon: datetime, now: datetime) -> Publication:
    asked, held, restart = publication.requested_at, publication.held, publication.restart
    publication = replace(
        publication,
        missed_at=_not_ahead(publication.missed_at, horizon, now),
        held=held and replace(held, since=min(held.since, now)),
        restart=restart and replace(restart, at=_not_ahead(restart.at, horizon, now)),
    )
    if publication.at <= horizon and (asked is None or asked <= horizon):
        return replace(
            publication,
            superseded_at=_not_ahead(publication.superseded_at, horizon, now),
            secret_back_at=_not_ahead(publication.secret_back_at, horizon, now),
        )
    return replace(
        publication,
        at=min(publication.at, now),
        requested_at=LONG_AGO,
        superseded_at=_not_ahead(publication.superseded_at, horizon, now),
        secret_back_at=_not_ahead(publication.secret_back_at, horizon, now),
    )


def _intent(intent: Intent, horizon: datetime, now: datetime) -> Intent:
    asked = LONG_AGO if intent.requested_at > horizon else intent.requested_at
    claimed = now if intent.claimed_until > now + CLAIM + CLOCKS_APART else intent.claimed_until
    return replace(
        intent, requested_at=asked, claimed_until=claimed, missed_at=_not_ahead(intent.missed_at, horizon, now)
    )


def _not_ahead(at: datetime | None, horizon: datetime, now: datetime) -> datetime | None:
    return now if at is not None and at > horizon else at
