"""Retire every entry, once per namespace: now, or after one common wait where an account may go soon.

So a run lists pods once per namespace. The exception is a target that the first round finds to go soon (its Secret was
deleted): it waits as well. The second round does not wait for slow targets of the first.
Guarantees: everything comes from the ledger, which the sweep reads again wherever it may have something to do.
An entry counts as abandoned only if it was there before discovery, and discovery would have found its source.
The sweep leaves a suspended target alone.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from worker.context import RunContext
from worker.discover.targets import NOT_SERVED, Discovered
from worker.errors import OutOfReach
from worker.ledger import transitions
from worker.model.entries import Entry, is_at_rest
from worker.model.outcomes import Result, RetireOutcome
from worker.model.targets import Source
from worker.model.values import Ref
from worker.observe.consumers import Pods
from worker.observe.nodes import Nodes
from worker.openai.limiter import MAX_PAUSE_RETIRING
from worker.plan.retirement import ended_claims, next_release, ripe_at
from worker.report.announce import secret_source
from worker.retire.deletion import AccountDeleter
from worker.retire.retirement import Retirement, leaving, waiting
from worker.runtime.for_each import Crash, Done, alongside, for_each

FIRST_ROUND_SHARE = 1 / 3
"""The share of the remaining time for which the sweep waits for the whole first round."""
CHEAPER_ALONE = 3
"""Times as many entries at rest as others: then the others are read one by one, and cost less than a list of all."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The source of each target, also of rejected ones; and the targets that this run has looked at."""

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

    context: RunContext
    known: Collection[Ref]
    namespaces: tuple[str, ...]
    narrowed: bool
    max_wait: timedelta
    unseen_hold: timedelta
    max_hold: timedelta | None

    async def retire(self, discovered: Discovered, under_way: Collection[Ref] = ()) -> list[RetireOutcome]:
        """Retire every target but those `under_way`, wait once for accounts that may go soon, and retire those."""
        if self.context.stop.reason is not None:
            return []
        self.context.limiter.once_more(min(MAX_PAUSE_RETIRING, self.max_wait))
        busy = frozenset(under_way)
        asked = _Asked.of(discovered)
        suspended = {target.ref for target in discovered.targets if target.suspended}
        suspended |= {item.secret for item in discovered.rejected if item.suspended and item.secret is not None}
        try:
            stored = await self._entries(asked)
            # A generator may be gone with its annotation: what it suspended stays so while its Secret is asked for.
            suspended |= {
                item.secret
                for item in discovered.rejected
                if item.secret in stored and transitions.was_suspended(stored[item.secret])
            }
            lost = self._lost(stored, asked, discovered) if discovered.unserved else frozenset()
            entries = {
                ref: entry
                for ref, entry in stored.items()
                if ref not in lost
                and ref not in suspended
                and ref not in busy
                and (ref in asked.sources or self._abandoned(ref))
            }
            now = self.context.now()
            ours = [entry for entry in entries.values() if entry.ledger == self.context.ledger.uid]
            soon = self._soon({entry.target: next_release(entry, now) for entry in ours})
            places = {ref.namespace for ref in soon}
            at_once = [entry for ref, entry in entries.items() if ref.namespace not in places]
            with self.context.slots.room_for({ref.namespace for ref, entry in entries.items() if leaving(entry)}):
                first = self._round(asked)
                async with alongside(first.retire(at_once)) as ending:
                    # The accounts that may go soon do not wait for targets that are slow now.
                    await asyncio.wait({ending}, timeout=self.context.stop.remaining * FIRST_ROUND_SHARE)
                    soon |= self._soon({ref: item.next_at for ref, item in first.outcomes.items()})
                    later = {ref for ref in entries if ref.namespace in places} | soon.keys()
                    waited = await self._retire_later(soon, later, asked)
            done = _joined(first.outcomes, waited) | self._unserved(lost, discovered)
        except OutOfReach as error:
            # The rotations are done and told; the next run deletes.
            ledger = Ref(self.context.ledger.namespace, "keyrotations")
            done = {ledger: RetireOutcome(ledger, Result.FAILED, error.reason, error.message)}
        for item in done.values():
            self.context.watcher.retired(item)
        return list(done.values())

    async def preview(self, discovered: Discovered) -> list[RetireOutcome]:
        """Report the accounts that a run would consider for deletion, and delete none."""
        asked = _Asked.of(discovered)
        stored, now = await self._entries(asked), self.context.now()
        lost = self._lost(stored, asked, discovered) if discovered.unserved else frozenset()
        found = list(self._unserved(lost, discovered).values())
        for ref, entry in stored.items():
            if ref in lost:
                continue
            ripe = [
                (publication.account.name, ripe_at(publication, entry.generator.cleanup))
                for publication in entry.history
            ]
            names = [name for name, at in ripe if at is not None and at <= now]
            names += [intent.account.name for intent in ended_claims(entry, now)]
            if names:
                message = f"would delete, unless somebody holds it: {', '.join(names)}"
                found.append(RetireOutcome(ref, message=message, waiting=len(names)))
        for item in found:
            self.context.watcher.retired(item)
        return found

    def _soon(self, times: Mapping[Ref, datetime | None]) -> dict[Ref, datetime]:
        """The release times that are within the longest wait."""
        horizon = self.context.now() + min(self.max_wait, timedelta(seconds=self.context.stop.remaining))
        return {ref: at for ref, at in times.items() if at is not None and at <= horizon}

    async def _retire_later(
        self, soon: Mapping[Ref, datetime], later: Collection[Ref], asked: _Asked
    ) -> dict[Ref, RetireOutcome]:
        """Wait once for all of `soon`, and retire the entries of `later`."""
        if not soon:
            return {}
        until = max(soon.values())
        self.context.watcher.waiting(len(soon), until)
        await self.context.stop.sleep((until - self.context.now()).total_seconds() + 1)
        entries = {ref: entry for ref, entry in (await self._entries(asked)).items() if ref in later}
        if self.context.stop.reason is not None:
            return {ref: waiting(entry, self.context.now()) for ref, entry in entries.items()}
        second = self._round(asked)
        await second.retire(entries.values())
        return second.outcomes

    def _round(self, asked: _Asked) -> _Round:
        return _Round(self.context, asked, self.unseen_hold, self.max_hold)

    async def _entries(self, asked: _Asked) -> dict[Ref, Entry]:
        """Every entry as it is now; those with nothing to retire as this run has listed them.

        What another run has changed of these meanwhile is for that run to retire.
        """
        ledger = self.context.ledger
        known = {entry.target: entry for entry in ledger.as_listed()} | ledger.changed
        at_rest = {
            ref: entry
            for ref, entry in known.items()
            if entry is not None and is_at_rest(entry) and ref in asked.served
        }
        others = known.keys() - at_rest.keys()
        if CHEAPER_ALONE * len(others) <= len(at_rest):
            found = await for_each(
                sorted(others),
                ledger.read,
                slots=self.context.slots,
                stop=self.context.stop,
                tenant=lambda ref: ref.namespace,
            )
            read = {done.item: done.value for done in found if isinstance(done.value, Entry)}
            # One that cannot be read, or is not there any more, is for the list to tell.
            if read.keys() == others:
                return at_rest | read
        return {ref: entry for ref, entry in (await ledger.read_all()).items() if isinstance(entry, Entry)}

    def _lost(self, entries: Mapping[Ref, Entry], asked: _Asked, discovered: Discovered) -> frozenset[Ref]:
        """Targets that an ExternalSecret asked for, and may still: the cluster does not serve them now."""
        if discovered.unlisted is not None:
            # One may ask by now for what none asked for before.
            return frozenset(ref for ref in entries if ref not in asked.served and self._in_scope(ref))
        return frozenset(
            ref
            for ref, entry in entries.items()
            if ref not in asked.sources and self._abandoned(ref) and entry.generator.source != "OpenAI"
        )

    def _unserved(self, lost: Collection[Ref], discovered: Discovered) -> dict[Ref, RetireOutcome]:
        ledger = Ref(self.context.ledger.namespace, "keyrotations")
        if discovered.unlisted is not None:
            message = (
                f"ExternalSecrets cannot be listed: {discovered.unlisted.message}; {len(lost)} targets that one may "
                "ask for are neither rotated nor deleted. See whether the webhook that converts them answers: "
                "kubectl get externalsecrets -A"
            )
            return {ledger: RetireOutcome(ledger, Result.FAILED, NOT_SERVED, message)}
        if not lost:
            return {}
        message = (
            f"the cluster does not serve ExternalSecrets any more, which asked for {len(lost)} targets: these "
            "are neither rotated nor deleted until it does (kubectl apply -k manifests/crds/external-secret)"
        )
        return {ledger: RetireOutcome(ledger, Result.FAILED, NOT_SERVED, message)}

    def _abandoned(self, ref: Ref) -> bool:
        """Was this target known before discovery, and would discovery have found it if something asked for it?"""
        return ref in self.known and self._in_scope(ref) and not self.narrowed

    def _in_scope(self, ref: Ref) -> bool:
        return not self.namespaces or ref.namespace in self.namespaces


