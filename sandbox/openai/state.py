"""The state of the embedded OpenAI: organisations, projects, service accounts, keys.

Guarantees:
- No object here prints a key's value.
- Every generated value carries `CANARY`, so that a test can look for leaks.
"""

from __future__ import annotations

import random
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

CANARY = "CANARY"
_ALPHABET = string.ascii_letters + string.digits


class KeyStatus(Enum):
    """The status of a key's value at this moment."""

    UNKNOWN = "unknown"
    PENDING = "pending"  # OpenAI has made it, but does not accept it yet
    ACTIVE = "active"
    EXPIRED = "expired"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Account:
    """A service account as oracles see it."""

    id: str
    name: str
    project: str
    created_at: datetime
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as oracles see it: everything but its value."""

    id: str
    account: str | None
    project: str
    status: KeyStatus
    last_used_at: datetime | None
    expires_at: datetime | None
    scopes: tuple[str, ...] = ()
    """What it may do; none are all."""


@dataclass(slots=True)
class KeyRecord:
    """An API key; `account` is empty for a key that a user owns."""

    id: str
    name: str
    value: str = field(repr=False)
    account: str | None
    created_at: datetime
    accepted_at: datetime
    expires_at: datetime | None
    uses: list[datetime] = field(default_factory=list)
    deleted: bool = False
    scopes: tuple[str, ...] = ()
    """What it may do; none are all."""

    def use(self, now: datetime, shown_until: datetime) -> None:
        """Note a use; of the uses that OpenAI shows already only the last one matters."""
        self.uses = [one for one in self.uses if one >= (self.last_used(shown_until) or one)] + [now]

    def last_used(self, until: datetime) -> datetime | None:
        """The last use until then."""
        return max((one for one in self.uses if one <= until), default=None)

    def status(self, now: datetime) -> KeyStatus:
        """The status of the key at `now`."""
        if self.deleted:
            return KeyStatus.DELETED
        if self.expires_at is not None and now >= self.expires_at:
            return KeyStatus.EXPIRED
        return KeyStatus.ACTIVE if now >= self.accepted_at else KeyStatus.PENDING

    @property
    def redacted(self) -> str:
        """The value as lists show it; without the marker, for a redacted value is no leak."""
        return f"sk-svcacct-****{self.value[-4:]}"


@dataclass(slots=True)
class AccountRecord:
    """A service account; `listed_at` is when lists begin to show it."""

    id: str
    name: str
    role: str
    created_at: datetime
    listed_at: datetime

    def shown(self, project: str, keys: tuple[str, ...]) -> Account:
        """As oracles see it, in its project and with the ids of its keys."""
        return Account(self.id, self.name, project, self.created_at, keys)


@dataclass(slots=True)
class ProjectRecord:
    """A project; an organisation's default project takes no service accounts.

    `order` has the place of every id ever listed, because a cursor outlives its account or key.
    """

    id: str
    name: str
    organization: OrganizationRecord = field(repr=False)
    created_at: datetime
    default: bool = False
    archived_at: datetime | None = None
    accounts: dict[str, AccountRecord] = field(default_factory=dict)
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict, repr=False)

    def enrol(self, identifier: str) -> None:
        """Give the account or key its place in lists."""
        self.order[identifier] = len(self.order)

    def delete_account(self, identifier: str) -> None:
        """Delete the account and, with it, its keys."""
        del self.accounts[identifier]
        for key in [key for key in self.keys.values() if key.account == identifier]:
            self.delete_key(key.id)

    def delete_key(self, identifier: str) -> None:
        """Delete the key; a holder of its value finds it deleted."""
        self.keys.pop(identifier).deleted = True


ADMIN_SCOPES = frozenset({"read", "write", "admin_keys", "audit_logs"})
"""What an admin key may do: read and change projects, list and change the admin keys, read the audit log."""


@dataclass(slots=True)
class AdminKey:
    """An admin key, and its permissions: any of `ADMIN_SCOPES`. `listed_at` is when lists begin to show it."""

    organization: OrganizationRecord
    id: str
    name: str
    value: str = field(repr=False)
    created_at: datetime
    accepted_at: datetime
    listed_at: datetime
    expires_at: datetime | None = None
    uses: list[datetime] = field(default_factory=list, repr=False)
    scopes: frozenset[str] = ADMIN_SCOPES

    def use(self, now: datetime, shown_until: datetime) -> None:
        """Note a use; of the uses that OpenAI shows already only the last one matters."""
        if self.uses and int(self.uses[-1].timestamp()) == int(now.timestamp()):
            return  # OpenAI shows whole seconds, and a run makes hundreds of requests
        self.uses = [one for one in self.uses if one >= (self.last_used(shown_until) or one)] + [now]

    def last_used(self, until: datetime) -> datetime | None:
        """The last use until then."""
        return max((one for one in self.uses if one <= until), default=None)

    def works(self, now: datetime) -> bool:
        """Does OpenAI accept it?"""
        return self.accepted_at <= now and (self.expires_at is None or self.expires_at > now)

    @property
    def redacted(self) -> str:
        """The value as lists show it."""
        return f"sk-admin...{self.value[-4:]}"


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What somebody did, as the organisation's audit log has it. `by`: the admin key's id; None: a human.

    `details`: what the log says of it beyond the id of the resource.
    """

    id: str
    at: datetime
    type: str
    resource: str
    project: str
    by: str | None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CostRecord:
    """What something has cost, in US dollars. `key`: the id of the key that caused it; None: no key did."""

    at: datetime
    project: str
    key: str | None
    amount: float


@dataclass(slots=True)
class OrganizationRecord:
    """An organisation; with `maximum_lifetime` set, each new key needs a lifetime no longer than that."""

    name: str
    projects: dict[str, ProjectRecord] = field(default_factory=dict)
    maximum_lifetime: timedelta | None = None
    audit_log: list[AuditRecord] = field(default_factory=list, repr=False)
    audited: bool = False
    """The audit log is off until somebody turns it on, as at OpenAI."""
    costs: list[CostRecord] = field(default_factory=list, repr=False)


class Names:
    """Ids and key values, made from the given randomness alone."""

    def __init__(self, source: random.Random) -> None:
        self._random = source

    def identifier(self, prefix: str) -> str:
        """An id such as `user-8fYq…`."""
        return prefix + self._text(24)

    def key(self, prefix: str) -> str:
        """A key value such as `sk-svcacct-CANARY8fYq…`."""
        return f"{prefix}{CANARY}{self._text(40)}"

    def _text(self, length: int) -> str:
        return "".join(self._random.choices(_ALPHABET, k=length))
