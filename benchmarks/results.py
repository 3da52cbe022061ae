"""What a benchmark found, in words: the fits, and the document that is committed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.figures import UNITS, Row, fit, per_target, rows_table, table
from benchmarks.matrix import ALL, NONE

OPERATOR = (35.5, 24.0, 17.0, 139.0)
"""Seconds, ms of CPU and Kubernetes requests per rotation, MB: 500 due targets, 50 at once, OpenAI 50 ms."""
AIM = (9.0, 10.0, None, 90.0)
USUAL = 0.05


def fits(rows: Sequence[Row]) -> list[str]:
    """How time, CPU and memory grow with the number of targets."""
    found = []
    for situation in (ALL, NONE):
        chosen = [row for row in rows if row.situation == situation and row.latency == USUAL]
        for what, unit, factor, values in (
            ("wall", "s", 1000.0, [(row.targets, row.wall) for row in chosen]),
            ("CPU", "s", 1000.0, [(row.targets, row.cpu) for row in chosen]),
            ("peak", "MB", 1000.0, [(row.targets, row.peak) for row in chosen]),
        ):
            line = fit(values)
            if line is not None:
                small = "ms" if unit == "s" else "kB"
                found.append(
                    f"{situation}, OpenAI {1000 * USUAL:.0f} ms: {what} = {line.start:.2f} {unit} + "
                    f"{line.each * factor:.2f} {small} per target (R² {line.explains:.4f}, {len(chosen)} sizes)"
                )
    return found


def comparison(rows: Sequence[Row]) -> str:
    """500 due targets next to the operator; empty where they were not measured."""
    row = next((r for r in rows if (r.situation, r.targets, r.latency) == (ALL, 500, USUAL)), None)
    if row is None:
        return ""
    k8s = sum(row.requests.values()) / row.targets
    ours = (row.wall, row.cpu_each, k8s, row.peak)
    names = ("wall, s", "CPU per rotation, ms", "Kubernetes requests per rotation", "peak, MB")
    lines = [
        [name, f"{theirs:g}", f"{mine:.1f}", "-" if aim is None else f"{aim:g}", f"{theirs / mine:.1f}"]
        for name, theirs, mine, aim in zip(names, OPERATOR, ours, AIM, strict=True)
    ]
    return table(["500 due targets, 50 at once, OpenAI 50 ms", "operator", "worker", "aim", "times less"], lines)


def document(about: dict[str, Any], rows: Sequence[Row], started: str) -> str:
    """The Markdown that `make bench` writes."""
    requests = []
    for row in rows:
        if (row.targets, row.latency) == (500, USUAL):
            kinds = per_target(row.requests, row.targets) | per_target(row.openai_requests, row.targets)
            listed = ", ".join(f"{kind} {count:g}" for kind, count in kinds.items())
            requests.append(f"- {row.situation}: {listed}")
    parts = [
        "# Results of `make bench`",
        "Written by `make bench`; how it is measured is in [benchmarks.md](../benchmarks.md).",
        (
            f"{about['at']}, API server: {about['api_server']}, {about['cores']} cores, Python {about['python']}, "
            f"{about['seconds']} s in all, load average before {about['load_before']}."
        ),
        "![Seconds of a run, and its bound](bench.svg)",
        _block(comparison(rows)),
        _block(f"{rows_table(rows)}\n\n{UNITS}"),
        "Requests per target, 500 targets (those that a run or a tenant makes once included):",
        "\n".join(requests),
        _block("\n".join(fits(rows))),
        "## Start",
        _block(started),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(text: str) -> str:
    return f"```\n{text}\n```" if text else ""
