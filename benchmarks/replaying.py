"""Have a run replayed, in a process of its own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from benchmarks.clusters import Cluster
from benchmarks.patterns import Pattern
from benchmarks.processes import environment, measure
from benchmarks.replay import Job
from benchmarks.servers import Server


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay took. `sending`: seconds from its first request to its last answer; `in_turn`: of them, those in
    which targets were worked on.
    """

    cpu: float
    peak: float
    sending: float
    in_turn: float
    requests: Counter[str]


def replay(
    cluster: Cluster, openai: Server, patterns: tuple[Pattern, Pattern], targets: int, due: Iterable[int]
) -> Replayed:
    """Replay a run with these targets due, in a process of its own."""
    job = Job(
        patterns[0].text(),
        patterns[1].text(),
        targets,
        list(due),
        cluster.url,
        str(cluster.ca_file or ""),
        cluster.token,
        openai.url,
        openai.key,
    )
    took = measure(["-m", "benchmarks.replay"], environment(cluster, openai.url), json.dumps(asdict(job)))
    assert took.code == 0, f"the replay ended with {took.code}"
    answer = json.loads(took.output)
    return Replayed(took.cpu, took.peak, answer["sending"], answer["in_turn"], Counter(answer["requests"]))
