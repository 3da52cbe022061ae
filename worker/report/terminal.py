"""A run on a terminal: a line of progress while it works, a table at the end.

Guarantees: the progress goes to standard error and only to a terminal.
The table goes to standard output.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import TextIO

from worker.model.hidden import redacted
from worker.model.outcomes import UNUSED, AdminKeyOutcome, Outcome, Report, RestartOutcome, Result, RetireOutcome
from worker.model.times import format_time
from worker.model.values import Ref
from worker.ports import Clock
from worker.report.summary import run_fields
from worker.report.table import HEADERS, rows, table


def can_ask() -> bool:
    """Is there a terminal at the other end of the standard input, if it is open at all?"""
    return sys.stdin is not None and sys.stdin.isatty()


def agreed(question: str) -> bool:
    """Ask on the terminal; only yes is yes, and Ctrl-C and SIGTERM are no. False where there is no terminal."""
    if not can_ask():
        return False
    # The event loop's own handlers would let the prompt wait on.
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return False
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class TerminalWatcher:
    def __init__(self, clock: Clock, out: TextIO | None = None, progress: TextIO | None = None) -> None:
        self._clock = clock
        self._out = out or sys.stdout
        self._progress = progress or sys.stderr
        self._targets = 0
        self._counts: Counter[Result] = Counter()
        self._problems: list[str] = []

    def found(self, targets: int, unused: Collection[Ref]) -> None:
        self._targets = targets
        self._show(f"{targets} targets")

    def served(self, outcome: Outcome) -> None:
        self._counts[outcome.result] += 1
        counts = ", ".join(f"{count} {result.value}" for result, count in self._counts.items())
        self._show(f"{self._counts.total()} of {self._targets} targets: {counts}")

    def waiting(self, targets: int, until: datetime) -> None:
        self._show(f"waiting until {format_time(until)} for the grace period of {targets} targets' earlier accounts")

    def retired(self, retired: RetireOutcome) -> None:
        pass  # shown in the table

    def restarted(self, restarted: RestartOutcome) -> None:
        pass  # shown in the table

    def admin_key(self, outcome: AdminKeyOutcome) -> None:
        pass  # shown in the table

    def not_announced(self, target: Ref, problem: str) -> None:
        self._problems.append(f"{target}: could not be told to the cluster: {problem}")

    def finished(self, report: Report) -> None:
        """Print the table, below it the targets that need attention, and one line for the run."""
        self._show("")
        lines = rows(report, self._clock.now())
        if lines:
            self._print(table(HEADERS, lines))
        for ref in report.unused:
            self._print(f"generator {ref} {UNUSED}")
        for problem in self._problems:
            self._print(problem)
        facts = run_fields(report)
        seconds = facts.pop("seconds")
        message = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in facts.items() if value)
        self._print(f"{message or 'nothing to do'} in {seconds} s")

    def _print(self, text: str) -> None:
        print(redacted(text), file=self._out)

    def _show(self, text: str) -> None:
        if self._progress.isatty():
            self._progress.write(f"\r\x1b[K{text}")
            self._progress.flush()
