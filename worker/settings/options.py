"""A command's options. Pure; `settings` reads them, and other modules may know them without knowing the commands.

Guarantees:
- `settings` has checked the values.
- Nobody can change the values.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

from worker.model.hosts import Origin
from worker.model.scopes import ANY_SCOPES, ScopePolicy
from worker.model.shard import Shard
from worker.model.targets import AdminKeyRef
from worker.model.values import Ref
from worker.settings.central_keys import CentralKeys
from worker.settings.proxies import Proxies


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run; see `settings` for the meaning of each."""

    ledger_namespace: str
    namespaces: tuple[str, ...] = ()
    selector: str = ""
    allowed_hosts: frozenset[Origin] = frozenset()
    concurrency: int = 50
    max_wait: timedelta = timedelta(minutes=5)
    unseen_hold: timedelta = timedelta(hours=24)
    max_hold: timedelta | None = None
    max_accounts: int = 100
    """Accounts of one target; beyond them the worker only heals."""
    look_every: timedelta = timedelta(0)
    """A Secret that was found well is read again after so long; zero: by every run."""
    fallback_admin_key: AdminKeyRef | None = None
    fallback_host: Origin | None = None
    """The only host that the fallback admin key is sent to; None: OpenAI's own."""
    central_keys: CentralKeys = field(default_factory=CentralKeys)
    scopes: ScopePolicy = ANY_SCOPES
    shard: Shard = field(default_factory=Shard)
    force: bool = False
    dry_run: bool = False
    job: str = ""
    """The Job that this run is a try of: with `force` its next try rotates nothing again."""


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """A human's request to `adopt`. `targets`: these alone, none: all. `accounts`: ids, for the one target."""

    targets: tuple[Ref, ...] = ()
    accounts: tuple[str, ...] = ()
    yes: bool = False


@dataclass(frozen=True, slots=True)
class AuditRequest:
    """`unused`: so long without a use is a finding. `since`: how far back the audit log is asked; None: not at all."""

    unused: timedelta = timedelta(days=30)
    since: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    command: Literal["run", "status", "adopt", "revoke", "audit"]
    options: Options
    wanted: AdoptRequest
    """The request to `adopt`; the one target of `revoke`, and whether it needs no confirmation."""
    without_successor: bool
    forget: bool
    """`revoke` lets accounts go whose project OpenAI denies, and does nothing else."""
    admin_secret: str | None
    """`revoke` is about the admin key in this Secret beside the ledger, and about no target."""
    audit: AuditRequest
    output: Literal["json", "table", "html"] | None
    """None: whether standard output is a terminal decides."""
    deadline: timedelta
    strict: bool
    tenant_failures: Literal["fail", "report"]
    """Does a failure that is a tenant's own count in the exit code of a run?"""
    summary_file: Path | None
    """A second place for the run's summary."""
    kubeconfig: str | None
    context: str | None
    in_cluster: bool
    proxies: Proxies = field(default_factory=Proxies)
    own_authority: bool = False
    """A certificate authority is named for OpenAI's side (`SSL_CERT_FILE`, `SSL_CERT_DIR`)."""

    @property
    def as_table(self) -> bool:
        """Is the output for a person? Unless --output says so, it is on a terminal."""
        return self.output == "table" or (self.output is None and sys.stdout.isatty())
