"""What can be decided for a target. Immutable values; `reason` is fit for a condition, `message` for people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

NOT_DUE = "NotDue"
"""The reason of `Keep` where all is as asked, and it is not time."""


@dataclass(frozen=True, slots=True)
class Rotate:
    """The target gets a new key now. `put_back`: it has had one, and somebody has put an earlier one back."""

    reason: str
    message: str
    put_back: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """The target keeps its key. `next_at`: when a run decides anew, None: on request only."""

    reason: str
    message: str
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """Somebody has to change an object before this target can be served."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Unable:
    """Something outside stands in the way. `until`: the earliest next attempt, None: with the next run."""

    reason: str
    message: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Restore:
    """The key stays; the Secret's label and annotation are written again. `next_at`: as for Keep."""

    reason: str
    message: str
    next_at: datetime | None = None


Decision = Rotate | Keep | Blocked | Unable | Restore
