"""One pod's JSON to its consumers: the containers that may carry a target Secret's key. Pure.

The facts about kubelets:
- A kubelet reads a container's environment before it makes the container.
- So a value from `env`, `envFrom` or a `subPath` mount stays from the container's start to its end.
- A container that restarts reads anew.
- A mounted volume follows its Secret.
- A volume belongs to the pod and outlives the pod's containers.

Guarantees:
- The functions find each container that may carry a key, whatever the pod's JSON looks like.
- No function raises.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from worker.kubernetes.reading import mapping_or_empty, mappings, time_or_none
from worker.model.sightings import Consumer

_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


def consumers_of(pod: Mapping[str, Any], wanted: Collection[str]) -> tuple[Consumer, ...]:
    """The consumers in a pod of the Secrets named in `wanted`; none in a pod that has ended or has no node yet."""
    spec, status = mapping_or_empty(pod.get("spec")), mapping_or_empty(pod.get("status"))
    phase = status.get("phase")
    # A pod may have failed (evicted, past its deadline) before its containers have ended.
    runs = any(
        "running" in mapping_or_empty(own.get("state")) for kind in _STATUSES for own in mappings(status.get(kind))
    )
    if not spec.get("nodeName") or phase == "Succeeded" or (phase == "Failed" and not runs):
        return ()
    return tuple(_consumers(pod, spec, status, wanted=wanted))


def _consumers(
    pod: Mapping[str, Any], spec: Mapping[str, Any], status: Mapping[str, Any], *, wanted: Collection[str]
) -> Iterator[Consumer]:
    metadata, begun = mapping_or_empty(pod.get("metadata")), time_or_none(status.get("startTime"))
    pod_name, leaving = str(metadata.get("name", "?")), time_or_none(metadata.get("deletionTimestamp"))
    volumes = _volumes(spec)
    node, created = str(spec.get("nodeName")), time_or_none(metadata.get("creationTimestamp"))

    def consumer(
        secret: str,
        started: datetime | None,
        *,
        follows: bool = False,
        mounted: bool = False,
        read_until: datetime | None = None,
    ) -> Consumer:
        return Consumer(
            secret,
            name,
            started,
            follows=follows,
            mounted=mounted,
            read_until=read_until,
            node=node,
            created_at=created,
        )

    for field, states in zip(_CONTAINERS, _STATUSES, strict=True):
        known = {str(item.get("name")): item for item in mappings(status.get(states))}
        for container in mappings(spec.get(field)):
            fixed, by_path, follows = (names & set(wanted) for names in _names(container, volumes))
            own = mapping_or_empty(known.get(str(container.get("name"))))
            passes_on = field == "initContainers" and container.get("restartPolicy") != "Always"
            alive, started, until = _inherited(own, begun) if passes_on else _life(own)
            name = f"{pod_name}/{container.get('name', '?')}"
            for secret in sorted(fixed | by_path) if alive else ():
                yield consumer(secret, started, mounted=secret in by_path, read_until=until)
            for secret in sorted(follows):
                if passes_on:
                    yield consumer(secret, started, mounted=True, read_until=_ended(own))
                elif leaving is None:
                    yield consumer(secret, begun, follows=True)
                elif alive:  # a kubelet does not update the volumes of a pod that is being deleted
                    yield consumer(secret, begun, mounted=True, read_until=leaving)


_Life = tuple[bool, datetime | None, datetime | None]
"""Is the container alive; its start, None if it is about to start; the latest read of its environment if unsure."""


def _life(own: Mapping[str, Any]) -> _Life:
    state = mapping_or_empty(own.get("state"))
    if "running" in state:
        return True, _started(own), None
    if "terminated" in state:
        return False, None, None
    # Waiting: the kubelet may have read its environment already. In a crash loop the kubelet reads it anew.
    return mapping_or_empty(state.get("waiting")).get("reason") != "CrashLoopBackOff", None, None


def _inherited(own: Mapping[str, Any], pod_begun: datetime | None) -> _Life:
    """An init container may have handed the key on to its pod: it counts until the pod ends, from its own start."""
    state, started = mapping_or_empty(own.get("state")), _started(own)
    if started is not None or not ("running" in state or "terminated" in state):
        return True, started, None
    return True, pod_begun, datetime.max.replace(tzinfo=UTC)  # kubelets lose it at times


def _started(own: Mapping[str, Any]) -> datetime | None:
    """The start of a running or ended container, if its status has it."""
    state = mapping_or_empty(own.get("state"))
    times = (time_or_none(mapping_or_empty(state.get(name)).get("startedAt")) for name in ("running", "terminated"))
    return next((time for time in times if time is not None), None)


def _ended(own: Mapping[str, Any]) -> datetime:
    """The end of an init container; without a known end it may read on for ever."""
    terminated = mapping_or_empty(mapping_or_empty(own.get("state")).get("terminated"))
    return time_or_none(terminated.get("finishedAt")) or datetime.max.replace(tzinfo=UTC)


def _names(container: Mapping[str, Any], volumes: Mapping[str, frozenset[str]]) -> tuple[set[str], set[str], set[str]]:
    """The Secrets that a container sees: through its environment, through a path of a volume, through a whole volume.

    It keeps the values of the first two from its start.
    """
    fixed = {
        str(mapping_or_empty(mapping_or_empty(item.get("valueFrom")).get("secretKeyRef")).get("name"))
        for item in mappings(container.get("env"))
    }
    fixed |= {str(mapping_or_empty(item.get("secretRef")).get("name")) for item in mappings(container.get("envFrom"))}
    by_path: set[str] = set()
    follows: set[str] = set()
    for mount in mappings(container.get("volumeMounts")):
        once = mount.get("subPath") or mount.get("subPathExpr")
        (by_path if once else follows).update(volumes.get(str(mount.get("name")), ()))
    return fixed, by_path, follows


def _volumes(spec: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """The Secrets behind each volume, plain or projected."""
    found = {}
    for volume in mappings(spec.get("volumes")):
        plain = mapping_or_empty(volume.get("secret")).get("secretName")
        sources = mappings(mapping_or_empty(volume.get("projected")).get("sources"))
        names = [plain, *(mapping_or_empty(source.get("secret")).get("name") for source in sources)]
        found[str(volume.get("name"))] = frozenset(str(name) for name in names if name)
    return found


def secrets_kept(spec: Mapping[str, Any]) -> frozenset[str]:
    """The Secrets of which some container of such a pod keeps a value from its start: by environment or `subPath`."""
    volumes = _volumes(spec)
    found: set[str] = set()
    for field in _CONTAINERS:
        for container in mappings(spec.get(field)):
            fixed, by_path, _ = _names(container, volumes)
            found |= fixed | by_path
    return frozenset(found - {"None"})
