"""An event loop whose time passes at once: where it would wait, it moves its clock instead.

Guarantees: `asyncio.sleep` and `asyncio.timeout` follow it; a loop in which everything waits for nothing raises instead
of hanging; the death of a process that a test plays (`KeyboardInterrupt` in a task) is told once, by the run's end.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(RuntimeError):
    """Nothing is ready and nothing is scheduled."""


class _Selector(selectors.DefaultSelector):
    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("every task waits for something that will never happen")
        self.loop.moment += max(0.0, timeout)
        return super().select(0)


def _told(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody retrieved. Of a death nobody is left to retrieve it, and it would be logged into a later test."""
    if not isinstance(context.get("exception"), KeyboardInterrupt):
        loop.default_exception_handler(context)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`moment`: the loop's time in seconds."""

    def __init__(self, moment: float) -> None:
        self.moment = moment
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self.set_exception_handler(_told)
        self._clock_resolution = 1e-6  # after years a float is no finer: time would stand still right before a timer

    def time(self) -> float:
        return self.moment


def run_virtually(coroutine: Coroutine[Any, Any, T], moment: float) -> tuple[T, float]:
    """Run to the end from `moment` on; the result and the moment it was there."""
    loop = VirtualTimeLoop(moment)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(coroutine)
        return result, loop.moment
