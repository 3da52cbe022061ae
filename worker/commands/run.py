"""One run: discover, observe, plan, rotate, restart, retire, report.

    discover   generators and ExternalSecrets, against the ledger as it was before
    observe    per target: entry, Secret, the project's accounts
    plan       rotate, keep, or say why not (pure)
    rotate     intent, mint, verify, publish, record; told to the cluster at once
    restart    from the ledger: the workloads that an annotation names, once for each publication
    retire     from the ledger, read again where need be: previous and unpublished accounts that may go
    report     what the run did, why, and what happens next

Guarantees: one target's failure stays its own.
Nothing but the ledger passes from rotate to restart and retire.
A stopped run starts no new step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from worker.commands.own_admin_keys import replace_own_admin_keys
from worker.commands.session import Session, World, open_ledger, wire_stages
from worker.discover.listing import discover
from worker.discover.targets import without_asked_elsewhere
from worker.model.entries import Entry, Unreadable, accounts_of
from worker.model.outcomes import Report, RunInfo
from worker.model.targets import Target
from worker.model.values import Ref
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
    code = exit_code(report, strict=settings.strict, spare_tenants=settings.tenant_failures == "report")
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
        look_every=options.look_every,
    )

    # The ledger comes first: an entry counts as abandoned only if discovery could have found its source.
    entries = await ledger.read_all()
    discovered = without_asked_elsewhere(await discover(running.cluster, options, partly=True), entries)
    central = _served_centrally(discovered.targets, entries)
    watcher.found(len(discovered.targets) + len(discovered.rejected), discovered.unused)

    stages = wire_stages(options, running, run=info, ledger=ledger, entries=entries, stop=stop, watcher=watcher)
    reconciler, restarts, sweep = stages.reconciler, stages.restarts, stages.sweep
    refused = await reconciler.refuse(discovered.rejected)
    async with alongside(reconciler.reconcile(discovered.targets)) as reconciling:
        # Retiring does not wait for slow targets: the accounts of all others go meanwhile.
        await asyncio.wait({reconciling}, timeout=stop.remaining * RECONCILE_SHARE)
        # Restarting comes before retiring: an account may go in this run if its holders are replaced during its wait.
        if options.dry_run:
            restarted = await restarts.preview(discovered.targets, reconciler.planned)
            retired = await sweep.preview(discovered)
        else:
            restarted = await restarts.restart(discovered.targets, reconciler.under_way)
            retired = await sweep.retire(discovered, reconciler.under_way)
    # Remarks come last: however many generators feed nothing, no key waits for them.
    await reconciler.remark(discovered)
    await stages.admin_keys.tell()
    # And the admin keys come after everything that this run does with the present ones.
    own_admin_keys = await replace_own_admin_keys(options, stages)

    return Report(
        info,
        outcomes=(*refused, *reconciling.result()),
        retired=tuple(retired),
        unused=discovered.unused,
        seconds=world.clock.monotonic() - begun,
        stopped=stop.reason,
        shard=options.shard,
        restarts=tuple(restarted),
        central=central,
        admin_keys=tuple(own_admin_keys),
    )


def _served_centrally(targets: Collection[Target], entries: Mapping[Ref, Entry | Unreadable]) -> frozenset[Ref]:
    """Targets for which the platform's admin key makes accounts, or has made one that is still there."""
    found = {target.ref for target in targets if target.central}
    for ref, entry in entries.items():
        if isinstance(entry, Entry):
            keys = (account.access.admin_key for account in accounts_of(entry))
            found |= {ref for key in keys if key.is_central(ref.namespace)}
    return frozenset(found)
