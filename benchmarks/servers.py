"""The servers that a benchmark needs, each in a process of its own: a fake OpenAI with a latency, and, where there is
no real API server, the sandbox's.

A server is told what to do by lines on its standard input, and answers each with a line of JSON: `latency SECONDS`, or
`report`, after which its counts begin anew. It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.targets import LEDGER, PROJECT
from sandbox.http_server import serving
from sandbox.kubernetes.server import Kubernetes
from sandbox.kubernetes.setup import create_namespace, install_crds
from sandbox.openai.server import OpenAI
from sandbox.transport.faults import Fate, delivered
from sandbox.transport.wire import Exchange, Request

ROOT = Path(__file__).parent.parent
ORGANIZATION = "bench"


@dataclass(slots=True)
class Slow:
    """Every answer is ready at once and takes so long on its way back; one timer per request, for a cheap fake."""

    seconds: float = 0.0

    def fate(self, request: Request) -> Fate:
        """The fate of this request."""
        return delivered(after=self.seconds)


@dataclass(frozen=True, slots=True)
class Served:
    """What a server did since it was last asked."""

    requests: Counter[str]
    cpu: float


class Server:
    """A server's process, as its user sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        hello = self._answer()
        self.url: str = hello["url"]
        self.key: str = hello["key"]

    def slow_down(self, seconds: float) -> None:
        """Answer each request that late from now on."""
        self._ask(f"latency {seconds}")

    def served(self) -> Served:
        """Requests by kind, and CPU, since this was last asked."""
        answer = self._ask("report")
        return Served(Counter(answer["requests"]), answer["cpu"])

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def server(kind: str, *arguments: str) -> Iterator[Server]:
    """Run a server: `openai PROJECTS` or `kubernetes`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.servers", kind, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Server(process)
    finally:
        process.communicate()


# --- in the server's process


def main() -> None:
    """Serve until the standard input ends."""
    kind, *arguments = sys.argv[1:]
    source = random.Random(1)
    machine: OpenAI | Kubernetes
    if kind == "openai":
        machine = OpenAI(_now, source)
        machine.shows_uses = False  # keys were made a moment ago and superseded, by the ledger, long before
        key = machine.add_organization(ORGANIZATION)
        for number in range(int(arguments[0])):
            machine.add_project(ORGANIZATION, PROJECT.format(number))
    else:
        machine = Kubernetes(_now, source)
        install_crds(machine)
        key = machine.token or ""
        create_namespace(machine, LEDGER)
    asyncio.run(_serve(machine, key))


async def _serve(machine: OpenAI | Kubernetes, key: str) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    slow, used = Slow(), _cpu()
    async with serving(machine, slow) as url:
        _say({"url": url, "key": key})
        while line := (await lines.readline()).decode().split():
            if line[0] == "latency":
                slow.seconds = float(line[1])
                _say({})
            else:
                before, used = used, _cpu()
                _say({"requests": _counts(machine.log), "cpu": used - before})
                machine.log.clear()


def _counts(log: list[Exchange]) -> Counter[str]:
    return Counter(exchange.kind for exchange in log)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
