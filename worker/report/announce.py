"""Tell outcomes to the cluster: an ExternalSecret's status, and Events on the object that asked for the target.

Readers of an ExternalSecret find what they expect: condition `Ready` with the reasons SecretSynced and
SecretSyncedError, `refreshTime`, `syncedResourceVersion`, `binding`; Events Created, Updated, UpdateFailed. A Warning
with a reason of ours tells everything else that matters to users of a target.
Guarantees: the announcer never writes again what is true already.
The announcer returns a failure to announce and never raises it, for the rotation itself has happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from worker.errors import Conflict, NotFound, RotatorError, without_request_id
from worker.kubernetes.secret import SECRETS
from worker.model.outcomes import Notice, Outcome, Result
from worker.model.targets import Source
from worker.model.times import format_time
from worker.model.values import JSON, Ref, Resource
from worker.ports import Clock, Cluster

EVENTS = Resource("", "v1", "events")
EventKind = Literal["Normal", "Warning"]
COMPONENT = "openai-key-rotator"
FAILED = "UpdateFailed"
PUT_BACK = "PutBack"
_LONGEST_MESSAGE = 1000
"""The API server refuses Events with more than 1024 characters."""


@dataclass(frozen=True, slots=True)
class Announcer:
    cluster: Cluster
    clock: Clock

    async def announce(
        self, source: Source, secret: Ref | None, outcome: Outcome, *, created: bool = False
    ) -> list[str]:
        """Tell the outcome. `created`: the Secret did not exist before. Returns the errors."""
        problems = []
        status = status_patch(source, secret, outcome, now=self.clock.now())
        if status is not None:
            try:
                await self.cluster.patch(source.resource, source.ref, status, subresource="status")
            except NotFound:
                pass  # deleted meanwhile: there is nobody left to tell
            except RotatorError as error:
                problems.append(error.message)
        event = outcome_event(source, outcome, created=created, now=self.clock.now())
        return problems + (await self._tell(source, event) if event is not None else [])

    async def warn(self, source: Source, notices: Collection[Notice], *, kind: EventKind = "Warning") -> list[str]:
        """Send an Event for each notice. Returns the errors."""
        now = self.clock.now()
        events = [_event(source, kind, notice.reason, message=notice.message, now=now) for notice in notices]
        return [problem for event in events for problem in await self._tell(source, event)]

    async def _tell(self, source: Source, event: JSON) -> list[str]:
        try:
            await self.cluster.create(EVENTS, source.ref.namespace, event)
        except (Conflict, NotFound):
            pass  # the same text has the same name, so the last hour's Event says it; or the namespace is gone
        except RotatorError as error:
            return [error.message]
        return []


def secret_source(target: Ref) -> Source:
    """The Secret itself, for Events in its own namespace where nothing asks for it any more."""
    return Source(SECRETS, "Secret", target, "")


def status_patch(source: Source, secret: Ref | None, outcome: Outcome, *, now: datetime) -> JSON | None:
    """The merge patch of an ExternalSecret's status; None where it says so already, or there is nothing to say."""
    if source.kind != "ExternalSecret" or outcome.reason in ("InProgress", "Suspended"):
        return None
    synced = outcome.result in (Result.ROTATED, Result.KEPT)
    ready = {
        "type": "Ready",
        "status": "True" if synced else "False",
        "reason": "SecretSynced" if synced else "SecretSyncedError",
        "message": "secret synced" if synced else without_request_id(outcome.message),
    }
    stored = source.status.get("conditions")
    conditions: list[Any] = stored if isinstance(stored, list) else []
    old = next((c for c in conditions if isinstance(c, Mapping) and c.get("type") == "Ready"), {})
    told = all(old.get(key) == value for key, value in ready.items())
    if told and outcome.result is not Result.ROTATED:
        return None
    moved = old.get("status") != ready["status"] or not old.get("lastTransitionTime")
    ready["lastTransitionTime"] = format_time(now) if moved else str(old["lastTransitionTime"])
    others = [c for c in conditions if not (isinstance(c, Mapping) and c.get("type") == "Ready")]
    status: JSON = {"conditions": [*others, ready]}
    if outcome.result is Result.ROTATED or (synced and not source.status.get("refreshTime")):
        status["refreshTime"] = format_time(now)
    if synced and secret is not None:
        status["syncedResourceVersion"] = f"{source.generation}-{source.metadata_hash}"
        status["binding"] = {"name": secret.name}
    return {"status": status}


def outcome_event(source: Source, outcome: Outcome, *, created: bool, now: datetime) -> JSON | None:
    """The Event for an outcome; None where nothing happened."""
    if outcome.result is Result.ROTATED:
        return _event(source, "Normal", "Created" if created else "Updated", message=outcome.message, now=now)
    if outcome.result in (Result.FAILED, Result.BLOCKED):
        reason = PUT_BACK if outcome.reason == PUT_BACK else FAILED
        return _event(source, "Warning", reason, message=outcome.message, now=now)
    return None


def _event(source: Source, kind: EventKind, reason: str, *, message: str, now: datetime) -> JSON:
    """An Event. The same text has the same name."""
    message = without_request_id(message)[:_LONGEST_MESSAGE]
    digest = hashlib.sha256(f"{source.uid}\n{reason}\n{message}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{source.ref.name[:230].rstrip('.-')}.{digest}", "namespace": source.ref.namespace},
        "involvedObject": {
            "apiVersion": source.resource.api_version,
            "kind": source.kind,
            "namespace": source.ref.namespace,
            "name": source.ref.name,
            "uid": source.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": format_time(now),
        "lastTimestamp": format_time(now),
        "count": 1,
    }
