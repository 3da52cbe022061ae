"""The system's clock, and a clock put right by the API server's.

Guarantee: two workers on machines whose clocks are minutes apart agree on the time to within seconds, because both
take it from the `Date` of the API server's answers; claims and grace periods are compared across runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from worker.ports import Clock

TOLERATED = timedelta(seconds=5)
"""`Date` has whole seconds and the answer takes its time: a smaller difference is none."""


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
    """The clock, moved by its difference to the server's time where that is more than is tolerated.

    `taken`: how long ago the server may have looked at its clock at most, because the request took so long, or this
    process stood still after it. Of all differences that are possible then the smallest is taken.
    """
    if server_time is None:
        return CorrectedClock(clock, timedelta(0))
    smallest = server_time - clock.now()
    offset = min(max(timedelta(0), smallest), smallest + taken)
    return CorrectedClock(clock, offset if abs(offset) > TOLERATED else timedelta(0))
