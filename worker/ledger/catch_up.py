"""What the Secret says, noted in the entry: which account is current, which is not any more, where the Secret is gone.

Guarantees: the current account is the one that the Secret carries, never one that the ledger merely hopes for.
The key in the Secret's data decides. An annotation decides only where no key contradicts it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

from worker.ledger.transitions import VOLUMES_FOLLOW, published, secret_back, superseded
from worker.model.entries import Account, Entry, Intent, Publication, accounts_of, current
from worker.model.sightings import NamedAccount, SecretView
from worker.model.templates import Rendered


def catch_up_with_secret(
    entry: Entry, secret: SecretView | None, named_at_openai: str | None, *, now: datetime
) -> Entry:
    """Correct the entry by the key that the Secret carries, or where that is unknown, by the account that it names.

    `named_at_openai`: OpenAI's name for the account id in the Secret, None where there is none or it is unknown.
    A publication or an end that has no time of its own gets `now`: too late is safe, too early is not.
    """
    if secret is None:
        return _secret_gone(entry, now)
    caught_up = _with_secret(entry, secret, named_at_openai, now=now)
    return _frozen(caught_up, secret) if secret.immutable else caught_up


def _frozen(entry: Entry, secret: SecretView) -> Entry:
    """The Secret is immutable: kubelets keep the key that it has, whatever comes after it."""
    publication = current(entry)
    if publication is None or publication.immutable:
        return entry
    named = secret.named is not None and secret.named.name == publication.account.name
    if not secret.carries(publication.account) and (publication.account.key_digest is not None or not named):
        return entry
    frozen = replace(publication, immutable=True)
    return replace(entry, history=tuple(frozen if other is publication else other for other in entry.history))


def _with_secret(entry: Entry, secret: SecretView, named_at_openai: str | None, *, now: datetime) -> Entry:
    entry = secret_back(entry, now)
    # While a claim runs, the run of the intent itself notes the outcome.
    ended = [intent for intent in entry.unpublished if intent.claimed_until <= now]
    carried = _by_key(entry, ended, secret, now=now)
    if carried is not None:
        # The key in the data decides: an annotation that somebody put back alone moves nothing.
        return carried
    named = secret.named
    if named is None or named.ledger != entry.ledger or named.target != str(entry.target):
        return entry
    return _by_name(entry, ended, named, secret=secret, named_at_openai=named_at_openai, now=now)


def _by_key(entry: Entry, ended: Collection[Intent], secret: SecretView, *, now: datetime) -> Entry | None:
    """The entry with the account current whose key the Secret carries; None where it carries no known key."""
    carried = [publication for publication in entry.history if secret.carries(publication.account)]
    if any(publication.superseded_at is None for publication in carried):
        return entry
    if carried:
        return _promoted(entry, carried[-1], now)
    for intent in ended:
        if secret.carries(intent.account):
            return published(entry, intent.account, intent.requested_at, at=now)
    return None


def _by_name(
    entry: Entry,
    ended: Collection[Intent],
    named: NamedAccount,
    *,
    secret: SecretView,
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
        if intent.refused:
            # Its key was never published: the annotation is forged.
            continue
        if intent.account.id is None and named_at_openai != named.name:
            # The id in the annotation may be forged: only OpenAI's name for it makes the intent a publication.
            continue
        account = replace(
            intent.account,
            id=named.id,
            key_id=intent.account.key_id or named.key_id,
            expires_at=intent.account.expires_at or named.expires_at,
            **_values_as_named(intent.account, named, secret),
        )
        return published(entry, account, intent.requested_at, at=now)
    return entry


def _values_as_named(account: Account, named: NamedAccount, secret: SecretView) -> dict[str, Any]:
    """The key's digest and what is kept of its data values, for an account that the annotation alone names.

    Where a template made the values, the annotation has the digests. The ledger says which values those are.
    """
    if account.rendered is None:
        return {"key_digest": secret.digests.get(named.data_key or "")}
    if named.rendered is None or _outline(named.rendered) != _outline(account.rendered):
        return {}
    return {"key_digest": named.key_digest, "rendered": named.rendered}


def _outline(rendered: Rendered) -> tuple[str, dict[str, int | None]]:
    return rendered.template, {data_key: placed.at for data_key, placed in rendered.values.items()}


def taken_over(entry: Entry, secret: SecretView | None, now: datetime) -> Entry:
    """Nothing asks for the target, and its Secret lives on without our key and our annotation: the account may go."""
    publication = current(entry)
    if secret is None or publication is None or publication.account.key_digest is None:
        return entry
    named = secret.named is not None and secret.named.id == publication.account.id
    if named or secret.carries(publication.account):
        return entry
    return replace(entry, history=tuple(superseded(publication, now) for publication in entry.history))


def unaccounted(entry: Entry, item: Publication | Intent, secret: SecretView | None) -> bool:
    """May the Secret carry the key of this intent, or publication without a known key, whatever its annotation says?

    It may where a data key of the item holds a key that belongs to no account in the ledger.
    """
    if secret is None or (isinstance(item, Publication) and item.account.key_digest is not None):
        return False
    places = {data_key for data_key, placed in item.account.values().items() if placed.at is not None}
    there = {digest for data_key, digest in secret.digests.items() if data_key in places}
    return bool(there - {digest for account in accounts_of(entry) for digest in account.places_of_key()})


def _secret_gone(entry: Entry, now: datetime) -> Entry:
    """The Secret is gone: volumes keep each key that they had not replaced when the Secret was last there."""
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


def _promoted(entry: Entry, chosen: Publication, now: datetime) -> Entry:
    """Somebody put the Secret back to an earlier account: that one is current again."""
    return replace(
        entry,
        history=tuple(
            replace(publication, superseded_at=None, secret_gone=False, secret_back_at=None, nodes_then=None)
            if publication is chosen
            else superseded(publication, now)
            for publication in entry.history
        ),
    )
