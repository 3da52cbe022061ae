"""What to do for one target, decided from plain values: rotate, keep, or say why not. Pure; no clock of its own.

Guarantees: only the run that holds the claim works on a target.
A run writes a Secret only where `refusals` finds nothing.
A run makes a key only for one of `reasons`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from worker.errors import ConfigurationError, Deferred, NotShown, Refused, RotatorError, Throttled, about
from worker.ledger.transitions import HEALINGS_FORGOTTEN_AFTER
from worker.model.entries import Entry
from worker.model.outcomes import RunInfo
from worker.model.targets import Target
from worker.model.times import format_time, next_attempt, pause_after
from worker.observe.observation import Observation
from worker.plan.bounds import crowded
from worker.plan.decisions import NOT_DUE, Blocked, Decision, Keep, Rotate, Unable
from worker.plan.marks import last_writer, marks_lost
from worker.plan.reasons import forced_before, is_repeated, open_requests, reason_to_rotate
from worker.plan.refusals import ADOPT, refusal

REFUSAL_STANDS = timedelta(days=1)
"""So long nobody tries again what OpenAI refused to do with a new key for another reason than its scopes."""
TRY_ANEW = "; it is tried again after a change of the scopes, with a new value of rotate, or with --force"
HEALED_AT_ONCE = 3
"""So many times one after the other a Secret is healed without a pause."""


def decide(target: Target, seen: Observation, run: RunInfo, *, now: datetime) -> Decision:
    """Decide what to do for a target."""
    entry, trouble = seen.entry, seen.trouble
    if entry.ledger != run.ledger:
        return _foreign_entry(target, entry)
    # By the time of the look: whose claim ran then may have published since, and the look has not seen it.
    claim = entry.claimed_until(seen.at or now)
    if claim is not None:
        return Keep("InProgress", f"a run may be working on it until {format_time(claim)}", claim)
    refused = refusal(target, seen)
    if refused is not None:
        return refused
    if target.suspended:
        return Keep("Suspended", "suspended by annotation: no rotation and no deletion")
    if trouble is not None and _lasting(trouble):
        # Waiting does not mend it, so the run reports it although nothing may be due yet.
        return Unable(trouble.reason, about(target.generator.access, trouble))
    rotate = reason_to_rotate(target, seen, run)
    if rotate is not None and _perhaps_published_since(seen, run):
        message = "a run that began later has made the account that the Secret names: the next run looks again"
        return Keep("InProgress", message)
    restore = marks_lost(target, seen) if rotate is None else None
    if restore is not None:
        return restore
    if rotate is None and run.force and forced_before(entry, run):
        return Keep("ForcedBefore", "rotated by --force already: another try of the Job does not repeat it")
    if rotate is None:
        return Keep(NOT_DUE, _next(entry.next_rotation_at), entry.next_rotation_at)
    if trouble is not None:
        until = trouble.until if isinstance(trouble, Deferred) else None
        message = about(target.generator.access, trouble) + next_attempt(until)
        return Unable(trouble.reason, message, until)
    obstacle = (
        _scopes_refused(target, entry, run, now=now)
        or _backing_off(target, entry, run, now=now)
        or crowded(target, entry, rotate, run=run)
    )
    return obstacle or _put_back(target, seen, rotate, run=run, now=now) or rotate


def _perhaps_published_since(seen: Observation, run: RunInfo) -> bool:
    """Has a run that began later perhaps published a key, and died before it noted that?

    It has seen a newer generator. This run would ask for a second key, and put the former project back.
    """
    named = seen.secret.named if seen.secret is not None else None
    if named is None or seen.asked or run.force:
        # OpenAI's word settles it, and a human who forces a key gets one.
        return False
    return any(
        intent.account.name == named.name and not intent.refused and intent.requested_at > run.started_at
        for intent in seen.entry.unpublished
    )


def _foreign_entry(target: Target, entry: Entry) -> Blocked:
    return Blocked(
        "ForeignLedger",
        f"the ledger entry of {target.ref} was written by another installation (ledger {entry.ledger[:40]}): "
        f"nothing is rotated or deleted by it; {ADOPT} {target.ref}` takes it over where that one is gone, and "
        "where it lives on, delete the entry to start afresh",
    )


def _lasting(trouble: RotatorError) -> bool:
    return isinstance(trouble, ConfigurationError | Refused | NotShown) and not isinstance(trouble, Throttled)


def _scopes_refused(target: Target, entry: Entry, run: RunInfo, *, now: datetime) -> Blocked | None:
    """Why no key is made with these scopes: OpenAI refused them, and each try costs an account. None: one is made."""
    refused, project = entry.refused_scopes, target.generator.access.project
    if refused is None or (refused.scopes, refused.project) != (target.key_scopes, project):
        return None
    if open_requests(target, entry, run) or (run.force and (run.repeat or not forced_before(entry, run))):
        return None
    if refused.reason == "ScopesRefused":
        return Blocked(refused.reason, refused.message + TRY_ANEW)
    # The admin key may not change keys, say. Somebody may mend that without a word to us.
    later = refused.at + REFUSAL_STANDS
    if later <= now:
        return None
    return Blocked(refused.reason, f"{refused.message}{TRY_ANEW}, or at {format_time(later)}")


def _backing_off(target: Target, entry: Entry, run: RunInfo, *, now: datetime) -> Unable | None:
    """The pause after failed attempts, None where it is over or a human does not want to wait."""
    later = entry.failures.next_attempt_at
    if later is None or later <= now or run.force or open_requests(target, entry, run):
        return None
    reason = entry.condition.reason if entry.condition is not None else "BackingOff"
    before = f"{entry.condition.message}; " if entry.condition is not None else ""
    message = f"{before}last attempt failed; next attempt at {format_time(later)}, or now with --force"
    return Unable(reason, message, later)


def _put_back(target: Target, seen: Observation, rotate: Rotate, *, run: RunInfo, now: datetime) -> Unable | None:
    """The pause before a Secret is healed that somebody breaks again and again; None: no pause."""
    entry = seen.entry
    count, last = entry.healings.count, entry.healings.at
    if not is_repeated(rotate) or last is None or run.force or open_requests(target, entry, run):
        return None
    later = last + pause_after(count - HEALED_AT_ONCE) if count > HEALED_AT_ONCE else last
    if later <= now or now - last >= HEALINGS_FORGOTTEN_AFTER:
        return None
    message = (
        f"{rotate.message}; something breaks it again and again: find out what writes Secret {target.ref}. "
        "It gets a new key ever less often, once an hour at last" + last_writer(seen.secret)
    )
    return Unable("PutBack", message, later)


def _next(at: datetime | None) -> str:
    return f"next rotation at {format_time(at)}" if at is not None else "rotated on request only"
