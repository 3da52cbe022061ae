"""Workloads in a scene, and what their controllers would do to them."""

from __future__ import annotations

from typing import Any

from tests.support.scene import Scene
from worker.kubernetes.workload import RESTARTED_AT

GROUP = "/apis/apps/v1/namespaces"
KINDS = {"deployment": "Deployment", "statefulset": "StatefulSet", "daemonset": "DaemonSet"}


def workload(
    kind: str = "deployment", name: str = "app", *, namespace: str = "default", secret: str = "openai-credentials"
) -> dict[str, Any]:
    """A workload whose one container takes the Secret's key from its environment."""
    labels = {"app": name}
    key = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": secret, "key": "api_key"}}}
    spec = {
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "app", "image": "any", "env": [key]}]},
        },
    }
    if kind != "daemonset":
        spec["replicas"] = 1
    if kind == "statefulset":
        spec["serviceName"] = name
    return {
        "apiVersion": "apps/v1",
        "kind": KINDS[kind],
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def path_of(kind: str = "deployment", name: str = "app", namespace: str = "default") -> str:
    return f"{GROUP}/{namespace}/{kind}s/{name}"


def deploy(scene: Scene, kind: str = "deployment", name: str = "app", **more: Any) -> None:
    """Create a workload, whose first rollout is finished."""
    scene.apply(workload(kind, name, **more))
    settle(scene, kind, name, more.get("namespace", "default"))


def settle(scene: Scene, kind: str = "deployment", name: str = "app", namespace: str = "default") -> None:
    """The controller has replaced all pods."""
    found = stored(scene, kind, name, namespace)
    status = {"observedGeneration": found["metadata"]["generation"], "replicas": 1, "updatedReplicas": 1}
    status |= {"updatedNumberScheduled": 1, "desiredNumberScheduled": 1}
    scene.merge(path_of(kind, name, namespace) + "/status", {"status": status})


def stored(scene: Scene, kind: str = "deployment", name: str = "app", namespace: str = "default") -> dict[str, Any]:
    found = scene.kubernetes.find(f"{kind}s", namespace, name)
    assert found is not None
    return dict(found)


def stamp_of(scene: Scene, kind: str = "deployment", name: str = "app", namespace: str = "default") -> str | None:
    """When somebody last asked for a restart."""
    template = stored(scene, kind, name, namespace)["spec"]["template"]
    stamp: str | None = template["metadata"].get("annotations", {}).get(RESTARTED_AT)
    return stamp


def generation_of(scene: Scene, kind: str = "deployment", name: str = "app", namespace: str = "default") -> int:
    """It grows with each rollout."""
    return int(stored(scene, kind, name, namespace)["metadata"]["generation"])
