"""Turns, and places that are lent."""

from __future__ import annotations

import asyncio
from typing import Any

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


def test_who_sleeps_lends_the_place_and_comes_back_before_new_work() -> None:
    """A new key that is not accepted for a minute does not stop the others, and is not starved by them."""
    slots, events = Slots(1), list[str]()

    async def work(item: int) -> None:
        events.append(f"{item} begins")
        if item == 0:
            await slots.sleep(1.5)
            events.append("0 is back")
        await asyncio.sleep(1)
        events.append(f"{item} ends")

    run(for_each(range(4), work, slots=slots, stop=never()))
    assert events == [
        *("0 begins", "1 begins", "1 ends", "2 begins", "2 ends"),  # 0 wakes while 2 is at work
        *("0 is back", "0 ends", "3 begins", "3 ends"),
    ]


def test_a_place_is_given_back_when_its_taker_is_cancelled() -> None:
    """Before it had it, and between having it and knowing it."""

    async def whole() -> None:
        slots = Slots(1)
        await slots.take([""])
        waiting, next_one = asyncio.ensure_future(slots.take([""])), asyncio.ensure_future(slots.take([""]))
        await asyncio.sleep(0)
        slots.give_back("")
        waiting.cancel()
        await asyncio.wait([waiting, next_one])
        assert waiting.cancelled()
        assert not next_one.cancelled()
        cancelled = asyncio.ensure_future(slots.take([""]))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        slots.give_back("")
        await slots.take([""])

    run(whole())


def test_a_sleeper_that_is_cancelled_still_holds_its_place() -> None:
    """Whoever gives places back at the end gives back one that it has."""

    async def whole() -> None:
        slots = Slots(1)

        async def sleeper() -> None:
            with slots.holding(await slots.take([""])):
                await slots.sleep(100)

        task = asyncio.ensure_future(sleeper())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        await slots.take([""])
        second = asyncio.ensure_future(slots.take([""]))
        await asyncio.sleep(1)
        assert not second.done()
        second.cancel()

    run(whole())


def test_room_is_kept_for_those_who_will_come_back() -> None:
    """Between its two rounds a tenant has no work; what another one begins meanwhile may take long."""

    async def whole() -> None:
        slots = Slots(4)
        with slots.room_for(["a", "b"]):
            for _ in range(2):
                await slots.take(["a"])
            third = asyncio.ensure_future(slots.take(["a"]))
            await asyncio.sleep(1)
            assert not third.done()
            assert await slots.take(["b"]) == "b"
            slots.give_back("b")
        assert await third == "a"

    run(whole())


def test_a_crowd_that_wakes_up_does_not_starve_others() -> None:
    """It comes back before new work, but within its tenant's share."""
    slots, ended = Slots(4), dict[str, float]()

    async def work(item: str) -> None:
        tenant = item[0]
        for _ in range(20 if tenant == "a" else 1):
            await slots.sleep(0.5)
            await asyncio.sleep(1)  # awake
        ended[tenant] = asyncio.get_running_loop().time()

    items = [f"a{i}" for i in range(40)] + [f"b{i}" for i in range(10)]
    run(for_each(items, work, slots=slots, stop=never(), tenant=lambda item: item[0]))
    assert ended["b"] < 10
    assert ended["a"] > 100


def test_many_tenants_cost_no_more_than_few() -> None:
    """To find out whose turn it is, no more tenants are looked at than there are places."""
    looked = 0

    class Looking(dict[str, None]):
        def __iter__(self) -> Any:
            nonlocal looked
            for key in super().__iter__():
                looked += 1
                yield key

    async def whole() -> None:
        slots = Slots(5)
        for i in range(5):
            assert await slots.take(Looking.fromkeys(f"t{n}" for n in range(i, 5000))) == f"t{i}"

    run(whole())
    assert looked < 50
