"""When OpenAI is left alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest

from tests.support.builders import ACCESS, HOST, NOW
from tests.support.virtual_time import run_virtually
from worker.errors import Deferred, NotFound, RotatorError, Throttled, Unanswered
from worker.model.entries import Throttle
from worker.model.hidden import Hidden
from worker.model.targets import Project, ProjectAccess
from worker.openai.limiter import GOOD_ANSWERS_PER_RAISE, IN_A_ROW, LONGEST, PAUSE_AFTER_SILENCE, Kind, Limiter
from worker.runtime.for_each import for_each
from worker.runtime.slots import Slots
from worker.runtime.stop import Stop

T = TypeVar("T")
KEY = Hidden("sk-admin-1")
OTHER_KEY = Hidden("sk-admin-2")
OTHER = ProjectAccess(Project(HOST, "proj_2"), ACCESS.admin_key)


class LoopClock:
    """The running loop's time, from NOW on."""

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class OpenAI:
    """Answers each request as its script says, in turn, and the rest well; keeps when each was made."""

    def __init__(self, *script: RotatorError | None, known: tuple[Throttle, ...] = (), last_start: float = 1e6) -> None:
        self.script = list(script)
        self.asked: list[float] = []
        self.on_the_way = self.most = 0
        self.stop = Stop(last_start=last_start, deadline=1e6)
        self.slots = Slots(2)
        self._known = known

    def whole(self, work: Callable[[Limiter], Coroutine[Any, Any, T]]) -> T:
        async def whole() -> T:
            return await work(Limiter(LoopClock(), self.slots, self.stop, known=self._known))

        return run_virtually(whole(), 0.0)[0]

    async def call(self) -> str:
        self.asked.append(asyncio.get_running_loop().time())
        error = self.script.pop(0) if self.script else None
        self.on_the_way += 1
        self.most = max(self.most, self.on_the_way)
        await asyncio.sleep(0.1)
        self.on_the_way -= 1
        if error is not None:
            raise error
        return "answer"

    async def ask(
        self, limiter: Limiter, access: ProjectAccess = ACCESS, key: Hidden = KEY, kind: Kind = "read"
    ) -> str | RotatorError:
        try:
            return await limiter.ask(access, key, self.call, kind=kind)
        except RotatorError as error:
            return error


def slow_down(seconds: float | None) -> Throttled:
    return Throttled("OpenAIThrottled", "words", retry_after=seconds)


def silence() -> Unanswered:
    return Unanswered("OpenAIUnanswered", "words")


def test_a_short_pause_is_waited_for() -> None:
    """And the request is made again."""
    openai = OpenAI(slow_down(5))
    assert openai.whole(openai.ask) == "answer"
    assert openai.asked == pytest.approx([0, 5.1])


@pytest.mark.parametrize(
    ("seconds", "requests", "until"),
    [(5, 3, 60), (20, 3, 60), (21, 1, 60), (3600, 1, 3600), (None, 2, 60), (0, 3, 60), (float("inf"), 1, 86400)],
)
def test_a_key_that_is_refused_again_and_again_is_left_alone(
    seconds: float | None, requests: int, until: float
) -> None:
    """A crowd costs a handful of requests; what is told is when the next may be made, and noted by who was answered."""
    openai = OpenAI(*(slow_down(seconds) for _ in range(99)))

    async def crowd(limiter: Limiter) -> list[str | RotatorError]:
        first = await openai.ask(limiter)
        return [first, *(await asyncio.gather(*(openai.ask(limiter, access) for access in (ACCESS, OTHER) * 50)))]

    answers = openai.whole(crowd)
    assert len(openai.asked) == requests
    assert all(isinstance(error, Deferred) and error.reason == "OpenAIThrottled" for error in answers)
    assert [error.throttle is not None for error in answers if isinstance(error, Deferred)] == [True] + [False] * 100
    for error in answers:
        assert isinstance(error, Deferred)
        assert error.until is not None
        assert error.until >= NOW + timedelta(seconds=until)
        assert error.until < NOW + timedelta(seconds=until + 100)


def test_the_pause_that_is_told_is_the_one_that_runs() -> None:
    """The first to be refused waits, and others are refused meanwhile: what it is told of its own answer is past."""
    openai = OpenAI(*(slow_down(None) for _ in range(99)))

    async def two(limiter: Limiter) -> list[str | RotatorError]:
        return list(await asyncio.gather(openai.ask(limiter), openai.ask(limiter, OTHER)))

    for error in openai.whole(two):
        assert isinstance(error, Deferred)
        assert error.until is not None
        assert error.until >= NOW + timedelta(seconds=60)
        assert error.throttle is None or error.throttle.until == error.until


