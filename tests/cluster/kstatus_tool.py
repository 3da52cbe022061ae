"""kstatus, with which Flux and others judge the health of an object: a small program around sigs.k8s.io/cli-utils.

Guarantees: it is the version that go.mod pins, from a cache outside the checkout, in a folder of its own. Standard
library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import cache_directory

MODULE = Path(__file__).parent / "kstatus"
PACKAGES = {"kstatus": (MODULE, ".")}
"""The program's module, and its package."""


def kstatus_directory() -> Path:
    """Where `make control-plane` puts it: a folder of its own for each state of the program and what pins it."""
    pinned = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum", "main.go")))
    return cache_directory().parent.parent / "kstatus" / pinned.hexdigest()[:16]


def find_kstatus() -> Path | None:
    """The program, if it is in the project's cache."""
    program = kstatus_directory() / "kstatus"
    return program if os.access(program, os.X_OK) else None


def judged(program: Path, objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """The status of each object: Current, InProgress or Failed."""
    given = "\n".join(json.dumps(obj) for obj in objects)
    done = subprocess.run([program], input=given, capture_output=True, text=True, check=True)
    return [json.loads(line)["status"] for line in done.stdout.splitlines()]
