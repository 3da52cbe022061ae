"""CustomResourceDefinitions: their validation, and the resources that they define.

Guarantee: the sandbox refuses a CRD that needs an unsupported feature (501), so that it serves no CRD in part.
"""

from __future__ import annotations

from sandbox.kubernetes import schema as schemas
from sandbox.kubernetes.errors import Cause, bad_request, not_served, wrong
from sandbox.kubernetes.resources import Object, Resource
from sandbox.kubernetes.tables import check_columns


def check(crd: Object) -> list[Cause]:
    """The faults of a CRD."""
    _check_shape(crd)
    spec = crd["spec"]
    if crd["metadata"]["name"] != f"{spec['names']['plural']}.{spec['group']}":
        return [wrong("metadata.name", crd["metadata"]["name"], 'must be spec.names.plural+"."+spec.group')]
    if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
        text = "must have exactly one version marked as storage version"
        return [wrong("spec.versions", len(spec["versions"]), text)]
    if spec.get("conversion", {}).get("strategy", "None") != "None":
        raise not_served("conversion webhooks")
    for version in spec["versions"]:
        if (version.get("subresources") or {}).keys() - {"status"}:
            raise not_served("subresources other than status")
        schemas.check(version["schema"]["openAPIV3Schema"])
        check_columns(version.get("additionalPrinterColumns") or [])
    return []


def establish(crd: Object, now: str) -> None:
    """Fill in the fields that the API server and its controllers write into a new CRD."""
    _check_shape(crd)
    spec, names = crd["spec"], crd["spec"]["names"]
    names.setdefault("listKind", names["kind"] + "List")
    names.setdefault("singular", names["kind"].lower())
    spec.setdefault("conversion", {"strategy": "None"})
    accepted = {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "lastTransitionTime": now}
    established = {"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "lastTransitionTime": now}
    stored = [version["name"] for version in spec["versions"] if version.get("storage")]
    crd["status"] = {"conditions": [accepted, established], "acceptedNames": names, "storedVersions": stored}


def resources(crd: Object) -> list[Resource]:
    """The resource of each served version of a CRD."""
    spec = crd["spec"]
    names = spec["names"]
    return [
        Resource(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            kind=names["kind"],
            namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames", ())),
            categories=tuple(names.get("categories", ())),
            list_kind=names.get("listKind") or names["kind"] + "List",
            has_status="status" in (version.get("subresources") or {}),
            counts_generations=True,
            selectable=tuple(one["jsonPath"].lstrip(".") for one in version.get("selectableFields", ())),
            schema=version["schema"]["openAPIV3Schema"],
            columns=tuple(version.get("additionalPrinterColumns") or ()),
        )
        for version in spec["versions"]
        if version.get("served")
    ]


def _check_shape(crd: Object) -> None:
    try:
        spec = crd["spec"]
        _ = spec["group"], spec["scope"], spec["names"]["plural"], spec["names"]["kind"]
        for version in spec["versions"]:
            _ = version["name"], version["schema"]["openAPIV3Schema"]
    except (KeyError, TypeError):
        raise bad_request("the CustomResourceDefinition lacks a part of its spec") from None
