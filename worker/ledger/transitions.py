"""How a target's entry changes: each step of a rotation as a pure function from one entry to the next.

Guarantees: an account leaves an entry only by `released` and `missed` (invariant I4).
On a human's word it leaves by `forgotten`.
At most one publication is not superseded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from worker.errors import Deferred, RotatorError
from worker.ledger import holds
from worker.model.entries import (
    Account,
    Entry,
    Failures,
    GeneratorNote,
    Healings,
    Intent,
    Look,
    NodeThen,
    Publication,
    RefusedScopes,
    Restart,
    RestartState,
    current,
)
from worker.model.outcomes import RunInfo
from worker.model.targets import RefreshPolicy, Target
from worker.model.times import format_time, pause_after

READY = "Rotated"
SUSPENDED = "Suspended"
CLAIM = timedelta(seconds=210)
"""How long an intent claims its target. It covers rotation's work and last write (165 s), the `timeout` parameter of
API server requests (15 s), and a margin for clocks. An account that a run requested has appeared at OpenAI by then."""
CLOCKS_APART = timedelta(minutes=1)
"""Two runs' clocks may be so far apart: each follows the API server that it happens to reach."""
UNKNOWN_FATE_PAUSE = timedelta(seconds=45)
"""The minimum pause of a target after a request with an unknown outcome. A claim is longer, but it may have ended
before a stopped run sent the request."""
VOLUMES_FOLLOW = timedelta(minutes=4)
"""How long a kubelet takes to bring a mounted volume up to date: 79 s were measured, and a cut of a minute that no
condition of its node tells of may come before."""
LISTS_APART = timedelta(minutes=1)
"""How far apart the two lists must begin that release an intent without an account."""

HEALINGS_FORGOTTEN_AFTER = timedelta(hours=3)
"""A Secret that was healed and stayed well for so long is healed at once the next time."""
EMPTY_BELIEVED_AFTER = timedelta(days=1)
FORGOTTEN_NOTED = 20
"""So many accounts that a human had it forget an entry keeps in mind."""
SOURCE = "source"
"""Under which name the ledger notes the uid of the ExternalSecret that OnChange has seen."""
FORCED = "force"
"""Under which name the ledger notes the last `--force`: its Job, or outside one its time."""
_LARGEST_EXPIRY_MARGIN = timedelta(days=1)
_SHOWN = 5


def intended(
    entry: Entry, target: Target, account: Account, *, run: RunInfo, requested_at: datetime, claimed_until: datetime
) -> Entry:
    """The entry that names an account before its request, claims the target, and honours the target's requests."""
    if entry.condition is None:
        entry = entry.with_condition(False, "InProgress", "its first key is being made", now=requested_at)
    # The first key replaces none of ours: whoever waits for the Secret starts by itself.
    restart = target.restart is not None and entry.since is not None
    return replace(
        entry,
        ledger=run.ledger,
        generator=generator_note(target),
        unpublished=(
            *(intent for intent in entry.unpublished if intent.account.name != account.name),
            Intent(account, requested_at, claimed_until, restart=restart),
        ),
        honoured={**entry.honoured, **target.requests, **_source_noted(target), **_forced(run)},
    )


def _forced(run: RunInfo) -> dict[str, str]:
    return {FORCED: run.job or format_time(run.started_at)} if run.force else {}


def holds_intent(entry: Entry, name: str) -> bool:
    return any(intent.account.name == name for intent in entry.unpublished)


def published(
    entry: Entry,
    account: Account,
    rotated_at: datetime,
    *,
    at: datetime,
    nodes_then: tuple[NodeThen, ...] | None = None,
) -> Entry:
    """The intent's account is in the Secret since `at`, and supersedes the earlier accounts from then on.

    `rotated_at`: the start of the run, from which the interval is measured.
    `nodes_then`: the nodes whose pods referred to the Secret then; None: unknown.
    """
    # The history has it already where another run noted it first, from the Secret.
    if any(publication.account.name == account.name for publication in entry.history):
        # Noted already, from the Secret: what came after it stands.
        return replace(entry, unpublished=_without(entry.unpublished, account.name))
    intent = next((item for item in entry.unpublished if item.account.name == account.name), None)
    requested = intent.requested_at if intent is not None else None
    later = min((publication.at for publication in entry.history if publication.at > at), default=None)
    if later is not None:
        # This note comes late: another account was published since, and took its place then.
        late = Publication(account, at, later, requested)
        history = tuple(sorted((*entry.history, late), key=lambda publication: publication.at))
        return replace(entry, history=history, unpublished=_without(entry.unpublished, account.name))
    restart = Restart() if intent is not None and intent.restart else None
    new = Publication(account, at, None, requested, restart=restart)
    others = tuple(
        superseded(publication, at, nodes_then)
        for publication in secret_back(entry, at).history
        if publication.account.name != account.name
    )
    return replace(
        entry,
        history=(*others, new),
        unpublished=_without(entry.unpublished, account.name),
        since=entry.since or requested or at,
        last_rotated_at=max(rotated_at, entry.last_rotated_at or rotated_at),
        failures=Failures(),
        throttle=None,
        refused_scopes=None,
    )


