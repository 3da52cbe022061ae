"""What a request costs the API server: its own CPU and etcd's, from the kernel, for each request of a rotation."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.clusters import Cluster
from benchmarks.patterns import Pattern, Phase, Step
from benchmarks.replaying import replay
from benchmarks.servers import Server

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of CPU of one request of a kind, of which a rotation sends `count`."""

    kind: str
    server: float
    store: float
    count: int


def costs(api: Cluster, openai: Server, due: Pattern, targets: int) -> list[Cost]:
    """Each kind's, by replaying it alone for every target; empty where the API server is not a real one."""
    processes = _descendants()
    if "kube-apiserver" not in processes:
        return []
    openai.slow_down(0)
    steps = due.per_target("kubernetes")
    lists = due.phases[0].run  # they tell what the requests name; next to nothing among so many
    counts = Counter(step.kind for step in steps)
    found = []
    for kind, count in counts.items():
        alone = _without_version(next(step for step in steps if step.kind == kind))
        before = {name: _cpu(processes[name]) for name in ("kube-apiserver", "etcd")}
        replay(api, openai, (Pattern([Phase(lists, [], [alone])]), Pattern([])), targets, range(targets))
        used = {name: 1000 * (_cpu(processes[name]) - cpu) / targets for name, cpu in before.items()}
        found.append(Cost(kind, used["kube-apiserver"], used["etcd"], count))
    return sorted(found, key=lambda cost: -cost.server * cost.count)


def _without_version(step: Step) -> Step:
    """The request as it would be if nobody else wrote: alone it has no version to name."""
    body = json.loads(step.body) if step.body else {}
    if "resourceVersion" not in body.get("metadata", {}):
        return step
    del body["metadata"]["resourceVersion"]
    return replace(step, body=json.dumps(body))


def _descendants() -> dict[str, int]:
    """The processes that this one has started, and theirs, by name."""
    found: dict[str, int] = {}
    todo = [os.getpid()]
    while todo:
        for task in Path(f"/proc/{todo.pop()}/task").iterdir():
            for child in (task / "children").read_text().split():
                found[Path(f"/proc/{child}/comm").read_text().strip()] = int(child)
                todo.append(int(child))
    return found


def _cpu(process: int) -> float:
    """Seconds of CPU, user and system, that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
