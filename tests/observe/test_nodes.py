"""Nodes as the worker reads them: none that nobody asks about, each once, and none at all without the right."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from worker.errors import Forbidden, NotFound
from worker.kubernetes.node import DEFAULT_TTL, LONGEST_TTL, TTL, node_view
from worker.model.sightings import Node
from worker.model.values import Answer, Ref, Resource
from worker.observe.nodes import AT_ONCE, Nodes
from worker.ports import Cluster

SINCE = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def node(*, status: str = "True", since: object = "2026-11-24T09:00:00Z", **annotations: str) -> dict[str, Any]:
    condition = {"type": "Ready", "status": status, "lastTransitionTime": since}
    return {
        "metadata": {"name": "n", "annotations": annotations},
        "status": {
            "conditions": [{"type": "DiskPressure", "status": "True"}, condition],
            "nodeInfo": {"kubeletVersion": "v1.37.2"},
        },
    }


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (node(), Node(SINCE, DEFAULT_TTL, 37)),
        (node(status="Unknown"), Node(None, DEFAULT_TTL, 37)),
        (node(since="soon"), Node(None, DEFAULT_TTL, 37)),
        (node(**{TTL: "300"}), Node(SINCE, timedelta(minutes=5), 37)),
        (node(**{TTL: "0"}), Node(SINCE, timedelta(0), 37)),
        (node(**{TTL: "-1"}), Node(SINCE, DEFAULT_TTL, 37)),
        (node(**{TTL: "999999999"}), Node(SINCE, LONGEST_TTL, 37)),
        ({}, Node(None, DEFAULT_TTL, 0)),
        ({"metadata": 1, "status": {"conditions": "none", "nodeInfo": []}}, Node(None, DEFAULT_TTL, 0)),
    ],
)
def test_a_node_is_read_whatever_it_looks_like(given: dict[str, Any], seen: Node) -> None:
    """What cannot be read is no proof that the node was there all the time."""
    assert node_view(given) == seen


class Shown:
    """A cluster that has nothing but nodes, and counts what it is asked."""

    def __init__(self, *names: str, forbidden: bool = False) -> None:
        self.names = names
        self.forbidden = forbidden
        self.asked: list[str] = []
        self.running = self.most = 0

    async def read(self, resource: Resource, ref: Ref) -> Answer:
        self.asked.append(ref.name)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if self.forbidden:
            raise Forbidden("Forbidden", "not allowed to get nodes")
        if ref.name not in self.names:
            raise NotFound("NotFound", "not found")
        return Answer(node())


def ask(cluster: Shown, *questions: set[str]) -> list[Mapping[str, Node] | None]:
    """What the nodes of one round answer, one question after the other."""
    nodes = Nodes(cast(Cluster, cluster))

    async def all_of_them() -> list[Mapping[str, Node] | None]:
        return [await nodes.named(question) for question in questions]

    return asyncio.run(all_of_them())


def test_each_node_is_asked_for_once_and_one_that_is_gone_is_not_ready() -> None:
    cluster = Shown("n1")
    first, second = ask(cluster, {"n1", "gone"}, {"n1", "gone"})
    assert first == second == {"n1": Node(SINCE, DEFAULT_TTL, 37), "gone": Node(None, DEFAULT_TTL)}
    assert cluster.asked == ["gone", "n1"]


def test_thousands_of_nodes_are_read_some_at_a_time() -> None:
    names = {f"n{number}" for number in range(3 * AT_ONCE + 1)}
    cluster = Shown(*names)
    (found,) = ask(cluster, names)
    assert found is not None
    assert found.keys() == names
    assert sorted(cluster.asked) == sorted(names)
    assert cluster.most == AT_ONCE


def test_without_the_right_nothing_is_known() -> None:
    """And it is asked for only once."""
    cluster = Shown("n1", forbidden=True)
    assert ask(cluster, {"n1"}, {"n2"}) == [None, None]
    assert cluster.asked == ["n1"]
