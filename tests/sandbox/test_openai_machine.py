"""The embedded OpenAI as a machine: time, knobs, views. What clients see of it is in tests/contract."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sandbox.openai.server import OpenAI
from sandbox.openai.state import CANARY, KeyStatus
from sandbox.transport.wire import Request, Response
from tests.sandbox.conftest import Clock

ACCOUNTS = "/v1/organization/projects/proj_1/service_accounts"
Send = Callable[..., Response]


@pytest.fixture
def admin_key(openai: OpenAI) -> str:
    """The organisation's admin key."""
    key = openai.add_organization("acme")
    openai.add_project("acme", "proj_1")
    return key


@pytest.fixture
def send(openai: OpenAI, admin_key: str) -> Send:
    """Makes a request with the admin key."""

    def send(method: str, target: str, json: object = None, key: str = admin_key) -> Response:
        return openai.handle(Request.of(method, target, json=json, headers={"Authorization": f"Bearer {key}"}))

    return send


def mint(send: Send, **fields: Any) -> dict[str, Any]:
    """A new account, as its create answered."""
    answer = send("POST", ACCOUNTS, {"name": "app_1", **fields})
    assert answer.status == 200
    created: dict[str, Any] = answer.json()
    return created


def test_the_same_seed_gives_the_same_answers(clock: Clock) -> None:
    """Ids and key values come from the given randomness alone."""
    answers = []
    for _ in range(2):
        machine = OpenAI(clock, random.Random(7))
        key = machine.add_organization("acme")
        machine.add_project("acme", "proj_1")
        request = Request.of("POST", ACCOUNTS, json={"name": "a"}, headers={"Authorization": f"Bearer {key}"})
        answers.append(machine.handle(request).body)
    assert answers[0] == answers[1]


def test_every_key_carries_the_canary(openai: OpenAI, admin_key: str, send: Send) -> None:
    """Admin keys, account keys and user keys, so that a leak of any is found."""
    values = [admin_key, mint(send)["api_key"]["value"], openai.add_user_key("proj_1", "x")[1]]
    assert all(CANARY in value for value in values)
    assert [value.split(CANARY)[0] for value in values] == ["sk-admin-", "sk-svcacct-", "sk-proj-"]


def test_nothing_prints_a_key(openai: OpenAI, send: Send) -> None:
    """Not the machine, nor any view of it, nor its log."""
    value = mint(send)["api_key"]["value"]
    shown = [openai, openai.accounts("proj_1"), openai.key(value), openai.log, vars(openai)["_projects"]]
    assert CANARY not in repr(shown)


def test_every_answer_is_dated_and_numbered(send: Send, clock: Clock) -> None:
    """Refusals too."""
    answers = [send("GET", ACCOUNTS), send("GET", ACCOUNTS, key="wrong"), send("GET", "/v1/nothing")]
    assert [answer.status for answer in answers] == [200, 401, 501]
    assert {answer.headers["Date"] for answer in answers} == {"Tue, 24 Nov 2026 10:00:00 GMT"}
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3


def test_a_new_key_is_accepted_after_its_delay(openai: OpenAI, send: Send, clock: Clock) -> None:
    """Until then it is answered with 401, and its use leaves no trace."""
    openai.acceptance_delay = 10
    value = mint(send)["api_key"]["value"]
    assert openai.key_status(value) is KeyStatus.PENDING
    assert not openai.use(value)
    clock.advance(10)
    assert openai.use(value)
    assert openai.key_status(value) is KeyStatus.ACTIVE
    key = openai.key(value)
    assert key is not None
    assert key.last_used_at == clock()


def test_a_new_account_is_listed_after_its_delay(openai: OpenAI, send: Send, clock: Clock) -> None:
    """It exists all the same: it can be retrieved, and oracles see it."""
    openai.listing_delay = 10
    account = mint(send)["id"]
    assert send("GET", ACCOUNTS).json()["data"] == []
    assert send("GET", f"{ACCOUNTS}/{account}").status == 200
    assert [one.id for one in openai.accounts("proj_1")] == [account]
    clock.advance(10)
    assert [one["id"] for one in send("GET", ACCOUNTS).json()["data"]] == [account]


def test_a_use_is_shown_after_its_delay(openai: OpenAI, send: Send, clock: Clock) -> None:
    """Until then the use before it is shown; oracles see it at once."""
    openai.usage_delay = 60
    created = mint(send)["api_key"]
    path = f"/v1/organization/projects/proj_1/api_keys/{created['id']}"
    begun = clock().timestamp()
    shown = []
    for _ in range(4):
        openai.use(created["value"])
        clock.advance(40)
        shown.append(send("GET", path).json()["last_used_at"])
    assert shown == [None, begun, begun + 40, begun + 80]
    key = openai.key(created["value"])
    assert key is not None
    assert key.last_used_at is not None
    assert key.last_used_at.timestamp() == begun + 120


