"""The nodes on which consumers are, as far as the worker may read them.

Guarantees: a round reads each node at most once, and none that nobody asks about.
Without the right to read nodes nothing fails: who asks gets None, and keeps the long measure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from worker.errors import Forbidden, NotFound
from worker.kubernetes.node import DEFAULT_TTL, NODES, node_view
from worker.model.sightings import Node
from worker.model.values import Ref
from worker.ports import Cluster

AT_ONCE = 20
"""So many nodes are asked for at a time: a target's pods may be on thousands."""
_GONE = Node(None, DEFAULT_TTL)


class Nodes:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._seen: dict[str, Node] = {}
        self._lock = asyncio.Lock()
        self._forbidden = False

    async def named(self, names: Collection[str]) -> Mapping[str, Node] | None:
        """The nodes of these names; one that is gone is not Ready. None: the worker may not read nodes.

        Raises the errors of reading that pass.
        """
        async with self._lock:
            missing = sorted(set(names) - self._seen.keys())
            try:
                if self._forbidden:
                    return None
                for begin in range(0, len(missing), AT_ONCE):
                    await asyncio.gather(*map(self._read, missing[begin : begin + AT_ONCE]))
            except Forbidden:
                self._forbidden = True
                return None
            return {name: self._seen.get(name, _GONE) for name in names}

    async def _read(self, name: str) -> None:
        try:
            self._seen[name] = node_view((await self._cluster.read(NODES, Ref("", name))).body)
        except NotFound:
            self._seen[name] = _GONE
