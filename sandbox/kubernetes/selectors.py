"""Label and field selectors of lists.

Guarantee: this module refuses an unknown form of selector, and never lets it select everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sandbox.kubernetes.errors import bad_request, not_served
from sandbox.kubernetes.metadata import is_label_key, is_label_value
from sandbox.kubernetes.resources import CONFIG_MAPS, SECRETS, Object, Resource

Selector = Callable[[Object], bool]

_KEY = r"(?P<key>[A-Za-z0-9][-A-Za-z0-9_./]*)"
_EQUALITY = re.compile(_KEY + r"\s*(?P<operator>==|=|!=)\s*(?P<value>[-A-Za-z0-9_.]*)")
_SET = re.compile(_KEY + r"\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_EXISTENCE = re.compile(r"(?P<no>!?)\s*" + _KEY)


def by_labels(text: str) -> Selector:
    """The selector that `labelSelector` means."""
    tests = [_label_test(part.strip()) for part in re.split(r",(?![^()]*\))", text)] if text.strip() else []
    return lambda item: all(test(item["metadata"].get("labels", {})) for test in tests)


def by_fields(text: str, resource: Resource) -> Selector:
    """The selector that `fieldSelector` means; 400 for a field that cannot select, 501 if that is unknown."""
    known = {"metadata.name", "metadata.namespace", *resource.selectable}
    wanted: list[tuple[str, bool, str]] = []
    for part in filter(None, text.split(",")):
        path, operator, value = re.fullmatch(r"([^=!]*)(==|=|!=)?(.*)", part.strip()).groups()  # type: ignore[union-attr]
        if not operator:
            raise bad_request(f"invalid field selector {part!r}")
        if path not in known:
            if resource.custom or resource.key in (SECRETS.key, CONFIG_MAPS.key):
                raise bad_request(f"field label not supported: {path}")
            raise not_served(f"the field selector {path}")
        wanted.append((path, operator != "!=", value))
    return lambda item: all((_at(item, path) == value) is equal for path, equal, value in wanted)


def _label_test(text: str) -> Callable[[dict[str, str]], bool]:
    if found := _SET.fullmatch(text):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        _check(text, key, *values)
        if found["operator"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUALITY.fullmatch(text):
        key, value = found["key"], found["value"]
        _check(text, key, value)
        if found["operator"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTENCE.fullmatch(text):
        key, wanted = found["key"], not found["no"]
        _check(text, key)
        return lambda labels: (key in labels) is wanted
    raise bad_request(f"unable to parse requirement: {text!r}")


def _check(text: str, key: str, *values: str) -> None:
    if not is_label_key(key) or not all(is_label_value(value) for value in values):
        raise bad_request(f"unable to parse requirement: {text!r}")


def _at(item: Object, path: str) -> str:
    value: Any = item
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return "" if value is None else str(value)
