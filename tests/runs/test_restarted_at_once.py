"""Whole runs with containers that start right after a rotation, and with a node that was cut off."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.paths import NO_WAIT
from tests.support.pods import start_pod, stop_pod
from tests.support.scene import Scene, checked_scene
from worker.model.times import format_time

scene = pytest.fixture(checked_scene)


@pytest.fixture
def rotated(scene: Scene) -> Scene:
    """A pod had the first key; the second was published just now."""
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=20)
    start_pod(scene)
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    assert len(scene.accounts()) == 2
    return scene


def restart(scene: Scene, *, after: int) -> None:
    """As a tool does that restarts workloads when their Secret changes: a new pod, then the old one goes."""
    scene.advance(seconds=after)
    start_pod(scene, "new")
    scene.advance(seconds=20)
    stop_pod(scene)


@pytest.mark.parametrize("after", [0, 3])
def test_a_deployment_that_is_restarted_at_once_holds_nothing(rotated: Scene, after: int) -> None:
    """Also within the second of the change. The next run deletes the old account, and tells the fact."""
    restart(rotated, after=after)
    rotated.advance(minutes=10)
    rotated.run(max_wait=NO_WAIT)
    assert rotated.accounts() == [rotated.named()["name"]]
    retired = rotated.retired()
    assert retired is not None
    fact = "after the change on node node-1: no other pod there had read the Secret"
    assert f"not held by new/app (started {after}s {fact}" in retired.message


def test_hourly_restarts_leave_two_accounts_at_most(rotated: Scene) -> None:
    """Twelve rotations, each with a restart."""
    for number in range(12):
        rotated.advance(seconds=3)
        start_pod(rotated, f"pod-{number}")
        rotated.advance(seconds=20)
        stop_pod(rotated, "my-app" if number == 0 else f"pod-{number - 1}")
        rotated.advance(hours=1)
        rotated.run(max_wait=timedelta(minutes=5))
        assert len(rotated.accounts()) <= 2


def test_a_container_of_a_node_that_was_cut_off_holds_the_old_key(rotated: Scene) -> None:
    """It restarts in place with the old key, six minutes after the change, and is told of when the node is back."""
    rotated.advance(seconds=1)
    rotated.set_node("node-1", ready=False)
    rotated.advance(minutes=7)
    running = {"running": {"startedAt": format_time(rotated.now())}}
    rotated.advance(seconds=5)
    rotated.set_node("node-1")
    status = {"containerStatuses": [{"name": "app", "state": running}]}
    rotated.merge("/api/v1/namespaces/default/pods/my-app/status", {"status": status})
    rotated.advance(minutes=20)
    rotated.run(max_wait=NO_WAIT)
    assert len(rotated.accounts()) == 2
    held = next(p.held for p in rotated.stored_entry().history if p.held is not None)
    assert "which was cut off until" in held.why


def test_without_the_right_to_read_nodes_an_hour_is_the_measure(rotated: Scene) -> None:
    """The reason says so, and nothing fails."""
    rotated.kubernetes.forbid("get", "nodes")
    restart(rotated, after=3)
    rotated.advance(minutes=10)
    report = rotated.run(max_wait=NO_WAIT)
    assert not any(item.reason for item in report.retired)
    held = next(p.held for p in rotated.stored_entry().history if p.held is not None)
    assert held.why == "possibly 1: new/app (started 3s after the change, and nodes may not be read)"


def test_a_list_of_pods_that_fails_costs_no_rotation(scene: Scene) -> None:
    """Nobody knows then who was there: the account is held for longer."""
    scene.apply_documented()
    scene.run()
    scene.kubernetes.forbid("list", "pods")
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    assert scene.outcome().reason == "Due"
    assert [p.nodes_then for p in scene.stored_entry().history] == [None, None]
