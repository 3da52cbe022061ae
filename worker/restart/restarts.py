"""Restart the workloads of every target whose publication asks for it: read, decide, stamp, note.

Everything comes from the ledger, which rotate has written. The stamp is the publication's time, so that a run may be
killed at any point, and no publication restarts a workload twice:

    before the stamp      the ledger says that the restart is due: the next run stamps
    between two stamps    the next run finds the first stamp in the workload, and makes the second
    before the note       the next run finds all stamps in the workloads, and only notes them
    after the note        the ledger says that it is done: no run asks for the workloads again

Two runs at once stamp the same value: the second one changes nothing.
Guarantees: one target's failure stays its own, and no failure touches a rotation.
A workload that several targets name is stamped once, with the latest of their publications.
A run asks the cluster nothing for a target whose restart is done, or that asks for none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from worker.context import RunContext
from worker.errors import Conflict, NotFound, Refused, RotatorError, Throttled
from worker.ledger import transitions
from worker.model.entries import Entry, Restart, RestartState
from worker.model.outcomes import WOULD_RESTART, Notice, RestartOutcome, Result
from worker.model.targets import Target
from worker.model.values import Ref
from worker.model.workloads import RestartWish, Workload
from worker.plan.restart import Fate, Verdict, cannot_wait, decide_restart, restart_after, restart_due
from worker.restart.workloads import Workloads
from worker.runtime.for_each import Crash, for_each

RESTART_SHARE = 1 / 2
"""The share of the run's remaining time for restarting: accounts are to go in this run, too."""
BLOCKED = "RestartBlocked"
RESTARTED = "Restarted"
_ATTEMPTS = 3
_REASONS = {
    RestartState.DONE: RESTARTED,
    RestartState.BLOCKED: BLOCKED,
    RestartState.WAITING: "RolloutUnderWay",
}


@dataclass(frozen=True, slots=True)
class _Due:
    """A target with something to restart, or to say about it. `at`: the stamp.

    `entry`: where the result is noted; None: nowhere. `workloads`: those that are left.
    """

    target: Target
    wish: RestartWish
    at: datetime
    urgent: bool = False
    entry: Entry | None = None
    account: str = ""
    before: Restart = field(default_factory=Restart)
    workloads: tuple[Workload, ...] = ()
    trouble: Verdict | None = None


@dataclass(frozen=True, slots=True)
class _Order:
    """A workload, and the latest publication for which it is to be restarted."""

    workload: Workload
    at: datetime
    urgent: bool


@dataclass(frozen=True, slots=True)
class Restarts:
    """`max_hold`: after it the worker deletes an account, held or not."""

    context: RunContext
    max_hold: timedelta | None

    async def restart(self, targets: Collection[Target], under_way: Collection[Ref] = ()) -> list[RestartOutcome]:
        """Restart what is due, but not for targets `under_way`."""
        return await self._restart([target for target in targets if target.ref not in under_way], self._due)

    async def preview(self, targets: Collection[Target], planned: Collection[Ref]) -> list[RestartOutcome]:
        """What a run would restart; it reads, and stamps nothing. `planned`: the targets that it would rotate."""

        async def due(target: Target) -> _Due | None:
            entry, now = self.context.ledger.unchanged(target.ref), self.context.now()
            if target.restart is None or target.ref not in planned:
                return await self._due(target)
            if entry is None or entry.since is None:
                return _mistaken(target, target.restart, now)  # a first key restarts nothing
            trouble = _trouble(target.restart)
            return _Due(target, target.restart, now, cannot_wait(entry, self.max_hold, now), trouble=trouble)

        return await self._restart(targets, due)

    async def _restart(
        self, targets: Collection[Target], due_of: Callable[[Target], Awaitable[_Due | None]]
    ) -> list[RestartOutcome]:
        asking = [target for target in targets if target.restart is not None and not target.suspended]
        if not asking or self.context.stop.reason is not None:
            return []
        workloads, slots = Workloads(self.context.cluster), self.context.slots
        stop = self.context.stop.for_stage(RESTART_SHARE)

        async def meant(target: Target) -> _Due | None:
            due = await due_of(target)
            return await _with_workloads(due, workloads) if due is not None else None

        async def stamp(order: _Order) -> Verdict:
            return await self._stamp(order, workloads)

        looked = await for_each(asking, meant, slots=slots, stop=stop, tenant=lambda target: target.ref.namespace)
        dues = [done.value for done in looked if isinstance(done.value, _Due)]
        stamped = await for_each(
            _orders(dues), stamp, slots=slots, stop=stop, tenant=lambda order: order.workload.ref.namespace
        )
        verdicts = {done.item.workload: _of_crash(done.value) for done in stamped}

        async def note(due: _Due) -> RestartOutcome:
            return await self._note(due, {workload: verdicts[workload] for workload in due.workloads})

        noted = await for_each(
            dues, note, slots=slots, stop=self.context.stop, tenant=lambda due: due.target.ref.namespace
        )
        outcomes = [_failed(done.item.ref, done.value) for done in looked if isinstance(done.value, Crash)]
        outcomes += [
            _failed(done.item.target.ref, done.value) if isinstance(done.value, Crash) else done.value for done in noted
        ]
        for outcome in outcomes:
            self.context.watcher.restarted(outcome)
        return outcomes

    async def _due(self, target: Target) -> _Due | None:
        """What is to be restarted for a target, by the ledger; None where there is nothing, nor anything to say."""
        wish, ledger, now = target.restart, self.context.ledger, self.context.now()
        if wish is None:
            return None
        entry = ledger.unchanged(target.ref)
        if entry is None or restart_due(entry, ledger.uid, now) is not None:
            # The run has written it since it listed the ledger, or it is about to write it.
            entry = await ledger.read(target.ref)
        publication = restart_due(entry, ledger.uid, now) if entry is not None else None
        if entry is None or publication is None or publication.restart is None:
            return _mistaken(target, wish, now)
        return _Due(
            target,
            wish,
            publication.at,
            cannot_wait(entry, self.max_hold, now),
            entry,
            publication.account.name,
            publication.restart,
            trouble=_trouble(wish),
        )

    async def _stamp(self, order: _Order, workloads: Workloads) -> Verdict:
        """Restart one workload, or say why not."""
        for _ in range(_ATTEMPTS):
            try:
                view = await workloads.view(order.workload)
                decision = decide_restart(view, order.at, urgent=order.urgent, now=self.context.now())
                if isinstance(decision, Verdict):
                    return decision
                if not self.context.run.dry_run:
                    await workloads.stamp(view, decision.at)
                return Verdict(Fate.STAMPED)
            except Conflict:
                continue  # its controller has written its status, or somebody else has restarted it: look again
            except RotatorError as error:
                return _of_error(error)
        return Verdict(Fate.WAITS, "others are changing it")

    async def _note(self, due: _Due, verdicts: Mapping[Workload, Verdict]) -> RestartOutcome:
        """Note the result in the ledger, and tell it at the object that asked."""
        after = restart_after(due.before, verdicts, self.context.now(), trouble=due.trouble)
        outcome = _outcome(due, after, verdicts, dry_run=self.context.run.dry_run)
        if self.context.run.dry_run:
            return outcome
        if due.entry is not None and after != due.before:

            def noted(entry: Entry) -> Entry:
                return transitions.restarted(entry, due.account, after, self.context.now())

            await self.context.ledger.update(due.entry, noted)
        problems: list[str] = []
        announcer, source = self.context.announcer, due.target.source
        if outcome.restarted:
            names = ", ".join(outcome.restarted)
            told = Notice(RESTARTED, f"restarted {names}, to take the key of account {due.account}")
            problems += await announcer.warn(source, [told], kind="Normal")
        # A mistake is told by every run, as all mistakes are: a repeated Event has the same name.
        if after.state is RestartState.BLOCKED and (after.why != due.before.why or due.entry is None):
            problems += await announcer.warn(source, [Notice(BLOCKED, f"not restarted: {after.why}")])
        for problem in problems:
            self.context.watcher.not_announced(due.target.ref, problem)
        return outcome


