"""`status`: the state of every target, read from the ledger alone.

Guarantee: `openai-key-rotator status` needs no access to OpenAI, to Secrets or to other namespaces.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime

from worker.commands.session import Session
from worker.commands.status_admin_keys import AdminEntries, admin_keys_as_json, admin_keys_as_text
from worker.errors import OutOfReach, RotatorError
from worker.ledger.admin_store import AdminLedger
from worker.ledger.codec import entry_object
from worker.ledger.store import Ledger, ledger_uid
from worker.model.entries import Entry, Publication, Restart, RestartState, Unreadable, current
from worker.model.times import format_time
from worker.model.values import JSON, Ref
from worker.plan.admin_keys import ENDS_SOON
from worker.plan.retirement import ripe_at
from worker.report.table import age, table

HEADERS = ("NAMESPACE", "SECRET", "READY", "REASON", "ACCOUNTS", "ROTATED", "NEXT", "OLDEST KEY")


async def execute(session: Session) -> int:
    """Show every target. Raises OutOfReach where the ledger cannot be read."""
    ledger = Ledger(session.cluster, session.settings.options.ledger_namespace, "", clock=session.clock)
    uid = None
    with suppress(OutOfReach):  # Entries are enough; the namespace only tells which ledger is this one.
        uid = (await ledger_uid(session.cluster, ledger.namespace))[0]
    namespaces = session.settings.options.namespaces
    found = await ledger.read_all()
    entries = {ref: entry for ref, entry in found.items() if not namespaces or ref.namespace in namespaces}
    admin_keys: AdminEntries = {}
    # A look at some tenants' namespaces leaves out what is the operator's own.
    if not namespaces:
        with suppress(RotatorError):  # the kind came with a later version, and few installations have such objects
            admin_keys = await AdminLedger(session.cluster, session.clock, ledger.namespace, uid or "").read_all()
    if session.settings.as_table and found and not entries:
        print(f"no targets in {', '.join(namespaces)}")
    elif session.settings.as_table:
        print(as_text(entries, session.clock.now(), uid))
        if admin_keys:
            print("\n" + admin_keys_as_text(admin_keys, session.clock.now()))
    else:
        print(json.dumps(as_json(entries, uid) + admin_keys_as_json(admin_keys, ledger.namespace), indent=2))
    return 0


def as_json(entries: Mapping[Ref, Entry | Unreadable], ledger: str | None) -> list[JSON]:
    """Each target's ledger entry, and the state and the end of stay of each of its accounts.

    `ledger`: the uid of this ledger, None where it may not be read.
    """
    return [_described(ref, entry, ledger) for ref, entry in sorted(entries.items(), key=lambda item: item[0])]


def as_text(entries: Mapping[Ref, Entry | Unreadable], now: datetime, ledger: str | None) -> str:
    """A table, and below it the problems, and the accounts that wait, each with its reason."""
    ordered = sorted(entries.items(), key=lambda item: item[0])
    if not ordered:
        return "no targets: the ledger is empty"
    lines = [_row(ref, entry, now, ledger=ledger) for ref, entry in ordered]
    notes = [note for ref, entry in ordered for note in _notes(ref, entry, now, ledger=ledger)]
    uids = {entry.ledger for _, entry in ordered if isinstance(entry, Entry)}
    if ledger is None and len(uids) > 1:
        notes.append(
            f"the entries are those of {len(uids)} ledgers: `openai-key-rotator adopt` tells which is this one's"
        )
    return "\n".join([table(HEADERS, lines), *([""] if notes else []), *notes])


def _row(ref: Ref, entry: Entry | Unreadable, now: datetime, *, ledger: str | None) -> tuple[str, ...]:
    if isinstance(entry, Unreadable):
        return (ref.namespace, ref.name, "Unknown", "LedgerUnreadable", "?", "?", "?", "?")
    condition = entry.condition
    ready, reason = ("Unknown", "") if condition is None else (str(condition.ready), condition.reason)
    if _is_foreign(entry, ledger):
        ready, reason = "Unknown", "ForeignLedger"
    return (
        ref.namespace,
        ref.name,
        ready,
        reason,
        str(len(entry.history) + len(entry.unpublished)),
        f"{age(now - entry.last_rotated_at)} ago" if entry.last_rotated_at else "never",
        _next(entry.next_rotation_at, now),
        age(now - min(p.at for p in entry.history)) if entry.history else "-",
    )


def _next(at: datetime | None, now: datetime) -> str:
    if at is None:
        return "-"
    return f"in {age(at - now)}" if at > now else f"due for {age(now - at)}"


def _is_foreign(entry: Entry, ledger: str | None) -> bool:
    return ledger is not None and entry.ledger != ledger


def _notes(ref: Ref, entry: Entry | Unreadable, now: datetime, *, ledger: str | None) -> Iterable[str]:
    if isinstance(entry, Unreadable):
        yield f"{ref}: ledger entry {entry.name} is unreadable: {entry.message}"
        return
    if _is_foreign(entry, ledger):
        yield f"{ref}: written by another ledger ({entry.ledger[:40]}): see `openai-key-rotator adopt {ref}`"
    if entry.condition is not None and not entry.condition.ready:
        yield f"{ref}: {entry.condition.message}"
    if entry.admin_key_ends_at is not None and entry.admin_key_ends_at - now < ENDS_SOON:
        yield f"{ref}: its admin key ends at {format_time(entry.admin_key_ends_at)}"
    if entry.failures.count:
        later = entry.failures.next_attempt_at
        when = f"not before {format_time(later)}" if later is not None and later > now else "with the next run"
        yield f"{ref}: {entry.failures.count} failed attempts, next one {when}"
    publication = current(entry)
    if publication is not None and publication.restart is not None:
        yield f"{ref}: restart for account {publication.account.name}: {_restart(publication.restart)}"
    for name, state in _accounts(entry):
        if state != "current":
            yield f"{ref}: account {name} {state}"


def _accounts(entry: Entry) -> Iterable[tuple[str, str]]:
    for publication in entry.history:
        ripe = ripe_at(publication, entry.generator.cleanup)
        if ripe is None:
            yield publication.account.name, "current"
        elif publication.held is not None:
            hold = publication.held
            yield (
                publication.account.name,
                f"superseded, held since {format_time(hold.since)}: {hold.why}{_end(publication)}",
            )
        else:
            yield publication.account.name, f"superseded, stays until {format_time(ripe)} at least"
    for intent in entry.unpublished:
        yield intent.account.name, f"unpublished, claimed until {format_time(intent.claimed_until)}"


def _restart(restart: Restart) -> str:
    parts = [f"{', '.join(restart.done)} done"] if restart.done else []
    if restart.state is not RestartState.DONE:
        parts.append("due with the next run" if restart.state is RestartState.DUE else restart.state.value.lower())
    return ", ".join(parts) + (f": {restart.why}" if restart.why and parts else restart.why)


def _end(publication: Publication) -> str:
    at = publication.account.expires_at
    return "" if at is None else f"; its key lives until {format_time(at)}"


def _described(ref: Ref, entry: Entry | Unreadable, ledger: str | None) -> JSON:
    if isinstance(entry, Unreadable):
        return {"namespace": ref.namespace, "secret": ref.name, "unreadable": entry.message}
    stored = entry_object(entry)
    states = dict(_accounts(entry))
    accounts = stored["status"].pop("accounts", {})
    return {
        "namespace": ref.namespace,
        "secret": ref.name,
        "generator": entry.generator.name,
        "ledger": entry.ledger,
        "foreign": None if ledger is None else _is_foreign(entry, ledger),
        "ready": entry.condition.ready if entry.condition is not None else None,
        "reason": entry.condition.reason if entry.condition is not None else None,
        "message": entry.condition.message if entry.condition is not None else None,
        **{key: value for key, value in stored["status"].items() if key != "conditions"},
        "accounts": [{"name": name, "state": states[name], **account} for name, account in accounts.items()],
    }
