"""Short ways to set up and change an embedded cluster from tests, the demo and the simulation.

Guarantee: each change goes through `handle`, so no test sets up a state that a real API server would refuse.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from sandbox.kubernetes.server import Kubernetes
from sandbox.transport.wire import Request, Response

CRDS = Path(__file__).parents[2] / "manifests" / "crds"
MERGE_PATCH = "application/merge-patch+json"
GENERATORS = "openais.generators.external-secrets.io"
ADDED = {"x-kubernetes-validations", "maxLength", "pattern", "not", "minimum", "maximum"}
"""The keywords that our CRD of the generator has beyond the known one."""
KNOWN_AS_IT_IS = "openAiAdminKey"
"""The field below which the known one has such keywords, too."""

Objects = str | Path | Mapping[str, Any] | Iterable[Mapping[str, Any]]


class Refused(Exception):
    """A request not answered with 2xx; it names the status and the path, not the message, which may quote keys."""

    def __init__(self, method: str, path: str, response: Response) -> None:
        super().__init__(f"{method} {path}: {response.status}")
        self.response = response


def send(kubernetes: Kubernetes, method: str, target: str, *, body: object = None) -> Any:
    """Make a request and return the answer's JSON; `Refused` if it is not 2xx. PATCH means a merge patch."""
    headers = {"Authorization": f"Bearer {kubernetes.token}"} if kubernetes.token else {}
    if method == "PATCH":
        headers["Content-Type"] = MERGE_PATCH
    response = kubernetes.handle(Request.of(method, target, json=body, headers=headers))
    if not 200 <= response.status < 300:
        raise Refused(method, target, response)
    return response.json()


def create_namespace(kubernetes: Kubernetes, name: str) -> None:
    """Create the namespace."""
    send(kubernetes, "POST", "/api/v1/namespaces", body={"metadata": {"name": name}})


def set_node(kubernetes: Kubernetes, name: str, *, ready: bool, since: datetime) -> None:
    """Create the node, or change it, as its kubelet and the node controller do."""
    if kubernetes.find("nodes", "", name) is None:
        send(kubernetes, "POST", "/api/v1/nodes", body={"metadata": {"name": name}})
    condition = {"type": "Ready", "status": "True" if ready else "Unknown"}
    condition["lastTransitionTime"] = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"conditions": [condition], "nodeInfo": {"kubeletVersion": "v1.37.2"}}
    send(kubernetes, "PATCH", f"/api/v1/nodes/{name}/status", body={"status": status})


def apply(kubernetes: Kubernetes, what: Objects) -> list[dict[str, Any]]:
    """Create each object of YAML text, of a YAML file or given as a dict, or merge it into the one that exists."""
    return [_apply_one(kubernetes, dict(item)) for item in _read(what)]


def install_crds(kubernetes: Kubernetes, directory: Path = CRDS) -> list[str]:
    """Install every CustomResourceDefinition below the directory, as `known_crds` has it; the answer is their names."""
    return [item["metadata"]["name"] for item in apply(kubernetes, known_crds(directory))]


@functools.cache
def known_crds(directory: Path = CRDS) -> tuple[Mapping[str, Any], ...]:
    """The CRDs as users may have them installed: that of the generator lacks our rules, so the worker has to block.

    Parsed once: a simulation sets up thousands of clusters.
    """
    items = (item for path in sorted(directory.rglob("*.yaml")) for item in _read(path))
    return tuple(without_rules(item) for item in items if item.get("kind") == "CustomResourceDefinition")


def without_rules(crd: Mapping[str, Any]) -> Mapping[str, Any]:
    """The known, laxer CRD behind ours, but with our conditions; every CRD but the generator's stays as it is."""
    if crd["metadata"]["name"] != GENERATORS:
        return crd
    lax = copy.deepcopy(dict(crd))
    for version in lax["spec"]["versions"]:
        schema = version["schema"]["openAPIV3Schema"]
        _loosen(schema)
        # The status that an object has before a run: the API server fills it in when it reads.
        schema["properties"]["status"].pop("default", None)
    return lax


def without_conditions(crd: Mapping[str, Any]) -> Mapping[str, Any]:
    """The generator's CRD as the enterprise operator has it: its status drops conditions."""
    known = copy.deepcopy(dict(without_rules(crd)))
    for version in known["spec"]["versions"]:
        status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
        status["properties"] = {"output": status["properties"]["output"]}
        status.pop("description", None)
    return known


def _loosen(schema: dict[str, Any], name: str = "") -> None:
    for word in ADDED & schema.keys():
        del schema[word]
    for inner, field in schema.get("properties", {}).items() if name != KNOWN_AS_IT_IS else ():
        _loosen(field, inner)


def _apply_one(kubernetes: Kubernetes, item: dict[str, Any]) -> dict[str, Any]:
    path = kubernetes.path_of(item)
    try:
        created: dict[str, Any] = send(kubernetes, "POST", path.rpartition("/")[0], body=item)
        return created
    except Refused as error:
        if error.response.status != 409:
            raise
    patched: dict[str, Any] = send(kubernetes, "PATCH", path, body=item)
    return patched


def _read(what: Objects) -> Iterator[Mapping[str, Any]]:
    if isinstance(what, Path):
        what = what.read_text()
    if isinstance(what, str):
        what = [item for item in yaml.safe_load_all(what) if item]
    for item in [what] if isinstance(what, Mapping) else what:
        if item["kind"] == "List":
            yield from item["items"]
        else:
            yield item
