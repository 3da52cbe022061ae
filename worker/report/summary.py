"""The result of a run, as log fields, table rows and an exit code. Pure.

Guarantee: one `reason` and one `message` per outcome feed the log, the table, the conditions and the Events alike.
"""

from __future__ import annotations

from collections import Counter

from worker.model.faults import is_tenants
from worker.model.outcomes import WOULD_ROTATE, AdminKeyOutcome, Outcome, Report, RestartOutcome, Result, RetireOutcome
from worker.model.times import format_time
from worker.model.values import JSON


def exit_code(report: Report, *, strict: bool, spare_tenants: bool = False) -> int:
    """0: well, or nothing to do; 1: a target failed, or with `strict` is blocked.

    `spare_tenants`: a failure that is its tenant's own is left to its condition and its alert.
    """
    found: list[Outcome | RetireOutcome | RestartOutcome] = [*report.outcomes, *report.retired, *report.restarts]
    for item in found:
        if item.result is Result.FAILED:
            if not (spare_tenants and is_tenants(item.reason, central=item.target in report.central)):
                return 1
        elif strict and item.result is Result.BLOCKED:
            return 1
    # These keys are the operator's own.
    own = {item.result for item in report.admin_keys}
    return 1 if Result.FAILED in own or (strict and Result.BLOCKED in own) else 0


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
    # As OpenAI's API spells them, for these two are joined with its costs.
    if outcome.key_id is not None:
        fields["keyId"] = outcome.key_id
    if outcome.project_id is not None:
        fields["projectId"] = outcome.project_id
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
    if retired.deleted_keys:
        fields["deletedKeys"] = [
            {"account": key.account, "keyId": key.key_id, "projectId": key.project_id} for key in retired.deleted_keys
        ]
    if retired.reason:
        fields["reason"] = retired.reason
    if retired.message:
        fields["message"] = retired.message
    if retired.next_at is not None:
        fields["next"] = format_time(retired.next_at)
    return fields


def restart_fields(restarted: RestartOutcome) -> JSON:
    return {
        "namespace": restarted.target.namespace,
        "secret": restarted.target.name,
        "restarted": list(restarted.restarted),
        "reason": restarted.reason,
        "message": restarted.message,
    }


def admin_key_fields(outcome: AdminKeyOutcome) -> JSON:
    fields: JSON = {"secret": str(outcome.secret), "reason": outcome.reason, "message": outcome.message}
    if outcome.key is not None:
        fields["key"] = outcome.key
    if outcome.deleted or outcome.waiting:
        fields |= {"deleted": list(outcome.deleted), "waiting": outcome.waiting}
    if outcome.held:
        fields["held"] = list(outcome.held)
    if outcome.next_at is not None:
        fields["next"] = format_time(outcome.next_at)
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
    if report.restarts:
        done = "would_restart" if report.run.dry_run else "restarted"
        fields[done] = sum(len(item.restarted) for item in report.restarts)
        fields["restart_blocked"] = sum(item.result is Result.BLOCKED for item in report.restarts)
        fields["restart_failed"] = sum(item.result is Result.FAILED for item in report.restarts)
    if report.admin_keys:
        keys = Counter(item.result for item in report.admin_keys)
        fields["admin_keys_rotated"] = keys[Result.ROTATED]
        fields["admin_keys_deleted"] = sum(len(item.deleted) for item in report.admin_keys)
        fields["admin_keys_blocked"] = keys[Result.BLOCKED]
        fields["admin_keys_failed"] = keys[Result.FAILED]
    if lost := _not_ours(report):
        fields["to_adopt"] = lost
    if report.stopped is not None:
        fields["stopped"] = report.stopped
    return fields


def _not_ours(report: Report) -> int:
    """How many targets are another ledger's, or have accounts that this one has lost: `adopt` leads back."""
    items: tuple[Outcome | RetireOutcome, ...] = (*report.outcomes, *report.retired)
    return len({item.target for item in items if item.reason in ("ForeignLedger", "UnknownAccount")})
