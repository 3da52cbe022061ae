"""When OpenAI is left alone: an admin key that was told to slow down, a project that does not answer.

Guarantees: after a 429 nothing goes out with that admin key before the pause asked for is over; then one request, if
it is answered half as many at once as there were, and one more whenever all of them were answered; who waits keeps no
place among the concurrent ones, and tenants go in turn; an admin key that is refused again and again or asks for a long
pause, and a project that does not answer again and again, are left alone for the rest of the run. What earlier runs
were told is known from the ledger. Deleting has a chance of its own, however serving ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

from worker.errors import Deferred, RotatorError, Throttled, Unanswered
from worker.model.entries import Throttle
from worker.model.hidden import Hidden
from worker.model.targets import Project, ProjectAccess
from worker.model.times import pause_after
from worker.ports import Clock
from worker.runtime.slots import Slots, Turns
from worker.runtime.stop import Stop

Value = TypeVar("Value")
Kind = Literal["read", "create", "delete"]

IN_A_ROW = 3
"""So many bad answers one after the other are no accident."""
WITHOUT_RETRY_AFTER = 2
"""The same for a 429 that names no pause: a human may have to act (a spent budget)."""
MAX_PAUSE_ROTATING = timedelta(seconds=20)
"""The longest pause that is waited for while targets are served,"""
MAX_PAUSE_RETIRING = timedelta(minutes=2)
"""and while accounts are deleted, if `--max-wait` allows it: nobody's new key waits for that."""
LONGEST = timedelta(days=1)
"""A server that asks for more is asked again after this."""
PAUSE_AFTER_SILENCE = timedelta(seconds=10)
"""How long a project that does not answer is given before one more request."""
SHORTEST = timedelta(seconds=1)
"""The pause after a 429 that names none, or next to none."""
NO_LIMIT = 1_000_000
"""At once, as far as this module is concerned; `--concurrency` is the limit then."""
GOOD_ANSWERS_PER_RAISE = 20
"""Good answers, at least, before one more at once is tried."""
_EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Gate:
    """What an admin key, or a project, has come to in this run. `bad`: answers in a row that were."""

    not_before: datetime = _EVER
    bad: int = 0
    turns: Turns = field(default_factory=lambda: Turns(NO_LIMIT))
    after_one: int = NO_LIMIT
    """How many at once are tried after one good answer."""
    good: int = 0
    """Good answers since the limit was last changed."""
    closed: bool = False
    """Left alone for the rest of the run."""
    throttled: bool = False
    """Of a project: its last bad answer was a 429; otherwise there was none."""
    times: int = 0
    """How many runs, one after the other, ended so without anything made or deleted."""
    served: bool = False
    """Something was made or deleted in this run."""

    @property
    def careful(self) -> bool:
        """One request at a time."""
        return self.turns.limit == 1

    def refused(self) -> None:
        """Asked to slow down: one at a time, and then half as many as there were."""
        self.after_one = max(1, self.turns.inside // 2)
        self.turns.limit, self.good = 1, 0

    def answered(self) -> None:
        """A good answer: as many as are to be tried, and one more after each round of good ones."""
        self.bad, self.good = 0, self.good + 1
        limit = self.turns.limit
        if limit < self.after_one:
            self.turns.limit, self.good = self.after_one, 0
        elif limit < NO_LIMIT and self.good >= max(limit, GOOD_ANSWERS_PER_RAISE):
            self.turns.limit, self.good = limit + 1, 0


class Limiter:
    """`slots`: who waits lends its place to others. `known`: what earlier runs were told."""

    def __init__(self, clock: Clock, slots: Slots, stop: Stop, known: Iterable[Throttle] = ()) -> None:
        self._clock = clock
        self._slots = slots
        self._stop = stop
        self._patience = MAX_PAUSE_ROTATING
        self._keys: dict[tuple[str, str], _Gate] = {}
        self._projects: dict[tuple[Project, str, Kind], _Gate] = {}
        for throttle in known:
            if throttle.until > clock.now() - LONGEST:
                gate = self._keys.setdefault((throttle.host, throttle.key), _Gate())
                gate.not_before = max(gate.not_before, throttle.until)
                gate.times = max(gate.times, throttle.times)
                gate.turns.limit = gate.after_one = 1

    @asynccontextmanager
    async def turn(self, access: ProjectAccess, key: Hidden, *, kind: Kind) -> AsyncIterator[None]:
        """Wait until this project may be asked with this admin key. Raises Deferred where it may not in this run.

        A project's kinds of requests are told apart: where one is answered, another may still not be.
        """
        gates = self._gates(access, key, kind)
        while True:
            await self._opened(access, *gates)
            async with AsyncExitStack() as turns:
                for gate in reversed(gates):  # who waits for a project takes no turn of its key's other projects
                    waits = not gate.turns.free
                    await turns.enter_async_context(self._slots.in_turn(gate.turns))
                    if waits:
                        self._go_on()
                if not any(gate.closed or gate.not_before > self._clock.now() for gate in gates):
                    yield
                    return

    def once_more(self, patience: timedelta) -> None:
        """Deleting begins: keys that were left alone are tried again after their pause, if that ends within `patience`.

        Where creates are refused deletes may not be; and if whoever makes the most of a key made it pause in each run,
        no account of anybody would ever be deleted with it.
        """
        self._patience = max(MAX_PAUSE_ROTATING, patience)
        for gate in self._keys.values():
            gate.closed, gate.bad = False, 0

    def check(self, access: ProjectAccess, key: Hidden, *, kind: Kind) -> None:
        """Raises Deferred where no such request will be made in this run."""
        by_key, by_project = self._gates(access, key, kind)
        if by_key.closed or by_project.closed:
            raise _deferred(access, by_key, by_project, self._clock.now())

    async def send(
        self, access: ProjectAccess, key: Hidden, call: Callable[[], Awaitable[Value]], *, kind: Kind
    ) -> Value:
        """Make a request, in one's turn. Raises Deferred where nothing may be sent any more, or it was answered 429."""
        by_key, by_project = self._gates(access, key, kind)
        sent = self._clock.now()
        for gate in (by_key, by_project):
            if gate.closed or gate.not_before > sent:
                raise _deferred(access, by_key, by_project, sent)
        try:
            value = await call()
        except Throttled as error:
            until = self._slow_down(by_key, by_project, sent, error.retry_after)
            throttle = Throttle(access.project.host, key.digest(), until, by_key.times)
            raise Deferred(error.reason, error.message, until=until, throttle=throttle) from None
        except Unanswered:
            self._unanswered(by_project, sent)
            raise
        except RotatorError:
            _answered(by_key, by_project, sent)
            raise
        by_key.served = by_key.served or kind != "read"
        _answered(by_key, by_project, sent)
        return value

    async def ask(
        self,
        access: ProjectAccess,
        key: Hidden,
        call: Callable[[], Awaitable[Value]],
        *,
        kind: Kind,
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> Value:
        """Make a request that may be repeated, when it is its turn. Raises Deferred where there is none in this run.

        `ready`: done right before it, each time, when all waiting is over; what it raises ends the attempt.
        """
        answered: Deferred | None = None
        while True:
            try:
                async with self.turn(access, key, kind=kind):
                    if ready is not None:
                        await ready()
                    return await self.send(access, key, call, kind=kind)
            except Deferred as error:
                if error.throttle is None:
                    raise _noted(answered, error) from None
                answered = error

    def _gates(self, access: ProjectAccess, key: Hidden, kind: Kind) -> tuple[_Gate, _Gate]:
        """The admin key's and the project's, the latter for this kind of request."""
        host, digest = access.project.host, key.digest()
        by_key = self._keys.setdefault((host, digest), _Gate())
        return by_key, self._projects.setdefault((access.project, digest, kind), _Gate())

    async def _opened(self, access: ProjectAccess, by_key: _Gate, by_project: _Gate) -> None:
        """Sleep until no pause runs. Raises Deferred where one is too long, or nothing is sent any more."""
        while True:
            now = self._clock.now()
            pause = max(by_key.not_before, by_project.not_before) - now
            if by_key.closed or by_project.closed or pause > self._patience:
                raise _deferred(access, by_key, by_project, now)
            if pause <= timedelta(0):
                return
            await self._slots.sleep(pause.total_seconds())
            self._go_on()

    def _go_on(self) -> None:
        """Who has waited asks again whether new steps may be started. Raises Deferred."""
        if self._stop.reason is not None:
            raise Deferred(self._stop.reason, "not tried: the run's time was over before OpenAI could be asked")

    def _slow_down(self, by_key: _Gate, by_project: _Gate, sent: datetime, asked: float | None) -> datetime:
        """Note a 429 and the pause it asks for, in seconds; until when the key is left alone."""
        limit = IN_A_ROW if asked is not None else WITHOUT_RETRY_AFTER
        for gate in (by_key, by_project):
            if sent >= by_key.not_before:  # otherwise it was on its way already, and says nothing new
                gate.bad += 1
        if sent >= by_key.not_before:
            by_key.refused()
        by_project.throttled = True
        pause = max(SHORTEST, timedelta(seconds=min(asked or 0.0, LONGEST.total_seconds())))
        by_project.closed = by_project.closed or by_project.bad >= IN_A_ROW
        if not by_key.closed and (by_key.bad >= limit or pause > self._patience):
            by_key.closed = True
            by_key.times = 1 if by_key.served else by_key.times + 1
        if by_key.closed:
            pause = max(pause, pause_after(by_key.times))
        by_key.not_before = max(by_key.not_before, self._clock.now() + pause)
        return by_key.not_before

    def _unanswered(self, by_project: _Gate, sent: datetime) -> None:
        if sent < by_project.not_before:
            return
        by_project.bad += 1
        by_project.throttled = False
        if by_project.bad >= IN_A_ROW:
            by_project.closed = by_project.careful  # after a breath as well
            by_project.turns.limit = by_project.after_one = 1
            by_project.not_before = self._clock.now() + PAUSE_AFTER_SILENCE


def _answered(by_key: _Gate, by_project: _Gate, sent: datetime) -> None:
    if sent >= by_key.not_before:
        by_key.answered()
    if sent >= by_project.not_before:
        by_project.after_one = NO_LIMIT
        by_project.answered()


def _noted(answered: Deferred | None, error: Deferred) -> Deferred:
    """What OpenAI answered is to be noted; the pause is the one that runs now, which others may have lengthened."""
    if answered is None or answered.throttle is None or answered.until is None:
        return error
    until = max(answered.until, error.until or answered.until)
    return Deferred(answered.reason, answered.message, until=until, throttle=replace(answered.throttle, until=until))


def _deferred(access: ProjectAccess, by_key: _Gate, by_project: _Gate, now: datetime) -> Deferred:
    """Why nothing is sent."""
    if by_key.closed or by_key.not_before > now:
        words = f"OpenAI asked to slow down: nothing is sent with {access.admin_key} before the pause is over"
        return Deferred("OpenAIThrottled", words, until=by_key.not_before)
    if by_project.throttled:
        return Deferred("OpenAIThrottled", f"OpenAI keeps asking to slow down in project {access.project}")
    return Deferred("OpenAIUnanswered", f"OpenAI keeps leaving requests about project {access.project} unanswered")
