"""The workloads of a run: read by name, or listed once per namespace, and stamped.

Guarantees: nothing is asked for that no annotation asks for.
After an answer that RBAC forbids a kind in a namespace, nothing more of that kind is asked for there in this run.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import datetime

from worker.errors import Forbidden
from worker.kubernetes.workload import WORKLOADS, stamp_patch, workload_view
from worker.model.values import JSON, Ref
from worker.model.workloads import Workload, WorkloadKind, WorkloadView
from worker.ports import Cluster

_COMPONENT = "; manifests/components/restart-workloads gives the right"


class Workloads:
    """What one run has seen of workloads. A stamp forgets what was seen."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._listed: dict[str, list[WorkloadView]] = {}
        self._known: dict[Workload, WorkloadView] = {}
        self._forbidden: dict[tuple[str, WorkloadKind], Forbidden] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def reading(self, secret: Ref) -> list[Workload]:
        """The workloads whose pods read a Secret by their environment, by their templates."""
        namespace = secret.namespace
        async with self._locks[namespace]:
            if namespace not in self._listed:
                found = [view for kind in WorkloadKind for view in await self._list(namespace, kind)]
                self._listed[namespace] = found
                self._known |= {view.workload: view for view in found if any(view.reads)}
        return [view.workload for view in self._listed[namespace] if secret.name in view.reads]

    async def view(self, workload: Workload) -> WorkloadView:
        """A workload as it was listed in this run, or as it is now. Raises the errors of reading it."""
        known = self._known.get(workload)
        if known is not None:
            return known
        place = (workload.ref.namespace, workload.kind)
        if place in self._forbidden:
            raise self._forbidden[place]
        try:
            answer = await self._cluster.read(WORKLOADS[workload.kind], workload.ref)
        except Forbidden as error:
            raise self._noted(place, error) from None
        return workload_view(workload.kind, answer.body)

    async def stamp(self, view: WorkloadView, at: datetime) -> None:
        """Restart a workload, as `kubectl rollout restart` does. Raises Conflict where it has changed since."""
        self._known.pop(view.workload, None)
        await self._cluster.patch(WORKLOADS[view.workload.kind], view.workload.ref, stamp_patch(view, at))

    async def _list(self, namespace: str, kind: WorkloadKind) -> list[WorkloadView]:
        def keep(obj: JSON) -> WorkloadView:
            return workload_view(kind, obj)

        place = (namespace, kind)
        if place in self._forbidden:
            raise self._forbidden[place]
        try:
            return await self._cluster.list_all(WORKLOADS[kind], keep, namespace=namespace)
        except Forbidden as error:
            raise self._noted(place, error) from None

    def _noted(self, place: tuple[str, WorkloadKind], error: Forbidden) -> Forbidden:
        self._forbidden[place] = Forbidden(error.reason, error.message + _COMPONENT, status=error.status, own=error.own)
        return self._forbidden[place]
