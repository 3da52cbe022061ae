"""A machine that sleeps: its monotonic clock and timers stand still, the time of day goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from tests.support.scene import EPOCH, Scene, run_command
from tests.support.virtual_time import VirtualTimeLoop, run_virtually


class SleepyScene(Scene):
    """A scene whose time of day is ahead of every timer by `slept` seconds."""

    slept = 0.0

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.moment() + self.slept)


def asleep(scene: SleepyScene, *steps: float | Callable[[], object] | dict[str, Any]) -> Callable[[], None]:
    """For `Meanwhile`: the worker's machine sleeps. Meanwhile so many seconds pass, things are done, others run."""

    def sleeping() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        for step in steps:
            if isinstance(step, int | float):
                scene.slept += step
            elif isinstance(step, dict):
                with ThreadPoolExecutor(1) as pool:
                    _, end = pool.submit(run_virtually, scene.whole(run_command, **step), loop.moment).result()
                scene.slept += end - loop.moment
            else:
                step()

    return sleeping