def _mistaken(target: Target, wish: RestartWish, now: datetime) -> _Due | None:
    """Nothing is due; but a malformed wish is told all the same."""
    return _Due(target, wish, now, trouble=_trouble(wish)) if wish.mistake else None


def _trouble(wish: RestartWish) -> Verdict | None:
    return Verdict(Fate.HINDERED, wish.mistake) if wish.mistake else None


async def _with_workloads(due: _Due, workloads: Workloads) -> _Due:
    """With the workloads that are left; a trouble where they cannot be listed."""
    found = set(due.wish.workloads)
    if due.wish.auto:
        try:
            found |= set(await workloads.reading(due.target.ref))
        except RotatorError as error:
            due = replace(due, trouble=_of_error(error))
    return replace(due, workloads=tuple(sorted(w for w in found if str(w) not in due.before.done)))


def _orders(dues: Iterable[_Due]) -> list[_Order]:
    """One order for each workload: it is restarted once, also where several targets name it."""
    orders: dict[Workload, _Order] = {}
    for due in dues:
        for workload in due.workloads:
            known = orders.get(workload, _Order(workload, due.at, due.urgent))
            orders[workload] = _Order(workload, max(known.at, due.at), known.urgent or due.urgent)
    return list(orders.values())


def _of_error(error: RotatorError) -> Verdict:
    if isinstance(error, NotFound):
        return Verdict(Fate.HINDERED, "it does not exist", error.reason)
    hindered = isinstance(error, Refused) and not isinstance(error, Throttled)
    return Verdict(Fate.HINDERED if hindered else Fate.FAILED, error.message, error.reason)


def _of_crash(value: Verdict | Crash) -> Verdict:
    return Verdict(Fate.FAILED, value.message, value.reason) if isinstance(value, Crash) else value


def _failed(target: Ref, crash: Crash) -> RestartOutcome:
    return RestartOutcome(target, Result.FAILED, crash.reason, f"not restarted: {crash.message}")


def _outcome(due: _Due, after: Restart, verdicts: Mapping[Workload, Verdict], *, dry_run: bool) -> RestartOutcome:
    stamped = tuple(str(workload) for workload, verdict in verdicts.items() if verdict.fate is Fate.STAMPED)
    known = [*verdicts.values(), *([due.trouble] if due.trouble is not None else [])]
    failed = next((verdict for verdict in known if verdict.fate is Fate.FAILED), None)
    did = "would restart" if dry_run else "restarted"
    parts = [f"{did} {', '.join(stamped)}"] if stamped else []
    parts += [f"not restarted: {after.why}"] if after.why else []
    message = "; ".join(parts) or f"restarted since: {', '.join(after.done)}"
    if failed is not None:
        return RestartOutcome(due.target.ref, Result.FAILED, failed.reason, message, stamped)
    result = Result.BLOCKED if after.state is RestartState.BLOCKED else Result.KEPT
    reason = WOULD_RESTART if dry_run and stamped else _REASONS[after.state]
    return RestartOutcome(due.target.ref, result, reason, message, stamped)
