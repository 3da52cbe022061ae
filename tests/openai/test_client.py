"""The adapter to OpenAI's Admin API, answer by answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from tests.support.builders import HOST, KEY, NOW, PROJECT, FixedRandom
from tests.support.web import Answer, Web, assert_silent, brief, connection_refused, js
from worker.errors import (
    ConfigurationError,
    Forbidden,
    NotFound,
    NotSent,
    Refused,
    RotatorError,
    Throttled,
    Unanswered,
    Unintelligible,
)
from worker.model.hidden import Hidden
from worker.model.sightings import AccountKey
from worker.model.targets import Project
from worker.model.values import JSON
from worker.openai.client import OpenAIAdminApi
from worker.runtime.retrying import ATTEMPTS

ADMIN = Hidden("sk-admin-CANARY")
ACCOUNTS = "/v1/organization/projects/proj_1/service_accounts"
SECRETIVE = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}})
"""An error as OpenAI writes it: its message quotes the key."""


Call = Callable[[OpenAIAdminApi], Awaitable[Any]]


def ask(web: Web, call: Call) -> Any:
    """What the adapter's method returns, or the error it raises."""
    return web.ask(lambda session: call(OpenAIAdminApi(session, FixedRandom())))


async def list_accounts(api: OpenAIAdminApi) -> dict[str, str]:
    """Names by id."""
    return {id: account.name for id, account in (await api.list_accounts(PROJECT, ADMIN)).items()}


def create(api: OpenAIAdminApi) -> Awaitable[Any]:
    return api.create_account(PROJECT, ADMIN, "app_1", lifetime=timedelta(hours=1))


async def read(api: OpenAIAdminApi) -> str:
    """Its name."""
    return (await api.read_account(PROJECT, ADMIN, "user-1")).name


def list_keys(api: OpenAIAdminApi) -> Awaitable[Any]:
    return api.list_keys(PROJECT, ADMIN)


def list_all_keys(api: OpenAIAdminApi) -> Awaitable[Any]:
    return api.list_project_keys(PROJECT, ADMIN)


def list_admin_keys(api: OpenAIAdminApi) -> Awaitable[Any]:
    return api.list_admin_keys(HOST, ADMIN)


def read_audit_log(api: OpenAIAdminApi) -> Awaitable[Any]:
    return api.list_audit_events(PROJECT, ADMIN, ["user-1"], since=NOW)


def last_used(api: OpenAIAdminApi) -> Awaitable[Any]:
    return api.key_last_used(PROJECT, ADMIN, "key_1")


def narrow(api: OpenAIAdminApi) -> Awaitable[Any]:
    return api.narrow_key(PROJECT, ADMIN, "key_1", ("api.x.read", "model.request"))


def scopes(api: OpenAIAdminApi) -> Awaitable[Any]:
    return api.key_scopes(PROJECT, ADMIN, "key_1")


def delete(api: OpenAIAdminApi) -> Awaitable[Any]:
    return api.delete_account(PROJECT, ADMIN, "user-1")


def archived(api: OpenAIAdminApi) -> Awaitable[Any]:
    return api.project_archived(PROJECT, ADMIN)


def verify(api: OpenAIAdminApi) -> Awaitable[Any]:
    return api.key_accepted(HOST, Hidden(KEY))


AUDITING = [list_all_keys, list_admin_keys, read_audit_log]
ALL = [list_accounts, list_keys, create, read, last_used, narrow, scopes, delete, archived, *AUDITING]
READS = [list_accounts, list_keys, read, last_used, scopes, archived, *AUDITING]
REPEATED = [*READS, narrow, delete]

# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ALL)
@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, Refused, "OpenAIRefused"),
        (401, Refused, "OpenAIUnauthorized"),
        (403, Forbidden, "OpenAIForbidden"),
        (404, NotFound, "OpenAINotFound"),
        (422, Refused, "OpenAIRefused"),
        (301, Refused, "OpenAIRedirect"),
        (302, Refused, "OpenAIRedirect"),
        (307, Refused, "OpenAIRedirect"),
        (308, Refused, "OpenAIRedirect"),
    ],
)
def test_a_definite_answer_is_not_asked_for_again(call: Call, status: int, kind: type[Refused], reason: str) -> None:
    """With reason, status, OpenAI's code and the request id, but no text of theirs; redirects are not followed."""
    headers = {"x-request-id": "req_123", "Location": "https://evil.example/x"}
    web = Web([{"status": status, "body": SECRETIVE, "headers": headers}])
    error = ask(web, call)
    assert type(error) is kind
    assert error.reason == reason
    assert error.status == status
    for part in (f"status {status}", "code invalid_api_key", "request req_123"):
        assert part in error.message
    assert_silent(error, "Incorrect")
    assert len(web.asked) == 1


