"""The keys of a target over time: for each account the spans from its request to its end, or now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from worker.commands.audit.inventory import Standing
from worker.commands.audit.report import AuditedLine
from worker.model.entries import Entry, Intent, Publication
from worker.model.times import format_time

SHORTEST = timedelta(minutes=1)
"""The least that a picture covers."""


class Stage(StrEnum):
    """What an account was in a span of time."""

    UNPUBLISHED = "unpublished"
    CURRENT = "current"
    SUPERSEDED = "superseded"
    HELD = "held"
    """Superseded, and somebody holds its key."""


@dataclass(frozen=True, slots=True)
class Span:
    stage: Stage
    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Lane:
    """One account. `gone`: OpenAI does not have it; its spans end where the audit log says that somebody deleted it."""

    name: str
    spans: tuple[Span, ...]
    note: str = ""
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """The lanes of one target, the oldest account first, between two times."""

    begin: datetime
    end: datetime
    lanes: tuple[Lane, ...]

    def place(self, at: datetime) -> float:
        """The share of the picture's width, from 0 to 1, that lies before this time."""
        share = (at - self.begin) / (self.end - self.begin)
        return min(1.0, max(0.0, share))


def timeline_of(entry: Entry, lines: Iterable[AuditedLine], now: datetime) -> Timeline | None:
    """None: the ledger records no account of the target."""
    known = {item.line.account_name: item for item in lines}
    items: tuple[Publication | Intent, ...] = (*entry.history, *entry.unpublished)
    lanes = [_lane(item, known, now) for item in items]
    if not lanes:
        return None
    begin = min(span.begin for lane in lanes for span in lane.spans)
    ordered = sorted(lanes, key=lambda lane: (lane.spans[0].begin, lane.name))
    return Timeline(min(begin, now - SHORTEST), now, tuple(ordered))


def _lane(item: Publication | Intent, known: Mapping[str, AuditedLine], now: datetime) -> Lane:
    found = known.get(item.account.name)
    gone = found is not None and found.line.standing is Standing.GONE
    deleted = found.deleted if found is not None and gone else None
    end = min(deleted.at, now) if deleted is not None else now
    return Lane(item.account.name, tuple(_spans(item, end)), "; ".join(_notes(item, found, gone=gone)), gone)


def _spans(item: Publication | Intent, end: datetime) -> Iterator[Span]:
    if isinstance(item, Intent):
        yield Span(Stage.UNPUBLISHED, min(item.requested_at, end), end)
        return
    asked = min(item.requested_at or item.at, item.at)
    published = min(item.at, end)
    superseded = min(item.superseded_at or end, end)
    yield Span(Stage.UNPUBLISHED, min(asked, published), published)
    yield Span(Stage.CURRENT, published, max(published, superseded))
    if item.superseded_at is not None:
        held = item.held
        since = min(max(held.since, superseded), end) if held is not None else end
        yield Span(Stage.SUPERSEDED, superseded, since)
        if held is not None:
            yield Span(Stage.HELD, since, end)


def _notes(item: Publication | Intent, found: AuditedLine | None, *, gone: bool) -> Iterator[str]:
    if isinstance(item, Intent):
        yield f"unpublished, asked for at {format_time(item.requested_at)}"
    elif item.superseded_at is None:
        yield f"current since {format_time(item.at)}"
    elif item.held is not None:
        yield f"superseded, held ({item.held.why})"
    else:
        yield f"superseded at {format_time(item.superseded_at)}"
    if gone:
        deleted = found.deleted if found is not None else None
        yield f"deleted by {deleted.actor} at {format_time(deleted.at)}" if deleted is not None else "not at OpenAI"
