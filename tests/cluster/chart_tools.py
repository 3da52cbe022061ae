"""Helm, which renders and installs the chart, and kube-score, which judges what is rendered.

Guarantees: they are those that go.mod pins, from a cache outside the checkout. Their folder is their own: another Helm
leaves the control plane's programs where they are. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.cluster.control_plane import cache_directory

MODULE = Path(__file__).parent
PACKAGES = {
    "helm": (MODULE / "helm", "helm.sh/helm/v4/cmd/helm"),
    "kube-score": (MODULE / "kube-score", "github.com/zegl/kube-score/cmd/kube-score"),
}
"""Each program's module here, and its package."""


def chart_tools_directory() -> Path:
    """Where `make control-plane` puts them: a folder of its own for each state of what pins them."""
    pinned = hashlib.sha256()
    for module, _ in PACKAGES.values():
        pinned.update((module / "go.mod").read_bytes() + (module / "go.sum").read_bytes())
    return cache_directory().parent.parent / "chart" / pinned.hexdigest()[:16]


def find_chart_tool(name: str) -> Path | None:
    """The program, if it is in the project's cache."""
    program = chart_tools_directory() / name
    return program if os.access(program, os.X_OK) else None
