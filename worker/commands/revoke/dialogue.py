"""What the forms of `revoke` share at the terminal: they say, they ask, and they hear no stage."""

from __future__ import annotations

import sys
from collections.abc import Collection
from datetime import datetime

from worker.model.hidden import redacted
from worker.model.outcomes import AdminKeyOutcome, Outcome, RestartOutcome, RetireOutcome
from worker.model.values import Ref
from worker.report.terminal import agreed, can_ask


def say(message: str) -> None:
    print(redacted(message), file=sys.stderr, flush=True)


def refusal(*, dry_run: bool, yes: bool) -> int | None:
    """Ask, unless the command line has said yes. The exit code where nothing is to be done; None: go on."""
    if dry_run:
        say("nothing was done: it is a dry run")
        return 0
    if yes or agreed("Go on?"):
        return None
    say("nothing was done" if can_ask() else "error: there is no terminal to ask on: --yes does it without asking")
    return 1 if can_ask() else 2


class Untold:
    """Keeps what could not be told to the cluster; all else is in the result."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def found(self, targets: int, unused: Collection[Ref]) -> None: ...

    def served(self, outcome: Outcome) -> None: ...

    def waiting(self, targets: int, until: datetime) -> None: ...

    def retired(self, retired: RetireOutcome) -> None: ...

    def restarted(self, restarted: RestartOutcome) -> None: ...

    def admin_key(self, outcome: AdminKeyOutcome) -> None: ...

    def not_announced(self, target: Ref, problem: str) -> None:
        self.problems.append(problem)
