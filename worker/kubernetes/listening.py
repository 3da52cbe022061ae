"""The cluster, with an ear for its time: each answer's `Date` puts the run's clock right.

Guarantee: requests and answers pass unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from worker.model.values import JSON, Answer, Ref, Resource, Version
from worker.ports import Cluster
from worker.runtime.clocks import RunClock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListeningCluster:
    """A Cluster that tells `clock` of each answer's time."""

    cluster: Cluster
    clock: RunClock

    async def list_all(
        self,
        resource: Resource,
        keep: Callable[[JSON], T],
        *,
        namespace: str | None = None,
        selector: str = "",
        heard: Callable[[datetime, timedelta], None] | None = None,
    ) -> list[T]:
        """Each page's time is heard before its objects are kept: what they say was true then."""
        return await self.cluster.list_all(
            resource, keep, namespace=namespace, selector=selector, heard=heard or self._hear
        )

    def _hear(self, at: datetime, taken: timedelta) -> None:
        self.clock.heard(at, taken=taken)

    async def read(self, resource: Resource, ref: Ref) -> Answer:
        begun = self.clock.monotonic()
        return self._heard(begun, await self.cluster.read(resource, ref))

    async def create(self, resource: Resource, namespace: str, body: JSON, *, dry_run: bool = False) -> Answer:
        begun = self.clock.monotonic()
        return self._heard(begun, await self.cluster.create(resource, namespace, body, dry_run=dry_run))

    async def patch(
        self, resource: Resource, ref: Ref, patch: JSON, *, subresource: str = "", dry_run: bool = False
    ) -> Answer:
        begun = self.clock.monotonic()
        answer = await self.cluster.patch(resource, ref, patch, subresource=subresource, dry_run=dry_run)
        return self._heard(begun, answer)

    async def serves(self, resource: Resource, subresource: str = "") -> bool:
        return await self.cluster.serves(resource, subresource)

    async def delete(self, resource: Resource, ref: Ref, version: Version) -> None:
        await self.cluster.delete(resource, ref, version)

    def _heard(self, begun: float, answer: Answer) -> Answer:
        if answer.at is not None:
            self.clock.heard(answer.at, taken=timedelta(seconds=self.clock.monotonic() - begun))
        return answer
