"""The targets of this pod, where several pods share the work. Pure.

Guarantees:
- Each target belongs to exactly one shard.
- The name of its ledger entry alone decides, in every pod and run and for every source.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from worker.model.names import entry_name
from worker.model.values import Ref


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts, of about the same size."""

    index: int = 0
    count: int = 1

    def owns(self, target: Ref) -> bool:
        return self.owns_entry(entry_name(target))

    def owns_entry(self, name: str) -> bool:
        """The same by the name of the target's ledger entry: a run need not read another shard's entry further."""
        if self.count == 1:
            return True
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index} of {self.count}"


WHOLE = Shard()
