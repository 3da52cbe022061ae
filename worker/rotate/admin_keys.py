"""Tell when an admin key ends: in the entries that use it, and by an Event on its Secret.

Guarantees: OpenAI is asked once for each admin key of the run, after all rotations and deletions.
No rotation waits for it, and none fails by it.
An entry is written only where the end has changed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime

from worker.context import RunContext
from worker.errors import Refused
from worker.kubernetes.secret import SECRETS
from worker.model.entries import Entry
from worker.model.outcomes import Notice
from worker.model.targets import AdminKeyRef, ProjectAccess, Source, Target
from worker.model.values import Ref
from worker.plan.admin_keys import admin_key_notices, not_listed
from worker.report.announce import EventKind
from worker.runtime.for_each import Crash, for_each


@dataclass(slots=True)
class _Use:
    """One admin key: the projects that it serves, and by target the end that each entry has noted."""

    accesses: dict[ProjectAccess, None] = field(default_factory=dict)
    noted: dict[Ref, datetime | None] = field(default_factory=dict)


@dataclass(slots=True)
class AdminKeys:
    context: RunContext
    uses: dict[AdminKeyRef, _Use] = field(default_factory=dict)

    def used(self, target: Target, noted: datetime | None) -> None:
        """Hear that a target uses its admin key. `noted`: the end that its entry knows."""
        access = target.generator.access
        use = self.uses.setdefault(access.admin_key, _Use())
        use.accesses[access] = None
        use.noted[target.ref] = noted

    async def tell(self) -> None:
        """Ask about each admin key that has worked in this run, and tell what comes of it."""
        if self.context.run.dry_run:
            return
        slots, stop = self.context.slots, self.context.stop
        done = await for_each(self.uses, self._look, slots=slots, stop=stop, tenant=lambda ref: ref.secret.namespace)
        # What could not be asked now, a later run asks: the ledger keeps what it knows.
        changed = [change for item in done if not isinstance(item.value, Crash) for change in item.value]
        for noted in await for_each(
            changed, self._note, slots=slots, stop=stop, tenant=lambda change: change[0].namespace
        ):
            if isinstance(noted.value, Crash):
                self.context.watcher.not_announced(noted.item[0], noted.value.message)

    async def _look(self, ref: AdminKeyRef) -> list[tuple[Ref, datetime | None]]:
        """Ask about one admin key; the entries that have to be changed, with its end."""
        use, projects = self.uses[ref], self.context.projects
        access = next((access for access in use.accesses if projects.known_listing(access) is not None), None)
        if access is None:
            # It does not work, or OpenAI does not answer: its targets tell.
            return []
        try:
            facts = await projects.admin_key_facts(access)
        except Refused as error:
            facts, unknown = None, error.message
        else:
            unknown = "OpenAI lists no single key with both ends of its value"
        if facts is None:
            await self._warn(ref, [not_listed(ref, unknown)], kind="Normal")
        else:
            await self._warn(ref, admin_key_notices(ref, facts, self.context.now()), kind="Warning")
        end = facts.expires_at if facts is not None else None
        return [(target, end) for target, noted in use.noted.items() if noted != end]

    async def _warn(self, ref: AdminKeyRef, notices: Collection[Notice], *, kind: EventKind) -> None:
        """Events on the Secret that holds the key: it is what has to be changed."""
        source = Source(SECRETS, "Secret", ref.secret, self.context.projects.secret_uid(ref))
        for problem in await self.context.announcer.warn(source, notices, kind=kind):
            self.context.watcher.not_announced(ref.secret, problem)

    async def _note(self, change: tuple[Ref, datetime | None]) -> None:
        """Write the end into an entry of this ledger."""
        target, end = change
        ledger = self.context.ledger
        entry = await ledger.read(target)
        if entry is not None and entry.ledger == ledger.uid:
            await ledger.update(entry, lambda entry: _with_end(entry, end))


def _with_end(entry: Entry, end: datetime | None) -> Entry:
    return replace(entry, admin_key_ends_at=end)
