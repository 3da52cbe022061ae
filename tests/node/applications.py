"""Applications that tell which key they have, and what they told.

Guarantees: a key is known by the label that a test gave it, so that no assertion can show one; what a container told is
read from the node's own files, whoever is cut off from whom.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sandbox.openai.state import KeyStatus
from tests.cluster.endpoint import call
from tests.node.build import PROBE
from tests.node.installation import SECRET, Installation, until

KEY = "api_key"
VARIABLE = {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": KEY}}}
MOUNTED = {"name": "secret", "secret": {"secretName": SECRET}}
PROJECTED = {"name": "secret", "projected": {"sources": [{"secret": {"name": SECRET}}]}}
SHARED: dict[str, Any] = {"name": "shared", "emptyDir": {}}
NOTHING = ""
"""What a container has that has no key."""
UNKNOWN = "a key that no test knows"


def container(*arguments: str, name: str = "app", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": PROBE, "args": list(arguments), **more}


def by_variable(*flags: str, name: str = "app", **more: Any) -> dict[str, Any]:
    return container(*flags, name=name, env=[VARIABLE], **more)


def by_file(path: str, *flags: str, volume: str = "secret", **mount: str) -> dict[str, Any]:
    """Tells the file at `path`; the volume is mounted at its folder, or where `mount` says."""
    place = {"name": volume, "mountPath": path.rpartition("/")[0], **mount}
    return container(*flags, path, volumeMounts=[place])


def pod(*containers: dict[str, Any], volumes: tuple[dict[str, Any], ...] = (), **more: Any) -> dict[str, Any]:
    """The spec of a pod."""
    spec = {"containers": list(containers), "volumes": list(volumes), "terminationGracePeriodSeconds": 1}
    return spec | {"enableServiceLinks": False, "automountServiceAccountToken": False} | more


@dataclass
class Applications:
    """Those of one tenant. `labels`: what each key is called, and so the account that it belongs to."""

    installation: Installation
    labels: dict[str, str] = field(default_factory=dict, repr=False)
    accounts: dict[str, str] = field(default_factory=dict)
    """The account's name, by label."""

    def label_current(self, label: str) -> None:
        """Call the key that is in the Secret now by this label."""
        self.labels[self.installation.key()] = label
        self.accounts[label] = self.installation.current()

    def create(self, name: str, spec: dict[str, Any]) -> None:
        metadata = {"name": name, "namespace": self.installation.namespace}
        self.installation.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def deploy(self, name: str, spec: dict[str, Any]) -> None:
        """The same as a Deployment's one pod, and wait for it."""
        labels = {"app": name}
        self.installation.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "namespace": self.installation.namespace},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": spec},
                },
            }
        )
        self.rolled_out(name)

    def rolled_out(self, name: str) -> None:
        """Wait until the Deployment's new pod is there, and its old one has gone."""
        rollout = ("-n", self.installation.namespace, "rollout", "status", f"deployment/{name}", "--timeout=300s")
        self.installation.kubectl(*rollout)
        until(lambda: len(self.installation.pods(self.installation.namespace, f"app={name}")) == 1)

    def attach(self, name: str, ephemeral: dict[str, Any]) -> None:
        """Add an ephemeral container to this pod."""
        path = f"/api/v1/namespaces/{self.installation.namespace}/pods/{name}/ephemeralcontainers"
        patch = {"spec": {"ephemeralContainers": [ephemeral]}}
        kind = "application/strategic-merge-patch+json"
        status, answer = call(self.installation.endpoint, "PATCH", path, patch, content_type=kind)
        assert status == 200, answer

    def all(self) -> list[dict[str, Any]]:
        return self.installation.pods(self.installation.namespace, "")

    def told(self, name: str, of: str = "app") -> list[str]:
        """What this container has had, start after start, change after change."""
        place = f"{self.installation.namespace}_{name}_*/{of}/*.log"
        logs = sorted(self.installation.node.logs.glob(place), key=lambda path: int(path.stem))
        lines = (line.split(" ", 3) for log in logs for line in log.read_text().splitlines())
        return [self._label(json.loads(text)) for _, stream, _, text in lines if stream == "stdout"]

    def _label(self, line: dict[str, Any]) -> str:
        (value,) = {line["variable"], *line["files"].values()} - {""} or {NOTHING}
        return self.labels.get(value, UNKNOWN) if value else NOTHING

    def has(self, label: str, name: str, of: str = "app") -> bool:
        """Is this the key that the container told last?"""
        return self.told(name, of)[-1:] == [label]

    def restart(self, name: str, of: str = "app") -> None:
        """End this container's process: the kubelet starts it again, in place."""
        before = self.container(name, of)
        self.installation.node.kill(before)
        until(lambda: self.status(name, of).get("containerID") != before or self.waits(name, of))

    def restart_and_hear(self, name: str, of: str = "app") -> str:
        """The same, and what it has then."""
        before = len(self.told(name, of))
        self.installation.node.kill(self.container(name, of))
        return until(lambda: self.told(name, of)[before:])[0]

    def container(self, name: str, of: str = "app") -> str:
        """The id of this container, once its pod's status has it."""
        found: str = until(lambda: self.status(name, of).get("containerID"))
        return found

    def status(self, name: str, of: str = "app") -> dict[str, Any]:
        path = f"/api/v1/namespaces/{self.installation.namespace}/pods/{name}"
        pod = call(self.installation.endpoint, "GET", path)[1]
        return next((item for item in statuses(pod) if item["name"] == of), {})

    def waits(self, name: str, of: str = "app") -> str:
        """Why the container does not run."""
        reason: str = self.status(name, of).get("state", {}).get("waiting", {}).get("reason", "")
        return reason

    def now(self) -> dict[str, str]:
        """What every container that runs has, by pod and container."""
        return {
            f"{name}/{item['name']}": heard[-1]
            for found in self.all()
            for item in statuses(found)
            if "running" in item["state"] and (heard := self.told(name := found["metadata"]["name"], item["name"]))
        }

    def dead(self) -> list[str]:
        """Containers that run with a key that OpenAI does not take any more, or does not know."""
        keys = {label: key for key, label in self.labels.items()}
        alive = self.installation.openai.key_status
        holding = {name: label for name, label in self.now().items() if label != NOTHING}
        return [name for name, label in holding.items() if alive(keys[label]) is not KeyStatus.ACTIVE]


def statuses(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Of all containers of a pod."""
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    return [item for kind in kinds for item in found.get("status", {}).get(kind, [])]
