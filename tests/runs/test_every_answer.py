"""Every row of the table in docs/openai.md, for ten runs: no answer makes accounts in a loop, and all of it heals."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

import pytest

from sandbox.transport.faults import Fate, answered, delivered
from sandbox.transport.wire import Request, Response
from tests.support.answers import GATEWAY, GOOD, PAGE, rows
from tests.support.ledgers import an_hour_later, settle
from tests.support.paths import NO_WAIT
from tests.support.scene import Scene, checked_scene
from worker.plan.bounds import UNDELETABLE

scene = pytest.fixture(checked_scene)

PLACES = {
    "create": ("POST", r".*/service_accounts"),
    "read": ("GET", r".*/service_accounts"),
    "delete": ("DELETE", r".*/service_accounts/.*"),
    "verify": ("GET", r"/v1/models"),
}
RUNS = 10
TRIES = 7
"""A failed attempt is repeated after one minute, two, four, …: so often in a hundred minutes."""
BAD = [row for row in rows() if row["status"] != "200" or row["body"] == "page"]
LASTING = ("OpenAIForbidden", "OpenAIUnauthorized", "OpenAIRefused", "OpenAIWrongHost", "OpenAIAddressRefused")


@dataclass
class InPlaceOf:
    """Faults: this answer in place of OpenAI's. `taken`: OpenAI has done what was asked all the same."""

    scene: Scene
    kind: str
    response: Response
    taken: bool = False
    asked: list[Request] = field(default_factory=list)

    def fate(self, request: Request) -> Fate:
        method, path = PLACES[self.kind]
        if request.method != method or not re.fullmatch(path, request.path):
            return delivered()
        self.asked.append(request)
        if self.taken:
            self.scene.openai.handle(request)
        return answered(self.response)


def response(row: dict[str, str], kind: str) -> Response:
    status, headers = int(row["status"]), {"Location": "https://evil.example"} if row["status"] == "307" else {}
    if row["body"] == "page":
        return Response.of_text(status, PAGE, "text/html")
    if row["body"] == "gateway":
        return Response.of_json(status, GATEWAY, headers)
    error = {"error": {"message": "no", "code": row["code"] or None, "type": "x", "param": None}}
    return Response.of_json(status, error if row["body"] == "error" else json.loads(json.dumps(GOOD[kind])), headers)


def name_of(row: dict[str, str]) -> str:
    return " ".join(part for part in (row["status"], row["code"], row["body"]) if part)


@pytest.mark.parametrize("taken", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize("row", BAD, ids=name_of)
def test_a_create_that_is_answered_so_is_not_made_in_a_loop(scene: Scene, row: dict[str, str], *, taken: bool) -> None:
    """Also where OpenAI made the account, and the answer hides it: it is found by its name, and goes."""
    faults = InPlaceOf(scene, "create", response(row, "create"), taken)
    scene.apply_documented()
    for _ in range(RUNS):
        scene.run(openai_faults=faults, max_wait=NO_WAIT)
        scene.advance(minutes=10)
    assert faults.asked
    # A 429 is repeated within a run, under another name each time; the run gives up after three.
    assert len(faults.asked) <= TRIES * (3 if row["status"] == "429" else 1)
    names = [request.json()["name"] for request in faults.asked]
    assert len(set(names)) == len(names)
    if row["status"] != "429":
        assert len(scene.accounts()) <= 2
    settle(scene)


@pytest.mark.parametrize("row", BAD, ids=name_of)
def test_a_key_that_is_answered_so_is_not_made_in_a_loop(scene: Scene, row: dict[str, str]) -> None:
    """A new key is tried: what OpenAI does not accept is deleted, and the next try waits."""
    faults = InPlaceOf(scene, "verify", response(row, "verify"))
    scene.apply_documented()
    for _ in range(RUNS):
        scene.run(openai_faults=faults, max_wait=NO_WAIT)
        scene.advance(minutes=10)
    assert scene.openai.mints <= TRIES
    assert len(scene.accounts()) <= 3
    settle(scene)


@pytest.mark.parametrize("row", BAD, ids=name_of)
def test_where_a_list_is_answered_so_nothing_is_made(scene: Scene, row: dict[str, str]) -> None:
    an_hour_later(scene)
    faults = InPlaceOf(scene, "read", response(row, "read"))
    for _ in range(RUNS):
        scene.run(openai_faults=faults, max_wait=NO_WAIT)
        scene.advance(minutes=10)
    assert faults.asked
    assert scene.openai.mints == 1
    assert scene.live_key()
    settle(scene)


@pytest.mark.parametrize("row", BAD, ids=name_of)
def test_where_a_delete_is_answered_so_no_more_is_made_than_is_due(scene: Scene, row: dict[str, str]) -> None:
    """And where waiting does not mend it, only a few."""
    scene.apply_documented()
    faults = InPlaceOf(scene, "delete", response(row, "delete"))
    for _ in range(RUNS):
        scene.run(openai_faults=faults, max_wait=NO_WAIT)
        scene.advance(hours=1)
    assert faults.asked
    assert scene.openai.mints <= RUNS
    lasting = row["delete"] in (*LASTING, "OpenAINotReached", "OpenAIRedirect")
    if lasting:
        assert scene.openai.mints <= UNDELETABLE + 2
    assert scene.live_key()
    settle(scene)
