"""Whole runs with pods: an account goes when, and only when, nobody can still hold its key."""

from __future__ import annotations

from datetime import timedelta

from sandbox.transport.faults import Rule, Rules, request_lost
from tests.support.pods import start_pod, stop_pod
from tests.support.scene import TARGET, Scene
from worker.model.outcomes import Result


def test_a_pod_keeps_a_working_key_through_any_number_of_rotations() -> None:
    """The account of its start stays, the ones between go, and with the pod it goes too."""
    scene = Scene()
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=20)
    start_pod(scene)
    taken, first = scene.key(), scene.named()["name"]
    for _ in range(5):
        scene.advance(hours=1)
        scene.run()
        assert scene.outcome().result is Result.ROTATED
        assert scene.openai.use(taken)
        assert set(scene.accounts()) == {first, scene.named()["name"]}
    held = next(p for p in scene.stored_entry().history if p.account.name == first)
    assert held.held is not None
    assert held.held.why == "1: my-app/app"
    stop_pod(scene)
    scene.advance(seconds=1)
    scene.run()
    assert scene.accounts() == [scene.named()["name"]]


def test_pods_are_listed_once_per_namespace_and_only_where_something_may_go() -> None:
    """None where nothing was published before: nobody can hold an old key. Else right after it, and before a delete."""
    scene = Scene()
    scene.apply_documented()
    scene.run()
    assert pod_lists(scene) == 0
    scene.advance(hours=1)
    scene.run()
    assert pod_lists(scene) == 2
    scene.advance(minutes=10)
    scene.run()
    assert pod_lists(scene) == 0


def pod_lists(scene: Scene) -> int:
    assert scene.cluster_session is not None
    return sum(request.path.endswith("/pods") for request in scene.cluster_session.log)


def test_without_the_right_to_list_pods_nothing_is_deleted() -> None:
    """The account stays, the target is rotated all the same, and the words say what to grant."""
    scene = Scene()
    scene.apply_documented()
    scene.run()
    scene.kubernetes.forbid("list", "pods")
    scene.advance(hours=1)
    scene.run()
    assert scene.outcome().result is Result.ROTATED
    assert len(scene.accounts()) == 2
    told = next(item for item in scene.watcher.retirements if item.target == TARGET)
    assert (told.result, told.reason) == (Result.BLOCKED, "PodsForbidden")
    assert "list pods in namespace default" in told.message
    scene.kubernetes.permit("list", "pods")
    scene.run()
    assert len(scene.accounts()) == 1


def test_a_key_whose_run_died_right_after_publishing_it_is_held_too() -> None:
    """The ledger does not know of it and its Secret is gone: the container that took the key still has it."""
    scene = Scene()
    scene.apply_documented()
    lost = Rules([Rule(request_lost(disconnected=True), method="PATCH", path=".*/keyrotations/.*")], scene.random)
    scene.run(cluster_faults=lost, max_wait=timedelta(0))
    assert scene.outcome().reason == "LedgerNotWritten"
    taken, first = scene.key(), scene.named()["name"]
    start_pod(scene)
    scene.delete("/api/v1/namespaces/default/secrets/openai-credentials")
    for _ in range(3):
        scene.advance(minutes=10)
        scene.run()
        assert scene.openai.use(taken)
        assert scene.named()["name"] != first
    stop_pod(scene)
    scene.advance(hours=1)
    scene.run()
    assert scene.accounts() == [scene.named()["name"]]
