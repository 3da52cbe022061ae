"""`python -m tests.cluster.build`: build the programs of a real cluster from pinned Go modules.

Guarantees: what is built goes to a cache outside the checkout, in a folder named by what is pinned, so that another
version is another folder; a program appears there whole or not at all; one that is there is not built again. Needs Go,
and the standard library only. The last line printed is the folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from tests.cluster import chart_tools, kstatus_tool
from tests.cluster.control_plane import KWOK_MODULE, MODULE, PROMTOOL_MODULE, STAGES, cache_directory

PACKAGES = {
    "promtool": (PROMTOOL_MODULE, "github.com/prometheus/prometheus/cmd/promtool"),
    "kwok": (KWOK_MODULE, "sigs.k8s.io/kwok/cmd/kwok"),
    "kube-scheduler": (MODULE, "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kube-controller-manager": (MODULE, "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "etcd": (MODULE, "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": (MODULE, "k8s.io/kubernetes/cmd/kube-apiserver"),
}
"""Each program's module here, and its package. The API server comes last: with it the folder counts as complete."""

USED_STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)
"""What kwok does to nodes and pods, as its own module says: a pod runs at once, a Job's ends, a deleted one goes."""


Recipe = Callable[[Path], None]
"""Makes one file at this place."""


def build(directory: Path) -> None:
    """Make what is missing in this folder, and what the chart's tests need beside it."""
    make_missing(directory, {STAGES: _write_stages, **_programs(PACKAGES)})
    # After the API server: Helm is of the same libraries, which are compiled by now.
    make_missing(chart_tools.chart_tools_directory(), _programs(chart_tools.PACKAGES))
    make_missing(kstatus_tool.kstatus_directory(), _programs(kstatus_tool.PACKAGES))


def _programs(packages: Mapping[str, tuple[Path, str]]) -> dict[str, Recipe]:
    return {
        name: partial(build_program, module=module, package=package) for name, (module, package) in packages.items()
    }


def make_missing(directory: Path, recipes: Mapping[str, Recipe]) -> None:
    """Make those of these files that are not in the folder, in this order; each appears there whole or not at all."""
    missing = [name for name in recipes if not (directory / name).is_file()]
    if not missing:
        return
    if shutil.which("go") is None:
        raise SystemExit("Go is needed to build the cluster's programs: see tests/cluster/go.mod for its version")
    print(f"building {', '.join(missing)}: minutes the first time", file=sys.stderr)
    directory.mkdir(parents=True, exist_ok=True)
    # In the cache itself, so that the move at the end is a rename.
    with tempfile.TemporaryDirectory(dir=directory, prefix=".building-") as temporary:
        for name in missing:
            made = Path(temporary) / name
            begun = time.monotonic()
            recipes[name](made)
            made.replace(directory / name)
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)


def build_program(program: Path, module: Path, package: str, *, tags: str = "", static: bool = False) -> None:
    """Build this package, pinned by the module's go.mod, without debug information; `static`: without libc."""
    flags = ["-mod=readonly", "-buildvcs=false", "-trimpath", f"-ldflags={_ldflags(module)}", f"-tags={tags}"]
    environment = {**os.environ, "CGO_ENABLED": "0"} if static else None
    command = ["go", "build", *flags, "-o", str(program), package]
    subprocess.run(command, cwd=module, env=environment, check=True, stdin=subprocess.DEVNULL)


def _ldflags(module: Path) -> str:
    """Kubernetes' programs have the version that a release would tell its clients."""
    flags = "-s -w"
    found = re.search(r"\bk8s\.io/kubernetes (v(\d+)\.(\d+)\.\d+)\n", (module / "go.mod").read_text())
    if found is None:
        return flags
    version, major, minor = found.groups()
    package = "k8s.io/component-base/version"
    facts = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join([flags, *(f"-X {package}.{fact}={value}" for fact, value in facts.items())])


def _write_stages(made: Path) -> None:
    """The stages that are used, in one file."""
    # Downloading tells where the module is, and is a look where it has been downloaded.
    done = subprocess.run(
        ["go", "mod", "download", "-json", "sigs.k8s.io/kwok"],
        cwd=KWOK_MODULE,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    directory = Path(json.loads(done.stdout)["Dir"]) / "kustomize" / "stage"
    made.write_text("---\n".join((directory / name).read_text() for name in USED_STAGES))


def main() -> None:
    """Build what is missing and print where it is."""
    directory = cache_directory()
    try:
        build(directory)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{' '.join(map(str, error.cmd[:2]))} failed with exit code {error.returncode}") from None
    print(directory)


if __name__ == "__main__":
    main()
