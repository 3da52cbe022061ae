"""What generators and ExternalSecrets have in common: the checked reading of users' fields. Pure.

Guarantee: a field that is not as it must be raises `Mistake`, which names the field; a tenant's text is quoted and cut.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from worker.formats import parse_duration
from worker.model import JSON, PREFIX, Ref, Rejected, Source

DEFAULT_INTERVAL = timedelta(hours=1)
DEFAULT_DATA_KEY = "api_key"
SHORTEST_LIFETIME = timedelta(hours=1)
"""A run must come in the last third of a key's life, or the application is left with a dead key."""
LONGEST_LIFETIME = timedelta(seconds=31_536_000)
"""OpenAI's `expires_in_seconds` goes up to one year."""

DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class RawObject:
    """The parts of a listed object that matter here; made page by page so that a large list stays small."""

    ref: Ref
    uid: str
    generation: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    deleting: bool
    spec: Mapping[str, Any]
    status: Mapping[str, Any]


class Mistake(ValueError):
    """A field of a user's object is not as it must be. `reason` is fit for a condition."""

    def __init__(self, field: str, problem: object, reason: str = "InvalidSpec") -> None:
        super().__init__(f"{field} {problem}")
        self.reason = reason


def raw_object(obj: JSON) -> RawObject:
    """Keep what matters of a listed generator or ExternalSecret, whatever its shape."""
    metadata = obj["metadata"]
    return RawObject(
        ref=Ref(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        labels=mapping(metadata.get("labels")),
        annotations={
            key: value
            for key, value in mapping(metadata.get("annotations")).items()
            if key.startswith(PREFIX) or key == "force-sync"
        },
        deleting="deletionTimestamp" in metadata,
        spec=mapping(obj.get("spec")),
        status=mapping(obj.get("status")),
    )


def only(obj: Mapping[str, Any], where: str, honoured: Collection[str]) -> None:
    for field in sorted(obj):
        if field not in honoured and obj[field] not in (None, "", [], {}):
            raise Mistake(f"{where}.{field[:80]}", "is not honoured by the rotator", "UnsupportedField")


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 253 and _SUBDOMAIN.match(value) is not None


def is_namespace(value: object) -> bool:
    return isinstance(value, str) and _LABEL.match(value) is not None


def choice(kind: type[E], field: str, value: object, default: E) -> E:
    if value is None:
        return default
    try:
        return kind(str(value))
    except ValueError:
        raise Mistake(field, f"must be one of {', '.join(kind)}") from None


def duration(field: str, value: object, default: timedelta, *, zero: bool = False) -> timedelta:
    if value is None:
        return default
    try:
        duration = parse_duration(value)
    except ValueError as error:
        raise Mistake(field, error) from None
    if not duration and not zero:
        raise Mistake(field, "must be longer than nothing")
    return duration


def suspended(*objects: RawObject) -> bool:
    """Suspended by any of the objects that make a target."""
    field = PREFIX + "suspend"
    values = [raw.annotations[field] for raw in objects if field in raw.annotations]
    if not set(values) <= {"true", "false"}:
        raise Mistake(f"annotation {field}", 'must be "true" or "false"')
    return "true" in values


def requests_of(source: RawObject, generator: RawObject | None = None) -> Mapping[str, str]:
    """The requests for one rotation each; a long value is kept as its hash, for it goes into the ledger."""
    values = {"rotate": source.annotations.get(PREFIX + "rotate"), "forceSync": source.annotations.get("force-sync")}
    if generator is not None:
        values["generatorRotate"] = generator.annotations.get(PREFIX + "rotate")
    return {
        key: value if len(value) <= 64 else "sha256:" + hashlib.sha256(value.encode()).hexdigest()
        for key, value in values.items()
        if value is not None
    }


def lifetime(*objects: RawObject) -> timedelta | None:
    """The key lifetime that the first of the objects asks for."""
    field = PREFIX + "key-lifetime"
    for raw in objects:
        if field in raw.annotations:
            lifetime = duration(f"annotation {field}", raw.annotations[field], timedelta(0))
            if not SHORTEST_LIFETIME <= lifetime <= LONGEST_LIFETIME:
                raise Mistake(f"annotation {field}", "must be from 1h to 8760h (a year)")
            return lifetime
    return None


def reject(secret: Ref | None, source: Source, mistake: Mistake) -> Rejected:
    return Rejected(secret, source, mistake.reason, str(mistake))
