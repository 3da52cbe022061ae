"""Whether an admin key of the operator's is replaced now, and which of its predecessors go. Pure.

Guarantees: nothing is asked for while an earlier request's fate is open, or a claim runs.
A key goes only if the ledger records it, another one is in the Secret, its grace is over, and OpenAI shows that it was
used and by nobody since.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.kubernetes.admin_secret import SHORTEST_INTERVAL
from worker.model.admin_keys import AdminEntry, AdminIntent, AdminKey, AdminSecretView, NamedAdminKey
from worker.model.audited import AdminKeyFacts
from worker.model.times import format_time
from worker.model.values import PREFIX

MOST_KEYS = 3
"""Recorded keys of one Secret that may live; beside them none is made on schedule."""
USE_BY_RUNS = timedelta(hours=1)
"""A run that has read the former key works with it for so long, at most: its use is not somebody else's."""
LATE_WRITES = timedelta(hours=1)
"""So long after the claim a PATCH without an answer may still arrive; its key stays until then."""
_USE_SHOWN = timedelta(days=1)
"""OpenAI documents no precision of a last use: one that is earlier by more than this is another one."""
_ENDS_AT = 1 / 3
"""A key with an end is replaced when this share of its life is left."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing is to be done. `reason` is empty where nobody asks for anything."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """A human has to act first."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Ask:
    """What OpenAI says of the key has to be heard first: it is not recorded yet."""


@dataclass(frozen=True, slots=True)
class Replace:
    reason: str
    message: str


AdminDecision = Leave | Refuse | Ask | Replace


def decide_admin_key(
    named: NamedAdminKey, view: AdminSecretView, entry: AdminEntry, *, ledger: str, now: datetime, forced: bool = False
) -> AdminDecision:
    """What to do about the key in the Secret. `entry` is caught up with it. `forced`: by `revoke`, wished or not."""
    if entry.ledger != ledger:
        message = f"its AdminKeyRotation is another ledger's ({entry.ledger[:40]}): delete that object if it is a copy"
        return Refuse("ForeignLedger", message)
    if entry.host != named.host and (entry.history or entry.intent is not None):
        message = (
            f"the ledger records keys of {entry.host} for it, and options name {named.host}: delete those keys there, "
            f"and then the AdminKeyRotation {entry.secret}"
        )
        return Refuse("AdminKeyHost", message)
    if entry.claimed_until(now) is not None:
        return Leave("InProgress", "another run is replacing it")
    if view.interval is None and not forced:
        return Leave()
    if entry.intent is not None:
        return Leave("Unsettled", f"the fate of {entry.intent.name}, asked for earlier, is settled first")
    if not forced and view.mistake:
        return Refuse("AdminKeyInterval", view.mistake)
    if (standing := _standing(named, view)) is not None:
        return standing
    current = entry.current
    if current is None:
        return Ask()
    if forced:
        return Replace("Forced", "it is revoked")
    if current.put_back:
        return Refuse("PutBack", _put_back(current))
    later = entry.failures.next_attempt_at
    if later is not None and later > now:
        condition = entry.condition
        return Leave("BackingOff", condition.message if condition is not None else "")
    due = due_at(entry, view)
    if due is not None and due > now:
        return Leave("Rotated", f"key {current.name or current.id} is current")
    if len([key for key in entry.history if not has_ended(key.expires_at, now)]) >= MOST_KEYS:
        return Refuse("AdminKeysPileUp", _piled_up(entry))
    return Replace("Due", "it is due")


def due_at(entry: AdminEntry, view: AdminSecretView) -> datetime | None:
    """When the current key is to be replaced: by its interval, or before it ends by itself; None: never."""
    current = entry.current
    if current is None or view.interval is None:
        return None
    # No key is published or found before it is made, whatever a clock or an editor says.
    made = min(current.created_at or current.at, current.at)
    last = entry.last_rotated_at
    due = max(made, last or made) + view.interval
    if current.expires_at is not None and current.expires_at > made:
        life = current.expires_at - made
        due = min(due, current.expires_at - life * _ENDS_AT)
        # A dying key that is put back must not cause a rotation in each run, nor must an end that OpenAI tells wrongly.
        often = max(min(view.interval, life / 2, timedelta(days=1)), SHORTEST_INTERVAL)
        due = due if last is None else max(due, last + often)
    return due


def lifetime(facts: AdminKeyFacts) -> timedelta | None:
    """The lifetime for a key's successor: its own one. A key without end has a successor without end."""
    if facts.expires_at is None or facts.created_at is None or facts.expires_at <= facts.created_at:
        return None
    return facts.expires_at - facts.created_at


def restriction(facts: AdminKeyFacts) -> Refuse | None:
    """A restricted key is not replaced: OpenAI makes admin keys without restriction only."""
    if not facts.scopes:
        return None
    message = (
        f"the key is restricted to {', '.join(facts.scopes)}, and OpenAI's API makes unrestricted admin keys only: "
        "make the next one in OpenAI's console, put it into this Secret, and take the annotation away"
    )
    return Refuse("AdminKeyRestricted", message)


