"""Time that a test moves on, for workers on a real cluster whose own time nobody can move.

Guarantees: workers that talk to the API server through `Story.servers` see one time that never goes back: in the
`Date` of its answers, by which they put their clocks right, in what pods say of themselves, and at OpenAI. What
happened on the cluster before a move is before it in their time as well, and what happens after it is after it.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
import urllib.request
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from sandbox.http_server import Locked, ServerThread, serving, write_kubeconfig
from sandbox.openai.server import OpenAI
from sandbox.transport.faults import NoFaults
from sandbox.transport.wire import Request, Response, http_date
from tests.cluster.endpoint import Endpoint, call
from tests.cluster.relay import relaying
from tests.cluster.rig import Rig, Run
from tests.support.scene import documented
from worker.kubernetes.secret import CURRENT
from worker.model.times import format_time, parse_time

SECOND = timedelta(seconds=1)
KINDS = {
    "containers": "containerStatuses",
    "initContainers": "initContainerStatuses",
    "ephemeralContainers": "ephemeralContainerStatuses",
}
"""Where a pod has its containers, and what is said of them."""
_TIME = re.compile(rb'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"')


class Story:
    """The time of a test, and its OpenAI, which lives in it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.openai = OpenAI(self.now, random.Random())
        self._moves: list[tuple[datetime, timedelta]] = []
        """When on the cluster's clock, and by how much."""

    def now(self) -> datetime:
        return self.told(datetime.now(UTC))

    def told(self, moment: datetime) -> datetime:
        """A moment on the cluster's clock, in the story's time."""
        return moment + sum((by for at, by in self._moves if at <= moment), timedelta(0))

    def later(self, minutes: int) -> None:
        """Let this much time have passed."""
        # The cluster's times are whole seconds: a move inside of one would be before what happened before it.
        at = datetime.now(UTC).replace(microsecond=0) + SECOND
        while datetime.now(UTC) < at:
            time.sleep((at - datetime.now(UTC)).total_seconds())
        self._moves.append((at, timedelta(minutes=minutes)))

    def servers(self, endpoint: Endpoint) -> ServerThread:
        """The way to the API server, and OpenAI, in this order."""
        return ServerThread(
            relaying(endpoint, NoFaults(), retell=self._retell),
            serving(Locked(self.openai, self.lock)),
            lock=self.lock,
        )

    def _retell(self, request: Request, response: Response) -> Response:
        headers = dict(response.headers)
        if "Date" in headers:
            headers["Date"] = http_date(self.told(parsedate_to_datetime(headers["Date"])))
        body = response.body
        if request.path.endswith("/pods"):
            body = _TIME.sub(lambda found: f'"{format_time(self.told(parse_time(found[1].decode())))}"'.encode(), body)
        return replace(response, headers=headers, body=body)


def cluster_time() -> str:
    """Now, on the cluster's clock."""
    return format_time(datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Container:
    """One that took its key from the Secret when it was created."""

    pod: str
    name: str
    key: str = field(repr=False)

    def __str__(self) -> str:
        """As the ledger names it."""
        return f"{self.pod}/{self.name}"


class Told(Rig):
    """A test on a whole cluster, with its own time. Made by `telling`."""

    def __init__(self, endpoint: Endpoint, story: Story, servers: ServerThread, directory: Path) -> None:
        kubernetes_url, openai_url = servers.urls
        super().__init__(endpoint, story.openai, openai_url + "/v1", directory)
        self.story = story
        self.way = write_kubeconfig(directory / "way", kubernetes_url)

    def work(self, *arguments: str) -> Run:
        """A run of the worker, which goes well."""
        done = self.run(*arguments, kubeconfig=self.way)
        assert done.code == 0, done.output
        return done

    def documented(self) -> dict[str, dict[str, Any]]:
        """The documentation's objects, by kind, in this test's namespace."""
        objects = documented(self.admin_key, self.openai_url)
        for obj in objects:
            obj["metadata"]["namespace"] = self.namespace
        return {obj["kind"]: obj for obj in objects}

    def pods(self, selector: str) -> list[dict[str, Any]]:
        found = json.loads(self.kubectl("-n", self.namespace, "get", "pods", "-l", selector, "-o", "json"))
        items: list[dict[str, Any]] = found["items"]
        return items

    def container(self, selector: str) -> Container:
        """The one container, of any kind, of the one pod that takes a Secret's key, and the key that it gets now."""
        (pod,) = self.pods(selector)
        taking = [
            (container["name"], variable["valueFrom"]["secretKeyRef"])
            for kind in KINDS
            for container in pod["spec"].get(kind, ())
            for variable in container.get("env", ())
        ]
        ((name, source),) = taking
        value = b64decode(self.get("secret", source["name"])["data"][source["key"]]).decode()
        return Container(pod["metadata"]["name"], name, value)

    def write_state(self, container: Container, state: dict[str, Any]) -> None:
        """Say, as a kubelet would, what has become of a container; `running`: another one has taken its place."""
        pod = self.get("pod", container.pod)
        for kind in KINDS.values():
            found = pod["status"].get(kind, [])
            for status in found:
                if status["name"] == container.name:
                    status["state"] = state
                    status["restartCount"] += "running" in state
                    self.patch_pod(container.pod, "status", {"status": {kind: found}})
                    return
        raise LookupError(f"no status of {container}")

    def patch_pod(self, pod: str, subresource: str, patch: object) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/{subresource}"
        status, answer = call(self.endpoint, "PATCH", path, patch, content_type="application/merge-patch+json")
        assert status == 200, answer

    def accepts(self, container: Container) -> bool:
        """What OpenAI says to a request with the container's key."""
        request = urllib.request.Request(
            self.openai_url + "/models", headers={"Authorization": f"Bearer {container.key}"}
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 401:
                    raise
            return False

    def current(self, secret: str = "openai-credentials") -> str:
        """The account that the Secret names."""
        name: str = json.loads(self.get("secret", secret)["metadata"]["annotations"][CURRENT])["name"]
        return name

    def held(self, secret: str = "openai-credentials") -> dict[str, str | None]:
        """Each account in the ledger, and in its words who holds it."""
        entry = self.get("keyrotation", f"{self.namespace}.{secret}", self.ledger)
        return {name: account.get("held") for name, account in entry["status"]["accounts"].items()}


@contextmanager
def telling(endpoint: Endpoint, directory: Path) -> Iterator[Told]:
    """Two namespaces of its own, and a time of its own."""
    story = Story()
    with story.servers(endpoint) as servers:
        told = Told(endpoint, story, servers, directory)
        for name in (told.namespace, told.ledger):
            told.kubectl("create", "namespace", name)
        yield told
        told.kubectl("delete", "namespace", told.namespace, told.ledger, "--wait=false")
