"""How the ledger's knowledge of a Secret's admin keys changes. Pure.

Guarantees: the current key is the one that the Secret carries, told by its digest.
A key that a human made and a human replaced leaves the ledger: it is not the worker's to delete.
An intent leaves only by its publication, or when its key is gone or was never made.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from worker.ledger.transitions import LISTS_APART
from worker.model.admin_keys import AdminEntry, AdminIntent, AdminKey
from worker.model.audited import AdminKeyFacts
from worker.model.entries import Failures

READY, UNASKED = "Rotated", "Unasked"
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=10), timedelta(days=1)


def caught_up(entry: AdminEntry, digest: str, now: datetime) -> AdminEntry:
    """The entry by the key that the Secret carries. Without a current key: nobody has recorded that one yet."""
    current, intent = entry.current, entry.intent
    if current is not None and current.digest == digest:
        return entry
    if intent is not None and intent.digest == digest:
        # Its run could not note it. No run sends that write after its claim, so the former key was replaced by then.
        return published(entry, intent.name, at=now, by=intent.claimed_until)
    known = next((key for key in entry.history if key.digest == digest), None)
    if known is None:
        return _superseded(entry, now, by_us=False)
    # With another recorded one in between it was put back; after a stranger's key it is merely mended. Whichever way,
    # a human has taken that other one out.
    back = replace(
        known,
        superseded_at=None,
        replaced_at=None,
        put_back=current is not None,
        held="",
        held_since=None,
        missed_at=None,
    )
    rest = _superseded(entry, now, by_us=False)
    return replace(rest, history=tuple(back if key.id == known.id else key for key in rest.history))


def found(entry: AdminEntry, facts: AdminKeyFacts, digest: str, now: datetime) -> AdminEntry:
    """Record the key that a human put into the Secret, as OpenAI lists it."""
    others = tuple(key for key in entry.history if key.id != facts.id)
    made = any(key.made for key in entry.history if key.id == facts.id)
    key = AdminKey(facts.id, facts.name, digest, now, made, facts.created_at, facts.expires_at)
    return replace(entry, history=(*others, key))


def unasked(entry: AdminEntry, now: datetime) -> AdminEntry:
    """No annotation asks for a rotation any more: with the next one a key that was put back counts as any other."""
    entry = replace(entry, history=tuple(replace(key, put_back=False) for key in entry.history))
    return entry.with_condition(True, UNASKED, "no annotation asks for a rotation", now=now)


def forgettable(entry: AdminEntry) -> bool:
    """Is nothing recorded that the worker has made, or is to delete?"""
    return entry.intent is None and not entry.superseded and (entry.current is None or not entry.current.made)


def intended(entry: AdminEntry, name: str, *, now: datetime, claimed_until: datetime) -> AdminEntry:
    return replace(entry, intent=AdminIntent(name, now, claimed_until))


def answered(entry: AdminEntry, intent: AdminIntent) -> AdminEntry:
    """OpenAI's answer to the create: from now on the Secret may carry the key."""
    return replace(entry, intent=intent) if holds(entry, intent.name) else entry


def lost(entry: AdminEntry, name: str, id: str, *, now: datetime) -> AdminEntry:
    """OpenAI's answer to a create that another run has settled meanwhile: the key is never published, and is to go."""
    return replace(entry, intent=AdminIntent(name, now, now, id=id, refused=True))


def holds(entry: AdminEntry, name: str) -> bool:
    return entry.intent is not None and entry.intent.name == name and not entry.intent.refused


def published(entry: AdminEntry, name: str, *, at: datetime, by: datetime | None = None) -> AdminEntry:
    """The intent's key is in the Secret since `at`, as far as is known. `by`: it was there by then."""
    key = _made(entry.intent, name, at=at)
    if key is None:
        return entry
    entry = _superseded(entry, at, by_us=True, by=by)
    return replace(
        entry, history=(*entry.history, key), intent=None, last_rotated_at=key.created_at, failures=Failures()
    )


