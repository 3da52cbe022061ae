"""Every row of the table in docs/openai.md: an answer in OpenAI's place, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.answers import GATEWAY, GOOD, PAGE, rows
from tests.support.builders import HOST, KEY, PROJECT, FixedRandom
from tests.support.web import Answer, Web, assert_silent
from worker.errors import RotatorError
from worker.model.hidden import Hidden
from worker.openai.client import OpenAIAdminApi
from worker.runtime.retrying import ATTEMPTS

ADMIN = Hidden("sk-admin-" + KEY)
CALLS: dict[str, Callable[[OpenAIAdminApi], Awaitable[Any]]] = {
    "create": lambda api: api.create_account(PROJECT, ADMIN, "app_1", lifetime=None),
    "read": lambda api: api.list_accounts(PROJECT, ADMIN),
    "narrow": lambda api: api.narrow_key(PROJECT, ADMIN, "key_1", ("model.request",)),
    "delete": lambda api: api.delete_account(PROJECT, ADMIN, "user-1"),
    "verify": lambda api: api.key_accepted(HOST, Hidden(KEY)),
}
RESULTS = {"accepted": True, "not yet": False}


def ask(web: Web, kind: str) -> Any:
    return web.ask(lambda session: CALLS[kind](OpenAIAdminApi(session, FixedRandom())))


def answer(row: dict[str, str], kind: str) -> Answer:
    error = {"error": {"message": f"no: {KEY}", "code": row["code"] or None, "type": "x", "param": None}}
    body = {"page": PAGE, "gateway": json.dumps(GATEWAY), "error": json.dumps(error)}.get(
        row["body"], json.dumps(GOOD[kind])
    )
    return {"status": int(row["status"]), "body": body, "headers": {"Location": "https://evil.example"}}


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("row", rows(), ids=lambda row: " ".join(row.values())[:40])
def test_an_answer_has_the_outcome_of_its_row(row: dict[str, str], kind: str) -> None:
    web = Web([answer(row, kind)] * ATTEMPTS)
    found = ask(web, kind)
    wanted = row[kind]
    if isinstance(found, RotatorError):
        assert found.reason == wanted.removeprefix("repeated, ")
        assert_silent(found, "no:")
    else:
        assert RESULTS.get(wanted, "ok") == (found if kind == "verify" else "ok")
        assert not wanted.startswith("OpenAI")
    # A verification is repeated by rotation, for a minute; a create never.
    assert len(web.asked) == (ATTEMPTS if wanted.startswith("repeated") and kind != "verify" else 1)


def test_no_row_is_missing_for_a_kind_of_status() -> None:
    assert {row["status"] for row in rows()} >= {"200", "400", "401", "403", "404", "409", "429", "500", "503", "307"}


@pytest.mark.parametrize(
    ("headers", "attempts", "seconds"),
    [
        ({"x-should-retry": "false"}, 1, 0),
        ({"retry-after-ms": "1500"}, 2, 1.5),
        ({"Retry-After": "3"}, 2, 3),
        ({"Retry-After": "Tue, 24 Nov 2026 10:00:07 GMT", "Date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 2, 7),
        ({"Retry-After": "Tue, 24 Nov 2026 10:00:07 GMT"}, 2, 0.5),
        ({"Retry-After": "86400"}, 1, 0),
    ],
)
def test_a_server_says_whether_and_when_it_is_asked_again(
    headers: dict[str, str], attempts: int, seconds: float
) -> None:
    """As the official SDKs honour it, on 503 as well."""
    good = {"status": 200, "body": json.dumps(GOOD["read"])}
    web = Web([{"status": 503, "body": "{}", "headers": headers}, good])
    ask(web, "read")
    assert len(web.asked) == attempts
    assert web.seconds >= seconds


def test_a_server_may_ask_for_a_repetition_of_what_looks_definite() -> None:
    """Of a read; a create is never sent again."""
    told = {"status": 400, "body": "{}", "headers": {"x-should-retry": "true"}}
    for kind, attempts in (("read", 2), ("create", 1)):
        web = Web([told, {"status": 200, "body": json.dumps(GOOD[kind])}])
        ask(web, kind)
        assert len(web.asked) == attempts