def unknown(listed: Collection[AdminKeyFacts]) -> Refuse:
    """OpenAI's list does not tell which key the Secret has."""
    message = (
        f"OpenAI lists {len(listed)} admin keys, and no single one with both ends of this Secret's value: its id is "
        "not known, so it could not be deleted later. Put a new key of your own into the Secret"
    )
    return Refuse("AdminKeyUnknown", message)


# --- its predecessors


def ripe(entry: AdminEntry, view: AdminSecretView, now: datetime) -> tuple[AdminKey, ...]:
    """The superseded keys whose grace is over."""
    grace = max(view.grace, USE_BY_RUNS)
    return tuple(k for k in entry.superseded if k.superseded_at is not None and k.superseded_at + grace <= now)


def unsettled(entry: AdminEntry, now: datetime) -> AdminIntent | None:
    """An intent whose key is to go now: no run publishes it any more, and no PATCH is under way."""
    intent = entry.intent
    if intent is None or intent.claimed_until > now:
        return None
    # Without a digest in the ledger nothing was published, and a refusal says that nothing will be.
    if intent.digest is None or intent.refused or intent.claimed_until + LATE_WRITES <= now:
        return intent
    return None


def was_in_use(intent: AdminIntent, listed: Collection[AdminKeyFacts]) -> bool:
    """Was the key of an unsettled intent used after the claim? Then it was in the Secret, though no run has seen it.

    Its own run works with it until the claim ends. One that stands still meanwhile may use it later: the key merely
    stays longer then.
    """
    used = [facts.last_used_at for facts in listed if facts.id == intent.id and facts.last_used_at is not None]
    return not intent.refused and intent.digest is not None and any(at > intent.claimed_until for at in used)


def has_ended(expires_at: datetime | None, now: datetime) -> bool:
    """Has OpenAI refused the key for an hour? No clock is that wrong."""
    return expires_at is not None and expires_at + timedelta(hours=1) <= now


def hold(key: AdminKey, facts: AdminKeyFacts, elsewhere: Mapping[str, Collection[str]], now: datetime) -> str:
    """Why a ripe key has to stay; empty: it may go. `elsewhere`: the Secrets with a value, by its digest."""
    end, used = facts.expires_at, facts.last_used_at
    if end is not None and has_ended(end, now) and (used is None or used <= end):
        return ""  # nobody can use it any more
    others = sorted(elsewhere.get(key.digest, ()))
    if others:
        return f"{', '.join(others)} has it too: put the new key there"
    if facts.last_used_at is None:
        return "OpenAI tells no use of it, so whether somebody else has it is not known"
    # The grace runs from when it was noted. Runs have read the key until it was replaced, and no longer.
    replaced = key.replaced_at or key.superseded_at
    if replaced is None or facts.last_used_at > replaced + USE_BY_RUNS:
        return f"somebody else uses it, last at {format_time(facts.last_used_at)}"
    if facts.last_used_at < key.at - _USE_SHOWN:
        # The worker itself has asked with it then: a list's two ends of a value may be another key's.
        return "OpenAI shows no use of it at the time at which the worker used it, so it may be another key"
    return ""


def made_for(intent: AdminIntent, listed: Collection[AdminKeyFacts], recorded: Collection[str]) -> list[AdminKeyFacts]:
    """The keys that an intent's request made: those of its name.

    When they were made does not count: a clock that was wrong at either end would leave a key behind. Nobody can have
    given a key this name before the ledger had it, for it was drawn by chance.
    """
    return [
        facts for facts in listed if facts.id == intent.id or (facts.name == intent.name and facts.id not in recorded)
    ]


def twins(entry: AdminEntry, listed: Collection[AdminKeyFacts]) -> list[AdminKeyFacts]:
    """Further keys that a request of ours made which something on the way has sent twice: nobody has their values."""
    recorded = {key.id for key in entry.history}
    made = [key for key in entry.history if key.made and key.name]
    return [
        facts
        for facts in listed
        for key in made
        if facts.name == key.name
        and facts.id not in recorded
        and facts.created_at is not None
        and key.created_at is not None
        and abs(facts.created_at - key.created_at) <= timedelta(minutes=5)
    ]


def _standing(named: NamedAdminKey, view: AdminSecretView) -> Refuse | None:
    """What stands in the way whatever the ledger says."""
    if named.problem:
        return Refuse("AdminKeyShared", named.problem)
    if view.immutable:
        return Refuse("SecretImmutable", "its Secret is immutable: make it anew without `immutable`")
    if view.owner:
        message = f"its Secret is written by a controller ({view.owner}), which would put the former key back"
        return Refuse("AdminSecretOwned", message)
    return None


def _put_back(current: AdminKey) -> str:
    return (
        f"somebody put the former key {current.name or current.id} back into the Secret, perhaps a tool that applies "
        "it from elsewhere: no further one is made. Keep the Secret's data out of that tool, and put a new key in; or "
        f"take the annotation {PREFIX}admin-key-interval away for a run"
    )


def _piled_up(entry: AdminEntry) -> str:
    why = "; ".join(f"{key.name or key.id}: {key.held or 'its grace runs'}" for key in entry.superseded)
    return (
        f"{len(entry.superseded)} former keys still live, so none is made beside them ({why}). `openai-key-rotator "
        f"revoke --admin-secret {entry.secret}` deletes them"
    )
