"""Custom resources as tables, with the columns of their CRD, as `kubectl get` asks for them.

Guarantee: the server refuses a column with an unknown form of path when a client creates its CRD.
Built-in kinds have no tables here; kubectl then prints their names and ages.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from sandbox.kubernetes.errors import not_served
from sandbox.kubernetes.resources import Object, Resource

_STEP = re.compile(r"\.([A-Za-z0-9_-]+)|\[\?\(@\.([A-Za-z0-9_-]+)==\"([^\"]*)\"\)\]")
_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def check_columns(columns: list[Object]) -> None:
    """Refuse columns whose paths are more than names and `[?(@.name=="value")]`."""
    for column in columns:
        if not re.fullmatch(f"({_STEP.pattern})+", column["jsonPath"]):
            raise not_served(f"the column path {column['jsonPath']}")


def table(resource: Resource, result: Object, now: datetime) -> Object:
    """The object or list as a table; each row carries its object's metadata."""
    listed = "items" in result
    columns = resource.columns or (_AGE,)
    definitions = [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}]
    definitions += [
        {
            "name": column["name"],
            "type": column["type"],
            "format": column.get("format", ""),
            "description": column.get("description", ""),
            "priority": column.get("priority", 0),
        }
        for column in columns
    ]
    rows = [_row(item, columns, now) for item in (result["items"] if listed else [result])]
    metadata = result["metadata"] if listed else {"resourceVersion": result["metadata"].get("resourceVersion", "")}
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    return head | {"columnDefinitions": definitions, "rows": rows}


def human_duration(seconds: float) -> str:
    """A length of time as kubectl prints ages: two units where the first is small."""
    if seconds < 0:
        return "<invalid>"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if seconds < 120:
        return f"{int(seconds)}s"
    for below, first, unit, rest, smaller in (
        (10, minutes, "m", int(seconds) % 60, "s"),
        (180, minutes, "m", 0, ""),
        (480, hours, "h", minutes % 60, "m"),
        (2880, hours, "h", 0, ""),
        (11520, days, "d", hours % 24, "h"),
        (1051200, days, "d", 0, ""),
        (4204800, days // 365, "y", days % 365, "d"),
    ):
        if minutes < below:
            return f"{first}{unit}{rest}{smaller}" if rest else f"{first}{unit}"
    return f"{days // 365}y"


def _row(item: Object, columns: tuple[Object, ...], now: datetime) -> Object:
    cells = [item["metadata"]["name"]] + [_cell(item, column, now) for column in columns]
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}
    return {"cells": cells, "object": partial}


def _cell(item: Object, column: Object, now: datetime) -> Any:
    value = _at(item, column["jsonPath"])
    if column["type"] != "date" or value is None:
        return value
    try:
        moment = datetime.fromisoformat(value.upper())
    except (AttributeError, ValueError):
        return "<invalid>"
    return human_duration((now - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds())


def _at(value: Any, path: str) -> Any:
    for name, key, wanted in _STEP.findall(path):
        if name:
            value = value.get(name) if isinstance(value, dict) else None
        else:
            items = value if isinstance(value, list) else []
            value = next((item for item in items if item.get(key) == wanted), None)
    return value
