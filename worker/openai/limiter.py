"""The limits on requests to OpenAI: pauses of a throttled admin key, and of a project without answers.

Guarantees:
- After a 429 the limiter sends nothing with that admin key before the end of the pause.
- After the pause it sends one request.
- After one good answer it allows half as many requests at once as before the 429.
- After each round of good answers it allows one more at once.
- A waiting task keeps no place among the concurrent ones.
- Tenants go in turn.
- After repeated 429s, or a 429 with a long pause, the limiter closes an admin key for the rest of the run.
- After repeated requests without an answer it closes a project for the rest of the run.
- The ledger tells it the throttles of earlier runs.
- Deletes get a chance of their own, however serving ended.
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
Kind = Literal["read", "create", "narrow", "delete"]

IN_A_ROW = 3
"""So many bad answers in a row are no accident."""
WITHOUT_RETRY_AFTER = 2
"""The same for a 429 that names no pause: a human may have to act (a spent budget)."""
MAX_PAUSE_ROTATING = timedelta(seconds=20)
"""The longest pause that a task waits for while the run serves targets."""
MAX_PAUSE_RETIRING = timedelta(minutes=2)
"""The same while the run deletes accounts, if `--max-wait` allows it: nobody's new key waits for that."""
LONGEST = timedelta(days=1)
"""The worker asks a server again after this, even if the server asks for more."""
PAUSE_AFTER_SILENCE = timedelta(seconds=10)
"""The pause before one more request to a project without answers."""
SHORTEST = timedelta(seconds=1)
"""The pause after a 429 that names none, or next to none."""
NO_LIMIT = 1_000_000
"""At once, as far as this module is concerned; `--concurrency` is the limit then."""
GOOD_ANSWERS_PER_RAISE = 20
"""Good answers, at least, before the limiter tries one more at once."""
_EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Gate:
    """The state of an admin key, or of a project, in this run. `bad`: bad answers in a row."""

    not_before: datetime = _EVER
    bad: int = 0
    turns: Turns = field(default_factory=lambda: Turns(NO_LIMIT))
    after_one: int = NO_LIMIT
    """The limit on requests at once after one good answer."""
    good: int = 0
    """Good answers since the last change of the limit."""
    closed: bool = False
    """No more requests for the rest of the run."""
    throttled: bool = False
    """Of a project: its last bad answer was a 429; otherwise there was none."""
    times: int = 0
    """Runs in a row that ended so, and made or deleted no account."""
    served: bool = False
    """This run made or deleted an account."""

    @property
    def careful(self) -> bool:
        """One request at a time."""
        return self.turns.limit == 1

    def refused(self) -> None:
        """Note a 429: one request at a time, and then half as many as before."""
        self.after_one = max(1, self.turns.inside // 2)
        self.turns.limit, self.good = 1, 0

    def answered(self) -> None:
        """Note a good answer: raise the limit to `after_one`, then by one after each round of good answers."""
        self.bad, self.good = 0, self.good + 1
        limit = self.turns.limit
        if limit < self.after_one:
            self.turns.limit, self.good = self.after_one, 0
        elif limit < NO_LIMIT and self.good >= max(limit, GOOD_ANSWERS_PER_RAISE):
            self.turns.limit, self.good = limit + 1, 0


class Limiter:
    """`slots`: a waiting task lends its place to others there. `known`: the throttles of earlier runs."""

    def __init__(self, clock: Clock, slots: Slots, stop: Stop, *, known: Iterable[Throttle] = ()) -> None:
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
        """Wait for a turn to ask this project with this admin key. Raises Deferred if this run has none."""
        # Each kind of request has its own gate: a project may answer one kind and not another.
        gates = self._gates(access, key, kind)
        while True:
            await self._opened(access, *gates)
            async with AsyncExitStack() as turns:
                for gate in reversed(
                    gates
                ):  # a task that waits for a project takes no turn of its key's other projects
                    waits = not gate.turns.free
                    await turns.enter_async_context(self._slots.in_turn(gate.turns))
                    if waits:
                        self._go_on()
                if not any(gate.closed or gate.not_before > self._clock.now() for gate in gates):
                    yield
                    return

    def once_more(self, patience: timedelta) -> None:
        """Reopen closed admin keys for deletes, after their pause, if that ends within `patience`."""
        self._patience = max(MAX_PAUSE_ROTATING, patience)
        # OpenAI may accept deletes where it refuses creates.
        # The heaviest user of a key may throttle it in each run: without this, nobody's account would ever go.
        for gate in self._keys.values():
            gate.closed, gate.bad = False, 0

    def check(self, access: ProjectAccess, key: Hidden, *, kind: Kind) -> None:
        """Raises Deferred if this run makes no more such requests."""
        by_key, by_project = self._gates(access, key, kind)
        if by_key.closed or by_project.closed:
            raise _deferred(access, by_key, by_project, now=self._clock.now())

    async def send(
        self, access: ProjectAccess, key: Hidden, call: Callable[[], Awaitable[Value]], *, kind: Kind
    ) -> Value:
        """Make a request in a turn. Raises Deferred after a 429, or if the limiter allows no request any more."""
        by_key, by_project = self._gates(access, key, kind)
        sent = self._clock.now()
        for gate in (by_key, by_project):
            if gate.closed or gate.not_before > sent:
                raise _deferred(access, by_key, by_project, now=sent)
        try:
            value = await call()
        except Throttled as error:
            until = self._slow_down(by_key, by_project, sent, asked=error.retry_after)
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
        """Make a repeatable request when it is its turn. Raises Deferred if it gets no turn in this run.

        `ready` runs right before each request, after all waiting; an error from it ends the attempt.
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
        """The admin key's gate, and the project's for this kind of request."""
        host, digest = access.project.host, key.digest()
        by_key = self._keys.setdefault((host, digest), _Gate())
        return by_key, self._projects.setdefault((access.project, digest, kind), _Gate())

    async def _opened(self, access: ProjectAccess, by_key: _Gate, by_project: _Gate) -> None:
        """Sleep until no pause runs. Raises Deferred if a pause is too long, a gate is closed, or time is up."""
        while True:
            now = self._clock.now()
            pause = max(by_key.not_before, by_project.not_before) - now
            if by_key.closed or by_project.closed or pause > self._patience:
                raise _deferred(access, by_key, by_project, now=now)
            if pause <= timedelta(0):
                return
            await self._slots.sleep(pause.total_seconds())
            self._go_on()

    def _go_on(self) -> None:
        """Check after a wait that new steps may still start. Raises Deferred if not."""
        if self._stop.reason is not None:
            raise Deferred(self._stop.reason, "not tried: the run's time was over before OpenAI could be asked")

    def _slow_down(self, by_key: _Gate, by_project: _Gate, sent: datetime, *, asked: float | None) -> datetime:
        """Note a 429 and its requested pause, in seconds; returns the end of the key's pause."""
        limit = IN_A_ROW if asked is not None else WITHOUT_RETRY_AFTER
        for gate in (by_key, by_project):
            if sent >= by_key.not_before:  # otherwise the request was on its way already, and its 429 tells nothing new
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
            by_project.closed = by_project.careful  # the project stayed silent after a pause, too
            by_project.turns.limit = by_project.after_one = 1
            by_project.not_before = self._clock.now() + PAUSE_AFTER_SILENCE


def _answered(by_key: _Gate, by_project: _Gate, sent: datetime) -> None:
    if sent >= by_key.not_before:
        by_key.answered()
    if sent >= by_project.not_before:
        by_project.after_one = NO_LIMIT
        by_project.answered()


def _noted(answered: Deferred | None, error: Deferred) -> Deferred:
    """The error with OpenAI's answer, for the ledger, and with the current pause, which others may have lengthened."""
    if answered is None or answered.throttle is None or answered.until is None:
        return error
    until = max(answered.until, error.until or answered.until)
    return Deferred(answered.reason, answered.message, until=until, throttle=replace(answered.throttle, until=until))


def _deferred(access: ProjectAccess, by_key: _Gate, by_project: _Gate, *, now: datetime) -> Deferred:
    """The reason why the limiter sends nothing."""
    if by_key.closed or by_key.not_before > now:
        message = f"OpenAI asked to slow down: nothing is sent with {access.admin_key} before the pause is over"
        return Deferred("OpenAIThrottled", message, until=by_key.not_before)
    if by_project.throttled:
        return Deferred("OpenAIThrottled", f"OpenAI keeps asking to slow down in project {access.project}")
    return Deferred("OpenAIUnanswered", f"OpenAI keeps leaving requests about project {access.project} unanswered")
