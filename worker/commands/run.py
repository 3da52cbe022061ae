"""One run: discover, observe, plan, rotate, retire, report.

    discover   generators and ExternalSecrets, against the ledger as it was before
    observe    per target: entry, Secret, the project's accounts
    plan       rotate, keep, or say why not (pure)
    rotate     intent, mint, verify, publish, record; told to the cluster at once
    retire     from the ledger, read again: previous and unpublished accounts that may go
    report     what the run did, why, and what happens next

Guarantees: one target's failure stays its own.
Nothing but the ledger passes from rotate to retire.
A stopped run starts no new step.
"""

from __future__ import annotations

import asyncio

from worker.commands.session import Session, World, open_ledger, wire_stages
from worker.discover.listing import discover
from worker.model.outcomes import Report, RunInfo
from worker.ports import Watcher
from worker.report import termination
from worker.report.log_lines import LogWatcher, logger
from worker.report.summary import exit_code, run_fields
from worker.report.terminal import TerminalWatcher
from worker.rotate.reconcile import RECONCILE_SHARE
from worker.runtime.for_each import alongside
from worker.runtime.stop import Stop
from worker.settings.options import Options


async def execute(session: Session) -> int:
    """Run, report the result, and return the exit code. Raises OutOfReach as `run` does."""
    settings = session.settings
    watcher = TerminalWatcher(session.clock) if settings.as_table else LogWatcher(logger())
    stop = session.stop()
    async with session.world(stop) as world:
        report = await run(settings.options, world, stop, watcher=watcher)
    watcher.finished(report)
    code = exit_code(report, strict=settings.strict, lenient=settings.lenient)
    termination.write(settings.summary_file, {**run_fields(report), "exit_code": code})
    return code


async def run(options: Options, world: World, stop: Stop, *, watcher: Watcher) -> Report:
    """Do one run. Raises OutOfReach where the cluster or the ledger cannot be used at all."""
    begun = world.clock.monotonic()
    ledger, running = await open_ledger(options, world)
    info = RunInfo(
        running.clock.now(),
        ledger.uid,
        options.force,
        options.dry_run,
        job=options.job,
        max_accounts=options.max_accounts,
    )

    # The ledger comes first: an entry counts as abandoned only if discovery could have found its source.
    entries = await ledger.read_all()
    discovered = await discover(running.cluster, options)
    watcher.found(len(discovered.targets) + len(discovered.rejected), discovered.unused)

    stages = wire_stages(options, running, run=info, ledger=ledger, entries=entries, stop=stop, watcher=watcher)
    reconciler, sweep = stages.reconciler, stages.sweep
    refused = await reconciler.refuse(discovered.rejected)
    async with alongside(reconciler.reconcile(discovered.targets)) as reconciling:
        # Retiring does not wait for slow targets: the accounts of all others go meanwhile.
        await asyncio.wait({reconciling}, timeout=stop.remaining * RECONCILE_SHARE)
        retired = await (sweep.preview() if options.dry_run else sweep.retire(discovered, reconciler.under_way))
    # Remarks come last: however many generators feed nothing, no key waits for them.
    await reconciler.remark(discovered.malformed, discovered.idle)

    return Report(
        info,
        outcomes=(*refused, *reconciling.result()),
        retired=tuple(retired),
        unused=discovered.unused,
        seconds=world.clock.monotonic() - begun,
        stopped=stop.reason,
        shard=options.shard,
    )