def _without(intents: Collection[Intent], name: str) -> tuple[Intent, ...]:
    return tuple(intent for intent in intents if intent.account.name != name)


def healed(entry: Entry, at: datetime) -> Entry:
    """Count a rotation that put a broken Secret right; after a while without one the count begins anew."""
    last = entry.healings
    if last.at == at:
        return entry  # counted, by a write that was sent twice
    recent = last.at is not None and at - last.at < HEALINGS_FORGOTTEN_AFTER
    return replace(entry, healings=Healings(last.count + 1 if recent else 1, at))


def was_suspended(entry: Entry) -> bool:
    """Was the target suspended when a run last served it? What suspended it may be gone since."""
    return entry.condition is not None and entry.condition.reason == SUSPENDED


def absent(entry: Entry, name: str, now: datetime) -> Entry:
    """An account is not at OpenAI, and its whole project looks empty: believed once it has lasted for a day."""
    since = _absent_since(entry).get(name)
    if since is not None and now - since >= EMPTY_BELIEVED_AFTER:
        return released(entry, {name})
    return _marked_absent(entry, name, since or now)


def shown_again(entry: Entry, name: str) -> Entry:
    """The project of an account does not look empty any more."""
    return _marked_absent(entry, name, None) if name in _absent_since(entry) else entry


def _absent_since(entry: Entry) -> dict[str, datetime]:
    times = [(publication.account.name, publication.missed_at) for publication in entry.history]
    times += [(intent.account.name, intent.absent_at) for intent in entry.unpublished]
    return {name: time for name, time in times if time is not None}


def _marked_absent(entry: Entry, name: str, at: datetime | None) -> Entry:
    return replace(
        entry,
        history=tuple(replace(p, missed_at=at) if p.account.name == name else p for p in entry.history),
        unpublished=tuple(replace(i, absent_at=at) if i.account.name == name else i for i in entry.unpublished),
    )


def scheduled(entry: Entry, target: Target) -> Entry:
    """The entry with the time of the next rotation, by the target's present interval."""
    last, publication = entry.last_rotated_at, current(entry)
    times = [last + target.interval] if last is not None and target.interval is not None else []
    if publication is not None and publication.account.expires_at is not None:
        times.append(renew_by(publication, publication.account.expires_at))
    at = _not_before_attempt(min(times, default=None), entry.failures)
    honoured = _source_noted(target) | dict(entry.honoured)
    return replace(entry, next_rotation_at=at, generator=generator_note(target), honoured=honoured)


def _source_noted(target: Target) -> dict[str, str]:
    """With OnChange another object of the same name is a change, whatever its generation."""
    return {SOURCE: target.source.uid} if target.refresh is RefreshPolicy.ON_CHANGE else {}


def _not_before_attempt(at: datetime | None, failures: Failures) -> datetime | None:
    """The due time, but not before the next attempt."""
    later = failures.next_attempt_at
    return at if later is None else max(at or later, later)


def renew_by(publication: Publication, expires_at: datetime) -> datetime:
    """When a run replaces a key that ends by itself: a third of its life before, a day at most."""
    return expires_at - min((expires_at - publication.at) / 3, _LARGEST_EXPIRY_MARGIN)


def generator_note(target: Target) -> GeneratorNote:
    return GeneratorNote(target.generator.ref.name, target.generator.cleanup, target.source.kind)


def healthy(entry: Entry, now: datetime) -> Entry:
    """The entry with the condition of a target whose Secret holds a key. The text stays while nothing changes."""
    publication = current(entry)
    if publication is None:
        return entry
    message = f"account {publication.account.name} is current since {format_time(publication.at)}"
    message += restart_in_words(publication.restart) + holds.in_words(entry)
    return entry.with_condition(True, READY, message, now=now)


