"""How one run of a history goes: its command and options, its clock, and how it ends. Drawn by chance, or said."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from tests.simulation.commands import ADOPT, RUN, Command, Revoke
from tests.simulation.stage import CENTRAL, FALLBACK, GATEWAY, TARGETS, Setting
from tests.support.scene import HOST, LEDGER, PROJECT
from worker.model.hosts import named_origin
from worker.model.shard import Shard
from worker.model.targets import AdminKeyRef, Project
from worker.model.values import Ref
from worker.settings.central_keys import CentralKeys
from worker.settings.options import Options

DEADLINE = 900.0
LOOKS = (timedelta(0), timedelta(0), timedelta(minutes=20), timedelta(hours=1))


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
                **_forced(chance),
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


def _forced(chance: random.Random) -> dict[str, Any]:
    """Some runs force; of these some know which Job they are a try of."""
    force = chance.random() < 0.15
    return {"force": force, "job": f"job-{chance.randrange(10**6)}" if force and chance.random() < 0.5 else ""}


def _with_rarer_options(play: Play, chance: random.Random) -> Play:
    """What few operators set."""
    options = replace(
        play.options,
        max_hold=chance.choice((None, None, timedelta(minutes=10), timedelta(hours=1))),
        max_accounts=chance.choice((100, 100, 3, 2)),
        namespaces=chance.choice(((), (), (), ("default",), ("team",))),
        fallback_host=chance.choice((named_origin(HOST), named_origin(HOST), named_origin(GATEWAY), None)),
        central_keys=chance.choice((GRANTED, CentralKeys())),
        look_every=chance.choice(LOOKS),
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
