"""The validation of an object by its kind.

Guarantees:
- A passed object of a built-in kind has only the top-level fields that the real API server would keep.
- This module checks Secrets, ConfigMaps and Events in full.
- It takes pods, deployments and the like as given below `spec` and `status`.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from sandbox.kubernetes import metadata as object_metadata
from sandbox.kubernetes.errors import Cause, bad_request, field_forbidden, invalid, required, wrong
from sandbox.kubernetes.metadata import strings
from sandbox.kubernetes.resources import CONFIG_MAPS, EVENTS, SECRETS, Object, Resource

_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_DATA_LIMIT = 1024 * 1024
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[-+]\d\d:\d\d)")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[-+]\d\d:\d\d)")
_SECRET_NEEDS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def read(resource: Resource, body: Any) -> Object:
    """An object of the resource from a request's JSON; 400 for another kind or form."""
    if body is None and not resource.custom:
        body = {}
    if not isinstance(body, dict):
        raise bad_request("the body of the request is not an object")
    version, kind = body.get("apiVersion"), body.get("kind")
    if resource.custom and not (kind and version):
        raise bad_request("Object 'Kind' or 'apiVersion' is missing in the body of the request")
    if version not in (None, "", resource.api_version):
        text = f"the API version in the data ({version}) does not match the expected one ({resource.api_version})"
        raise bad_request(text)
    metadata = object_metadata.read(body.get("metadata"))
    if kind not in (None, "", resource.kind):
        if resource.custom:
            raise invalid(resource, metadata.get("name", ""), [wrong("kind", kind, f"must be {resource.kind}")])
        raise bad_request(f"{kind} in version {version} cannot be handled as a {resource.kind}")
    kept = resource.fields or [name for name in body if name not in ("apiVersion", "kind", "metadata")]
    item: Object = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
    item |= {name: body[name] for name in kept if name in body and (resource.custom or body[name] is not None)}
    if resource.key == SECRETS.key:
        _read_secret(item, body)
    elif resource.key == CONFIG_MAPS.key:
        _read_config_map(item)
    elif resource.key == EVENTS.key:
        _read_event(item)
    return item


def unknown_fields(resource: Resource, body: Object) -> list[str]:
    """The findings of strict validation in metadata, and at the top of a built-in kind."""
    found = [f"metadata.{name}" for name in object_metadata.unknown(body.get("metadata"))]
    if not resource.custom:
        known = {"apiVersion", "kind", "metadata", "stringData", *resource.fields}
        found += [name for name in body if name not in known]
    return found


def check(resource: Resource, item: Object, old: Object | None) -> list[Cause]:
    """The faults of the object's metadata and, for a built-in kind, of its fields."""
    causes = object_metadata.check(resource, item["metadata"])
    if resource.key == SECRETS.key:
        causes += _check_data(item) + _check_secret(item)
    elif resource.key == CONFIG_MAPS.key:
        causes += _check_data(item)
    elif resource.key == EVENTS.key:
        causes += _check_event(item)
    if old is not None:
        causes += _check_immutable(resource, item, old)
    return causes


def _read_secret(item: Object, body: Object) -> None:
    _read_bytes(item, "data")
    plain = strings(body.get("stringData"), "stringData")
    if plain:
        encoded = {name: base64.b64encode(text.encode()).decode() for name, text in plain.items()}
        item["data"] = {**item.get("data", {}), **encoded}
    if not isinstance(item.setdefault("type", ""), str):
        raise bad_request("type is not a string")
    item["type"] = item["type"] or "Opaque"
    _read_immutable(item)


def _read_config_map(item: Object) -> None:
    _read_strings(item, "data")
    _read_bytes(item, "binaryData")
    _read_immutable(item)


def _read_event(item: Object) -> None:
    for name, pattern in (("firstTimestamp", _TIME), ("lastTimestamp", _TIME), ("eventTime", _MICRO_TIME)):
        value = item.get(name)
        if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
            raise bad_request(f"{name} is not a time")
    if not isinstance(item.setdefault("involvedObject", {}), dict):
        raise bad_request("involvedObject is not an object")


def _read_strings(item: Object, field: str) -> None:
    values = strings(item.pop(field, None), field)
    if values:
        item[field] = values


def _read_bytes(item: Object, field: str) -> None:
    _read_strings(item, field)
    for text in item.get(field, {}).values():
        try:
            base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
        except (binascii.Error, ValueError):
            raise bad_request(f"illegal base64 data in {field}") from None


def _read_immutable(item: Object) -> None:
    if not isinstance(item.get("immutable", False), bool):
        raise bad_request("immutable is not a boolean")


def _check_data(item: Object) -> list[Cause]:
    causes = []
    text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
    for field in ("data", "binaryData"):
        for key in item.get(field, {}):
            if len(key) > 253 or key in (".", "..") or not _DATA_KEY.fullmatch(key):
                causes.append(wrong(f"{field}[{key}]", key, text))
            elif field == "data" and key in item.get("binaryData", {}):
                causes.append(wrong(f"data[{key}]", key, "duplicate of key present in binaryData"))
    size = sum(len(value) for value in item.get("data", {}).values())
    size = size * 3 // 4 if item["kind"] == "Secret" else size
    if size > _DATA_LIMIT:
        causes.append(Cause("data", "FieldValueTooLong", f"Too long: may not be more than {_DATA_LIMIT} bytes"))
    return causes


def _check_secret(item: Object) -> list[Cause]:
    data = item.get("data", {})
    if item["type"] == "kubernetes.io/service-account-token":
        named = item["metadata"].get("annotations", {}).get("kubernetes.io/service-account.name")
        return [] if named else [required("metadata.annotations[kubernetes.io/service-account.name]")]
    if item["type"] == "kubernetes.io/basic-auth" and not data.keys() & {"username", "password"}:
        return [required("data[username]"), required("data[password]")]
    return [required(f"data[{name}]") for name in _SECRET_NEEDS.get(item["type"], ()) if name not in data]


def _check_event(item: Object) -> list[Cause]:
    namespace = item["involvedObject"].get("namespace", "")
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
