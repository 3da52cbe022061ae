"""Superseded accounts that stay although their grace has passed: why, since when, and the notices. Pure.

Guarantees: a hold that continues keeps its start, also where the holder changes.
Each important change of a hold produces one notice.
The text stays the same from run to run as long as the facts do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from worker.model.entries import Entry, Hold, HoldKind, HoldReason, Publication
from worker.model.outcomes import Notice
from worker.model.times import format_time

EVENT_AFTER = timedelta(days=1)
"""An Event tells of a hold once it lasts this long, and again when the held key ends by itself within this time."""

_SHOWN = 3


def hold_reason(text: str) -> HoldReason:
    """Parse a reason from its text in the ledger. A text that begins like no other kind names containers."""
    for kind in HoldKind:
        if kind is not HoldKind.CONTAINERS and text.startswith(kind.value):
            return HoldReason(kind, text.removeprefix(kind.value))
    return HoldReason(HoldKind.CONTAINERS, text)


def with_reasons(
    entry: Entry, reasons: Mapping[str, HoldReason | None], now: datetime
) -> tuple[Entry, tuple[Notice, ...]]:
    """The entry with its holds, and the new notices. `reasons`: by account name, None where nothing holds it."""
    history, notices = [], []
    for publication in entry.history:
        reason, before = reasons.get(publication.account.name), publication.held
        hold = None
        if reason is not None:
            hold = replace(before, reason=reason) if before is not None else Hold(reason, now)
            event = _event_reason(publication, hold, now)
            if event is not None and event != hold.event_reason:
                hold = replace(hold, event_reason=event)
                notices.append(Notice(event, _event_message(publication, hold)))
        history.append(replace(publication, held=hold))
    return replace(entry, history=tuple(history)), tuple(notices)


def ended(publication: Publication, affected: HoldReason, why: str) -> Notice:
    """The notice about a deleted account that somebody still held."""
    message = (
        f"account {publication.account.name} was deleted, {why}, and was still held: {affected}; whoever has its key"
    )
    return Notice("HoldEnded", f"{message} has a dead one now, until it reads the Secret anew")


def in_words(entry: Entry) -> str:
    """For the condition: the held accounts, since when and why. It is empty where only passing errors hold them."""
    known = [(p.account.name, p.held) for p in entry.history if p.held is not None]
    held = [(name, hold) for name, hold in known if hold.kind is not HoldKind.PASSING]
    if not held:
        return ""
    shown = [f"{name} since {format_time(hold.since)} ({hold.why})" for name, hold in held[:_SHOWN]]
    more = f", and {len(held) - _SHOWN} more" if len(held) > _SHOWN else ""
    return f"; {len(held)} earlier held: {', '.join(shown)}{more}"


def soon_dead(entry: Entry, now: datetime) -> str:
    """For the message about a target that gets no new key: when the one in its Secret ends by itself, if soon."""
    at = next((p.account.expires_at for p in entry.history if p.superseded_at is None), None)
    if at is None or at > now + EVENT_AFTER:
        return ""
    return f"; the key in its Secret {'ends' if at > now else 'has ended'} by itself at {format_time(at)}"


def _event_reason(publication: Publication, hold: Hold, now: datetime) -> str | None:
    expires = publication.account.expires_at
    if expires is not None and expires <= now + EVENT_AFTER:
        return "KeyExpiring"
    # An unseen consumer loses the key when the hold ends: the notice comes while a human can still act.
    return "KeyHeld" if hold.since + EVENT_AFTER <= now or hold.kind is HoldKind.UNSEEN else None


def _event_message(publication: Publication, hold: Hold) -> str:
    account = publication.account
    superseded = f", superseded at {format_time(publication.superseded_at)}," if publication.superseded_at else ""
    message = f"account {account.name}{superseded} is held since {format_time(hold.since)}: {hold.why}"
    if account.expires_at is not None:
        message += f"; its key ends by itself at {format_time(account.expires_at)}"
    if hold.kind is HoldKind.UNSEEN:
        return f"{message}; have whoever uses it read the Secret anew"
    if hold.kind in (HoldKind.STUCK, HoldKind.PASSING):
        return message
    if hold.kind is HoldKind.FROZEN:
        return (
            f"{message}; a restart does not help: give the target another name and move them to it, or scale all of "
            "them to 0 at once"
        )
    return f"{message}; restart what uses it (kubectl rollout restart): it goes with the run after that"
