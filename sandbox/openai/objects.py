"""The objects of OpenAI's API as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sandbox.openai.state import AccountRecord, KeyRecord, ProjectRecord


def unix(moment: datetime | None) -> int | None:
    """The moment in whole seconds, as OpenAI writes times."""
    return None if moment is None else int(moment.timestamp())


def project_json(project: ProjectRecord) -> dict[str, Any]:
    """A project as GET shows it."""
    status = "active" if project.archived_at is None else "archived"
    times = {"created_at": unix(project.created_at), "archived_at": unix(project.archived_at)}
    return {"object": "organization.project", "id": project.id, "name": project.name, "status": status} | times


def account_json(account: AccountRecord) -> dict[str, Any]:
    """A service account as lists show it."""
    head = {"object": "organization.project.service_account", "id": account.id, "name": account.name}
    return head | {"role": account.role, "created_at": unix(account.created_at)}


def new_key_json(key: KeyRecord) -> dict[str, Any]:
    """A key with its value, shown once."""
    head = {"object": "organization.project.service_account.api_key", "id": key.id, "name": key.name}
    return head | {"value": key.value, "created_at": unix(key.created_at), "expires_at": unix(key.expires_at)}


def key_json(project: ProjectRecord, key: KeyRecord, until: datetime) -> dict[str, Any]:
    """A key as lists show it, redacted, with its last use until then."""
    times = {"created_at": unix(key.created_at), "last_used_at": unix(key.last_used(until))}
    times["expires_at"] = unix(key.expires_at)
    if key.account is None:
        user = {"id": "user-human", "email": "human@example.com", "name": "Human", "created_at": 0, "role": "member"}
        access, owner = "active", {"type": "user", "user": user}
    else:
        account = project.accounts[key.account]
        access = "inactive" if account.role == "none" else "active"
        owner = {"type": "service_account", "service_account": account_json(account)}
    head = {"object": "organization.project.api_key", "id": key.id, "name": key.name, "redacted_value": key.redacted}
    scopes = list(key.scopes) or None
    return head | times | {"owner_project_access": access, "owner": owner, "scopes": scopes}
