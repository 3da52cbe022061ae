"""The part of `status` about the operator's own admin keys. Pure: values in, text or JSON out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from worker.ledger.admin_codec import admin_entry_object
from worker.model.admin_keys import AdminEntry
from worker.model.entries import Unreadable
from worker.model.times import format_time
from worker.model.values import JSON
from worker.plan.admin_keys import ENDS_SOON
from worker.report.table import age, table

HEADERS = ("ADMIN KEY SECRET", "READY", "REASON", "KEYS", "ROTATED", "NEXT")
AdminEntries = Mapping[str, AdminEntry | Unreadable]


def admin_keys_as_text(entries: AdminEntries, now: datetime) -> str:
    """A table, and below it what is wrong, and the former keys that still live, each with its reason."""
    ordered = sorted(entries.items())
    notes = [note for name, entry in ordered for note in _notes(name, entry, now)]
    return "\n".join([table(HEADERS, [_row(name, entry, now) for name, entry in ordered]), *notes])


def admin_keys_as_json(entries: AdminEntries, namespace: str) -> list[JSON]:
    """An item for each Secret, told from targets by its field `adminKey`."""
    return [_described(name, entry, namespace) for name, entry in sorted(entries.items())]


def _row(name: str, entry: AdminEntry | Unreadable, now: datetime) -> tuple[str, ...]:
    if isinstance(entry, Unreadable):
        return (name, "Unknown", "LedgerUnreadable", "?", "?", "?")
    condition, following = entry.condition, entry.next_rotation_at
    ready, reason = ("Unknown", "") if condition is None else (str(condition.ready), condition.reason)
    later = "-" if following is None else f"in {age(following - now)}" if following > now else "due"
    rotated = f"{age(now - entry.last_rotated_at)} ago" if entry.last_rotated_at is not None else "never"
    return (name, ready, reason, str(len(entry.history) + (entry.intent is not None)), rotated, later)


def _notes(name: str, entry: AdminEntry | Unreadable, now: datetime) -> Iterable[str]:
    if isinstance(entry, Unreadable):
        yield f"{name}: its AdminKeyRotation is unreadable: {entry.message}"
        return
    if entry.condition is not None and not entry.condition.ready:
        yield f"{name}: {entry.condition.message}"
    current = entry.current
    if current is not None and current.expires_at is not None and current.expires_at - now < ENDS_SOON:
        yield f"{name}: the key ends at {format_time(current.expires_at)}"
    for key in entry.superseded:
        since = format_time(key.superseded_at) if key.superseded_at is not None else ""
        why = f": {key.held}" if key.held else ", its grace runs"
        yield f"{name}: former key {key.name or key.id} ({key.id}), replaced at {since}, still lives{why}"
    if entry.intent is not None:
        claimed = format_time(entry.intent.claimed_until)
        yield f"{name}: key {entry.intent.name} unpublished, claimed until {claimed}"


def _described(name: str, entry: AdminEntry | Unreadable, namespace: str) -> JSON:
    head: JSON = {"namespace": namespace, "secret": name}
    if isinstance(entry, Unreadable):
        return head | {"adminKey": None, "unreadable": entry.message}
    stored, condition = admin_entry_object(entry), entry.condition
    return head | {
        "adminKey": entry.key,
        "host": entry.host,
        "ledger": entry.ledger,
        "ready": condition.ready if condition is not None else None,
        "reason": condition.reason if condition is not None else None,
        "message": condition.message if condition is not None else None,
        **{key: value for key, value in stored["status"].items() if key != "conditions"},
        "accounts": [],
    }
