"""The table of a run."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import NOW, SECRET, minutes
from tests.support.reports import outcome, report
from worker.model.outcomes import Result, RetireOutcome
from worker.model.values import Ref
from worker.report.table import HEADERS, age, rows, table


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
