"""The form of what OpenAI tells an audit: keys, admin keys, events of the audit log. Pure.

Guarantees: an odd value beside the id leaves its field empty, so one odd key hides no other.
A text from OpenAI is cut off at a length that fits into a report.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from worker.model.audited import AdminKeyFacts, AuditEvent, KeyOwner, ProjectKey
from worker.model.names import ID
from worker.model.values import JSON

EVENTS = (
    "api_key.created",
    "api_key.updated",
    "api_key.deleted",
    "service_account.created",
    "service_account.deleted",
)
"""The events that say who made, changed or deleted an account or a key."""
_LONGEST = 200


def project_key(item: JSON) -> ProjectKey:
    """A key of a project's list. The client has checked its id."""
    owner = _object(item.get("owner"))
    kind = {"service_account": KeyOwner.ACCOUNT, "user": KeyOwner.USER}.get(str(owner.get("type")), KeyOwner.UNKNOWN)
    who = _object(owner.get("user" if kind is KeyOwner.USER else "service_account"))
    return ProjectKey(
        id=item["id"],
        name=_text(item.get("name")),
        owner=kind,
        owner_id=_text(who.get("id")),
        owner_name=_text(who.get("name")),
        created_at=_time(item.get("created_at")),
        last_used_at=_time(item.get("last_used_at")),
        expires_at=_time(item.get("expires_at")),
        active=item.get("owner_project_access") != "inactive",
        scopes=_scopes(item, null_is_all=True),
    )


def admin_key_facts(item: JSON) -> AdminKeyFacts:
    """An admin key of the organisation's list."""
    return AdminKeyFacts(
        id=item["id"],
        name=_text(item.get("name")),
        redacted=_text(item.get("redacted_value")),
        created_at=_time(item.get("created_at")),
        expires_at=_time(item.get("expires_at")),
        last_used_at=_time(item.get("last_used_at")),
        scopes=_scopes(item, null_is_all=True),
    )


def audit_event(item: JSON) -> AuditEvent | None:
    """An event of the audit log; None for one that says nothing about an account or a key."""
    kind, at = item.get("type"), _time(item.get("effective_at"))
    if kind not in EVENTS or at is None:
        return None
    details = _object(item.get(kind))
    resource = details.get("id")
    if not isinstance(resource, str) or not ID.match(resource):
        return None
    given = _object(details.get("changes_requested") if kind == "api_key.updated" else details.get("data"))
    scopes = _scopes(given) if kind in ("api_key.created", "api_key.updated") else None
    return AuditEvent(at, kind, resource, _actor(_object(item.get("actor"))), scopes)


def _actor(actor: Mapping[str, object]) -> str:
    """Who did it: a person's address or an id, and the API key that was used."""
    session, key = _object(actor.get("session")), _object(actor.get("api_key"))
    user = _object(session.get("user")) or _object(key.get("user"))
    who = _text(user.get("email")) or _text(user.get("id")) or _text(_object(key.get("service_account")).get("id"))
    used = _text(key.get("id"))
    return " with API key ".join(part for part in (who, used) if part) or "somebody"


def _scopes(holder: Mapping[str, object], *, null_is_all: bool = False) -> tuple[str, ...] | None:
    """An empty list restricts nothing; without the field OpenAI does not tell."""
    if "scopes" not in holder:
        return None
    scopes = holder["scopes"]
    if scopes is None:
        return () if null_is_all else None
    if not isinstance(scopes, list):
        return None
    return tuple(sorted(_text(scope) for scope in scopes if isinstance(scope, str)))


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return value[:_LONGEST] if isinstance(value, str) else ""


def _time(value: object) -> datetime | None:
    """Zero stands for none, as does a time that no clock shows."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 7e9:
        return None
    return datetime.fromtimestamp(value, UTC)
