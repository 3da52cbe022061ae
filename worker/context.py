"""What the stages of one run share.

Guarantee: it is wired once and passed on whole; what a stage learns reaches another stage through the ledger alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from worker.ledger.store import Ledger
from worker.model.outcomes import RunInfo
from worker.observe.observer import Observer
from worker.openai.limiter import Limiter
from worker.openai.projects import Projects
from worker.ports import Clock, Cluster, Watcher
from worker.report.announce import Announcer
from worker.runtime.slots import Slots
from worker.runtime.stop import Stop


@dataclass(frozen=True, slots=True)
class RunContext:
    """`clock` is put right by the API server's; `slots` are the run's places for concurrent work."""

    run: RunInfo
    cluster: Cluster
    ledger: Ledger
    projects: Projects
    limiter: Limiter
    observer: Observer
    announcer: Announcer
    watcher: Watcher
    clock: Clock
    slots: Slots
    stop: Stop

    def now(self) -> datetime:
        """The time by the corrected clock."""
        return self.clock.now()
