"""Measure the worker: so many targets, all, some or none of them due, and an OpenAI that takes its time.

For each number of targets there is a new cluster, with a history that is made by the worker itself: two runs, so that
each target has a current account and a previous one. What is due, and which previous accounts may go, is then a matter
of the times in the ledger (`benchmarks.fleet.age`): no run sleeps, and a run with all targets due does all that a
rotation is: a new account, verified, published and announced, and the account of the run before the last deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import fleet
from benchmarks.clusters import Cluster, cluster
from benchmarks.figures import Row, pipeline
from benchmarks.patterns import Pattern
from benchmarks.processes import run_worker, summary
from benchmarks.replay import CONCURRENCY
from benchmarks.replaying import Replayed
from benchmarks.replaying import replay as replayed
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
        return replayed(self.api, self.openai, self.patterns, targets or self.size.targets, due)

    def _quiet(self, latency: float) -> None:
        self.openai.slow_down(latency)
        self.openai.served()
        self.api.count()


_TOLERATED = 0.02
"""Share of requests, beyond a few, by which a replay may differ: the API server asks itself for namespaces, say."""


def _difference(one: Counter[str], other: Counter[str]) -> int:
    return sum(((one - other) + (other - one)).values())


def measure(
    size: Size, patterns: tuple[Pattern, Pattern], directory: Path, say: Callable[[Row], None], *, real: bool | None
) -> Iterator[Row]:
    """All rows of one size.

    Runs and replays take turns, so that both meet the same weather on the machine. As a replay leaves a ledger that no
    worker would have written, it has a cluster of its own, with the same history; the other one is idle meanwhile.
    """
    with ExitStack() as stack:
        ours, bare = (_scene(stack, size, patterns, directory / name, real) for name in ("ours", "bare"))
        usual = size.latencies[len(size.latencies) // 2]
        first = ours.run(FIRST, size.targets, usual)
        bare.run(FIRST, size.targets, 0.0)
        say(first)
        yield first

        situations = [(NONE, range(0))]
        if size.due:
            situations += [(ALL, range(size.targets)), (TENTH, range(0, size.targets, 10))]
        for situation, due in situations[: 3 if size.targets >= 10 else 2]:
            if situation == ALL:  # from now on there is a previous account
                for scene in (ours, bare):
                    fleet.age(scene.api, lambda _: True)
                    scene.run(ALL, size.targets, 0.0)
            for latency in size.latencies:
                row = _compared(ours, bare, situation, due, latency)
                say(row)
                yield row


def _scene(
    stack: ExitStack, size: Size, patterns: tuple[Pattern, Pattern], directory: Path, real: bool | None
) -> Scene:
    openai = stack.enter_context(server("openai", str(tenants(size.targets))))
    api = stack.enter_context(cluster(directory, real=real))
    fleet.make(api, size.targets, f"{openai.url}/v1", openai.key)
    return Scene(size, api, openai, patterns)


def _compared(ours: Scene, bare: Scene, situation: str, due: range, latency: float) -> Row:
    """The fastest of the runs with the bound by the fastest of the replays."""
    runs, replays = [], []
    for _ in range(ours.size.rounds):
        if due:
            fleet.age(ours.api, due.__contains__)
        runs.append(ours.run(situation, len(due), latency))
        replays.append(bare.replay(due, latency))
    run = min(runs, key=lambda one: one.wall)
    replay = min(replays, key=lambda one: one.sending)
    asked = Counter(run.requests) + Counter(run.openai_requests)
    other = _difference(asked, replay.requests)
    assert other <= 5 + _TOLERATED * sum(asked.values()), f"the replay sends other requests: {other}"
    alone = bare.replay(range(1), latency, 1).in_turn if due else 0.0
    return replace(run, pipeline=pipeline(len(due), CONCURRENCY, alone), replay=replay.sending, replay_cpu=replay.cpu)
