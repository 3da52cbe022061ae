"""The machines that runs are on: each has its own time of day and timers, may fall asleep, or stop its process.

Guarantees: while a machine sleeps its monotonic clock and its timers stand still; everybody else goes on.
While a process is stopped its clock goes on; timers that were due meanwhile fire when it goes on.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, TypeVarTuple

from tests.support.virtual_time import VirtualTimeLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(eq=False)
class Machine:
    """`skew`: its time of day is wrong by so much. `slept`: seconds in all. `wakes`: when the last sleep ends."""

    skew: timedelta = timedelta(0)
    slept: float = 0.0
    wakes: float = 0.0

    def time(self, moment: float) -> float:
        """What its monotonic clock shows."""
        return max(moment, self.wakes) - self.slept


MACHINE: ContextVar[Machine | None] = ContextVar("machine", default=None)
"""The machine on which the running code is; None: none of a worker's."""


def on_machine(machine: Machine) -> Context:
    """A context for tasks that run there."""
    context = Context()
    context.run(MACHINE.set, machine)
    return context


class MachineLoop(VirtualTimeLoop):
    """A loop in which each machine's tasks see that machine's time, and nobody else's sleep."""

    def time(self) -> float:
        machine = MACHINE.get()
        return self.moment if machine is None else machine.time(self.moment)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        machine = _machine_of(context)
        now = self.moment if machine is None else machine.time(self.moment)
        return self.call_at(now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        machine = _machine_of(context)
        shift = machine.slept if machine is not None else 0.0
        return super().call_at(when + shift, callback, *args, context=context)

    def sleep(self, machine: Machine, seconds: float) -> None:
        """Let the machine sleep from now on: all its timers fire so much later."""
        machine.wakes = max(self.moment, machine.wakes) + seconds
        machine.slept += seconds
        self._move(machine, lambda when: when + seconds)

    def stop_process(self, machine: Machine, seconds: float) -> None:
        """Let the machine's one process stand still from now on, as SIGSTOP does: none of its timers fires earlier."""
        goes_on = self.moment + seconds
        self._move(machine, lambda when: max(when, goes_on))

    def _move(self, machine: Machine, moved: Callable[[float], float]) -> None:
        """Set all of the machine's timers anew."""
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]  # asyncio has no other way
        for handle in scheduled:
            if handle._context.get(MACHINE) is machine:
                handle._when = moved(handle._when)
        heapq.heapify(scheduled)


def _machine_of(context: Context | None) -> Machine | None:
    return MACHINE.get() if context is None else context.get(MACHINE)


def play_on_machines(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end, in no time."""
    with asyncio.Runner(loop_factory=lambda: MachineLoop(0.0)) as runner:
        return runner.run(coroutine)
