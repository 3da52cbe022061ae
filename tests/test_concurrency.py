"""Doing the same for many."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from tests.builders import KEY
from tests.virtual_time import run_virtually
from worker.concurrency import Crash, Done, Slots, Stop, for_each, where
from worker.errors import Conflict

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """The result, and how many virtual seconds it took."""
    return run_virtually(coroutine, 0.0)


def never() -> Stop:
    return Stop(last_start=1e9, deadline=1e9)


def values(done: list[Done[Any, Any]]) -> list[object]:
    return [item.value.reason if isinstance(item.value, Crash) else item.value for item in done]


def test_results_come_in_the_order_of_the_items() -> None:
    """However long each takes, and from any iterable."""

    async def work(item: int) -> int:
        await asyncio.sleep(10 - item)
        return item * item

    done, seconds = run(for_each(iter(range(10)), work, slots=Slots(50), stop=never()))
    assert [(d.item, d.value) for d in done] == [(n, n * n) for n in range(10)]
    assert seconds == 10
    assert run(for_each([], work, slots=Slots(1), stop=never()))[0] == []


@pytest.mark.parametrize(("limit", "seconds"), [(1, 10), (3, 4), (10, 1), (50, 1)])
def test_no_more_than_the_limit_are_awake(limit: int, seconds: float) -> None:
    """And the limit is used."""
    awake = most = 0

    async def work(_: int) -> None:
        nonlocal awake, most
        awake, most = awake + 1, max(most, awake + 1)
        await asyncio.sleep(1)
        awake -= 1

    _, took = run(for_each(range(10), work, slots=Slots(limit), stop=never()))
    assert (most, took) == (min(limit, 10), seconds)


def test_who_sleeps_lends_the_place_and_comes_back_before_new_work() -> None:
    """A new key that is not accepted for a minute does not stop the others, and is not starved by them."""
    slots, events = Slots(1), list[str]()

    async def work(item: int) -> None:
        events.append(f"{item} begins")
        if item == 0:
            await slots.sleep(1.5, "")
            events.append("0 is back")
        await asyncio.sleep(1)
        events.append(f"{item} ends")

    run(for_each(range(4), work, slots=slots, stop=never()))
    assert events == [
        *("0 begins", "1 begins", "1 ends", "2 begins", "2 ends"),  # 0 wakes while 2 is at work
        *("0 is back", "0 ends", "3 begins", "3 ends"),
    ]


def test_an_error_stays_with_its_item() -> None:
    """Its neighbours are served; an expected error is told in its own words."""

    async def work(item: int) -> int:
        await asyncio.sleep(item)
        if item == 1:
            raise Conflict("Conflict", "words")
        if item == 2:
            raise ZeroDivisionError(KEY)
        return item

    done, _ = run(for_each(range(4), work, slots=Slots(2), stop=never()))
    assert values(done) == [0, "Conflict", "InternalError", 3]
    assert done[1].value == Crash("Conflict", "words")


def test_an_unexpected_error_tells_its_place_and_no_text() -> None:
    """The text may quote anything, also that of what it was raised from."""

    async def work(_: int) -> None:
        try:
            raise RuntimeError(KEY)
        except RuntimeError as error:
            raise KeyError(KEY) from error

    done, _ = run(for_each([1], work, slots=Slots(1), stop=never()))
    crash = done[0].value
    assert isinstance(crash, Crash)
    assert "KeyError in " in crash.message
    assert "work:" in crash.message
    assert "CANARY" not in repr(done)


def test_the_place_of_an_error_that_was_never_raised_is_its_kind() -> None:
    """There is no traceback yet."""
    assert where(ValueError(KEY)) == "ValueError"


def test_who_is_asked_to_stop_starts_nothing_new() -> None:
    """What runs ends in peace; the rest is told why it was not started."""
    stop = never()

    async def work(item: int) -> int:
        await asyncio.sleep(10)
        return item

    async def whole() -> list[Done[int, int]]:
        asyncio.get_running_loop().call_later(15, stop.ask)
        return await for_each(range(6), work, slots=Slots(2), stop=stop)

    done, seconds = run(whole())
    assert values(done) == [0, 1, 2, 3, "Stopped", "Stopped"]
    assert seconds == 20


def test_nothing_starts_after_the_last_start() -> None:
    """The time up to the deadline is for what runs."""

    async def work(item: int) -> int:
        await asyncio.sleep(10)
        return item

    stop = Stop(last_start=15, deadline=30)
    done, seconds = run(for_each(range(6), work, slots=Slots(2), stop=stop))
    assert values(done) == [0, 1, 2, 3, "DeadlineExceeded", "DeadlineExceeded"]
    assert seconds == 20


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_at_the_deadline_what_still_runs_is_cancelled(limit: int) -> None:
    """Also where others still wait for a place: a deadline is a deadline."""
    cleaned: list[int] = []

    async def work(item: int) -> int:
        try:
            await asyncio.sleep(1000 if item < 2 else 1)
        finally:
            cleaned.append(item)
        return item

    done, seconds = run(for_each(range(4), work, slots=Slots(limit), stop=Stop(last_start=20, deadline=30)))
    assert seconds == 30
    rest = [2, 3] if limit == 50 else ["DeadlineExceeded"] * 2
    assert values(done) == ["DeadlineExceeded", "DeadlineExceeded", *rest]
    assert sorted(cleaned) == list(range(min(limit, 4)))


def test_a_cancelled_run_leaves_nothing_running() -> None:
    """A kill takes all of it along."""
    running = 0

    async def work(_: int) -> None:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(1000)
        finally:
            running -= 1

    async def whole() -> None:
        task = asyncio.ensure_future(for_each(range(5), work, slots=Slots(3), stop=never()))
        await asyncio.sleep(1)
        assert running == 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert running == 0

    run(whole())


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
            await slots.take([""])
            try:
                await slots.sleep(100, "")
            finally:
                slots.give_back("")

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


def test_a_stop_wakes_who_waits() -> None:
    """A grace period of minutes does not keep a pod from ending."""

    async def whole() -> None:
        stop = Stop(last_start=100, deadline=200)
        assert (stop.reason, stop.remaining) == (None, 100)
        asyncio.get_running_loop().call_later(5, stop.ask)
        await stop.sleep(60)
        assert asyncio.get_running_loop().time() == 5
        assert stop.reason == "Stopped"

    run(whole())


@pytest.mark.parametrize(("seconds", "slept"), [(60, 60), (0, 0), (-5, 0)])
def test_a_wait_ends_by_itself(seconds: float, slept: float) -> None:
    """Also one for a time that is over."""

    async def whole() -> None:
        stop = Stop(last_start=10, deadline=200)
        await stop.sleep(seconds)
        assert asyncio.get_running_loop().time() == slept

    run(whole())


def test_time_runs_out() -> None:
    """After the last start there is none left."""

    async def whole() -> None:
        stop = Stop(last_start=10, deadline=200)
        await asyncio.sleep(10)
        assert (stop.reason, stop.remaining) == ("DeadlineExceeded", 0)

    run(whole())