@pytest.mark.parametrize("call", REPEATED)
@pytest.mark.parametrize(
    ("answer", "kind", "attempts"),
    [
        ({"status": 500, "body": SECRETIVE}, Unanswered, ATTEMPTS),
        ({"status": 503, "body": "<html>"}, Unanswered, ATTEMPTS),
        ({"exception": TimeoutError(KEY)}, Unanswered, ATTEMPTS),
        ({"exception": aiohttp.ServerDisconnectedError(KEY)}, Unanswered, ATTEMPTS),
        ({"exception": aiohttp.ClientPayloadError(KEY)}, Unanswered, ATTEMPTS),
        ({"exception": ConnectionResetError(KEY)}, Unanswered, ATTEMPTS),
        ({"exception": connection_refused()}, NotSent, ATTEMPTS),
        ({"exception": ValueError(KEY)}, ConfigurationError, 1),
        ({"status": 429, "body": SECRETIVE}, Throttled, 1),
        ({"status": 429, "headers": {"Retry-After": "3"}}, Throttled, 1),
        ({"status": 429, "headers": {"Retry-After": "-3"}}, Throttled, 1),
        ({"status": 429, "headers": {"Retry-After": "nan"}}, Throttled, 1),
        ({"status": 429, "headers": {"Retry-After": "86400"}}, Throttled, 1),
        ({"status": 429, "headers": {"Retry-After": "inf"}}, Throttled, 1),
        ({"status": 429, "headers": {"Retry-After": "Tue, 24 Nov 2026 10:00:00 GMT"}}, Throttled, 1),
    ],
    ids=brief,
)
def test_reads_and_deletes_are_repeated_within_limits(
    call: Call, answer: Answer, kind: type[RotatorError], attempts: int
) -> None:
    """And end with an error that tells no text. After a 429 it is for all who use the admin key to wait."""
    web = Web([answer] * 9)
    error = ask(web, call)
    assert type(error) is kind
    assert len(web.asked) == attempts
    assert_silent(error, "Incorrect")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status": 500, "body": SECRETIVE}, Unanswered),
        ({"status": 502}, Unanswered),
        ({"exception": TimeoutError(KEY)}, Unanswered),
        ({"exception": aiohttp.ServerDisconnectedError(KEY)}, Unanswered),
        ({"exception": aiohttp.ServerTimeoutError(KEY)}, Unanswered),
        ({"exception": connection_refused()}, NotSent),
        ({"status": 429, "headers": {"Retry-After": "1"}}, Throttled),
        ({"status": 429}, Throttled),
        ({"status": 200, "body": "<html>"}, Unintelligible),
        ({"status": 201, "body": ""}, Unintelligible),
    ],
    ids=brief,
)
def test_a_create_is_sent_once_whatever_comes_of_it(answer: Answer, kind: type[RotatorError]) -> None:
    """OpenAI has no idempotency key: a name that was asked for is never asked for again."""
    web = Web([answer] * 9)
    error = ask(web, create)
    assert type(error) is kind
    assert len(web.asked) == 1
    assert web.seconds == 0
    assert_silent(error, "Incorrect")


def test_a_pause_that_is_asked_for_is_told() -> None:
    """In seconds."""
    error = ask(Web([{"status": 429, "headers": {"Retry-After": "7"}}]), read)
    assert isinstance(error, Throttled)
    assert error.retry_after == 7


def test_a_flaky_connection_is_no_failure() -> None:
    """The answer counts."""
    web = Web([{"exception": connection_refused()}, {"status": 502}, js({"id": "user-1", "name": "app_1"})])
    assert ask(web, read) == "app_1"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>CANARY</html>",
        "[]",
        "null",
        '{"error": "x"}',
        '{"error": {"code": 5}}',
        '{"error": {"code": "two words"}}',
        '{"error": {"code": "sk-CANARY"}}',
        '{"error": {"code": "wrong_sk-CANARY"}}',
        '{"error": {"code": "' + "x" * 65 + '"}}',
        '{"error": {"code": "a\\nb"}}',
        "[" * 100_000,
    ],
    ids=brief,
)
@pytest.mark.parametrize("request_id", ["", "sk-CANARY", "a b", "x" * 65], ids=brief)
def test_a_code_or_id_that_does_not_look_like_one_is_not_told(body: str, request_id: str) -> None:
    """The status alone then."""
    error = ask(Web([{"status": 400, "body": body, "headers": {"x-request-id": request_id}}]), read)
    assert error.message.endswith("(status 400)")
    assert_silent(error, "Incorrect")


