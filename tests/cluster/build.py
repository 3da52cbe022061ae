"""`python -m tests.cluster.build`: build the programs of a real cluster from pinned Go modules.

Guarantees: what is built goes to a cache outside the checkout, in a folder named by what is pinned, so that another
version is another folder; a program appears there whole or not at all; one that is there is not built again. Needs Go,
and the standard library only. The last line printed is the folder.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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


def build(directory: Path) -> None:
    """Make what is missing in this folder."""
    missing = [name for name in (STAGES, *PACKAGES) if not (directory / name).is_file()]
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
            if name == STAGES:
                made.write_text(_stages())
            else:
                _build(made, *PACKAGES[name])
            made.replace(directory / name)


def _build(program: Path, module: Path, package: str) -> None:
    command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath", f"-ldflags={_ldflags(module)}"]
    subprocess.run([*command, "-o", program, package], cwd=module, check=True, stdin=subprocess.DEVNULL)


def _ldflags(module: Path) -> str:
    """Without debug information; Kubernetes' programs with the version that a release would tell its clients."""
    flags = "-s -w"
    if module == MODULE:
        found = re.search(r"k8s\.io/kubernetes (v(\d+)\.(\d+)\.\d+)", (MODULE / "go.mod").read_text())
        if found is None:
            raise SystemExit("go.mod names no version of k8s.io/kubernetes")
        version, major, minor = found.groups()
        package = "k8s.io/component-base/version"
        facts = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
        flags = " ".join([flags, *(f"-X {package}.{fact}={value}" for fact, value in facts.items())])
    return flags


def _stages() -> str:
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
    return "---\n".join((directory / name).read_text() for name in USED_STAGES)


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
