"""The worker, and other programs, as processes of their own whose wall time, CPU and peak memory are known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.clusters import Cluster
from benchmarks.servers import ROOT
from benchmarks.targets import LEDGER

MEASURED = Path(__file__).with_name("measured.py")


@dataclass(frozen=True, slots=True)
class Took:
    """What a process took: seconds, seconds of CPU (user and system), MB at its peak."""

    wall: float
    cpu: float
    peak: float
    code: int
    output: str


def environment(cluster: Cluster, openai: str) -> dict[str, str]:
    """What a worker needs, and none of the caller's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROTATOR_")}
    return kept | {
        "KUBECONFIG": str(cluster.kubeconfig),
        "ROTATOR_ALLOW_HOST": openai,
        "ROTATOR_LEDGER_NAMESPACE": LEDGER,
        "ROTATOR_OUTPUT": "json",
        "ROTATOR_MAX_WAIT": "0s",
        "ROTATOR_DEADLINE": "1h",
    }


@dataclass(frozen=True, slots=True)
class Build:
    """A checkout of this project, installed: its folder, and the Python of its virtual environment."""

    name: str
    root: Path
    python: str


THIS = Build("this", ROOT, sys.executable)


def measure(command: Sequence[str], variables: dict[str, str], given: str = "", build: Build = THIS) -> Took:
    """Run Python with these arguments to its end."""
    with tempfile.TemporaryDirectory() as directory:
        result, out = Path(directory) / "result", Path(directory) / "out"
        with out.open("w") as file:
            subprocess.run(
                [sys.executable, "-I", "-S", str(MEASURED), str(result), build.python, *command],
                cwd=build.root,
                env=variables,
                input=given,
                stdout=file,
                text=True,
                check=True,
            )
        return Took(**json.loads(result.read_text()), output=out.read_text())


def run_worker(
    cluster: Cluster, openai: str, *arguments: str, program: Sequence[str] = ("run.py",), build: Build = THIS
) -> Took:
    """`python run.py` as a user starts it; an AssertionError if it does not end well."""
    took = measure([*program, *arguments], environment(cluster, openai), build=build)
    assert took.code == 0, f"the worker ended with {took.code}:\n{took.output[-2000:]}"
    return took


def summary(took: Took) -> dict[str, Any]:
    """The run's last log line."""
    last: dict[str, Any] = json.loads(took.output.splitlines()[-1])
    return last
