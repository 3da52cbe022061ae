"""One run: discover, observe, plan, rotate, retire, report.

    discover   generators and ExternalSecrets, against the ledger as it was before
    observe    per target: entry, Secret, the project's accounts
    plan       rotate, keep, or say why not (pure)
    rotate     intent, mint, verify, publish, record; told to the cluster at once
    retire     from the ledger, read again: what is not current any more and may go
    report     what was done, why, and what happens next

Serving has its share of the run's time; whoever is still at it then does not keep the others' accounts from going.

Guarantees: one target's failure stays its own; nothing but the ledger passes from rotate to retire; a run that is
stopped starts no new step.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta

from worker.announcing import Announcer
from worker.clocks import TOLERATED, corrected
from worker.concurrency import Slots, Stop, alongside
from worker.ledger import Ledger, Unreadable
from worker.model import Entry, Ref, RunInfo
from worker.observation import Observer
from worker.options import Options
from worker.ports import Clock, Cluster, OpenAIAdmin, Randomness, Watcher
from worker.projects import Projects
from worker.reporting import Report
from worker.restraint import Restraint
from worker.retiring import Retiring
from worker.rotation import Rotation
from worker.serving import SHARE, Serving
from worker.survey import survey

_LOOKS_AT_THE_TIME = 3


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside: what the adapters implement, and time and chance."""

    cluster: Cluster
    openai: OpenAIAdmin
    clock: Clock
    random: Randomness


async def run(options: Options, world: World, stop: Stop, watcher: Watcher) -> Report:
    """Do one run. Raises OutOfReach where the cluster or the ledger cannot be used at all."""
    begun = world.clock.monotonic()
    ledger, clock = await opened(options, world)
    world = replace(world, clock=clock)
    info = RunInfo(world.clock.now(), ledger.uid, options.force, options.dry_run)

    entries = await ledger.read_all()
    discovered = await survey(world.cluster, options)
    watcher.found(len(discovered.targets) + len(discovered.rejected), discovered.unused)

    stages = wired(options, world, info, ledger, entries, stop, watcher)
    serving, retiring = stages.serving, stages.retiring
    refused = await serving.refuse(discovered.rejected)
    async with alongside(serving.serve(discovered.targets)) as served:
        # Whoever is slow now is not waited for: the accounts of all others go meanwhile.
        await asyncio.wait({served}, timeout=stop.remaining * SHARE)
        retired = await (retiring.preview() if options.dry_run else retiring.retire(discovered, serving.under_way))
    # Last, for however many generators feed nothing, no key waits for them.
    await serving.remark(discovered.malformed, discovered.idle)

    seconds = world.clock.monotonic() - begun
    return Report(
        info, (*refused, *served.result()), tuple(retired), discovered.unused, seconds, stop.reason, options.shard
    )


async def opened(options: Options, world: World) -> tuple[Ledger, Clock]:
    """The ledger, and the clock put right by the API server's, which is asked again where its answer was slow."""
    for _ in range(_LOOKS_AT_THE_TIME):
        asked = world.clock.monotonic()
        ledger, server_time = await Ledger.open(world.cluster, options.ledger_namespace, options.shard)
        taken = timedelta(seconds=world.clock.monotonic() - asked)
        if taken <= TOLERATED:
            break
    return ledger, corrected(world.clock, server_time, taken=taken)


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages with what they share: the run's places, what is known of projects, and nothing else."""

    serving: Serving
    retiring: Retiring
    projects: Projects
    observer: Observer


def wired(
    options: Options,
    world: World,
    info: RunInfo,
    ledger: Ledger,
    entries: dict[Ref, Entry | Unreadable],
    stop: Stop,
    watcher: Watcher,
) -> Stages:
    """The stages of one run with what they need."""
    cluster, openai, clock = world.cluster, world.openai, world.clock
    slots = Slots(options.concurrency)
    known = [entry.throttle for entry in entries.values() if isinstance(entry, Entry) and entry.throttle is not None]
    restraint = Restraint(clock, slots, stop, [] if options.force else known)
    projects = Projects(cluster, openai, restraint, slots, clock, options.allowed_hosts, options.fallback_admin_key)
    observer = Observer(cluster, projects, clock)
    rotation = Rotation(cluster, openai, ledger, projects, restraint, observer, clock, world.random, slots.sleep, info)
    announcer = Announcer(cluster, clock)
    serving = Serving(info, entries, ledger, observer, rotation, announcer, watcher, clock, slots, stop)
    retiring = Retiring(
        known=frozenset(entries),
        namespaces=options.namespaces,
        narrowed=bool(options.selector),
        max_wait=options.max_wait,
        unseen_hold=options.unseen_hold,
        max_hold=options.max_hold,
        ledger=ledger,
        projects=projects,
        restraint=restraint,
        observer=observer,
        announcer=announcer,
        cluster=cluster,
        watcher=watcher,
        clock=clock,
        slots=slots,
        stop=stop,
    )
    return Stages(serving, retiring, projects, observer)
