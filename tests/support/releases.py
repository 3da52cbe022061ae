"""Releases of the chart, and the kustomizations that have to be the same: every overlay, every component, other names.

Guarantee: a kustomization is built in a folder of the caller's, from manifests/ as it stands.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.chart import CHART, MANIFESTS, NAME, Object, kustomized, templated

NO_COMPONENTS = {"fallbackAdminKey": {"enabled": False}, "admissionPolicy": {"enabled": False}}
DIGEST = "sha256:" + "0123456789abcdef" * 4


@dataclass(frozen=True, slots=True)
class Case:
    """Kustomizations, and the release that has to have the same objects. `MANIFESTS/` is our folder."""

    name: str
    layers: dict[str, dict[str, Any]]
    """The last one is built."""
    values: dict[str, Any] = field(default_factory=dict)
    file: str = ""
    """In the chart's ci/."""
    release: str = NAME
    namespace: str = NAME
    created: bool = True
    """Does the kustomization make the namespace?"""
    left_out: tuple[str, ...] = ()
    """ConfigMaps that only kustomize needs."""


def overlay(name: str) -> Case:
    return Case(name, {"mine": {"resources": [f"MANIFESTS/overlays/{name}"]}}, file=f"{name}-values.yaml")


def component(*names: str, **values: Any) -> Case:
    """Of base with these components alone."""
    places = [f"MANIFESTS/components/{name}" for name in names]
    layers = {"mine": {"resources": ["MANIFESTS/base"], "components": places}}
    return Case("+".join(names), layers, NO_COMPONENTS | values)


OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
FOR_APPLICATIONS = {"reloader"}
DOCS = "https://git.example.com/openai-key-rotator/docs"
CASES = [
    Case("base", {"mine": {"resources": ["MANIFESTS/base"]}}, file="base-values.yaml"),
    *map(overlay, OVERLAYS),
    component("admission-policy", admissionPolicy={"enabled": True}),
    component("audit", audit={"enabled": True}),
    component("ca-bundle", caBundle={"enabled": True}),
    component(
        "central-admin-keys",
        centralAdminKeys={"enabled": True, "configMap": f"{NAME}-admin-keys", "secrets": ["openai-admin"]},
    ),
    component("fallback-admin-key", fallbackAdminKey={"enabled": True}),
    component("rotate-admin-keys", rotateAdminKeys={"enabled": True}),
    component("restart-workloads", restartWorkloads={"enabled": True}),
    component("shards", shards=4),
    component("single-namespace", namespaces=["team-a"]),
    component("without-nodes", rights={"nodes": False}),
    component("without-pods", rights={"pods": False}),
    component(
        "audit",
        "single-namespace",
        "ca-bundle",
        audit={"enabled": True},
        namespaces=["team-a"],
        caBundle={"enabled": True},
    ),
    component(
        "audit",  # first, as its comment asks: the others reach its CronJob as well
        "fallback-admin-key",
        "central-admin-keys",
        "admission-policy",
        "ca-bundle",
        "rotate-admin-keys",
        "restart-workloads",
        "shards",
        "without-nodes",
        "without-pods",
        fallbackAdminKey={"enabled": True},
        centralAdminKeys={"enabled": True, "configMap": f"{NAME}-admin-keys", "secrets": ["openai-admin"]},
        admissionPolicy={"enabled": True},
        audit={"enabled": True},
        caBundle={"enabled": True},
        rotateAdminKeys={"enabled": True},
        restartWorkloads={"enabled": True},
        shards=4,
        rights={"nodes": False, "pods": False},
    ),
    Case(
        "with ExternalSecrets' CRD",
        {"mine": {"resources": ["MANIFESTS/base", "MANIFESTS/crds/external-secret"]}},
        NO_COMPONENTS | {"crds": {"externalSecret": True}},
    ),
    Case(
        "monitoring",
        {
            "ours": {"resources": ["MANIFESTS/base"]},
            "metrics": {
                "namespace": "monitoring",
                "components": ["MANIFESTS/components/monitoring"],
                "configMapGenerator": [
                    {
                        "name": "openai-key-rotator-docs",
                        "literals": [f"url={DOCS}"],
                        "options": {"disableNameSuffixHash": True},
                    }
                ],
            },
            "mine": {"resources": ["../ours", "../metrics"]},
        },
        NO_COMPONENTS | {"monitoring": {"enabled": True, "namespace": "monitoring", "docsUrl": DOCS}},
        left_out=("openai-key-rotator-docs",),
    ),
    Case(
        "another namespace and name, with a digest",
        {
            "mine": {
                "resources": ["MANIFESTS/overlays/production"],
                "namespace": "acme-keys",
                "namePrefix": "acme-",
                "images": [{"name": NAME, "newName": "registry.acme.example/rotator", "digest": DIGEST}],
            }
        },
        {"image": {"repository": "registry.acme.example/rotator", "digest": DIGEST}},
        release=f"acme-{NAME}",
        namespace="acme-keys",
    ),
    Case(
        "a dry run elsewhere",
        {"mine": {"resources": ["MANIFESTS/overlays/staging"], "namespace": "acme-keys", "namePrefix": "eu-"}},
        file="staging-values.yaml",
        release=f"eu-{NAME}",
        namespace="acme-keys",
    ),
]


