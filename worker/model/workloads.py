"""Workloads that may be restarted, and users' wishes for it. Immutable values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from worker.model.values import Ref, Version


class WorkloadKind(StrEnum):
    """The kinds whose controller replaces its pods when the pod template changes."""

    DEPLOYMENT = "deployment"
    STATEFUL_SET = "statefulset"
    DAEMON_SET = "daemonset"


@dataclass(frozen=True, slots=True, order=True)
class Workload:
    kind: WorkloadKind
    ref: Ref

    def __str__(self) -> str:
        """As users write it, within its namespace."""
        return f"{self.kind}/{self.ref.name}"


@dataclass(frozen=True, slots=True)
class RestartWish:
    """The workloads that a user wants restarted after each publication, all of the target's own namespace.

    `auto`: also those that read the Secret by their environment. `mistake`: why the wish cannot be read.
    """

    workloads: tuple[Workload, ...] = ()
    auto: bool = False
    mistake: str = ""


@dataclass(frozen=True, slots=True)
class WorkloadView:
    """A workload as the API server shows it. `stamp`: when somebody last asked for its restart.

    `rolling`: its controller has not replaced all pods yet. `obstacle`: why a stamp would restart nothing.
    """

    workload: Workload
    version: Version
    stamp: datetime | None = None
    rolling: bool = False
    obstacle: str = ""
    reads: frozenset[str] = field(default=frozenset())
    """The Secrets of which its containers keep a value from their start."""
