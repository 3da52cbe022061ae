"""What a start costs: CPU of the worker until its first request fails to connect, next to its libraries alone.

python -m benchmarks.start [ROUNDS]
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from sandbox.server import write_kubeconfig

ROOT = Path(__file__).parent.parent
LIBRARIES = [sys.executable, "-c", "import kubernetes.aio.config, aiohttp, structlog"]
WORKER = [sys.executable, "run.py"]
NOWHERE = "http://127.0.0.1:1"


def main() -> None:
    """Print the medians and their ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as directory:
        kubeconfig = write_kubeconfig(Path(directory) / "kubeconfig", NOWHERE)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ROTATOR_")}
        environment["KUBECONFIG"] = str(kubeconfig)
        pairs = [(cpu(LIBRARIES, environment), cpu(WORKER, environment)) for _ in range(rounds)]
    libraries, worker = (statistics.median(values) for values in zip(*pairs, strict=True))
    print(f"libraries alone  {libraries:.2f} s of CPU")
    print(f"worker           {worker:.2f} s of CPU to its first request and its retries")
    print(f"ratio            {worker / libraries:.2f}   (aim: at most 1.33)")


def cpu(command: list[str], environment: dict[str, str]) -> float:
    """Seconds of CPU, user and system, that a command takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
