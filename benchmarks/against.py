"""This worker next to that of another commit, in turn on one machine: what `make bench AGAINST=COMMIT` does.

python -m benchmarks.against COMMIT [--due 500] [--idle 10000] [--rounds 3]

The other commit is checked out and installed in the cache, with its own virtual environment and CRDs. Each build has an
API server and an OpenAI of its own, with a history that it made itself. Runs take turns, so that both meet the same
weather; of each figure the least counts, for others on the machine only ever make it larger. Ratios are what is meant.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import fleet, start
from benchmarks.clusters import Cluster, cluster, kind
from benchmarks.figures import table
from benchmarks.processes import THIS, Build, run_worker, summary
from benchmarks.servers import ROOT, Server, server
from benchmarks.targets import tenants
from tests.cluster.control_plane import cache_directory

LATENCY = 0.05
AIMS = {
    "start to first request: worker's CPU, s": 0.65,
    "nothing due: wall, s": 0.5,
    "nothing due: worker's CPU, ms each": 0.5,
    "nothing due: peak, MB": 0.66,
    "nothing due, --look-every: wall, s": 0.5,
    "nothing due, --look-every: worker's CPU, ms each": 0.5,
    "all due: wall, s": 0.6,
    "all due: worker's CPU, ms each": 0.65,
    "all due: API server's CPU, ms each": 0.65,
}
"""What was asked for, as ratios to 83f16d5."""
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """One build with servers of its own."""

    build: Build
    api: Cluster
    openai: Server
    targets: int

    def start(self) -> Figures:
        """Where nobody listens: what it takes until the first request has failed."""
        return {"start to first request: worker's CPU, s": start.worker_cpu(self.build)}

    def idle(self) -> Figures:
        """With nothing due."""
        return self._run("nothing due", 0)

    def seldom(self) -> Figures:
        """The same for an operator who asks for fewer looks. A build that has no such option looks as ever."""
        asked = ("--look-every", "24h") if self.build is THIS else ()
        return self._run("nothing due, --look-every", 0, *asked)

    def due(self) -> Figures:
        """With all due, and the account before the current one to be deleted."""
        fleet.age(self.api, lambda _: True)
        return self._run("all due", self.targets)

    def _run(self, situation: str, rotated: int, *arguments: str) -> Figures:
        self.openai.served()
        self.api.count()
        before = self.api.cpu()
        took = run_worker(self.api, self.openai.url, *arguments, build=self.build)
        server_cpu = self.api.cpu() - before
        said = summary(took)["rotated"]
        assert said == rotated, f"{self.build.name}: {said} of {rotated} were rotated"
        return {
            f"{situation}: wall, s": took.wall,
            f"{situation}: worker's CPU, ms each": 1000 * took.cpu / self.targets,
            f"{situation}: peak, MB": took.peak,
            f"{situation}: API server's CPU, ms each": 1000 * server_cpu / self.targets,
            f"{situation}: requests to Kubernetes, each": self.api.count().total() / self.targets,
            f"{situation}: requests to OpenAI, each": self.openai.served().requests.total() / self.targets,
        }


def checked_out(commit: str) -> Build:
    """The commit, installed as its README says, in the cache."""
    name = _git("rev-parse", "--verify", f"{commit}^{{commit}}")
    cache = cache_directory().parents[1] / "builds"
    folder = cache / name
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=_made(cache)) as temporary:
            whole = Path(temporary) / name
            whole.mkdir()
            archive = subprocess.run(["git", "archive", name], cwd=ROOT, check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x"], cwd=whole, input=archive, check=True)
            whole.rename(folder)
    variables = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    subprocess.run(["make", "--silent", "venv"], cwd=folder, env=variables, check=True)
    return Build(name[:7], folder, str(folder / ".venv/bin/python"))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def scenes(builds: tuple[Build, ...], targets: int) -> Iterator[list[Scene]]:
    """Both builds, each with servers of its own and so many targets, which have their first key."""
    with ExitStack() as stack:
        found = []
        for build in builds:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="against-")))
            openai = stack.enter_context(server("openai", str(tenants(targets))))
            api = stack.enter_context(cluster(place, crds=build.root / "manifests/crds"))
            fleet.make(api, targets, f"{openai.url}/v1", openai.key)
            run_worker(api, openai.url, build=build)
            openai.slow_down(LATENCY)
            found.append(Scene(build, api, openai, targets))
        yield found


def compare(builds: tuple[Build, ...], due: int, idle: int, rounds: int) -> list[Figures]:
    """The least of each figure, for each build."""
    least: list[Figures] = [{} for _ in builds]

    def note(number: int, figures: Figures) -> None:
        for what, value in figures.items():
            least[number][what] = min(value, least[number].get(what, value))

    if idle:
        with scenes(builds, idle) as found:
            for _ in range(rounds):
                for number, scene in enumerate(found):
                    note(number, scene.start())
                    note(number, scene.idle())
                    note(number, scene.seldom())
    if due:
        with scenes(builds, due) as found:
            for scene in found:  # from now on there is an account before the current one
                scene.due()
            for _ in range(rounds):
                for number, scene in enumerate(found):
                    note(number, scene.due())
    return least


def text(builds: tuple[Build, ...], least: list[Figures]) -> str:
    """The table: the other build first, and the ratio of this one to it."""
    other, ours = least
    rows = []
    for what, value in other.items():
        ratio, aimed = ours[what] / value, AIMS.get(what)
        aim = "" if aimed is None else f"<= {aimed:g}"
        rows.append([what, f"{value:.2f}", f"{ours[what]:.2f}", f"{ratio:.2f}", aim])
    return table(["", *(build.name for build in builds), "ratio", "aim"], rows)


def main() -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__)
    parser.add_argument("commit", help="the other build")
    parser.add_argument("--due", type=int, default=500, help="targets that are all due; 0: none; default 500")
    parser.add_argument("--idle", type=int, default=10_000, help="targets with nothing due; 0: none; default 10000")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each; the least counts; default 3")
    options = parser.parse_args()
    builds = (checked_out(options.commit), THIS)
    print(f"API server: {kind()}, {os.cpu_count()} cores; OpenAI {1000 * LATENCY:.0f} ms; 50 at once")
    print(f"{options.due} targets due, {options.idle} with nothing due; the least of {options.rounds} runs in turn\n")
    print(text(builds, compare(builds, options.due, options.idle, options.rounds)))


if __name__ == "__main__":
    main()
