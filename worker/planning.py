"""What to do for one target, decided from plain values: rotate, keep, or say why not. Pure; no clock of its own.

Guarantees: a target is due once per interval, measured from run start to run start (I5); a Secret is only ever written
where it is absent, ours, or was asked for with Merge; an account is deleted only after its claim and its grace, when
another account has taken its place or its Secret is gone (I3).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.bookkeeping import CLAIM, VOLUMES_FOLLOW, current, renew_by
from worker.codec import MANAGED
from worker.errors import ConfigurationError, Deferred, Refused, RotatorError, Throttled
from worker.formats import format_duration, format_time
from worker.holding import NOT_IDLE, POSSIBLY, UNSEEN, is_by_containers
from worker.model import (
    CleanupKind,
    CleanupPolicy,
    Consumer,
    CreationPolicy,
    Entry,
    Intent,
    NamedAccount,
    ProjectAccess,
    Publication,
    RunInfo,
    SecretView,
    Target,
)

LARGEST_SLACK = timedelta(minutes=5)
"""A run may start this much early against the one that rotated: schedules jitter."""

PROPAGATION = timedelta(minutes=2)
"""A use of a key this soon after it was superseded says nothing: volumes and caches follow with a delay."""

STALE = timedelta(minutes=5)
"""A container started this soon after an account was superseded may still have got its key: the kubelet reads the
Secret before it makes the container, and possibly from a cache."""

_ADOPT = "`openai-key-rotator adopt"

CLOCKS_APART = timedelta(minutes=1)

OPERATOR_LABELS = ("reconcile.external-secrets.io/created-by", "reconcile.external-secrets.io/managed")


@dataclass(frozen=True, slots=True)
class Observation:
    """One target as a run found it. `entry` is already reconciled with the Secret."""

    secret: SecretView | None
    entry: Entry
    named_at_openai: str | None = None
    """The name OpenAI has for the account id that the Secret names; None: there is no such account, if asked."""
    trouble: RotatorError | None = None
    """Why OpenAI could not be asked about this project."""
    asked: bool = True
    """Whether OpenAI could be asked about the account that the Secret names."""


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


def next_attempt(until: datetime | None) -> str:
    """The end of a message about something that was not done."""
    return f"; next attempt {'with the next run' if until is None else 'at ' + format_time(until)}"


def about(access: ProjectAccess, error: RotatorError) -> str:
    """An error's message; one of OpenAI's says which key, project or host it is about, where it does not yet."""
    project = access.project
    if error.reason in ("OpenAIUnauthorized", "OpenAIForbidden"):
        return f"{error.message}; asked with {access.admin_key} about project {project}"
    if error.reason in ("OpenAINotFound", "OpenAIRefused"):
        return f"{error.message}; asked about project {project}"
    if error.reason in _ABOUT_THE_HOST and project.host not in error.message:
        return f"{error.message}; the host is {project.host}"
    return error.message


_ABOUT_THE_HOST = ("OpenAIUnreachable", "OpenAIUnanswered", "OpenAIUnintelligible", "OpenAIRedirect")


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
        elif started <= (_back(previous) if consumer.mounted else superseded) + STALE:
            possible.append(consumer)
    return certain, possible


def _while_gone(previous: Publication, moment: datetime) -> bool:
    """Was the Secret deleted then, as far as is known?"""
    return previous.frozen or (previous.secret_gone and moment < _back(previous))


def _back(previous: Publication) -> datetime:
    if previous.followed_from is None:
        raise ValueError("a current account is in its Secret")
    return previous.followed_from


def may_yet_publish(entry: Entry, intent: Intent) -> bool:
    """May the run of an intent still write the Secret, although its claim has ended?

    One that noted nothing may be dead, or stopped right before that write. Once another key was published since, the
    write is refused, for it is made under the resourceVersion of before.
    """
    publication = current(entry)
    return not intent.refused and (publication is None or publication.at <= intent.requested_at)


def retirement_of(
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
    followed = _back(previous) + VOLUMES_FOLLOW
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