@dataclass(frozen=True, slots=True)
class _Round:
    """One round over entries. It sees pods as they are after it has begun. `outcomes` grows while it works."""

    context: RunContext
    asked: _Asked
    unseen_hold: timedelta
    max_hold: timedelta | None
    outcomes: dict[Ref, RetireOutcome] = field(default_factory=dict)

    async def retire(self, entries: Collection[Entry]) -> None:
        """Retire each entry."""
        context, retirement = self.context, self._retirement(entries)

        async def one(entry: Entry) -> RetireOutcome:
            ref = entry.target
            outcome = await retirement.retire(
                entry, has_source=ref in self.asked.sources, served=ref in self.asked.served
            )
            await self._announce(self.asked.sources.get(ref), entry, outcome)
            return outcome

        def ended(done: Done[Entry, RetireOutcome]) -> None:
            ref, value = done.item.target, done.value
            if isinstance(value, Crash):
                value = RetireOutcome(ref, Result.FAILED, value.reason, value.message)
            self.outcomes[ref] = value

        await for_each(
            entries,
            one,
            slots=context.slots,
            stop=context.stop,
            tenant=lambda entry: entry.target.namespace,
            ended=ended,
        )

    def _retirement(self, entries: Collection[Entry]) -> Retirement:
        context = self.context
        secrets: defaultdict[str, set[str]] = defaultdict(set)
        for entry in entries:
            secrets[entry.target.namespace].add(entry.target.name)
        wanted = {namespace: frozenset(names) for namespace, names in secrets.items()}
        return Retirement(
            context.ledger,
            Pods(context.cluster, context.clock, wanted),
            Nodes(context.cluster),
            context.projects,
            AccountDeleter(context.projects, context.observer, context.clock),
            context.clock,
            self.unseen_hold,
            self.max_hold,
            context.now(),
        )

    async def _announce(self, source: Source | None, entry: Entry, outcome: RetireOutcome) -> None:
        """Warn the object that asked for the target, or the Secret itself where none asks any more."""
        if not outcome.notices:
            return
        subject = source or secret_source(entry.target)
        for problem in await self.context.announcer.warn(subject, outcome.notices):
            self.context.watcher.not_announced(entry.target, problem)


def _joined(first: Mapping[Ref, RetireOutcome], second: Mapping[Ref, RetireOutcome]) -> dict[Ref, RetireOutcome]:
    """The later outcome of each target, with the accounts that both rounds deleted."""
    joined = dict(first)
    for ref, outcome in second.items():
        before = first.get(ref, RetireOutcome(ref))
        joined[ref] = replace(
            outcome,
            deleted=before.deleted + outcome.deleted,
            deleted_keys=before.deleted_keys + outcome.deleted_keys,
        )
    return joined
