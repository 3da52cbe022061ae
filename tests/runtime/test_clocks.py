"""Whose time counts."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest

from tests.support.builders import NOW
from tests.support.clocks import StoppedClock
from worker.runtime.clocks import SystemClock, corrected


@pytest.mark.parametrize(
    ("difference", "offset"),
    [(0, 0), (1, 0), (5, 0), (-5, 0), (6, 6), (-6, -6), (600, 600), (-86400, -86400)],
)
def test_a_clock_follows_the_servers_where_they_differ(difference: int, offset: int) -> None:
    """A few seconds are the answer's own time; more is this machine's error."""
    clock = corrected(StoppedClock(), NOW + timedelta(seconds=difference))
    assert clock.now() == NOW + timedelta(seconds=offset)
    assert clock.monotonic() == 42.0


def test_a_clock_stays_as_it_is_without_the_servers_time() -> None:
    """A proxy may drop the header."""
    assert corrected(StoppedClock(), None).now() == NOW


@pytest.mark.parametrize(
    ("difference", "offset"),
    [(-400, 0), (0, 0), (-200, 0), (-410, -10), (60, 60), (-402, 0)],
)
def test_a_slow_answer_says_less_about_the_time(difference: int, offset: int) -> None:
    """A process that stood still for 400 s after the server's answer must not take its own clock for 400 s fast."""
    clock = corrected(StoppedClock(), NOW + timedelta(seconds=difference), taken=timedelta(seconds=400))
    assert clock.now() == NOW + timedelta(seconds=offset)


def test_the_systems_clock_is_aware_and_never_steps_back() -> None:
    """Times are compared with those of Kubernetes, which are in UTC."""
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert clock.monotonic() <= clock.monotonic()
