"""What this machine lacks for a real node.

Guarantee: it is asked before anything is built or started, and each thing that is missing is named. Standard library
only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PROGRAMS = ("go", "buildah", "runc", "unshare", "setpriv", "ip", "openssl")
PLUGINS = ("bridge", "host-local", "loopback")
PLUGIN_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CGROUPS = Path("/sys/fs/cgroup")
WORLD = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Namespaces of its own: whoever ends this process ends every other in there, and nothing in there is seen outside."""
TRIAL = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/lower /run/upper /run/work /run/merged
mount -t overlay -o lowerdir=/run/lower,upperdir=/run/upper,workdir=/run/work overlay /run/merged
ip link set lo up
ip link add trial type bridge
ip link add trial-a type veth peer name trial-b
"""


def missing() -> list[str]:
    """What is not here, in words; nothing if a real node can be started."""
    if os.geteuid() != 0:
        return ["root"]
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacks = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if plugin_folder() is None:
        lacks.append(f"CNI plugins ({', '.join(PLUGINS)})")
    if cgroup_roots() is None:
        lacks.append("cgroups for memory, cpu and pids that can be written")
    if lacks:
        return lacks
    tried = subprocess.run([*WORLD, "sh", "-c", TRIAL], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        said = (tried.stderr.strip() or f"exit code {tried.returncode}").splitlines()[-1]
        return [f"a kernel that gives namespaces, overlay, bridge and veth ({said})"]
    return []


def plugin_folder() -> Path | None:
    """The first folder that has all plugins."""
    complete = (folder for folder in PLUGIN_FOLDERS if all(os.access(folder / name, os.X_OK) for name in PLUGINS))
    return next(complete, None)


def cgroup_roots() -> list[Path] | None:
    """Every hierarchy that a kubelet uses: one of version 2, or those of version 1; None if one is missing."""
    if (CGROUPS / "cgroup.controllers").exists():
        found = [CGROUPS]
        there = set((CGROUPS / "cgroup.controllers").read_text().split())
    else:
        found = [path for path in CGROUPS.iterdir() if path.is_dir() and path.name != "unified"]
        there = {path.name for path in found}
    writable = all(os.access(path, os.W_OK) for path in found)
    return found if writable and {"memory", "cpu", "pids"} <= there else None
