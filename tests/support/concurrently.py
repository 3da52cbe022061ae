"""Concurrent work under virtual time."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.support.virtual_time import run_virtually
from worker.runtime.for_each import Crash, Done
from worker.runtime.stop import Stop

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """The result, and how many virtual seconds it took."""
    return run_virtually(coroutine, 0.0)


def never() -> Stop:
    return Stop(last_start=1e9, deadline=1e9)


def values(done: list[Done[Any, Any]]) -> list[object]:
    return [item.value.reason if isinstance(item.value, Crash) else item.value for item in done]
