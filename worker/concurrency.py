"""Do the same for many: isolated from one another, limited in number, stoppable.

Guarantees: at most `limit` pieces of work are awake at once; a piece that sleeps lends its place to others and comes
back before new ones start; whatever one piece raises stays with it (the only `except Exception` of the worker); once
stopped, nothing new starts, and at the deadline what still runs is cancelled.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.errors import RotatorError

KEPT_FOR_THE_END = 0.15
"""Share of a run's time that is kept for steps under way: no new step starts within it."""
LONGEST_KEPT = 150.0
"""Seconds: no step takes longer."""

Item = TypeVar("Item")
Value = TypeVar("Value")


class Slots:
    """A counting semaphore with two queues: work that has begun goes before work that has not."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._begun: deque[asyncio.Future[None]] = deque()
        self._new: deque[asyncio.Future[None]] = deque()

    async def take(self, *, begun: bool = False) -> None:
        if self._free > 0:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._begun if begun else self._new).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        for queue in (self._begun, self._new):
            while queue:
                place = queue.popleft()
                if not place.done():
                    place.set_result(None)
                    return
        self._free += 1

    async def sleep(self, seconds: float) -> None:
        """Sleep without keeping the place. To be called by work that holds one."""
        self.give_back()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self.take(begun=True)


class Stop:
    """Asked before each new step. `deadline` and `last_start` are times of the event loop, in seconds."""

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
        """No new step from now on (SIGTERM)."""
        self._asked.set()

    @property
    def reason(self) -> str | None:
        """Why nothing new may start; None: it may."""
        if self._asked.is_set():
            return "Stopped"
        return "DeadlineExceeded" if asyncio.get_running_loop().time() >= self.last_start else None

    @property
    def remaining(self) -> float:
        """Seconds in which new steps may still start."""
        return max(0.0, self.last_start - asyncio.get_running_loop().time())

    async def sleep(self, seconds: float) -> None:
        """Sleep, but wake at once when stopped."""
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            return


@dataclass(frozen=True, slots=True)
class Crash:
    """Work ended with an error. `message` holds no text of an unexpected one: it may quote anything."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Done(Generic[Item, Value]):
    item: Item
    value: Value | Crash


async def for_each(
    items: Iterable[Item],
    work: Callable[[Item], Awaitable[Value]],
    *,
    slots: Slots,
    stop: Stop,
    ended: Callable[[Done[Item, Value]], None] | None = None,
) -> list[Done[Item, Value]]:
    """Do `work` for each item, begun in their order; the results in the same order. `ended` hears of each at once."""
    todo = list(items)
    results: dict[int, Done[Item, Value]] = {}
    running: set[asyncio.Task[None]] = set()

    def end(position: int, value: Value | Crash) -> None:
        results[position] = Done(todo[position], value)
        if ended is not None:
            ended(results[position])

    async def one(position: int) -> None:
        try:
            value: Value | Crash = await work(todo[position])
        except RotatorError as error:
            value = Crash(error.reason, error.message)
        except Exception as error:  # the one place: a target's bug must not become its neighbours'
            value = Crash("InternalError", f"unexpected {where(error)}: please report it")
        finally:
            slots.give_back()
        end(position, value)

    loop = asyncio.get_running_loop()
    try:
        for position in range(len(todo)):
            refusal = await _place(slots, stop)
            if refusal is not None:
                end(position, Crash(refusal, "not started: the run was stopped; the next run serves it"))
                continue
            task = loop.create_task(one(position))
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            await asyncio.wait(running, timeout=max(0.0, stop.deadline - loop.time()))
    finally:
        left = list(running)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    for position in set(range(len(todo))) - set(results):
        end(position, Crash("DeadlineExceeded", "interrupted at the run's deadline; the next run goes on"))
    return [results[position] for position in range(len(todo))]


async def _place(slots: Slots, stop: Stop) -> str | None:
    """Take a place for a new step; why there is none, where the run has ended or the deadline comes first."""
    refusal = stop.reason
    if refusal is not None:
        return refusal
    try:
        async with asyncio.timeout_at(stop.deadline):
            await slots.take()
    except TimeoutError:
        return "DeadlineExceeded"
    refusal = stop.reason
    if refusal is not None:
        slots.give_back()
    return refusal


def where(error: BaseException) -> str:
    """The kind of an error and the places it passed, without its text and without values."""
    frames = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-3:]]
    return f"{type(error).__name__} in {' > '.join(frames)}" if frames else type(error).__name__
