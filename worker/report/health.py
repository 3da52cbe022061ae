"""The status of ExternalSecrets and generators, from which `kubectl wait`, Flux and Argo CD tell their health. Pure.

Guarantees:
- What an object says already is not written again.
- Conditions of other controllers stay.
- A condition's time is that of its last change of status. With `refreshPolicy: OnChange` it is never before
  `refreshTime`: Argo CD waits for that.
- `Stalled` is there only while somebody has to act.
Source: kstatus (sigs.k8s.io/cli-utils) for `Ready`, `Stalled` and `observedGeneration`; Argo CD's health script of
ExternalSecrets for `OnChange`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from worker.errors import without_request_id
from worker.model.faults import needs_a_human
from worker.model.outcomes import UNUSED, Outcome, Result
from worker.model.targets import Rejected, Source
from worker.model.times import format_time
from worker.model.values import JSON, Ref

_OURS = ("Ready", "Stalled")


@dataclass(frozen=True, slots=True)
class Health:
    """What the condition `Ready` of a generator says. `stalled`: it stays so until somebody acts."""

    ready: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    stalled: bool = False


IN_USE = Health("True", "InUse", "ExternalSecrets name it, and each tells of its own Secret")
IDLE = Health("True", "FeedsNothing", UNUSED)


def mistaken(rejected: Rejected) -> Health:
    return Health("False", rejected.reason, rejected.message, needs_a_human(rejected.reason))


def target_health(source: Source, outcome: Outcome) -> Health | None:
    """The health of a generator that stands alone; None: this run does not know."""
    if outcome.reason == "InProgress":
        return None
    if outcome.reason == "Suspended":
        before = _by_type(source).get("Ready", {}).get("status")
        return Health(before if before in ("True", "False") else "Unknown", "Suspended", outcome.message)
    if outcome.result in (Result.ROTATED, Result.KEPT):
        # The words are the same after each rotation, so that none costs a write.
        return Health("True", "Rotated", f"Secret {outcome.target.name} has a current key")
    return Health("False", outcome.reason, without_request_id(outcome.message), needs_a_human(outcome.reason))


def generator_patch(source: Source, health: Health, *, now: datetime) -> JSON | None:
    """The merge patch of a generator's status; None where it says so already."""
    generation = {"observedGeneration": source.generation}
    wanted: list[JSON] = [_condition("Ready", health.ready, health.reason, health.message) | generation]
    if health.stalled:
        wanted.append(_condition("Stalled", "True", health.reason, health.message) | generation)
    told = _told(source, wanted) and source.status.get("observedGeneration") == source.generation
    return None if told else {"status": generation | {"conditions": _timed(source, wanted, now)}}


def status_patch(source: Source, secret: Ref | None, outcome: Outcome, *, now: datetime) -> JSON | None:
    """The merge patch of an ExternalSecret's status; None where it says so already, or there is nothing to say."""
    if source.kind != "ExternalSecret" or outcome.reason in ("InProgress", "Suspended"):
        return None
    synced = outcome.result in (Result.ROTATED, Result.KEPT)
    if synced:
        wanted = [_condition("Ready", "True", "SecretSynced", "secret synced")]
    else:
        message = without_request_id(outcome.message)
        wanted = [_condition("Ready", "False", "SecretSyncedError", message)]
        if needs_a_human(outcome.reason):
            wanted.append(_condition("Stalled", "True", outcome.reason, message))
    rotated = outcome.result is Result.ROTATED
    refreshed = source.status.get("refreshTime")
    behind = source.on_change and synced and _since(source) < str(refreshed or "")
    if _told(source, wanted) and not rotated and not behind:
        return None
    conditions = _timed(source, wanted, now)
    status: JSON = {"conditions": conditions}
    if rotated or (synced and not refreshed):
        refreshed = status["refreshTime"] = format_time(now)
    if source.on_change and synced:
        ready = conditions[-1]
        ready["lastTransitionTime"] = max(ready["lastTransitionTime"], str(refreshed))
    if synced and secret is not None:
        status["syncedResourceVersion"] = f"{source.generation}-{source.metadata_hash}"
        status["binding"] = {"name": secret.name}
    return {"status": status}


def without_stalled(patch: JSON) -> JSON:
    """The same patch for a cluster whose CRD takes no `Stalled`."""
    status = patch["status"]
    conditions = [
        item for item in status["conditions"] if not (isinstance(item, Mapping) and item.get("type") == "Stalled")
    ]
    return {"status": status | {"conditions": conditions}}


def _condition(kind: str, status: str, reason: str, message: str) -> JSON:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _stored(source: Source) -> list[Any]:
    stored = source.status.get("conditions")
    return stored if isinstance(stored, list) else []


def _by_type(source: Source) -> dict[str, Mapping[str, Any]]:
    """Our conditions, as the object has them."""
    found = (item for item in _stored(source) if isinstance(item, Mapping))
    return {item["type"]: item for item in found if item.get("type") in _OURS}


def _since(source: Source) -> str:
    return str(_by_type(source).get("Ready", {}).get("lastTransitionTime") or "")


def _told(source: Source, wanted: list[JSON]) -> bool:
    """Does the object say this, and is it not stalled without need?

    `Stalled` is written with the `Ready` that it belongs to, and not asked for again: some CRDs do not take it.
    """
    stored, (ready, *stalled) = _by_type(source), wanted
    same = all(stored.get("Ready", {}).get(key) == value for key, value in ready.items())
    return same and ("Stalled" not in stored or bool(stalled))


def _timed(source: Source, wanted: list[JSON], now: datetime) -> list[Any]:
    """All conditions of the object: those of others, then ours, each with the time of its last change."""
    stored = _by_type(source)
    for each in wanted:
        old = stored.get(each["type"], {})
        moved = old.get("status") != each["status"] or not old.get("lastTransitionTime")
        each["lastTransitionTime"] = format_time(now) if moved else str(old["lastTransitionTime"])
    others = [item for item in _stored(source) if not (isinstance(item, Mapping) and item.get("type") in _OURS)]
    return [*others, *wanted]
