"""A day of hourly rotations, a run each ten minutes: live accounts of one target, for each kind of consumer.

docs/consumers.md has the figures; these tests measure them. Each minute every container's key is tried.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable

import pytest

from sandbox.openai.state import KeyStatus
from tests.support.paths import EXTERNAL_SECRET, NO_WAIT
from tests.support.pods import start_pod, stop_pod
from tests.support.scene import Scene, checked_scene
from worker.model.times import format_time

scene = pytest.fixture(checked_scene)
HOURS = 24
EVERY = 10
"""Minutes from run to run."""


class Day:
    """What the day comes to: live accounts by the minute, and minutes in which a container had a dead key."""

    def __init__(self, scene: Scene, consumer: Consumer) -> None:
        self.scene, self.consumer = scene, consumer
        self.live: list[int] = []
        self.dead = 0

    def play(self) -> Day:
        scene = self.scene
        scene.apply_documented()
        scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "1h"}})
        scene.run(max_wait=NO_WAIT)
        self.consumer.start(scene)
        for minute in range(HOURS * 60):
            if minute % EVERY == 0:
                before = scene.key()
                scene.run(max_wait=NO_WAIT)
                if scene.key() != before:
                    self.consumer.changed(scene)
            scene.advance(minutes=1)
            self.live.append(len(scene.accounts()))
            self.dead += scene.openai.key_status(self.consumer.key(scene)) is not KeyStatus.ACTIVE
        return self

    def figures(self) -> tuple[int, float, int]:
        """The most accounts at a time, their mean, and the minutes with a dead key."""
        return max(self.live), round(sum(self.live) / len(self.live), 1), self.dead


class Consumer:
    """A Deployment of one pod that has the key in its environment, and that nobody restarts."""

    def __init__(self) -> None:
        self.count = 0
        self._key = ""

    def start(self, scene: Scene) -> None:
        self.count += 1
        start_pod(scene, f"pod-{self.count}")
        self._key = scene.key()

    def changed(self, scene: Scene) -> None:
        """The Secret has another key."""

    def key(self, scene: Scene) -> str:
        return self._key


class Restarted(Consumer):
    """One that is restarted when its Secret changes: by a tool like Reloader, or by the worker's own stamp."""

    after = 5

    def changed(self, scene: Scene) -> None:
        scene.advance(seconds=self.after)
        self.start(scene)
        scene.advance(seconds=25)
        stop_pod(scene, f"pod-{self.count - 1}")


class RestartedInThatSecond(Restarted):
    after = 0


class Mounted(Consumer):
    """One that mounts the Secret and reads the file anew."""

    def start(self, scene: Scene) -> None:
        volume = {"name": "v", "secret": {"secretName": "openai-credentials"}}
        container = {"name": "app", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
        spec = {"nodeName": "node-1", "containers": [container], "volumes": [volume]}
        metadata = {"name": "mounted", "namespace": "default"}
        scene.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        state = {"running": {"startedAt": format_time(scene.now())}}
        status = {"phase": "Running", "startTime": format_time(scene.now())}
        status |= {"containerStatuses": [{"name": "app", "state": state}]}  # type: ignore[dict-item]
        scene.merge("/api/v1/namespaces/default/pods/mounted/status", {"status": status})

    def key(self, scene: Scene) -> str:
        """Followed within the minute."""
        secret = scene.secret()
        assert secret is not None
        return b64decode(secret["data"]["api_key"]).decode()


@pytest.mark.parametrize(
    ("consumer", "figures"),
    [
        (Consumer, (3, 2.1, 0)),
        (Restarted, (2, 1.2, 0)),
        (RestartedInThatSecond, (2, 1.2, 0)),
        (Mounted, (2, 1.2, 0)),
    ],
    ids=["nobody restarts it", "restarted soon", "restarted at once", "a volume"],
)
def test_live_accounts_over_a_day(
    scene: Scene, consumer: Callable[[], Consumer], figures: tuple[int, float, int]
) -> None:
    assert Day(scene, consumer()).play().figures() == figures