# --- answers of success ------------------------------------------------------------------------------------------

NO_KEYS: list[object] = [None, "", 5, KEY + "\n", KEY + "ä", [KEY]]
NO_IDS: list[object] = [None, "", 5, "a/b", "..", []]
MADE: JSON = {"id": "user-1", "name": "app_1", "api_key": {"id": "key_1", "value": KEY, "name": "Secret Key"}}


@pytest.mark.parametrize("call", ALL)
@pytest.mark.parametrize(
    "body", ["", "<html>CANARY</html>", "null", "[]", '"CANARY"', "5", "[" * 100_000, "\xff", "{}"]
)
def test_an_answer_of_another_shape_counts_for_nothing(call: Call, body: str) -> None:
    """A login page with status 200, say: neither an empty list nor a deleted account."""
    error = ask(Web([{"status": 200, "body": body}]), call)
    if (call, body) in ((last_used, "{}"), (archived, "{}")):
        assert not error  # a key without last_used_at was never used
        return
    assert type(error) is Unintelligible
    assert error.reason == "OpenAIUnintelligible"
    assert_silent(error, "Incorrect")


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_created_account_is_its_ids_and_its_key(status: int) -> None:
    """Any 2xx; the name and the lifetime are sent, and the admin key is in the header alone."""
    web = Web([js(MADE, status)])
    made = ask(web, create)
    assert (made.id, made.key_id, made.expires_at) == ("user-1", "key_1", None)
    assert made.value.reveal() == KEY
    assert web.paths == [("POST", ACCOUNTS)]
    assert web.sent[0]["json"] == {"name": "app_1", "expires_in_seconds": 3600}
    assert web.sent[0]["headers"] == {"Authorization": f"Bearer {ADMIN.reveal()}"}
    assert web.sent[0]["allow_redirects"] is False


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1_800_000_000, datetime.fromtimestamp(1_800_000_000, UTC)), (None, None), ("soon", None), (-1, None)],
)
def test_when_a_key_expires_is_what_openai_says(value: object, expected: datetime | None) -> None:
    """What cannot be read loses no account: it has been made by then."""
    made = {**MADE, "api_key": {**MADE["api_key"], "expires_at": value}}
    assert ask(Web([js(made)]), create).expires_at == expected


@pytest.mark.parametrize(
    "error",
    [
        {"param": "expires_in_seconds", "message": "no"},
        {"code": "api_key_expiration_required", "message": "no"},
        {"message": f"Keys must expire within 30 days. You sent {KEY}."},
    ],
)
def test_a_policy_on_lifetimes_is_told_with_the_annotation_to_set(error: dict[str, Any]) -> None:
    """However OpenAI says it; its text is not shown."""
    refused = ask(Web([js({"error": error}, 400)]), create)
    assert refused.reason == "KeyLifetime"
    assert "openai-key-rotator.io/key-lifetime" in refused.message
    assert_silent(refused, "Keys must")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Your organization requires keys to expire within 3600 seconds.", ", which OpenAI says is 1h ("),
        ("must expire within 30 days", ", which OpenAI says is 720h ("),
        ("must expire within the limit", "within the limit ("),
        ("must expire within 30 to 60 days or 5 seconds", "within the limit ("),
    ],
)
def test_the_limit_of_a_lifetime_is_told(text: str, words: str) -> None:
    """Where OpenAI's text holds one number that can be nothing else."""
    refused = ask(Web([js({"error": {"message": text}}, 400)]), create)
    assert words in refused.message


