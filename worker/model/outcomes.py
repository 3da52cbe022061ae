"""The results of a run: outcomes, notices, the report. Immutable values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from worker.model.shard import Shard
from worker.model.targets import Source
from worker.model.values import Ref


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The facts that all targets of a run share."""

    started_at: datetime
    ledger: str
    force: bool = False
    dry_run: bool = False
    job: str = ""
    """The Job that this run is a try of; empty outside one."""
    repeat: bool = False
    """A forced rotation also where another was forced minutes ago: revoke means it."""
    max_accounts: int = 100
    """Accounts of one target; beyond them a run only heals."""
    look_every: timedelta = timedelta(0)
    """A Secret that was found well is not read again before so long; zero: every run reads it."""


# --- what came of it ---------------------------------------------------------------------------------------------


class Result(StrEnum):
    ROTATED = "rotated"
    KEPT = "kept"
    BLOCKED = "blocked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's action for one target, its reason, and the next step. Feeds conditions, Events, log, table, exit code."""

    target: Ref
    result: Result
    reason: str
    message: str
    next_at: datetime | None = None
    account: str | None = None
    source: Source | None = None
    key_id: str | None = None
    project_id: str | None = None
    """The published key as OpenAI's costs name it. Neither is a secret."""


@dataclass(frozen=True, slots=True)
class BilledKey:
    """A key as OpenAI's costs name it, and its account."""

    account: str
    key_id: str
    project_id: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning to the users of a target, by an Event."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RetireOutcome:
    """The fate of a target's accounts that are not current.

    `result` is KEPT if nothing stood in the way, whether or not the run deleted an account.
    """

    target: Ref
    result: Result = Result.KEPT
    reason: str = ""
    message: str = ""
    deleted: tuple[str, ...] = ()
    waiting: int = 0
    """Accounts that stay for now: their grace or claim runs, or somebody uses their key."""
    next_at: datetime | None = None
    held: tuple[str, ...] = ()
    """As text: the accounts that stay although their grace has passed, and the reasons."""
    notices: tuple[Notice, ...] = ()
    deleted_keys: tuple[BilledKey, ...] = ()
    """The keys of the deleted accounts, as far as the ledger knew them."""


@dataclass(frozen=True, slots=True)
class RestartOutcome:
    """What became of the workloads that are to be restarted for a target's publication.

    `restarted`: those that this run has stamped, or, in a dry run, would stamp. KEPT if nothing stood in the way, but
    perhaps a rollout that is under way.
    """

    target: Ref
    result: Result
    reason: str
    message: str
    restarted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AdminKeyOutcome:
    """What became of an admin key beside the ledger, and of the keys that it has replaced. `key`: the new one's name.

    `waiting`: former keys that stay for now. `held`: as text, those of them whose grace has passed, and the reasons.
    """

    secret: Ref
    result: Result
    reason: str
    message: str
    next_at: datetime | None = None
    key: str | None = None
    deleted: tuple[str, ...] = ()
    waiting: int = 0
    held: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    run: RunInfo
    outcomes: tuple[Outcome, ...]
    retired: tuple[RetireOutcome, ...]
    unused: tuple[Ref, ...]
    seconds: float
    stopped: str | None = None
    """The reason for an early end; None without one."""
    shard: Shard = field(default_factory=Shard)
    restarts: tuple[RestartOutcome, ...] = ()
    """Of the targets for which there was something to restart."""
    central: frozenset[Ref] = frozenset()
    """Targets that an admin key of the platform serves."""
    admin_keys: tuple[AdminKeyOutcome, ...] = ()
    """Of the Secrets beside the ledger whose admin key is to rotate, or has."""


WOULD_ROTATE = "WouldRotate"
"""The reason of an outcome that a dry run has only planned."""

WOULD_RESTART = "WouldRestart"
"""The same of workloads."""


UNUSED = (
    "feeds nothing: name it in an ExternalSecret (dataFrom[].sourceRef.generatorRef), or set its annotation "
    "openai-key-rotator.io/secret to the name of a Secret"
)
