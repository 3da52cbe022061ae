"""One target's failure stays its own; a run that is stopped or out of time starts nothing new and loses nothing."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from sandbox.transport.faults import (
    Fate,
    Rule,
    Rules,
    committed_late,
    delivered,
    request_lost,
    response_lost,
    too_many_requests,
)
from sandbox.transport.wire import Request
from tests.support.paths import NO_WAIT
from tests.support.scene import Scene, checked_scene
from worker.model.outcomes import Result
from worker.model.values import Ref
from worker.report.summary import exit_code

scene = pytest.fixture(checked_scene)


def team(i: int) -> Ref:
    return Ref(f"team-{i}", "openai-credentials")


def project(i: int) -> str:
    return f"project-{i}"


@pytest.fixture
def teams(scene: Scene) -> Scene:
    """Eight namespaces with a project each, after a first run, due again."""
    for i in range(8):
        scene.openai.add_project("acme", project(i))
        scene.namespace(f"team-{i}")
        scene.apply_documented(f"team-{i}", projectId=project(i))
    scene.run()
    scene.advance(hours=1)
    return scene


def results(scene: Scene) -> dict[int, Result]:
    return {int(o.target.namespace.removeprefix("team-")): o.result for o in scene.watcher.outcomes}


@pytest.mark.parametrize("fate", [request_lost(), response_lost(), committed_late(60)])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", ".*"])
def test_an_unreachable_project_is_one_targets_trouble(teams: Scene, fate: Fate, method: str) -> None:
    """Its neighbours rotate, in time, and their old accounts go."""
    faults = Rules([Rule(fate, method, f"/v1/organization/projects/{project(3)}/.*")], teams.random)
    teams.run(openai_faults=faults)
    assert {i: result for i, result in results(teams).items() if i != 3} == dict.fromkeys(
        [0, 1, 2, 4, 5, 6, 7], Result.ROTATED
    )
    assert all(len(teams.accounts(project(i))) == 1 for i in range(8) if i != 3)
    assert teams.live_key(team(3))


class Bug:
    """The third team's request with this number, of those that match, ends in an error that nobody expects."""

    def __init__(self, teams: Scene, method: str, path: str, number: int = 1) -> None:
        self.teams = teams
        self.method = method
        self.path = re.compile(path)
        self.left = number

    def fate(self, request: Request) -> Fate:
        key = self.teams.openai.key(
            request.bearer or ""
        )  # if it is not an admin key, only it tells whose request it is
        others = key is not None and key.project != project(3)
        if not others and request.method == self.method and self.path.search(request.path):
            self.left -= 1
            if self.left == 0:
                raise RuntimeError("sk-svcacct-CANARY")
        return delivered()


@pytest.mark.parametrize(
    ("bug", "accounts", "unpublished", "published"),
    [
        pytest.param({"cluster_faults": ("PATCH", r"/keyrotations/team-3\.")}, 1, 0, False, id="intend"),
        pytest.param({"openai_faults": ("POST", f"/{project(3)}/service_accounts$")}, 1, 1, False, id="mint"),
        pytest.param({"openai_faults": ("GET", "/models$")}, 2, 1, False, id="verify"),
        pytest.param({"cluster_faults": ("PATCH", "/namespaces/team-3/secrets/")}, 2, 1, False, id="publish"),
        pytest.param({"cluster_faults": ("PATCH", r"/keyrotations/team-3\.", 2)}, 2, 1, True, id="record"),
    ],
)
def test_a_crash_in_one_target_is_its_own(
    teams: Scene, bug: dict[str, tuple[Any, ...]], accounts: int, unpublished: int, published: bool
) -> None:
    """A bug: said as such, without the text of the error, which may hold anything; the next run heals it."""
    before = teams.key(team(3))
    report = teams.run(max_wait=NO_WAIT, **{side: Bug(teams, *request) for side, request in bug.items()})
    assert results(teams) == dict.fromkeys(range(8), Result.ROTATED) | {3: Result.FAILED}
    outcome = teams.outcome(team(3))
    assert outcome.reason == "InternalError"
    assert "RuntimeError" in outcome.message
    assert "CANARY" not in outcome.message
    assert exit_code(report, strict=False) == 1
    assert len(teams.accounts(project(3))) == accounts
    assert len(teams.stored_entry(team(3)).unpublished) == unpublished
    assert (teams.key(team(3)) != before) is published
    for _ in range(3):
        teams.advance(minutes=10)
        teams.run()
    assert teams.live_key(team(3))
    assert len(teams.accounts(project(3))) == 1


def test_a_crash_while_retiring_is_one_targets_own(teams: Scene) -> None:
    """As in rotation."""
    report = teams.run(openai_faults=Bug(teams, "DELETE", f"/{project(3)}/service_accounts/"))
    assert exit_code(report, strict=False) == 1
    assert [len(teams.accounts(project(i))) for i in range(8)] == [1, 1, 1, 2, 1, 1, 1, 1]
    teams.run()
    assert [len(teams.accounts(project(i))) for i in range(8)] == [1] * 8


