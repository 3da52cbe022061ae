"""What a command is asked for. Pure; `settings` reads it, and everything else may know it without knowing the commands.

Guarantee: values are checked already, and cannot be changed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from worker.model.hosts import Origin
from worker.model.shard import Shard
from worker.model.targets import AdminKeyRef
from worker.model.values import Ref
from worker.settings.central_keys import CentralKeys
from worker.settings.proxies import Proxies


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
class AdoptRequest:
    """What a human asked `adopt` for. `targets`: these alone, none: all. `accounts`: ids, for the one target."""

    targets: tuple[Ref, ...] = ()
    accounts: tuple[str, ...] = ()
    yes: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    command: Literal["run", "status", "adopt", "revoke"]
    options: Options
    wanted: AdoptRequest
    """What `adopt` is asked for; the one target that `revoke` is asked for, and whether it needs no confirmation."""
    without_successor: bool
    output: Literal["json", "table"] | None
    """None: by whether standard output is a terminal."""
    deadline: timedelta
    strict: bool
    summary_file: Path | None
    """Where the run's summary goes as well."""
    kubeconfig: str | None
    context: str | None
    in_cluster: bool
    proxies: Proxies = field(default_factory=Proxies)

    @property
    def as_table(self) -> bool:
        """Is the output for a person? Unless --output says so, it is on a terminal."""
        return self.output == "table" or (self.output is None and sys.stdout.isatty())