def unauthorized(*names: str) -> JSON:
    """As users report it."""
    text = f"Request includes unauthorized scopes: {', '.join(names)}. Please check and remove these scopes. {KEY}"
    return {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": None}}


def test_a_key_is_narrowed_by_its_scopes_alone() -> None:
    """A lifetime beside them would start anew."""
    web = Web([js({"id": "key_1"})])
    ask(web, narrow)
    assert web.paths == [("POST", "/v1/organization/projects/proj_1/api_keys/key_1")]
    assert web.sent[0]["json"] == {"scopes": ["api.x.read", "model.request"]}


def test_a_key_is_never_narrowed_to_nothing() -> None:
    """OpenAI would lift every restriction."""
    web = Web([])
    error = ask(web, lambda api: api.narrow_key(PROJECT, ADMIN, "key_1", ()))
    assert isinstance(error, ConfigurationError)
    assert web.asked == []


@pytest.mark.parametrize("status", [400, 403, 422])
@pytest.mark.parametrize(
    ("named", "told"),
    [
        (["model.request"], "the scopes model.request ("),
        (["api.x.read", "model.request"], "the scopes api.x.read, model.request ("),
        (["api.x.read.more", "old.model.request", "model.requests"], "the scopes api.x.read, model.request ("),
        (["sk-svcacct-CANARY", "evil.scope"], "the scopes api.x.read, model.request ("),
    ],
)
def test_a_refused_scope_is_told_by_the_user_s_own_word(status: int, named: list[str], told: str) -> None:
    """Only one that was asked for; where OpenAI names none of those, all of them."""
    refused = ask(Web([js(unauthorized(*named), status)]), narrow)
    assert refused.reason == "ScopesRefused"
    assert told in refused.message
    assert_silent(refused, "evil")


@pytest.mark.parametrize("status", [401, 403])
def test_an_admin_key_without_the_scope_is_not_a_refused_scope(status: int) -> None:
    text = "You have insufficient permissions for this operation. Missing scopes: api.management.write, model.request."
    refused = ask(Web([js({"error": {"message": text, "code": None}}, status)]), narrow)
    assert refused.reason == "OpenAIForbidden"
    assert "model.request" not in refused.message


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({}, None),
        ({"scopes": None}, ()),
        ({"scopes": []}, ()),
        ({"scopes": ["b", "a", "b"]}, ("a", "b")),
        ({"scopes": "a"}, None),
        ({"scopes": [5]}, None),
    ],
)
def test_the_scopes_of_a_key_are_what_openai_tells(answer: JSON, expected: object) -> None:
    """None: it does not tell; nothing: no restriction. One that cannot be read tells nothing."""
    assert ask(Web([js({"id": "key_1"} | answer)]), scopes) == expected
    owner = {"type": "service_account", "service_account": {"id": "user-1"}}
    listed = {"id": "key_1", "owner": owner, "created_at": 1_700_000_000} | answer
    (key,) = ask(Web([js({"data": [listed], "has_more": False})]), list_keys)
    assert key.scopes == expected


@pytest.mark.parametrize("status", [401, 403])
def test_a_scoped_key_that_may_not_list_models_is_accepted(status: int) -> None:
    """OpenAI knows it."""
    text = "You have insufficient permissions for this operation. Missing scopes: api.model.read."
    assert ask(Web([js({"error": {"message": text, "code": None}}, status)]), verify) is True


def test_no_lifetime_is_sent_where_none_is_asked_for() -> None:
    """OpenAI's own default applies."""
    web = Web([js(MADE)])
    ask(web, lambda api: api.create_account(PROJECT, ADMIN, "app_1", lifetime=None))
    assert web.sent[0]["json"] == {"name": "app_1"}


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None}, {"id": 5}, {"id": "a/b"}, {"id": "../x"}, {"id": ""}, {"api_key": None}, {"api_key": KEY},
        {"api_key": []}, {"api_key": {}}, {"api_key": {"id": "key_1"}}, {"api_key": {"value": KEY}},
        *({"api_key": {"id": "key_1", "value": value}} for value in NO_KEYS),
        *({"api_key": {"id": value, "value": KEY}} for value in NO_IDS),
    ],
    ids=brief,
)  # fmt: skip
def test_a_created_account_without_a_usable_key_is_not_understood(changes: JSON) -> None:
    """It exists, and its claim says so; the key is nowhere in the error."""
    error = ask(Web([js(MADE | changes)]), create)
    assert type(error) is Unintelligible
    assert_silent(error, "Incorrect")


def page(*names: str, more: object = False, **changes: Any) -> Answer:
    data = [{"id": f"user-{name}", "name": name} for name in names]
    body: JSON = {"data": data, "has_more": more, "last_id": f"user-{names[-1]}" if names else None}
    return js(body | changes)


