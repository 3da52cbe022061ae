"""The start of every command: settings and cluster, ledger, and the stages with their dependencies.

Guarantee: the deadline ends every request of a command to the cluster and to OpenAI.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from worker.context import RunContext
from worker.errors import OutOfReach
from worker.kubernetes.listening import ListeningCluster
from worker.ledger.admin_store import AdminLedger
from worker.ledger.store import Ledger, ledger_uid
from worker.model.entries import Entry, Unreadable
from worker.model.outcomes import RunInfo
from worker.model.values import Ref
from worker.observe.admin_keys import AdminKeyObserver
from worker.observe.consumers import FreshPods
from worker.observe.observer import Observer
from worker.openai.admin_keys import AdminKeysAtOpenAI
from worker.openai.limiter import Limiter
from worker.openai.projects import Projects
from worker.ports import Clock, Cluster, OpenAIAdmin, Randomness, Watcher
from worker.report.announce import Announcer
from worker.restart.restarts import Restarts
from worker.retire.admin_retirement import AdminRetirement
from worker.retire.sweep import Sweep
from worker.rotate.admin_keys import AdminKeys
from worker.rotate.admin_rotation import AdminRotation
from worker.rotate.reconcile import Reconciler
from worker.rotate.rotation import Rotation
from worker.runtime.clocks import TOLERATED, RunClock, corrected
from worker.runtime.slots import Slots
from worker.runtime.stop import Stop
from worker.settings.options import Options, Settings

_LOOKS_AT_THE_TIME = 3
DISCOVERY_OVERTIME = 5.0
"""Seconds after the deadline until a command gives up even a running list; all else ends at the deadline."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside: the adapters, time and chance."""

    cluster: Cluster
    openai: OpenAIAdmin
    clock: Clock
    random: Randomness


@dataclass(frozen=True, slots=True)
class Session:
    """One invocation of the command line, with its connection to the cluster."""

    settings: Settings
    cluster: Cluster
    clock: Clock
    random: Randomness

    def stop(self) -> Stop:
        """Ends the command in time, or when SIGTERM or SIGINT asks for it. The time begins now."""
        stop = Stop.within(self.settings.deadline.total_seconds())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.ask)
        return stop

    @asynccontextmanager
    async def world(self, stop: Stop) -> AsyncIterator[World]:
        """Cluster and OpenAI, until shortly after the deadline. Raises OutOfReach then."""
        from worker.openai.client import connected

        settings = self.settings
        connections = connected(
            settings.options.concurrency, self.random, settings.proxies, own_authority=settings.own_authority
        )
        try:
            async with connections as openai, asyncio.timeout_at(stop.deadline + DISCOVERY_OVERTIME):
                yield World(self.cluster, openai, self.clock, self.random)
        except TimeoutError:
            message = "the cluster's objects could not be listed within the deadline"
            raise OutOfReach("DeadlineExceeded", message) from None


@dataclass(frozen=True, slots=True)
class RunWorld:
    """The same for one run: with a clock that the API server's answers put right."""

    cluster: Cluster
    openai: OpenAIAdmin
    clock: RunClock
    random: Randomness


async def open_ledger(options: Options, world: World) -> tuple[Ledger, RunWorld]:
    """The ledger, and the world with the API server's time. After a slow answer it asks the API server again."""
    for _ in range(_LOOKS_AT_THE_TIME):
        asked, day = world.clock.monotonic(), world.clock.now()
        uid, server_time = await ledger_uid(world.cluster, options.ledger_namespace)
        # The monotonic clock stands still while the machine sleeps.
        taken = max(timedelta(seconds=world.clock.monotonic() - asked), world.clock.now() - day)
        if taken <= TOLERATED:
            break
    clock = corrected(world.clock, server_time, taken=taken)
    cluster = ListeningCluster(world.cluster, clock)
    ledger = Ledger(cluster, options.ledger_namespace, uid, clock=clock, shard=options.shard)
    return ledger, RunWorld(cluster, world.openai, clock, world.random)


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages that act, what is told of the admin keys they used, and the context that all share."""

    context: RunContext
    reconciler: Reconciler
    restarts: Restarts
    sweep: Sweep
    admin_keys: AdminKeys
    admin_rotation: AdminRotation
    admin_retirement: AdminRetirement


def wire_stages(
    options: Options,
    world: RunWorld,
    *,
    run: RunInfo,
    ledger: Ledger,
    entries: dict[Ref, Entry | Unreadable],
    stop: Stop,
    watcher: Watcher,
) -> Stages:
    """The stages of one run with their dependencies."""
    cluster, openai, clock = world.cluster, world.openai, world.clock
    slots = Slots(options.concurrency)
    known = [entry.throttle for entry in entries.values() if isinstance(entry, Entry) and entry.throttle is not None]
    # A forced rotation asks OpenAI now, also where OpenAI asked earlier runs to wait.
    limiter = Limiter(clock, slots, stop, known=[] if options.force else known)
    projects = Projects(
        cluster,
        openai,
        limiter,
        slots=slots,
        clock=clock,
        allowed_hosts=options.allowed_hosts,
        fallback=options.fallback_admin_key,
        fallback_host=options.fallback_host,
        recorded=ledger.recorded,
    )
    context = RunContext(
        run=run,
        cluster=cluster,
        ledger=ledger,
        projects=projects,
        limiter=limiter,
        observer=Observer(cluster, projects, clock),
        announcer=Announcer(cluster, clock),
        watcher=watcher,
        clock=clock,
        slots=slots,
        stop=stop,
    )
    admin_keys = AdminKeys(context)
    rotation = Rotation(context, openai, world.random, FreshPods(cluster, clock))
    reconciler = Reconciler(context, entries, rotation, admin_keys)
    sweep = Sweep(
        context,
        known=frozenset(entries),
        namespaces=options.namespaces,
        narrowed=bool(options.selector),
        max_wait=options.max_wait,
        unseen_hold=options.unseen_hold,
        max_hold=options.max_hold,
    )
    admin_ledger = AdminLedger(cluster, clock, ledger.namespace, ledger.uid)
    admin_observer = AdminKeyObserver(cluster, admin_ledger)
    at_openai = AdminKeysAtOpenAI(openai, limiter, options.allowed_hosts)
    return Stages(
        context,
        reconciler,
        Restarts(context, options.max_hold),
        sweep,
        admin_keys,
        AdminRotation(context, admin_ledger, admin_observer, at_openai, world.random),
        AdminRetirement(context, admin_ledger, admin_observer, at_openai),
    )
