"""Doing the same for many."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.builders import KEY
from tests.support.concurrently import never, run, values
from worker.errors import Conflict
from worker.runtime.for_each import Crash, Done, alongside, for_each, where
from worker.runtime.slots import Slots
from worker.runtime.stop import Stop


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


# --- several tenants


def begun(crowds: dict[str, int], limit: int, seconds: dict[str, float], until: float = 1e9) -> dict[str, list[float]]:
    """When each tenant's items began; each takes its tenant's seconds."""
    times: dict[str, list[float]] = {tenant: [] for tenant in crowds}

    async def work(tenant: str) -> None:
        times[tenant].append(asyncio.get_running_loop().time())
        await asyncio.sleep(seconds[tenant])

    items = [tenant for tenant, count in crowds.items() for _ in range(count)]
    stop = Stop(last_start=until, deadline=1e9)
    run(for_each(items, work, slots=Slots(limit), stop=stop, tenant=lambda tenant: tenant))
    return times


@pytest.mark.parametrize("limit", [1, 2, 5, 50])
def test_tenants_begin_in_turn(limit: int) -> None:
    """However many targets the first has: nobody waits for more than its share."""
    times = begun({"a": 300, "b": 3, "c": 3}, limit, {"a": 1, "b": 1, "c": 1})
    assert max(times["b"] + times["c"]) <= 9 / limit


@pytest.mark.parametrize(("limit", "share"), [(2, 1), (5, 3), (50, 25)])
def test_what_hangs_leaves_room(limit: int, share: int) -> None:
    """One tenant has half of the places, at most, while another has work; the others go on as if it were not there."""
    times = begun({"a": 300, "b": 200}, limit, {"a": 1000, "b": 1}, until=900)
    assert len(times["a"]) == limit  # the rest of the places once nobody else wants them
    assert sum(moment < max(times["b"]) for moment in times["a"]) <= share
    assert max(times["b"]) <= 200 / (limit - share)


def test_one_tenant_alone_has_all_places() -> None:
    """Also when the others have ended."""
    assert begun({"a": 100}, 50, {"a": 1})["a"] == [0] * 50 + [1] * 50
    times = begun({"a": 100, "b": 1}, 50, {"a": 1, "b": 0.5})["a"]
    assert (times.count(0), times.count(0.5), times.count(1)) == (25, 25, 25)


def test_what_goes_on_alongside_ends_with_what_it_goes_along() -> None:
    """It is waited for; a failure or a kill takes it along."""
    ended: list[str] = []

    async def work() -> str:
        try:
            await asyncio.sleep(10)
        finally:
            ended.append("work")
        return "value"

    async def whole() -> None:
        async with alongside(work()) as task:
            await asyncio.sleep(1)
        assert task.result() == "value"
        assert asyncio.get_running_loop().time() == 10

        async def failing() -> None:
            async with alongside(work()):
                await asyncio.sleep(1)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await failing()
        assert asyncio.get_running_loop().time() == 11

    run(whole())
    assert ended == ["work", "work"]
