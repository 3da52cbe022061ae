"""The places for concurrent work: tenants share them, and a waiting task lends its place."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from itertools import chain

_TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)
"""The tenant whose place the running task uses. Many tenants may wait for one admin key, so the key cannot tell it."""


class Turns:
    """At most `limit` tasks inside at once: tenants in turn, each one's tasks in order. The limit may change."""

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
        """May a task go in without waiting? No task overtakes the waiting ones."""
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
                self.leave()  # `_admit` had let it in already
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
        """Take a place for new work of one of these tenants, the first among equals; returns that tenant."""
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
        """Return a taken place that its task does not need (any more)."""
        self._free += 1
        _lower(self._held, tenant)
        self._grant()

    @contextmanager
    def holding(self, tenant: str) -> Iterator[None]:
        """Work in a taken place. This task lends it to others while it waits, and gives it back at the end."""
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
        """Hold a turn. This task lends its place while it waits for the turn."""
        # A task inside may need that place.
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
        """Meanwhile these count as tenants with work: they will come back and need a place."""
        self._expected = tenants
        try:
            yield
        finally:
            self._expected = ()
            self._grant()

    async def _lend(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait while others use the place, and come back before new work begins."""
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
                self._hold(tenant)  # cancelled: `holding` gives a place back at its end

    def _grant(self) -> None:
        """Give free places to the waiting tasks."""
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
        """The first of the tenants that hold the fewest places; None if each has its share."""
        share = (self._limit + 1) // 2 if self._are_several() else self._limit
        best: str | None = None
        for tenant in tenants:
            if self._held[tenant] < (share if best is None else self._held[best]):
                best = tenant
                if not self._held[tenant]:
                    break  # nobody holds fewer: so the loop visits no more tenants than there are places
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
