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
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

import aiohttp

from sandbox.transport.in_process import api_client
from tests.simulation.actors import Actors
from tests.simulation.commands import ADOPT, RUN, Command, Revoke
from tests.simulation.fates import CALM, Fates, FreezingSession, Roughness, Tally
from tests.simulation.machines import Machine, on_machine, play_on_machines
from tests.simulation.oracle import Oracle, Run
from tests.simulation.stage import CENTRAL, FALLBACK, GATEWAY, TARGETS, Setting, Stage
from tests.support.canary import leaks
from tests.support.scene import HOST, LEDGER, PROJECT
from worker.commands.session import DISCOVERY_OVERTIME, World
from worker.errors import OutOfReach, RotatorError
from worker.kubernetes.client import KubernetesApi
from worker.model.hosts import named_origin
from worker.model.shard import Shard
from worker.model.targets import AdminKeyRef, Project
from worker.model.values import Ref
from worker.openai.client import OpenAIAdminApi
from worker.runtime.stop import Stop
from worker.settings.central_keys import CentralKeys
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
    step: tuple[float, timedelta] | None = None
    """After so many seconds somebody sets this machine's clock to another error."""
    shards: int = 1
    """Pods that share the work."""
    command: Command = RUN
    calm: bool = False
    """No faults."""

    @classmethod
    def drawn(cls, chance: random.Random, setting: Setting) -> Play:
        play = cls(
            options_of(
                max_wait=timedelta(minutes=chance.choice((0, 5))),
                force=chance.random() < 0.15,
                concurrency=chance.choice((1, 2, 50)),
                fallback_admin_key=chance.choice((None, FALLBACK_KEY)),
            ),
            skew=timedelta(minutes=chance.choice((0, 0, 0, 4, -4, 30))),
            deadline=chance.choice((DEADLINE, DEADLINE, 300.0, 30.0)),
            stopped_after=chance.choice((None, None, None, chance.uniform(0, 60))),
            calm=bool(setting.wider) and chance.random() < 0.3,
        )
        if "options" in setting.wider:
            play = _with_rarer_options(play, chance)
        if "clocks" in setting.wider and chance.random() < 0.3:
            step = timedelta(minutes=chance.choice((0, -30, 30, 600)))
            play = replace(play, step=(chance.uniform(0, 120), step))
        if "ledger" in setting.wider and chance.random() < 0.25:
            command = chance.choice((ADOPT, ADOPT, Revoke(chance.choice(TARGETS), chance.random() < 0.3)))
            play = replace(play, command=command, shards=1, options=replace(play.options, shard=Shard()))
        return play


def _with_rarer_options(play: Play, chance: random.Random) -> Play:
    """What few operators set."""
    options = replace(
        play.options,
        max_hold=chance.choice((None, None, timedelta(minutes=10), timedelta(hours=1))),
        max_accounts=chance.choice((100, 100, 3, 2)),
        namespaces=chance.choice(((), (), (), ("default",), ("team",))),
        fallback_host=chance.choice((named_origin(HOST), named_origin(HOST), named_origin(GATEWAY), None)),
        central_keys=chance.choice((GRANTED, CentralKeys())),
    )
    return replace(play, options=options, shards=chance.choice((1, 1, 2, 3)))


FALLBACK_KEY = AdminKeyRef(Ref(LEDGER, FALLBACK), "api-key")
GRANTED = CentralKeys({(Project(HOST, PROJECT), "default"): AdminKeyRef(Ref(LEDGER, CENTRAL), "api-key")})


def options_of(**options: Any) -> Options:
    asked = Options(
        ledger_namespace=LEDGER,
        allowed_hosts=frozenset({named_origin(HOST), named_origin(GATEWAY)}),
        fallback_host=named_origin(HOST),
        central_keys=GRANTED,
    )
    return replace(asked, **options)


