"""Where the worker's CPU goes: `python -m benchmarks.profile [TARGETS] [--output FILE]`.

A run with all targets due is looked at twice: by samples (`benchmarks.sampled`), which say how the time is spread, and
by cProfile, which says how often a function is called but makes Python's own functions look dearer than they are. And
the API server's CPU is measured for each kind of request that the run sends, for it is what bounds the wall time. A run
with nothing due is looked at by samples.
"""

from __future__ import annotations

import argparse
import json
import pstats
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import fleet
from benchmarks.clusters import cluster
from benchmarks.costs import Cost, costs
from benchmarks.figures import table
from benchmarks.processes import Took, run_worker
from benchmarks.recording import record
from benchmarks.servers import ROOT, server
from benchmarks.targets import tenants

LATENCY = 0.05
Stack = tuple[str, ...]

CODECS = ("/worker/ledger/codec.py", "/worker/kubernetes/secret.py", "/worker/kubernetes/reading.py")

SHARES: tuple[tuple[str, Callable[[Stack], bool]], ...] = (
    ("starting: imports", lambda stack: any("importlib" in frame for frame in stack)),
    (
        "threads: aiohttp looks for netrc and proxies (trust_env)",
        lambda stack: any(
            part in frame
            for frame in stack
            for part in ("to_thread", "run_in_executor", "_read_from_self", "call_soon_threadsafe", "_chain_future")
        ),
    ),
    ("waiting in select (and what other threads do meanwhile)", lambda stack: "selectors.py" in stack[0]),
    ("TLS", lambda stack: any("sslproto.py" in frame or "/ssl.py" in frame for frame in stack)),
    ("log lines", lambda stack: any("/worker/report/log_lines.py" in frame for frame in stack)),
    ("JSON", lambda stack: any("/json/" in frame for frame in stack)),
    (
        "codec of the ledger, Secrets and annotations",
        lambda stack: any(part in frame for frame in stack for part in CODECS),
    ),
    ("kubernetes: the rest", lambda stack: "/site-packages/kubernetes/" in stack[0]),
    ("aiohttp and yarl", lambda stack: any("/aiohttp/" in frame or "/yarl/" in frame for frame in stack[:4])),
    ("worker, and what it calls", lambda stack: any("/worker/" in frame for frame in stack[:4])),
    ("asyncio", lambda stack: "/asyncio/" in stack[0]),
)
"""The first that a stack matches gets the sample; a stack begins with where the program was."""


