"""A request that arrives twice, of which the worker hears the second answer: a 404 or 409 may be its own doing.

The client repeats a DELETE whose connection ended; a proxy or a mesh may repeat anything.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from sandbox.transport.faults import Fate, answered, delivered
from sandbox.transport.wire import Request
from tests.support.ledgers import an_hour_later
from tests.support.paths import ACCOUNTS, ENTRY, EXTERNAL_SECRET, NO_WAIT, SECRET, SECRETS
from tests.support.pods import hold_the_first_key
from tests.support.scene import TARGET, Killer, Scene, checked_scene, run_command
from worker.model.outcomes import Result
from worker.model.times import format_time

scene = pytest.fixture(checked_scene)


@dataclass
class Twice:
    """Faults: each matching request is served once before it is served. `count`: how many of them are."""

    machine: Any
    method: str
    path: str
    count: int = 1000
    served: int = 0

    def fate(self, request: Request) -> Fate:
        if self.served < self.count and request.method == self.method and re.fullmatch(self.path, request.path):
            self.served += 1
            self.machine.handle(request)
        return delivered()


def test_an_account_whose_delete_arrived_twice_is_gone(scene: Scene) -> None:
    an_hour_later(scene)
    scene.run(max_wait=NO_WAIT)
    scene.advance(minutes=10)
    twice = Twice(scene.openai, "DELETE", r".*/service_accounts/.*")
    scene.run(openai_faults=twice)
    assert twice.served == 1
    retired = scene.retired()
    assert retired is not None
    assert retired.result is Result.KEPT
    assert len(retired.deleted) == 1
    assert scene.accounts() == [scene.named()["name"]]
    assert len(scene.stored_entry().history) == 1


def test_an_entry_whose_delete_arrived_twice_is_gone(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    scene.delete(EXTERNAL_SECRET)
    twice = Twice(scene.kubernetes, "DELETE", r".*/keyrotations/.*")
    for _ in range(2):
        scene.advance(hours=1)
        scene.run(cluster_faults=twice)
    assert twice.served == 1
    assert scene.entry() is None
    retired = scene.retired()
    assert retired is None or retired.result is Result.KEPT
    assert scene.accounts() == []


def test_revoke_counts_an_account_whose_delete_arrived_twice_as_deleted(scene: Scene) -> None:
    hold_the_first_key(scene)
    scene.advance(minutes=20)
    revoked = scene.revoke(TARGET, openai_faults=Twice(scene.openai, "DELETE", r".*/service_accounts/.*"))
    assert revoked.complete, revoked.left
    assert scene.accounts() == [revoked.successor]


@pytest.mark.parametrize("gone", [False, True], ids=["patch", "create"])
def test_a_key_whose_write_arrived_twice_is_published(scene: Scene, *, gone: bool) -> None:
    """The second write meets the first one's resourceVersion, or its object: nobody else was there."""
    an_hour_later(scene)
    if gone:
        scene.delete(SECRET)
    method, path = ("POST", r".*/secrets") if gone else ("PATCH", r".*/secrets/.*")
    twice = Twice(scene.kubernetes, method, path, count=2 if gone else 1)
    scene.run(cluster_faults=twice)
    assert twice.served
    assert scene.outcome().result is Result.ROTATED
    assert scene.live_key()
    entry = scene.stored_entry()
    assert entry.unpublished == ()
    assert entry.failures.count == 0
    assert scene.account_ids() == {p.account.id for p in entry.history}


def test_a_note_in_the_ledger_that_arrived_twice_is_noted_once(scene: Scene) -> None:
    """The second write looks like another run: the target waits for its claim, and makes no second key."""
    an_hour_later(scene)
    mints = scene.openai.mints
    twice = Twice(scene.kubernetes, "PATCH", r".*/keyrotations/.*", count=1)
    scene.run(cluster_faults=twice)
    assert twice.served == 1
    assert scene.outcome().reason == "InProgress"
    assert scene.openai.mints == mints
    for _ in range(3):
        scene.advance(minutes=10)
        scene.run()
    assert scene.openai.mints == mints + 1
    assert scene.live_key()
    assert scene.stored_entry().unpublished == ()


def test_a_healing_whose_note_arrived_twice_counts_once(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=10)
    scene.delete(SECRET)
    # The intent, then the publication.
    patches = Twice(scene.kubernetes, "PATCH", r".*/keyrotations/.*")
    skipped = 0

    class Second:
        def fate(self, request: Request) -> Fate:
            nonlocal skipped
            if request.method == "PATCH" and "/keyrotations/" in request.path:
                skipped += 1
                if skipped == 2:
                    return patches.fate(request)
            return delivered()

    scene.run(cluster_faults=Second())
    assert patches.served == 1
    assert scene.outcome().reason == "SecretMissing"
    assert scene.stored_entry().healings.count == 1


@dataclass
class DoublesAndDies(Killer):
    """Its create arrives twice, and it is killed right before it publishes the key that it was told, and has tried."""

    scene: Scene | None = None
    told: int = 0
    """Which of the two answers reached it."""

    def fate(self, request: Request) -> Fate:
        assert self.scene is not None
        assert self.work is not None
        if (request.method, request.path) == ("POST", ACCOUNTS):
            return answered([self.scene.openai.handle(request) for _ in range(2)][self.told])
        if (request.method, request.path) == ("POST", SECRETS):
            self.work.cancel()
            raise asyncio.CancelledError
        return delivered()


@pytest.mark.parametrize("told", [0, 1])
@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=30)], ids=["right", "30 days ahead"])
def test_both_accounts_of_a_run_that_died_go_whatever_the_clock_was_that_noted_them(
    scene: Scene, ahead: timedelta, told: int
) -> None:
    """A key that the run tried itself looks used, as a human's would: they were made together (seed 1139)."""
    scene.apply_documented()
    assert scene.killed(DoublesAndDies(0, after=False, scene=scene, told=told), run_command)
    (name,) = {intent.account.name for intent in scene.stored_entry().unpublished}
    assert scene.accounts() == [name, name]
    at = {field: format_time(scene.now() + ahead) for field in ("requestedAt", "claimedUntil")}
    scene.merge(ENTRY, {"status": {"accounts": {name: at}}})
    for _ in range(48):
        scene.advance(hours=1)
        scene.run()
    assert scene.accounts() == [scene.named()["name"]]
    assert scene.live_key()