@pytest.mark.parametrize("concurrency", [1, 2, 50])
def test_any_concurrency_serves_all(teams: Scene, concurrency: int) -> None:
    """At most so many requests are on their way at once, and one is enough for all."""
    on_the_way = 0
    most = 0

    class Counting:
        def fate(self, request: Request) -> Fate:
            nonlocal on_the_way, most
            on_the_way += 1
            most = max(most, on_the_way)
            asyncio.get_running_loop().call_later(0.5, finished)
            return delivered(before=0.25, after=0.25)

    def finished() -> None:
        nonlocal on_the_way
        on_the_way -= 1

    teams.run(openai_faults=Counting(), concurrency=concurrency)
    assert set(results(teams).values()) == {Result.ROTATED}
    assert most <= concurrency
    assert all(len(teams.accounts(project(i))) == 1 for i in range(8))


def test_keys_that_are_accepted_late_do_not_hold_up_the_others(teams: Scene) -> None:
    """Waiting for OpenAI to accept a key keeps no place: with concurrency 1 eight waits take the time of one."""
    teams.openai.acceptance_delay = 30
    began = teams.now()
    teams.run(concurrency=1, max_wait=NO_WAIT)
    assert set(results(teams).values()) == {Result.ROTATED}
    assert teams.now() - began < timedelta(seconds=60)


def test_a_stopped_run_starts_no_new_step_and_ends_the_ones_under_way(teams: Scene) -> None:
    """SIGTERM: what has begun is published and noted, the rest waits for the next run."""
    slow = Rules([Rule(delivered(after=5), "POST")], teams.random)
    report = teams.run(openai_faults=slow, concurrency=2, stop_after=7)
    counts = Counter(results(teams).values())
    assert report.stopped == "Stopped"
    assert 1 <= counts[Result.ROTATED] < 8
    for i in range(8):
        assert teams.live_key(team(i))
        assert teams.stored_entry(team(i)).unpublished == ()
    assert teams.openai.mints == 8 + counts[Result.ROTATED]
    teams.run()
    assert teams.openai.mints == 16
    assert all(len(teams.accounts(project(i))) == 1 for i in range(8))


def test_a_run_that_is_stopped_while_it_waits_ends_at_once(teams: Scene) -> None:
    """Nothing has failed, and the next run deletes what this one would have."""
    began = teams.now()
    report = teams.run(stop_after=30)
    assert teams.now() - began < timedelta(seconds=40)
    assert exit_code(report, strict=True) == 0
    assert all(len(teams.accounts(project(i))) == 2 for i in range(8))
    teams.advance(minutes=5)
    teams.run()
    assert all(len(teams.accounts(project(i))) == 1 for i in range(8))


@pytest.mark.parametrize("deadline", [0.0, 1.0, 3.0, 8.0, 20.0, 60.0])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_run_out_of_time_loses_nothing(teams: Scene, deadline: float, concurrency: int) -> None:
    """Whatever was cut off at the deadline is found by later runs: no account is left over, no key is dead."""
    slow = Rules([Rule(delivered(before=1, after=1))], teams.random)
    began = teams.now()
    report = teams.run(openai_faults=slow, cluster_faults=slow, concurrency=concurrency, deadline=deadline)
    assert teams.now() - began <= timedelta(seconds=deadline + 30)
    assert len(report.outcomes) == 8
    for _ in range(4):
        assert all(teams.live_key(team(i)) for i in range(8))
        teams.advance(minutes=10)
        teams.run()
    for i in range(8):
        assert teams.accounts(project(i)) == [teams.named(team(i))["name"]]
        assert teams.stored_entry(team(i)).unpublished == ()


def test_a_namespace_that_throttles_is_not_everybodys(teams: Scene) -> None:
    """429 for one project's creates."""
    faults = Rules([Rule(too_many_requests(5), "POST", f".*/{project(2)}/.*")], teams.random)
    teams.run(openai_faults=faults, max_wait=NO_WAIT)
    assert Counter(results(teams).values()) == {Result.ROTATED: 7, Result.FAILED: 1}
    assert teams.outcome(team(2)).reason == "OpenAIThrottled"


def test_what_cannot_be_told_does_not_stop_what_can_be_done(teams: Scene) -> None:
    """Events and conditions are refused in one namespace: its key is rotated all the same."""
    teams.kubernetes.forbid("create", "events", "team-1")
    teams.kubernetes.forbid("patch", "externalsecrets/status", "team-1")
    report = teams.run()
    assert set(results(teams).values()) == {Result.ROTATED}
    assert len(teams.watcher.problems) == 2
    assert exit_code(report, strict=False) == 0


def test_outcomes_are_told_while_the_run_goes_on(teams: Scene) -> None:
    """Each as it happens, and once."""
    report = teams.run()
    assert sorted(o.target for o in teams.watcher.outcomes) == sorted(o.target for o in report.outcomes)
    assert len(report.outcomes) == 8
