"""What is kept of a namespace's pods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

import pytest

from tests.support.pods import BY_ENV, BY_MOUNT, PLAIN, RUNNING, STARTED
from worker.errors import Forbidden, RotatorError, Unanswered
from worker.model.values import JSON, Ref, Resource
from worker.observe.consumers import FreshPods, Pods
from worker.ports import Cluster
from worker.runtime.clocks import SystemClock

T = TypeVar("T")


class Listed:
    """A cluster that has nothing but these pods."""

    def __init__(self, *pods: JSON) -> None:
        self._pods = pods

    async def list_all(self, resource: Resource, keep: Callable[[JSON], T], **_: Any) -> list[T]:
        """All of them, as the API server's pages would be read."""
        return [keep(pod) for pod in self._pods]


def pod_of(*containers: JSON) -> JSON:
    """A running pod whose containers run, but for those that are called `late`."""
    named = [{"name": f"{i}"} | container for i, container in enumerate(containers)]
    states = [{"name": item["name"], "state": {} if "late" in item else RUNNING} for item in named]
    status = {"phase": "Running", "startTime": "2026-11-24T10:00:00Z", "containerStatuses": states}
    spec = {"nodeName": "n", "volumes": [PLAIN], "containers": named}
    return {"metadata": {"name": "p", "namespace": "default"}, "spec": spec, "status": status}


def kept(*pods: JSON) -> list[tuple[Any, bool]]:
    """When each consumer of the Secret started, and whether it follows."""
    pods_seen = Pods(cast(Cluster, Listed(*pods)), SystemClock(), {"default": frozenset({"s"})})
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        found = runner.run(pods_seen.consumers(Ref("default", "s")))
    return [(consumer.started_at, consumer.follows) for consumer in found]


@pytest.mark.parametrize("count", [1, 50, 100])
def test_of_an_ordinary_pod_every_consumer_is_kept(count: int) -> None:
    """They are counted and named."""
    assert kept(pod_of(*[BY_ENV] * count)) == [(STARTED, False)] * count


def test_of_a_pod_of_thousands_of_containers_one_of_each_kind_is_kept() -> None:
    """What decides is there; another pod's are not touched."""
    crowd = pod_of(*[BY_ENV] * 5000, *[BY_MOUNT] * 5000, *[BY_ENV | {"late": "yes"}] * 5000)
    assert kept(crowd, pod_of(BY_ENV)) == [(STARTED, False), (STARTED, True), (None, False), (STARTED, False)]


class Slow(Listed):
    """Each list takes a moment, and is counted."""

    lists = 0

    async def list_all(self, resource: Resource, keep: Callable[[JSON], T], **_: Any) -> list[T]:
        self.lists += 1
        await asyncio.sleep(0.01)
        return await super().list_all(resource, keep)


def test_a_fresh_list_begins_after_each_call_and_is_shared_by_those_that_wait() -> None:
    """A list that is under way may have missed a pod: who calls meanwhile waits for the next."""
    cluster = Slow(pod_of(BY_ENV))
    fresh = FreshPods(cast(Cluster, cluster), SystemClock())

    async def calls() -> list[Any]:
        first = asyncio.create_task(fresh.consumers(Ref("default", "s")))
        await asyncio.sleep(0.001)
        later = [fresh.consumers(Ref("default", "s")) for _ in range(5)]
        found = await asyncio.gather(first, *later)
        return [*found, await fresh.consumers(Ref("default", "s"))]

    found = asyncio.run(calls())
    assert [len(consumers) for consumers in found] == [1] * 7
    assert cluster.lists == 3


class Failing(Listed):
    def __init__(self, error: RotatorError) -> None:
        super().__init__()
        self.error = error
        self.lists = 0

    async def list_all(self, resource: Resource, keep: Callable[[JSON], T], **_: Any) -> list[T]:
        self.lists += 1
        raise self.error


@pytest.mark.parametrize(
    ("error", "lists"), [(Forbidden("Forbidden", "no"), 1), (Unanswered("ClusterUnanswered", "busy"), 2)]
)
def test_a_fresh_list_that_fails_is_unknown_and_one_that_is_forbidden_is_not_tried_again(
    error: RotatorError, lists: int
) -> None:
    cluster = Failing(error)
    fresh = FreshPods(cast(Cluster, cluster), SystemClock())

    async def twice() -> list[Any]:
        return [await fresh.consumers(Ref("default", "s")) for _ in range(2)]

    assert asyncio.run(twice()) == [None, None]
    assert cluster.lists == lists
