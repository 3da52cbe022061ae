"""Times and durations."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.model.times import LONGEST, format_duration, format_time, parse_duration, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("90s", 90),
        ("2m", 120),
        ("1h30m", 5400),
        ("1h0m0s", 3600),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("1m1m", 120),
        ("3us", 3e-6),
        ("3µs", 3e-6),
        ("1000ns", 1e-6),
        ("0.000000001h", 3e-6),
        ("999ns", 0),
        ("87600h", LONGEST.total_seconds()),
    ],
)
def test_durations_are_read_as_kubernetes_writes_them(text: str, seconds: float) -> None:
    """Each unit and any order of them."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", " ", "1", "60", "1d", "1w", "-1s", "+1s", "1h ", " 1h", "h", "1H", "1h-5m", "1e3s", "٣s", "87601h", "9" * 500]
    + ["87600h1ns", "9" * 12 + "h", "1s" * 33, "1h" * 500_000]
    + [None, 60, 1.5, True, [], {}, b"1h"],
)
def test_what_is_not_a_duration_is_refused_in_few_words(text: object) -> None:
    """ValueError and no other error, quoting at most 40 characters."""
    with pytest.raises(ValueError, match="duration") as caught:
        parse_duration(text)
    assert len(str(caught.value)) < 120


@given(st.integers(min_value=0, max_value=int(LONGEST.total_seconds())))
def test_whole_seconds_survive_a_round_trip(seconds: int) -> None:
    """What is written can be read again, and is the same."""
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@given(st.text(max_size=200))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    """No other error comes out of a tenant's text."""
    with contextlib.suppress(ValueError):
        assert timedelta(0) <= parse_duration(text) <= LONGEST


@pytest.mark.parametrize(
    "text", ["2026-11-24T10:00:00Z", "2026-11-24T11:00:00+01:00", "2026-11-24T10:00:00.000000Z", "2026-11-24 10:00:00Z"]
)
def test_times_are_read_in_any_zone(text: str) -> None:
    """Kubernetes writes Z; a human who edits may write another zone."""
    assert parse_time(text) == datetime(2026, 11, 24, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026-11-24T10:00:00", "2026-13-01T00:00:00Z", "x" * 500, None, 1, 1e9, [], {}]
    + ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"],
)
def test_what_is_not_a_time_is_refused_in_few_words(text: object) -> None:
    """ValueError and no other error, also at the ends of the calendar."""
    with pytest.raises(ValueError, match="time") as caught:
        parse_time(text)
    assert len(str(caught.value)) < 120


@given(st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)))
def test_times_survive_a_round_trip_to_the_second(time: datetime) -> None:
    """metav1.Time has whole seconds."""
    assert parse_time(format_time(time)) == time.replace(microsecond=0)


def test_times_are_written_in_utc() -> None:
    """Whatever zone they were in."""
    time = datetime(2026, 11, 24, 11, tzinfo=timezone(timedelta(hours=1)))
    assert format_time(time) == "2026-11-24T10:00:00Z"
