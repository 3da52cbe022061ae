"""Which failure may be retried, and when."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import FixedRandom
from tests.support.virtual_time import run_virtually
from worker.errors import (
    AdminKeyUnusable,
    ConfigurationError,
    Conflict,
    Forbidden,
    NotFound,
    NotSent,
    OutOfReach,
    Refused,
    RotatorError,
    Throttled,
    Unanswered,
    Unintelligible,
)
from worker.runtime.retrying import ATTEMPTS, LONGEST_RETRY_AFTER, delay_before_retry, retrying


class LargestRandom(FixedRandom):
    def random(self) -> float:
        return 1.0


def throttled(seconds: float | None) -> Throttled:
    return Throttled("Throttled", "words", retry_after=seconds)


FINAL = [
    Refused("R", "w", status=400),
    NotFound("R", "w"),
    Conflict("R", "w"),
    Forbidden("R", "w"),
    ConfigurationError("R", "w"),
    AdminKeyUnusable("w"),
    OutOfReach("R", "w"),
    Unintelligible("R", "w"),
    throttled(LONGEST_RETRY_AFTER + 1),
    throttled(float("inf")),
]


@pytest.mark.parametrize("error", FINAL, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("repeatable", [False, True])
def test_a_definite_answer_is_not_asked_for_again(error: RotatorError, repeatable: bool) -> None:
    """Nor is one that cannot be understood, nor a server that wants a long pause."""
    assert delay_before_retry(error, 1, repeatable=repeatable, random=FixedRandom()) is None


@pytest.mark.parametrize(
    ("error", "repeatable", "delays"),
    [
        (Unanswered("R", "w"), True, [0.5, 1, 2, None]),
        (Unanswered("R", "w"), False, [None, None, None, None]),
        (NotSent("R", "w"), True, [0.5, 1, 2, None]),
        (NotSent("R", "w"), False, [0.5, 1, 2, None]),
        (throttled(3), False, [3, 3, 3, None]),
        (throttled(0), False, [0.5, 1, 2, None]),
        (throttled(1.5), True, [1.5, 1.5, 2, None]),
        (throttled(LONGEST_RETRY_AFTER), True, [20, 20, 20, None]),
        (throttled(None), True, [0.5, None, None, None]),
        (throttled(None), False, [0.5, None, None, None]),
    ],
)
def test_what_may_be_repeated_is_repeated_at_growing_distance(
    error: RotatorError, repeatable: bool, delays: list[float | None]
) -> None:
    """A request of unknown fate only where repeating it changes nothing; without Retry-After once."""
    found = [delay_before_retry(error, n + 1, repeatable=repeatable, random=FixedRandom()) for n in range(4)]
    assert found == delays


def test_delays_are_spread_by_chance() -> None:
    """Up to as much again."""
    found = delay_before_retry(Unanswered("R", "w"), 2, repeatable=True, random=LargestRandom())
    assert found == 2.0


def attempt(failures: list[RotatorError], *, repeatable: bool) -> tuple[str | RotatorError, int, float]:
    """The end of it, the number of calls, and the seconds slept."""
    made = 0

    async def once() -> str:
        nonlocal made
        made += 1
        if made <= len(failures):
            raise failures[made - 1]
        return "answer"

    async def whole() -> str | RotatorError:
        try:
            return await retrying(once, repeatable=repeatable, random=FixedRandom())
        except RotatorError as error:
            return error

    end, seconds = run_virtually(whole(), 0.0)
    return end, made, seconds


def test_it_ends_with_the_answer() -> None:
    """After as many attempts as it takes."""
    broken = Unanswered("R", "w")
    assert attempt([], repeatable=True) == ("answer", 1, 0)
    assert attempt([broken, broken], repeatable=True) == ("answer", 3, 1.5)


def test_what_hangs_is_tried_twice() -> None:
    """A request that runs into its timeout four times would take minutes."""
    made = 0

    async def hanging() -> str:
        nonlocal made
        made += 1
        await asyncio.sleep(30)
        raise Unanswered("R", "w")

    async def whole() -> None:
        with pytest.raises(Unanswered):
            await retrying(hanging, repeatable=True, random=FixedRandom())

    _, seconds = run_virtually(whole(), 0.0)
    assert (made, seconds) == (2, 60.5)


def test_a_429_may_be_the_business_of_all() -> None:
    """Then it is not waited for here."""

    async def refused() -> str:
        raise throttled(1)

    async def whole() -> None:
        with pytest.raises(Throttled):
            await retrying(refused, repeatable=True, random=FixedRandom(), throttled=False)

    assert run_virtually(whole(), 0.0)[1] == 0


def test_it_ends_with_the_last_error() -> None:
    """Not the first one."""
    last = NotFound("Last", "w")
    assert attempt([Unanswered("R", "w"), last], repeatable=True) == (last, 2, 0.5)


@given(st.lists(st.sampled_from([*FINAL, Unanswered("R", "w"), NotSent("R", "w"), throttled(5)]), max_size=8))
def test_a_request_of_unknown_fate_is_never_sent_again(failures: list[RotatorError]) -> None:
    """Whatever comes before it; and there is an end to everything."""
    _, made, _ = attempt(failures, repeatable=False)
    assert made <= ATTEMPTS
    for error in failures[: made - 1]:
        assert isinstance(error, NotSent | Throttled)
