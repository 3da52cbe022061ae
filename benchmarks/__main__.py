"""`make bench`: measure the worker against its bound, on the real API server where it is built, else on the sandbox's.

python -m benchmarks [--quick | --full] [--sandbox] [--output DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import start
from benchmarks.clusters import kind
from benchmarks.figures import UNITS, Row, rows_table
from benchmarks.matrix import ALL, FIRST, NONE, Size, measure
from benchmarks.picture import picture
from benchmarks.recording import record
from benchmarks.results import comparison, document, fits

LATENCIES = (0.0, 0.05, 0.2)
USUAL = (0.05,)
QUICK = [Size(50, USUAL), Size(500, USUAL)]
NORMAL = [
    Size(1, LATENCIES, rounds=3),
    Size(50, LATENCIES, rounds=3),
    Size(500, LATENCIES, rounds=2),
    Size(5000, USUAL),
]
FULL = [*NORMAL[:3], Size(5000, LATENCIES), Size(10_000, USUAL, due=False)]


def main() -> None:
    """Measure, and print and write what came of it."""
    options = _options()
    begun = time.monotonic()
    sizes = QUICK if options.quick else FULL if options.full else NORMAL
    real = False if options.sandbox else None
    print(f"API server: {kind(real=real)}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before\n")
    rows: list[Row] = []
    about: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "api_server": kind(real=real),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 1),
    }
    started = start.measure(3 if options.quick else 5)
    print(f"{started.text()}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        patterns = record(Path(temporary) / "recording", real=real)
        for size in sizes:
            rows += measure(size, patterns, Path(temporary) / str(size.targets), _say, real=real)
            about["seconds"] = round(time.monotonic() - begun)
            if options.output is not None:  # after each size: a long benchmark may be ended early
                _write(options.output, about, rows, started)
    print("\n".join(["", comparison(rows), "", rows_table(rows), UNITS, "", *fits(rows)]))
    if options.output is not None:
        print(f"\nwritten to {options.output}")


def _say(row: Row) -> None:
    """One line as soon as it is known: a long benchmark shows that it goes on."""
    bound = f", bound {row.bound:.2f} s, ratio {row.ratio:.2f}" if row.ratio is not None else ""
    print(
        f"{row.targets:>6} targets, {row.situation}, OpenAI {1000 * row.latency:.0f} ms: {row.wall:.2f} s{bound}",
        flush=True,
    )


def _write(directory: Path, about: dict[str, Any], rows: list[Row], started: start.Start) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    answer = about | {
        "rows": [row.as_json() for row in rows],
        "start": {"libraries": started.libraries, "worker": started.worker, "imports_ms": started.imports},
    }
    (directory / "bench.json").write_text(json.dumps(answer, indent=1) + "\n")
    shown = [row for row in rows if row.situation != FIRST]
    shown.sort(key=lambda row: (row.situation != ALL, row.situation == NONE))
    (directory / "bench.svg").write_text(picture(shown, "Seconds of a run, and its bound"))
    (directory / "results.md").write_text(document(about, rows, started.text()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    matrix = parser.add_mutually_exclusive_group()
    matrix.add_argument("--quick", action="store_true", help="50 and 500 targets, OpenAI 50 ms: a minute or two")
    matrix.add_argument("--full", action="store_true", help="all of it, 10,000 targets included")
    parser.add_argument("--sandbox", action="store_true", help="the sandbox's API server, even where the real one is")
    parser.add_argument("--output", type=Path, help="where to write bench.json, bench.svg and results.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
