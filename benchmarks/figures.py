"""What is computed from measurements: bounds, ratios, a fit, and the table. Pure.

The bound of a run is what nobody can beat who sends its requests: the larger of the latency pipeline (each target's
requests come one after the other, so many targets at once) and the bare replay (the same requests, to the same servers,
by a program that does nothing else).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One run. Seconds, MB; `requests` and `openai_requests` by kind, `replay` None where nothing was replayed.

    `wall`: from the start of the process to its end; `working`: the run's own part of it, without starting Python.
    """

    situation: str
    targets: int
    due: int
    latency: float
    wall: float
    working: float
    cpu: float
    peak: float
    requests: Mapping[str, int]
    openai_requests: Mapping[str, int]
    fake_cpu: float
    pipeline: float = 0.0
    replay: float | None = None
    replay_cpu: float | None = None
    concurrency: int = 50

    @property
    def bound(self) -> float:
        """Seconds that the same requests take at least."""
        return max(self.pipeline, self.replay or 0.0)

    @property
    def ratio(self) -> float | None:
        """How often the bound fits into the run; None where it was not measured."""
        return self.wall / self.bound if self.replay is not None and self.bound > 0 else None

    @property
    def working_ratio(self) -> float | None:
        """The same without the start, which does not grow with the targets."""
        return self.working / self.bound if self.replay is not None and self.bound > 0 else None

    @property
    def cpu_each(self) -> float:
        """Milliseconds of CPU per target that was served."""
        return 1000 * self.cpu / max(1, self.targets)

    def as_json(self) -> dict[str, Any]:
        """All of it, computed values included."""
        return asdict(self) | {
            "bound": self.bound,
            "ratio": self.ratio,
            "working_ratio": self.working_ratio,
            "cpu_ms_per_target": self.cpu_each,
        }


def pipeline(targets: int, concurrency: int, one: float) -> float:
    """Seconds for so many targets, so many at once, where one takes `one` seconds of round trips."""
    return math.ceil(targets / concurrency) * one


@dataclass(frozen=True, slots=True)
class Line:
    """y = start + each * x, and how much of what is seen it explains (R², 1 is all)."""

    start: float
    each: float
    explains: float


def fit(points: Sequence[tuple[float, float]]) -> Line | None:
    """The straight line through these points, by least squares; None where there is no such line."""
    if len({x for x, _ in points}) < 2:
        return None
    count = len(points)
    middle_x, middle_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    each = sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
    start = middle_y - each * middle_x
    total = sum((y - middle_y) ** 2 for _, y in points)
    left = sum((y - start - each * x) ** 2 for x, y in points)
    return Line(start, each, 1 - left / total if total else 1.0)


def per_target(requests: Mapping[str, int], targets: int) -> dict[str, float]:
    """Requests of each kind per target, rounded."""
    return {kind: round(count / max(1, targets), 2) for kind, count in sorted(requests.items())}


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    return "\n".join([line(heads), *(line(row) for row in rows)])


HEADS = (
    "situation",
    "targets",
    "due",
    "OpenAI",
    "wall",
    "run",
    "bound",
    "ratio",
    "run/bound",
    "pipeline",
    "replay",
    "CPU",
    "each",
    "peak",
    "k8s",
    "openai",
    "fake's CPU",
)
UNITS = (
    "OpenAI: its latency; run: without the start; ratio: wall/bound; each: ms of CPU per target; peak: MB; "
    "k8s, openai: requests per target"
)


def cells(row: Row) -> list[str]:
    """A row of the table."""
    replay = "-" if row.replay is None else f"{row.replay:.2f} s"
    k8s, openai = sum(row.requests.values()) / row.targets, sum(row.openai_requests.values()) / row.targets
    return [
        row.situation,
        str(row.targets),
        str(row.due),
        f"{1000 * row.latency:.0f} ms",
        f"{row.wall:.2f} s",
        f"{row.working:.1f} s",
        f"{row.bound:.2f} s" if row.replay is not None else "-",
        "-" if row.ratio is None else f"{row.ratio:.2f}",
        "-" if row.working_ratio is None else f"{row.working_ratio:.2f}",
        f"{row.pipeline:.2f} s",
        replay,
        f"{row.cpu:.2f} s",
        f"{row.cpu_each:.1f}",
        f"{row.peak:.0f}",
        f"{k8s:.1f}",
        f"{openai:.1f}",
        f"{row.fake_cpu:.2f} s",
    ]


def rows_table(rows: Sequence[Row]) -> str:
    """The measurements as a plain table."""
    return table(HEADS, [cells(row) for row in rows])
