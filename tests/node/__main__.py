"""`python -m tests.node [ARGUMENTS OF PYTEST]`: tests with a real kubelet and real containers, and nothing left behind.

Guarantees: what is missing is told in one line, and is a failure only with REQUIRE_NODE=1; all processes, mounts and
network devices are in namespaces that end with the tests; control groups and files are taken away afterwards, and what
is left all the same is a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import build as cluster
from tests.cluster import control_plane
from tests.node import build, needs
from tests.node.base_image import NoPython
from tests.node.build import ROOT, timed
from tests.node.inside import BRIDGE

FORGET_AFTER = 10.0
"""Seconds: the kernel empties control groups a moment after the last process has ended."""


def main() -> int:
    """Build what is missing, run the tests, clean up; the exit code."""
    lacking = needs.missing()
    if lacking:
        return _go_without("; ".join(lacking))
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    cluster.build(control_plane.cache_directory())
    programs = build.build_programs()
    control = f"openai-key-rotator-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="node-") as place:
        world = Path(place)
        try:
            with timed("images"):
                images = build.build_images(world)
        except NoPython as error:
            return _go_without(str(error))
        told = {
            "archives": list(map(str, images.archives)),
            "project": str(images.project),
            "base_layers": images.base_layers,
            "revision": images.revision,
            "control_group": control,
            "programs": str(programs),
        }
        (world / "world.json").write_text(json.dumps(told))
        try:
            with timed("tests on the real node"):
                code = _in_namespaces(world, programs)
        finally:
            _remove_control_groups(control)
    left = _left(place, control)
    if left:
        print(f"real node: left behind: {', '.join(left)}")
        return 1
    print("real node: nothing left behind")
    return code


def _go_without(missing: str) -> int:
    """Say so; the exit code."""
    required = os.environ.get("REQUIRE_NODE") == "1"
    what = "required by REQUIRE_NODE=1, and cannot be used" if required else "not used, its tests are skipped"
    print(f"real node: {what}. Missing here: {missing}")
    return int(required)


def _in_namespaces(world: Path, programs: Path) -> int:
    tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={world / 'pytest'}", *sys.argv[1:]]
    if not any(argument.startswith("tests/") for argument in sys.argv[1:]):
        tests.append("tests/node")
    # Whatever ends this process ends that one, and so all.
    inside = ["setpriv", "--pdeathsig=KILL", *needs.WORLD, sys.executable, "-m", "tests.node.inside", *tests]
    environment = os.environ | {"NODE_WORLD": str(world), "PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run(inside, cwd=ROOT, env=environment, check=False).returncode


def _remove_control_groups(name: str) -> None:
    deadline = time.monotonic() + FORGET_AFTER
    for root in needs.cgroup_roots() or []:
        while (root / name).exists() and time.monotonic() < deadline:
            for folder, _, _ in os.walk(root / name, topdown=False):
                try:
                    Path(folder).rmdir()
                except OSError:  # still busy
                    time.sleep(0.05)


def _left(world: str, control: str) -> list[str]:
    """What the tests have left on this machine. Other runs on it are none of our business."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [
        *(f"mount {path}" for path in mounts if path.startswith((world, str(build.cache_directory())))),
        *(f"network device {path}" for path in Path("/sys/class/net").glob(BRIDGE)),
        *(f"control group {root / control}" for root in needs.cgroup_roots() or [] if (root / control).exists()),
        *_processes(f"NODE_WORLD={world}".encode(), control.encode()),
        *([f"folder {world}"] if Path(world).exists() else []),
    ]


def _processes(variable: bytes, control: bytes) -> Iterator[str]:
    """Those that were started by the tests, and those of containers."""
    for folder in (path for path in Path("/proc").iterdir() if path.name.isdigit()):
        try:
            if variable in (folder / "environ").read_bytes() or control in (folder / "cgroup").read_bytes():
                yield f"process {folder.name}: {(folder / 'cmdline').read_bytes()[:80]!r}"
        except OSError:  # it has ended
            continue


if __name__ == "__main__":
    sys.exit(main())
