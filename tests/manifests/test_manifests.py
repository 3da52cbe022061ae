"""The CRDs of generator and ExternalSecret are compatible with those that users have installed.

`data/schemas/` tells those as facts: a line for each field, with its type, whether it is required, and all else that
its schema says but for the description. An ExternalSecret's `generatorRef.kind` is left out: there we differ. A
generator's fields have rules on top (`test_generator_rules.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.kubernetes.setup import ADDED, without_conditions, without_rules
from tests.cluster.endpoint import Endpoint, call, kubectl
from tests.cluster.rig import install_crds

CRDS = Path(__file__).parents[2] / "manifests" / "crds"
OPENAI = CRDS / "openai.yaml"
EXTERNAL_SECRET = CRDS / "external-secret" / "externalsecret.yaml"
SCHEMAS = Path(__file__).parents[1] / "data" / "schemas"
CONDITION = "status.conditions[].type"
"""May be `Stalled`, here alone."""
DIFFERENT = ("spec.data[].sourceRef.generatorRef.kind", "spec.dataFrom[].sourceRef.generatorRef.kind")
STRUCTURE = {"description", "type", "properties", "items", "additionalProperties", "required"}

DOCUMENTED = """
apiVersion: generators.external-secrets.io/v1alpha1
kind: OpenAI
metadata: {name: openai-generator}
spec: {projectId: my-openai-project-id, openAiAdminKey: {name: openai-admin-secret, key: api-key}, cleanupPolicy: {}}
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: openai-credentials}
spec:
  dataFrom: [{sourceRef: {generatorRef: {kind: OpenAI, name: openai-generator}}}]
---
apiVersion: external-secrets.io/v1beta1
kind: ExternalSecret
metadata: {name: older}
spec:
  refreshInterval: 24h
  target: {name: other}
  dataFrom: [{sourceRef: {generatorRef: {kind: OpenAI, name: openai-generator}}}]
"""


def fields(schema: dict[str, Any], path: str = "", *, required: bool = False) -> Iterator[str]:
    """One line for each field of a schema."""
    facts = {name: value for name, value in sorted(schema.items()) if name not in STRUCTURE}
    words = [path or "object", schema.get("type", "any"), *["required"] * required, *[json.dumps(facts)] * bool(facts)]
    yield " ".join(words)
    for name, field in sorted(schema.get("properties", {}).items()):
        yield from fields(field, f"{path}.{name}".lstrip("."), required=name in schema.get("required", ()))
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from fields(schema["additionalProperties"], f"{path}{{}}")


def read(path: Path) -> dict[str, Any]:
    """A CRD."""
    crd: dict[str, Any] = yaml.safe_load(path.read_text())
    return crd


def versions(crd: Mapping[str, Any]) -> dict[str, Any]:
    """The versions of a CRD, by name."""
    return {version["name"]: version for version in crd["spec"]["versions"]}


def generator_fields(crd: Mapping[str, Any]) -> list[str]:
    """The facts of a generator's CRD."""
    return list(fields(versions(crd)["v1alpha1"]["schema"]["openAPIV3Schema"]))


def expected(name: str) -> list[str]:
    """The facts of this schema."""
    return (SCHEMAS / f"{name}.txt").read_text().splitlines()


def test_a_generator_has_the_known_fields() -> None:
    """All of them, with the same defaults; without our rules none is stricter, and only the status has more."""
    assert generator_fields(without_conditions(read(OPENAI))) == expected("openai")
    added = set(generator_fields(without_rules(read(OPENAI)))) - set(expected("openai"))
    assert {field.partition(" ")[0].partition("[")[0].split(".")[1] for field in added} == {
        "conditions",
        "observedGeneration",
    }


def test_a_generators_fields_say_nothing_else_but_rules() -> None:
    """All that is known of a field is there; what is added is what `without_rules` takes away."""

    def facts(lines: list[str]) -> dict[str, dict[str, Any]]:
        split = (line.partition(" {") for line in lines)
        return {field: json.loads(begin + rest) if begin else {} for field, begin, rest in split}

    known, ours = facts(expected("openai")), facts(generator_fields(read(OPENAI)))
    ours = {field: words for field, words in ours.items() if not field.startswith("status")}
    known = {field: words for field, words in known.items() if not field.startswith("status")}
    assert ours.keys() == known.keys()
    added: set[str] = set()
    for field, facts_known in known.items():
        assert {word: ours[field].get(word) for word in facts_known} == facts_known
        added |= ours[field].keys() - facts_known.keys()
    assert added == ADDED


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_an_external_secret_has_the_known_fields(version: str) -> None:
    """In both versions, and any kind of generator may be named."""
    found = list(fields(versions(read(EXTERNAL_SECRET))[version]["schema"]["openAPIV3Schema"]))
    known = [line.replace('"Deleted", "Stalled"', '"Deleted"') for line in found if not line.startswith(DIFFERENT)]
    assert known == expected("externalsecret")
    assert sum("Stalled" in line for line in found) == sum(line.startswith(CONDITION) for line in found) == 1
    assert [line for line in found if line.startswith(DIFFERENT)] == [f"{path} string required" for path in DIFFERENT]


