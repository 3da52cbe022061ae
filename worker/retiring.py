"""Retire for every entry: what may go now, then, after one wait for all together, what may go soon.

The second round does not wait for who is slow in the first.
Guarantees: everything comes from the ledger, read again; an entry is taken for abandoned only if it was there before
discovery and discovery would have found what asks for it; a suspended target is left alone.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta

from worker.concurrency import Crash, Slots, Stop, alongside, for_each
from worker.discovery import Discovered
from worker.errors import OutOfReach
from worker.ledger import Ledger
from worker.model import Entry, Ref, Result, Retired
from worker.observation import Observer
from worker.planning import ended_claims, ripe_at
from worker.pods import Pods
from worker.ports import Clock, Cluster, Watcher
from worker.projects import Projects
from worker.retirement import Retirement, leaving

PATIENCE = 1 / 3
"""Of the time that is left: for so long all of the first round is waited for."""


@dataclass(frozen=True, slots=True)
class Retiring:
    """`known`: the targets that the ledger had before discovery. `narrowed`: a selector hides some generators."""

    known: Collection[Ref]
    namespaces: tuple[str, ...]
    narrowed: bool
    max_wait: timedelta
    unseen_hold: timedelta
    ledger: Ledger
    projects: Projects
    observer: Observer
    cluster: Cluster
    watcher: Watcher
    clock: Clock
    slots: Slots
    stop: Stop

    async def retire(self, discovered: Discovered, under_way: Collection[Ref] = ()) -> list[Retired]:
        """Retire for every target but those `under_way`, wait once for what may go soon, and retire that."""
        if self.stop.reason is not None:
            return []
        busy = frozenset(under_way)
        served = {target.ref for target in discovered.targets}
        wanted = served | {item.secret for item in discovered.rejected if item.secret is not None}
        suspended = {target.ref for target in discovered.targets if target.suspended}
        try:
            entries = {
                ref: entry
                for ref, entry in (await self._entries()).items()
                if ref not in suspended and ref not in busy and (ref in wanted or self._abandoned(ref))
            }
            retirement = self._retirement(entries)
            done: dict[Ref, Retired] = {}
            with self.slots.room_for({ref.namespace for ref, entry in entries.items() if leaving(entry)}):
                async with alongside(self._retire_all(retirement, entries, wanted, served, done)) as first:
                    # As in serving: what may go soon is not kept by whoever is slow now.
                    await asyncio.wait({first}, timeout=self.stop.remaining * PATIENCE)
                    soon = await self._retire_soon(retirement, dict(done), wanted, served)
            retired = first.result() | soon
        except OutOfReach as error:
            # What was rotated is done and told; deleting is the next run's.
            ledger = Ref(self.ledger.namespace, "keyrotations")
            retired = {ledger: Retired(ledger, Result.FAILED, error.reason, error.message)}
        for item in retired.values():
            self.watcher.retired(item)
        return list(retired.values())

    async def preview(self) -> list[Retired]:
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
                found.append(Retired(ref, message=words, waiting=len(names)))
        for item in found:
            self.watcher.retired(item)
        return found

    async def _retire_soon(
        self, retirement: Retirement, first: dict[Ref, Retired], wanted: Collection[Ref], served: Collection[Ref]
    ) -> dict[Ref, Retired]:
        """Wait, once, for all that may go within the longest wait, and retire it."""
        horizon = self.clock.now() + min(self.max_wait, timedelta(seconds=self.stop.remaining))
        soon = {r.target: r.next_at for r in first.values() if r.next_at is not None and r.next_at <= horizon}
        if not soon:
            return {}
        until = max(soon.values())
        self.watcher.waiting(len(soon), until)
        await self.stop.sleep((until - self.clock.now()).total_seconds() + 1)
        if self.stop.reason is not None:
            return {}
        entries = {ref: entry for ref, entry in (await self._entries()).items() if ref in soon}
        second = await self._retire_all(retirement, entries, wanted, served, {})
        return {ref: replace(item, deleted=first[ref].deleted + item.deleted) for ref, item in second.items()}

    async def _entries(self) -> dict[Ref, Entry]:
        return {ref: entry for ref, entry in (await self.ledger.read_all()).items() if isinstance(entry, Entry)}

    def _retirement(self, entries: Collection[Ref]) -> Retirement:
        secrets: defaultdict[str, set[str]] = defaultdict(set)
        for ref in entries:
            secrets[ref.namespace].add(ref.name)
        pods = Pods(self.cluster, self.clock, {namespace: frozenset(names) for namespace, names in secrets.items()})
        return Retirement(self.ledger, pods, self.projects, self.observer, self.clock, self.unseen_hold)

    def _abandoned(self, ref: Ref) -> bool:
        """Was this target known before discovery, and would discovery have found it if something asked for it?"""
        in_scope = not self.namespaces or ref.namespace in self.namespaces
        return ref in self.known and in_scope and not self.narrowed

    async def _retire_all(
        self,
        retirement: Retirement,
        entries: dict[Ref, Entry],
        wanted: Collection[Ref],
        served: Collection[Ref],
        done: dict[Ref, Retired],
    ) -> dict[Ref, Retired]:
        """Retire for each entry; `done` gets each result at once."""

        async def one(entry: Entry) -> Retired:
            ref = entry.target
            done[ref] = await retirement.retire(entry, wanted=ref in wanted, served=ref in served)
            return done[ref]

        ended = await for_each(
            entries.values(), one, slots=self.slots, stop=self.stop, tenant=lambda entry: entry.target.namespace
        )
        return {
            item.item.target: Retired(item.item.target, Result.FAILED, item.value.reason, item.value.message)
            if isinstance(item.value, Crash)
            else item.value
            for item in ended
        }
