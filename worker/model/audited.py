"""What OpenAI tells an audit: keys with their owners, admin keys, events of the audit log. Immutable values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class KeyOwner(StrEnum):
    ACCOUNT = "service account"
    USER = "user"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ProjectKey:
    """Any API key of a project, without its value. A time that OpenAI does not tell is None.

    `active`: False if its owner has lost the access to the project.
    `scopes`: what it may do, () for everything, None if OpenAI does not tell.
    """

    id: str
    name: str
    owner: KeyOwner
    owner_id: str
    owner_name: str
    created_at: datetime | None
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    active: bool = True
    scopes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AdminKeyFacts:
    """An admin key as its organisation lists it. `redacted`: both ends of its value.

    `last_used_at`: the last use by anybody, the worker included.
    `scopes`: what it may do, () for everything, None if OpenAI does not tell: its API description knows no such field.
    """

    id: str
    name: str
    redacted: str
    created_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    scopes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Somebody made, changed or deleted an account or a key. `actor`: who, as far as OpenAI tells.

    `scopes`: those that the event gave to a key; None: it gave none.
    """

    at: datetime
    kind: str
    resource: str
    actor: str
    scopes: tuple[str, ...] | None = None
