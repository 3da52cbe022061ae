"""The system's clock, and a clock put right by the API server's.

Guarantee: two workers agree on the time to within seconds, even if their machines' clocks are minutes apart.
Both take the time from the `Date` of the API server's answers. Runs compare each other's claims and grace periods.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from worker.ports import Clock

TOLERATED = timedelta(seconds=5)
"""`Date` has whole seconds and the answer takes its time: a smaller difference counts as none."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class CorrectedClock:
    base: Clock
    offset: timedelta

    def now(self) -> datetime:
        return self.base.now() + self.offset

    def monotonic(self) -> float:
        return self.base.monotonic()


def corrected(clock: Clock, server_time: datetime | None, *, taken: timedelta = timedelta(0)) -> CorrectedClock:
    """The clock, moved by its difference to the server's time if that exceeds `TOLERATED`.

    `taken`: the greatest possible age of the server's time.
    """
    # A slow request, or a pause of this process after it, makes several differences possible: take the smallest.
    if server_time is None:
        return CorrectedClock(clock, timedelta(0))
    smallest = server_time - clock.now()
    offset = min(max(timedelta(0), smallest), smallest + taken)
    return CorrectedClock(clock, offset if abs(offset) > TOLERATED else timedelta(0))
