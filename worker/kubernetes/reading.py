"""Reading untrusted JSON. Pure.

Guarantees:
- `mapping`, `text` and `time` read our own values, and raise `Malformed` if somebody has edited them.
- `mapping_or_empty`, `mappings` and `time_or_none` read others' values, whatever they look like, and raise nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from worker.model.times import format_time, parse_time
from worker.model.values import JSON, Version

USER_AGENT = "openai-key-rotator"
"""How the worker calls itself: the API server notes it as the manager of the fields that the worker writes."""
_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""Between these every duration that an option or a policy may have can be added and taken away."""


class Malformed(ValueError):
    """A stored value does not have the form that we write."""


def version_of(obj: Mapping[str, Any]) -> Version:
    metadata = mapping(obj, "metadata")
    return Version(text(metadata, "uid"), text(metadata, "resourceVersion"))


def present(**values: Any) -> JSON:
    """The values that are not None, times in our format."""
    return {
        key: format_time(value) if isinstance(value, datetime) else value
        for key, value in values.items()
        if value is not None
    }


def mapping(obj: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = obj.get(field) or {}
    if not isinstance(value, Mapping):
        raise Malformed(f"{field} is not an object")
    return value


def text(obj: Mapping[str, Any], field: str) -> str:
    value = obj.get(field)
    if not isinstance(value, str) or not value:
        raise Malformed(f"{field} is missing")
    return value


def time(obj: Mapping[str, Any], field: str) -> datetime | None:
    if obj.get(field) is None:
        return None
    try:
        found = parse_time(obj[field])
    except ValueError as error:
        raise Malformed(f"{field}: {error}") from None
    if not _EARLIEST <= found <= _LATEST:
        raise Malformed(f"{field}: is not a time of this age")
    return found


def mapping_or_empty(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The mappings in a list; none if the value is no list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def time_or_none(value: object) -> datetime | None:
    try:
        return parse_time(value)
    except ValueError:
        return None
