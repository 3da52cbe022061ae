"""A stand-in for the image that the Dockerfile builds on, where no registry is at hand: made of this machine.

Guarantees: it has what the Dockerfile and a container of it need and no more: a Python of the Dockerfile's minor
version under /usr/local, as complete as the real image's and as bare of bytecode and tests; a shell and `rm`; the
libraries of all these, and those that compiled wheels find in every Debian; the certificates that this machine trusts.
It is of this machine's architecture and its Debian.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TOOLS = ("/bin/sh", "/bin/rm")
OF_WHEELS = (
    "libgcc_s.so.1",
    "libstdc++.so.6",
    "libdl.so.2",
    "librt.so.1",
    "libutil.so.1",
    "libpthread.so.0",
    "libresolv.so.2",
)
"""Compiled wheels (manylinux) find these wherever they are installed."""
LEFT_OUT = shutil.ignore_patterns("__pycache__", "test", "tests", "idle_test", "*.a", "_tkinter*")
"""What the real image lacks as well."""
FOLDERS = ("bin", "dev", "etc/ssl/certs", "proc", "run", "sys", "tmp", "usr/local", "var/tmp")
USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
GROUPS = "root:x:0:\nnogroup:x:65534:\n"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class NoPython(Exception):
    """No tree of the Dockerfile's Python is here."""


def python_tree(minor: str) -> Path:
    """A folder with bin/ and lib/ of this Python, and of nothing else: $PYTHON_TREE, or one of pyenv's."""
    named = os.environ.get("PYTHON_TREE")
    if named:
        return Path(named)
    beside = (
        [Path(sys.base_prefix), Path("/usr/local")] if f"{sys.version_info[0]}.{sys.version_info[1]}" == minor else []
    )
    trees = [*sorted(Path.home().glob(f".pyenv/versions/{minor}.*")), *beside]
    for tree in trees:
        if tree != Path("/usr") and (tree / "bin" / f"python{minor}").exists():
            return tree
    raise NoPython(
        f"no Python {minor} in a folder of its own for the stand-in of the base image: name one, PYTHON_TREE=…"
    )


def make(root: Path, minor: str) -> None:
    """Put the stand-in's files there."""
    tree = python_tree(minor)
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    local = root / "usr" / "local"
    shutil.copytree(tree / "bin", local / "bin", symlinks=True)
    shutil.copytree(tree / "lib", local / "lib", symlinks=True, ignore=LEFT_OUT)
    _only_pip(local / "lib" / f"python{minor}" / "site-packages")
    if not (local / "bin" / "python").exists():
        (local / "bin" / "python").symlink_to(f"python{minor}")
    for tool in TOOLS:
        _copy(Path(tool), root / tool.lstrip("/"))
    own = [local / "bin" / f"python{minor}", *local.rglob("*.so*")]
    for library in _libraries([*map(Path, TOOLS), *own], local) | _of_wheels():
        _copy(library, root / str(library).lstrip("/"))
    for name, text in (("passwd", USERS), ("group", GROUPS), ("ld.so.conf", "/usr/local/lib\n")):
        (root / "etc" / name).write_text(text)
    if CERTIFICATES.exists():
        _copy(CERTIFICATES, root / str(CERTIFICATES).lstrip("/"))
    subprocess.run(["ldconfig", "-r", root], check=True)


def _only_pip(packages: Path) -> None:
    """What somebody has installed there is no part of the image."""
    for path in packages.iterdir():
        if not path.name.startswith("pip"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _libraries(programs: list[Path], inside: Path) -> set[Path]:
    """All shared libraries that these are linked to, the loader too, but for those of the tree itself."""
    found: set[Path] = set()
    for program in programs:
        if program.is_symlink() and program.is_relative_to(inside):
            continue
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        found |= {Path(path) for path in re.findall(r"(?:=>\s+|^\s+)(/\S+) \(", said, re.MULTILINE)}
    return {path for path in found if not re.match(r"libpython", path.name)}


def _of_wheels() -> set[Path]:
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found = (re.search(rf"{re.escape(name)} \(.*\) => (/\S+)", known) for name in OF_WHEELS)
    return {Path(match[1]) for match in found if match is not None}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
