"""One tenant in trouble: the others are served as if it were not there, and the run ends in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from sandbox.transport.faults import (
    Fate,
    Rule,
    Rules,
    bad_gateway,
    delivered,
    request_lost,
    response_lost,
    too_many_requests,
)
from tests.support.scene import EPOCH, Scene, checked_scene
from tests.support.tenants import PROJECT, TROUBLED, NeverAccepted, Tenants, secret
from worker.model.outcomes import Result
from worker.report.summary import exit_code

scene = pytest.fixture(checked_scene)
SECRETS = f"/api/v1/namespaces/{TROUBLED}/secrets"
CROWD = 60
TROUBLES: dict[str, tuple[Sequence[tuple[Fate, str, str]], Sequence[tuple[Fate, str, str]]]] = {
    "its list hangs": ([(request_lost(), "GET", PROJECT)], []),
    "its creates hang": ([(request_lost(), "POST", PROJECT)], []),
    "its creates are done and not answered": ([(response_lost(), "POST", PROJECT)], []),
    "its creates fail": ([(bad_gateway(), "POST", PROJECT)], []),
    "nothing of it answers": ([(request_lost(), ".*", PROJECT + ".*")], []),
    "all of it is slow": ([(delivered(14, 14), ".*", f".*/project-{TROUBLED}/.*")], []),
    "429 in 5 s": ([(too_many_requests(5), ".*", PROJECT + ".*")], []),
    "429 in 60 s": ([(too_many_requests(60), ".*", PROJECT + ".*")], []),
    "429 in an hour": ([(too_many_requests(3600), ".*", PROJECT + ".*")], []),
    "429 without a time": ([(too_many_requests(None), ".*", PROJECT + ".*")], []),
    "429 in 5 s for creates": ([(too_many_requests(5), "POST", PROJECT)], []),
    "429 without a time for creates": ([(too_many_requests(None), "POST", PROJECT)], []),
    "429 for deletes": ([(too_many_requests(5), "DELETE", PROJECT + ".*")], []),
    "its deletes hang": ([(request_lost(), "DELETE", PROJECT + ".*")], []),
    "its Secrets are read slowly": ([], [(delivered(7, 7), "GET", f"{SECRETS}/.*")]),
    "its Secrets are written slowly": ([], [(delivered(7, 7), "POST|PATCH", f"{SECRETS}.*")]),
    "its Secrets are never read": ([], [(request_lost(), "GET", f"{SECRETS}/.*")]),
}


def rules(troubles: Sequence[tuple[Fate, str, str]]) -> list[Rule]:
    return [Rule(fate, method, path) for fate, method, path in troubles]


@pytest.mark.parametrize("trouble", [*TROUBLES, "its keys are never accepted"])
@pytest.mark.parametrize(("concurrency", "deadline"), [(50, 900), (5, 180)])
def test_the_others_do_not_notice(scene: Scene, trouble: str, concurrency: int, deadline: int) -> None:
    """They are rotated in seconds, their superseded accounts go in the same run, and it ends within its deadline."""
    tenants = Tenants(scene, crowd=CROWD, others=6)
    openai, cluster = TROUBLES.get(trouble, ([], []))
    otherwise = NeverAccepted(scene) if trouble not in TROUBLES else None
    found = tenants.run(
        *rules(openai), cluster=rules(cluster), otherwise=otherwise, concurrency=concurrency, deadline=deadline
    )
    assert found.rotated == 18
    assert found.rotated_by < 5
    assert found.left_over == 0
    assert found.seconds <= deadline
    assert found.results.total() == CROWD


@pytest.mark.parametrize(
    ("trouble", "most"),
    [
        ("its creates hang", 50 + 1),  # as many as are on their way when the first goes unanswered, and one more
        ("its creates fail", 50 + 1),
        ("429 in 5 s", 3),
        ("429 in 60 s", 1),
        ("429 in an hour", 1),
        ("429 without a time", 2),
        ("429 in 5 s for creates", 50 + 3),
        ("429 without a time for creates", 50 + 2),
    ],
)
def test_the_tenant_in_trouble_costs_a_handful_of_requests(scene: Scene, trouble: str, most: int) -> None:
    """However many targets it has. Those that were not tried cost no account and no write of the ledger."""
    tenants = Tenants(scene, crowd=150, others=2)
    openai, _ = TROUBLES[trouble]
    before = {name: scene.kubernetes.find("keyrotations", "openai-key-rotator", f"a.{name}") for name in names(150)}
    tenants.run(*rules(openai), max_wait=timedelta(0))
    assert scene.openai_session is not None
    kind = "POST" if "create" in trouble else ".*"
    asked = [e for e in scene.openai_session.log if f"/project-{TROUBLED}/" in e.path and kind in (e.method, ".*")]
    assert len(asked) <= most
    told = [outcome for outcome in scene.watcher.outcomes if outcome.target.namespace == TROUBLED]
    assert {outcome.result for outcome in told} == {Result.FAILED}
    assert all("; next attempt " in outcome.message for outcome in told)
    tried = [secret(i) for i in range(150) if scene.stored_entry(secret(i)).failures.count]
    assert 1 <= len(tried) <= most
    for ref in {secret(i) for i in range(150)} - set(tried):
        entry = scene.kubernetes.find("keyrotations", "openai-key-rotator", f"a.{ref.name}")
        published = before[ref.name]
        assert entry is not None
        assert published is not None
        assert entry["status"].get("failures") is None
        assert entry["status"]["conditions"] == published["status"]["conditions"]


def names(count: int) -> list[str]:
    return [secret(i).name for i in range(count)]


def test_who_was_not_tried_comes_first_in_the_next_run(scene: Scene) -> None:
    """A project that takes a few requests a run serves all of its targets in time, not always the same."""
    tenants = Tenants(scene, crowd=40, others=0)
    tried: Counter[int] = Counter()
    for _ in range(8):
        tenants.run(Rule(request_lost(), "POST", PROJECT), concurrency=5, max_wait=timedelta(0))
        counts = {i: scene.stored_entry(secret(i)).failures.count for i in range(40)}
        tried = Counter(counts)
        scene.advance(minutes=10)
    assert set(tried.values()) <= {1, 2}


@pytest.mark.parametrize("path", [PROJECT + ".*", PROJECT])
@pytest.mark.parametrize("method", [".*", "POST", "DELETE"])
def test_the_next_run_honours_what_this_one_was_told(scene: Scene, path: str, method: str) -> None:
    """Nothing goes out with that admin key until the hour is over, not even from a run that was started at once."""
    path = PROJECT + ".*" if method == "DELETE" else path
    tenants = Tenants(scene, crowd=10, others=1)
    tenants.run(Rule(too_many_requests(3600), method, path), max_wait=timedelta(0))
    for minutes in (0, 1, 10, 40):
        scene.advance(minutes=minutes)
        found = tenants.run(max_wait=timedelta(0))
        assert found.asked == 0
    scene.advance(minutes=10)
    found = tenants.run()
    assert found.results.total() == sum(n for what, n in found.results.items() if what.startswith("rotated"))
    scene.advance(minutes=10)
    tenants.run()
    assert len(scene.accounts(f"project-{TROUBLED}")) == 10
    assert all(scene.live_key(secret(i)) for i in range(10))


def test_a_human_does_not_have_to_wait(scene: Scene) -> None:
    """`--force` asks at once, and a new admin key serves whoever was not refused with the old one."""
    tenants = Tenants(scene, crowd=3, others=0)
    rule = too_many_requests(3600)
    tenants.run(Rule(rule, ".*", PROJECT + ".*"))
    assert tenants.run(force=True).results == {"rotated Forced": 3}
    scene.advance(hours=2)
    tenants.run(Rule(rule, ".*", PROJECT + ".*"))
    new = scene.openai.add_admin_key("acme")
    scene.merge(f"{SECRETS}/admin", {"stringData": {"api-key": new}})
    assert tenants.run().results == {"rotated Due": 2, "failed OpenAIThrottled": 1}


def test_a_key_that_many_tenants_share_is_one_key(scene: Scene) -> None:
    """In whatever Secret it is: what one of them was told holds for all."""
    for i in range(30):
        scene.namespace(f"team-{i}")
        scene.openai.add_project("acme", f"project-{i}")
        scene.apply_documented(f"team-{i}", projectId=f"project-{i}")
    for _ in range(2):
        scene.run(openai_faults=Rules([Rule(too_many_requests(3600))], scene.random), concurrency=5)
    assert scene.openai_session is not None
    assert scene.openai_session.log == []


def test_a_rate_limit_slows_down_and_serves_all(scene: Scene) -> None:
    """A bucket of ten requests a second: as many at once as it takes, one refusal a second or so, and nobody spins."""
    tenants = Tenants(scene, crowd=120, others=0)

    class Bucket:
        """Faults: at most so many requests in each second."""

        def __init__(self) -> None:
            self.used: Counter[int] = Counter()
            self.refused = 0

        def fate(self, request: Any) -> Fate:
            if f"/project-{TROUBLED}/" not in request.path:
                return delivered(0.025, 0.025)
            self.used[int(scene.moment())] += 1
            if self.used[int(scene.moment())] > 10:
                self.refused += 1
                return too_many_requests(1)
            return delivered(0.025, 0.025)

    bucket = Bucket()
    assert tenants.run(otherwise=bucket).results == {"rotated Due": 120}
    assert bucket.refused < 120
    scene.advance(minutes=10)
    tenants.run()
    assert all(scene.live_key(secret(i)) for i in range(120))
    assert len(scene.accounts(f"project-{TROUBLED}")) == 120


@pytest.mark.parametrize(("retry_after", "most"), [(1, 4), (None, 2), (60, 1)])
def test_an_api_server_that_asks_to_slow_down_is_not_spun_at(scene: Scene, retry_after: int | None, most: int) -> None:
    """Each request is made a few times, as far apart as it asks for; the next run goes on."""
    tenants = Tenants(scene, crowd=20, others=0)
    tenants.run(cluster=[Rule(too_many_requests(retry_after), "PATCH", ".*/keyrotations/.*")], max_wait=timedelta(0))
    assert scene.cluster_session is not None
    writes = Counter(e.path for e in scene.cluster_session.log if e.method == "PATCH" and "/keyrotations/" in e.path)
    # The intent; why there is none; and what was retired.
    assert max(writes.values()) <= 3 * most
    scene.advance(minutes=10)
    assert tenants.run().results == {"rotated Due": 20}


@pytest.mark.parametrize("method", ["PATCH", "GET"])
def test_an_api_server_that_is_too_slow_ends_in_words(scene: Scene, method: str) -> None:
    """Neither a write of the ledger that can be relied upon nor a look right before a delete is tried for ever."""
    tenants = Tenants(scene, crowd=2, others=0)
    what = f"{SECRETS}/secret-.*" if method == "GET" else ".*/keyrotations/.*"
    found = tenants.run(cluster=[Rule(delivered(3, 3), method, what)], max_wait=timedelta(0))
    assert found.seconds < 120
    told = {outcome.reason for outcome in scene.watcher.outcomes} | {item.reason for item in scene.watcher.retirements}
    assert "TooSlow" in told
    scene.advance(minutes=10)
    tenants.run()
    scene.advance(minutes=10)
    tenants.run()
    assert len(scene.accounts(f"project-{TROUBLED}")) == 2


def test_a_failing_project_is_seen_in_the_exit_code(scene: Scene) -> None:
    """Also in that of a run that left all of it to the next."""
    tenants = Tenants(scene, crowd=3, others=1)
    tenants.run(Rule(too_many_requests(3600), ".*", PROJECT + ".*"))
    report = scene.run()
    assert exit_code(report, strict=False) == 1
    outcome = scene.outcome(secret(0))
    assert outcome.reason == "OpenAIThrottled"
    assert outcome.next_at is not None
    assert outcome.next_at >= EPOCH + timedelta(hours=3)


@pytest.mark.parametrize("trouble", ["its creates hang", "its list hangs"])
def test_a_project_in_trouble_does_not_hold_up_its_namespaces_other_projects(scene: Scene, trouble: str) -> None:
    """However few places there are, and however many of its targets are before theirs."""
    tenants = Tenants(scene, crowd=60, others=0)
    well = tenants.add_project(TROUBLED, "well", 5)
    tenants.run(max_wait=timedelta(0))
    scene.advance(hours=1)
    openai, _ = TROUBLES[trouble]
    began = scene.seconds
    tenants.run(*rules(openai), concurrency=5, max_wait=timedelta(0))
    assert {scene.outcome(ref).result for ref in well} == {Result.ROTATED}
    published = [scene.stored_entry(ref).history[-1].at for ref in well]
    assert max(published) < EPOCH + timedelta(seconds=began + 5)
