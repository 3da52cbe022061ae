"""What to do for one target, decided from plain values: rotate, keep, or say why not. Pure; no clock of its own.

Guarantees: a target is due once per interval, measured from run start to run start (I5); a Secret is only ever written
where it is absent, ours, or was asked for with Merge; an account is deleted only after its claim and its grace, when
another account has taken its place or its Secret is gone (I3).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.errors import ConfigurationError, Deferred, Refused, RotatorError, Throttled, about
from worker.kubernetes.secret import MANAGED, OPERATOR_LABELS
from worker.ledger.transitions import renew_by
from worker.model.entries import Entry, Publication, current
from worker.model.outcomes import RunInfo
from worker.model.sightings import NamedAccount, SecretView
from worker.model.targets import CreationPolicy, Target
from worker.model.times import format_duration, format_time, next_attempt
from worker.observe.observation import Observation

LARGEST_SLACK = timedelta(minutes=5)
"""A run may start this much early against the one that rotated: schedules jitter."""

_ADOPT = "`openai-key-rotator adopt"


@dataclass(frozen=True, slots=True)
class Rotate:
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Keep:
    reason: str
    message: str
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """Somebody has to change an object before this target can be served."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Unable:
    """Something outside stands in the way. `until`: when the next attempt may be made, None: with the next run."""

    reason: str
    message: str
    until: datetime | None = None


Decision = Rotate | Keep | Blocked | Unable


def decide(target: Target, seen: Observation, run: RunInfo, now: datetime) -> Decision:
    """Decide what to do for a target."""
    entry = seen.entry
    if entry.ledger != run.ledger:
        return Blocked(
            "ForeignLedger",
            f"the ledger entry of {target.ref} was written by another installation (ledger {entry.ledger[:40]}): "
            f"nothing is rotated or deleted by it; {_ADOPT} {target.ref}` takes it over where that one is gone, and "
            "where it lives on, delete the entry to start afresh",
        )
    claim = entry.claimed_until(now)
    if claim is not None:
        return Keep("InProgress", f"a run may be working on it until {format_time(claim)}", claim)
    refusal = _refusal(target, seen)
    if refusal is not None:
        return refusal
    if target.suspended:
        return Keep("Suspended", "suspended by annotation: no rotation and no deletion")
    access = target.generator.access
    if seen.trouble is not None and _lasting(seen.trouble):
        return Unable(seen.trouble.reason, about(access, seen.trouble))
    wanted = _reason(target, seen, run)
    if wanted is None:
        return Keep("NotDue", _next(entry.next_rotation_at), entry.next_rotation_at)
    if seen.trouble is not None:
        until = seen.trouble.until if isinstance(seen.trouble, Deferred) else None
        return Unable(seen.trouble.reason, about(access, seen.trouble) + next_attempt(until), until)
    later = entry.failures.next_attempt_at
    if later is not None and later > now and not run.force and not _requested(target, entry, run):
        condition = entry.condition
        reason, message = (
            (condition.reason, condition.message) if condition else ("BackingOff", "the last attempt failed")
        )
        paused = f"{message}; that was the last attempt, the next is not made before {format_time(later)} or by --force"
        return Unable(reason, paused, later)
    return wanted


def _lasting(trouble: RotatorError) -> bool:
    """A trouble that waiting does not mend is reported although nothing is due yet."""
    return isinstance(trouble, ConfigurationError | Refused) and not isinstance(trouble, Throttled)


def _reason(target: Target, seen: Observation, run: RunInfo) -> Rotate | None:
    """Why this target needs a new key now, None where it does not."""
    entry, publication = seen.entry, current(seen.entry)
    if seen.secret is None:
        if not entry.history:
            return Rotate("First", "there is no Secret yet")
        return Rotate("SecretMissing", "the Secret was deleted")
    if publication is None:
        if seen.secret.named is not None:
            return Rotate("AccountGone", "the account that the Secret names does not exist at OpenAI")
        return Rotate("First", "the Secret holds no key of ours yet")
    return _healing(target, seen, publication, run) or _wish(target, seen, publication, run)


def _healing(target: Target, seen: Observation, publication: Publication, run: RunInfo) -> Rotate | None:
    """What is wrong with the key in the Secret, None where nothing is.

    A later run has seen a newer generator and a newer source: what it published is not put back to what they were.
    """
    account, secret = publication.account, seen.secret
    named = secret.named if secret is not None else None
    if secret is None or named is None or target.data_key not in secret.filled:
        what = f"its {target.data_key!r} or the annotation that names its account"
        return Rotate("KeyMissing", f"the Secret has lost {what}")
    if account.access.project != target.generator.access.project and not _overtaken(seen.entry, run):
        return Rotate("ProjectChanged", f"the generator's project is {target.generator.access.project} now")
    if seen.trouble is None and seen.asked and seen.named_at_openai is None:
        return Rotate("AccountGone", f"account {named.name[:64]!r} does not exist at OpenAI any more")
    if account.key_digest is not None and secret.digests.get(target.data_key) != account.key_digest:
        return Rotate("KeyMissing", f"the Secret's {target.data_key!r} is not the key of account {account.name}")
    if (named.name, named.id) != (account.name, account.id) and account.key_digest is not None:
        return Rotate("KeyMissing", f"the annotation names another account than {account.name}, whose key is there")
    return None


