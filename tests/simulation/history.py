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
from datetime import datetime
from typing import Any, cast

import aiohttp

from tests.simulation.actors import Actors
from tests.simulation.admin_acts import AdminActs
from tests.simulation.at_rest import check_at_rest, unrecorded
from tests.simulation.commands import ADOPT, RUN
from tests.simulation.fates import CALM, Fates, FreezingSession, Roughness, Tally
from tests.simulation.machines import Machine, on_machine, play_on_machines
from tests.simulation.memory import Run
from tests.simulation.oracle import Oracle
from tests.simulation.play import FALLBACK_KEY, LOOKS, Play, options_of
from tests.simulation.plots import PLOTS, Plots
from tests.simulation.stage import Setting, Stage
from tests.support.canary import leaks
from tests.support.clients import with_session
from worker.commands.session import DISCOVERY_OVERTIME, World
from worker.errors import OutOfReach, RotatorError
from worker.kubernetes.client import KubernetesApi
from worker.model.shard import Shard
from worker.openai.client import OpenAIAdminApi
from worker.runtime.stop import Stop

ADMIN_KEYS_ROTATE = 0.3
"""The share of histories in which the operator's own admin keys rotate."""


class Violation(AssertionError):
    """Something happened that must never happen."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How much happens in a history."""

    runs: int = 8
    acts: int = 16


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
        self.plot: str | None = None
        """What is played before all else."""
        if self.setting is None and self.random.random() < 0.5:
            self.plot = self.random.choice(PLOTS)
        drawn = self.setting is None
        self.setting = self.setting or Setting.drawn(self.random)
        self.roughness = Roughness.drawn(self.random, self.setting)
        self.stage = Stage(self.random, self.setting)
        self.oracle = Oracle(self.stage, self.say)
        self.actors = Actors(self.stage, self.oracle, self.say)
        # Drawn apart: a history in which nobody asks for it goes on as it was.
        self._admin = random.Random(f"admin keys of {self.seed}")
        self._admin_acts = AdminActs(self.stage, self.oracle, self.say)
        self.admin_keys_rotate = drawn and self._admin.random() < ADMIN_KEYS_ROTATE

    def say(self, text: str) -> None:
        self.trace.append(f"{self.stage.moment():9.1f}  {text}")

    def play(self) -> None:
        """Play the history to its end. Raises Violation."""
        play_on_machines(self._play())
        if self.oracle.violations:
            raise Violation(self.oracle.violations[0])

    async def _play(self) -> None:
        self.stage.use_loop(asyncio.get_running_loop())
        if self.plot is not None:
            await Plots(self).play(self.plot, random.Random(self.random.random()))
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
        if self.admin_keys_rotate:
            acts += self._around_admin_keys()
        await asyncio.gather(*runs, *acts)
        await self.rest()

    def _around_admin_keys(self) -> list[Coroutine[Any, Any, None]]:
        """The operator asks for new admin keys, and others act on the present ones."""
        begun = self._admin.choice((0.0, self._admin.uniform(0, 7200)))
        acts = [_after(begun, self._ask_for_admin_keys())]
        for _ in range(self._admin.choice((0, 3, 10))):
            at = self._admin.uniform(0, 3600 * 5)
            acts.append(_after(at, self._admin_act(random.Random(self._admin.random()))))
        return acts

    async def _ask_for_admin_keys(self) -> None:
        self.stage.ask_for_admin_keys("1h")

    async def _admin_act(self, chance: random.Random) -> None:
        self._admin_acts.act(chance)

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
            # Kubernetes tries the same pod again.
            options = replace(again.options, shard=play.options.shard)
            if play.options.job:
                options = replace(options, force=True, job=play.options.job)
            again = replace(again, options=options)
            await self.run(f"{name} again", again, chance, self._roughness_of(again))

    def _roughness_of(self, play: Play) -> Roughness:
        if play.calm:
            return CALM
        # A clock that is set back during a sleep hides the sleep: nothing could be told from it.
        return self.roughness if play.step is None else replace(self.roughness, sleeps=0.0)

    async def rest(self) -> None:
        """Nothing happens any more but runs; a day later, in a run that has nothing to rotate, all must be clean."""
        self.actors.calm_down()
        play = Play(options_of(fallback_admin_key=FALLBACK_KEY, look_every=self.random.choice(LOOKS)), calm=True)
        if self.actors.lost_the_ledger or unrecorded(self.oracle):
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
        check_at_rest(self.oracle)

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
        cluster = cast(aiohttp.ClientSession, FreezingSession(stage.cluster_seen, fates, machine))
        openai = cast(aiohttp.ClientSession, FreezingSession(stage.openai_seen, fates, machine))
        world = World(
            KubernetesApi(with_session(cluster), chance), OpenAIAdminApi(openai, chance), Clock(stage, machine), chance
        )
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
