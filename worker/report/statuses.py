"""Write the status of ExternalSecrets and generators, as far as the cluster keeps one.

Their CRDs may be another's. The enterprise operator's CRD of the generator drops conditions; that of the ExternalSecret
refuses conditions of other types than its own.
Guarantees: such a cluster gets one request more in a run that has something to say, and the run does not fail.
An answer about one object says nothing of another, but for that.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from worker.errors import NotFound, Refused, RotatorError
from worker.model.targets import Source
from worker.model.values import JSON, Answer
from worker.ports import Cluster
from worker.report.health import without_stalled

INVALID = 422


@dataclass(slots=True)
class Statuses:
    """What a run has heard of the cluster's CRDs.

    `kept`: does the cluster keep the conditions of generators? None: no answer has told yet.
    `stalls`: may an ExternalSecret have the condition `Stalled`? True until an answer has told otherwise.
    """

    kept: bool | None = None
    stalls: bool = True
    _first: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def write_external_secret(self, cluster: Cluster, source: Source, patch: JSON) -> list[str]:
        """Write it. Returns the errors."""
        plain = without_stalled(patch)
        try:
            try:
                await _patch(cluster, source, patch if self.stalls else plain)
            except Refused as error:
                if error.status != INVALID or patch == plain or not self.stalls:
                    raise
                await _patch(cluster, source, plain)
                self.stalls = False
        except NotFound:
            pass  # deleted meanwhile: there is nobody left to tell
        except RotatorError as error:
            return [error.message]
        return []

    async def write_generator(self, cluster: Cluster, source: Source, patch: JSON) -> list[str]:
        """The same of a generator."""
        if self.kept is None:
            # One at a time until an answer has told.
            async with self._first:
                if self.kept is None:
                    return await self._write(cluster, source, patch)
        return await self._write(cluster, source, patch) if self.kept else []

    async def _write(self, cluster: Cluster, source: Source, patch: JSON) -> list[str]:
        try:
            answer = await _patch(cluster, source, patch)
        except NotFound:
            # Deleted meanwhile; or the CRD has no status, which answers the same.
            return await self._look(cluster, source)
        except RotatorError as error:
            return [error.message]
        if self.kept is None:
            self.kept = _has_conditions(answer)
        return []

    async def _look(self, cluster: Cluster, source: Source) -> list[str]:
        if self.kept is None:
            try:
                if not await cluster.serves(source.resource, "status"):
                    self.kept = False
            except RotatorError as error:
                return [error.message]
        return []


async def _patch(cluster: Cluster, source: Source, patch: JSON) -> Answer:
    return await cluster.patch(source.resource, source.ref, patch, subresource="status")


def _has_conditions(answer: Answer) -> bool:
    status = answer.body.get("status")
    return isinstance(status, dict) and bool(status.get("conditions"))
