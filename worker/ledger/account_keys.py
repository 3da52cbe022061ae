"""Which of an account's keys is the one that was made with it, and what OpenAI says of that key.

Guarantees: a key that somebody made later for our account never passes for ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta

from worker.ledger.transitions import CLAIM, CLOCKS_APART
from worker.model.entries import Account, Entry, Publication
from worker.model.scopes import is_wider
from worker.model.sightings import AccountKey
from worker.model.targets import Project

MADE_TOGETHER = timedelta(seconds=10)
"""One request makes an account and its key."""


def is_own(key: AccountKey, publication: Publication) -> bool:
    """Is this the key that was made with the account? One that was made later is somebody else's."""
    if publication.account.key_id is not None:
        return key.id == publication.account.key_id
    asked = publication.requested_at or publication.at
    # An adopted account is dated by itself, and one request makes an account and its key.
    within = CLAIM + CLOCKS_APART if publication.account.access.fallback else MADE_TOGETHER
    return key.created_at <= asked + within


def with_keys(entry: Entry, account_id: str, keys: Collection[AccountKey]) -> Entry:
    """The entry with what OpenAI says of an account's keys: the end of the key, and its id where it was not known."""
    return replace(
        entry,
        history=tuple(
            _with_key(publication, keys) if publication.account.id == account_id else publication
            for publication in entry.history
        ),
    )


def widened(entry: Entry, project: Project, keys: Mapping[str, Collection[AccountKey]]) -> tuple[Account, ...]:
    """The accounts whose key OpenAI shows with more scopes than we narrowed it to, superseded ones too.

    `keys`: the project's, by account id. Only a key whose id the ledger has counts: another is somebody else's.
    """
    return tuple(
        account
        for account in (publication.account for publication in entry.history)
        if account.access.project == project
        for key in keys.get(account.id or "", ())
        if key.id == account.key_id and key.scopes is not None and is_wider(key.scopes, account.scopes)
    )


def _with_key(publication: Publication, keys: Collection[AccountKey]) -> Publication:
    own = [key for key in keys if is_own(key, publication)]
    if len(own) != 1:
        return publication
    (key,), account = own, publication.account
    # The answer to a create may tell an end that the list of keys does not.
    expires = key.expires_at or account.expires_at
    if (account.key_id, account.expires_at) == (key.id, expires):
        return publication
    return replace(publication, account=replace(account, key_id=key.id, expires_at=expires))
