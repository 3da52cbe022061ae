"""One tenant in trouble next to many that are well: a scene of whole runs, and what is measured of one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sandbox.transport.faults import Fate, Faults, Latency, Rule, Rules, answered
from sandbox.transport.wire import Request, Response
from tests.support.scene import HOST, Scene
from worker.model.values import Ref

TROUBLED = "a"
"""Namespace of the tenant in trouble; it comes first in every list."""
PROJECT = f".*/project-{TROUBLED}/service_accounts"
"""Path of its project's accounts."""
OPENAI_SECONDS, CLUSTER_SECONDS = 0.05, 0.005
"""How long a request takes where nothing is wrong."""


class NeverAccepted:
    """Faults: the new keys of the tenant in trouble answer 401 for ever."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def fate(self, request: Request) -> Fate:
        """The fate of this request."""
        key = self._scene.openai.key(request.bearer or "")
        if request.path == "/v1/models" and key is not None and key.project == f"project-{TROUBLED}":
            return answered(Response.of_json(401, {"error": {"code": "invalid_api_key"}}), before=OPENAI_SECONDS)
        return Latency(OPENAI_SECONDS).fate(request)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one run. Times are virtual seconds since its start."""

    rotated: int
    """Targets of the tenants that are well which got a new key,"""
    rotated_by: float
    """and when the last of them did."""
    left_over: int
    """Accounts of the tenants that are well which should have been deleted in this run."""
    seconds: float
    asked: int
    """Requests about the project of the tenant in trouble."""
    results: Counter[str]
    """Of its targets."""


class Tenants:
    """Tenant `a` with a crowd of targets in one project, and others, `b0` on, with a few each in a project each.

    Each has an admin key of its own. All have been rotated twice, an hour apart, and are due again; the accounts from
    before the second rotation are still there, ripe to go.
    """

    def __init__(self, scene: Scene, *, crowd: int = 300, others: int = 20, each: int = 3) -> None:
        self.scene = scene
        self.well = {f"b{i}": each for i in range(others)}
        for namespace, count in {TROUBLED: crowd, **self.well}.items():
            self._add(namespace, count)
        for _ in range(2):
            scene.run(max_wait=timedelta(0))
            scene.advance(hours=1)

    def run(
        self, *openai: Rule, cluster: Sequence[Rule] = (), otherwise: Faults | None = None, **options: Any
    ) -> Measured:
        """One run of the worker, in which the rules hold for OpenAI and for the cluster."""
        scene, began = self.scene, self.scene.seconds
        scene.run(
            openai_faults=Rules(openai, scene.random, otherwise or Latency(OPENAI_SECONDS)),
            cluster_faults=Rules(cluster, scene.random, Latency(CLUSTER_SECONDS)),
            **options,
        )
        assert scene.cluster_session is not None
        assert scene.openai_session is not None
        written = [
            exchange.at
            for exchange in scene.cluster_session.log
            if isinstance(exchange.at, float)
            and exchange.method == "PATCH"
            and re.search(r"/namespaces/b\d+/secrets/", exchange.path)
        ]
        outcomes = [(o.target.namespace, f"{o.result} {o.reason}") for o in scene.watcher.outcomes]
        return Measured(
            rotated=sum(namespace in self.well and what.startswith("rotated") for namespace, what in outcomes),
            rotated_by=max(written, default=began) - began,
            left_over=sum(len(scene.accounts(f"project-{name}")) - count for name, count in self.well.items()),
            seconds=scene.seconds - began,
            asked=sum(f"/project-{TROUBLED}/" in exchange.path for exchange in scene.openai_session.log),
            results=Counter(what for namespace, what in outcomes if namespace == TROUBLED),
        )

    def add_project(self, namespace: str, project: str, count: int) -> list[Ref]:
        """Another generator in a tenant's namespace, with targets of its own."""
        scene = self.scene
        scene.openai.add_project("acme", project)
        reference = {"kind": "OpenAI", "name": project}
        spec = {"projectId": project, "host": HOST, "openAiAdminKey": {"name": "admin", "key": "api-key"}}
        kind = {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI"}
        scene.apply(kind | {"metadata": {"name": project, "namespace": namespace}, "spec": spec})
        refs = [Ref(namespace, f"{project}-{i}") for i in range(count)]
        kind = {"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret"}
        wanted = {"refreshInterval": "1h", "dataFrom": [{"sourceRef": {"generatorRef": reference}}]}
        for ref in refs:
            scene.apply(kind | {"metadata": {"name": ref.name, "namespace": namespace}, "spec": wanted})
        return refs

    def _add(self, namespace: str, count: int) -> None:
        scene = self.scene
        scene.namespace(namespace)
        scene.openai.add_project("acme", f"project-{namespace}")
        admin_key = scene.openai.add_admin_key("acme")
        scene.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "admin", "namespace": namespace},
                "stringData": {"api-key": admin_key},
            },
            {
                "apiVersion": "generators.external-secrets.io/v1alpha1",
                "kind": "OpenAI",
                "metadata": {"name": "openai", "namespace": namespace},
                "spec": {
                    "projectId": f"project-{namespace}",
                    "host": HOST,
                    "openAiAdminKey": {"name": "admin", "key": "api-key"},
                },
            },
        )
        for i in range(count):
            source = {"sourceRef": {"generatorRef": {"kind": "OpenAI", "name": "openai"}}}
            scene.apply(
                {
                    "apiVersion": "external-secrets.io/v1",
                    "kind": "ExternalSecret",
                    "metadata": {"name": f"secret-{i:03}", "namespace": namespace},
                    "spec": {"refreshInterval": "1h", "dataFrom": [source]},
                }
            )


def secret(i: int, namespace: str = TROUBLED) -> Ref:
    """A target."""
    return Ref(namespace, f"secret-{i:03}")
