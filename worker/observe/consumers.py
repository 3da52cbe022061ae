"""The consumers in a namespace, read from its pods.

Guarantees: `Pods` reads one paged list of pods per namespace, and begins it at the first request.
`Pods` keeps only consumers of target Secrets.
Of a pod with thousands of containers it keeps one consumer of each kind, so memory does not grow with pods.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from worker.errors import ConsumersUnseen, Forbidden, RotatorError
from worker.kubernetes.pod import consumers_of
from worker.model.sightings import Consumer
from worker.model.values import JSON, Ref, Resource
from worker.ports import Clock, Cluster

PODS = Resource("", "v1", "pods")
_ORDINARY = 100
"""Consumers that a pod may have by itself; a megabyte of YAML has 15,000."""


class Pods:
    """`targets`: by namespace, the names of the Secrets that matter."""

    def __init__(self, cluster: Cluster, clock: Clock, targets: Mapping[str, frozenset[str]]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._targets = targets
        self._seen: dict[str, tuple[datetime, Mapping[str, list[Consumer]]]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def consumers(self, target: Ref) -> tuple[Consumer, ...]:
        """The consumers of this Secret at `looked_at`.

        Raises ConsumersUnseen, whose message names the missing permission, where the worker may not list pods.
        """
        async with self._locks[target.namespace]:
            if target.namespace not in self._seen:
                self._seen[target.namespace] = (self._clock.now(), await self._read(target.namespace))
        return tuple(self._seen[target.namespace][1].get(target.name, ()))

    def looked_at(self, namespace: str) -> datetime | None:
        """When the list of a namespace's pods began, if it has been read."""
        seen = self._seen.get(namespace)
        return seen[0] if seen is not None else None

    async def _read(self, namespace: str) -> Mapping[str, list[Consumer]]:
        wanted = self._targets.get(namespace, frozenset())

        def keep(pod: JSON) -> tuple[Consumer, ...]:
            return _distinct(consumers_of(pod, wanted))

        try:
            pods = await self._cluster.list_all(PODS, keep, namespace=namespace)
        except Forbidden as error:
            message = f"nothing is deleted while it cannot be seen who uses it: {error.message}"
            raise ConsumersUnseen("PodsForbidden", message, status=error.status) from None
        found: defaultdict[str, list[Consumer]] = defaultdict(list)
        for kept in pods:
            for consumer in kept:
                found[consumer.secret].append(consumer)
        return found


class FreshPods:
    """Consumers by lists that begin after each call, so that none misses a pod that was there at the call.

    Calls that wait for one list share the next. Guarantee: what cannot be listed is unknown, and no error.
    """

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._wanted: defaultdict[str, set[str]] = defaultdict(set)
        self._begun: Counter[str] = Counter()
        self._last: dict[str, Pods] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._unseen: set[str] = set()

    async def consumers(self, target: Ref) -> tuple[Consumer, ...] | None:
        """The consumers of this Secret; None where the worker may not list pods, or could not now."""
        namespace = target.namespace
        self._wanted[namespace].add(target.name)
        begun = self._begun[namespace]
        async with self._locks[namespace]:
            if namespace in self._unseen:
                return None
            if self._begun[namespace] == begun:
                self._begun[namespace] += 1
                wanted = {namespace: frozenset(self._wanted[namespace])}
                self._last[namespace] = Pods(self._cluster, self._clock, wanted)
            try:
                return await self._last[namespace].consumers(target)
            except ConsumersUnseen:
                self._unseen.add(namespace)
            except RotatorError:
                # The next change asks again; of this one nobody knows, which holds the old account for longer.
                return None
        return None


def _distinct(consumers: tuple[Consumer, ...]) -> tuple[Consumer, ...]:
    """One pod's consumers. Of too many, it keeps one of those that differ by name alone: no decision depends on it."""
    if len(consumers) <= _ORDINARY:
        return consumers
    return tuple({replace(consumer, name=""): consumer for consumer in consumers}.values())
