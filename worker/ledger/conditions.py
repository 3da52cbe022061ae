"""The stored form of an entry's condition, as Kubernetes has it: a list with `Ready`, and `Stalled` beside it. Pure."""

from __future__ import annotations

from worker.kubernetes.reading import mappings, time
from worker.model.entries import Condition
from worker.model.times import format_time
from worker.model.values import JSON


def condition_objects(condition: Condition) -> list[JSON]:
    words = {"reason": condition.reason, "message": condition.message}
    status = "True" if condition.ready else "False"
    found = [{"type": "Ready", "status": status, **words, "lastTransitionTime": format_time(condition.since)}]
    if condition.stalled_since is not None:
        since = format_time(condition.stalled_since)
        found.append({"type": "Stalled", "status": "True", **words, "lastTransitionTime": since})
    return found


def read_condition(stored: object) -> Condition | None:
    """None: there is no `Ready` with a time."""
    items = mappings(stored)
    ready = next((item for item in items if item.get("type") == "Ready"), None)
    since = time(ready, "lastTransitionTime") if ready is not None else None
    if ready is None or since is None:
        return None
    stalled = next((item for item in items if item.get("type") == "Stalled"), None)
    reason, message = str(ready.get("reason", "")), str(ready.get("message", ""))
    stalled_since = time(stalled, "lastTransitionTime") if stalled is not None else None
    return Condition(ready.get("status") == "True", reason, message, since, stalled_since)
