"""docs/platforms.md: each line names tests that exist; and what the manifests do for platforms."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.programs import required_program
from tests.support.scene import ROOT

MANIFESTS = ROOT / "manifests"
APPLIED = ["base", "job", *(f"overlays/{path.name}" for path in sorted((MANIFESTS / "overlays").iterdir()))]
PAGE = (ROOT / "docs" / "platforms.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]


def rendered(place: Path) -> list[dict[str, Any]]:
    command = [required_program("kubectl"), "kustomize", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def pods(place: str) -> list[dict[str, Any]]:
    """The templates of all pods."""
    jobs = [obj.get("spec", {}).get("jobTemplate", obj) for obj in rendered(MANIFESTS / place)]
    return [job["spec"]["template"] for job in jobs if "template" in job.get("spec", {})]


def test_each_line_names_a_test_that_exists() -> None:
    assert len(ROWS) >= 10
    for row in ROWS:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for path, name in named:
            tree = ast.parse((ROOT / path).read_text())
            found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
            assert name in found, f"{path}::{name}"


@pytest.mark.parametrize("place", APPLIED)
def test_pods_take_the_user_that_the_platform_gives(place: str) -> None:
    """OpenShift refuses any other; elsewhere the image's own is a number, which runAsNonRoot asks for."""
    (pod,) = pods(place)
    for context in (pod["spec"]["securityContext"], pod["spec"]["containers"][0]["securityContext"]):
        assert not {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"} & context.keys()
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize("place", APPLIED)
def test_no_mesh_puts_a_sidecar_into_the_pod(place: str) -> None:
    """It would keep the Job from ending."""
    (pod,) = pods(place)
    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert pod["metadata"]["annotations"]["linkerd.io/inject"] == "disabled"


def test_the_network_policy_lets_out_to_where_names_are_on_openshift() -> None:
    (policy,) = [obj for obj in rendered(MANIFESTS / "base") if obj["kind"] == "NetworkPolicy"]
    (rule,) = policy["spec"]["egress"]
    allowed = {(port["port"], port["protocol"]) for port in rule["ports"]}
    assert allowed >= {(port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")}


def test_the_authoritys_file_is_where_its_variable_says(tmp_path: Path) -> None:
    """The component `ca-bundle`: variable, mount and ConfigMap belong together."""
    relative = Path("../" * len(tmp_path.resolve().parents)) / str(MANIFESTS).lstrip("/")
    mine = {"resources": [f"{relative}/base"], "components": [f"{relative}/components/ca-bundle"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(mine))
    (job,) = [obj for obj in rendered(tmp_path) if obj["kind"] == "CronJob"]
    spec = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (file,) = [Path(variable["value"]) for variable in container["env"] if variable["name"] == "SSL_CERT_FILE"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == str(file.parent)]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == mount["name"]]
    assert (file.name, volume["configMap"]) == ("ca.crt", {"name": "openai-key-rotator-ca"})