def was_published(entry: AdminEntry, name: str, *, now: datetime) -> AdminEntry:
    """The intent's key was in the Secret, and no run has seen it there: it is a former key from now on."""
    key = _made(entry.intent, name, at=now)
    if entry.intent is None or key is None:
        return entry
    former = replace(key, at=min(entry.intent.claimed_until, now), superseded_at=now)
    return replace(entry, history=(*entry.history, former), intent=None)


def _made(intent: AdminIntent | None, name: str, *, at: datetime) -> AdminKey | None:
    """The key that this intent's request made, in the Secret at that time; None: it is another's, or was never made."""
    if intent is None or intent.name != name or intent.id is None or intent.digest is None:
        return None
    return AdminKey(intent.id, name, intent.digest, at, True, intent.requested_at, intent.expires_at)


def failed(
    entry: AdminEntry, name: str, *, reason: str, message: str, now: datetime, definite: bool, made: bool
) -> AdminEntry:
    """Note a failed attempt. `definite`: its run never publishes the key. `made`: OpenAI may have made one."""
    intent = entry.intent
    if intent is not None and intent.name == name:
        if definite and not made:
            entry = replace(entry, intent=None)
        elif definite:
            entry = replace(entry, intent=replace(intent, refused=True, claimed_until=min(intent.claimed_until, now)))
    count = entry.failures.count + 1
    pause = min(_FIRST_PAUSE * 2 ** min(count - 1, 10), _LONGEST_PAUSE)
    return replace(entry, failures=Failures(count, now + pause)).with_condition(False, reason, message, now=now)


def released(entry: AdminEntry, ids: Collection[str]) -> AdminEntry:
    """The entry without keys of which OpenAI has confirmed that they do not exist."""
    intent = entry.intent if entry.intent is None or entry.intent.id not in ids else None
    return replace(entry, history=tuple(key for key in entry.history if key.id not in ids), intent=intent)


def missed(entry: AdminEntry, id: str, list_begun_at: datetime) -> AdminEntry:
    """Note a complete list without a superseded key. The second one releases it."""
    key = next((key for key in entry.superseded if key.id == id), None)
    if key is None:
        return entry
    if _twice(key.missed_at, list_begun_at):
        return released(entry, [id])
    first = replace(key, missed_at=key.missed_at or list_begun_at)
    return replace(entry, history=tuple(first if other.id == id else other for other in entry.history))


def intent_missed(entry: AdminEntry, name: str, list_begun_at: datetime) -> AdminEntry:
    """Note a complete list, begun after the claim, without any key of the intent's name. The second one settles it."""
    intent = entry.intent
    if intent is None or intent.name != name or intent.claimed_until > list_begun_at:
        return entry
    over = _twice(intent.missed_at, list_begun_at)
    return replace(entry, intent=None if over else replace(intent, missed_at=intent.missed_at or list_begun_at))


def _twice(missed_at: datetime | None, list_begun_at: datetime) -> bool:
    return missed_at is not None and list_begun_at >= missed_at + LISTS_APART


def held(entry: AdminEntry, id: str, why: str, now: datetime) -> AdminEntry:
    """Note why a superseded key stays; empty: nothing holds it any more."""

    def noted(key: AdminKey) -> AdminKey:
        return replace(key, held=why, held_since=(key.held_since or now) if why else None, missed_at=None)

    return replace(
        entry, history=tuple(noted(key) if key in entry.superseded and key.id == id else key for key in entry.history)
    )


def _superseded(entry: AdminEntry, at: datetime, *, by_us: bool, by: datetime | None = None) -> AdminEntry:
    """Nothing is current any more. What a human replaced stays recorded only if the worker made it.

    `by`: when it was so at the latest, where that is earlier than `at`.
    """
    replaced = by if by is not None and by < at else None
    kept = [key for key in entry.history if by_us or key.made or key.superseded_at is not None]
    return replace(
        entry,
        history=tuple(
            replace(key, superseded_at=at, replaced_at=replaced, put_back=False) if key.superseded_at is None else key
            for key in kept
        ),
    )
