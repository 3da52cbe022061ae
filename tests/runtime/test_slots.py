"""Turns, and places that are lent."""

from __future__ import annotations

import asyncio

from tests.support.concurrently import never, run
from worker.runtime.for_each import for_each
from worker.runtime.slots import Slots, Turns


def test_who_holds_no_place_has_none_to_lend() -> None:
    """Work outside of `for_each` may wait in the same words."""

    async def whole() -> None:
        slots = Slots(1)
        await slots.sleep(1)
        assert await slots.take(["a"]) == "a"
        second = asyncio.ensure_future(slots.take(["a"]))
        await asyncio.sleep(1)
        assert not second.done()
        second.cancel()

    run(whole())


def test_a_turn_is_waited_for_without_a_place() -> None:
    """Its holder can sleep and come back although a crowd waits for it; each has it once."""
    slots, turn, had = Slots(2), Turns(), list[int]()

    async def work(item: int) -> None:
        async with slots.in_turn(turn):
            await slots.sleep(1)
            had.append(item)

    _, seconds = run(for_each(range(20), work, slots=slots, stop=never()))
    assert sorted(had) == list(range(20))
    assert seconds == 20


def test_tenants_go_in_turn_and_no_more_than_the_limit() -> None:
    """However many of one wait; a limit that is raised lets in more at once, one that is lowered none until it fits."""
    slots, turns, order, most = Slots(100), Turns(2), list[str](), list[int]()

    async def work(item: str) -> None:
        async with slots.in_turn(turns):
            order.append(item[0])
            most.append(turns.inside)
            if len(order) == 4:
                turns.limit = 3
            if len(order) == 10:
                turns.limit = 1
            await asyncio.sleep(1)

    items = [f"a{i}" for i in range(20)] + [f"b{i}" for i in range(5)]
    _, seconds = run(for_each(items, work, slots=slots, stop=never(), tenant=lambda item: item[0]))
    assert sorted(order[:10]) == ["a"] * 5 + ["b"] * 5
    assert (max(most[:4]), max(most[4:10]), max(most[12:])) == (2, 3, 1)
    assert (len(order), seconds) == (25, 18)


def test_a_turn_is_given_back_by_who_is_cancelled() -> None:
    """While it has it, and while it waits for it."""

    async def whole() -> None:
        slots, turn = Slots(3), Turns()

        async def holder() -> None:
            with slots.holding(await slots.take([""])):
                async with slots.in_turn(turn):
                    await asyncio.sleep(100)

        tasks = [asyncio.ensure_future(holder()) for _ in range(3)]
        await asyncio.sleep(1)
        for task in (tasks[1], tasks[0]):
            task.cancel()
            await asyncio.wait([task])
        await asyncio.sleep(1)
        assert turn.inside == 1
        tasks[2].cancel()
        await asyncio.wait([tasks[2]])
        assert turn.inside == 0
        for _ in range(3):
            await slots.take([""])

    run(whole())
