"""One run: discover, observe, plan, rotate, retire, report.

    discover   generators and ExternalSecrets, against the ledger as it was before
    observe    per target: entry, Secret, the project's accounts
    plan       rotate, keep, or say why not (pure)
    rotate     intent, mint, verify, publish, record; told to the cluster at once
    retire     from the ledger, read again: what is not current any more and may go
    report     what was done, why, and what happens next

Guarantees: one target's failure stays its own; nothing but the ledger passes from rotate to retire; a run that is
stopped starts no new step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from worker import bookkeeping
from worker.announcing import Announcer
from worker.clocks import corrected
from worker.concurrency import Crash, Done, Slots, Stop, for_each
from worker.discovery import EXTERNAL_SECRETS, GENERATORS, Discovered, RawObject, discover, raw_object
from worker.errors import Conflict, NotFound, OutOfReach, RotatorError
from worker.hosts import Origin
from worker.ledger import Ledger, Unreadable
from worker.model import (
    AdminKeyRef,
    Entry,
    Outcome,
    Ref,
    Rejected,
    Resource,
    Result,
    Retired,
    RunInfo,
    Target,
)
from worker.observation import Observer
from worker.planning import Blocked, Decision, Keep, Observation, Rotate, Unable, decide
from worker.pods import Pods
from worker.ports import Clock, Cluster, OpenAIAdmin, Randomness
from worker.projects import Projects
from worker.reporting import Report
from worker.retirement import Retirement
from worker.rotation import Rotation

Item = TypeVar("Item")


class Watcher(Protocol):
    """Is told what happens while it happens: the log, or the progress on a terminal."""

    def found(self, targets: int, unused: Collection[Ref]) -> None: ...

    def served(self, outcome: Outcome) -> None: ...

    def waiting(self, targets: int, until: datetime) -> None: ...

    def retired(self, retired: Retired) -> None: ...

    def not_announced(self, target: Ref, problem: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Options:
    """What a run may be asked; see `settings` for the meaning of each."""

    ledger_namespace: str
    namespaces: tuple[str, ...] = ()
    selector: str = ""
    allowed_hosts: frozenset[Origin] = frozenset()
    concurrency: int = 50
    max_wait: timedelta = timedelta(minutes=5)
    unseen_hold: timedelta = timedelta(hours=24)
    fallback_admin_key: AdminKeyRef | None = None
    force: bool = False
    dry_run: bool = False


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
    ledger, server_time = await Ledger.open(world.cluster, options.ledger_namespace)
    world = replace(world, clock=corrected(world.clock, server_time))
    run_info = RunInfo(world.clock.now(), ledger.uid, options.force, options.dry_run)

    entries = await ledger.read_all()
    discovered = await _discover(options, world.cluster)
    watcher.found(len(discovered.targets) + len(discovered.rejected), discovered.unused)
    steps = _Steps.of(options, world, ledger, run_info, stop, watcher, entries)

    outcomes = [*await steps.refuse(discovered.rejected), *await steps.rotate(discovered.targets)]
    retired = [] if options.dry_run else await steps.retire(discovered)
    seconds = world.clock.monotonic() - begun
    return Report(run_info, tuple(outcomes), tuple(retired), discovered.unused, seconds, stop.reason)


async def _discover(options: Options, cluster: Cluster) -> Discovered:
    try:
        generators = await _list(options, cluster, GENERATORS)
        selected = None
        if options.selector:
            selected = {raw.ref for raw in await _list(options, cluster, GENERATORS, options.selector)}
        resource, external_secrets = await _external_secrets(options, cluster)
    except NotFound:
        message = f"the cluster does not know {GENERATORS}: kubectl apply -k manifests/crds"
        raise OutOfReach("CRDMissing", message) from None
    except RotatorError as error:
        raise OutOfReach(error.reason, error.message) from None
    return discover(
        generators,
        external_secrets,
        resource=resource,
        allowed_hosts=options.allowed_hosts,
        selected=selected,
        protected=[options.fallback_admin_key.secret] if options.fallback_admin_key is not None else [],
    )


async def _external_secrets(options: Options, cluster: Cluster) -> tuple[Resource | None, list[RawObject]]:
    """In the first version that the cluster serves; a cluster without ExternalSecrets has standalone targets only."""
    for resource in EXTERNAL_SECRETS:
        try:
            return resource, await _list(options, cluster, resource)
        except NotFound:
            continue
    return None, []


async def _list(options: Options, cluster: Cluster, resource: Resource, selector: str = "") -> list[RawObject]:
    places: tuple[str | None, ...] = options.namespaces or (None,)
    return [
        raw
        for place in places
        for raw in await cluster.list_all(resource, raw_object, namespace=place, selector=selector)
    ]


@dataclass(frozen=True, slots=True)
class _Steps:
    options: Options
    run: RunInfo
    cluster: Cluster
    clock: Clock
    stop: Stop
    slots: Slots
    watcher: Watcher
    ledger: Ledger
    entries: dict[Ref, Entry | Unreadable]
    projects: Projects
    observer: Observer
    rotation: Rotation
    announcer: Announcer

    @classmethod
    def of(
        cls,
        options: Options,
        world: World,
        ledger: Ledger,
        run: RunInfo,
        stop: Stop,
        watcher: Watcher,
        entries: dict[Ref, Entry | Unreadable],
    ) -> _Steps:
        cluster, openai, clock = world.cluster, world.openai, world.clock
        slots = Slots(options.concurrency)
        projects = Projects(cluster, openai, clock, options.allowed_hosts, options.fallback_admin_key)
        observer = Observer(cluster, projects, clock)
        rotation = Rotation(cluster, openai, ledger, projects, observer, clock, world.random, slots.sleep, run)
        announcer = Announcer(cluster, clock)
        return cls(
            options, run, cluster, clock, stop, slots, watcher, ledger, entries, projects, observer, rotation, announcer
        )

    # --- observe, plan, rotate

    async def refuse(self, rejected: Collection[Rejected]) -> list[Outcome]:
        """Say of every source that cannot be served why."""
        noted = {item.secret: item for item in reversed(tuple(rejected)) if item.secret is not None}

        async def one(item: Rejected) -> Outcome:
            subject = item.secret or item.source.ref
            outcome = Outcome(subject, Result.BLOCKED, item.reason, item.message, source=item.source)
            if item.secret is not None and noted[item.secret] is item:
                entry = self._entry(item.secret)
                if isinstance(entry, Entry):
                    await self._note(entry, entry.with_condition(False, item.reason, item.message, self.clock.now()))
            await self._announce(item.secret, outcome)
            return outcome

        return await self._for_each(rejected, one, lambda item: item.secret or item.source.ref)

    async def rotate(self, targets: Collection[Target]) -> list[Outcome]:
        """Observe, plan and rotate each target."""
        return await self._for_each(targets, self._serve, lambda target: target.ref)

    async def _for_each(
        self, items: Collection[Item], work: Callable[[Item], Awaitable[Outcome]], subject: Callable[[Item], Ref]
    ) -> list[Outcome]:
        """Work on each; the watcher hears of each outcome at once."""

        def outcome(done: Done[Item, Outcome]) -> Outcome:
            if isinstance(done.value, Crash):
                return Outcome(subject(done.item), Result.FAILED, done.value.reason, done.value.message)
            return done.value

        finished = await for_each(
            items, work, slots=self.slots, stop=self.stop, ended=lambda done: self.watcher.served(outcome(done))
        )
        return [outcome(done) for done in finished]

    async def _serve(self, target: Target) -> Outcome:
        """What a target comes to, told to the cluster whatever it is."""
        entry, created = self._entry(target.ref), False
        try:
            if isinstance(entry, Unreadable):
                message = f"ledger entry {entry.name} was edited: {entry.message}; put it right, or ask for help"
                outcome = Outcome(target.ref, Result.BLOCKED, "LedgerUnreadable", message, source=target.source)
            else:
                outcome, created = await self._rotate(target, entry)
        except RotatorError as error:
            outcome = Outcome(target.ref, Result.FAILED, error.reason, error.message, source=target.source)
            if isinstance(entry, Entry):
                with suppress(RotatorError):
                    await self._note(entry, entry.with_condition(False, error.reason, error.message, self.clock.now()))
        await self._announce(target.ref, outcome, created=created)
        return outcome

    async def _rotate(self, target: Target, entry: Entry) -> tuple[Outcome, bool]:
        """Rotate a target, or note why not; the outcome, and whether there was no Secret before."""
        entry, seen = await self._observe(target, entry)
        decision = decide(target, seen, self.run, self.clock.now())
        if isinstance(decision, Rotate) and not self.run.dry_run:
            outcome, _ = await self.rotation.rotate(target, seen, decision)
        else:
            outcome = _outcome(target, decision)
            await self._note(entry, _noted(target, seen, decision, self.clock.now()))
        return outcome, seen.secret is None

    async def _observe(self, target: Target, entry: Entry) -> tuple[Entry, Observation]:
        """Observe a target. A Secret that names an account which its entry lacks is newer than the entry, which is
        as old as this run: another run may have rotated meanwhile, so the entry is read again.
        """
        seen = await self.observer.observe(target, entry)
        named = seen.secret.named if seen.secret is not None else None
        accounts = [publication.account.name for publication in seen.entry.history]
        if named is None or named.name in accounts or bookkeeping.holds_intent(entry, named.name):
            return entry, seen
        newer = await self.ledger.read(target.ref)
        if newer is None or newer.version == entry.version:
            return entry, seen
        return newer, await self.observer.observe(target, newer)

    def _entry(self, ref: Ref) -> Entry | Unreadable:
        return self.entries.get(ref) or Entry(ref, self.ledger.uid)

    async def _note(self, before: Entry, after: Entry) -> None:
        """Store what was seen and decided. Another installation's entry is never written; a conflict is another run."""
        if self.run.dry_run or before.ledger != self.ledger.uid:
            return
        try:
            await self.ledger.save(after)
        except Conflict:
            return

    async def _announce(self, secret: Ref | None, outcome: Outcome, *, created: bool = False) -> None:
        if self.run.dry_run or outcome.source is None:
            return
        for problem in await self.announcer.announce(outcome.source, secret, outcome, created=created):
            self.watcher.not_announced(outcome.target, problem)

    # --- retire

    async def retire(self, discovered: Discovered) -> list[Retired]:
        """Retire for every target, wait once for what may go soon, and retire that."""
        if self.stop.reason is not None:
            return []
        wanted = {target.ref for target in discovered.targets}
        wanted |= {item.secret for item in discovered.rejected if item.secret is not None}
        suspended = {target.ref for target in discovered.targets if target.suspended}
        entries = {
            ref: entry
            for ref, entry in (await self.ledger.read_all()).items()
            if isinstance(entry, Entry) and ref not in suspended and (ref in wanted or self._abandoned(ref))
        }
        served = {target.ref for target in discovered.targets}
        secrets: defaultdict[str, set[str]] = defaultdict(set)
        for ref in entries:
            secrets[ref.namespace].add(ref.name)
        pods = Pods(self.cluster, self.clock, {namespace: frozenset(names) for namespace, names in secrets.items()})
        retirement = Retirement(self.ledger, pods, self.projects, self.observer, self.clock, self.options.unseen_hold)
        retired = await self._retire_all(retirement, entries, wanted, served)
        horizon = self.clock.now() + min(self.options.max_wait, timedelta(seconds=self.stop.remaining))
        soon = {r.target: r.next_at for r in retired.values() if r.next_at is not None and r.next_at <= horizon}
        if soon:
            until = max(soon.values())
            self.watcher.waiting(len(soon), until)
            await self.stop.sleep((until - self.clock.now()).total_seconds() + 1)
            if self.stop.reason is None:
                again = {ref: entry for ref, entry in (await self.ledger.read_all()).items() if ref in soon}
                current = {ref: entry for ref, entry in again.items() if isinstance(entry, Entry)}
                for ref, second in (await self._retire_all(retirement, current, wanted, served)).items():
                    retired[ref] = replace(second, deleted=retired[ref].deleted + second.deleted)
        for item in retired.values():
            self.watcher.retired(item)
        return list(retired.values())

    def _abandoned(self, ref: Ref) -> bool:
        """Was this target known before discovery, and would discovery have found it if something asked for it?"""
        in_scope = not self.options.namespaces or ref.namespace in self.options.namespaces
        return ref in self.entries and in_scope and not self.options.selector

    async def _retire_all(
        self, retirement: Retirement, entries: dict[Ref, Entry], wanted: Collection[Ref], served: Collection[Ref]
    ) -> dict[Ref, Retired]:
        async def one(entry: Entry) -> Retired:
            ref = entry.target
            return await retirement.retire(entry, wanted=ref in wanted, served=ref in served)

        done = await for_each(entries.values(), one, slots=self.slots, stop=self.stop)
        return {
            item.item.target: Retired(item.item.target, Result.FAILED, item.value.reason, item.value.message)
            if isinstance(item.value, Crash)
            else item.value
            for item in done
        }


def _outcome(target: Target, decision: Decision) -> Outcome:
    """The outcome of a decision that nothing more is done about in this run."""
    results = {Rotate: Result.KEPT, Keep: Result.KEPT, Blocked: Result.BLOCKED, Unable: Result.FAILED}
    next_at = (
        decision.next_at if isinstance(decision, Keep) else decision.until if isinstance(decision, Unable) else None
    )
    reason = "WouldRotate" if isinstance(decision, Rotate) else decision.reason
    return Outcome(target.ref, results[type(decision)], reason, decision.message, next_at, source=target.source)


def _noted(target: Target, seen: Observation, decision: Decision, now: datetime) -> Entry:
    """The entry with what a decision other than to rotate says about the target."""
    entry = bookkeeping.scheduled(seen.entry, target)
    if isinstance(decision, Blocked | Unable):
        return entry.with_condition(False, decision.reason, decision.message, now)
    if decision.reason == "InProgress":
        return seen.entry
    if decision.reason == "Suspended":
        ready = bookkeeping.current(entry) is not None
        return replace(entry, next_rotation_at=None).with_condition(ready, decision.reason, decision.message, now)
    return bookkeeping.healthy(entry, now)
