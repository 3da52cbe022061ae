"""What tests on the real node share: the node itself, and the project installed on it as its README says.

Guarantee: outside of `make node` these tests are skipped, or fail with REQUIRE_NODE=1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.node.installation import Installation, installing
from tests.node.world import Node, World, real_node

HOW = "no real node: `make node` starts one, and the tests in it"


@pytest.fixture(scope="session")
def world() -> World:
    given = World.given()
    if given is None:
        (pytest.fail if os.environ.get("REQUIRE_NODE") == "1" else pytest.skip)(HOW)
    return given


@pytest.fixture(scope="session")
def node(world: World) -> Iterator[Node]:
    with real_node(world) as started:
        yield started


@pytest.fixture(scope="session")
def installation(node: Node) -> Iterator[Installation]:
    with installing(node) as installed:
        yield installed
