"""An audit next to a run: the same targets, wall time, CPU and peak memory of each as a process of its own.

python -m benchmarks.audit [TARGETS]     (10,000; some minutes on two cores)

The aim: 10,000 accounts in a minute, in no more memory than a run takes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks import fleet
from benchmarks.clusters import cluster, kind
from benchmarks.processes import Took, run_worker
from benchmarks.servers import server
from benchmarks.targets import tenants

TARGETS = 10_000
LATENCY = 0.05
AUDITS = {
    "audit, table": ("--output", "table"),
    "audit, JSON": ("--output", "json"),
    "audit, page": ("--output", "html"),
    "audit, page, all unused": ("--output", "html", "--unused", "1s"),
}


def main() -> None:
    """Print a line for each command."""
    targets = int(sys.argv[1]) if len(sys.argv) > 1 else TARGETS
    print(f"{targets} targets and accounts, API server: {kind()}, OpenAI {1000 * LATENCY:.0f} ms, 50 at once")
    print(f"{'':24}  {'wall':>8}  {'CPU':>8}  {'peak':>8}  {'output':>9}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="audit-") as directory,
        server("openai", str(tenants(targets))) as openai,
        cluster(Path(directory)) as api,
    ):
        fleet.make(api, targets, f"{openai.url}/v1", openai.key)
        openai.slow_down(LATENCY)
        _show("first run", run_worker(api, openai.url))
        _show("run, none due", run_worker(api, openai.url))
        for name, arguments in AUDITS.items():
            took = run_worker(api, openai.url, "audit", *arguments)
            assert took.output.count("openai-") >= targets, "an account is missing"
            _show(name, took)


def _show(name: str, took: Took) -> None:
    size = len(took.output) / 1e6
    print(f"{name:24}  {took.wall:>6.1f} s  {took.cpu:>6.1f} s  {took.peak:>5.0f} MB  {size:>6.1f} MB", flush=True)


if __name__ == "__main__":
    main()
