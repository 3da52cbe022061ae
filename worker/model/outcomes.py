"""What a run did and says of it: outcomes, notices, the report. Immutable values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from worker.model.shard import Shard
from worker.model.targets import Source
from worker.model.values import Ref


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is the same for all targets of a run."""

    started_at: datetime
    ledger: str
    force: bool = False
    dry_run: bool = False


# --- what came of it ---------------------------------------------------------------------------------------------


class Result(StrEnum):
    ROTATED = "rotated"
    KEPT = "kept"
    BLOCKED = "blocked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did for one target, why, and what happens next. Feeds conditions, Events, log, table, exit code."""

    target: Ref
    result: Result
    reason: str
    message: str
    next_at: datetime | None = None
    account: str | None = None
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the users of a target are warned of, by an Event."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RetireOutcome:
    """What became of a target's accounts that are not current.

    `result` is KEPT where nothing stood in the way, whether or not something was deleted.
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
    """In words: which of them stay although their grace has passed, and why."""
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    run: RunInfo
    outcomes: tuple[Outcome, ...]
    retired: tuple[RetireOutcome, ...]
    unused: tuple[Ref, ...]
    seconds: float
    stopped: str | None = None
    """Why the run ended early, None where it did not."""
    shard: Shard = field(default_factory=Shard)


WOULD_ROTATE = "WouldRotate"
"""The reason of an outcome that a dry run has only planned."""


UNUSED = (
    "feeds nothing: name it in an ExternalSecret (dataFrom[].sourceRef.generatorRef), or set its annotation "
    "openai-key-rotator.io/secret to the name of a Secret"
)
