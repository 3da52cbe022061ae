"""The API server's discovery documents: versions, groups and resources, as `kubectl` asks for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sandbox.kubernetes.errors import method_not_allowed, page_not_found
from sandbox.kubernetes.resources import Resource
from sandbox.transport.wire import Request

_VERBS = ["create", "delete", "get", "list", "patch", "update"]
_VERSION = {"major": "1", "minor": "37", "gitVersion": "v1.37.2", "platform": "linux/amd64"}


def discover(request: Request, resources: Iterable[Resource]) -> dict[str, Any]:
    """The document at a path that is not about objects."""
    if request.method != "GET":
        raise method_not_allowed()
    served = list(resources)
    match request.segments:
        case ("version",):
            return dict(_VERSION)
        case ("api",):
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ("api", version):
            return _resource_list("", version, served)
        case ("apis",):
            groups = sorted({resource.group for resource in served if resource.group})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(group, served) for group in groups]}
        case ("apis", group):
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, served)}
        case ("apis", group, version):
            return _resource_list(group, version, served)
        case ("openapi", "v3"):
            paths = {
                resource.root.strip("/"): {"serverRelativeURL": f"/openapi/v3{resource.root}"} for resource in served
            }
            return {"paths": paths}
        case ("openapi", "v3", *root):
            return _openapi([resource for resource in served if resource.root == "/" + "/".join(root)])
    raise page_not_found()


def _openapi(matching: list[Resource]) -> dict[str, Any]:
    """No schemas: the document only tells that the server looks for unknown fields, so `kubectl apply` need not."""
    if not matching:
        raise page_not_found()
    paths = {}
    for resource in matching:
        kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        patch = {"parameters": [{"name": "fieldValidation", "in": "query"}], "x-kubernetes-group-version-kind": kind}
        paths[resource.path("{namespace}", "{name}")] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "sandbox", "version": "v1"}, "paths": paths}


def _group(group: str, served: list[Resource]) -> dict[str, Any]:
    names = sorted({resource.version for resource in served if resource.group == group}, key=_age)
    if not names:
        raise page_not_found()
    versions = [{"groupVersion": f"{group}/{name}", "version": name} for name in names]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _age(version: str) -> tuple[bool, str]:
    return ("alpha" in version or "beta" in version, version)  # stable versions come first


def _resource_list(group: str, version: str, served: list[Resource]) -> dict[str, Any]:
    matching = [resource for resource in served if (resource.group, resource.version) == (group, version)]
    if not matching:
        raise page_not_found()
    listed = []
    for resource in matching:
        entry: dict[str, Any] = {"name": resource.plural, "singularName": resource.kind.lower(), "kind": resource.kind}
        entry |= {"namespaced": resource.namespaced, "verbs": _VERBS}
        names = {"shortNames": list(resource.short_names), "categories": list(resource.categories)}
        listed.append(entry | {name: value for name, value in names.items() if value})
        if resource.has_status:
            status: dict[str, Any] = {
                "name": f"{resource.plural}/status",
                "singularName": "",
                "verbs": ["get", "patch", "update"],
            }
            listed.append(status | {"namespaced": resource.namespaced, "kind": resource.kind})
    head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": matching[0].api_version}
    return head | {"resources": listed}
