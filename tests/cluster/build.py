"""`python -m tests.cluster.build`: build the programs of a real control plane from pinned Go modules.

Guarantees: what is built goes to a cache outside the checkout, in a folder named by what is pinned, so that another
version is another folder; a program appears there whole or not at all; one that is there is not built again. Needs Go,
and the standard library only. The last line printed is the folder.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cluster.control_plane import MODULE, cache_directory

PACKAGES = {
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
}
"""The API server comes last: with it the folder counts as complete."""


def build(directory: Path) -> None:
    """Build the programs that are missing in this folder."""
    missing = [name for name in PACKAGES if not (directory / name).is_file()]
    if not missing:
        return
    if shutil.which("go") is None:
        raise SystemExit("Go is needed to build the control plane: see tests/cluster/go.mod for its version")
    print(f"building {', '.join(missing)}: minutes the first time", file=sys.stderr)
    directory.mkdir(parents=True, exist_ok=True)
    # In the cache itself, so that the move at the end is a rename.
    with tempfile.TemporaryDirectory(dir=directory, prefix=".building-") as temporary:
        for name in missing:
            program = Path(temporary) / name
            command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath", f"-ldflags={_ldflags()}"]
            subprocess.run([*command, "-o", program, PACKAGES[name]], cwd=MODULE, check=True, stdin=subprocess.DEVNULL)
            program.replace(directory / name)


def _ldflags() -> str:
    """Without debug information, and with the version that a release would tell its clients."""
    found = re.search(r"k8s\.io/kubernetes (v(\d+)\.(\d+)\.\d+)", (MODULE / "go.mod").read_text())
    if found is None:
        raise SystemExit("go.mod names no version of k8s.io/kubernetes")
    version, major, minor = found.groups()
    package = "k8s.io/component-base/version"
    facts = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {package}.{fact}={value}" for fact, value in facts.items())])


def main() -> None:
    """Build what is missing and print where it is."""
    directory = cache_directory()
    try:
        build(directory)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"go build failed with exit code {error.returncode}") from None
    print(directory)


if __name__ == "__main__":
    main()
