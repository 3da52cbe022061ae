"""What the oracle remembers: runs as it knows them, and how long which key was where."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tests.simulation.commands import RUN, Command, Revoke
from worker.model.values import Ref
from worker.settings.options import Options


@dataclass(slots=True)
class Run:
    """One run of the worker as the oracle knows it."""

    name: str
    started: float
    options: Options
    command: Command = RUN
    listed: bool = False
    """Has it asked for the ledger? Right before that it looked at the time."""
    woke: float = -1.0
    """When its machine last woke: what was on its way then was sent before it fell asleep."""
    looks: dict[Ref, float] = field(default_factory=dict)
    """When the API server last served it each target's Secret."""
    uses: dict[str, float | None] = field(default_factory=dict)
    """What OpenAI last told it of each key's last use, by the key's id."""
    keys_listed: defaultdict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """When OpenAI listed it each project's keys, by admin key."""
    asked: dict[str, tuple[float, str]] = field(default_factory=dict)
    """When it last asked for the use of a key, and with which admin key, by the key."""
    sent: dict[str, float] = field(default_factory=dict)
    """When it last sent something to a path."""
    thawed: float = -1.0
    """When its process last went on after it had stood still."""
    pods: dict[str, float] = field(default_factory=dict)
    """When the API server last served it each namespace's pods."""
    lists: dict[str, float] = field(default_factory=dict)
    """When the list that it is reading of each project began."""
    deletes: set[str] = field(default_factory=set)
    """Paths of the accounts that it has asked to delete: an adapter repeats that."""

    def revokes(self, target: Ref) -> bool:
        """Was it asked to let all accounts of the target go at once?"""
        return isinstance(self.command, Revoke) and self.command.target == target

    @property
    def max_hold(self) -> float:
        """Seconds after which nobody holds an account any more."""
        return self.options.max_hold.total_seconds() if self.options.max_hold is not None else float("inf")


@dataclass(slots=True)
class Era:
    """How long a target's Secret has carried one account's key, and by whose doing."""

    account: str | None
    since: float
    by_user: bool
    noted: bool = False
    """Has the ledger recorded the account as not superseded meanwhile?"""
    ended: float | None = None


@dataclass(slots=True)
class Container:
    """A container that took a key from its environment, and when its kubelet reported that it started."""

    account: str
    target: Ref
    era: Era
    started: float
    began: float
    """When its kubelet took the key."""


@dataclass(slots=True)
class Made:
    """An account that a worker made."""

    name: str
    target: Ref
    key_id: str
