"""What befalls each request of one run: decided by the history's seed, told to the oracle, counted.

Guarantee: a run that was killed is never heard of again; what it had sent may still arrive.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from sandbox.transport.faults import (
    Fate,
    answered,
    bad_gateway,
    committed_late,
    delivered,
    request_lost,
    response_lost,
    too_many_requests,
)
from sandbox.transport.in_process import InProcessResponse, InProcessSession
from sandbox.transport.wire import Exchange, Request, Response
from sandbox.transport.wire import Machine as Api
from tests.simulation.machines import Machine, MachineLoop
from tests.simulation.memory import Run
from tests.simulation.oracle import Oracle, kind_of
from tests.simulation.stage import Setting
from tests.simulation.veils import not_found
from worker.model.values import Ref

Tally = Counter[tuple[str, str]]
"""How often each kind of request was sent by rough runs (`SENT`), and met each fault."""
SENT = "sent"


@dataclass(frozen=True, slots=True)
class Roughness:
    """Probabilities, per request."""

    faults: float = 0.0
    kills: float = 0.0
    freezes: float = 0.0
    sleeps: float = 0.0
    pages: float = 0.0
    """Of all faults."""

    @classmethod
    def drawn(cls, chance: random.Random, setting: Setting) -> Roughness:
        """Rough enough that runs fail, and often not so rough that they never come to their end."""
        return cls(
            chance.choice((0.03, 0.1, 0.2)),
            chance.choice((0.002, 0.01, 0.03)),
            chance.choice((0.002, 0.01)),
            chance.choice((0.002, 0.01)) if "clocks" in setting.wider else 0.0,
            chance.choice((0.2, 0.6)) if "pages" in setting.wider else 0.0,
        )


CALM = Roughness()


def _unavailable() -> Fate:
    """503, as an API server or OpenAI that is starting."""
    return answered(Response.of_text(503, "busy"))


def _html() -> Fate:
    """A proxy's page, with success."""
    return answered(Response(200, {"Content-Type": "text/html"}, b"<html>busy</html>"))


FAULTS: dict[str, Callable[[random.Random], Fate]] = {
    "request lost": lambda chance: request_lost(disconnected=chance.random() < 0.5),
    "response lost": lambda chance: response_lost(disconnected=chance.random() < 0.5),
    "committed late": lambda chance: committed_late(chance.uniform(1, 14), disconnected=chance.random() < 0.5),
    "slow": lambda chance: delivered(chance.uniform(0, 12), chance.uniform(0, 12)),
    "502": lambda _: bad_gateway(),
    "503": lambda _: _unavailable(),
    "429": lambda chance: too_many_requests(chance.choice((1, 5, None))),
    "HTML with 200": lambda _: _html(),
}
CRITICAL = ("POST service_accounts", "GET models", "GET pods", "GET api_keys")
"""A key is about to be published, or an account to be deleted."""
MISTAKEN = "404"
"""OpenAI says that an account or a key is gone which is there: a replica that is behind, say."""
REPEATED = "repeated"
"""Something in between sends a create twice."""
FROZEN = "frozen"
"""The process stands still once the answer has come, for longer than any timeout of its own."""
ASLEEP = "asleep"
"""The whole machine sleeps once the answer has come: its monotonic clock and its timers stand still."""
PAGE = "page"
"""Something in between answers 404, 403 or 401 with a page of its own."""
HIDDEN = "hidden"
"""Something in between denies that a Secret exists, as an API server would."""
KILLED = "killed"
"""The run ends when the request is sent, or up to half a second later."""