ALL: dict[str, Any] = {
    "image": {
        "repository": "registry.acme.example/rotator",
        "tag": "7",
        "digest": DIGEST,
        "pullSecrets": [{"name": "registry"}],
    },
    "options": {
        "allow-host": ["https://a.example.com", "https://b.example.com"],
        "concurrency": 7,
        "max-wait": "10m",
        "tenant-failures": "report",
        "default-key-scopes": ["model.request", "api.model.read"],
    },
    "shards": 3,
    "namespaces": ["team-a", "team-b"],
    "centralAdminKeys": {
        "enabled": True,
        "keys": [
            {"secret": "openai-admin", "projects": {"proj_a": ["team-a"]}},
            {"secret": "openai-eu", "host": "https://eu.api.openai.com/v1", "projects": {"proj_b": ["*"]}},
            {"secret": "openai-admin", "key": "other", "projects": {"proj_c": ["team-b"]}},
        ],
    },
    "audit": {"enabled": True},
    "caBundle": {"enabled": True, "configMap": "corporate"},
    "proxy": {"https": "http://proxy.acme.example:3128", "exclude": "10.0.0.0/8,.acme.example"},
    "networkPolicy": {"ports": [16443]},
    "resources": {
        "requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"},
        "limits": {"memory": "1Gi", "cpu": "1", "ephemeral-storage": "1Gi"},
    },
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "batch", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "priorityClassName": "batch",
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"openai-key-rotator.io/worker": "true"}},
        }
    ],
    "podLabels": {"team": "acme", "sidecar.istio.io/inject": "true"},
    "podAnnotations": {"acme.example/why": "keys"},
    "extraEnv": [{"name": "MORE", "value": "yes"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "commonLabels": {"app.kubernetes.io/name": "keys", "owner": "platform"},
    "commonAnnotations": {"acme.example/owner": "platform"},
    "serviceAccount": {"annotations": {"acme.example/role": "none"}},
    "suspend": True,
}
"""Every value that is not about names."""


def built(case: Case, directory: Path) -> list[Object]:
    """What kustomize makes, the CRDs of manifests/ beside it."""
    for name, layer in case.layers.items():
        place = directory / name
        place.mkdir()
        ours = os.path.relpath(MANIFESTS, place.resolve())
        (place / "kustomization.yaml").write_text(json.dumps(layer).replace("MANIFESTS/", f"{ours}/"))
    made = kustomized(place) + kustomized(MANIFESTS / "crds")
    return [obj for obj in made if obj["metadata"]["name"] not in case.left_out]


def released(case: Case, directory: Path) -> list[Object]:
    """What Helm makes of it."""
    file = ("--values", CHART / "ci" / case.file) if case.file else ()
    values = {**case.values, "namespace": {"create": case.created}}
    return templated(directory, *file, values=values, release=case.release, namespace=case.namespace)