def _wish(target: Target, seen: Observation, publication: Publication, run: RunInfo) -> Rotate | None:
    """Why a target whose Secret is as it should be gets a new key all the same."""
    entry, account = seen.entry, publication.account
    if run.force:
        return Rotate("Forced", "forced by --force")
    if names := _requested(target, entry, run):
        words = ", ".join(_ANNOTATIONS.get(name, name) for name in names)
        return Rotate("Requested", f"requested by a new value of {words}")
    if account.expires_at is not None and run.started_at >= renew_by(publication, account.expires_at):
        return Rotate("Expiring", f"the key expires at {format_time(account.expires_at)}")
    if entry.failures.count or any(intent.requested_at > publication.at for intent in entry.unpublished):
        return Rotate("Retry", "the last attempt to rotate did not publish a key")
    if target.interval is not None:
        slack = min(target.interval / 10, LARGEST_SLACK)
        last = entry.last_rotated_at
        if last is None or run.started_at >= last + target.interval - slack:
            return Rotate("Due", f"the interval of {format_duration(target.interval)} has passed")
    return None


_ANNOTATIONS = {"forceSync": "force-sync", "generatorRotate": "rotate on the generator"}
"""What the ledger's names of requests are called where users write them."""


def _overtaken(entry: Entry, run: RunInfo) -> bool:
    """Has a run that began later rotated the target?"""
    return entry.last_rotated_at is not None and entry.last_rotated_at > run.started_at


def _requested(target: Target, entry: Entry, run: RunInfo) -> list[str]:
    """The requests that are open; none where a run that began later, and so has seen newer ones, has rotated."""
    if _overtaken(entry, run):
        return []
    return [name for name, value in target.requests.items() if entry.honoured.get(name) != value]


def _next(at: datetime | None) -> str:
    return f"next rotation at {format_time(at)}" if at is not None else "rotated on request only"


# --- may the Secret be written? ----------------------------------------------------------------------------------


def _refusal(target: Target, seen: Observation) -> Blocked | None:
    secret = seen.secret
    if secret is None:
        if target.creation is CreationPolicy.MERGE:
            return Blocked("SecretMissing", f"creationPolicy Merge needs the Secret {target.ref}, which does not exist")
        return None
    if secret.type != "Opaque":
        return Blocked(
            "SecretType", f"Secret {secret.ref} is of type {secret.type[:80]}: only Opaque Secrets are written"
        )
    if secret.immutable:
        return Blocked(
            "SecretImmutable", f"Secret {secret.ref} is immutable: delete it, or give the target another name"
        )
    if any(label in secret.labels for label in OPERATOR_LABELS) or _owned_by_another(target, secret):
        return Blocked(
            "ForeignSecret",
            f"Secret {secret.ref} belongs to another controller: remove its ExternalSecret there, or use another name; "
            f"where that was an operator that is stopped now, {_ADOPT} {secret.ref}` says how to take it over",
        )
    if secret.named is not None:
        return _foreign_annotation(target, seen, secret.named)
    merging = target.creation in (CreationPolicy.MERGE, CreationPolicy.CREATE_OR_MERGE)
    ours = secret.labels.get(MANAGED) == "true" and seen.entry.history
    owned = any(owner.get("uid") == target.source.uid for owner in secret.owners)
    if not (merging or ours or owned):
        return Blocked(
            "ForeignSecret",
            f"Secret {secret.ref} exists and is not managed by the rotator: "
            "delete it, use another name, or set creationPolicy Merge",
        )
    return None


def _foreign_annotation(target: Target, seen: Observation, named: NamedAccount) -> Blocked | None:
    """An account that our entry records is ours, whichever ledger the annotation names: that is what adopting does.

    One that OpenAI does not have any more is nobody's, and its key is dead.
    """
    if named.target != str(target.ref):
        return Blocked(
            "CopiedSecret",
            f"the annotation of Secret {target.ref} names the target {named.target[:120]!r}: it is a copy; "
            "delete it or its annotations",
        )
    foreign = named.ledger != seen.entry.ledger
    known = any((p.account.name, p.account.id) == (named.name, named.id) for p in seen.entry.history)
    if known or (not foreign and any(i.account.name == named.name for i in seen.entry.unpublished)):
        return None
    exists = seen.named_at_openai is not None or not seen.asked
    if seen.trouble is not None:
        exists = foreign  # nobody knows; what may be another installation's is left alone
    if exists and foreign:
        return Blocked(
            "ForeignLedger",
            f"the annotation of Secret {target.ref} was written by another installation "
            f"(ledger {named.ledger[:40]!r}): {_ADOPT} {target.ref}` records its account {named.name[:64]!r} where "
            "that one is gone; where it lives on, delete the Secret here to start afresh",
        )
    if exists:
        return Blocked(
            "UnknownAccount",
            f"the annotation of Secret {target.ref} names account {named.name[:64]!r}, which the ledger does not "
            f"record: {_ADOPT} {target.ref}` records it if it is ours; otherwise delete the Secret here to start "
            "afresh",
        )
    return None


def _owned_by_another(target: Target, secret: SecretView) -> bool:
    """An ExternalSecret other than the source owns the Secret. One of the source's name may be its earlier self."""
    return any(
        owner.get("kind") == "ExternalSecret"
        and str(owner.get("apiVersion", "")).startswith("external-secrets.io/")
        and (target.source.kind, target.source.ref.name) != ("ExternalSecret", owner.get("name"))
        for owner in secret.owners
    )
