"""Whole runs with pods that mount the Secret: what a deleted Secret, or a pod on its way out, leaves in the volume."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.support.paths import EXTERNAL_SECRET, NO_WAIT, SECRET
from tests.support.pods import stop_pod
from tests.support.scene import Scene, checked_scene
from worker.model.times import format_time

scene = pytest.fixture(checked_scene)
POD = "/api/v1/namespaces/default/pods/my-app"


def mount(scene: Scene, **mount: str) -> None:
    """A running pod with the Secret as a volume, started now."""
    volume = {"name": "v", "secret": {"secretName": "openai-credentials"}}
    container = {"name": "app", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v", **mount}]}
    spec = {"nodeName": "node-1", "containers": [container], "volumes": [volume]}
    scene.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "my-app", "namespace": "default"}, "spec": spec}
    )
    scene.merge(f"{POD}/status", {"status": {"phase": "Running", "startTime": format_time(scene.now())}})
    restart(scene)


def restart(scene: Scene) -> None:
    """The container starts, or starts again in place, now."""
    state = {"running": {"startedAt": format_time(scene.now())}}
    scene.merge(f"{POD}/status", {"status": {"containerStatuses": [{"name": "app", "state": state}]}})


@pytest.fixture
def mounted(scene: Scene) -> Scene:
    """A pod has followed its Secret to its first key, an hour ago, and another key was published thirty seconds ago."""
    return rotated(scene)


def rotated(scene: Scene, **how: str) -> Scene:
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=1)
    mount(scene, **how)
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    assert len(scene.accounts()) == 2
    scene.advance(seconds=30)
    return scene


def runs(scene: Scene, count: int = 4, **options: Any) -> None:
    for _ in range(count):
        scene.advance(minutes=10)
        scene.run(**options)


def test_a_volume_follows_and_holds_nothing(mounted: Scene) -> None:
    """As long as the Secret is there."""
    runs(mounted, 1)
    assert mounted.accounts() == [mounted.named()["name"]]


def test_a_volume_may_have_been_left_at_the_key_before(mounted: Scene) -> None:
    """The Secret was deleted before the kubelet had followed: both keys are held until the pod ends."""
    both = mounted.accounts()
    mounted.delete(EXTERNAL_SECRET)
    assert mounted.secret() is None
    runs(mounted)
    assert mounted.accounts() == both
    stop_pod(mounted)
    runs(mounted)
    assert mounted.accounts() == []


def test_a_volume_has_four_minutes_once_the_secret_is_back(mounted: Scene) -> None:
    """The run that makes it again deletes nothing that the volume may still have."""
    both = mounted.accounts()
    mounted.delete(SECRET)
    mounted.advance(minutes=10)
    mounted.run(max_wait=NO_WAIT)
    assert set(both) <= set(mounted.accounts())
    mounted.advance(minutes=3)
    mounted.run(max_wait=NO_WAIT)
    assert set(both) <= set(mounted.accounts())
    mounted.advance(minutes=1)
    mounted.run(max_wait=NO_WAIT)
    assert mounted.accounts() == [mounted.named()["name"]]


def test_a_secret_that_is_back_for_a_moment_lets_nothing_go(mounted: Scene) -> None:
    """Deleted, made again, and deleted for good before anybody has followed."""
    both = mounted.accounts()
    mounted.delete(SECRET)
    mounted.advance(minutes=10)
    mounted.run(max_wait=NO_WAIT)
    mounted.advance(seconds=30)
    mounted.delete(EXTERNAL_SECRET)
    runs(mounted)
    assert set(both) < set(mounted.accounts())


def test_a_restarted_container_takes_its_path_from_what_is_left(scene: Scene) -> None:
    """A `subPath` is bound at the start, to what the volume has, and stays so when the Secret is back."""
    rotated(scene, subPath="api_key")
    both = scene.accounts()
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/suspend": "true"}}})
    scene.delete(SECRET)
    runs(scene, 2)
    restart(scene)
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/suspend": None}}})
    runs(scene)
    assert set(both) < set(scene.accounts())
    stop_pod(scene)
    runs(scene)
    assert scene.accounts() == [scene.named()["name"]]


def test_a_pod_on_its_way_out_is_not_brought_up_to_date(scene: Scene) -> None:
    """Kubelets leave the volumes of a pod alone that is being deleted, however long it takes."""
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=1)
    mount(scene)
    first = scene.named()["name"]
    leaving = format_time(scene.now() + timedelta(hours=2))
    scene.kubernetes.find("pods", "default", "my-app")["metadata"]["deletionTimestamp"] = leaving  # type: ignore[index]
    scene.advance(hours=1)
    scene.run()
    assert first in scene.accounts()
    stop_pod(scene)
    scene.run()
    assert scene.accounts() == [scene.named()["name"]]
