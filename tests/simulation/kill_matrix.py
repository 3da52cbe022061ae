"""A run killed at each of its requests, in every situation: before it is sent, after it was served, or on its way.

Guarantee: exhaustive. The run is played again and again, killed one request later each time, until it is not killed
any more.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from sandbox.kubernetes.setup import send
from sandbox.transport.faults import Fate, committed_late, delivered, response_lost
from sandbox.transport.wire import Request
from tests.simulation.fates import KILLED, Fates
from tests.simulation.history import History
from tests.simulation.oracle import kind_of
from tests.simulation.play import FALLBACK_KEY, Play, options_of
from tests.simulation.stage import ALONE, DOCUMENTED, OTHER_PROJECT, SCOPES, TARGETS, Setting, generator_path, path_of
from tests.support.virtual_time import run_virtually
from worker.model.targets import CleanupPolicy


class When(Enum):
    """At what moment the run dies."""

    BEFORE = "before the request is sent"
    AFTER = "after it was served, before the answer came"
    ON_THE_WAY = "while it is on its way: it is served 5 s later"


@dataclass
class KilledAt(Fates):
    """All goes well until the request of this number, counted from 0."""

    number: int = -1
    when: When = When.BEFORE
    _sent: int = 0

    def fate(self, request: Request) -> Fate:
        if self.killed:
            raise asyncio.CancelledError
        if self._sent == self.number and self.when is When.BEFORE:
            self.kill()
            raise asyncio.CancelledError
        self.oracle.sent(self.run, request)
        self._sent += 1
        if self._sent - 1 != self.number:
            return delivered()
        self.count(kind_of(request), KILLED)
        asyncio.get_running_loop().call_later(0.1, self.kill)
        return response_lost() if self.when is When.AFTER else committed_late(5.0)


Prepare = Callable[[History], Awaitable[None]]


async def _rotated(history: History) -> None:
    """A first run has rotated everything."""
    await history.run("first", PLAY, history.random)


async def first(history: History) -> None:
    """Nothing has been rotated yet."""


async def due(history: History) -> None:
    """Everything is due, and what was there before goes when its grace is over."""
    await _rotated(history)
    await asyncio.sleep(3700)


async def changed_project(history: History) -> None:
    """The accounts are in another project from now on."""
    await _rotated(history)
    await asyncio.sleep(300)
    send(history.stage.kubernetes, "PATCH", generator_path("default"), body={"spec": {"projectId": OTHER_PROJECT}})
    history.oracle.license(DOCUMENTED)


async def gone(history: History) -> None:
    """A namespace was deleted with all that was in it: only its accounts are left."""
    await _rotated(history)
    send(history.stage.kubernetes, "DELETE", "/api/v1/namespaces/team")
    history.stage.kubernetes.finish_termination()
    history.oracle.license(ALONE)
    history.oracle.look(by_user=True)
    await asyncio.sleep(300)


async def lost_create(history: History) -> None:
    """The answer to a create was lost an hour ago, and its run died of it."""
    await history.run("victim", PLAY, history.random, fates=_KilledAtItsCreate)
    await asyncio.sleep(3700)


class _KilledAtItsCreate(Fates):
    def fate(self, request: Request) -> Fate:
        self.oracle.sent(self.run, request)
        if kind_of(request) != "POST service_accounts":
            return delivered()
        asyncio.get_running_loop().call_later(0.1, self.kill)
        return response_lost()


async def account_gone(history: History) -> None:
    """Somebody has deleted an account whose key is in a Secret."""
    await _rotated(history)
    await asyncio.sleep(300)
    account = history.stage.carried(history.stage.secret(ALONE))
    (found,) = [one for one in history.stage.accounts() if one.id == account]
    history.stage.openai.delete_account(found.project, found.id)
    history.oracle.license(ALONE)


async def secret_deleted(history: History) -> None:
    """Somebody has deleted a target's Secret."""
    await _rotated(history)
    await asyncio.sleep(300)
    send(history.stage.kubernetes, "DELETE", path_of(ALONE))
    history.oracle.license(ALONE)
    history.oracle.look(by_user=True)


async def never_accepted(history: History) -> None:
    """OpenAI did not accept the new keys, and attempts are put off; now it does again."""
    history.stage.openai.acceptance_delay = 1e6
    await history.run("unlucky", PLAY, history.random)
    history.stage.openai.acceptance_delay = 0.0
    await asyncio.sleep(3700)


async def scopes_changed(history: History) -> None:
    """All keys may do everything, and their users ask for less from now on."""
    await _rotated(history)
    await asyncio.sleep(300)
    for namespace in ("default", "team"):
        metadata = {"annotations": {SCOPES: "model.request"}}
        send(history.stage.kubernetes, "PATCH", generator_path(namespace), body={"metadata": metadata})
    history.oracle.license(*TARGETS)


async def admin_keys_due(history: History) -> None:
    """The operator's own admin keys are due: the central one, and the fallback."""
    await _rotated(history)
    await asyncio.sleep(3700)
    history.stage.ask_for_admin_keys("1h")


SITUATIONS: tuple[Prepare, ...] = (
    first,
    due,
    changed_project,
    gone,
    lost_create,
    account_gone,
    secret_deleted,
    never_accepted,
    scopes_changed,
    admin_keys_due,
)
PLAIN = Setting(CleanupPolicy(), None, crowd=False)
PLAY = Play(options_of(fallback_admin_key=FALLBACK_KEY, concurrency=1))


Case = tuple[Prepare, When, bool]
CASES: tuple[Case, ...] = tuple(
    (situation, when, followed) for situation in SITUATIONS for when in When for followed in (False, True)
)


@dataclass
class Killed:
    """What the kills of one situation came to. `failures` says which of them did not end clean, and why."""

    kills: int
    failures: list[str]


def kill_case(case: Case) -> Killed:
    """Kill a run at each of its requests: in this situation, at this moment, and alone, or followed by another run at
    once, as of a Job that is tried again.
    """
    situation, when, followed = case
    failures: list[str] = []
    for number in range(1000):
        history = History(1, setting=PLAIN)
        killed, _ = run_virtually(_play(history, situation, number, when, followed=followed), 0.0)
        if not killed:
            return Killed(number, failures)
        failures += [f"request {number} {when.value}: {violation}" for violation in history.oracle.violations[:1]]
    raise AssertionError("a run that sends a thousand requests")


async def _play(history: History, situation: Prepare, number: int, when: When, *, followed: bool) -> bool:
    history.stage.use_loop(asyncio.get_running_loop())
    await situation(history)

    fates = functools.partial(KilledAt, number=number, when=when)
    killed = await history.run("killed", PLAY, history.random, fates=fates)
    if followed:
        await history.run("follower", PLAY, history.random)
    await history.rest()
    return killed