class Clock:
    """The clocks of a machine: the time of day, which may be wrong, and a monotonic one, which excludes its sleep."""

    def __init__(self, stage: Stage, machine: Machine) -> None:
        self._stage = stage
        self._machine = machine

    def now(self) -> datetime:
        return self._stage.now() + self._machine.skew

    def monotonic(self) -> float:
        return self._machine.time(self._stage.moment())


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
        self.setting = self.setting or Setting.drawn(self.random)
        self.roughness = Roughness.drawn(self.random, self.setting)
        self.stage = Stage(self.random, self.setting)
        self.oracle = Oracle(self.stage, self.say)
        self.actors = Actors(self.stage, self.oracle, self.say)

    def say(self, text: str) -> None:
        self.trace.append(f"{self.stage.moment():9.1f}  {text}")

    def play(self) -> None:
        """Play the history to its end. Raises Violation."""
        play_on_machines(self._play())
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
        # Some look, without faults, at what has settled.
        looks = [pace.choice(bursts) + pace.uniform(3600, 7200) for _ in range(2 if self.stage.setting.wider else 0)]
        runs += [_after(at, self._look(f"look{index}", random.Random(pace.random()))) for index, at in enumerate(looks)]
        acts = [_after(moment(), self._act(random.Random(pace.random()))) for _ in range(self.profile.acts)]
        await asyncio.gather(*runs, *acts)
        await self.rest()

    async def _act(self, chance: random.Random) -> None:
        self.actors.act(chance)

    async def _look(self, name: str, chance: random.Random) -> None:
        play = Play.drawn(chance, self.stage.setting)
        options = replace(play.options, namespaces=(), max_accounts=100, force=False)
        await self.run(name, Play(options, calm=True), chance)

    async def _rough_run(self, name: str, chance: random.Random) -> None:
        """A run that may be killed; a Job is then likely to be tried again at once."""
        play = Play.drawn(chance, self.stage.setting)
        pods = [replace(play, options=replace(play.options, shard=Shard(i, play.shards))) for i in range(play.shards)]
        names = [name] if len(pods) == 1 else [f"{name} pod{index}" for index in range(len(pods))]
        await asyncio.gather(*map(self._pod, names, pods, [random.Random(chance.random()) for _ in pods]))

    async def _pod(self, name: str, play: Play, chance: random.Random) -> None:
        killed = await self.run(name, play, chance, self._roughness_of(play))
        if killed and chance.random() < 0.5:
            await asyncio.sleep(chance.uniform(0, 3))
            again = replace(Play.drawn(chance, self.stage.setting), command=play.command, calm=False)
            shard = play.options.shard
            again = replace(again, options=replace(again.options, shard=shard))
            await self.run(f"{name} again", again, chance, self._roughness_of(again))

    def _roughness_of(self, play: Play) -> Roughness:
        if play.calm:
            return CALM
        # A clock that is set back during a sleep hides the sleep: nothing could be told from it.
        return self.roughness if play.step is None else replace(self.roughness, sleeps=0.0)

    async def rest(self) -> None:
        """Nothing happens any more but runs; a day later, in a run that has nothing to rotate, all must be clean."""
        self.actors.calm_down()
        play = Play(options_of(fallback_admin_key=FALLBACK_KEY), calm=True)
        if self.actors.lost_the_ledger or self.oracle.unrecorded():
            self.actors.clean_up(adopted=False)
            await asyncio.sleep(400)
            await self.run("calm adopt", replace(play, command=ADOPT), self.random)
        self.actors.clean_up()
        pauses = [400.0, 1200.0, 90_000.0, 960.0]
        for index, pause in enumerate(pauses):
            await asyncio.sleep(pause)
            begun = self.stage.moment()
            await self.run(f"calm{index}", play, self.random)
            if index == 3 and (self.oracle.published_since(begun) or self.oracle.anything_left):
                # Something took a day: that a project is really empty, say. Another day, and nothing is to be done.
                pauses += [90_000.0, 960.0]
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
        """One run, or another command; whether it was killed. `fates` decides what befalls its requests."""
        self.runs += 1
        known = Run(name, self.stage.moment(), play.options, play.command)
        me = asyncio.current_task()
        own = fates(known, roughness, self.oracle, chance, self.faults, self.say)
        own.meanwhile = self.actors.lie_in_wait
        machine = Machine(play.skew)
        loop = asyncio.get_running_loop()
        work = self._work(known, play, own, chance, machine)
        own.work = task = loop.create_task(work, context=on_machine(machine))
        try:
            await task
        except asyncio.CancelledError:
            if me is not None and me.cancelling():
                task.cancel()
                raise
            self.say(f"{name}: killed")
            return True
        except OutOfReach as error:
            self.say(f"{name}: {error.message}")
        except RotatorError as error:
            if play.command is RUN:
                self.oracle.violate(f"{name}: {type(error).__name__} escapes: {error.message}")
            self.say(f"{name}: {error.message}")
        except TimeoutError:
            self.say(f"{name}: the cluster's objects could not be listed within the deadline")
        return False

    async def _work(self, known: Run, play: Play, fates: Fates, chance: random.Random, machine: Machine) -> None:
        stage, loop = self.stage, asyncio.get_running_loop()
        client = api_client(stage.cluster_seen)
        cluster = FreezingSession(stage.cluster_seen, fates, machine)
        client.rest_client.pool_manager = cast(aiohttp.ClientSession, cluster)
        openai = cast(aiohttp.ClientSession, FreezingSession(stage.openai_seen, fates, machine))
        world = World(KubernetesApi(client, chance), OpenAIAdminApi(openai, chance), Clock(stage, machine), chance)
        begun = loop.time()
        stop = Stop(last_start=begun + 0.85 * play.deadline, deadline=begun + play.deadline)
        if play.stopped_after is not None:
            loop.call_later(play.stopped_after, stop.ask)
        if play.step is not None:
            seconds, error = play.step
            loop.call_later(seconds, setattr, machine, "skew", error)
        async with asyncio.timeout_at(stop.deadline + DISCOVERY_OVERTIME):  # as the command line does
            told = await play.command.execute(play.options, world, stop)
        for line in told.lines:
            self.say(f"{known.name}: {line}")
        for reason, message in told.reasons:
            if reason == "InternalError":
                self.oracle.violate(f"{known.name}: {message}")
            if leaks(message):
                self.oracle.violate(f"I6: a key is in what {known.name} says")
        if play.calm:
            self.oracle.check_after_calm(known, told.outcomes)


async def _after(seconds: float, act: Coroutine[Any, Any, None]) -> None:
    try:
        await asyncio.sleep(seconds)
    except BaseException:
        act.close()
        raise
    await act