def with_look(entry: Entry, look: Look | None) -> Entry:
    """The entry, whose current key was found in its place; None: it is not known to be there."""
    publication = current(entry)
    return replace(
        entry,
        history=tuple(replace(other, look=look) if other is publication else other for other in entry.history),
    )


def restart_in_words(restart: Restart | None) -> str:
    """For the condition: which workloads have been restarted, and why others have not."""
    if restart is None or restart.state is RestartState.DUE:
        return ""
    done = f"; restarted: {', '.join(restart.done[:_SHOWN])}" if restart.done else ""
    more = f" and {len(restart.done) - _SHOWN} more" if len(restart.done) > _SHOWN else ""
    return done + more + (f"; not restarted: {restart.why}" if restart.why else "")


def restart_urgently(entry: Entry) -> Entry:
    """The keys before the current one are dead: a restart that is asked for waits for no rollout."""
    return replace(
        entry,
        history=tuple(
            replace(p, restart=replace(p.restart, urgent=True)) if p.restart is not None else p for p in entry.history
        ),
    )


def restarted(entry: Entry, account: str, restart: Restart, now: datetime) -> Entry:
    """Note how far the restart for an account's publication is; no note where another has taken its place."""
    publication = current(entry)
    if publication is None or publication.account.name != account or publication.restart is None:
        return entry
    noted = replace(publication, restart=restart)
    entry = replace(entry, history=tuple(noted if p is publication else p for p in entry.history))
    ready = entry.condition is not None and entry.condition.reason == READY
    return healthy(entry, now) if ready else entry


def failed(
    entry: Entry,
    intent: Intent,
    account: Account | None,
    *,
    reason: str,
    message: str,
    now: datetime,
    definite: bool = True,
) -> Entry:
    """Note a failed attempt, and postpone the next one unless another run has published since."""
    entry = given_up(entry, intent, account, now=now, definite=definite)
    last = current(entry)
    if last is not None and last.at > intent.requested_at:
        return entry
    return postponed(entry, reason, message, now=now)


def scopes_refused(
    entry: Entry, intent: Intent, account: Account, *, reason: str, message: str, now: datetime
) -> Entry:
    """Note that OpenAI did not narrow the account's key. Its claim ends, and nobody asks for these scopes again.

    No pause: what a human changes then is tried at once.
    """
    entry = given_up(entry, intent, account, now=now)
    last = current(entry)
    if last is not None and last.at > intent.requested_at:
        return entry  # another run has published since
    refused = RefusedScopes(account.scopes, account.access.project, now, reason, message)
    return replace(entry, refused_scopes=refused).with_condition(False, reason, message, now=now)


def given_up(entry: Entry, intent: Intent, account: Account | None, *, now: datetime, definite: bool = True) -> Entry:
    """Note that an intent led to no publication.

    A definite failure ends the claim now; otherwise the claim runs on, for `UNKNOWN_FATE_PAUSE` at least.
    `account`: the account as the run knows it, None where it knows none: then the run published nothing either.
    """
    known = replace(
        intent,
        account=account or intent.account,
        claimed_until=now if definite else max(intent.claimed_until, now + UNKNOWN_FATE_PAUSE),
        refused=definite or account is None,
    )
    return _with_intent(entry, known)


def _with_intent(entry: Entry, intent: Intent) -> Entry:
    """The entry with this intent as its own run knows it. A present or past publication stays one."""
    if any(publication.account.name == intent.account.name for publication in entry.history):
        return entry
    # Another run may have released the intent before its own run, stopped past its claim, requested the account.
    others = tuple(other for other in entry.unpublished if other.account.name != intent.account.name)
    return replace(entry, unpublished=(*others, intent))


def postponed(entry: Entry, reason: str, message: str, *, now: datetime) -> Entry:
    """Count a failed attempt. The delay doubles with each, from a minute to an hour, and is OpenAI's at least."""
    count = entry.failures.count + 1
    later = now + pause_after(count)
    if entry.throttle is not None:
        later = max(later, entry.throttle.until)
    failures = Failures(count, later)
    entry = replace(entry, failures=failures, next_rotation_at=_not_before_attempt(entry.next_rotation_at, failures))
    return entry.with_condition(False, reason, message, now=now)


def with_throttle(entry: Entry, error: RotatorError | None) -> Entry:
    """The entry with the pause that OpenAI has just asked for, so that the next run honours it too."""
    return (
        replace(entry, throttle=error.throttle) if isinstance(error, Deferred) and error.throttle is not None else entry
    )


