"""The result of a run, as log fields, table rows and an exit code. Pure.

Guarantee: one `reason` and one `message` per outcome feed the log, the table, the conditions and the Events alike.
"""

from __future__ import annotations

from collections import Counter

from worker.model.outcomes import WOULD_ROTATE, Outcome, Report, Result, RetireOutcome
from worker.model.times import format_time
from worker.model.values import JSON

_OF_THE_RUN = frozenset(
    {
        "ClockJumped",
        "ClusterCertificate",
        "ClusterUnanswered",
        "ClusterUnauthorized",
        "ClusterUnreachable",
        "DeadlineExceeded",
        "ExternalSecretsNotServed",
        "InternalError",
        "LedgerNotWritten",
        "PodsForbidden",
        "Stopped",
    }
)
"""Reasons of a failure that whoever runs the worker can mend, and no tenant."""


def exit_code(report: Report, *, strict: bool, lenient: bool = False) -> int:
    """0: well, or nothing to do; 1: a target failed, or with `strict` is blocked.

    With `lenient` a target's own failure is left to its condition and its alert; what the run itself failed at is not.
    """
    found: list[Outcome | RetireOutcome] = [*report.outcomes, *report.retired]
    failed = {item.reason for item in found if item.result is Result.FAILED}
    if lenient:
        failed &= _OF_THE_RUN
    if failed:
        return 1
    return 1 if strict and any(item.result is Result.BLOCKED for item in found) else 0


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


def retired_fields(retired: RetireOutcome) -> JSON:
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


def is_news(retired: RetireOutcome) -> bool:
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
    items: tuple[Outcome | RetireOutcome, ...] = (*report.outcomes, *report.retired)
    return len({item.target for item in items if item.reason in ("ForeignLedger", "UnknownAccount")})
