"""Observations of the world: Secrets, containers, OpenAI's lists and answers. Immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from worker.model.entries import Account
from worker.model.hidden import Hidden
from worker.model.scopes import Scopes
from worker.model.targets import Project
from worker.model.templates import Placed, Rendered
from worker.model.values import Ref, Version

_NOTHING = Hidden("").digest()


@dataclass(frozen=True, slots=True)
class NamedAccount:
    """The claim of a Secret's annotation. Evidence to compare with the ledger, never a reason to delete."""

    id: str
    name: str
    key_id: str | None
    project: Project | None
    target: str
    ledger: str
    data_key: str | None = None
    key_digest: str | None = None
    """Beside `rendered` alone: otherwise the value under `data_key` is the key."""
    rendered: Rendered | None = None
    """What a template has made of the key; None: the key stands alone, under `data_key`."""
    expires_at: datetime | None = None
    published_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SecretView:
    """A Secret without its values. `filled` names the data keys that hold something."""

    ref: Ref
    version: Version
    type: str
    immutable: bool
    filled: frozenset[str]
    labels: Mapping[str, str] = field(hash=False)
    annotations: Mapping[str, str] = field(hash=False)
    owners: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    """Its ownerReferences, as they are."""
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Of each data value, as `Hidden.digest` makes it."""
    named: NamedAccount | None = None
    """The account that the annotation names; None if it is absent or unreadable."""
    last_writer: str | None = None
    """Who wrote the Secret after the worker did, by the API server's notes; None: nobody, or it is not known."""
    sizes: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Bytes of each data value."""

    def carries(self, account: Account) -> bool:
        """Is the account's key one of the values, or in one that a template made, as far as digests are known?"""
        return self.place_of_key(account) is not None

    def place_of_key(self, account: Account) -> tuple[str, int] | None:
        """A data key whose value has the account's key in it, and the characters before the key."""
        places = account.places_of_key()
        return next(((key, places[digest]) for key, digest in self.digests.items() if digest in places), None)

    def has(self, data_key: str, placed: Placed) -> bool:
        """Is this the data value, whole and unchanged?"""
        if placed.digest is None:
            return False
        nothing = _NOTHING if self.sizes.get(data_key) == 0 else None
        return self.digests.get(data_key, nothing) == placed.digest


@dataclass(frozen=True, slots=True)
class ListedAccount:
    """A service account as OpenAI shows it. `created_at`: by OpenAI's clock, None if it does not say."""

    name: str
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A complete list of a project's accounts by id. `begun_at`: the time of the request for its first page."""

    begun_at: datetime
    accounts: Mapping[str, ListedAccount] = field(hash=False)
    ids: Mapping[str, tuple[str, ...]] = field(hash=False)
    """The ids by name; a name may stand for several accounts."""

    @classmethod
    def of(cls, begun_at: datetime, accounts: Mapping[str, ListedAccount]) -> Listing:
        ids: dict[str, tuple[str, ...]] = {}
        for id, account in sorted(accounts.items()):
            ids[account.name] = (*ids.get(account.name, ()), id)
        return cls(begun_at, accounts, ids)

    def ids_of(self, name: str) -> tuple[str, ...]:
        return self.ids.get(name, ())

    def twins_of(self, account: Account) -> tuple[str, ...]:
        """Other accounts of its name: one request may have made several, and a human may have copied it."""
        return tuple(id for id in self.ids_of(account.name) if id != account.id)


@dataclass(frozen=True, slots=True)
class AccountKey:
    """An API key of a service account, as OpenAI lists it: without its value.

    `active`: False if its account has lost its access to the project. `tail`: the last characters of its value.
    `scopes`: None where OpenAI does not tell them; empty: no restriction.
    """

    id: str
    account_id: str
    created_at: datetime
    expires_at: datetime | None = None
    active: bool = True
    tail: str = ""
    scopes: Scopes | None = None


@dataclass(frozen=True, slots=True)
class Consumer:
    """A container that lives and reads a Secret. `started_at` is None while it is about to start.

    `follows`: it sees the Secret through a volume of its pod. `started_at` is then the pod's.
    The kubelet keeps such a volume up to date.
    Otherwise it keeps the Secret's content of its start, or, with a volume, of any time until `read_until`.
    `mounted`: the kept content is from a volume.
    `node` is where its pod is; `created_at` is the pod's creation by the API server's clock, None: unknown.
    """

    secret: str
    name: str
    started_at: datetime | None
    follows: bool
    mounted: bool = False
    read_until: datetime | None = None
    node: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A node as the API server shows it. `ready_since`: when it last became Ready; None: it is not, or it is gone.

    `ttl`: how long its kubelet gives a cached Secret to containers. `kubelet`: its minor version, 0: unknown.
    """

    ready_since: datetime | None
    ttl: timedelta
    kubelet: int = 0


@dataclass(frozen=True, slots=True)
class NewAccount:
    """OpenAI's answer to a create. `expires_at`: the key's expiry; None: no expiry, or OpenAI does not tell it."""

    id: str
    key_id: str
    value: Hidden
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewAdminKey:
    """OpenAI's answer to the create of an admin key. `expires_at`: None: no end, or OpenAI does not tell it."""

    id: str
    value: Hidden
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new account and the only copy of its key outside OpenAI."""

    account: Account
    value: Hidden
