"""Shards next to one process: the same targets by one worker and by four, on the same API server.

python -m benchmarks.shards [TARGETS]     (10,000; a quarter of an hour on two cores)

It ends with an AssertionError where a target is served twice or not at all.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import fleet
from benchmarks.clusters import Cluster, cluster, kind
from benchmarks.processes import Took, environment, measure
from benchmarks.servers import server
from benchmarks.targets import tenants

TARGETS = 10_000
SHARDS = 4
LATENCY = 0.05


def main() -> None:
    """Print a line for each situation and number of processes."""
    targets = int(sys.argv[1]) if len(sys.argv) > 1 else TARGETS
    print(f"{targets} targets, API server: {kind()}, OpenAI {1000 * LATENCY:.0f} ms, 50 at once in each process")
    print(f"{'':22}  {'processes':>9}  {'wall':>8}  {'CPU of all':>10}  {'peak of one':>11}  {'each has':>15}")
    with (
        tempfile.TemporaryDirectory(prefix="shards-") as directory,
        server("openai", str(tenants(targets))) as openai,
        cluster(Path(directory)) as api,
    ):
        host = f"{openai.url}/v1"
        fleet.make(api, targets, host, openai.key)
        openai.slow_down(LATENCY)
        _run(api, openai.url, targets, SHARDS, "first run")
        walls: dict[tuple[str, int], float] = {}
        for count in (1, SHARDS):
            walls["none due", count] = _run(api, openai.url, targets, count, "none due")
        for _ in range(2):  # once more than is measured: from then on there is a previous account
            fleet.age(api, lambda _: True)
            walls["all due", SHARDS] = _run(api, openai.url, targets, SHARDS, "all due")
        fleet.age(api, lambda _: True)
        walls["all due", 1] = _run(api, openai.url, targets, 1, "all due")
        for situation in ("none due", "all due"):
            print(f"speed-up, {situation}: {walls[situation, 1] / walls[situation, SHARDS]:.2f}")


def _run(api: Cluster, openai: str, targets: int, count: int, situation: str) -> float:
    """Seconds until the last of the processes has ended."""

    def one(index: int) -> Took:
        shard = {"ROTATOR_SHARDS": str(count), "JOB_COMPLETION_INDEX": str(index)} if count > 1 else {}
        return measure(["run.py"], environment(api, openai) | shard)

    begun = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        took = list(pool.map(one, range(count)))
    wall = time.monotonic() - begun
    assert [each.code for each in took] == [0] * count, [each.output[-500:] for each in took if each.code]
    served = [_served(each, rotated=situation != "none due") for each in took]
    assert sum(map(Counter, served), Counter()).total() == targets
    assert len(set().union(*served)) == targets
    parts = f"{min(map(len, served))} to {max(map(len, served))}"
    cpu, peak = sum(each.cpu for each in took), max(each.peak for each in took)
    print(f"{situation:22}  {count:>9}  {wall:>6.1f} s  {cpu:>8.1f} s  {peak:>8.0f} MB  {parts:>15}", flush=True)
    return wall


def _served(took: Took, *, rotated: bool) -> list[str]:
    """Which targets its log says that it rotated, or kept."""
    lines = [json.loads(line) for line in took.output.splitlines()]
    event = "target.rotated" if rotated else "target.kept"
    return [f"{line['namespace']}/{line['secret']}" for line in lines if line["event"] == event]


if __name__ == "__main__":
    main()
