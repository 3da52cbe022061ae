"""Delete the admin keys beside the ledger that others have replaced, and those that were never published.

Guarantees: only a key goes that the ledger records, or that has the name of a request that it records.
Every request is made with the key that the Secret has at that moment, so a working key is left.
Right before a delete Secret and ledger are read once more.
A key leaves the ledger only when OpenAI has confirmed its end, or two complete lists are without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from worker.context import RunContext
from worker.errors import Deferred, NotFound, NotShown, RotatorError
from worker.ledger import admin_transitions as transitions
from worker.ledger.admin_store import AdminLedger
from worker.model.admin_keys import AdminEntry, AdminIntent, AdminKey, AdminSecretView, NamedAdminKey
from worker.model.audited import AdminKeyFacts
from worker.observe.admin_keys import AdminKeyObserver
from worker.openai.admin_keys import AdminKeysAtOpenAI
from worker.plan.admin_rotation import hold, made_for, ripe, twins, unsettled, was_in_use


@dataclass(slots=True)
class AdminRetired:
    """What became of a Secret's former keys. `problems`: why some could not be deleted."""

    deleted: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    problems: list[RotatorError] = field(default_factory=list)
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class _Round:
    """One Secret's former keys. `listed`: what OpenAI lists now. `early`: neither grace nor use counts."""

    named: NamedAdminKey
    view: AdminSecretView
    listed: Collection[AdminKeyFacts]
    early: bool

    @property
    def digest(self) -> str:
        return self.view.value.digest()

    @property
    def carried(self) -> frozenset[str]:
        """The listed keys that may be the one in the Secret, by both ends of its value."""
        return frozenset(facts.id for facts in self.listed if self.view.value.fits(facts.redacted))


@dataclass(frozen=True, slots=True)
class AdminRetirement:
    context: RunContext
    ledger: AdminLedger
    observer: AdminKeyObserver
    openai: AdminKeysAtOpenAI

    async def retire(self, named: NamedAdminKey, *, early: bool = False) -> AdminRetired:
        """Delete what may go. `early`: all former keys, by `revoke`. Raises RotatorError."""
        done = AdminRetired()
        entry = await self.ledger.read(named.secret)
        if entry is None or entry.ledger != self.ledger.uid or entry.host != named.host:
            return done
        now = self.context.now()
        done.waiting = len(entry.superseded) + (entry.intent is not None)
        if entry.claimed_until(now) is not None:
            return done
        view = await self.observer.view(named)
        # At once: the grace of a key that a human has taken out begins when the ledger says so.
        entry = await self.ledger.save(transitions.caught_up(entry, view.value.digest(), now))
        doomed = entry.superseded if early else ripe(entry, view, now)
        intent = unsettled(entry, now)
        if not doomed and intent is None:
            return done
        begun, listed = now, await self.openai.listed(named, view.value)
        this = _Round(named, view, listed, early)
        if not this.carried:
            message = "OpenAI's list of admin keys lacks the one that asks: nothing is deleted on the strength of it"
            raise NotShown("AdminKeysNotShown", message)
        for key in doomed:
            entry = await self._former(this, entry, key, done)
        for facts in twins(entry, listed):
            await self._delete(this, facts.id, facts.name, done)
        if intent is not None:
            entry = await self._unpublished(this, entry, intent, begun, done)
        done.waiting = len(entry.superseded) + (entry.intent is not None)
        return done

    async def _unpublished(
        self, this: _Round, entry: AdminEntry, intent: AdminIntent, begun: datetime, done: AdminRetired
    ) -> AdminEntry:
        """Delete what an intent's request made. Two lists without any of it settle the intent."""
        if not this.early and was_in_use(intent, this.listed):
            # A human has replaced it before any run could note it. Runs may have read it, and others may have it.
            now = self.context.now()
            return await self.ledger.update(entry, lambda e: transitions.was_published(e, intent.name, now=now))
        there = made_for(intent, this.listed, {key.id for key in entry.history})
        for facts in there:
            await self._delete(this, facts.id, facts.name, done)
        if there:
            return entry
        return await self.ledger.update(entry, lambda e: transitions.intent_missed(e, intent.name, begun))

    async def _former(self, this: _Round, entry: AdminEntry, key: AdminKey, done: AdminRetired) -> AdminEntry:
        """Delete a superseded key, or note why it stays."""
        facts = next((facts for facts in this.listed if facts.id == key.id), None)
        name, now = key.name or key.id, self.context.now()
        if facts is None:
            return await self.ledger.update(entry, lambda e: transitions.missed(e, key.id, now))
        # Whoever has asked for a longer grace, and has made a mistake with it, must not get a shorter one.
        why = "" if this.early else this.view.grace_mistake or hold(key, facts, self._elsewhere(key.digest), now)
        if why:
            done.held.append(f"{name}: {why}")
            return await self.ledger.update(entry, lambda e: transitions.held(e, key.id, why, now))
        if await self._delete(this, key.id, name, done, digest=key.digest):
            return await self.ledger.update(entry, lambda e: transitions.released(e, [key.id]))
        return entry

    async def _delete(self, this: _Round, id: str, name: str, done: AdminRetired, *, digest: str | None = None) -> bool:
        """Delete a key. True: OpenAI confirms that it does not exist (any more)."""
        if self.context.stop.reason is not None or id in this.carried:
            return False

        async def ready() -> None:
            """The Secret must still have the key that asks, and the doomed one must not be current again."""
            view = await self.observer.view(this.named)
            entry = await self.ledger.read(this.named.secret)
            current = entry.current if entry is not None else None
            if (
                entry is None
                or entry.claimed_until(self.context.now()) is not None
                or view.value.digest() != this.digest
                or digest == this.digest
                or (current is not None and current.id == id)
            ):
                raise Deferred("Changed", "its Secret or its entry has just been changed: the next run looks again")

        try:
            await self.openai.delete(this.named, this.view.value, id, ready=ready)
        except NotFound:
            listed = await self.openai.listed(this.named, this.view.value)
            if any(facts.id == id for facts in listed):
                return False
        except RotatorError as error:
            done.problems.append(error)
            return False
        done.deleted.append(name)
        return True

    def _elsewhere(self, digest: str) -> Mapping[str, Collection[str]]:
        """The Secrets known to this run that have a value of this digest."""
        beside = self.observer.digests.get(digest, set())
        # What the run has read earlier of a named Secret may be the value before this rotation.
        named = {place for places in self.observer.digests.values() for place in places}
        others = {f"Secret {ref}" for ref in self.context.projects.secrets_with(digest)}
        return {digest: beside | (others - named)}
