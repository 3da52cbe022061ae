"""Retire for every entry, in each namespace once: now, or, where something may go soon, after one wait for all of them.

So pods are listed once per namespace and run; but for what turns out only now to go soon (its Secret was deleted): it
waits as well. That round does not wait for who is slow in the first.
Guarantees: everything comes from the ledger, read again; an entry is taken for abandoned only if it was there before
discovery and discovery would have found what asks for it; a suspended target is left alone.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worker.discover.targets import Discovered
from worker.errors import OutOfReach
from worker.ledger.store import Ledger
from worker.model.entries import Entry
from worker.model.outcomes import Result, RetireOutcome
from worker.model.targets import Source
from worker.model.values import Ref
from worker.observe.consumers import Pods
from worker.observe.observer import Observer
from worker.openai.limiter import MAX_PAUSE_RETIRING, Limiter
from worker.openai.projects import Projects
from worker.plan.retirement import ended_claims, next_release, ripe_at
from worker.ports import Clock, Cluster, Watcher
from worker.report.announce import Announcer, secret_source
from worker.retire.deletion import AccountDeleter
from worker.retire.retirement import Retirement, leaving, waiting
from worker.runtime.for_each import Crash, Done, alongside, for_each
from worker.runtime.slots import Slots
from worker.runtime.stop import Stop

FIRST_ROUND_SHARE = 1 / 3
"""Of the time that is left: for so long all of the first round is waited for."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who asks for which target, rejected ones too; and which of them this run has looked at."""

    sources: Mapping[Ref, Source]
    served: Collection[Ref]

    @classmethod
    def of(cls, discovered: Discovered) -> _Asked:
        sources = {item.secret: item.source for item in discovered.rejected if item.secret is not None}
        sources |= {target.ref: target.source for target in discovered.targets}
        return cls(sources, frozenset(target.ref for target in discovered.targets))


