"""Rights of our manifests, less one, for a worker on the real API server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.endpoint import kubeconfig_for, service_account_token
from tests.cluster.rig import Rig
from tests.support.scene import ROOT

# --- permissions


def grant(rig: Rig, without: tuple[str, str] | None = None) -> Path:
    """A kubeconfig of a ServiceAccount that may do what our manifests allow, less one verb on one resource."""
    name, namespace = "rotator", rig.ledger
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
    ]
    for obj in yaml.safe_load_all((ROOT / "manifests" / "base" / "rbac.yaml").read_text()):
        item = json.loads(json.dumps(obj))
        item["metadata"]["name"] = f"{item['metadata']['name']}-{rig.ledger}"
        if item["kind"] in ("Role", "RoleBinding"):
            item["metadata"]["namespace"] = namespace
        if "roleRef" in item:
            item["roleRef"]["name"] = f"{item['roleRef']['name']}-{rig.ledger}"
            item["subjects"] = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
        for rule in item.get("rules", ()):
            if without is not None and without[1] in rule["resources"]:
                rule["verbs"] = [verb for verb in rule["verbs"] if verb != without[0]]
        item["rules"] = [rule for rule in item["rules"] if rule["verbs"]] if "rules" in item else None
        objects.append({key: value for key, value in item.items() if value is not None})
    rig.apply(*objects)
    token = service_account_token(rig.endpoint, namespace, name)
    return kubeconfig_for(rig.endpoint, rig.directory / "restricted", token)
