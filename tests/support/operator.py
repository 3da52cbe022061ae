"""What the closed enterprise operator leaves in a cluster: GeneratorStates, and a Secret with its labels."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from tests.support.scene import ROOT
from worker.kubernetes.secret import OPERATOR_LABELS

CRD = Path(__file__).parents[1] / "data" / "generatorstate-crd.yaml"


def generator_state(
    name: str,
    account: object,
    source: dict[str, Any],
    generator: dict[str, Any],
    *,
    deadline: str | None = None,
    state: object = None,
) -> dict[str, Any]:
    """The object that it kept for an account: with a deadline, one that it has replaced."""
    namespace = source["metadata"]["namespace"]
    owner = {
        "apiVersion": source["apiVersion"],
        "kind": "ExternalSecret",
        "name": source["metadata"]["name"],
        "uid": source["metadata"]["uid"],
    }
    spec: dict[str, Any] = {
        "resource": {"apiVersion": generator["apiVersion"], "kind": "OpenAI", "spec": generator["spec"]},
        "state": {"serviceAccountId": account, "apiKeyId": "key_x"} if state is None else state,
    }
    if deadline is not None:
        spec["garbageCollectionDeadline"] = deadline
    return {
        "apiVersion": "generators.external-secrets.io/v1alpha1",
        "kind": "GeneratorState",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"generators.external-secrets.io/owner-key": f"externalsecret-{owner['name']}-0"},
            "finalizers": ["generatorstate.externalsecrets.io/finalizer"],
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def secret(key: str, source: dict[str, Any], *, owned: bool = True) -> dict[str, Any]:
    """The Secret that it wrote."""
    metadata = source["metadata"]
    owner = {
        "apiVersion": source["apiVersion"],
        "kind": "ExternalSecret",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": dict.fromkeys(OPERATOR_LABELS, "true"),
            "ownerReferences": [owner] if owned else [],
        },
        "data": {"api_key": base64.b64encode(key.encode()).decode()},
    }


GUIDE = ROOT / "docs" / "moving-from-the-enterprise-operator.md"


OPERATOR: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "external-secrets", "namespace": "external-secrets"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "eso"}},
        "template": {
            "metadata": {"labels": {"app": "eso"}},
            "spec": {"containers": [{"name": "eso", "image": "operator"}]},
        },
    },
}
