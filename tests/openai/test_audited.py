"""What OpenAI tells an audit: keys with their owners, admin keys, events; odd values, and what is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.builders import HOST, NOW, PROJECT, FixedRandom
from tests.support.web import Web, js
from worker.model.audited import AdminKeyFacts, AuditEvent, KeyOwner, ProjectKey
from worker.model.hidden import Hidden
from worker.openai.client import OpenAIAdminApi

ADMIN = Hidden("sk-admin-CANARYwxyz")
AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
SECONDS = int(AT.timestamp())
ACCOUNT = {"type": "service_account", "service_account": {"id": "user-1", "name": "app_1"}}
USER = {"type": "user", "user": {"id": "user-h", "name": "Human", "email": "human@example.com"}}
KEY = {"id": "key_1", "name": "Secret Key", "owner": ACCOUNT, "created_at": SECONDS, "owner_project_access": "active"}


def ask(web: Web, call: Callable[[OpenAIAdminApi], Awaitable[Any]]) -> Any:
    return web.ask(lambda session: call(OpenAIAdminApi(session, FixedRandom())))


def keys(*items: object) -> list[ProjectKey]:
    web = Web([js({"data": list(items), "has_more": False})])
    found: list[ProjectKey] = ask(web, lambda api: api.list_project_keys(PROJECT, ADMIN))
    assert web.queries == [{"limit": "100", "owner_project_access": "any"}]
    return found


def events(*items: object) -> list[AuditEvent]:
    web = Web([js({"data": list(items), "has_more": False})])
    found: list[AuditEvent] = ask(web, lambda api: api.list_audit_events(PROJECT, ADMIN, ["user-1"], since=NOW))
    return found


def test_a_key_is_told_with_its_owner_its_times_and_its_scopes() -> None:
    (key,) = keys(KEY | {"last_used_at": SECONDS, "expires_at": SECONDS, "scopes": ["b", "a"]})
    assert key == ProjectKey("key_1", "Secret Key", KeyOwner.ACCOUNT, "user-1", "app_1", AT, AT, AT, True, ("a", "b"))


def test_a_users_key_is_told_with_the_user_and_without_an_address() -> None:
    (key,) = keys(KEY | {"owner": USER})
    assert (key.owner, key.owner_id, key.owner_name) == (KeyOwner.USER, "user-h", "Human")
    assert "example.com" not in repr(key)


@pytest.mark.parametrize(
    ("told", "scopes"), [({}, None), ({"scopes": None}, ()), ({"scopes": []}, ()), ({"scopes": "x"}, None)]
)
def test_scopes_that_are_not_told_are_not_all(told: dict[str, object], scopes: tuple[str, ...] | None) -> None:
    """An empty list restricts nothing; no field says nothing."""
    (key,) = keys(KEY | told)
    assert key.scopes == scopes


@pytest.mark.parametrize(
    "odd",
    [
        {"owner": None, "created_at": None},
        {"owner": {"type": "robot"}, "created_at": "yesterday"},
        {"owner": [], "created_at": -1},
        {"owner": {"type": "service_account"}, "created_at": 1e30, "last_used_at": True},
    ],
)
def test_an_odd_key_hides_no_other(odd: dict[str, object]) -> None:
    """What it does not tell stays empty."""
    strange, well = keys(KEY | odd, KEY | {"id": "key_2"})
    assert (strange.id, strange.owner_id, strange.created_at, strange.last_used_at) == ("key_1", "", None, None)
    assert (well.id, well.owner_id) == ("key_2", "user-1")


def test_a_long_text_is_cut_off() -> None:
    (key,) = keys(KEY | {"name": "x" * 5000})
    assert len(key.name) == 200


def test_admin_keys_are_told_as_they_are_listed() -> None:
    listed = {"id": "key_a", "name": "ci", "redacted_value": "sk-admin...wxyz", "created_at": SECONDS}
    web = Web([js({"data": [listed | {"last_used_at": None, "expires_at": SECONDS}], "has_more": False})])
    found = ask(web, lambda api: api.list_admin_keys(HOST, ADMIN))
    assert found == [AdminKeyFacts("key_a", "ci", "sk-admin...wxyz", AT, AT, None)]
    assert web.paths == [("GET", "/v1/organization/admin_api_keys")]


@pytest.mark.parametrize(
    ("redacted", "fits"),
    [
        ("sk-admin...wxyz", True),
        ("sk-admin-****wxyz", True),
        ("sk-admin-CANARY…xyz", True),
        ("sk-admin...abcd", False),
        ("sk-proj...wxyz", False),
        ("sk-admin...yz", False),
        ("sk-admin...", False),
        ("", False),
        ("...CANARYsk-admin-CANARYwxyz-and-more", False),
    ],
)
def test_an_admin_key_is_known_by_both_ends_of_its_value(redacted: str, fits: bool) -> None:
    assert ADMIN.fits(redacted) is fits


def test_the_audit_log_is_asked_about_these_accounts_and_keys_alone() -> None:
    """Of this project, since that time, and only about what is made, changed and deleted."""
    web = Web([js({"data": [], "has_more": False})])
    ask(web, lambda api: api.list_audit_events(PROJECT, ADMIN, ["user-2", "key_1"], since=NOW))
    ((_, url),) = web.asked
    assert url.path == "/v1/organization/audit_logs"
    assert url.query.getall("resource_ids[]") == ["key_1", "user-2"]
    assert url.query.getall("project_ids[]") == [PROJECT.id]
    assert url.query["effective_at[gte]"] == str(int(NOW.timestamp()))
    assert "service_account.deleted" in url.query.getall("event_types[]")


SESSION = {"type": "session", "session": {"user": {"id": "user-h", "email": "human@example.com"}}}
BY_KEY = {"type": "api_key", "api_key": {"id": "key_admin", "type": "service_account", "service_account": {"id": "s"}}}


@pytest.mark.parametrize(
    ("actor", "said"),
    [
        (SESSION, "human@example.com"),
        (BY_KEY, "s with API key key_admin"),
        ({"api_key": {"id": "key_admin"}}, "key_admin"),
        ({}, "somebody"),
        (None, "somebody"),
    ],
)
def test_an_event_tells_who_it_was(actor: object, said: str) -> None:
    kind = "service_account.deleted"
    (event,) = events(
        {"id": "audit_log-1", "type": kind, "effective_at": SECONDS, "actor": actor, kind: {"id": "user-1"}}
    )
    assert event == AuditEvent(AT, kind, "user-1", said)


@pytest.mark.parametrize(
    ("kind", "details", "scopes"),
    [
        ("api_key.created", {"data": {"scopes": ["model.request"]}}, ("model.request",)),
        ("api_key.updated", {"changes_requested": {"scopes": []}}, ()),
        ("api_key.updated", {"changes_requested": {"expires_in_seconds": 60}}, None),
        ("api_key.created", {}, None),
    ],
)
def test_an_event_tells_the_scopes_that_it_gave(kind: str, details: object, scopes: object) -> None:
    assert isinstance(details, dict)
    item = {
        "id": "audit_log-1",
        "type": kind,
        "effective_at": SECONDS,
        "actor": SESSION,
        kind: {"id": "key_1"} | details,
    }
    assert [event.scopes for event in events(item)] == [scopes]


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "login.succeeded"},
        {"effective_at": None},
        {"service_account.deleted": None},
        {"service_account.deleted": {"id": "../x"}},
    ],
)
def test_an_event_about_something_else_is_left_out(odd: dict[str, object]) -> None:
    kind = "service_account.deleted"
    well = {"id": "audit_log-1", "type": kind, "effective_at": SECONDS, "actor": SESSION, kind: {"id": "user-1"}}
    assert events(well | odd) == []
