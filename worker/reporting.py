"""What a run came to, as log fields, table rows and an exit code. Pure.

Guarantee: one `reason` and one `message` per outcome feed the log, the table, the conditions and the Events alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from worker.formats import format_time
from worker.model import JSON, Outcome, Ref, Result, Retired, RunInfo
from worker.sharding import Shard


@dataclass(frozen=True, slots=True)
class Report:
    run: RunInfo
    outcomes: tuple[Outcome, ...]
    retired: tuple[Retired, ...]
    unused: tuple[Ref, ...]
    seconds: float
    stopped: str | None = None
    """Why the run ended early, None where it did not."""
    shard: Shard = field(default_factory=Shard)


def exit_code(report: Report, *, strict: bool) -> int:
    """0: well, or nothing to do; 1: a target failed, or with `strict` is blocked."""
    results = {outcome.result for outcome in report.outcomes} | {item.result for item in report.retired}
    if Result.FAILED in results:
        return 1
    return 1 if strict and Result.BLOCKED in results else 0


def outcome_fields(outcome: Outcome) -> JSON:
    fields: JSON = {
        "namespace": outcome.target.namespace,
        "secret": outcome.target.name,
        "reason": outcome.reason,
        "message": outcome.message,
    }
    if outcome.source is not None:
        fields["source"] = str(outcome.source)
    if outcome.account is not None:
        fields["account"] = outcome.account
    if outcome.next_at is not None:
        fields["next"] = format_time(outcome.next_at)
    return fields


def retired_fields(retired: Retired) -> JSON:
    fields: JSON = {
        "namespace": retired.target.namespace,
        "secret": retired.target.name,
        "deleted": list(retired.deleted),
        "waiting": retired.waiting,
    }
    if retired.reason:
        fields["reason"] = retired.reason
    if retired.message:
        fields["message"] = retired.message
    if retired.next_at is not None:
        fields["next"] = format_time(retired.next_at)
    return fields


def is_news(retired: Retired) -> bool:
    """Is there anything to say about it?"""
    return bool(retired.deleted or retired.message or retired.waiting) or retired.result is not Result.KEPT


def run_fields(report: Report) -> JSON:
    counts = Counter(outcome.result for outcome in report.outcomes if outcome.reason != WOULD_ROTATE)
    fields: JSON = {result.value: counts[result] for result in Result}
    fields["deleted"] = sum(len(item.deleted) for item in report.retired)
    fields["waiting"] = sum(item.waiting for item in report.retired)
    stuck = Counter(item.result for item in report.retired)
    fields["retire_failed"] = stuck[Result.FAILED]
    fields["retire_blocked"] = stuck[Result.BLOCKED]
    fields["unused_generators"] = len(report.unused)
    fields["seconds"] = round(report.seconds, 1)
    if report.shard.count > 1:
        fields["shard"] = str(report.shard)
    if report.run.dry_run:
        fields["would_rotate"] = sum(outcome.reason == WOULD_ROTATE for outcome in report.outcomes)
    if lost := _not_ours(report):
        fields["to_adopt"] = lost
    if report.stopped is not None:
        fields["stopped"] = report.stopped
    return fields


def _not_ours(report: Report) -> int:
    """How many targets are another ledger's, or have accounts that this one has lost: `adopt` leads back."""
    items: tuple[Outcome | Retired, ...] = (*report.outcomes, *report.retired)
    return len({item.target for item in items if item.reason in ("ForeignLedger", "UnknownAccount")})


WOULD_ROTATE = "WouldRotate"
"""The reason of an outcome that a dry run has only planned."""

UNUSED = (
    "feeds nothing: name it in an ExternalSecret (dataFrom[].sourceRef.generatorRef), or set its annotation "
    "openai-key-rotator.io/secret to the name of a Secret"
)


HEADERS = ("NAMESPACE", "SECRET", "DONE", "WHY", "OTHER ACCOUNTS", "NEXT")


def rows(report: Report, now: datetime) -> list[tuple[str, ...]]:
    """One row per target: what was done, why, what became of its other accounts, and what happens next."""
    retired = {item.target: item for item in report.retired}
    shown = [_row(outcome, retired.pop(outcome.target, None), now) for outcome in sorted(report.outcomes, key=_order)]
    shown += [_retired_row(item, now) for item in retired.values() if is_news(item)]
    return shown


def _row(outcome: Outcome, retired: Retired | None, now: datetime) -> tuple[str, ...]:
    why = outcome.message
    if retired is not None and retired.result is not Result.KEPT and retired.message != outcome.message:
        why += f"; deleting older accounts {retired.result.value}: {retired.message}"
    elif retired is not None and retired.held:
        why += f"; {'; '.join(retired.held)}"
    target = outcome.target
    done = "would rotate" if outcome.reason == WOULD_ROTATE else outcome.result.value
    return (target.namespace, target.name, done, why, _others(retired), _next(outcome, now))


def _retired_row(item: Retired, now: datetime) -> tuple[str, ...]:
    """A target that nothing asks for any more."""
    done = item.result.value if item.result is not Result.KEPT else "retired"
    following = f"in {age(item.next_at - now)}" if item.next_at is not None and item.next_at > now else "-"
    return (item.target.namespace, item.target.name, done, item.message or item.reason, _others(item), following)


def _others(retired: Retired | None) -> str:
    if retired is None:
        return ""
    counts = {"deleted": len(retired.deleted), "held": len(retired.held)}
    counts["waiting"] = retired.waiting - counts["held"]
    parts = [f"{count} {word}" for word, count in counts.items() if count > 0]
    return ", ".join(parts) or "-"


def _next(outcome: Outcome, now: datetime) -> str:
    if outcome.next_at is None:
        return (
            "change it" if outcome.result is Result.BLOCKED else "next run" if outcome.result is Result.FAILED else "-"
        )
    return f"in {age(outcome.next_at - now)}" if outcome.next_at > now else "next run"


def _order(outcome: Outcome) -> tuple[str, str]:
    return outcome.target.namespace, outcome.target.name


def age(duration: timedelta) -> str:
    """A length of time as kubectl shows ages: two units at most."""
    seconds = max(0, int(duration.total_seconds()))
    days, hours, minutes = seconds // 86400, seconds % 86400 // 3600, seconds % 3600 // 60
    if days:
        return f"{days}d{hours}h" if hours and days < 8 else f"{days}d"
    if hours:
        return f"{hours}h{minutes}m" if minutes and hours < 8 else f"{hours}h"
    if minutes:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 and minutes < 8 else f"{minutes}m"
    return f"{seconds}s"


def table(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Aligned columns, two blanks apart, never cut: what kubectl's users read and grep."""
    printable = [[_one_line(cell) for cell in line] for line in (headers, *lines)]
    widths = [max(len(line[i]) for line in printable) for i in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in printable
    )


def _one_line(text: str) -> str:
    """Control characters, which a terminal would obey, are shown as `?`."""
    return "".join(char if char.isprintable() else "?" for char in text)