def test_a_key_ends_with_its_lifetime(openai: OpenAI, send: Send, clock: Clock) -> None:
    """It is answered with 401 from that second on."""
    value = mint(send, expires_in_seconds=60)["api_key"]["value"]
    clock.advance(59)
    assert openai.use(value)
    clock.advance(1)
    assert openai.key_status(value) is KeyStatus.EXPIRED
    assert not openai.use(value)


def test_an_archived_project_has_no_accounts(openai: OpenAI, send: Send) -> None:
    """And their keys are gone."""
    value = mint(send)["api_key"]["value"]
    openai.archive("proj_1")
    assert openai.accounts("proj_1") == ()
    assert openai.key_status(value) is KeyStatus.DELETED


def test_an_organisation_sees_its_own_projects_only(openai: OpenAI, send: Send) -> None:
    """Another's do not exist for it."""
    other = openai.add_organization("other")
    assert send("GET", ACCOUNTS, key=other).status == 404


def test_mints_are_counted(openai: OpenAI, send: Send) -> None:
    """Keys that were made, not requests that were refused."""
    mint(send)
    mint(send)
    send("POST", ACCOUNTS, {"name": ""})
    assert openai.mints == 2
    assert [exchange.kind for exchange in openai.log].count("POST service_accounts") == 3


def test_accounts_can_be_made_and_deleted_by_hand(openai: OpenAI, send: Send) -> None:
    """As somebody would in the console."""
    account, value = openai.add_account("proj_1", "stranger")
    assert send("GET", f"{ACCOUNTS}/{account.id}").json()["name"] == "stranger"
    openai.delete_account("proj_1", account.id)
    assert openai.key_status(value) is KeyStatus.DELETED
    assert openai.key_status("sk-made-up") is KeyStatus.UNKNOWN


def test_an_admin_key_can_be_revoked(openai: OpenAI, admin_key: str, send: Send) -> None:
    """It is answered with 401."""
    openai.revoke_admin_key(admin_key)
    assert send("GET", ACCOUNTS).status == 401


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": 1}, "name"),
        ({"name": "a", "create_service_account_only": 1}, "create_service_account_only"),
        ({"name": "a", "expires_in_seconds": "60"}, "expires_in_seconds"),
        ({"name": "a", "expires_in_seconds": True}, "expires_in_seconds"),
        ({"name": "a", "expires_in_seconds": 0}, "expires_in_seconds"),
    ],
)
def test_a_malformed_create_makes_nothing(openai: OpenAI, send: Send, fields: dict[str, Any], param: str) -> None:
    """400, which names the parameter."""
    answer = send("POST", ACCOUNTS, fields)
    assert answer.status == 400
    assert answer.json()["error"]["param"] == param
    assert (openai.mints, openai.accounts("proj_1")) == (0, ())


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=-1", "limit=", "after=user-unknown"])
def test_a_malformed_page_is_refused(send: Send, query: str) -> None:
    """400, not the first page."""
    assert send("GET", f"{ACCOUNTS}?{query}").status == 400


@pytest.mark.parametrize(
    ("method", "target", "json"),
    [
        ("GET", f"{ACCOUNTS}?order=desc", None),
        ("PATCH", ACCOUNTS, {}),
        ("POST", ACCOUNTS, {"name": "a", "colour": "red"}),
        ("GET", "/v1/organization/projects", None),
        ("POST", "/v1/chat/completions", {}),
        ("GET", "/", None),
    ],
)
def test_what_is_not_done_is_said(openai: OpenAI, send: Send, method: str, target: str, json: object) -> None:
    """501."""
    assert send(method, target, json).status == 501
    assert openai.accounts("proj_1") == ()


@pytest.mark.parametrize("name", ["..%2F..%2Fadmin_api_keys", "user-%2F", "..", "%2E%2E"])
def test_a_strange_id_is_an_unknown_one(send: Send, name: str) -> None:
    """It never reaches another endpoint."""
    assert send("DELETE", f"{ACCOUNTS}/{name}").status == 404


def test_a_required_lifetime_can_be_lifted(openai: OpenAI, send: Send) -> None:
    """As an organisation's policy changes."""
    openai.require_lifetime("acme", timedelta(seconds=60))
    assert send("POST", ACCOUNTS, {"name": "a"}).status == 400
    assert send("POST", ACCOUNTS, {"name": "a", "create_service_account_only": True}).status == 200
    openai.require_lifetime("acme", None)
    mint(send)


def test_a_key_without_membership_may_do_nothing(send: Send) -> None:
    """403, for its account is no member of the project; lists of keys do not show it unless asked."""
    account = mint(send, create_service_account_only=True)["id"]
    value = send("POST", f"{ACCOUNTS}/{account}/api_keys", {"name": "k"}).json()["value"]
    assert send("GET", "/v1/models", key=value).status == 403
    keys = "/v1/organization/projects/proj_1/api_keys"
    assert send("GET", keys).json()["data"] == []
    assert len(send("GET", f"{keys}?owner_project_access=any").json()["data"]) == 1
    assert send("GET", f"{keys}?owner_project_access=x").status == 400
