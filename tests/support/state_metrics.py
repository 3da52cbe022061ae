"""kube-state-metrics' CustomResourceState: its configuration, as documented, and what it makes of an object.

Guarantees: a configuration with a field, type or path that the documentation (customresourcestate-metrics.md) does not
have is refused; so is whatever this module does not play, rather than told wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

Paths = dict[str, list[str]]
Series = tuple[str, Mapping[str, str], float]
"""Name, labels, value."""


class _Documented(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Meta(_Documented):
    path: list[str] = []
    labelsFromPath: Paths = {}  # noqa: N815 - here and below: as they are called there


class Gauge(_Meta):
    labelFromKey: str = ""  # noqa: N815
    valueFrom: list[str] = []  # noqa: N815
    nilIsZero: bool = False  # noqa: N815


class StateSet(_Meta):
    labelName: str  # noqa: N815
    list: list[str]
    valueFrom: Sequence[str] = ()  # noqa: N815


class Info(_Meta):
    labelFromKey: str = ""  # noqa: N815


class Each(_Documented):
    """Of the three, the one that `type` names."""

    type: Literal["Gauge", "StateSet", "Info"]
    gauge: Gauge | None = None
    stateSet: StateSet | None = None  # noqa: N815
    info: Info | None = None

    @model_validator(mode="after")
    def _as_typed(self) -> Each:
        given = [kind for kind in (self.gauge, self.stateSet, self.info) if kind is not None]
        if [type(kind).__name__ for kind in given] != [self.type]:
            raise ValueError(f"of type {self.type}, with {given}")
        return self


class _Labelled(_Documented):
    commonLabels: dict[str, str] = {}  # noqa: N815
    labelsFromPath: Paths = {}  # noqa: N815
    errorLogV: int = 0  # noqa: N815


class Metric(_Labelled):
    name: str
    help: str
    each: Each


class GroupVersionKind(_Documented):
    group: str
    version: str
    kind: str


class Resource(_Labelled):
    groupVersionKind: GroupVersionKind  # noqa: N815
    resourcePlural: str = ""  # noqa: N815
    metricNamePrefix: str = "kube_customresource"  # noqa: N815
    metrics: list[Metric]

    def full_name(self, metric: Metric) -> str:
        return f"{self.metricNamePrefix}_{metric.name}" if self.metricNamePrefix else metric.name


class Spec(_Documented):
    resources: list[Resource]


class Config(_Documented):
    kind: Literal["CustomResourceStateMetrics"]
    spec: Spec


def series(resource: Resource, obj: Mapping[str, Any]) -> Iterator[Series]:
    """What is told of one object, but for the labels of its group, version and kind."""
    for metric in resource.metrics:
        labels = resource.commonLabels | metric.commonLabels
        labels |= _labels(obj, resource.labelsFromPath | metric.labelsFromPath)
        each = metric.each.gauge or metric.each.info
        assert each is not None, "state sets are not played"
        assert not each.labelFromKey, "labelFromKey is not played"
        found = look_up(obj, each.path)
        if isinstance(each, Gauge):
            assert not isinstance(found, list | dict), f"{each.path} is not one value"
            assert not each.valueFrom, "valueFrom is not played"
            if found is not None or each.nilIsZero:
                yield resource.full_name(metric), labels, _number(found if found is not None else 0)
        elif found is not None:
            # Of an object, each field that has one of these paths in it would be a series too.
            for part in [found, *found.values()] if isinstance(found, dict) else [found]:
                if own := _labels(part, each.labelsFromPath):
                    yield resource.full_name(metric), labels | own, 1.0


def paths(resource: Resource) -> Iterator[list[str]]:
    """All paths from an object's root."""
    yield from resource.labelsFromPath.values()
    for metric in resource.metrics:
        yield from metric.labelsFromPath.values()
        each = metric.each.gauge or metric.each.stateSet or metric.each.info
        assert each is not None
        yield each.path
        yield from ([*each.path, *path] for path in each.labelsFromPath.values())


def look_up(obj: object, path: Sequence[str]) -> Any:
    """What is there; None where nothing is."""
    for part in path:
        if part.startswith("[") and part.endswith("]"):
            key, _, value = part[1:-1].partition("=")
            items = obj if isinstance(obj, list) else []
            obj = next((item for item in items if isinstance(item, dict) and item.get(key) == value), None)
        else:
            assert "=" not in part
            assert not isinstance(obj, list), "numbered items are not played"
            obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _labels(obj: object, found_at: Paths) -> dict[str, str]:
    assert all(re.fullmatch("[a-z_]+", label) for label in found_at), "starred labels are not played"
    values = {label: look_up(obj, path) for label, path in found_at.items()}
    assert not any(isinstance(value, list | dict) for value in values.values()), "a label is not one value"
    return {label: str(value) for label, value in values.items() if value is not None}


def _number(value: object) -> float:
    """Conditions and RFC 3339 times are converted; a percentage or a quantity is not played."""
    if isinstance(value, str):
        if value.lower() in ("true", "yes", "false", "no", "unknown"):
            return float(value.lower() in ("true", "yes"))
        at = datetime.fromisoformat(value)
        assert at.tzinfo is not None
        return float(int(at.timestamp()))
    assert isinstance(value, int | float)
    return float(value)
