"""What a workload's JSON says of its restarts, and the patch that makes one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.support.builders import NOW
from tests.support.workloads import workload
from worker.kubernetes.workload import RESTARTED_AT, stamp_patch, workload_view
from worker.model.times import format_time
from worker.model.values import Version
from worker.model.workloads import Workload, WorkloadKind, WorkloadView

DEPLOYMENT, STATEFUL_SET, DAEMON_SET = WorkloadKind


def view(kind: WorkloadKind, *, status: object = None, generation: int = 3, **spec: Any) -> WorkloadView:
    obj = workload(kind.value)
    obj["metadata"] |= {"uid": "u", "resourceVersion": "7", "generation": generation}
    obj["spec"] |= spec
    return workload_view(kind, obj | ({"status": status} if status is not None else {}))


FINISHED = {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 0, "availableReplicas": 0}
REVISIONS = {"currentRevision": "a", "updateRevision": "b"}
SCHEDULED = {"observedGeneration": 3, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 0}


@pytest.mark.parametrize(
    ("kind", "status", "rolling"),
    [
        (DEPLOYMENT, FINISHED, False),  # not ready, perhaps because its key is dead: that puts off no restart
        (DEPLOYMENT, FINISHED | {"observedGeneration": 2}, True),
        (DEPLOYMENT, FINISHED | {"updatedReplicas": 1}, True),
        (DEPLOYMENT, FINISHED | {"replicas": 3}, True),  # an old pod is there still
        (DEPLOYMENT, None, True),
        (STATEFUL_SET, FINISHED, False),
        (STATEFUL_SET, FINISHED | REVISIONS, False),
        (STATEFUL_SET, FINISHED | REVISIONS | {"updatedReplicas": 1}, True),
        (STATEFUL_SET, FINISHED | {"currentRevision": "b", "updateRevision": "b", "updatedReplicas": 0}, False),
        (STATEFUL_SET, FINISHED | {"observedGeneration": 2}, True),
        (DAEMON_SET, SCHEDULED, False),
        (DAEMON_SET, SCHEDULED | {"updatedNumberScheduled": 1}, True),
        (DAEMON_SET, SCHEDULED | {"observedGeneration": 2}, True),
    ],
)
def test_a_rollout_is_under_way_until_all_pods_are_replaced(
    kind: WorkloadKind, status: dict[str, Any] | None, rolling: bool
) -> None:
    more = {"replicas": 2} if kind is not DAEMON_SET else {}
    assert view(kind, status=status, **more).rolling is rolling


def test_below_a_partition_no_pod_is_waited_for() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    status = FINISHED | REVISIONS | {"replicas": 3, "updatedReplicas": 1}
    assert not view(STATEFUL_SET, status=status, replicas=3, updateStrategy=strategy).rolling
    assert view(STATEFUL_SET, status=status | {"updatedReplicas": 0}, replicas=3, updateStrategy=strategy).rolling


def test_scaled_to_0_it_has_no_rollout() -> None:
    status = {"observedGeneration": 3}
    assert not view(DEPLOYMENT, status=status, replicas=0).rolling


def test_the_patch_is_that_of_kubectl_rollout_restart_for_this_very_version() -> None:
    seen = view(DEPLOYMENT)
    assert stamp_patch(seen, NOW) == {
        "metadata": {"resourceVersion": "7"},
        "spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: format_time(NOW)}}}},
    }


def test_a_stamp_is_read_in_any_zone() -> None:
    """kubectl writes the time of the machine that it runs on."""
    template = workload()["spec"]["template"]
    local = (NOW + timedelta(hours=2)).replace(tzinfo=None).isoformat() + "+02:00"
    template["metadata"]["annotations"] = {RESTARTED_AT: local}
    assert view(DEPLOYMENT, template=template).stamp == NOW
    template["metadata"]["annotations"] = {RESTARTED_AT: "yesterday"}
    assert view(DEPLOYMENT, template=template).stamp is None


def test_it_reads_what_its_containers_keep_from_their_start() -> None:
    """By the environment or a path of a volume; a whole volume follows by itself."""
    containers = [
        {"name": "a", "envFrom": [{"secretRef": {"name": "from"}}]},
        {"name": "b", "volumeMounts": [{"name": "v", "subPath": "api_key"}, {"name": "w"}]},
    ]
    volumes = [
        {"name": "v", "secret": {"secretName": "by-path"}},
        {"name": "w", "secret": {"secretName": "whole"}},
    ]
    before = [{"name": "i", "env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "init"}}}, {"name": "PLAIN"}]}]
    template = {"spec": {"containers": containers, "initContainers": before, "volumes": volumes}}
    assert view(DEPLOYMENT, template=template).reads == {"from", "by-path", "init"}


@pytest.mark.parametrize("spec", [None, [], "text", {"template": []}, {"template": {"spec": 3}}, {"replicas": "two"}])
def test_odd_content_raises_nothing(spec: object) -> None:
    obj = {"metadata": {"namespace": "a", "name": "b", "uid": "u", "resourceVersion": "1"}, "spec": spec, "status": []}
    for kind in WorkloadKind:
        seen = workload_view(kind, obj)
        assert (seen.workload.kind, seen.version, seen.reads) == (kind, Version("u", "1"), frozenset())
        assert isinstance(seen.workload, Workload)
