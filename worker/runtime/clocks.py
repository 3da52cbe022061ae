"""The system's clock, and the clock of a run, which the API server's answers put right.

Guarantees:
- Two workers on machines whose clocks are minutes apart agree on the time to within seconds.
- A step of this machine's clock moves no time of the run.
- `elapsed` counts the time for which the machine slept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from worker.ports import Clock

TOLERATED = timedelta(seconds=5)
"""`Date` has whole seconds and the answer takes its time: a smaller difference is none."""
JUMP = timedelta(minutes=5)
"""An API server's clock that moves this far against this machine's clocks was set while the run went on.

The clocks of several API servers may differ by less: the run keeps to the first one's.
"""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment by three clocks: the monotonic one, this machine's time of day, the run's time."""

    monotonic: float
    wall: datetime
    at: datetime


class RunClock:
    """The time of a run: the API server's, carried on by this machine's monotonic clock.

    `jumped`: somebody has set the API server's clock during this run. Times of before and after do not compare.
    """

    def __init__(self, base: Clock, offset: timedelta = timedelta(0)) -> None:
        self._base = base
        self._since = base.monotonic()
        self._then = base.now() + offset
        self._wall = base.now()
        self._doubt: timedelta | None = None
        self.jumped = False

    def now(self) -> datetime:
        return self._then + timedelta(seconds=self._base.monotonic() - self._since)

    def monotonic(self) -> float:
        return self._base.monotonic()

    def instant(self) -> Instant:
        return Instant(self._base.monotonic(), self._base.now(), self.now())

    def elapsed(self, since: Instant) -> float:
        """Seconds since then, by the clock that says most: the monotonic one stands still while the machine sleeps."""
        by_day = max(self._base.now() - since.wall, self.now() - since.at)
        return max(self._base.monotonic() - since.monotonic, by_day.total_seconds())

    def heard(self, server_time: datetime, *, taken: timedelta) -> None:
        """Put the clock right by an answer of the API server, which took so long."""
        offset = _offset(self.now(), server_time, taken)
        if abs(offset) <= TOLERATED:
            self._doubt = None
            return
        slept = self._base.now() - self._wall - timedelta(seconds=self._base.monotonic() - self._since)
        # The monotonic clock stands still while the machine sleeps. This machine's time of day then moves as well.
        if abs(offset - slept) > TOLERATED and abs(offset) <= JUMP:
            return
        if abs(offset - slept) > JUMP:
            doubt, self._doubt = self._doubt, offset
            if doubt is None or abs(offset - doubt) > TOLERATED:
                # One answer may come from a replica whose clock is wrong, or from something in between.
                return
            self.jumped = True
        self._doubt = None
        self._then = self.now() + offset
        self._since, self._wall = self._base.monotonic(), self._base.now()


def corrected(clock: Clock, server_time: datetime | None, *, taken: timedelta = timedelta(0)) -> RunClock:
    """The clock of a run, moved by its difference to the server's time where that is more than is tolerated.

    `taken`: the server looked at its clock at most so long ago: the request was slow, or this process stood still.
    """
    if server_time is None:
        return RunClock(clock)
    offset = _offset(clock.now(), server_time, taken)
    return RunClock(clock, offset if abs(offset) > TOLERATED else timedelta(0))


def _offset(now: datetime, server_time: datetime, taken: timedelta) -> timedelta:
    """The smallest difference that is possible."""
    smallest = server_time - now
    return min(max(timedelta(0), smallest), smallest + taken)
