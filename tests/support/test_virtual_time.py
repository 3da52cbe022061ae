"""The loop's clock moves by itself, and what a test plays in it stays in that test."""

from __future__ import annotations

import asyncio
import gc

import pytest

from tests.support.virtual_time import run_virtually


async def _in_a_task(error: BaseException) -> None:
    async def work() -> None:
        raise error

    task = asyncio.create_task(work())
    await asyncio.sleep(1)
    del task


def test_a_death_in_a_task_is_told_by_the_end_of_the_run_alone(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_virtually(_in_a_task(KeyboardInterrupt()), 0.0)
    gc.collect()
    assert not caplog.records


def test_an_error_that_nobody_retrieves_is_told(caplog: pytest.LogCaptureFixture) -> None:
    run_virtually(_in_a_task(ValueError("one")), 0.0)
    gc.collect()
    assert "never retrieved" in caplog.text
