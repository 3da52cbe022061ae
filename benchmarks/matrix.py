"""Measure the worker: so many targets, all, some or none of them due, and an OpenAI that takes its time.

For each number of targets there is a new cluster, with a history that is made by the worker itself: two runs, so that
each target has a current account and a previous one. What is due, and which previous accounts may go, is then a matter
of the times in the ledger (`benchmarks.fleet.age`): no run sleeps, and a run with all targets due does all that a
rotation is: a new account, verified, published and announced, and the account of the run before the last deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import fleet
from benchmarks.clusters import Cluster, cluster
from benchmarks.figures import Row, pipeline
from benchmarks.patterns import Pattern
from benchmarks.processes import run_worker, summary
from benchmarks.replay import CONCURRENCY
from benchmarks.replaying import Replayed, replay
from benchmarks.servers import Server, server
from benchmarks.targets import tenants

FIRST, NONE, TENTH, ALL = "first run", "none due", "one in ten due", "all due"


@dataclass(frozen=True, slots=True)
class Size:
    """One part of the matrix. `due`: also with targets due; otherwise only with none.

    `rounds`: each run and each replay is made so often, and the fastest counts: what others do on the machine makes
    both slower, never faster.
    """

    targets: int
    latencies: Sequence[float]
    due: bool = True
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class Scene:
    """A cluster with its targets, and its OpenAI."""

    size: Size
    api: Cluster
    openai: Server
    patterns: tuple[Pattern, Pattern]

    def run(self, situation: str, due: int, latency: float) -> Row:
        """Run the worker; `due` is how many it has to rotate, and an AssertionError if it rotates others."""
        self._quiet(latency)
        took = run_worker(self.api, self.openai.url)
        served = self.openai.served()
        said = summary(took)
        assert said["rotated"] == due, f"{situation}: {said['rotated']} of {due} were rotated"
        return Row(
            situation,
            self.size.targets,
            due,
            latency,
            took.wall,
            float(said["seconds"]),
            took.cpu,
            took.peak,
            dict(self.api.count()),
            dict(served.requests),
            served.cpu,
        )

    def replay(self, due: range, latency: float, targets: int | None = None) -> Replayed:
        """The same requests, bare."""
        self._quiet(latency)
        return replay(self.api, self.openai, self.patterns, targets or self.size.targets, due)

    def with_bound(self, row: Row, due: range) -> Row:
        """The row with its bound. What it asks for must be what the worker asked for."""
        bare = min((self.replay(due, row.latency) for _ in range(self.size.rounds)), key=lambda one: one.sending)
        asked = Counter(row.requests) + Counter(row.openai_requests)
        extra = _difference(asked, bare.requests)
        assert extra <= 5 + _TOLERATED * sum(asked.values()), f"the replay sends other requests: {extra}"
        alone = self.replay(range(1), row.latency, 1).in_turn if row.due else 0.0
        return replace(
            row,
            pipeline=pipeline(row.due, CONCURRENCY, alone),
            replay=bare.sending,
            replay_cpu=bare.cpu,
        )

    def _quiet(self, latency: float) -> None:
        self.openai.slow_down(latency)
        self.openai.served()
        self.api.count()


_TOLERATED = 0.02
"""Share of requests, beyond a few, by which a replay may differ: the API server asks itself for namespaces, say."""


def _wall(row: Row) -> float:
    return row.wall


def _difference(one: Counter[str], other: Counter[str]) -> int:
    return sum(((one - other) + (other - one)).values())


def measure(
    size: Size, patterns: tuple[Pattern, Pattern], directory: Path, say: Callable[[Row], None], *, real: bool | None
) -> Iterator[Row]:
    """All rows of one size. The replays come last: they leave a ledger that no worker would have written."""
    with server("openai", str(tenants(size.targets))) as openai, cluster(directory, real=real) as api:
        scene = Scene(size, api, openai, patterns)
        fleet.make(api, size.targets, f"{openai.url}/v1", openai.key)
        first = scene.run(FIRST, size.targets, size.latencies[len(size.latencies) // 2])
        say(first)
        yield first

        for latency in size.latencies:
            runs = [scene.run(NONE, 0, latency) for _ in range(size.rounds)]
            row = scene.with_bound(min(runs, key=_wall), range(0))
            say(row)
            yield row
        if not size.due:
            return

        some = [(ALL, range(size.targets)), (TENTH, range(0, size.targets, 10))][: 2 if size.targets >= 10 else 1]
        fleet.age(api, lambda _: True)
        scene.run(ALL, size.targets, 0.0)  # from now on there is a previous account
        rows = []
        for situation, due in some:
            for latency in size.latencies:
                runs = []
                for _ in range(size.rounds):
                    fleet.age(api, due.__contains__)
                    runs.append(scene.run(situation, len(due), latency))
                rows.append((min(runs, key=_wall), due))
        for unbound, due in rows:
            row = scene.with_bound(unbound, due)
            say(row)
            yield row
