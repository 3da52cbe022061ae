"""What a run came to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.builders import NOW, SECRET
from tests.support.reports import outcome, report
from worker.model.outcomes import Report, Result, RetireOutcome
from worker.report.summary import exit_code, outcome_fields, retired_fields, run_fields

OK, BLOCKED, FAILED = (outcome(r) for r in (Result.KEPT, Result.BLOCKED, Result.FAILED))


@pytest.mark.parametrize(
    ("found", "code", "strict"),
    [
        (report(), 0, 0),
        (report(OK), 0, 0),
        (report(outcome(Result.ROTATED)), 0, 0),
        (report(OK, BLOCKED), 0, 1),
        (report(OK, FAILED), 1, 1),
        (report(OK, retired=(RetireOutcome(SECRET),)), 0, 0),
        (report(OK, retired=(RetireOutcome(SECRET, waiting=3),)), 0, 0),
        (report(OK, retired=(RetireOutcome(SECRET, Result.BLOCKED),)), 0, 1),
        (report(OK, retired=(RetireOutcome(SECRET, Result.FAILED),)), 1, 1),
        (report(OK, unused=(SECRET,)), 0, 0),
    ],
)
def test_the_exit_code_tells_a_failure_and_strictly_a_block(found: Report, code: int, strict: int) -> None:
    """Of a rotation as of a deletion."""
    assert (exit_code(found, strict=False), exit_code(found, strict=True)) == (code, strict)


@pytest.mark.parametrize(
    ("reason", "code", "central"),
    [
        ("AdminKeyMissing", 0, 1),
        ("OpenAIUnauthorized", 0, 1),
        ("OpenAIThrottled", 0, 1),
        ("ClusterRefused", 0, 0),
        ("ScopesRefused", 0, 0),
        ("Conflict", 0, 0),
        ("OpenAIUnreachable", 1, 1),
        ("DeadlineExceeded", 1, 1),
        ("PodsForbidden", 1, 1),
        ("Forbidden", 1, 1),
        ("ClusterUnreachable", 1, 1),
        ("InternalError", 1, 1),
        ("SomethingNew", 1, 1),
    ],
)
def test_a_run_that_spares_tenants_fails_for_what_is_the_platforms_alone(reason: str, code: int, central: int) -> None:
    """`KubeJobFailed` and Argo CD read the exit code. The keeper of a central admin key is the platform."""
    of_rotation = report(OK, replace(FAILED, reason=reason))
    of_deletion = report(OK, retired=(RetireOutcome(SECRET, Result.FAILED, reason),))
    for found in (of_rotation, of_deletion):
        assert exit_code(found, strict=False) == 1
        assert exit_code(found, strict=False, spare_tenants=True) == code
        served = replace(found, central=frozenset({SECRET, FAILED.target}))
        assert exit_code(served, strict=False, spare_tenants=True) == central


def test_one_failure_of_the_platforms_is_enough() -> None:
    """However many are tenants'."""
    tenants, ours = (replace(FAILED, reason=reason) for reason in ("AdminKeyMissing", "InternalError"))
    assert exit_code(report(tenants, tenants), strict=False, spare_tenants=True) == 0
    assert exit_code(report(tenants, ours, tenants), strict=False, spare_tenants=True) == 1


def test_a_run_is_counted() -> None:
    """Every result has its number, also nought."""
    retired = RetireOutcome(SECRET, deleted=("a", "b"), waiting=1)
    fields = run_fields(report(OK, FAILED, FAILED, retired=(retired,), unused=(SECRET,), stopped="S"))
    expected = {"kept": 1, "failed": 2, "rotated": 0, "blocked": 0, "deleted": 2, "waiting": 1, "unused_generators": 1}
    assert expected.items() <= fields.items()
    assert fields["stopped"] == "S"
    assert "dry_run" not in fields


def test_absent_facts_are_left_out() -> None:
    """A line has what there is to say."""
    assert set(outcome_fields(OK)) == {"namespace", "secret", "reason", "message"}
    assert set(retired_fields(RetireOutcome(SECRET))) == {"namespace", "secret", "deleted", "waiting"}
    full = retired_fields(RetireOutcome(SECRET, Result.FAILED, "Why", "words", ("a",), 1, NOW))
    assert (full["reason"], full["message"], full["next"]) == ("Why", "words", "2026-11-24T10:00:00Z")
