"""One history: several runs of the real worker, faults, kills, and everybody else, under virtual time, from one seed.

The real code runs through the real adapters; only time and chance are the history's. After every effect the oracle
checks what must hold at every moment; at the end, after fault-free runs, what must hold at rest. Guarantee: the same
seed plays the same history, whatever the hash seed, step by step.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import aiohttp

from sandbox.transport.in_process import api_client
from tests.simulation.actors import Actors
from tests.simulation.fates import CALM, Fates, FreezingSession, Roughness, Tally
from tests.simulation.oracle import Oracle, Run
from tests.simulation.stage import FALLBACK, Setting, Stage
from tests.support.canary import leaks
from tests.support.scene import HOST, LEDGER, RecordingWatcher
from tests.support.virtual_time import run_virtually
from worker.commands.run import run
from worker.commands.session import DISCOVERY_OVERTIME, World
from worker.errors import OutOfReach
from worker.kubernetes.client import KubernetesApi
from worker.model.hosts import named_origin
from worker.model.targets import AdminKeyRef
from worker.model.values import Ref
from worker.openai.client import OpenAIAdminApi
from worker.runtime.stop import Stop
from worker.settings.options import Options

DEADLINE = 900.0


class Violation(AssertionError):
    """Something happened that must never happen."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How much happens in a history."""

    runs: int = 8
    acts: int = 16


@dataclass(frozen=True, slots=True)
class Play:
    """How one run goes: its options, its clock, and how it ends."""

    options: Options
    skew: timedelta = timedelta(0)
    """This machine's clock is wrong by so much."""
    deadline: float = DEADLINE
    stopped_after: float | None = None
    """Seconds until SIGTERM."""

    @classmethod
    def drawn(cls, chance: random.Random) -> Play:
        return cls(
            options_of(
                max_wait=timedelta(minutes=chance.choice((0, 5))),
                force=chance.random() < 0.15,
                concurrency=chance.choice((1, 2, 50)),
                fallback_admin_key=chance.choice((None, FALLBACK_KEY)),
            ),
            skew=timedelta(minutes=chance.choice((0, 0, 0, 4, -4, 30))),
            deadline=chance.choice((DEADLINE, DEADLINE, 300.0, 30.0)),
            stopped_after=chance.choice((None, None, None, chance.uniform(0, 60))),
        )


FALLBACK_KEY = AdminKeyRef(Ref(LEDGER, FALLBACK), "api-key")


def options_of(**options: Any) -> Options:
    return Options(ledger_namespace=LEDGER, allowed_hosts=frozenset({named_origin(HOST)}), **options)


class Clock:
    """The history's time, on a machine whose clock is wrong by `skew`."""

    def __init__(self, stage: Stage, skew: timedelta) -> None:
        self._stage = stage
        self._skew = skew

    def now(self) -> datetime:
        return self._stage.now() + self._skew

    def monotonic(self) -> float:
        return self._stage.moment()


