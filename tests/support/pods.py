"""Pods that read the documented Secret, as objects and in a scene."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.support.scene import Scene
from worker.model.times import format_time

STARTED = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


RUNNING = {"running": {"startedAt": "2026-11-24T10:00:00Z"}}


BY_ENV = {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "api_key"}}}]}


BY_MOUNT = {"volumeMounts": [{"name": "v", "mountPath": "/s"}]}


PLAIN = {"name": "v", "secret": {"secretName": "s"}}


def start_pod(scene: Scene, name: str = "my-app", namespace: str = "default") -> dict[str, Any]:
    """A running pod that takes the documented Secret's key from its environment, started now."""
    reference = {"name": "openai-credentials", "key": "api_key"}
    container = {"name": "app", "image": "i", "env": [{"name": "K", "valueFrom": {"secretKeyRef": reference}}]}
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": "node-1", "containers": [container]},
    }
    scene.apply(pod)
    state = {"running": {"startedAt": format_time(scene.now())}}
    status = {"phase": "Running", "containerStatuses": [{"name": "app", "state": state}]}
    scene.merge(f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": status})
    return pod


def hold_the_first_key(scene: Scene) -> Scene:
    """A pod carries the first account's key, and a second one has taken its place."""
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=20)
    start_pod(scene)
    scene.advance(hours=1)
    scene.run()
    return scene


def stop_pod(scene: Scene, name: str = "my-app") -> None:
    scene.delete(f"/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0")
