"""What makes an object acceptable: its metadata, and the rules of the built-in kinds.

Guarantee: an object that passes here has only the fields that the real API server would keep, with the types that it
would demand. Pods, deployments and other stored-only kinds are taken as given below `spec` and `status`.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from sandbox.kubernetes_errors import Cause, bad_request, field_forbidden, invalid, required, wrong
from sandbox.kubernetes_resources import CONFIG_MAPS, EVENTS, NAMESPACES, SECRETS, Object, Resource

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
)
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_MAPS = ("labels", "annotations")
_LISTS = ("ownerReferences", "finalizers")
_SYSTEM = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_ANNOTATIONS_LIMIT = 256 * 1024
_DATA_LIMIT = 1024 * 1024
_SECRET_NEEDS = {
    "kubernetes.io/tls": (("tls.crt",), ("tls.key",)),
    "kubernetes.io/dockerconfigjson": ((".dockerconfigjson",),),
    "kubernetes.io/dockercfg": ((".dockercfg",),),
    "kubernetes.io/basic-auth": (("username", "password"),),
    "kubernetes.io/ssh-auth": (("ssh-privatekey",),),
}


def read(resource: Resource, body: Any) -> Object:
    """An object of the resource from a request's JSON, with normal metadata; 400 if the JSON is no such object."""
    if body is None and not resource.custom:
        body = {}
    if not isinstance(body, dict):
        raise bad_request("the body of the request is not an object")
    version, kind = body.get("apiVersion"), body.get("kind")
    if resource.custom and not kind:
        raise bad_request("Object 'Kind' is missing in the body of the request")
    if version not in (None, "", resource.api_version):
        text = (
            f"the API version in the data ({version}) does not match the expected API version ({resource.api_version})"
        )
        raise bad_request(text)
    if kind not in (None, "", resource.kind):
        raise bad_request(f"{kind} in version {version} cannot be handled as a {resource.kind}")
    kept = resource.fields or [name for name in body if name not in ("apiVersion", "kind", "metadata")]
    item: Object = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": _metadata(body.get("metadata")),
    }
    item |= {name: body[name] for name in kept if name in body and (resource.custom or body[name] is not None)}
    if resource.key == SECRETS.key:
        _read_secret(item, body)
    elif resource.key == CONFIG_MAPS.key:
        _read_strings(item, "data")
        _read_bytes(item, "binaryData")
    return item


def check(resource: Resource, item: Object, old: Object | None = None) -> list[Cause]:
    """What is wrong with the object's metadata and, for a built-in kind, with its fields."""
    causes = _check_metadata(resource, item["metadata"])
    if resource.key == SECRETS.key:
        causes += _check_data(item, ("data",)) + _check_secret(item)
    elif resource.key == CONFIG_MAPS.key:
        causes += _check_data(item, ("data", "binaryData"))
    elif resource.key == EVENTS.key:
        causes += _check_event(item)
    if old is not None:
        causes += _check_immutable(resource, item, old)
    return causes


def check_name(resource: Resource, name: str) -> list[Cause]:
    """What is wrong with an object's name."""
    if resource.key == NAMESPACES.key:
        if len(name) > 63 or not _LABEL.fullmatch(name):
            return [
                wrong(
                    "metadata.name",
                    name,
                    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'",
                )
            ]
    elif len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        text = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
        return [wrong("metadata.name", name, text)]
    return []


def _metadata(given: Any) -> Object:
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise bad_request("metadata is not an object")
    metadata: Object = {}
    for name in ("name", "generateName", "namespace", "uid", "resourceVersion"):
        value = given.get(name) or ""
        if not isinstance(value, str):
            raise bad_request(f"metadata.{name} is not a string")
        if value:
            metadata[name] = value
    for name in _MAPS:
        if given.get(name):
            metadata[name] = _strings(given[name], f"metadata.{name}")
    for name in _LISTS:
        if given.get(name):
            if not isinstance(given[name], list):
                raise bad_request(f"metadata.{name} is not a list")
            metadata[name] = given[name]
    return metadata


def keep_system_fields(item: Object, old: Object | None) -> None:
    """Take the fields that only the server sets from the object as it was."""
    metadata = item["metadata"]
    for name in _SYSTEM:
        metadata.pop(name, None)
        if old is not None and name in old["metadata"]:
            metadata[name] = old["metadata"][name]


