"""When a command has to end."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.concurrently import run
from worker.runtime.stop import Stop


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


def test_a_stage_has_its_share_of_the_time() -> None:
    """And is stopped with the run."""

    async def whole() -> None:
        stop = Stop(last_start=90, deadline=100)
        await asyncio.sleep(30)
        stage = stop.for_stage(0.5)
        assert (stage.last_start, stage.deadline) == (60, 100)
        stop.ask()
        assert stage.reason == "Stopped"

    run(whole())