@dataclass
class Fates:
    """The fates of one run's requests. `work` is the run, which a kill ends as `kill -9` does."""

    run: Run
    roughness: Roughness
    oracle: Oracle
    chance: random.Random
    tally: Tally
    say: Callable[[str], None]
    meanwhile: Callable[[random.Random], None] | None = None
    """Called where others could spoil what the run is about to do."""
    work: asyncio.Task[None] | None = None
    killed: bool = False
    repeated: list[Request] = field(default_factory=list)

    def fate(self, request: Request) -> Fate:
        if self.killed:
            raise asyncio.CancelledError
        self.oracle.sent(self.run, request)
        kind, chance = kind_of(request), self.chance
        if self.roughness is not CALM:
            self.count(kind, SENT)
            if self.meanwhile is not None and kind in CRITICAL:
                self.meanwhile(chance)
        if chance.random() < self.roughness.kills:
            self._count(kind, KILLED, request)
            asyncio.get_running_loop().call_later(chance.choice((0.0, 0.0, 0.1, 0.5)), self.kill)
        if chance.random() >= self.roughness.faults:
            return delivered() if self.roughness is CALM else delivered(chance.uniform(0, 0.3), chance.uniform(0, 0.3))
        if kind == "POST service_accounts" and chance.random() < 0.1:
            self._count(kind, REPEATED, request)
            self.repeated.append(request)
            return delivered()
        key = kind == "GET api_keys" and self.oracle.stage.has_key(request.path.rpartition("/")[2])
        if (key or kind == "DELETE service_accounts") and chance.random() < 0.2:
            self._count(kind, MISTAKEN, request)
            return answered(Response.of_json(404, {"error": {"message": "There is no such thing.", "code": None}}))
        if self.roughness.pages and chance.random() < self.roughness.pages:
            return self._page(kind, request)
        fault = chance.choice(sorted(FAULTS))
        self._count(kind, fault, request)
        return FAULTS[fault](chance)

    def _page(self, kind: str, request: Request) -> Fate:
        status = self.chance.choice((404, 403, 401))
        if kind == "GET secrets" and status == 404 and self.chance.random() < 0.5:
            self._count(kind, HIDDEN, request)
            self.oracle.hidden(Ref(request.segments[3], request.segments[5]))
            return answered(not_found(request.segments[-1]))
        if kind == "GET models":
            status = 401  # 403 and 404 of this one count as "accepted": a host may lack the path
        self._count(kind, PAGE, request)
        return answered(Response.of_text(status, f"<html><h1>{status}</h1></html>", "text/html"))

    def asleep(self) -> float:
        """Seconds for which the machine sleeps now."""
        if not self.roughness.sleeps or self.chance.random() >= self.roughness.sleeps:
            return 0.0
        seconds = self.chance.choice((30.0, 300.0, 1800.0, 7200.0))
        self.say(f"{self.run.name}: {ASLEEP} for {seconds:.0f} s")
        self.run.woke = self.oracle.stage.moment() + seconds
        return seconds

    def freeze(self) -> float:
        """Seconds for which the process stands still now, whatever its timers say."""
        if self.chance.random() >= self.roughness.freezes:
            return 0.0
        seconds = self.chance.choice((8.0, 40.0, 200.0, 400.0))
        self.say(f"{self.run.name}: {FROZEN} for {seconds:.0f} s")
        self.run.thawed = self.oracle.stage.moment() + seconds
        return seconds

    def count(self, kind: str, fault: str) -> None:
        self.tally[kind, fault] += 1

    def kill(self) -> None:
        """End the run: it is told nothing any more, and sends nothing any more."""
        self.killed = True
        if self.work is not None:
            self.work.cancel()

    def _count(self, kind: str, fault: str, request: Request) -> None:
        self.count(kind, fault)
        self.say(f"{self.run.name}: {fault}: {request.method} {request.path}")


class Watched:
    """A machine whose effects the oracle sees, for one run."""

    def __init__(self, machine: Api, fates: Fates) -> None:
        self._machine = machine
        self._fates = fates

    def handle(self, request: Request) -> Response:
        response = self._handle(request)
        if any(request is repeated for repeated in self._fates.repeated):
            second = self._handle(request)
            return self._fates.chance.choice((response, second))
        return response

    def _handle(self, request: Request) -> Response:
        response = self._machine.handle(request)
        self._fates.oracle.effect(self._fates.run, request, response)
        return response


class FreezingSession(InProcessSession):
    """Now and then the process stands still once an answer has come, or its whole machine sleeps."""

    def __init__(self, api: Api, fates: Fates, machine: Machine) -> None:
        super().__init__(Watched(api, fates), fates)
        self._fates = fates
        self._computer = machine

    async def _request(self, method: str, url: Any, **options: Any) -> InProcessResponse:
        address = URL(url)
        headers = options.get("headers") or {}
        self._fates.oracle.sent_to(self._fates.run, str(address.origin()), address.path, headers=headers)
        response = await super()._request(method, url, **options)
        kind = Exchange(0.0, method, address.raw_path, 0).kind
        seconds, loop = self._fates.freeze(), asyncio.get_running_loop()
        if seconds and isinstance(loop, MachineLoop):
            self._fates.count(kind, FROZEN)
            loop.stop_process(self._computer, seconds)
            # The answer has come: it is read before timers that are over.
            await asyncio.sleep(seconds - 0.001)
        seconds = self._fates.asleep()
        if seconds and isinstance(loop, MachineLoop):
            self._fates.count(kind, ASLEEP)
            loop.sleep(self._computer, seconds)
            await asyncio.sleep(0.001)  # until it wakes
        return response
