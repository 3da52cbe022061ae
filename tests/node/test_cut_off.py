"""A node that is cut off restarts a container in place with the key that it knows, long after the rotation."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cluster.rig import PREFIX
from tests.node.applications import Applications, by_variable, pod
from tests.node.installation import SECRET, Installation, until
from tests.node.world import NODE, is_ready

pytestmark = pytest.mark.full


BEFORE, AFTER = "before", "after"
CUT = 306.0
"""Seconds from the rotation to the restart: longer than the five minutes that were the measure before ADR 9."""
EVERYTHING = {"operator": "Exists"}
"""The pod stays on a node that is not ready, as those of DaemonSets and StatefulSets do."""


@pytest.fixture
def applications(installation: Installation) -> Iterator[Applications]:
    applications = Applications(installation)
    applications.label_current(BEFORE)
    yield applications
    installation.node.way.cut = False
    installation.kubectl("-n", installation.namespace, "delete", "pod", "--all", "--timeout=300s")


def test_no_key_dies_in_a_container_that_a_cut_off_node_restarted(applications: Applications) -> None:
    """The worker runs beside the cluster, for the one node is cut off. It takes six minutes."""
    installation = applications.installation
    applications.create("victim", pod(by_variable(), tolerations=[EVERYTHING]))
    until(lambda: applications.has(BEFORE, "victim"))
    container = applications.container("victim")

    installation.node.way.cut = True
    annotation = f"{PREFIX}rotate=cut-off"
    installation.kubectl("-n", installation.namespace, "annotate", "--overwrite", "externalsecret", SECRET, annotation)
    assert installation.run().reasons() == {SECRET: "target.rotated Requested"}
    applications.label_current(AFTER)
    time.sleep(CUT)
    installation.node.kill(container)
    until(lambda: len(applications.told("victim")) == 2)
    assert applications.has(BEFORE, "victim"), "the kubelet knew the new key: it was not cut off"

    installation.node.way.cut = False
    until(lambda: applications.status("victim").get("restartCount") == 1)
    until(lambda: is_ready(installation.get("node", NODE)))
    assert installation.run().code == 0
    assert not applications.dead()
