"""A clock that stands still."""

from __future__ import annotations

from datetime import datetime

from tests.support.builders import NOW


class StoppedClock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 42.0