@dataclass
class History:
    seed: int
    profile: Profile = Profile()
    setting: Setting | None = None
    """None: drawn."""
    trace: list[str] = field(default_factory=list)
    faults: Tally = field(default_factory=Counter)
    runs: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.roughness = Roughness.drawn(self.random)
        self.stage = Stage(self.random, self.setting or Setting.drawn(self.random))
        self.oracle = Oracle(self.stage, self.say)
        self.actors = Actors(self.stage, self.oracle, self.say)

    def say(self, text: str) -> None:
        self.trace.append(f"{self.stage.moment():9.1f}  {text}")

    def play(self) -> None:
        """Play the history to its end. Raises Violation."""
        run_virtually(self._play(), 0.0)
        if self.oracle.violations:
            raise Violation(self.oracle.violations[0])

    async def _play(self) -> None:
        self.stage.use_loop(asyncio.get_running_loop())
        pace = random.Random(self.random.random())
        # Things happen in bursts: runs that overlap, and users in the middle of them.
        bursts = [pace.uniform(0, 3600 * 3) for _ in range(max(1, self.profile.runs // 2))]

        def moment() -> float:
            return pace.choice(bursts) + pace.choice((pace.uniform(0, 5), pace.uniform(0, 300), pace.uniform(0, 3600)))

        runs = [
            _after(moment(), self._rough_run(f"run{index}", random.Random(pace.random())))
            for index in range(self.profile.runs)
        ]
        acts = [_after(moment(), self._act(random.Random(pace.random()))) for _ in range(self.profile.acts)]
        await asyncio.gather(*runs, *acts)
        await self.rest()

    async def _act(self, chance: random.Random) -> None:
        self.actors.act(chance)

    async def _rough_run(self, name: str, chance: random.Random) -> None:
        """A run that may be killed; a Job is then likely to be tried again at once."""
        killed = await self.run(name, Play.drawn(chance), chance, self.roughness)
        if killed and chance.random() < 0.5:
            await asyncio.sleep(chance.uniform(0, 3))
            await self.run(f"{name} again", Play.drawn(chance), chance, self.roughness)

    async def rest(self) -> None:
        """Nothing happens any more but runs; a day later, in a run that has nothing to rotate, all must be clean."""
        self.actors.calm_down()
        play = Play(options_of(fallback_admin_key=FALLBACK_KEY))
        for index, pause in enumerate((400.0, 1200.0, 90_000.0, 960.0)):
            await asyncio.sleep(pause)
            await self.run(f"calm{index}", play, self.random)
        self.oracle.check_at_rest()

    async def run(
        self,
        name: str,
        play: Play,
        chance: random.Random,
        roughness: Roughness = CALM,
        *,
        fates: Callable[..., Fates] = Fates,
    ) -> bool:
        """One run of the worker; whether it was killed. `fates` decides what befalls its requests."""
        self.runs += 1
        known = Run(name, self.stage.moment(), play.options.force)
        me = asyncio.current_task()
        own = fates(known, roughness, self.oracle, chance, self.faults, self.say)
        own.meanwhile = self.actors.lie_in_wait
        own.work = work = asyncio.get_running_loop().create_task(self._work(known, play, own, chance))
        try:
            await work
        except asyncio.CancelledError:
            if me is not None and me.cancelling():
                work.cancel()
                raise
            self.say(f"{name}: killed")
            return True
        except OutOfReach as error:
            self.say(f"{name}: {error.message}")
        except TimeoutError:
            self.say(f"{name}: the cluster's objects could not be listed within the deadline")
        return False

    async def _work(self, known: Run, play: Play, fates: Fates, chance: random.Random) -> None:
        client = api_client(self.stage.kubernetes)
        client.rest_client.pool_manager = cast(aiohttp.ClientSession, FreezingSession(self.stage.kubernetes, fates))
        openai = cast(aiohttp.ClientSession, FreezingSession(self.stage.openai, fates))
        clock = Clock(self.stage, play.skew)
        world = World(KubernetesApi(client, chance), OpenAIAdminApi(openai, chance), clock, chance)
        begun = self.stage.moment()
        stop = Stop(last_start=begun + 0.85 * play.deadline, deadline=begun + play.deadline)
        if play.stopped_after is not None:
            asyncio.get_running_loop().call_later(play.stopped_after, stop.ask)
        async with asyncio.timeout_at(stop.deadline + DISCOVERY_OVERTIME):  # as the command line does
            report = await run(play.options, world, stop, watcher=RecordingWatcher())
        for outcome in report.outcomes:
            self.say(f"{known.name}: {outcome.target} {outcome.result} {outcome.reason}: {outcome.message}")
        for item in report.retired:
            if item.deleted or item.message:
                self.say(f"{known.name}: {item.target} retired {item.deleted} {item.reason} {item.message}")
        told = [(outcome.reason, outcome.message) for outcome in report.outcomes]
        told += [(item.reason, item.message) for item in report.retired]
        for reason, message in told:
            if reason == "InternalError":
                self.oracle.violate(f"{known.name}: {message}")
            if leaks(message):
                self.oracle.violate(f"I6: a key is in what {known.name} says")


async def _after(seconds: float, act: Coroutine[Any, Any, None]) -> None:
    try:
        await asyncio.sleep(seconds)
    except BaseException:
        act.close()
        raise
    await act
