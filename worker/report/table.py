"""The table of a run for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from worker.model.outcomes import WOULD_ROTATE, AdminKeyOutcome, Outcome, Report, RestartOutcome, Result, RetireOutcome
from worker.report.summary import is_news

HEADERS = ("NAMESPACE", "SECRET", "DONE", "WHY", "OTHER ACCOUNTS", "NEXT")


def rows(report: Report, now: datetime) -> list[tuple[str, ...]]:
    """One row per target: the result, its reason, the fate of its other accounts, and the next step."""
    retired = {item.target: item for item in report.retired}
    restarts = {item.target: item for item in report.restarts}
    shown = [
        _row(outcome, retired.pop(outcome.target, None), now, restart=restarts.get(outcome.target))
        for outcome in sorted(report.outcomes, key=_order)
    ]
    shown += [_retired_row(item, now) for item in retired.values() if is_news(item)]
    return shown + [_admin_key_row(item, now) for item in report.admin_keys]


def _row(
    outcome: Outcome, retired: RetireOutcome | None, now: datetime, *, restart: RestartOutcome | None
) -> tuple[str, ...]:
    why = outcome.message
    if restart is not None:
        why += f"; {restart.message}"
    if retired is not None and retired.result is not Result.KEPT and retired.message != outcome.message:
        why += f"; deleting older accounts {retired.result.value}: {retired.message}"
    elif retired is not None and retired.held:
        why += f"; {'; '.join(retired.held)}"
    target = outcome.target
    done = "would rotate" if outcome.reason == WOULD_ROTATE else outcome.result.value
    return (target.namespace, target.name, done, why, _others(retired), _next(outcome, now))


def _retired_row(item: RetireOutcome, now: datetime) -> tuple[str, ...]:
    """A target that nothing asks for any more."""
    done = item.result.value if item.result is not Result.KEPT else "retired"
    following = f"in {age(item.next_at - now)}" if item.next_at is not None and item.next_at > now else "-"
    return (item.target.namespace, item.target.name, done, item.message or item.reason, _others(item), following)


def _admin_key_row(item: AdminKeyOutcome, now: datetime) -> tuple[str, ...]:
    """A Secret beside the ledger, whose admin key rotates."""
    done = "would rotate" if item.reason == WOULD_ROTATE else item.result.value
    why = "; ".join([f"admin key: {item.message}", *item.held])
    counts = {"deleted": len(item.deleted), "held": len(item.held), "waiting": item.waiting - len(item.held)}
    others = ", ".join(f"{count} {word}" for word, count in counts.items() if count > 0) or "-"
    following = f"in {age(item.next_at - now)}" if item.next_at is not None and item.next_at > now else "next run"
    return (item.secret.namespace, item.secret.name, done, why, others, following)


def _others(retired: RetireOutcome | None) -> str:
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
    """Aligned columns, two blanks apart, never cut: kubectl's users read and grep such tables."""
    printable = [[_one_line(cell) for cell in line] for line in (headers, *lines)]
    widths = [max(len(line[i]) for line in printable) for i in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in printable
    )


def _one_line(text: str) -> str:
    """Control characters, which a terminal would obey, are shown as `?`."""
    return "".join(char if char.isprintable() else "?" for char in text)
