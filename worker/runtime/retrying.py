"""The retry of failed requests: which failures allow it, and after which delay.

Guarantees:
- This module repeats a request that may have taken effect only if the repeat changes nothing (reads, deletes).
- It never repeats a create with an unknown fate: only `NotSent` and `Throttled` allow another create.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

from worker.errors import NotSent, RotatorError, Throttled, Unanswered, Unintelligible
from worker.ports import Randomness

T = TypeVar("T")

ATTEMPTS = 4
FIRST_DELAY = 0.5
"""Seconds; doubles with each attempt, plus up to as much again at random."""
LONG = 45.0
"""Seconds. A call that took longer than this gets no third attempt."""
LONGEST_RETRY_AFTER = 20.0
"""Seconds. If a server asks for a longer pause, the next run asks it again."""


def delay_before_retry(error: RotatorError, attempt: int, *, repeatable: bool, random: Randomness) -> float | None:
    """Seconds before attempt number `attempt` + 1 (the first is 1); None: no further attempt."""
    if attempt >= ATTEMPTS:
        return None
    own: float = FIRST_DELAY * 2.0 ** (attempt - 1) * (1 + random.random())
    if isinstance(error, Throttled):
        # Without Retry-After a human may have to act (a spent budget): one more try, no spinning.
        if error.retry_after is None:
            return own if attempt == 1 else None
        return max(own, error.retry_after) if error.retry_after <= LONGEST_RETRY_AFTER else None
    if isinstance(error, NotSent):
        return own
    if not isinstance(error, Unanswered) or isinstance(error, Unintelligible) or error.final or not repeatable:
        return None
    pause = error.retry_after or 0.0
    return max(own, pause) if pause <= LONGEST_RETRY_AFTER else None


async def retrying(
    call: Callable[[], Awaitable[T]], *, repeatable: bool, random: Randomness, throttled: bool = True
) -> T:
    """Make a call until it succeeds or fails for good, and raise its last error. `throttled`: also after a 429."""
    attempt = 1
    begun = asyncio.get_running_loop().time()
    while True:
        try:
            return await call()
        except RotatorError as error:
            delay = delay_before_retry(error, attempt, repeatable=repeatable, random=random)
            if delay is None or (isinstance(error, Throttled) and not throttled):
                raise
            if attempt > 1 and asyncio.get_running_loop().time() - begun > LONG:
                raise
        await asyncio.sleep(delay)
        attempt += 1


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The pause that a server asks for, in seconds: `retry-after-ms`, or `Retry-After` as a number or a date.

    A date is measured against the answer's own `Date`. Source: the official SDKs (openai-python 3.57).
    """
    for name, unit in (("retry-after-ms", 0.001), ("Retry-After", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return max(0.0, seconds)
    try:
        until, now = parsedate_to_datetime(headers["Retry-After"]), parsedate_to_datetime(headers["Date"])
        return max(0.0, (until - now).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None
