"""Many histories on all cores, and what the search has reached: histories, steps, faults by kind of request.

Guarantee: what is reported was counted in the histories themselves; a failing seed comes with the command that replays
it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from tests.simulation.fates import ASLEEP, FAULTS, FROZEN, HIDDEN, KILLED, MISTAKEN, PAGE, REPEATED, SENT, Tally
from tests.simulation.history import History, Violation

REPLAY = "make simulate REPLAY={}"
_CHUNK = 10
"""Histories that a process plays before it reports."""


@dataclass
class Found:
    """What some histories came to."""

    histories: int = 0
    steps: int = 0
    runs: int = 0
    mints: int = 0
    tally: Tally = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    violations: dict[int, str] = field(default_factory=dict)
    """By seed, the first thing that must not have happened."""

    def add(self, other: Found) -> None:
        self.histories += other.histories
        self.steps += other.steps
        self.runs += other.runs
        self.mints += other.mints
        self.tally += other.tally
        self.acts += other.acts
        self.violations |= other.violations


def play(seeds: Iterable[int]) -> Found:
    """Play these histories in this process."""
    found = Found()
    for seed in seeds:
        history = History(seed)
        violations = {}
        try:
            history.play()
        except Violation as violation:
            violations[seed] = str(violation)
        except Exception as error:  # noqa: BLE001 - what the worker lets escape is a finding like any other
            violations[seed] = f"{type(error).__name__}: {error}"
        oracle, acts = history.oracle, history.actors.acts_done
        found.add(Found(1, oracle.steps, history.runs, len(oracle.made), history.faults, acts, violations))
    return found


def search(seeds: range, *, jobs: int | None = None) -> Iterator[Found]:
    """Play these histories on all cores; yields what has been found since the last time."""
    chunks = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
    count = jobs or os.cpu_count() or 1
    if count == 1:
        yield from map(play, chunks)
        return
    with ProcessPoolExecutor(count) as pool:
        # Not all at once: whoever stops listening should not wait for the rest.
        waiting = iter(chunks)
        running = [pool.submit(play, chunk) for chunk in islice(waiting, 2 * count)]
        while running:
            yield running.pop(0).result()
            running += [pool.submit(play, chunk) for chunk in islice(waiting, 1)]


def report(found: Found) -> str:
    """What the search came to, in words and one table: of rough runs' requests of each kind, the share per fault."""
    total = sum(count for (_, fault), count in found.tally.items() if fault != SENT)
    summary = (
        f"{found.histories} histories, {found.runs} runs, {found.steps} steps, {found.mints} accounts made, "
        f"{total} faults, {found.acts.total()} acts of others, {len(found.violations)} violations"
    )
    lines = [
        summary,
        "",
        _table(found),
        "",
        "acts of others: " + ", ".join(f"{name} {count}" for name, count in sorted(found.acts.items())),
    ]
    for seed, violation in sorted(found.violations.items()):
        lines += ["", f"seed {seed}: {violation}", f"replay with its trace: {REPLAY.format(seed)}"]
    return "\n".join(lines)


def _table(found: Found) -> str:
    columns = [*sorted(FAULTS), PAGE, HIDDEN, KILLED, FROZEN, ASLEEP, REPEATED, MISTAKEN]
    sent = {kind: count for (kind, fault), count in found.tally.items() if fault == SENT}
    rows = [["request", SENT, *columns]]
    for kind, count in sorted(sent.items(), key=lambda item: (-item[1], item[0])):
        met = [found.tally[kind, fault] for fault in columns]
        rows.append([kind, str(count), *(f"{number / count:.1%}" if number else "-" for number in met)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    aligned = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join("  ".join(cells) for cells in aligned)
