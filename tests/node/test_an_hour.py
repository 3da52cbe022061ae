"""An hour of rotations on the real node: live accounts and dead keys, for each kind of consumer.

docs/consumers.md has the figures. The rhythm is six times that of an hourly rotation with a run each ten minutes; what
does not become faster with it are the waiting times of the worker and the kubelet.
"""

from __future__ import annotations

import json
import time
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cluster.endpoint import call
from tests.cluster.rig import PREFIX
from tests.node.applications import KEY, UNKNOWN, Applications, by_file, container, pod
from tests.node.installation import Installation
from tests.support.scene import PROJECT, documented

pytestmark = pytest.mark.hour

HOUR = 3600.0
EVERY = 100.0
"""Seconds from run to run."""
LOOK = 5.0
"""Seconds from look to look."""
INTERVAL = "10m"


@dataclass
class Consumer:
    """A target of its own, and the Deployment of one pod that uses it. `live`: its accounts, look by look."""

    name: str
    most: int
    """Live accounts at a time, at most."""
    mounts: bool = False
    restarted_by_worker: bool = False
    restarted_by_tool: bool = False
    live: list[int] = field(default_factory=list)
    dead: int = 0
    """Looks at which its container had a dead key."""
    keys: int = 0

    def objects(self, installation: Installation) -> list[dict[str, Any]]:
        """Its generator and ExternalSecret, as documented."""
        generator, external = (
            one
            for one in documented(installation.admin_key, installation.openai_url)
            if one["kind"] in ("OpenAI", "ExternalSecret")
        )
        for one in (generator, external):
            one["metadata"] = {"name": self.name, "namespace": installation.namespace}
        generator["spec"]["serviceAccountNamePrefix"] = self.name
        external["spec"]["refreshInterval"] = INTERVAL
        external["spec"]["dataFrom"][0]["sourceRef"]["generatorRef"]["name"] = self.name
        if self.restarted_by_worker:
            external["metadata"]["annotations"] = {f"{PREFIX}restart": f"deployment/{self.name}"}
        return [generator, external]

    def spec(self) -> dict[str, Any]:
        """Of its pod."""
        if self.mounts:
            volume = {"name": "secret", "secret": {"secretName": self.name}}
            return pod(by_file(f"/secret/{KEY}"), volumes=(volume,))
        reference = {"secretKeyRef": {"name": self.name, "key": KEY}}
        return pod(container(env=[{"name": "OPENAI_API_KEY", "valueFrom": reference}]))

    def figures(self) -> tuple[int, float, int]:
        """The most accounts at a time, their mean, and how often its container was seen with a dead key."""
        return max(self.live), round(sum(self.live) / len(self.live), 1), self.dead


CONSUMERS = (
    Consumer("untouched", most=3),
    Consumer("by-tool", most=2, restarted_by_tool=True),
    Consumer("by-worker", most=2, restarted_by_worker=True),
    Consumer("by-file", most=2, mounts=True),
)


class Hour:
    """Runs of the worker, looks at every container in between, and a tool that restarts what has a changed Secret."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.applications = Applications(installation)

    def play(self) -> None:
        for consumer in CONSUMERS:
            self.installation.apply(*consumer.objects(self.installation))
        assert self.installation.job().run.code == 0
        self._label()
        for consumer in CONSUMERS:
            self.applications.deploy(consumer.name, consumer.spec())
        begun = time.monotonic()
        run_at = begun
        while time.monotonic() < begun + HOUR:
            if time.monotonic() >= run_at:
                run_at += EVERY
                assert self.installation.job().run.code == 0
                self._restart()
            self._look()
            time.sleep(LOOK)

    def _label(self) -> list[Consumer]:
        """Call each new key by its target and number; whose it is."""
        changed = []
        for consumer in CONSUMERS:
            path = f"/api/v1/namespaces/{self.installation.namespace}/secrets/{consumer.name}"
            key = b64decode(call(self.installation.endpoint, "GET", path)[1]["data"][KEY]).decode()
            if key not in self.applications.labels:
                consumer.keys += 1
                self.applications.labels[key] = f"{consumer.name}/{consumer.keys}"
                changed.append(consumer)
        return changed

    def _restart(self) -> None:
        """As Reloader does, within seconds of the change."""
        for consumer in self._label():
            if consumer.restarted_by_tool:
                namespace = ("-n", self.installation.namespace)
                self.installation.kubectl(*namespace, "rollout", "restart", f"deployment/{consumer.name}")

    def _look(self) -> None:
        assert UNKNOWN not in self.applications.now().values()
        dead = self.applications.dead()
        accounts = [account.name for account in self.installation.openai.accounts(PROJECT)]
        for consumer in CONSUMERS:
            consumer.live.append(sum(name.startswith(f"{consumer.name}_") for name in accounts))
            consumer.dead += any(name.startswith(f"{consumer.name}-") for name in dead)


@pytest.fixture(scope="module")
def hour(installation: Installation) -> Hour:
    hour = Hour(installation)
    hour.play()
    print(json.dumps({consumer.name: [*consumer.figures(), consumer.keys] for consumer in CONSUMERS}))
    return hour


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda consumer: consumer.name)
def test_an_hour_of_rotations(hour: Hour, consumer: Consumer) -> None:
    most, _, dead = consumer.figures()
    assert consumer.keys >= HOUR // 600
    assert min(consumer.live) >= 1
    assert most <= consumer.most
    assert dead == 0
