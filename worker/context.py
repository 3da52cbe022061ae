"""The objects that the stages of one run share.

Guarantees:
- The command wires the context once and passes it on whole.
- A stage passes its findings to another stage through the ledger alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from worker.ledger.store import Ledger
from worker.model.outcomes import RunInfo
from worker.observe.observer import Observer
from worker.openai.limiter import Limiter
from worker.openai.projects import Projects
from worker.ports import Cluster, Watcher
from worker.report.announce import Announcer
from worker.runtime.clocks import RunClock
from worker.runtime.slots import Slots
from worker.runtime.stop import Stop


@dataclass(frozen=True, slots=True)
class RunContext:
    """The API server's time corrects `clock`; `slots` are the run's places for concurrent work."""

    run: RunInfo
    cluster: Cluster
    ledger: Ledger
    projects: Projects
    limiter: Limiter
    observer: Observer
    announcer: Announcer
    watcher: Watcher
    clock: RunClock
    slots: Slots
    stop: Stop

    def now(self) -> datetime:
        """The time by the corrected clock."""
        return self.clock.now()