@pytest.mark.parametrize(
    ("path", "storage", "names"),
    [
        (OPENAI, {"v1alpha1": True}, {"kind": "OpenAI", "plural": "openais"}),
        (EXTERNAL_SECRET, {"v1": True, "v1beta1": False}, {"kind": "ExternalSecret", "plural": "externalsecrets"}),
    ],
    ids=["openai", "externalsecret"],
)
def test_names_and_versions_are_the_known_ones(path: Path, storage: dict[str, bool], names: dict[str, str]) -> None:
    """Every version is served and has the status subresource; the same one is stored."""
    spec = read(path)["spec"]
    assert names.items() <= spec["names"].items()
    assert spec["scope"] == "Namespaced"
    assert {version["name"]: version["storage"] for version in spec["versions"]} == storage
    assert all(version["served"] and version["subresources"] == {"status": {}} for version in spec["versions"])


def test_external_secrets_have_the_known_columns_and_selectors() -> None:
    """What `kubectl get` shows, and what it can select by."""
    version = versions(read(EXTERNAL_SECRET))["v1"]
    assert [column["name"] for column in version["additionalPrinterColumns"]] == [
        "StoreType", "Store", "Refresh Interval", "Status", "Ready", "Last Sync",
    ]  # fmt: skip
    assert [field["jsonPath"] for field in version["selectableFields"]] == [
        ".spec.secretStoreRef.name", ".spec.secretStoreRef.kind", ".spec.target.name", ".spec.refreshInterval",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def namespace(real_api_server: Endpoint) -> Iterator[str]:
    """A namespace on the real API server, with all CRDs installed and the objects of `DOCUMENTED` in it."""
    install_crds(real_api_server)
    kubectl(real_api_server, "create", "namespace", "manifests")
    kubectl(real_api_server, "-n", "manifests", "apply", "-f", "-", given=DOCUMENTED)
    yield "manifests"
    kubectl(real_api_server, "delete", "namespace", "manifests", "--wait=false")
    install_crds(real_api_server, rules=False)  # as the other tests expect it


def spec_of(endpoint: Endpoint, namespace: str, resource: str) -> dict[str, Any]:
    """The spec of an object, as the API server stores it."""
    spec: dict[str, Any] = json.loads(kubectl(endpoint, "-n", namespace, "get", resource, "-o", "json"))["spec"]
    return spec


def test_the_api_server_fills_in_a_generators_defaults(real_api_server: Endpoint, namespace: str) -> None:
    """A generator may name its project and its admin key, and nothing else."""
    spec = spec_of(real_api_server, namespace, "openais/openai-generator")
    assert spec["host"] == "https://api.openai.com/v1"
    assert spec["serviceAccountNameSize"] == 12
    assert spec["cleanupPolicy"] == {"type": "retainLatest", "gracePeriod": "2m", "idleTimeout": "24h"}


@pytest.mark.parametrize(("name", "interval"), [("openai-credentials", "1h0m0s"), ("older", "24h")])
def test_either_version_is_served_as_the_other(
    real_api_server: Endpoint, namespace: str, name: str, interval: str
) -> None:
    """Whichever an ExternalSecret was written in, it has the same content in both, and the same defaults."""
    specs = [
        spec_of(real_api_server, namespace, f"externalsecrets.{version}.external-secrets.io/{name}")
        for version in ("v1", "v1beta1")
    ]
    assert specs[0] == specs[1]
    assert specs[0]["refreshInterval"] == interval
    assert specs[0]["target"]["creationPolicy"] == "Owner"
    assert specs[0]["dataFrom"][0]["sourceRef"]["generatorRef"] == {
        "apiVersion": "generators.external-secrets.io/v1alpha1",
        "kind": "OpenAI",
        "name": "openai-generator",
    }


def test_status_is_a_resource_of_its_own(real_api_server: Endpoint, namespace: str) -> None:
    """A condition written to it is shown as the reader of an ExternalSecret expects it."""
    path = f"/apis/external-secrets.io/v1/namespaces/{namespace}/externalsecrets/openai-credentials/status"
    condition = {"type": "Ready", "status": "True", "reason": "SecretSynced"}
    patch = {"status": {"conditions": [condition], "refreshTime": "2026-11-24T10:00:00Z"}}
    assert call(real_api_server, "PATCH", path, patch, content_type="application/merge-patch+json")[0] == 200
    shown = kubectl(real_api_server, "-n", namespace, "get", "externalsecrets", "openai-credentials")
    assert shown.splitlines()[1].split()[-4:-1] == ["1h0m0s", "SecretSynced", "True"]
