"""What a start costs: CPU of the worker until its first request fails to connect, next to its libraries alone, and
which packages it goes to.

python -m benchmarks.start [ROUNDS]
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import table
from benchmarks.processes import THIS, Build
from sandbox.http_server import write_kubeconfig

ROOT = Path(__file__).parent.parent
IMPORTS = "import kubernetes.aio.config, aiohttp, structlog"
NOWHERE = "http://127.0.0.1:1"
SHOWN = 15
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)")


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds of CPU, and by package the milliseconds that its modules take to import, without what they import."""

    libraries: float
    worker: float
    imports: dict[str, float]
    library_imports: dict[str, float]

    def text(self) -> str:
        """In words and a table."""
        packages = Counter(self.imports).most_common(SHOWN)
        rows = [[name, f"{took:.0f}", f"{self.library_imports.get(name, 0):.0f}"] for name, took in packages]
        rows.append(["all", f"{sum(self.imports.values()):.0f}", f"{sum(self.library_imports.values()):.0f}"])
        aim = "(aim: at most 0.8 s where the libraries take 0.6 s)"
        words = [
            f"libraries alone  {self.libraries:.2f} s of CPU",
            f"worker           {self.worker:.2f} s of CPU to its first request and its retries {aim}",
            f"ratio            {self.worker / self.libraries:.2f}   (aim: at most 1.33)",
        ]
        return "\n".join([*words, "", table(["package, -X importtime, ms", "worker", "libraries alone"], rows)])


def measure(rounds: int = 5) -> Start:
    """Medians of so many starts."""
    with _environment() as environment:
        libraries, worker = ["-c", IMPORTS], ["run.py"]
        pairs = [(cpu(libraries, environment), cpu(worker, environment)) for _ in range(rounds)]
        alone, ours = (statistics.median(values) for values in zip(*pairs, strict=True))
        return Start(alone, ours, imports(worker, environment), imports(libraries, environment))


def worker_cpu(build: Build) -> float:
    """Seconds of CPU that this build's worker takes until its first request, and its retries, have failed."""
    with _environment() as environment:
        return cpu(["run.py"], environment, build)


@contextmanager
def _environment() -> Iterator[dict[str, str]]:
    """A worker's, whose API server does not answer."""
    with tempfile.TemporaryDirectory() as directory:
        kubeconfig = write_kubeconfig(Path(directory) / "kubeconfig", NOWHERE)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ROTATOR_")}
        yield environment | {"KUBECONFIG": str(kubeconfig)}


def cpu(arguments: list[str], environment: dict[str, str], build: Build = THIS) -> float:
    """Seconds of CPU, user and system, that Python takes with these arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([build.python, *arguments], cwd=build.root, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imports(arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Milliseconds by package, as `-X importtime` tells them."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return by_package(done.stderr)


def by_package(report: str) -> dict[str, float]:
    """The report of `-X importtime`, summed up: each module's own milliseconds, by its outermost package."""
    found: Counter[str] = Counter()
    for own, _, module in _IMPORT.findall(report):
        found[module.partition(".")[0]] += int(own)
    return {name: took / 1000 for name, took in found.items()}


def main() -> None:
    """Print the medians, their ratio and the packages."""
    print(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5).text())


if __name__ == "__main__":
    main()
