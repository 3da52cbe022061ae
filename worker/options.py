"""What a command is asked for. Pure; `settings` reads it, and everything else may know it without knowing the commands.

Guarantee: values are checked already, and cannot be changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from worker.central_keys import CentralKeys
from worker.hosts import Origin
from worker.model import AdminKeyRef, Ref
from worker.sharding import Shard


@dataclass(frozen=True, slots=True)
class Options:
    """What a run may be asked; see `settings` for the meaning of each."""

    ledger_namespace: str
    namespaces: tuple[str, ...] = ()
    selector: str = ""
    allowed_hosts: frozenset[Origin] = frozenset()
    concurrency: int = 50
    max_wait: timedelta = timedelta(minutes=5)
    unseen_hold: timedelta = timedelta(hours=24)
    max_hold: timedelta | None = None
    fallback_admin_key: AdminKeyRef | None = None
    central_keys: CentralKeys = field(default_factory=CentralKeys)
    shard: Shard = field(default_factory=Shard)
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a human asked `adopt` for. `targets`: these alone, none: all. `accounts`: ids, for the one target."""

    targets: tuple[Ref, ...] = ()
    accounts: tuple[str, ...] = ()
    yes: bool = False