@dataclass(frozen=True, slots=True)
class Sweep:
    """`known`: the targets that the ledger had before discovery. `narrowed`: a selector hides some generators."""

    known: Collection[Ref]
    namespaces: tuple[str, ...]
    narrowed: bool
    max_wait: timedelta
    unseen_hold: timedelta
    max_hold: timedelta | None
    ledger: Ledger
    projects: Projects
    limiter: Limiter
    observer: Observer
    announcer: Announcer
    cluster: Cluster
    watcher: Watcher
    clock: Clock
    slots: Slots
    stop: Stop

    async def retire(self, discovered: Discovered, under_way: Collection[Ref] = ()) -> list[RetireOutcome]:
        """Retire for every target but those `under_way`, wait once for what may go soon, and retire that."""
        if self.stop.reason is not None:
            return []
        self.limiter.once_more(min(MAX_PAUSE_RETIRING, self.max_wait))
        busy = frozenset(under_way)
        asked = _Asked.of(discovered)
        suspended = {target.ref for target in discovered.targets if target.suspended}
        done: dict[Ref, RetireOutcome] = {}
        try:
            entries = {
                ref: entry
                for ref, entry in (await self._entries()).items()
                if ref not in suspended and ref not in busy and (ref in asked.sources or self._abandoned(ref))
            }
            now = self.clock.now()
            ours = [entry for entry in entries.values() if entry.ledger == self.ledger.uid]
            soon = self._soon({entry.target: next_release(entry, now) for entry in ours})
            places = {ref.namespace for ref in soon}
            at_once = [entry for ref, entry in entries.items() if ref.namespace not in places]
            with self.slots.room_for({ref.namespace for ref, entry in entries.items() if leaving(entry)}):
                async with alongside(self._retire_all(at_once, asked, done)) as first:
                    # What may go soon is not kept by whoever is slow now.
                    await asyncio.wait({first}, timeout=self.stop.remaining * FIRST_ROUND_SHARE)
                    soon |= self._soon({ref: item.next_at for ref, item in done.items()})
                    later = {ref for ref in entries if ref.namespace in places} | soon.keys()
                    waited = await self._retire_later(soon, later, asked)
            for ref, item in waited.items():
                before = done[ref].deleted if ref in done else ()
                done[ref] = replace(item, deleted=before + item.deleted)
        except OutOfReach as error:
            # What was rotated is done and told; deleting is the next run's.
            ledger = Ref(self.ledger.namespace, "keyrotations")
            done = {ledger: RetireOutcome(ledger, Result.FAILED, error.reason, error.message)}
        for item in done.values():
            self.watcher.retired(item)
        return list(done.values())

    async def preview(self) -> list[RetireOutcome]:
        """What a run would look at for deletion, said and not done."""
        now, found = self.clock.now(), []
        for ref, entry in (await self._entries()).items():
            ripe = [
                (publication.account.name, ripe_at(publication, entry.generator.cleanup))
                for publication in entry.history
            ]
            names = [name for name, at in ripe if at is not None and at <= now]
            names += [intent.account.name for intent in ended_claims(entry, now)]
            if names:
                words = f"would delete, unless somebody holds it: {', '.join(names)}"
                found.append(RetireOutcome(ref, message=words, waiting=len(names)))
        for item in found:
            self.watcher.retired(item)
        return found

    def _soon(self, times: Mapping[Ref, datetime | None]) -> dict[Ref, datetime]:
        """Those of the times at which something may go that are within the longest wait."""
        horizon = self.clock.now() + min(self.max_wait, timedelta(seconds=self.stop.remaining))
        return {ref: at for ref, at in times.items() if at is not None and at <= horizon}

    async def _retire_later(
        self, soon: Mapping[Ref, datetime], later: Collection[Ref], asked: _Asked
    ) -> dict[Ref, RetireOutcome]:
        """Wait, once, for all that may go soon, and retire it and what else there is in its namespaces."""
        if not soon:
            return {}
        until = max(soon.values())
        self.watcher.waiting(len(soon), until)
        await self.stop.sleep((until - self.clock.now()).total_seconds() + 1)
        entries = {ref: entry for ref, entry in (await self._entries()).items() if ref in later}
        if self.stop.reason is not None:
            return {ref: waiting(entry, self.clock.now()) for ref, entry in entries.items()}
        done: dict[Ref, RetireOutcome] = {}
        await self._retire_all(entries.values(), asked, done)
        return done

    async def _entries(self) -> dict[Ref, Entry]:
        return {ref: entry for ref, entry in (await self.ledger.read_all()).items() if isinstance(entry, Entry)}

    def _retirement(self, entries: Collection[Entry]) -> Retirement:
        """For one round: what it sees of pods is as of now."""
        secrets: defaultdict[str, set[str]] = defaultdict(set)
        for entry in entries:
            secrets[entry.target.namespace].add(entry.target.name)
        return Retirement(
            self.ledger,
            Pods(self.cluster, self.clock, {namespace: frozenset(names) for namespace, names in secrets.items()}),
            self.projects,
            AccountDeleter(self.projects, self.observer, self.clock),
            self.clock,
            self.unseen_hold,
            self.max_hold,
            self.clock.now(),
        )

    def _abandoned(self, ref: Ref) -> bool:
        """Was this target known before discovery, and would discovery have found it if something asked for it?"""
        in_scope = not self.namespaces or ref.namespace in self.namespaces
        return ref in self.known and in_scope and not self.narrowed

    async def _retire_all(self, entries: Collection[Entry], asked: _Asked, done: dict[Ref, RetireOutcome]) -> None:
        """Retire for each entry; `done` gets each result at once."""
        retirement = self._retirement(entries)

        async def one(entry: Entry) -> RetireOutcome:
            ref = entry.target
            retired = await retirement.retire(entry, wanted=ref in asked.sources, served=ref in asked.served)
            await self._announce(asked.sources.get(ref), entry, retired)
            return retired

        def ended(item: Done[Entry, RetireOutcome]) -> None:
            ref, value = item.item.target, item.value
            if isinstance(value, Crash):
                value = RetireOutcome(ref, Result.FAILED, value.reason, value.message)
            done[ref] = value

        await for_each(
            entries, one, slots=self.slots, stop=self.stop, tenant=lambda entry: entry.target.namespace, ended=ended
        )

    async def _announce(self, source: Source | None, entry: Entry, retired: RetireOutcome) -> None:
        """Warn those who asked for the target; where nobody does any more, whoever has its Secret."""
        if not retired.notices:
            return
        subject = source or secret_source(entry.target)
        for problem in await self.announcer.warn(subject, retired.notices):
            self.watcher.not_announced(entry.target, problem)