def test_nothing_goes_out_before_the_pause_is_over_and_then_half_as_many() -> None:
    """The requests that were on their way already are the only ones in between. One goes first; then half as many at
    once as were refused, and one more after each round of good answers.
    """
    openai = OpenAI(*(slow_down(5) for _ in range(8)))

    async def crowd(limiter: Limiter) -> list[str | RotatorError]:
        first = [asyncio.ensure_future(openai.ask(limiter)) for _ in range(8)]
        await asyncio.sleep(1)
        late = [asyncio.ensure_future(openai.ask(limiter, OTHER)) for _ in range(22)]
        return await asyncio.gather(*first, *late)

    assert set(openai.whole(crowd)) == {"answer"}
    rounds = Counter(round(moment, 1) for moment in openai.asked)
    assert rounds == {0: 8, 5.1: 1, 5.2: 4, 5.3: 4, 5.4: 4, 5.5: 4, 5.6: 4, 5.7: 5, 5.8: 4}


@pytest.mark.parametrize("capacity", [1, 3, 10])
def test_as_many_at_once_as_openai_takes_are_found_and_kept_to(capacity: int) -> None:
    """Of 400 requests few are refused, where all of a crowd of 50 would be again and again."""
    openai, refused = OpenAI(), list[float]()

    async def call() -> str:
        now = asyncio.get_running_loop().time()
        if openai.on_the_way >= capacity:
            refused.append(now)
            raise slow_down(1)
        return await openai.call()

    async def crowd(limiter: Limiter) -> None:
        async def one() -> None:
            await limiter.ask(ACCESS, KEY, call, kind="read")

        await for_each(range(400), lambda _: one(), slots=Slots(50), stop=openai.stop)

    openai.whole(crowd)
    assert len(openai.asked) == 400
    later = [moment for moment in refused if moment > 0]
    assert len(later) <= 400 / GOOD_ANSWERS_PER_RAISE
    assert openai.most == capacity


def test_another_admin_key_and_another_host_are_none_of_its_business() -> None:
    """The key counts, not the Secret that holds it."""
    elsewhere = ProjectAccess(Project("https://other.test/v1", "proj_1"), ACCESS.admin_key)
    openai = OpenAI(slow_down(3600))

    async def both(limiter: Limiter) -> list[str | RotatorError]:
        await openai.ask(limiter)
        return [await openai.ask(limiter, key=OTHER_KEY), await openai.ask(limiter, elsewhere)]

    assert openai.whole(both) == ["answer", "answer"]


@pytest.mark.parametrize("until", [-5, 10, 3600])
def test_what_an_earlier_run_was_told_is_honoured(until: float) -> None:
    """A short rest is waited for; a long one is not."""
    openai = OpenAI(known=(Throttle(HOST, KEY.digest(), NOW + timedelta(seconds=until), 1),))
    answer = openai.whole(openai.ask)
    if until > 20:
        assert isinstance(answer, Deferred)
        assert answer.until == NOW + timedelta(seconds=until)
        assert openai.asked == []
    else:
        assert openai.asked == [max(0, until)]


def test_the_pause_grows_from_run_to_run() -> None:
    """Where OpenAI names none: a minute, two, four, up to an hour."""
    pauses, known = [], Throttle(HOST, KEY.digest(), NOW, 0)
    for _ in range(8):
        openai = OpenAI(slow_down(None), slow_down(None), known=(known,))
        error = openai.whole(openai.ask)
        assert isinstance(error, Deferred)
        assert error.throttle is not None
        pauses.append(round((error.throttle.until - NOW).total_seconds() / 60))
        known = Throttle(HOST, KEY.digest(), NOW, error.throttle.times)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_what_was_told_long_ago_is_forgotten() -> None:
    """A key is not treated with care for ever."""
    openai = OpenAI(
        slow_down(None), slow_down(None), known=(Throttle(HOST, KEY.digest(), NOW - LONGEST - timedelta(hours=1), 9),)
    )
    error = openai.whole(openai.ask)
    assert isinstance(error, Deferred)
    assert error.throttle is not None
    assert error.throttle.times == 1


