"""The checked reading of users' fields, common to generators and ExternalSecrets. Pure.

Guarantees:
- An invalid field raises `Mistake`, which names the field.
- `Mistake` quotes and cuts a tenant's text.
- The kept part of a listed object takes some kB, however large the object is.
- The checks judge the kept part as they would judge the whole: no cut makes an object valid.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from worker.kubernetes.reading import mapping_or_empty
from worker.model.names import is_name
from worker.model.scopes import ScopePolicy, Scopes, parse_scopes
from worker.model.targets import Rejected, Source
from worker.model.times import parse_duration
from worker.model.values import JSON, PREFIX, Packed, Ref
from worker.model.workloads import RestartWish, Workload, WorkloadKind

DEFAULT_INTERVAL = timedelta(hours=1)
DEFAULT_DATA_KEY = "api_key"
SHORTEST_LIFETIME = timedelta(hours=1)
"""A run must come in the last third of a key's life, or the application is left with a dead key."""
LONGEST_LIFETIME = timedelta(seconds=31_536_000)
"""OpenAI's `expires_in_seconds` goes up to one year."""

LONGEST_TEXT = 512
"""Characters. No sensible value is longer (a host may have 500). We cut a longer one, and the cut text is invalid."""
LARGEST_METADATA = 8192
"""Bytes of memory for the labels that a template may give the Secret, and as many for the annotations: some 50."""
_LONGEST_STATUS = 8192
"""Bytes of the status that is kept; that of External Secrets Operator has some hundred."""
_NOTHING: tuple[object, ...] = (None, "", [], {})
_CUT = "…"
"""The end of a cut text. No valid name, id, host, key, duration or choice has it."""
_REQUESTS = frozenset({PREFIX + "rotate", "force-sync"})
_ANNOTATIONS = _REQUESTS | {
    PREFIX + name
    for name in ("suspend", "key-lifetime", "key-scopes", "restart", "secret", "secret-key", "refresh-interval")
}
E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class RawObject:
    """The parts of a listed object that matter here; made page by page so that a large list stays small.

    `spec` is as `kept` leaves it. `annotations` has only the ones that we read, long requests as hashes.
    `generator`: the OpenAI generator that an ExternalSecret names.
    """

    ref: Ref
    uid: str
    generation: int
    metadata_hash: str
    annotations: Mapping[str, str]
    deleting: bool
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    generator: str = ""


class Mistake(ValueError):
    """A field of a user's object is invalid. `reason` is fit for a condition."""

    def __init__(self, field: str, problem: object, reason: str = "InvalidSpec") -> None:
        super().__init__(f"{field} {problem}")
        self.reason = reason


Shape: TypeAlias = "Mapping[str, Shape] | tuple[Shape] | Callable[[object], object]"
"""The read part of a value: these fields of a map, the items of a list, or the result of a function."""


def raw_object(
    obj: JSON, shape: Mapping[str, Shape], *, status: Mapping[str, Any] | None = None, generator: str = ""
) -> RawObject:
    """Keep the parts of a listed generator or ExternalSecret that matter, whatever its shape or size."""
    metadata = obj["metadata"]
    annotations = mapping_or_empty(metadata.get("annotations"))
    return RawObject(
        # The ledger has the same names, and thousands of objects the same namespaces: each is kept once.
        ref=Ref(sys.intern(metadata["namespace"]), sys.intern(metadata["name"])),
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        metadata_hash=_metadata_hash(mapping_or_empty(metadata.get("labels")), annotations),
        annotations={
            key: _request(annotations[key]) if key in _REQUESTS else str(text(annotations[key]))
            for key in sorted(_ANNOTATIONS & annotations.keys())
        },
        deleting="deletionTimestamp" in metadata,
        spec=mapping_or_empty(kept(mapping_or_empty(obj.get("spec")), shape)),
        status=status or {},
        generator=generator,
    )


def status_of_interest(obj: JSON) -> Mapping[str, Any]:
    """The status that announcing compares with, and the conditions of other controllers, which it preserves."""
    status = mapping_or_empty(obj.get("status"))
    conditions = status.get("conditions")
    times = {name: text(status[name]) for name in ("refreshTime", "observedGeneration") if name in status}
    packed = Packed({"conditions": conditions if isinstance(conditions, list) else [], **times})
    # No controller writes that many conditions: such a heap counts as none.
    return packed if packed.length <= _LONGEST_STATUS else Packed({"conditions": [], **times})


def _metadata_hash(labels: Mapping[str, Any], annotations: Mapping[str, Any]) -> str:
    ours = {key: value for key, value in annotations.items() if key.startswith(PREFIX) or key == "force-sync"}
    written = json.dumps([dict(labels), ours], sort_keys=True, default=str)
    return hashlib.sha256(written.encode()).hexdigest()[:16]


def _request(value: str) -> str:
    """A request's value; a long one as its hash."""
    # The value goes into the ledger.
    return value if len(value) <= 64 else "sha256:" + hashlib.sha256(value.encode()).hexdigest()


