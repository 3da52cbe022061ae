"""Do the same for many: isolated from one another, limited in number, shared fairly between tenants, stoppable.

Guarantees:
- At most `limit` pieces of work are awake at once.
- New work begins tenant by tenant in turn.
- A free place goes to the tenant that holds the fewest places.
- One of several tenants holds half of the places at most, so hanging work leaves room for the others.
- A sleeping piece lends its place, and comes back before new ones start.
- An error stays with its piece (the only `except Exception` of the worker).
- No piece starts after a stop.
- The deadline cancels the pieces that still run.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.errors import RotatorError
from worker.runtime.slots import Slots
from worker.runtime.stop import Stop

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Crash:
    """Work ended with an error. `message` holds no text of an unexpected error: that text may quote anything."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Done(Generic[Item, Value]):
    item: Item
    value: Value | Crash


def _one_tenant(_: object) -> str:
    return ""


async def for_each(
    items: Iterable[Item],
    work: Callable[[Item], Awaitable[Value]],
    *,
    slots: Slots,
    stop: Stop,
    tenant: Callable[[Item], str] = _one_tenant,
    ended: Callable[[Done[Item, Value]], None] | None = None,
) -> list[Done[Item, Value]]:
    """Do `work` for each item; the results in the order of the items. `ended` gets each result at once.

    A tenant's items begin in their order, and tenants go in turn.
    """
    todo = list(items)
    results: dict[int, Done[Item, Value]] = {}
    running: set[asyncio.Task[None]] = set()
    waiting: dict[str, deque[int]] = {}
    for position, item in enumerate(todo):
        waiting.setdefault(tenant(item), deque()).append(position)

    def end(position: int, value: Value | Crash) -> None:
        results[position] = Done(todo[position], value)
        if ended is not None:
            ended(results[position])

    async def one(position: int, whose: str) -> None:
        with slots.holding(whose):
            try:
                value: Value | Crash = await work(todo[position])
            except RotatorError as error:
                value = Crash(error.reason, error.message)
            except Exception as error:  # the one place: a target's bug must not become its neighbours'
                value = Crash("InternalError", f"unexpected {where(error)}: please report it")
        end(position, value)

    loop = asyncio.get_running_loop()
    try:
        refusal = stop.reason
        while waiting and refusal is None:
            whose, refusal = await _place(slots, stop, waiting)
            if whose is not None:
                queue = waiting.pop(whose)
                task = loop.create_task(one(queue.popleft(), whose))
                running.add(task)
                task.add_done_callback(running.discard)
                if queue:
                    waiting[whose] = queue  # as the last one: tenants begin in turn
        for position in sorted(position for queue in waiting.values() for position in queue):
            end(position, Crash(refusal or "", "not started: the run's time is over; the next run serves it"))
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


async def _place(slots: Slots, stop: Stop, tenants: Collection[str]) -> tuple[str | None, str | None]:
    """Take a place for a new step: its tenant, or the reason why the step may not start."""
    try:
        async with asyncio.timeout_at(stop.deadline):
            whose = await slots.take(tenants)
    except TimeoutError:
        return None, "DeadlineExceeded"
    refusal = stop.reason
    if refusal is None:
        return whose, None
    slots.give_back(whose)
    return None, refusal


@asynccontextmanager
async def alongside(work: Coroutine[None, None, Value]) -> AsyncIterator[asyncio.Task[Value]]:
    """Run `work` alongside the body. The end of the body waits for it, and an error in the body cancels it."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield task
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def where(error: BaseException) -> str:
    """The kind of an error and the places it passed, without its text and without values."""
    frames = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-3:]]
    return f"{type(error).__name__} in {' > '.join(frames)}" if frames else type(error).__name__
