"""Reading JSON that somebody else may have edited: what is not as we write it raises `Malformed`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from worker.model.times import format_time, parse_time
from worker.model.values import JSON, Version


class Malformed(ValueError):
    """A stored value is not what we write there."""


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
        return parse_time(obj[field])
    except ValueError as error:
        raise Malformed(f"{field}: {error}") from None
