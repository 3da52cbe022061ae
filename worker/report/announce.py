"""Tell outcomes to the cluster: the status of the object that asked for the target, and Events on it.

Readers of an ExternalSecret find what they expect: condition `Ready` with the reasons SecretSynced and
SecretSyncedError, `refreshTime`, `syncedResourceVersion`, `binding`; Events Created, Updated, UpdateFailed. A Warning
with a reason of ours tells everything else that matters to users of a target. A generator has `Ready` with our reasons.
Guarantees: the announcer never writes again what is true already.
The announcer returns a failure to announce and never raises it, for the rotation itself has happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from worker.errors import Conflict, NotFound, RotatorError, without_request_id
from worker.kubernetes.secret import SECRETS
from worker.model.outcomes import Notice, Outcome, Result
from worker.model.targets import Source
from worker.model.times import format_time
from worker.model.values import JSON, Ref, Resource
from worker.ports import Clock, Cluster
from worker.report.health import Health, generator_patch, status_patch, target_health
from worker.report.statuses import Statuses

EVENTS = Resource("", "v1", "events")
EventKind = Literal["Normal", "Warning"]
COMPONENT = "openai-key-rotator"
FAILED = "UpdateFailed"
PUT_BACK = "PutBack"
WIDENED = "KeyWidened"
_LONGEST_MESSAGE = 1000
"""The API server refuses Events with more than 1024 characters."""


@dataclass(frozen=True, slots=True)
class Announcer:
    cluster: Cluster
    clock: Clock
    statuses: Statuses = field(default_factory=Statuses)

    async def announce(
        self, source: Source, secret: Ref | None, outcome: Outcome, *, created: bool = False
    ) -> list[str]:
        """Tell the outcome. `created`: the Secret did not exist before. Returns the errors."""
        if source.kind == "OpenAI":
            health = target_health(source, outcome)
            problems = await self.tell_health(source, health) if health is not None else []
        else:
            patch = status_patch(source, secret, outcome, now=self.clock.now())
            write = self.statuses.write_external_secret
            problems = await write(self.cluster, source, patch) if patch is not None else []
        event = outcome_event(source, outcome, created=created, now=self.clock.now())
        return problems + (await self._tell(source, event) if event is not None else [])

    async def tell_health(self, generator: Source, health: Health) -> list[str]:
        """Write a generator's status, unless it says so already. Returns the errors."""
        patch = generator_patch(generator, health, now=self.clock.now())
        return await self.statuses.write_generator(self.cluster, generator, patch) if patch is not None else []

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


def outcome_event(source: Source, outcome: Outcome, *, created: bool, now: datetime) -> JSON | None:
    """The Event for an outcome; None where nothing happened.

    A rotation's has the key's id and project as well: both are in OpenAI's costs.
    """
    if outcome.result is Result.ROTATED:
        message = outcome.message
        if outcome.key_id is not None:
            message += f", keyId {outcome.key_id}, projectId {outcome.project_id}"
        return _event(source, "Normal", "Created" if created else "Updated", message=message, now=now)
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