def main() -> None:
    """Profile, print, and write if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("targets", type=int, nargs="?", default=500)
    parser.add_argument("--output", type=Path, help="where to write the summary")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        text = summary(options.targets, Path(directory))
    print(text)
    if options.output is not None:
        options.output.write_text(text)


def summary(targets: int, directory: Path) -> str:
    """Measure, and say it in Markdown."""
    patterns = record(directory / "recording")
    with server("openai", str(tenants(targets))) as openai, cluster(directory / "cluster") as api:
        fleet.make(api, targets, f"{openai.url}/v1", openai.key)
        run_worker(api, openai.url)
        openai.slow_down(LATENCY)

        def run(*program: str) -> Took:
            fleet.age(api, lambda _: True)
            return run_worker(api, openai.url, program=[*program, "run.py"])

        run()
        plain = run()
        samples, calls = directory / "samples", directory / "calls"
        run("-m", "benchmarks.sampled", str(samples))
        run("-m", "cProfile", "-o", str(calls))
        idle, idly = run_worker(api, openai.url), directory / "idle"
        run_worker(api, openai.url, program=["-m", "benchmarks.sampled", str(idly), "run.py"])
        each = costs(api, openai, patterns[0], targets)
    stacks, idle_stacks = _stacks(samples), _stacks(idly)
    cpu, idle_cpu = 1000 * plain.cpu / targets, 1000 * idle.cpu / targets
    parts = [
        "# Profile of the worker",
        "Written by `python -m benchmarks.profile`; what follows from it is in [benchmarks.md](../benchmarks.md).",
        (
            f"{targets} targets, all due, 50 at once, OpenAI {1000 * LATENCY:.0f} ms, API server: {api.kind}. "
            f"Without a profiler: {plain.wall:.1f} s, {plain.cpu:.1f} s of CPU ({cpu:.1f} ms per target with the "
            f"start), {plain.peak:.0f} MB."
        ),
        "## By what it is for (samples)",
        _block(_shares(stacks, cpu)),
        "## By package, own time (samples)",
        _block(_packages(stacks, cpu)),
        "## By function of the worker, with all that it calls (samples)",
        _block(_worker(stacks, cpu)),
        "## The same with nothing due (samples)",
        f"Without a profiler: {idle.wall:.1f} s, {idle.cpu:.1f} s of CPU ({idle_cpu:.2f} ms each, with the start).",
        _block(_shares(idle_stacks, idle_cpu)),
        _block(_worker(idle_stacks, idle_cpu)),
        "## By function, own time (cProfile)",
        _block(_calls(calls, targets)),
        "## What each request costs the API server",
        _block(_costs(each)),
    ]
    return "\n\n".join(parts) + "\n"


def _stacks(path: Path) -> list[tuple[Stack, int]]:
    return [(tuple(stack), count) for stack, count in json.loads(path.read_text())]


def _costs(each: Sequence[Cost]) -> str:
    """By kind, and what a whole rotation comes to."""
    rows = [
        [cost.kind, f"{cost.server:.2f}", f"{cost.store:.2f}", f"{cost.count}", f"{cost.count * cost.server:.2f}"]
        for cost in each
    ]
    total = sum(cost.count * cost.server for cost in each)
    rows.append(["all", "", "", str(sum(cost.count for cost in each)), f"{total:.2f}"])
    return table(["ms of CPU", "API server", "etcd", "per target", "API server per target"], rows)


def _block(text: str) -> str:
    return f"```\n{text}\n```"


def _shares(stacks: list[tuple[Stack, int]], cpu: float) -> str:
    found: Counter[str] = Counter()
    for stack, count in stacks:
        found[next((name for name, matches in SHARES if matches(stack)), "all else")] += count
    return _ranked(found, cpu, len(SHARES) + 1)


def _packages(stacks: list[tuple[Stack, int]], cpu: float) -> str:
    found: Counter[str] = Counter()
    for stack, count in stacks:
        found[package(stack[0])] += count
    return _ranked(found, cpu, 20)


def _worker(stacks: list[tuple[Stack, int]], cpu: float) -> str:
    """Each function counts once per stack."""
    found: Counter[str] = Counter()
    for stack, count in stacks:
        for frame in {frame for frame in stack if package(frame) == "worker"}:
            path, _, name = frame.rpartition(":")
            found[f"{Path(path).name}: {name}"] += count
    return _ranked(found, cpu, 40)


def _ranked(found: Counter[str], cpu: float, most: int) -> str:
    total = max(1, sum(found.values())) if most <= 20 else max(found.values())
    rows = [
        [name, f"{100 * count / total:.1f} %", f"{cpu * count / total:.2f}"] for name, count in found.most_common(most)
    ]
    return table(["", "share", "ms per target"], rows)


def _calls(path: Path, targets: int) -> str:
    profile = pstats.Stats(str(path)).get_stats_profile()
    ranked = sorted(profile.func_profiles.items(), key=lambda item: -item[1].tottime)[:30]
    rows = [
        [
            f"{Path(found.file_name).name}: {name}" if found.line_number else name,
            str(found.ncalls).partition("/")[0],
            f"{1000 * found.tottime / targets:.2f}",
            f"{1000 * found.cumtime / targets:.2f}",
        ]
        for name, found in ranked
    ]
    return table(["", "calls", "own, ms per target", "with what it calls"], rows)


def package(frame: str) -> str:
    """The package of a frame `file:function`; of the standard library the module."""
    path = frame.rpartition(":")[0]
    if inside := re.search(r"site-packages/([^/.]+)", path):
        return inside.group(1)
    if inside := re.search(r"/python3\.\d+/([^/.]+)", path):
        return f"{inside.group(1)} (Python's own)"
    if path.startswith("<"):
        return path.strip("<>").partition(" ")[0] + " (generated)"
    inside_this = Path(path).is_relative_to(ROOT)
    return Path(path).relative_to(ROOT).parts[0] if inside_this else Path(path).parent.name


if __name__ == "__main__":
    main()
