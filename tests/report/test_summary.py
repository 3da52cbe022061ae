"""What a run came to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import NOW, RUN, SECRET, minutes
from worker.model.outcomes import Outcome, Report, Result, RetireOutcome
from worker.model.values import Ref
from worker.report.summary import exit_code, outcome_fields, retired_fields, run_fields
from worker.report.table import HEADERS, age, rows, table


def outcome(result: Result = Result.KEPT, secret: str = "creds", **more: Any) -> Outcome:
    values: dict[str, Any] = {"reason": "Why", "message": "words"}
    return Outcome(Ref("default", secret), result, **(values | more))


def report(*outcomes: Outcome, retired: tuple[RetireOutcome, ...] = (), **more: Any) -> Report:
    values: dict[str, Any] = {"unused": (), "seconds": 1.0}
    return Report(RUN, outcomes, retired, **(values | more))


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


def test_there_is_one_row_per_target_in_order() -> None:
    """With what became of its other accounts, and of targets that nobody asks for any more."""
    found = report(
        outcome(Result.ROTATED, "b", next_at=NOW + minutes(60)),
        outcome(Result.KEPT, "a", next_at=NOW - minutes(1)),
        outcome(Result.BLOCKED, "c"),
        outcome(Result.FAILED, "d"),
        outcome(Result.KEPT, "e", reason="WouldRotate"),
        retired=(
            RetireOutcome(Ref("default", "b"), deleted=("x", "y"), waiting=1),
            RetireOutcome(Ref("default", "gone"), deleted=("z",), message="deleted z"),
            RetireOutcome(Ref("default", "quiet")),
        ),
    )
    assert rows(found, NOW) == [
        ("default", "a", "kept", "words", "", "next run"),
        ("default", "b", "rotated", "words", "2 deleted, 1 waiting", "in 1h"),
        ("default", "c", "blocked", "words", "", "change it"),
        ("default", "d", "failed", "words", "", "next run"),
        ("default", "e", "would rotate", "words", "", "-"),
        ("default", "gone", "retired", "deleted z", "1 deleted", "-"),
    ]
    assert all(len(row) == len(HEADERS) for row in rows(found, NOW))


@pytest.mark.parametrize("result", [Result.KEPT, Result.ROTATED, Result.BLOCKED])
@pytest.mark.parametrize("retired", [Result.FAILED, Result.BLOCKED])
def test_a_deletion_that_did_not_happen_is_told_beside_any_outcome(result: Result, retired: Result) -> None:
    """The exit code may be 1 because of it, so the table has its words."""
    ((*_, why, _, _),) = rows(
        report(outcome(result), retired=(RetireOutcome(SECRET, retired, "No", "other words"),)), NOW
    )
    assert "words" in why
    assert "other words" in why


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=-5), "0s"),
        (timedelta(seconds=59), "59s"),
        (minutes(2), "2m"),
        (timedelta(seconds=150), "2m30s"),
        (timedelta(seconds=510), "8m"),
        (minutes(90), "1h30m"),
        (minutes(60 * 8 + 5), "8h"),
        (timedelta(days=1, hours=3), "1d3h"),
        (timedelta(days=8, hours=3), "8d"),
    ],
)
def test_ages_are_written_as_kubectl_does(duration: timedelta, text: str) -> None:
    """Two units at most."""
    assert age(duration) == text


def test_a_table_is_aligned_and_never_cut() -> None:
    """Two blanks apart, without trailing ones."""
    assert table(("A", "LONG"), [("x", "y"), ("longer", "z" * 200)]).split("\n") == [
        "A       LONG",
        "x       y",
        "longer  " + "z" * 200,
    ]


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_a_table_obeys_no_tenant(lines: list[tuple[str, str]]) -> None:
    """Control characters and line breaks are shown, not sent to the terminal."""
    text = table(("A", "B"), lines)
    assert text.count("\n") == len(lines)
    assert all(char.isprintable() or char == "\n" for char in text)
    text.encode()
