"""How a target's entry changes: each step of a rotation as a pure function from one entry to the next.

Guarantees: no account leaves an entry other than by `released` and `missed` (invariant I4); at most one publication is
not superseded; the current account is the one that the Secret names, never one that the ledger merely hopes for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from worker.errors import Deferred, RotatorError
from worker.ledger import holds
from worker.model.entries import Account, Entry, Failures, GeneratorNote, Intent, Publication, current
from worker.model.outcomes import RunInfo
from worker.model.sightings import NamedAccount, SecretView
from worker.model.targets import Target
from worker.model.times import format_time, pause_after

READY = "Rotated"
CLAIM = timedelta(seconds=210)
"""How long an intent claims its target: rotation's work and last write (165 s), the 15 that the API server is given to
end a request (its `timeout` parameter), and a margin for clocks. What was asked for at OpenAI has appeared by then."""
UNKNOWN_FATE_PAUSE = timedelta(seconds=45)
"""For so long, at least, a target is left alone after a request of which nobody knows whether it takes effect. A claim
is longer; it may have ended before the request was sent, by a run that was stopped."""
VOLUMES_FOLLOW = timedelta(minutes=2)
"""How long a kubelet takes to bring a mounted volume up to date."""
LISTS_APART = timedelta(minutes=1)
"""How far apart the two lists must begin that let an intent go for which no account was found."""

_LARGEST_EXPIRY_MARGIN = timedelta(days=1)


def catch_up_with_secret(entry: Entry, secret: SecretView | None, named_at_openai: str | None, now: datetime) -> Entry:
    """Correct the entry by what the Secret carries, and where that cannot be told, by what it names.

    `named_at_openai`: the name that OpenAI has for the account id which the Secret names, None where there is none or
    it is not known.
    A publication or an end that has no time of its own gets `now`: too late is safe, too early is not.
    """
    if secret is None:
        return _secret_gone(entry, now)
    entry = _secret_back(entry, now)
    # Intents that are still claimed are left out: their runs note what became of them.
    ended = [intent for intent in entry.unpublished if intent.claimed_until <= now]
    carried = _by_key(entry, ended, secret, now)
    if carried is not None:
        # The key in the data says whose Secret it is: an annotation that was put back alone moves nothing.
        return carried
    named = secret.named
    if named is None or named.ledger != entry.ledger or named.target != str(entry.target):
        return entry
    return _by_name(entry, ended, named, secret, named_at_openai=named_at_openai, now=now)


def _by_key(entry: Entry, ended: Collection[Intent], secret: SecretView, now: datetime) -> Entry | None:
    """The entry with the account current whose key the Secret carries; None where it carries no known key."""
    carried = [publication for publication in entry.history if secret.carries(publication.account)]
    if any(publication.superseded_at is None for publication in carried):
        return entry
    if carried:
        return _promoted(entry, carried[-1], now)
    for intent in ended:
        if secret.carries(intent.account):
            return published(entry, intent.account, intent.requested_at, now)
    return None


def _by_name(
    entry: Entry,
    ended: Collection[Intent],
    named: NamedAccount,
    secret: SecretView,
    *,
    named_at_openai: str | None,
    now: datetime,
) -> Entry:
    """The entry with the account current that the annotation names, where nothing contradicts it."""
    for publication in entry.history:
        account = publication.account
        if (account.name, account.id) != (named.name, named.id):
            continue
        if account.key_digest is not None or publication.superseded_at is None:
            # Its key is known, and the Secret does not carry it; or it is current already.
            return entry
        return _promoted(entry, publication, now)
    for intent in ended:
        if intent.account.name != named.name or named.id != (intent.account.id or named.id):
            continue
        if intent.account.id is None and named_at_openai != named.name:
            # The id in the annotation may be forged: only OpenAI's name for it makes the intent a publication.
            continue
        account = replace(
            intent.account,
            id=named.id,
            key_id=intent.account.key_id or named.key_id,
            expires_at=intent.account.expires_at or named.expires_at,
            key_digest=secret.digests.get(named.data_key or ""),
        )
        return published(entry, account, intent.requested_at, now)
    return entry


def intended(
    entry: Entry, target: Target, account: Account, run: RunInfo, requested_at: datetime, claimed_until: datetime
) -> Entry:
    """The entry that names an account before it is asked for, claims the target, and honours the target's requests."""
    if entry.condition is None:
        entry = entry.with_condition(False, "InProgress", "its first key is being made", requested_at)
    return replace(
        entry,
        ledger=run.ledger,
        generator=generator_note(target),
        unpublished=(
            *(intent for intent in entry.unpublished if intent.account.name != account.name),
            Intent(account, requested_at, claimed_until),
        ),
        honoured={**entry.honoured, **target.requests},
    )


def holds_intent(entry: Entry, name: str) -> bool:
    return any(intent.account.name == name for intent in entry.unpublished)