def kept(value: object, shape: Shape) -> object:
    """The kept part of a user's value: as much as the checks tell apart."""
    if isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            return text(value)
        # `only` names the first other field with a value: that name is enough.
        others = [name for name in value if name not in shape and value[name] not in _NOTHING]
        fields = {name: kept(value[name], inner) for name, inner in shape.items() if name in value}
        return fields | ({str(text(min(others))): True} if others else {})
    if isinstance(shape, tuple):
        # Two items are enough: no list with more than one is honoured.
        return [kept(item, shape[0]) for item in value[:2]] if isinstance(value, list) else text(value)
    return shape(value)


def text(value: object) -> object:
    """A text, cut if it is longer than any valid one; a number; for anything else, whether it is there."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + _CUT
    return value if not value or isinstance(value, int | float) else True


def plain_map(value: object) -> object:
    """A template's labels or annotations, whole because we copy them; True if they are too large for that."""
    if not isinstance(value, Mapping):
        return text(value)
    if sum(sys.getsizeof(key) + sys.getsizeof(entry) for key, entry in value.items()) > LARGEST_METADATA:
        return True
    return {key: entry if isinstance(entry, str) else True for key, entry in value.items()}


def only(obj: Mapping[str, Any], where: str, honoured: Collection[str]) -> None:
    for field in sorted(obj):
        if field not in honoured and obj[field] not in _NOTHING:
            raise Mistake(f"{where}.{field[:80]}", "is not honoured by the rotator", "UnsupportedField")


def choice(kind: type[E], field: str, value: object, *, default: E) -> E:
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


AUTO = "auto"
"""In place of a workload's name: those that read the Secret by their environment."""
MOST_WORKLOADS = 20
SHORTEST_INTERVAL = timedelta(minutes=1)
"""A key takes its time to be made, to spread and to go: smaller intervals count as this."""


def at_least(interval: timedelta) -> timedelta | None:
    """The interval that is kept to; None where the user asks for none."""
    return max(interval, SHORTEST_INTERVAL) if interval else None


def suspended(*objects: RawObject) -> bool:
    """Does any of the objects that make a target suspend it?"""
    field = PREFIX + "suspend"
    values = [raw.annotations[field] for raw in objects if field in raw.annotations]
    if not set(values) <= {"true", "false"}:
        raise Mistake(f"annotation {field}", 'must be "true" or "false"')
    return "true" in values


def requests_of(source: RawObject, generator: RawObject | None = None) -> Mapping[str, str]:
    """The requests for one rotation each."""
    values = {"rotate": source.annotations.get(PREFIX + "rotate"), "forceSync": source.annotations.get("force-sync")}
    if generator is not None:
        values["generatorRotate"] = generator.annotations.get(PREFIX + "rotate")
    return {key: value for key, value in values.items() if value is not None}


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


def key_scopes(policy: ScopePolicy, *objects: RawObject) -> Scopes:
    """The scopes that the first of the objects asks for, else the operator's default."""
    field = PREFIX + "key-scopes"
    for raw in objects:
        if field in raw.annotations:
            try:
                return parse_scopes(raw.annotations[field])
            except ValueError as error:
                raise Mistake(f"annotation {field}", error) from None
    if policy.required and not policy.default:
        problem = "is missing, and whoever installed the worker demands it (--require-key-scopes)"
        raise Mistake(f"annotation {field}", problem, "KeyScopesRequired")
    return policy.default


def restart_wish(*objects: RawObject) -> RestartWish | None:
    """The workloads to restart that the first of the objects names. A mistake is part of the wish: it stops no key."""
    field = PREFIX + "restart"
    for raw in objects:
        if field in raw.annotations:
            try:
                return _restart_wish(raw.ref.namespace, raw.annotations[field])
            except Mistake as mistake:
                return RestartWish(mistake=f"annotation {mistake}")
    return None


def _restart_wish(namespace: str, value: str) -> RestartWish:
    field, forms = PREFIX + "restart", f"{', '.join(f'{kind}/NAME' for kind in WorkloadKind)} or {AUTO}"
    items = [item.strip() for item in value.split(",")]
    if len(items) > MOST_WORKLOADS:
        raise Mistake(field, f"names more than {MOST_WORKLOADS} workloads")
    named = set()
    for item in items:
        kind, _, name = item.partition("/")
        if item != AUTO and (kind not in set(WorkloadKind) or not is_name(name)):
            raise Mistake(field, f"must be a list of {forms}, not {item[:80]!r}")
        if item != AUTO:
            # A name alone, and the namespace of the object that names it: there is no way to another one.
            named.add(Workload(WorkloadKind(kind), Ref(namespace, name)))
    return RestartWish(tuple(sorted(named)), auto=AUTO in items)


def reject(secret: Ref | None, source: Source, mistake: Mistake, *objects: RawObject | None) -> Rejected:
    """`objects`: those that make the target, as far as they exist. Any that may suspend it counts as doing so."""
    values = [raw.annotations.get(PREFIX + "suspend", "false") for raw in objects if raw is not None]
    return Rejected(secret, source, mistake.reason, str(mistake), any(value != "false" for value in values))
