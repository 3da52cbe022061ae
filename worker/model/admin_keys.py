"""The operator's own admin keys: what rotates in the Secrets beside the ledger. Immutable values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from worker.model.entries import Condition, Failures
from worker.model.hidden import Hidden
from worker.model.targets import AdminKeyRef
from worker.model.values import Version


@dataclass(frozen=True, slots=True)
class NamedAdminKey:
    """An admin key beside the ledger that an option names, and the host that it is for.

    `problem`: why it cannot rotate whatever its Secret says; empty: nothing of the kind.
    """

    ref: AdminKeyRef
    host: str
    problem: str = ""

    @property
    def secret(self) -> str:
        return self.ref.secret.name


@dataclass(frozen=True, slots=True)
class AdminSecretView:
    """The Secret with an admin key. `interval`: how often it rotates; None: nobody asks for that.

    `mistake`: what is wrong with its annotations. `grace_mistake`: with that of the grace; `grace` is then a guess.
    `owner`: the controller that writes it, empty where there is none.
    """

    version: Version
    value: Hidden
    interval: timedelta | None
    grace: timedelta
    mistake: str = ""
    grace_mistake: str = ""
    immutable: bool = False
    owner: str = ""


@dataclass(frozen=True, slots=True)
class AdminKey:
    """An admin key that is or was in the Secret. `made`: by the worker; otherwise a human's that it has found there.

    `at`: when it was published, or found. `created_at`: by OpenAI's clock; None: it does not say.
    """

    id: str
    name: str
    digest: str
    at: datetime
    made: bool
    created_at: datetime | None = None
    expires_at: datetime | None = None
    superseded_at: datetime | None = None
    replaced_at: datetime | None = None
    """When the Secret lost it at the latest, where that was noted later, as `superseded_at`; None: at that time."""
    put_back: bool = False
    """Somebody put it back into the Secret after the worker had replaced it."""
    held: str = ""
    """Why it stays although its grace has passed."""
    held_since: datetime | None = None
    missed_at: datetime | None = None
    """When the first complete list without it began."""


@dataclass(frozen=True, slots=True)
class AdminIntent:
    """An admin key that a run requests or has requested, and that no run has noted as published.

    `id`, `digest`: None until OpenAI has told them. A run publishes nothing before the ledger has both.
    `refused`: its run has noted that it never publishes the key.
    """

    name: str
    requested_at: datetime
    claimed_until: datetime
    id: str | None = None
    digest: str | None = None
    expires_at: datetime | None = None
    refused: bool = False
    missed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AdminEntry:
    """All that the ledger knows about one Secret's admin keys. `version` is None while it is not stored yet.

    There is one intent at most: no second key is asked for before the first one's fate is settled.
    """

    secret: str
    key: str
    host: str
    ledger: str
    history: tuple[AdminKey, ...] = ()
    intent: AdminIntent | None = None
    last_rotated_at: datetime | None = None
    next_rotation_at: datetime | None = None
    failures: Failures = field(default_factory=Failures)
    condition: Condition | None = None
    version: Version | None = None
    stored: bytes = b"{}"

    @property
    def current(self) -> AdminKey | None:
        """The key that nothing has superseded."""
        return next((key for key in self.history if key.superseded_at is None), None)

    @property
    def superseded(self) -> tuple[AdminKey, ...]:
        return tuple(key for key in self.history if key.superseded_at is not None)

    def claimed_until(self, now: datetime) -> datetime | None:
        """The end of the claim, if it still runs."""
        claimed = self.intent.claimed_until if self.intent is not None else None
        return claimed if claimed is not None and claimed > now else None

    def with_condition(self, ready: bool, reason: str, message: str, *, now: datetime) -> AdminEntry:
        """The same entry with this condition; its time moves only when its status does, as Kubernetes has it."""
        old = self.condition
        since = old.since if old is not None and old.ready == ready else now
        return replace(self, condition=Condition(ready, reason, message, since))