def published(entry: Entry, account: Account, rotated_at: datetime, at: datetime) -> Entry:
    """The intent's account is in the Secret since `at`; what was there before is superseded from then on.

    `rotated_at`: the start of the run, from which the interval is measured.
    """
    # In the history already: another run has noted it first, from the Secret.
    known: tuple[Intent | Publication, ...] = (*entry.unpublished, *entry.history)
    requested = next((item.requested_at for item in known if item.account.name == account.name), None)
    new = Publication(account, at, None, requested)
    others = tuple(
        _superseded(publication, at)
        for publication in _secret_back(entry, at).history
        if publication.account.name != account.name
    )
    return replace(
        entry,
        history=(*others, new),
        unpublished=tuple(intent for intent in entry.unpublished if intent.account.name != account.name),
        since=entry.since or requested or at,
        last_rotated_at=rotated_at,
        failures=Failures(),
        throttle=None,
    )


def scheduled(entry: Entry, target: Target) -> Entry:
    """With the time of the next rotation, as the target's interval now says."""
    last, publication = entry.last_rotated_at, current(entry)
    times = [last + target.interval] if last is not None and target.interval is not None else []
    if publication is not None and publication.account.expires_at is not None:
        times.append(renew_by(publication, publication.account.expires_at))
    at = _not_before_attempt(min(times, default=None), entry.failures)
    return replace(entry, next_rotation_at=at, generator=generator_note(target))


def _not_before_attempt(at: datetime | None, failures: Failures) -> datetime | None:
    """What is due while attempts are put off comes with the next attempt."""
    later = failures.next_attempt_at
    return at if later is None else max(at or later, later)


def renew_by(publication: Publication, expires_at: datetime) -> datetime:
    """When a key that ends by itself is to be replaced: a third of its life before, a day at most."""
    return expires_at - min((expires_at - publication.at) / 3, _LARGEST_EXPIRY_MARGIN)


def generator_note(target: Target) -> GeneratorNote:
    return GeneratorNote(target.generator.ref.name, target.generator.cleanup)


def healthy(entry: Entry, now: datetime) -> Entry:
    """With the condition of a target whose Secret holds a key; the same text for as long as nothing changes."""
    publication = current(entry)
    if publication is None:
        return entry
    message = f"account {publication.account.name} is current since {format_time(publication.at)}"
    message += holds.in_words(entry)
    return entry.with_condition(True, READY, message, now)


def failed(
    entry: Entry,
    intent: Intent,
    account: Account | None,
    reason: str,
    message: str,
    now: datetime,
    *,
    definite: bool = True,
) -> Entry:
    """An attempt failed, and the next one is put off, unless another run has published since."""
    entry = given_up(entry, intent, account, now, definite=definite)
    last = current(entry)
    if last is not None and last.at > intent.requested_at:
        return entry
    return postponed(entry, reason, message, now)


def given_up(entry: Entry, intent: Intent, account: Account | None, now: datetime, *, definite: bool = True) -> Entry:
    """An intent that came to nothing, or to an account that was not published. Where that is definite its claim ends
    now; otherwise it runs on, and for `UNKNOWN_FATE_PAUSE` at least.

    `account`: what is known of the account that was made, None where nothing is: then nothing was published either.
    """
    known = replace(
        intent,
        account=account or intent.account,
        claimed_until=now if definite else max(intent.claimed_until, now + UNKNOWN_FATE_PAUSE),
        refused=definite or account is None,
    )
    return _with_intent(entry, known)


def _with_intent(entry: Entry, intent: Intent) -> Entry:
    """The entry with this intent as its own run knows it, also where another run has let it go: a run that was stopped
    for longer than its claim may have asked for the account only then. One that is published or was stays so.
    """
    if any(publication.account.name == intent.account.name for publication in entry.history):
        return entry
    others = tuple(other for other in entry.unpublished if other.account.name != intent.account.name)
    return replace(entry, unpublished=(*others, intent))


def postponed(entry: Entry, reason: str, message: str, now: datetime) -> Entry:
    """Count a failed attempt; the delay doubles with each, from a minute to an hour, and is OpenAI's at least."""
    count = entry.failures.count + 1
    later = now + pause_after(count)
    if entry.throttle is not None:
        later = max(later, entry.throttle.until)
    failures = Failures(count, later)
    entry = replace(entry, failures=failures, next_rotation_at=_not_before_attempt(entry.next_rotation_at, failures))
    return entry.with_condition(False, reason, message, now)


def with_throttle(entry: Entry, error: RotatorError | None) -> Entry:
    """With what OpenAI has just asked for, so that the next run honours it too."""
    return (
        replace(entry, throttle=error.throttle) if isinstance(error, Deferred) and error.throttle is not None else entry
    )


def last_tried(entry: Entry) -> datetime:
    """When an attempt was last made, roughly: who has waited longest comes first."""
    times = (entry.last_rotated_at, entry.failures.next_attempt_at)
    return max((time for time in times if time is not None), default=datetime.min.replace(tzinfo=UTC))


