"""An audit as a table, and as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby

from worker.commands.audit.findings import ADVICE, Finding
from worker.commands.audit.inventory import Line
from worker.commands.audit.report import Audit, AuditedAdminKey, AuditedLine, summary
from worker.model.audited import AuditEvent, KeyOwner
from worker.model.times import format_time
from worker.model.values import JSON
from worker.report.table import age, table

HEADERS = (
    "PROJECT", "TARGET", "ACCOUNT", "STATE", "KEY", "AGE", "LAST USED", "ENDS", "SCOPES", "FINDINGS",
)  # fmt: skip
ADMIN_HEADERS = ("ADMIN KEY IN", "ID", "AGE", "LAST USED", "ENDS", "FINDINGS")
LAST_USE = "the last use of an admin key is anybody's, the worker's included: use by somebody else cannot be told apart"


def as_text(audit: Audit) -> str:
    """The keys, the admin keys, and below them each finding with what to do about it."""
    lines = [table(HEADERS, [_row(item, audit.at) for item in audit.lines])] if audit.lines else ["no keys"]
    if audit.admin_keys:
        rows = [_admin_row(item, audit.at) for item in audit.admin_keys]
        lines += ["", table(ADMIN_HEADERS, rows), LAST_USE]
    explained: set[int] = set()
    for kind, group in groupby(audit.findings, key=lambda found: found[0]):
        found = [(item, finding) for _, item, finding in group]
        lines += ["", f"{kind.value} ({len(found)}): {ADVICE[kind]}"]
        for item, finding in found:
            parts = [finding.message]
            if isinstance(item, AuditedLine) and id(item) not in explained:
                explained.add(id(item))
                parts += by_whom(item)
            lines.append(f"  {about(item)}: {'; '.join(parts)}")
    if audit.unasked:
        lines += ["", f"not asked about ({len(audit.unasked)}):"]
        lines += [f"  project {project}: {why}" for project, why in audit.unasked]
    if audit.notes:
        lines += ["", *audit.notes]
    return "\n".join([*lines, "", counted(audit)])


def counted(audit: Audit) -> str:
    """The result in one sentence."""
    counts = summary(audit)
    findings = counts["findings"]
    found = "no findings" if not findings else "1 finding" if findings == 1 else f"{findings} findings"
    parts = [(counts["accounts"], "account"), (counts["keys"], "key"), (counts["projects"], "project")]
    told = [f"{number} {word}{'s' * (number != 1)}" for number, word in parts]
    return f"{found} in {told[0]} and {told[1]} of {told[2]}"


def json_pieces(audit: Audit) -> Iterator[str]:
    """One JSON document, a line for each key: it need not be in memory as a whole."""
    yield f'{{"summary": {json.dumps(summary(audit))},\n"keys": ['
    for number, item in enumerate(audit.lines):
        yield f"{',' * (number > 0)}\n{json.dumps(_line(item))}"
    yield '],\n"adminKeys": ['
    for number, admin in enumerate(audit.admin_keys):
        yield f"{',' * (number > 0)}\n{json.dumps(_admin(admin))}"
    unasked = [{"project": project.id, "host": project.host, "message": why} for project, why in audit.unasked]
    yield f'],\n"notAsked": {json.dumps(unasked)},\n"notes": {json.dumps(list(audit.notes))}}}\n'


def about(item: AuditedLine | AuditedAdminKey) -> str:
    """What a finding is about: as much as it takes to find it."""
    if isinstance(item, AuditedAdminKey):
        return str(item.ref)
    line = item.line
    parts = [str(line.target)] if line.target is not None else [f"project {line.project.id}"]
    if line.key is not None and line.key.owner is KeyOwner.USER:
        parts.append(f"key {line.key.id} of user {line.account_name or line.account_id or 'unknown'}")
    elif line.key is not None and not line.own:
        parts.append(f"account {_account(line)}, key {line.key.id}")
    else:
        parts.append(f"account {_account(line)}")
    return ", ".join(parts)


def by_whom(item: AuditedLine) -> list[str]:
    """What the audit log says of the line. Of our own keys everybody knows who made them."""
    told = []
    if item.made is not None and not (item.line.own or item.line.key is None):
        told.append(f"made by {item.made.actor} at {format_time(item.made.at)}")
    if item.deleted is not None:
        told.append(f"deleted by {item.deleted.actor} at {format_time(item.deleted.at)}")
    return told


def _account(line: Line) -> str:
    return f"{line.account_name or 'without a name'} ({line.account_id or 'id unknown'})"


def _row(item: AuditedLine, now: datetime) -> tuple[str, ...]:
    line = item.line
    return (
        line.project.id,
        str(line.target) if line.target is not None else "-",
        line.account_name or line.account_id or "-",
        state(line),
        line.key.id if line.key is not None else "-",
        ago(line.begun_at, now),
        used(line, now),
        ends(line.key.expires_at, now) if line.key is not None else "-",
        scopes(line),
        kinds(item.findings),
    )


def state(line: Line) -> str:
    """How it stands to the ledger, and who holds it."""
    text = line.standing.value
    if line.held:
        text += f", held ({line.held})"
    if line.key is not None and line.record is not None and not line.own:
        text += ", not our key"
    return text


def _admin_row(item: AuditedAdminKey, now: datetime) -> tuple[str, ...]:
    facts = item.facts
    if facts is None:
        return (place(item), "-", "-", "-", "-", item.problem or "-")
    used_at = "never" if facts.last_used_at is None else f"{age(now - facts.last_used_at)} ago"
    return (
        place(item),
        facts.id,
        ago(facts.created_at, now),
        used_at,
        ends(facts.expires_at, now),
        kinds(item.findings),
    )


def place(item: AuditedAdminKey) -> str:
    """Secret and key, short enough for a column."""
    return f"{item.ref.secret} {item.ref.key}"


def ago(at: datetime | None, now: datetime) -> str:
    """An age; of what has no known beginning a dash."""
    return "-" if at is None else age(now - at)


def used(line: Line, now: datetime) -> str:
    """When the key was last used."""
    if line.key is None:
        return "-"
    return "never" if line.key.last_used_at is None else f"{age(now - line.key.last_used_at)} ago"


def ends(at: datetime | None, now: datetime) -> str:
    """When a key ends by itself."""
    if at is None:
        return "never"
    return f"in {age(at - now)}" if at > now else f"{age(now - at)} ago"


def scopes(line: Line) -> str:
    """What the key may do, as far as OpenAI tells."""
    if line.key is None or line.key.scopes is None:
        return "-"
    return ", ".join(line.key.scopes) or "all"


def kinds(findings: Sequence[Finding]) -> str:
    """The findings' names."""
    return ", ".join(finding.kind.value for finding in findings) or "-"


