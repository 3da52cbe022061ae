"""What every object of the manifests has: the usual labels, bounds, and what tenants may do with our kinds."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.programs import required_program
from tests.support.scene import ROOT

MANIFESTS = ROOT / "manifests"
OPERATIONS = ROOT / "docs" / "operations.md"
LABELS = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "version", "component", "part-of", "managed-by")}
OVERLAYS = [f"overlays/{path.name}" for path in sorted((MANIFESTS / "overlays").iterdir())]
APART = ("monitoring", "reloader")
"""Components that belong beside other software; the second one has no object."""
COMPONENTS = [path.name for path in sorted((MANIFESTS / "components").iterdir()) if path.name not in APART]
READ = {"get", "list", "watch"}
WRITE = {"create", "update", "patch", "delete", "deletecollection"}

Object = dict[str, Any]


def rendered(place: Path) -> list[Object]:
    command = [required_program("kubectl"), "kustomize", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def composed(directory: Path, **kustomization: Any) -> list[Object]:
    """A kustomization of a user's, whose `MANIFESTS` is our folder."""
    ours = os.path.relpath(MANIFESTS, directory.resolve())
    text = yaml.safe_dump(kustomization).replace("MANIFESTS", ours)
    (directory / "kustomization.yaml").write_text(text)
    return rendered(directory)


def pod_templates(objects: list[Object]) -> Iterator[Object]:
    for obj in objects:
        job = obj["spec"]["jobTemplate"] if obj["kind"] == "CronJob" else obj
        if job.get("kind", "Job") == "Job":
            yield job["spec"]["template"]


def labelled(objects: list[Object]) -> None:
    assert objects
    for obj in (*objects, *pod_templates(objects)):
        missing = LABELS - obj["metadata"].get("labels", {}).keys()
        assert not missing, (obj.get("kind", "a pod"), obj["metadata"].get("name"), missing)


@pytest.mark.parametrize("place", ["base", "job", "crds", "crds/external-secret", *OVERLAYS])
def test_every_object_has_the_usual_labels(place: str) -> None:
    labelled(rendered(MANIFESTS / place))


@pytest.mark.parametrize("component", COMPONENTS)
def test_what_a_component_adds_has_them_as_well(tmp_path: Path, component: str) -> None:
    labelled(composed(tmp_path, resources=["MANIFESTS/base"], components=[f"MANIFESTS/components/{component}"]))


def test_what_belongs_beside_the_monitoring_has_them_as_well(tmp_path: Path) -> None:
    address = {"name": "openai-key-rotator-docs", "literals": ["url=https://git.acme.example/docs"]}
    objects = composed(tmp_path, components=["MANIFESTS/components/monitoring"], configMapGenerator=[address])
    labelled([obj for obj in objects if not obj["metadata"]["name"].startswith(address["name"])])


def test_the_version_is_the_same_everywhere() -> None:
    """In labels as in images: a release changes all of them."""
    found = set()
    for path in MANIFESTS.rglob("*.yaml"):
        found |= set(re.findall(r"app\.kubernetes\.io/version: (\S+)|openai-key-rotator:(\d\S+)", path.read_text()))
    assert len({"".join(pair) for pair in found}) == 1


@pytest.mark.parametrize("component", ["", "audit"])
def test_a_pod_asks_for_what_it_needs_and_has_an_end(tmp_path: Path, component: str) -> None:
    """Its log is all that it writes to the node's disk. A CPU limit would only slow it down."""
    parts = [f"MANIFESTS/components/{component}"] if component else []
    for pod in pod_templates(composed(tmp_path, resources=["MANIFESTS/base"], components=parts)):
        (container,) = pod["spec"]["containers"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}
        assert container["resources"]["limits"].keys() == {"memory", "ephemeral-storage"}


def test_where_a_quota_wants_a_limit_of_cpu_the_documented_patch_sets_it(tmp_path: Path) -> None:
    """On every CronJob of the overlay; the other limits stay."""
    (text,) = re.findall(r"```yaml\n(resources:[^`]*limits/cpu[^`]*)```", OPERATIONS.read_text())
    documented = yaml.safe_load(text)
    documented["resources"] = ["MANIFESTS/overlays/production"]
    documented["components"] = ["MANIFESTS/components/audit"]
    pods = list(pod_templates(composed(tmp_path, **documented)))
    assert len(pods) == 2
    for pod in pods:
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        assert limits.keys() == {"cpu", "memory", "ephemeral-storage"}


def test_the_namespace_holds_pods_to_the_restricted_standard_and_says_so() -> None:
    (namespace,) = [obj for obj in rendered(MANIFESTS / "base") if obj["kind"] == "Namespace"]
    modes = {mode: namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] for mode in
             ("enforce", "audit", "warn")}  # fmt: skip
    assert set(modes.values()) == {"restricted"}


# --- tenants


def for_role(objects: list[Object], role: str) -> dict[str, set[str]]:
    """The verbs that a built-in role gets on each resource."""
    found: dict[str, set[str]] = {}
    for obj in objects:
        if obj["metadata"].get("labels", {}).get(f"rbac.authorization.k8s.io/aggregate-to-{role}") == "true":
            for rule in obj["rules"]:
                for resource in rule["resources"]:
                    found[resource] = found.get(resource, set()) | set(rule["verbs"])
    return found


@pytest.mark.parametrize("place", ["base", *OVERLAYS])
def test_the_built_in_roles_know_our_kinds(place: str) -> None:
    """Nobody may write KeyRotations, or a status."""
    objects = rendered(MANIFESTS / place)
    reading = {"openais": READ, "externalsecrets": READ, "keyrotations": READ}
    assert for_role(objects, "view") == reading
    for role in ("edit", "admin"):
        assert for_role(objects, role) == reading | {"openais": READ | WRITE}


def test_without_an_operator_tenants_write_external_secrets() -> None:
    objects = rendered(MANIFESTS / "crds" / "external-secret")
    assert for_role(objects, "view") == {}
    for role in ("edit", "admin"):
        assert for_role(objects, role) == {"externalsecrets": WRITE}


def test_one_category_shows_all_that_is_ours() -> None:
    """`kubectl get openai-key-rotator -A`."""
    names = {obj["spec"]["names"]["kind"]: obj["spec"]["names"]["categories"] for obj in rendered(MANIFESTS / "crds")}
    assert names.keys() == {"AdminKeyRotation", "KeyRotation", "OpenAI"}
    for categories in names.values():
        assert {"openai-key-rotator", "external-secrets"} <= set(categories)