def test_a_list_is_read_to_its_last_page() -> None:
    """Asked for by the last id, in the largest pages."""
    web = Web([page("a", "b", more=True), page("c", more=True, last_id=None), page("d")])
    assert ask(web, list_accounts) == {"user-a": "a", "user-b": "b", "user-c": "c", "user-d": "d"}
    assert web.queries == [
        {"limit": "100"},
        {"limit": "100", "after": "user-b"},
        {"limit": "100", "after": "user-c"},
    ]


def test_an_empty_list_is_one() -> None:
    """A project without accounts."""
    assert ask(Web([page()]), list_accounts) == {}


def test_accounts_without_a_name_are_listed_all_the_same() -> None:
    """They are not ours, but they exist."""
    data = [{"id": "user-1"}, {"id": "user-2", "name": None}, {"id": "user-3", "name": 5}]
    assert ask(Web([js({"data": data, "has_more": False})]), list_accounts) == dict.fromkeys(
        ["user-1", "user-2", "user-3"], ""
    )


@pytest.mark.parametrize(
    "answers",
    [
        [js({"data": []})],
        [js({"has_more": False})],
        [page("a", more=None)],
        [page("a", more="false")],
        [page("a", data={"id": "x"})],
        [page("a", data=["x"])],
        [page("a", data=[{"name": "x"}])],
        [page("a", data=[{"id": "x/../y"}])],
        [page(more=True)],
        [page("a", more=True, last_id="a/b")],
        [page("a", more=True, last_id=5)],
        [page("a", more=True), page("a", more=True)],
        [page("a", more=True), page("b", more=True), page("a", more=True), page("b", more=True)],
        [page("a", more=True), page(more=True)],
    ],
    ids=range(14),
)
def test_a_list_that_is_not_known_to_be_complete_is_no_list(answers: list[Answer]) -> None:
    """An account missing from it would be taken for gone; pages that go round end soon."""
    error = ask(Web(answers), list_accounts)
    assert type(error) is Unintelligible
    assert_silent(error, "Incorrect")


def test_a_list_that_breaks_off_is_no_list() -> None:
    """Whatever was read before."""
    assert type(ask(Web([page("a", more=True), {"status": 404, "body": '{"error": {}}'}]), list_accounts)) is NotFound


def key(**changes: Any) -> JSON:
    owner = {"type": "service_account", "service_account": {"id": "user-1"}}
    return {"id": "key_1", "created_at": 1_795_500_000, "owner": owner} | changes


def test_keys_are_listed_with_their_accounts() -> None:
    """A person's keys are left out."""
    person = key(id="key_2", owner={"type": "user", "user": {"id": "user-9"}})
    (found,) = ask(Web([js({"data": [person, key()], "has_more": False})]), list_keys)
    assert found == AccountKey("key_1", "user-1", datetime.fromtimestamp(1_795_500_000, UTC))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../x"},
        {"owner": None},
        {"owner": {"type": "service_account"}},
        {"owner": {"type": "service_account", "service_account": {"id": 5}}},
        {"created_at": None},
        {"created_at": True},
        {"created_at": 1e30},
    ],
)
def test_a_key_of_another_shape_is_not_believed(changes: JSON) -> None:
    """A key without owner or age could make somebody else's account look unused."""
    error = ask(Web([js({"data": [key(**changes)], "has_more": False})]), list_keys)
    assert type(error) is Unintelligible


@pytest.mark.parametrize(("name", "expected"), [("app_1", "app_1"), (None, ""), (5, ""), (..., "")])
def test_an_account_is_read_by_its_id(name: object, expected: str) -> None:
    """With a name that is a text."""
    body = {"id": "user-1"} if name is ... else {"id": "user-1", "name": name}
    web = Web([js(body)])
    assert ask(web, read) == expected
    assert web.paths == [("GET", f"{ACCOUNTS}/user-1")]


def test_another_account_than_the_one_asked_for_is_not_believed() -> None:
    """It would confirm a forged id."""
    assert type(ask(Web([js({"id": "user-2", "name": "app_1"})]), read)) is Unintelligible


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (None, None),
        (..., None),
        (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1_700_000_000.5, datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)),
    ],
)
def test_a_key_that_was_never_used_is_not_taken_for_one_of_1970(used: object, expected: datetime | None) -> None:
    """Null is never."""
    web = Web([js({"id": "key_1"} if used is ... else {"id": "key_1", "last_used_at": used})])
    assert ask(web, last_used) == expected
    assert web.paths == [("GET", "/v1/organization/projects/proj_1/api_keys/key_1")]


