"""The consumers in a namespace, read from its pods.

Guarantees: one paged list of pods per namespace and run, unless a later one is demanded; of a pod only what names a
target Secret is kept, so memory does not grow with the number of pods.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from worker.consumers import consumers_of
from worker.errors import ConsumersUnseen, Forbidden
from worker.model import JSON, Consumer, Ref, Resource
from worker.ports import Clock, Cluster

PODS = Resource("", "v1", "pods")


class Pods:
    """`targets`: by namespace, the names of the Secrets that matter."""

    def __init__(self, cluster: Cluster, clock: Clock, targets: Mapping[str, frozenset[str]]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._targets = targets
        self._seen: dict[str, tuple[datetime, dict[str, tuple[Consumer, ...]]]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def consumers(self, target: Ref, *, not_before: datetime) -> tuple[Consumer, ...]:
        """Who consumes this Secret, by a list of pods that began at `not_before` or later.

        Raises ConsumersUnseen, in words that name what to grant, where pods may not be listed.
        """
        async with self._locks[target.namespace]:
            known = self._seen.get(target.namespace)
            if known is None or known[0] < not_before:
                known = (self._clock.now(), await self._read(target.namespace))
                self._seen[target.namespace] = known
        return known[1].get(target.name, ())

    async def _read(self, namespace: str) -> dict[str, tuple[Consumer, ...]]:
        wanted = self._targets.get(namespace, frozenset())

        def keep(pod: JSON) -> tuple[Consumer, ...]:
            return consumers_of(pod, wanted)

        try:
            pods = await self._cluster.list_all(PODS, keep, namespace=namespace)
        except Forbidden as error:
            message = f"nothing is deleted while it cannot be seen who uses it: {error.message}"
            raise ConsumersUnseen("PodsForbidden", message, status=error.status) from None
        found: dict[str, tuple[Consumer, ...]] = {}
        for consumer in (consumer for kept in pods for consumer in kept):
            found[consumer.secret] = (*found.get(consumer.secret, ()), consumer)
        return found
