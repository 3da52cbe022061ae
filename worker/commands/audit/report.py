"""The result of an audit: its lines, the admin keys, and what could not be asked. Immutable values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.commands.audit.findings import Finding, FindingKind
from worker.commands.audit.inventory import Line, Standing
from worker.model.audited import AdminKeyFacts, AuditEvent
from worker.model.entries import Entry
from worker.model.targets import AdminKeyRef, Project
from worker.model.times import format_time
from worker.model.values import JSON, Ref


@dataclass(frozen=True, slots=True)
class AuditedLine:
    """A line with its findings. `made`, `deleted`: what the audit log says of it."""

    line: Line
    findings: tuple[Finding, ...] = ()
    made: AuditEvent | None = None
    deleted: AuditEvent | None = None

    @property
    def namespace(self) -> str:
        return self.line.target.namespace if self.line.target is not None else ""


@dataclass(frozen=True, slots=True)
class AuditedAdminKey:
    """An admin key in its Secret. `facts`: None where OpenAI does not tell them, and `problem` says why."""

    ref: AdminKeyRef
    projects: tuple[Project, ...]
    facts: AdminKeyFacts | None = None
    problem: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Audit:
    """`unasked`: projects that could not be asked about, and why. `notes`: what else is not known.

    `since`: from when on the audit log was asked for; None: it was not.
    """

    at: datetime
    ledger: str
    unused: timedelta
    since: datetime | None
    lines: tuple[AuditedLine, ...]
    admin_keys: tuple[AuditedAdminKey, ...]
    entries: Mapping[Ref, Entry]
    unasked: tuple[tuple[Project, str], ...] = ()
    notes: tuple[str, ...] = ()
    projects: int = 0

    @property
    def findings(self) -> Iterator[tuple[FindingKind, AuditedLine | AuditedAdminKey, Finding]]:
        """Every finding with what it is about, the gravest kind first."""
        places: dict[FindingKind, list[tuple[AuditedLine | AuditedAdminKey, Finding]]] = {}
        items: tuple[AuditedLine | AuditedAdminKey, ...] = (*self.lines, *self.admin_keys)
        for item in items:
            for finding in item.findings:
                places.setdefault(finding.kind, []).append((item, finding))
        for kind in FindingKind:
            for item, finding in places.get(kind, ()):
                yield kind, item, finding


def exit_code(audit: Audit, *, strict: bool) -> int:
    """1: with `strict` something was found, or could not be looked at."""
    return 1 if strict and (audit.unasked or any(True for _ in audit.findings)) else 0


def summary(audit: Audit) -> JSON:
    """Counts alone, so that they fit into a termination message."""
    kinds = Counter(kind.value for kind, _, _ in audit.findings)
    standings = Counter(_key(item.line.standing) for item in audit.lines)
    return {
        "at": format_time(audit.at),
        "projects": audit.projects,
        "projects_not_asked": len(audit.unasked),
        "accounts": len({(item.line.project, item.line.account_id) for item in audit.lines if _is_account(item.line)}),
        "keys": sum(item.line.key is not None for item in audit.lines),
        "states": {_key(standing): standings[_key(standing)] for standing in Standing},
        "findings": sum(kinds.values()),
        "by_finding": {kind.value: kinds[kind.value] for kind in FindingKind if kinds[kind.value]},
        "admin_keys": len(audit.admin_keys),
    }


def _is_account(line: Line) -> bool:
    return line.listed and line.standing is not Standing.USERS


def _key(standing: Standing) -> str:
    return standing.name.lower()
