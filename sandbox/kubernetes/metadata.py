"""The metadata that all objects have: its reading and its validation.

Guarantee: metadata that passes has only the fields that the real API server would keep, of the types that it demands.
"""

from __future__ import annotations

import re
from typing import Any

from sandbox.kubernetes.errors import Cause, bad_request, field_forbidden, required, wrong
from sandbox.kubernetes.resources import NAMESPACES, Object, Resource

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_TEXTS = ("name", "generateName", "namespace", "uid", "resourceVersion", "deletionTimestamp")
_MAPS = ("labels", "annotations")
_LISTS = ("ownerReferences", "finalizers")
_SERVER_ONLY = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_KNOWN = {*_TEXTS, *_MAPS, *_LISTS, *_SERVER_ONLY, "managedFields", "selfLink"}
_ANNOTATIONS_LIMIT = 256 * 1024
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def read(given: Any) -> Object:
    """The metadata of a request's object; 400 if it is of wrong types."""
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise bad_request("metadata is not an object")
    metadata: Object = {}
    for name in _TEXTS:
        value = given.get(name)
        if value is not None and not isinstance(value, str):
            raise bad_request(f"metadata.{name} is not a string")
        if value:
            metadata[name] = value
    for name in _MAPS:
        values = strings(given.get(name), f"metadata.{name}")
        if values:
            metadata[name] = values
    for name in _LISTS:
        if not isinstance(given.get(name) or [], list):
            raise bad_request(f"metadata.{name} is not a list")
        if given.get(name):
            metadata[name] = given[name]
    if metadata.get("resourceVersion") == "0":
        del metadata["resourceVersion"]  # "0" means any version, as a missing one does
    return metadata


def unknown(given: Any) -> list[str]:
    """The unknown fields of a request's metadata."""
    return [name for name in given if name not in _KNOWN] if isinstance(given, dict) else []


def strings(value: Any, where: str) -> dict[str, str]:
    """A map of strings; 400 for any other value. A null is an empty string, as everywhere in Go's JSON."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request(f"{where} is not a map")
    for item in value.values():
        if item is not None and not isinstance(item, str):
            raise bad_request(f"cannot unmarshal {item} into Go struct field {where} of type string")
    return {name: item or "" for name, item in value.items()}


def keep_server_fields(item: Object, old: Object | None) -> None:
    """Take the fields that only the server sets from the former object."""
    metadata = item["metadata"]
    for name in _SERVER_ONLY:
        metadata.pop(name, None)
        if old is not None and name in old["metadata"]:
            metadata[name] = old["metadata"][name]


def check(resource: Resource, metadata: Object) -> list[Cause]:
    """The faults of an object's metadata."""
    causes = _check_name(resource, "name", metadata["name"])
    if "generateName" in metadata:
        causes += _check_name(resource, "generateName", metadata["generateName"].rstrip("-."))
    for key, value in metadata.get("labels", {}).items():
        causes += _check_key("metadata.labels", key)
        if not is_label_value(value):
            text = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"
            causes.append(wrong("metadata.labels", value, text))
    annotations = metadata.get("annotations", {})
    for key in annotations:
        causes += _check_key("metadata.annotations", key.lower())
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_LIMIT:
        text = f"Too long: may not be more than {_ANNOTATIONS_LIMIT} bytes"
        causes.append(Cause("metadata.annotations", "FieldValueTooLong", text))
    return causes + _check_owners(metadata.get("ownerReferences", [])) + _check_finalizers(resource, metadata)


def check_change(metadata: Object, old: Object) -> list[Cause]:
    """The forbidden changes; `metadata` is as the request has it."""
    changed = [name for name in ("uid", "deletionTimestamp") if metadata.get(name, old.get(name)) != old.get(name)]
    causes = [wrong(f"metadata.{name}", metadata[name], "field is immutable") for name in changed]
    added = [one for one in metadata.get("finalizers", []) if one not in old.get("finalizers", [])]
    if added and "deletionTimestamp" in old:
        text = "no new finalizers can be added if the object is being deleted"
        causes.append(field_forbidden("metadata.finalizers", text))
    return causes


def is_label_key(key: str) -> bool:
    """May a label, an annotation or a qualified finalizer have this name?"""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        return False
    return len(name) <= 63 and _NAME_PART.fullmatch(name) is not None


def is_label_value(value: str) -> bool:
    """May a label have this value?"""
    return len(value) <= 63 and (not value or _NAME_PART.fullmatch(value) is not None)


def _check_name(resource: Resource, field: str, name: str) -> list[Cause]:
    if resource.key == NAMESPACES.key:
        fits, what = len(name) <= 63 and _LABEL.fullmatch(name), "label"
    else:
        fits, what = len(name) <= 253 and _SUBDOMAIN.fullmatch(name), "subdomain"
    if fits:
        return []
    text = f"a lowercase RFC 1123 {what} must consist of lower case alphanumeric characters or '-'"
    return [wrong(f"metadata.{field}", name, text)]


def _check_key(field: str, key: str) -> list[Cause]:
    if is_label_key(key):
        return []
    return [wrong(field, key, "name part must consist of alphanumeric characters, '-', '_' or '.'")]


def _check_owners(owners: list[Any]) -> list[Cause]:
    causes = [
        required(f"metadata.ownerReferences[{index}].{name}", "must not be empty")
        for index, owner in enumerate(owners)
        for name in ("apiVersion", "kind", "name", "uid")
        if not isinstance(owner, dict) or not owner.get(name)
    ]
    if not causes and sum(owner.get("controller") is True for owner in owners) > 1:
        text = "Only one reference can have Controller set to true"
        causes.append(wrong("metadata.ownerReferences", owners, text))
    return causes


def _check_finalizers(resource: Resource, metadata: Object) -> list[Cause]:
    causes = []
    for index, finalizer in enumerate(metadata.get("finalizers", [])):
        known = resource.custom or "/" in finalizer or finalizer in _STANDARD_FINALIZERS
        if not known or not is_label_key(finalizer):
            text = "name is neither a standard finalizer name nor is it fully qualified"
            causes.append(wrong(f"metadata.finalizers[{index}]", finalizer, text))
    return causes
