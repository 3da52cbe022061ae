"""The chart as Helm renders it, and the manifests as kustomize does.

Guarantees: Helm is the pinned one. Where it is not built the test that calls it is skipped with the reason; with
REQUIRE_CLUSTER=1 (CI) it fails instead. Helm reads and writes nothing of the user's: its folders are the test's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.chart_tools import find_chart_tool
from tests.support.programs import required_program
from tests.support.scene import ROOT

CHART = ROOT / "charts" / "openai-key-rotator"
MANIFESTS = ROOT / "manifests"
NAME = "openai-key-rotator"
CLUSTERS = (
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
"""Kinds of no namespace; kustomize gives one to those that it does not know, and the API server drops it."""

Object = dict[str, Any]


def chart_tool(name: str) -> Path:
    """Where helm or kube-score is."""
    found = find_chart_tool(name)
    if found is not None:
        return found
    reason = f"no {name}: `make control-plane` builds it (needs Go)"
    if os.environ.get("REQUIRE_CLUSTER") == "1":
        pytest.fail(f"{reason}, but REQUIRE_CLUSTER=1", pytrace=False)
    pytest.skip(reason)


def run_helm(directory: Path, *arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Helm with folders of its own below this one; `given` is its standard input."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    homes = {name: str(directory / name) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME")}
    return subprocess.run(
        [chart_tool("helm"), *arguments],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        env=kept | homes,
        capture_output=True,
        text=True,
        check=False,
    )


def helm(directory: Path, *arguments: str | Path, given: str | None = None) -> str:
    """What Helm printed. AssertionError, with its own words, if it failed."""
    done = run_helm(directory, *arguments, given=given)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def templated(
    directory: Path,
    *arguments: str | Path,
    values: Mapping[str, Any] | None = None,
    release: str = NAME,
    namespace: str = NAME,
    chart: Path = CHART,
) -> list[Object]:
    """The objects of a release of the chart with these arguments and values."""
    given = yaml.safe_dump(dict(values or {}))
    command = ["template", release, chart, "--namespace", namespace, *arguments, "--values", "-"]
    return [obj for obj in yaml.safe_load_all(helm(directory, *command, given=given)) if obj]


def kustomized(place: Path) -> list[Object]:
    """The objects of a kustomization."""
    command = [required_program("kubectl"), "kustomize", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def by_name(objects: Iterable[Object]) -> dict[tuple[str, str, str], Object]:
    """Each object by its kind, namespace and name; no two are the same."""
    found = {}
    for obj in objects:
        metadata = obj["metadata"]
        namespace = "" if obj["kind"] in CLUSTERS else metadata.get("namespace", "")
        key = (obj["kind"], namespace, metadata["name"])
        assert key not in found, key
        found[key] = obj
    return found
