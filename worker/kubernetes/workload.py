"""Deployments, StatefulSets and DaemonSets: what their restart needs to know, and its patch. Pure.

Guarantees: the patch touches one annotation of the pod template, the one of `kubectl rollout restart`.
The functions read any JSON, and raise `Malformed` only where an object has no version.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from worker.kubernetes.pod import secrets_kept
from worker.kubernetes.reading import mapping_or_empty, time_or_none, version_of
from worker.model.times import format_time
from worker.model.values import JSON, Ref, Resource
from worker.model.workloads import Workload, WorkloadKind, WorkloadView

WORKLOADS: Mapping[WorkloadKind, Resource] = {
    WorkloadKind.DEPLOYMENT: Resource("apps", "v1", "deployments"),
    WorkloadKind.STATEFUL_SET: Resource("apps", "v1", "statefulsets"),
    WorkloadKind.DAEMON_SET: Resource("apps", "v1", "daemonsets"),
}
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"


def workload_view(kind: WorkloadKind, obj: JSON) -> WorkloadView:
    """The kept part of a workload."""
    metadata, spec, status = (mapping_or_empty(obj.get(part)) for part in ("metadata", "spec", "status"))
    template = mapping_or_empty(spec.get("template"))
    annotations = mapping_or_empty(mapping_or_empty(template.get("metadata")).get("annotations"))
    return WorkloadView(
        workload=Workload(kind, Ref(str(metadata.get("namespace")), str(metadata.get("name")))),
        version=version_of(obj),
        stamp=time_or_none(annotations.get(RESTARTED_AT)),
        rolling=_rolling(kind, metadata, spec, status=status),
        obstacle=_obstacle(metadata, spec),
        reads=secrets_kept(mapping_or_empty(template.get("spec"))),
    )


def stamp_patch(view: WorkloadView, at: datetime) -> JSON:
    """The merge patch that restarts a workload, if it is still as it was seen."""
    template = {"metadata": {"annotations": {RESTARTED_AT: format_time(at)}}}
    return {"metadata": {"resourceVersion": view.version.resource_version}, "spec": {"template": template}}


def _rolling(
    kind: WorkloadKind, metadata: Mapping[str, Any], spec: Mapping[str, Any], *, status: Mapping[str, Any]
) -> bool:
    """Has its controller not replaced all pods yet? As `kubectl rollout status` has it, but for their readiness.

    An application that is not ready, for its key is dead say, must not put off the restart that mends it.
    """
    if _count(status, "observedGeneration") < _count(metadata, "generation"):
        return True
    wanted, updated = _count(spec, "replicas", default=1), _count(status, "updatedReplicas")
    if kind is WorkloadKind.DEPLOYMENT:
        return updated < wanted or _count(status, "replicas") > updated
    if kind is WorkloadKind.STATEFUL_SET:
        rolling_update = mapping_or_empty(mapping_or_empty(spec.get("updateStrategy")).get("rollingUpdate"))
        partition = _count(rolling_update, "partition")
        # Below a partition the pods keep the revision that they have: such a rollout never replaces all.
        behind = status.get("updateRevision") != status.get("currentRevision")
        return updated < wanted - partition if partition else behind and updated < wanted
    return _count(status, "updatedNumberScheduled") < _count(status, "desiredNumberScheduled")


def _obstacle(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    if "deletionTimestamp" in metadata:
        return "it is being deleted"
    if spec.get("paused") is True:
        return "it is paused (kubectl rollout resume)"
    if mapping_or_empty(spec.get("updateStrategy")).get("type") == "OnDelete":
        return "its updateStrategy OnDelete replaces no pod by itself"
    return ""


def _count(obj: Mapping[str, Any], field: str, *, default: int = 0) -> int:
    value = obj.get(field, default)
    return value if isinstance(value, int) else default
