"""The end of a command: a deadline, or a signal. No new step begins after it."""

from __future__ import annotations

import asyncio

KEPT_FOR_THE_END = 0.15
"""Share of a run's time that steps under way may use: no new step starts within it."""


LONGEST_KEPT = 150.0
"""Seconds: no step takes longer."""


class Stop:
    """Callers ask it before each new step. `deadline` and `last_start` are times of the event loop, in seconds."""

    def __init__(self, *, last_start: float, deadline: float) -> None:
        self.last_start = last_start
        self.deadline = deadline
        self._asked = asyncio.Event()

    @classmethod
    def within(cls, seconds: float) -> Stop:
        """For a run that begins now and ends within so many seconds."""
        deadline = asyncio.get_running_loop().time() + seconds
        return cls(last_start=deadline - min(LONGEST_KEPT, seconds * KEPT_FOR_THE_END), deadline=deadline)

    def ask(self) -> None:
        """Allow no new step from now on (SIGTERM)."""
        self._asked.set()

    @property
    def reason(self) -> str | None:
        """The reason why no new step may start; None: it may."""
        if self._asked.is_set():
            return "Stopped"
        return "DeadlineExceeded" if asyncio.get_running_loop().time() >= self.last_start else None

    @property
    def remaining(self) -> float:
        """Seconds in which new steps may still start."""
        return max(0.0, self.last_start - asyncio.get_running_loop().time())

    def for_stage(self, share: float) -> Stop:
        """The same for a stage of the run that begins now: its new steps start within this share of the time left."""
        stage = Stop(last_start=self.last_start - self.remaining * (1 - share), deadline=self.deadline)
        stage._asked = self._asked
        return stage

    async def sleep(self, seconds: float) -> None:
        """Sleep, but wake at once when stopped."""
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            return
