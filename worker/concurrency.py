"""Do the same for many: isolated from one another, limited in number, shared fairly between tenants, stoppable.

Guarantees: at most `limit` pieces of work are awake at once; new work begins tenant by tenant in turn, and a free place
goes to whoever holds the fewest; where there are several tenants, one holds half of the places at most, so that what
hangs leaves room for the others; a piece that sleeps lends its place and comes back before new ones start; whatever one
piece raises stays with it (the only `except Exception` of the worker); once stopped, nothing new starts, and at the
deadline what still runs is cancelled.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

from worker.errors import RotatorError

KEPT_FOR_THE_END = 0.15
"""Share of a run's time that is kept for steps under way: no new step starts within it."""
LONGEST_KEPT = 150.0
"""Seconds: no step takes longer."""

Item = TypeVar("Item")
Value = TypeVar("Value")

_TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)
"""In whose place the running task works: many tenants may wait for one admin key, so what they ask for cannot tell."""


class Turns:
    """So many may be inside at once, tenants in turn, each one's in their order; the limit may change meanwhile."""

    def __init__(self, limit: int = 1) -> None:
        self.inside = 0
        self._limit = limit
        self._waiting: dict[str | None, deque[asyncio.Future[None]]] = {}

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._admit()

    @property
    def free(self) -> bool:
        """May one go in without waiting? Nobody goes before those who wait."""
        return not self._waiting and self.inside < self._limit

    async def enter(self) -> None:
        if self.free:
            self.inside += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(_TENANT.get(), deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self.leave()  # it had been let in already
            self._admit()
            raise

    def leave(self) -> None:
        self.inside -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.inside < self._limit:
            tenant = next(iter(self._waiting))
            places = self._waiting.pop(tenant)
            place = places.popleft()
            if not place.done():  # nobody waits for a cancelled one
                self.inside += 1
                place.set_result(None)
            if places:
                self._waiting[tenant] = places  # as the last one


class Slots:
    """Places for work, shared between tenants. Work that has begun goes before work that has not."""

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._held: Counter[str] = Counter()
        self._away: Counter[str] = Counter()
        """Work that has begun and holds no place: it sleeps, or waits to come back."""
        self._back: dict[str, deque[asyncio.Future[str]]] = {}
        self._new: deque[tuple[Collection[str], asyncio.Future[str]]] = deque()
        self._expected: Collection[str] = ()

    async def take(self, tenants: Collection[str]) -> str:
        """A place for new work of one of these tenants, the first among equals; which one it is for."""
        place: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        offer = (tenants, place)
        self._new.append(offer)
        self._grant()
        try:
            return await place
        except asyncio.CancelledError:
            if offer in self._new:
                self._new.remove(offer)
            if place.done() and not place.cancelled():
                self.give_back(place.result())
            raise

    def give_back(self, tenant: str) -> None:
        """A place that was taken and is not needed (any more)."""
        self._free += 1
        _lower(self._held, tenant)
        self._grant()

    @contextmanager
    def holding(self, tenant: str) -> Iterator[None]:
        """Work in a place that was taken: it is lent to others while this task waits, and given back at the end."""
        before = _TENANT.set(tenant)
        try:
            yield
        finally:
            _TENANT.reset(before)
            self.give_back(tenant)

    async def sleep(self, seconds: float) -> None:
        """Sleep without keeping the place of this task, if it has one."""
        await self._lend(lambda: asyncio.sleep(seconds))

    @asynccontextmanager
    async def in_turn(self, turns: Turns) -> AsyncIterator[None]:
        """When it is one's turn, which is waited for without keeping this task's place: who is inside may need it."""
        entered = False

        async def enter() -> None:
            nonlocal entered
            await turns.enter()
            entered = True

        try:
            await (enter() if turns.free else self._lend(enter))
            yield
        finally:
            if entered:
                turns.leave()

    @contextmanager
    def room_for(self, tenants: Collection[str]) -> Iterator[None]:
        """Meanwhile these count as tenants with work: they will come back, and want to find a place."""
        self._expected = tenants
        try:
            yield
        finally:
            self._expected = ()
            self._grant()

    async def _lend(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait while others have the place, and come back before new work begins."""
        tenant = _TENANT.get()
        if tenant is None:
            await wait()
            return
        place: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._away[tenant] += 1
        self.give_back(tenant)
        try:
            await wait()
            self._back.setdefault(tenant, deque()).append(place)
            self._grant()
            await place
        finally:
            _lower(self._away, tenant)
            if place.cancelled() or not place.done():
                self._hold(tenant)  # cancelled: it ends, and gives back a place that it has

    def _grant(self) -> None:
        """Give free places to those who wait for one."""
        while self._free > 0:
            found = self._returning() or self._beginning()
            if found is None:
                return
            tenant, place = found
            if not place.done():  # nobody waits for a cancelled one
                self._hold(tenant)
                place.set_result(tenant)

    def _returning(self) -> tuple[str, asyncio.Future[str]] | None:
        tenant = self._poorest(self._back)
        if tenant is None:
            return None
        queue = self._back[tenant]
        place = queue.popleft()
        if not queue:
            del self._back[tenant]
        return tenant, place

    def _beginning(self) -> tuple[str, asyncio.Future[str]] | None:
        for offer in self._new:
            tenant = self._poorest(offer[0])
            if tenant is not None:
                self._new.remove(offer)
                return tenant, offer[1]
        return None

    def _hold(self, tenant: str) -> None:
        self._free -= 1
        self._held[tenant] += 1

    def _poorest(self, tenants: Iterable[str]) -> str | None:
        """The first of those that hold the fewest places, None where each has its share."""
        share = (self._limit + 1) // 2 if self._are_several() else self._limit
        best: str | None = None
        for tenant in tenants:
            if self._held[tenant] < (share if best is None else self._held[best]):
                best = tenant
                if not self._held[tenant]:
                    break  # nobody holds fewer: so no more tenants are looked at than there are places
        return best

    def _are_several(self) -> bool:
        """Is there more than one tenant with work?"""
        present = chain(self._held, self._away, self._expected, *(tenants for tenants, _ in self._new))
        first = next(present, None)
        return any(tenant != first for tenant in present)


def _lower(counts: Counter[str], tenant: str) -> None:
    counts[tenant] -= 1
    if not counts[tenant]:
        del counts[tenant]


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


@dataclass(frozen=True, slots=True)
class Crash:
    """Work ended with an error. `message` holds no text of an unexpected one: it may quote anything."""

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
    """Do `work` for each item; the results in the order of the items. `ended` hears of each at once.

    A tenant's items are begun in their order, and tenants in turn.
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
    """Take a place for a new step; whose it is, or why there is none: the run has ended, or the deadline came first."""
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
    """Work that goes on meanwhile, is waited for at the end, and ends with what it goes on alongside."""
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