def test_a_project_that_does_not_answer_gets_a_breath_and_one_more_request() -> None:
    """And is then left alone; its neighbours with the same admin key are not."""
    openai = OpenAI(*(silence() for _ in range(IN_A_ROW + 1)))

    async def many(limiter: Limiter) -> list[str | RotatorError]:
        answers = [await openai.ask(limiter) for _ in range(9)]
        return [*answers, await openai.ask(limiter, OTHER)]

    answers = openai.whole(many)
    kinds = [type(answer) for answer in answers]
    assert kinds == [Unanswered] * (IN_A_ROW + 1) + [Deferred] * (9 - IN_A_ROW - 1) + [str]
    assert openai.asked[IN_A_ROW] - openai.asked[IN_A_ROW - 1] >= PAUSE_AFTER_SILENCE.total_seconds()
    deferred = next(answer for answer in answers if isinstance(answer, Deferred))
    assert (deferred.reason, deferred.until, deferred.throttle) == ("OpenAIUnanswered", None, None)


def test_a_project_that_answers_after_a_breath_is_served_on() -> None:
    """As many at once as before; and a refusal is an answer."""
    openai = OpenAI(*(silence() for _ in range(IN_A_ROW)), NotFound("R", "w"))

    async def many(limiter: Limiter) -> list[str | RotatorError]:
        answers = [await openai.ask(limiter) for _ in range(IN_A_ROW + 1)]
        openai.most = 0
        return [*answers, *(await asyncio.gather(*(openai.ask(limiter) for _ in range(4))))]

    assert [type(answer) for answer in openai.whole(many)] == [Unanswered] * IN_A_ROW + [NotFound] + [str] * 4
    assert openai.most == 4


def test_kinds_of_requests_are_told_apart() -> None:
    """Answered reads in between do not hide that every delete is left unanswered; and deletes may work where creates do
    not.
    """
    openai = OpenAI(*([None, silence()] * (IN_A_ROW + 1)))

    async def pairs(limiter: Limiter) -> list[str | RotatorError]:
        for _ in range(IN_A_ROW + 1):
            await openai.ask(limiter)
            await openai.ask(limiter, kind="delete")
        kinds: tuple[Kind, ...] = ("read", "create", "delete")
        with pytest.raises(Deferred):
            limiter.check(ACCESS, KEY, kind="delete")
        return [await openai.ask(limiter, kind=kind) for kind in kinds]

    assert [type(answer) for answer in openai.whole(pairs)] == [str, str, Deferred]


def test_who_waits_keeps_no_place() -> None:
    """Two places, both lent: a third tenant gets one at once."""
    openai = OpenAI(slow_down(5))

    async def whole(limiter: Limiter) -> float:
        async def work() -> object:
            with openai.slots.holding(await openai.slots.take(["one"])):
                return await openai.ask(limiter)

        waiting = [asyncio.ensure_future(work()) for _ in range(2)]
        await asyncio.sleep(1)
        assert await openai.slots.take(["other"]) == "other"
        openai.slots.give_back("other")
        moment = asyncio.get_running_loop().time()
        assert await asyncio.gather(*waiting) == ["answer", "answer"]
        return moment

    assert openai.whole(whole) == 1


def test_what_has_to_be_right_before_a_request_is_done_when_all_waiting_is_over() -> None:
    """Each time; and it may end the attempt, which then costs no request."""
    openai, ready_at = OpenAI(slow_down(5), slow_down(5)), list[float]()

    async def whole(limiter: Limiter) -> None:
        async def ready() -> None:
            ready_at.append(asyncio.get_running_loop().time())
            if len(ready_at) == 3:
                raise NotFound("R", "w")

        with pytest.raises(NotFound):
            await limiter.ask(ACCESS, KEY, openai.call, kind="delete", ready=ready)

    openai.whole(whole)
    assert openai.asked == ready_at[:2]
    assert ready_at == pytest.approx([0, 5.1, 10.2])


def test_nothing_is_sent_in_ones_turn_once_the_key_is_to_rest() -> None:
    """A create whose intent was being written meanwhile is not sent."""
    openai = OpenAI(slow_down(5))

    async def whole(limiter: Limiter) -> None:
        async with limiter.turn(ACCESS, KEY, kind="create"):
            with pytest.raises(Deferred):
                await limiter.send(OTHER, KEY, openai.call, kind="create")
            with pytest.raises(Deferred) as caught:
                await limiter.send(ACCESS, KEY, openai.call, kind="create")
            assert caught.value.throttle is None

    openai.whole(whole)
    assert len(openai.asked) == 1


def test_who_has_waited_past_the_runs_time_starts_nothing() -> None:
    """It is told why, and the next run goes on."""
    openai = OpenAI(slow_down(5), last_start=3)
    error = openai.whole(openai.ask)
    assert isinstance(error, Deferred)
    assert len(openai.asked) == 1