def _line(item: AuditedLine) -> JSON:
    line, key = item.line, item.line.key
    return {
        "namespace": line.target.namespace if line.target is not None else None,
        "secret": line.target.name if line.target is not None else None,
        "project": line.project.id,
        "host": line.project.host,
        "state": line.standing.name.lower(),
        "held": line.held or None,
        "account": {"id": line.account_id or None, "name": line.account_name or None, "createdAt": _at(line.created_at)}
        if key is None or key.owner is not KeyOwner.USER
        else None,
        "key": {
            "id": key.id,
            "name": key.name or None,
            "owner": key.owner.value,
            "ownerId": key.owner_id or None,
            "ownerName": key.owner_name or None,
            "ours": line.own,
            "createdAt": _at(key.created_at),
            "lastUsedAt": _at(key.last_used_at),
            "expiresAt": _at(key.expires_at),
            "active": key.active,
            "scopes": list(key.scopes) if key.scopes is not None else None,
        }
        if key is not None
        else None,
        "findings": [{"kind": finding.kind.value, "message": finding.message} for finding in item.findings],
        "made": _event(item.made),
        "deleted": _event(item.deleted),
    }


def _admin(item: AuditedAdminKey) -> JSON:
    facts = item.facts
    return {
        "namespace": item.ref.secret.namespace,
        "secret": item.ref.secret.name,
        "key": item.ref.key,
        "projects": [project.id for project in item.projects],
        "id": facts.id if facts is not None else None,
        "name": facts.name if facts is not None else None,
        "createdAt": _at(facts.created_at) if facts is not None else None,
        "lastUsedAt": _at(facts.last_used_at) if facts is not None else None,
        "expiresAt": _at(facts.expires_at) if facts is not None else None,
        "problem": item.problem or None,
        "findings": [{"kind": finding.kind.value, "message": finding.message} for finding in item.findings],
    }


def _event(event: AuditEvent | None) -> JSON | None:
    return {"at": format_time(event.at), "by": event.actor} if event is not None else None


def _at(at: datetime | None) -> str | None:
    return format_time(at) if at is not None else None