def released(entry: Entry, names: Collection[str]) -> Entry:
    """Without accounts of which OpenAI has confirmed that they do not exist."""
    return replace(
        entry,
        history=tuple(publication for publication in entry.history if publication.account.name not in names),
        unpublished=tuple(intent for intent in entry.unpublished if intent.account.name not in names),
    )


def missed(entry: Entry, name: str, list_begun_at: datetime) -> Entry:
    """A complete list, begun after the claim had ended, holds no account of this intent: the second one lets it go."""
    intent = next(intent for intent in entry.unpublished if intent.account.name == name)
    if intent.missed_at is not None and list_begun_at >= intent.missed_at + LISTS_APART:
        return released(entry, {name})
    first = replace(intent, missed_at=intent.missed_at or list_begun_at)
    return replace(entry, unpublished=tuple(first if other is intent else other for other in entry.unpublished))


def presumed(entry: Entry, intent: Intent, account_id: str, now: datetime, *, secret_gone: bool) -> Entry:
    """An intent whose run died, perhaps in the Secret from its request until now: it goes as a publication does."""
    account, asked = replace(intent.account, id=account_id), intent.requested_at
    publication = Publication(account, asked, now, asked, secret_gone=secret_gone)
    rest = tuple(other for other in entry.unpublished if other.account.name != intent.account.name)
    return replace(entry, history=(*entry.history, publication), unpublished=rest)


def adopted(
    entry: Entry,
    ledger: str,
    current_one: Publication | None,
    previous: Collection[Publication],
    target: Target | None,
    now: datetime,
) -> Entry:
    """An entry with accounts that a human has asked to record, as this ledger's.

    `current_one` is in the Secret now, in place of what the entry took for it; `previous` are superseded. What is
    asked for at the target at this moment counts as honoured: it may have been served before the ledger was lost, and
    one rotation too few is mended by asking again. `target`: None where nothing asks for it any more.
    """
    new = (*previous, *((current_one,) if current_one is not None else ()))
    names = {publication.account.name for publication in new}
    kept = entry.history
    if current_one is not None:
        kept = tuple(_superseded(publication, now) for publication in kept)
    first = min((p.requested_at or p.at for p in new), default=now)
    entry = replace(
        entry,
        ledger=ledger,
        history=tuple(sorted((*kept, *new), key=lambda p: (p.at, p.account.name))),
        unpublished=tuple(intent for intent in entry.unpublished if intent.account.name not in names),
        since=min(entry.since or first, first),
        last_rotated_at=current_one.at if current_one is not None else entry.last_rotated_at,
    )
    if target is not None:
        entry = scheduled(replace(entry, honoured={**entry.honoured, **target.requests}), target)
    if current(entry) is None:
        message = "taken into the ledger by adopt; no account is known to be in the Secret"
        return entry.with_condition(False, "Adopted", message, now)
    return healthy(entry, now)


def unaccounted(entry: Entry, item: Publication | Intent, secret: SecretView | None) -> bool:
    """May the Secret carry the key of this intent, or publication without a known key, whatever its annotation says?

    It may where a key is in the place that it was for, and the ledger knows no account whose key that is.
    """
    if isinstance(item, Publication) and item.account.key_digest is not None:
        return False
    place = item.account.data_key
    digest = secret.digests.get(place) if secret is not None and place is not None else None
    known = {publication.account.key_digest for publication in entry.history}
    known |= {other.account.key_digest for other in entry.unpublished}
    return digest is not None and digest not in known


def _superseded(publication: Publication, at: datetime) -> Publication:
    return publication if publication.superseded_at is not None else replace(publication, superseded_at=at)


def _secret_gone(entry: Entry, now: datetime) -> Entry:
    """The Secret is not there: what volumes had not left behind when it was last known to be there, they keep."""
    publication = current(entry)
    known = [publication.at] if publication is not None else []
    there = max((*known, *(p.secret_back_at for p in entry.history if p.secret_back_at is not None)), default=now)

    def kept(previous: Publication) -> Publication:
        if previous.followed_from is None:
            return replace(previous, superseded_at=now, secret_gone=True)
        if previous.followed_from + VOLUMES_FOLLOW <= there:
            return previous
        return replace(previous, secret_gone=True, secret_back_at=None)

    return replace(entry, history=tuple(kept(previous) for previous in entry.history))


def _secret_back(entry: Entry, at: datetime) -> Entry:
    """The Secret is there: volumes that kept what was in a deleted one begin to follow it."""
    history = tuple(replace(p, secret_back_at=at) if p.frozen else p for p in entry.history)
    return replace(entry, history=history) if history != entry.history else entry


def _promoted(entry: Entry, chosen: Publication, now: datetime) -> Entry:
    """The Secret was put back to an earlier account: that one is current again."""
    return replace(
        entry,
        history=tuple(
            replace(publication, superseded_at=None, secret_gone=False, secret_back_at=None)
            if publication is chosen
            else _superseded(publication, now)
            for publication in entry.history
        ),
    )
