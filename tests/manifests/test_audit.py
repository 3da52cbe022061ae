"""The weekly audit: its CronJob as overlays and components make it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.scene import ROOT

MANIFESTS = ROOT / "manifests"
AUDIT = "openai-key-rotator-audit"


def built(directory: Path, overlay: str, *components: str) -> dict[tuple[str, str], Any]:
    """An overlay whose own list of components has the audit first, as its comment asks for."""
    mine = directory / "mine"
    mine.mkdir()
    kustomization = yaml.safe_load((MANIFESTS / overlay / "kustomization.yaml").read_text())
    for field in ("resources", "components"):
        places = [(MANIFESTS / overlay / place).resolve() for place in kustomization.get(field, [])]
        for place in places:
            if place.is_file():
                (mine / place.name).write_text(place.read_text())
        kustomization[field] = [p.name if p.is_file() else os.path.relpath(p, mine.resolve()) for p in places]
    added = [os.path.relpath(MANIFESTS / "components" / name, mine.resolve()) for name in ("audit", *components)]
    kustomization["components"] = [*added, *kustomization["components"]]
    for patch in kustomization.get("patches", []):
        (mine / patch["path"]).write_text((MANIFESTS / overlay / patch["path"]).read_text())
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    kubectl = Path(sys.executable).parent / "kubectl"
    done = subprocess.run([kubectl, "kustomize", mine], capture_output=True, text=True, check=True)
    return {(obj["kind"], obj["metadata"]["name"]): obj for obj in yaml.safe_load_all(done.stdout)}


def pod_of(objects: dict[tuple[str, str], Any], name: str) -> Any:
    return objects["CronJob", name]["spec"]["jobTemplate"]["spec"]["template"]


def variables(objects: dict[tuple[str, str], Any], name: str) -> dict[str, str]:
    (container,) = pod_of(objects, name)["spec"]["containers"]
    return {item["name"]: item.get("value", "") for item in container["env"]}


def test_it_looks_once_a_week_with_the_image_of_the_overlay(tmp_path: Path) -> None:
    """And as carefully as the worker: the same account, user, limits and network."""
    objects = built(tmp_path, "overlays/production")
    mine, workers = pod_of(objects, AUDIT), pod_of(objects, "openai-key-rotator")
    assert objects["CronJob", AUDIT]["spec"]["schedule"] == "0 6 * * 1"
    assert objects["CronJob", AUDIT]["metadata"]["namespace"] == "openai-key-rotator"
    for field in ("securityContext", "serviceAccountName", "restartPolicy"):
        assert mine["spec"][field] == workers["spec"][field]
    (container,), (worker,) = mine["spec"]["containers"], workers["spec"]["containers"]
    for field in ("image", "resources", "securityContext"):
        assert container[field] == worker[field]
    assert container["args"][0] == "audit"
    policy = objects["NetworkPolicy", "openai-key-rotator"]["spec"]["podSelector"]["matchLabels"]
    assert policy.items() <= mine["metadata"]["labels"].items()


def test_it_is_told_and_it_fails_where_it_finds_something(tmp_path: Path) -> None:
    """The alert goes by that; the counts are in the termination message."""
    found = variables(built(tmp_path, "overlays/production"), AUDIT)
    assert found == {"ROTATOR_STRICT": "true", "ROTATOR_SUMMARY_FILE": "/dev/termination-log"}


@pytest.mark.parametrize(
    ("overlay", "component", "variable"),
    [
        ("overlays/production", "central-admin-keys", "ROTATOR_CENTRAL_ADMIN_KEYS"),
        ("overlays/production", "ca-bundle", "SSL_CERT_FILE"),
        ("overlays/single-namespace", "ca-bundle", "ROTATOR_NAMESPACE"),
        ("overlays/development", "ca-bundle", "ROTATOR_ALLOW_HOST"),
    ],
)
def test_what_the_worker_is_told_about_keys_and_hosts_the_audit_is_told_too(
    tmp_path: Path, overlay: str, component: str, variable: str
) -> None:
    objects = built(tmp_path, overlay, component)
    told = variables(objects, AUDIT)
    assert told[variable] == variables(objects, "openai-key-rotator")[variable]
    mounts = [mount["name"] for mount in pod_of(objects, AUDIT)["spec"]["containers"][0].get("volumeMounts", [])]
    assert mounts == [volume["name"] for volume in pod_of(objects, AUDIT)["spec"].get("volumes", [])]


def test_without_the_component_there_is_none() -> None:
    for path in MANIFESTS.rglob("kustomization.yaml"):
        places = yaml.safe_load(path.read_text()).get("components", [])
        assert not [place for place in places if place.endswith("components/audit")]