def last_tried(entry: Entry) -> datetime:
    """The rough time of the last attempt: the target that has waited longest comes first."""
    times = (entry.last_rotated_at, entry.failures.next_attempt_at)
    return max((time for time in times if time is not None), default=datetime.min.replace(tzinfo=UTC))


def released(entry: Entry, names: Collection[str]) -> Entry:
    """The entry without accounts whose absence OpenAI has confirmed."""
    return replace(
        entry,
        history=tuple(publication for publication in entry.history if publication.account.name not in names),
        unpublished=tuple(intent for intent in entry.unpublished if intent.account.name not in names),
    )


def forgotten(entry: Entry, accounts: Collection[Account], at: datetime) -> Entry:
    """The entry without accounts that a human has it forget, and with a note of each (invariant I4's one exception)."""
    notes = [
        f"{format_time(at)} {account.name} ({account.id or 'id unknown'}) of {account.access.project}"
        for account in accounts
    ]
    entry = released(entry, {account.name for account in accounts})
    entry = replace(entry, forgotten=(*entry.forgotten, *notes)[-FORGOTTEN_NOTED:])
    if current(entry) is not None or not accounts:
        return entry
    names = ", ".join(account.name for account in accounts)
    return entry.with_condition(False, "Forgotten", f"forgotten by hand, their project is gone: {names}", now=at)


def missed(entry: Entry, name: str, list_begun_at: datetime) -> Entry:
    """Note a complete list, begun after the claim, without the intent's account. The second one releases the intent."""
    intent = next(intent for intent in entry.unpublished if intent.account.name == name)
    if intent.missed_at is not None and list_begun_at >= intent.missed_at + LISTS_APART:
        return released(entry, {name})
    first = replace(intent, missed_at=intent.missed_at or list_begun_at)
    return replace(entry, unpublished=tuple(first if other is intent else other for other in entry.unpublished))


def presumed(entry: Entry, intent: Intent, account_id: str, *, now: datetime, secret_gone: bool) -> Entry:
    """Turn a dead run's intent into a publication: its key was perhaps in the Secret from the request until now."""
    account, asked = replace(intent.account, id=account_id), intent.requested_at
    publication = Publication(account, asked, now, asked, secret_gone=secret_gone)
    rest = tuple(other for other in entry.unpublished if other.account.name != intent.account.name)
    return replace(entry, history=(*entry.history, publication), unpublished=rest)


def adopted(
    entry: Entry,
    ledger: str,
    current_one: Publication | None,
    *,
    previous: Collection[Publication],
    target: Target | None,
    now: datetime,
) -> Entry:
    """An entry with accounts that a human has asked to record, as this ledger's.

    `current_one` is in the Secret now, in place of the entry's current account; `previous` are superseded.
    The target's present requests count as honoured. `target`: None where nothing asks for it any more.
    """
    new = (*previous, *((current_one,) if current_one is not None else ()))
    names = {publication.account.name for publication in new}
    kept = entry.history
    if current_one is not None:
        kept = tuple(superseded(publication, now) for publication in kept)
    first = min((p.requested_at or p.at for p in new), default=now)
    # Somebody may have put an earlier account back: the last rotation stays the last.
    rotations = (entry.last_rotated_at, current_one.at if current_one is not None else None)
    last = [at for at in rotations if at is not None]
    entry = replace(
        entry,
        ledger=ledger,
        history=tuple(sorted((*kept, *new), key=lambda p: (p.at, p.account.name))),
        unpublished=tuple(intent for intent in entry.unpublished if intent.account.name not in names),
        since=min(entry.since or first, first),
        last_rotated_at=max(last) if last else None,
        failures=Failures() if current_one is not None else entry.failures,
    )
    if target is not None:
        # A run may have served the requests before the ledger was lost; a human mends a missed one by asking again.
        entry = scheduled(replace(entry, honoured={**entry.honoured, **target.requests}), target)
    if current(entry) is None:
        message = "taken into the ledger by adopt; no account is known to be in the Secret"
        return entry.with_condition(False, "Adopted", message, now=now)
    return healthy(entry, now)


def superseded(publication: Publication, at: datetime, nodes_then: tuple[NodeThen, ...] | None = None) -> Publication:
    if publication.superseded_at is not None:
        return publication
    return replace(publication, superseded_at=at, nodes_then=nodes_then, restart=None, look=None)


def secret_back(entry: Entry, at: datetime) -> Entry:
    """The Secret is there: volumes that kept a deleted Secret's key begin to follow it."""
    history = tuple(replace(p, secret_back_at=at) if p.frozen else p for p in entry.history)
    return replace(entry, history=history) if history != entry.history else entry