@pytest.mark.parametrize("used", [0, -1, 1e12, True, "1700000000", [], {}, float("nan"), float("inf")])
def test_a_last_use_that_makes_no_sense_is_not_believed(used: object) -> None:
    """It decides whether a key is deleted."""
    assert type(ask(Web([js({"id": "key_1", "last_used_at": used})]), last_used)) is Unintelligible


def test_a_deleted_account_is_gone() -> None:
    """By OpenAI's word."""
    web = Web([js({"id": "user-1", "deleted": True})])
    assert ask(web, delete) is None
    assert web.paths == [("DELETE", f"{ACCOUNTS}/user-1")]


@pytest.mark.parametrize("deleted", [False, None, "true", 1])
def test_an_account_is_gone_only_if_openai_says_so(deleted: object) -> None:
    """Not by the status alone."""
    assert type(ask(Web([js({"deleted": deleted})]), delete)) is Unintelligible


def test_a_delete_whose_first_answer_was_lost_finds_nothing() -> None:
    """The caller asks the list then."""
    assert type(ask(Web([{"exception": TimeoutError()}, {"status": 404, "body": '{"error": {}}'}]), delete)) is NotFound


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"id": "proj_1", "status": "archived"}, True),
        ({"id": "proj_1", "status": "active"}, False),
        ({"id": "proj_2", "status": "archived"}, False),
        ({"status": "archived"}, False),
        ({"id": "proj_1"}, False),
    ],
)
def test_a_project_is_archived_by_its_own_word(body: JSON, expected: bool) -> None:
    """Not by that of another one."""
    assert ask(Web([js(body)]), archived) is expected


# --- the question with the new key -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ({"status": 200, "body": '{"data": []}'}, True),
        ({"status": 401, "body": SECRETIVE}, False),
        ({"status": 403, "body": SECRETIVE}, True),
        ({"status": 404, "body": SECRETIVE}, True),
    ],
)
def test_a_key_is_accepted_unless_it_is_refused_as_such(answer: Answer, accepted: bool) -> None:
    """A key without that permission, or a host without that path, cannot tell."""
    web = Web([answer])
    assert ask(web, verify) is accepted
    assert web.paths == [("GET", "/v1/models")]
    assert web.sent[0]["headers"] == {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status": 400, "body": SECRETIVE}, Unanswered),
        ({"status": 302, "headers": {"Location": "https://evil.example"}}, Unanswered),
        ({"status": 500, "body": SECRETIVE}, Unanswered),
        ({"status": 429, "body": SECRETIVE}, Throttled),
        ({"exception": TimeoutError(KEY)}, Unanswered),
        ({"exception": connection_refused()}, NotSent),
        ({"status": 200, "body": "<html>"}, Unintelligible),
    ],
    ids=brief,
)
def test_a_key_that_could_not_be_tried_is_neither(answer: Answer, kind: type[RotatorError]) -> None:
    """The caller asks again, or gives up."""
    error = ask(Web([answer] * 9), verify)
    assert isinstance(error, kind)
    assert_silent(error, "Incorrect")


# --- ids ---------------------------------------------------------------------------------------------------------

STRANGE = ["", "a/b", "..", "x/../../admin_api_keys?", "a b", "ä", "a\n", "x" * 129, "%2e%2e"]


@pytest.mark.parametrize("strange", STRANGE)
def test_a_strange_id_never_reaches_a_path(strange: str) -> None:
    """Nothing is sent; the id is not told either."""
    project = Project(HOST, strange)
    calls: list[Callable[[OpenAIAdminApi], Awaitable[Any]]] = [
        lambda api: api.list_accounts(project, ADMIN),
        lambda api: api.create_account(project, ADMIN, "app_1", lifetime=None),
        lambda api: api.project_archived(project, ADMIN),
        lambda api: api.read_account(PROJECT, ADMIN, strange),
        lambda api: api.key_last_used(PROJECT, ADMIN, strange),
        lambda api: api.delete_account(PROJECT, ADMIN, strange),
        lambda api: api.list_project_keys(project, ADMIN),
        lambda api: api.list_audit_events(project, ADMIN, [], since=NOW),
        lambda api: api.list_audit_events(PROJECT, ADMIN, [strange], since=NOW),
    ]
    for call in calls:
        web = Web([])
        error = ask(web, call)
        assert type(error) is ConfigurationError
        assert web.asked == []