def _strings(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise bad_request(f"{where} is not a map")
    for item in value.values():
        if item is not None and not isinstance(item, str):
            raise bad_request(
                f"json: cannot unmarshal {type(item).__name__} into Go struct field {where} of type string"
            )
    return {name: item or "" for name, item in value.items()}


def _read_strings(item: Object, field: str) -> None:
    values = _strings(item.pop(field, None) or {}, field)
    if values:
        item[field] = values


def _read_bytes(item: Object, field: str) -> None:
    _read_strings(item, field)
    for text in item.get(field, {}).values():
        try:
            base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
        except (binascii.Error, ValueError):
            raise bad_request("illegal base64 data at input byte 0") from None


def _read_secret(item: Object, body: Object) -> None:
    _read_bytes(item, "data")
    plain = _strings(body.get("stringData") or {}, "stringData")
    if plain:
        encoded = {name: base64.b64encode(text.encode()).decode() for name, text in plain.items()}
        item["data"] = {**item.get("data", {}), **encoded}
    item["type"] = item.get("type") or "Opaque"


def _check_metadata(resource: Resource, metadata: Object) -> list[Cause]:
    causes = check_name(resource, metadata["name"])
    for key, value in metadata.get("labels", {}).items():
        causes += _check_key(key, "metadata.labels")
        if len(value) > 63 or not _LABEL_VALUE.fullmatch(value):
            text = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"
            causes.append(wrong("metadata.labels", value, text))
    annotations = metadata.get("annotations", {})
    for key in annotations:
        causes += _check_key(key.lower(), "metadata.annotations")
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_LIMIT:
        text = f"Too long: may not be more than {_ANNOTATIONS_LIMIT} bytes"
        causes.append(Cause("metadata.annotations", "FieldValueTooLong", text))
    for index, owner in enumerate(metadata.get("ownerReferences", [])):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not isinstance(owner, dict) or not owner.get(name):
                causes.append(wrong(f"metadata.ownerReferences[{index}].{name}", "", "must not be empty"))
    return causes


def _check_key(key: str, where: str) -> list[Cause]:
    name = key.rpartition("/")[2]
    if len(name) > 63 or len(key) - len(name) > 254 or not _QUALIFIED.fullmatch(key):
        return [wrong(where, key, "name part must consist of alphanumeric characters, '-', '_' or '.'")]
    return []


def _check_data(item: Object, fields: tuple[str, ...]) -> list[Cause]:
    causes = []
    for field in fields:
        for key in item.get(field, {}):
            if len(key) > 253 or key in (".", "..") or not _DATA_KEY.fullmatch(key):
                text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
                causes.append(wrong(f"{field}[{key}]", key, text))
    size = sum(len(value) for value in item.get("data", {}).values())
    size = size * 3 // 4 if item["kind"] == "Secret" else size
    if size > _DATA_LIMIT:
        causes.append(Cause("data", "FieldValueTooLong", f"Too long: may not be more than {_DATA_LIMIT} bytes"))
    return causes


def _check_secret(item: Object) -> list[Cause]:
    data = item.get("data", {})
    if item["type"] == "kubernetes.io/service-account-token":
        if not item["metadata"].get("annotations", {}).get("kubernetes.io/service-account.name"):
            return [required("metadata.annotations[kubernetes.io/service-account.name]")]
        return []
    wanted = _SECRET_NEEDS.get(item["type"], ())
    return [required(f"data[{names[0]}]") for names in wanted if not any(name in data for name in names)]


def _check_event(item: Object) -> list[Cause]:
    about = item.get("involvedObject")
    namespace = about.get("namespace", "") if isinstance(about, dict) else ""
    if (namespace or "default") != item["metadata"]["namespace"]:
        return [wrong("involvedObject.namespace", namespace, "does not match event.namespace")]
    return []


def _check_immutable(resource: Resource, item: Object, old: Object) -> list[Cause]:
    causes = []
    if resource.key == SECRETS.key and item["type"] != old["type"]:
        causes.append(wrong("type", item["type"], "field is immutable"))
    if resource.key in (SECRETS.key, CONFIG_MAPS.key) and old.get("immutable"):
        changed = [name for name in ("immutable", "data", "binaryData") if item.get(name) != old.get(name)]
        causes += [field_forbidden(name, "field is immutable when `immutable` is set") for name in changed]
    return causes


def refuse(resource: Resource, item: Object, causes: list[Cause]) -> None:
    """422 if anything is wrong."""
    if causes:
        raise invalid(resource, item["metadata"]["name"], causes)
