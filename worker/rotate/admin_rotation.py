"""Replace one admin key beside the ledger: intent, create, verify, publish, record.

Guarantees: the ledger names a key before it is requested, and has its id before the Secret carries it.
A name is requested once, and no second key before the first one's fate is settled.
A key is published only after a list of admin keys, asked for with it, has shown it and its predecessor.
One PATCH writes it, under the Secret's resourceVersion and within the claim. Nothing is deleted here but a key
whose claim another run has settled.
"""

from __future__ import annotations

import asyncio
import string
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from worker.context import RunContext
from worker.errors import (
    Conflict,
    Deferred,
    Forbidden,
    NotFound,
    NotSent,
    Refused,
    RotatorError,
    Throttled,
    Unanswered,
)
from worker.kubernetes.admin_secret import admin_key_patch
from worker.kubernetes.secret import SECRETS
from worker.ledger import admin_transitions as transitions
from worker.ledger.admin_store import AdminLedger
from worker.ledger.transitions import CLAIM
from worker.model.admin_keys import AdminEntry, AdminIntent, AdminKey, AdminSecretView, NamedAdminKey
from worker.model.audited import AdminKeyFacts
from worker.model.hidden import Hidden
from worker.model.outcomes import WOULD_ROTATE, AdminKeyOutcome, Result
from worker.model.sightings import NewAdminKey
from worker.model.times import next_attempt
from worker.observe.admin_keys import AdminKeyObserver, SeenAdminKey
from worker.openai.admin_keys import AdminKeysAtOpenAI
from worker.plan.admin_rotation import (
    AdminDecision,
    Ask,
    Leave,
    Refuse,
    Replace,
    decide_admin_key,
    due_at,
    lifetime,
    restriction,
    unknown,
)
from worker.ports import Randomness
from worker.rotate.rotation import INTENT_FRESH_FOR, VERIFYING, WORK, WRITING, Abandoned
from worker.runtime.clocks import Instant

PREFIX_OF_NAMES = "openai-key-rotator-"
_ALPHABET = string.ascii_letters + string.digits
_RANDOM = 16
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_ATTEMPTS = 3
_UNNOTED = ("InProgress", "Unsettled", "BackingOff", "ForeignLedger")
"""Reasons that change nothing in the ledger."""
FORBIDDEN = "AdminSecretForbidden"
_ADVICE = "; the component rotate-admin-keys lets the worker write the Secrets that it names (docs/operations.md)"


@dataclass(frozen=True, slots=True)
class _Work:
    """One Secret's key under way. `listed`: the admin keys that OpenAI lists; None: not asked yet."""

    named: NamedAdminKey
    view: AdminSecretView
    entry: AdminEntry
    listed: Collection[AdminKeyFacts] | None = None


@dataclass(frozen=True, slots=True)
class AdminRotation:
    context: RunContext
    ledger: AdminLedger
    observer: AdminKeyObserver
    openai: AdminKeysAtOpenAI
    random: Randomness

    async def rotate(self, seen: SeenAdminKey, *, forced: bool = False) -> AdminKeyOutcome | None:
        """Replace the key if it is due, or `forced`. None: nobody asks for anything. Raises RotatorError."""
        named, view, entry = seen.named, seen.view, seen.entry
        if isinstance(view, RotatorError):
            if forced or isinstance(entry, AdminEntry):
                raise view
            return None  # whoever needs this key tells that it is missing
        if isinstance(entry, RotatorError):
            if forced or view.interval is not None:
                raise entry
            return None
        now = self.context.now()
        if entry is None:
            if view.interval is None and not forced:
                return None
            entry = AdminEntry(named.secret, named.ref.key, named.host, self.ledger.uid)
        if entry.ledger == self.ledger.uid and entry.claimed_until(now) is None:
            entry = transitions.caught_up(entry, view.value.digest(), now)
        work = _Work(named, view, entry)
        work, decision = await self._decided(work, forced=forced)
        if not isinstance(decision, Replace):
            return await self._leave(work, decision)
        if self.context.run.dry_run:
            message = f"{decision.message}: would replace the admin key"
            return AdminKeyOutcome(named.ref.secret, Result.KEPT, WOULD_ROTATE, message)
        hindrance = await self._rehearse(work)
        if hindrance is None:
            work, hindrance = await self._looked_at(work)
        if hindrance is not None:
            return await self._leave(work, hindrance)
        return await self._replace(work, decision)

    # --- before anything is asked for

    async def _decided(self, work: _Work, *, forced: bool) -> tuple[_Work, Leave | Refuse | Replace]:
        """What to do. A key that the ledger does not know is looked for at OpenAI first."""
        decision = self._decide(work, forced=forced)
        if not isinstance(decision, Ask):
            return work, decision
        listed = await self._list(work)
        if isinstance(listed, Refuse):
            return work, listed
        matching = [facts for facts in listed if work.view.value.fits(facts.redacted)]
        if len(matching) != 1:
            return work, unknown(listed)
        digest, now = work.view.value.digest(), self.context.now()
        work = replace(work, listed=listed, entry=transitions.found(work.entry, matching[0], digest, now))
        if (restricted := restriction(matching[0])) is not None:
            return work, restricted
        again = self._decide(work, forced=forced)
        return work, again if not isinstance(again, Ask) else unknown(listed)

    def _decide(self, work: _Work, *, forced: bool) -> AdminDecision:
        return decide_admin_key(
            work.named, work.view, work.entry, ledger=self.ledger.uid, now=self.context.now(), forced=forced
        )

    async def _looked_at(self, work: _Work) -> tuple[_Work, Refuse | None]:
        """The work with OpenAI's list, which has to show the current key without restriction."""
        listed = work.listed if work.listed is not None else await self._list(work)
        if isinstance(listed, Refuse):
            return work, listed
        facts = _of(listed, work.entry.current)
        if facts is None or not work.view.value.fits(facts.redacted):
            return work, unknown(listed)
        return replace(work, listed=listed), restriction(facts)

    async def _list(self, work: _Work) -> Collection[AdminKeyFacts] | Refuse:
        try:
            return await self.openai.listed(work.named, work.view.value)
        except Forbidden as error:
            return Refuse("AdminKeyNotListed", f"{error.message}: without the list nothing tells which key this is")

    async def _rehearse(self, work: _Work) -> Leave | Refuse | None:
        """Try the PATCH without effect: without the right no key is made."""
        try:
            await self._patch(work.named, work.view, Hidden("-"), "rehearsal", dry_run=True)
        except Conflict:
            return Leave("InProgress", "its Secret has just been changed: the next run looks again")
        except Throttled:
            raise
        except Refused as error:
            return Refuse(FORBIDDEN, error.message + _ADVICE)
        return None

    async def _leave(self, work: _Work, decision: Leave | Refuse) -> AdminKeyOutcome | None:
        """Note why the key stays, and tell it."""
        now, entry = self.context.now(), work.entry
        if not self.context.run.dry_run and decision.reason not in _UNNOTED:
            try:
                await self._note(work, decision, now)
            except Forbidden as error:
                # Without the component the ledger may not be written either: whoever wants the rotation hears of it.
                if decision.reason and isinstance(decision, Leave):
                    decision = Refuse(FORBIDDEN, error.message + _ADVICE)
        if not decision.reason:
            return None
        result = Result.BLOCKED if isinstance(decision, Refuse) else Result.KEPT
        next_at = due_at(entry, work.view) if result is Result.KEPT else None
        if decision.reason == "BackingOff":
            result, next_at = Result.FAILED, entry.failures.next_attempt_at
        return AdminKeyOutcome(work.named.ref.secret, result, decision.reason, decision.message, next_at)

    async def _note(self, work: _Work, decision: Leave | Refuse, now: datetime) -> None:
        """Write what is true now. Where another run has just written, that one noted it."""
        entry = replace(work.entry, next_rotation_at=due_at(work.entry, work.view), key=work.named.ref.key)
        if decision.reason:
            ready = isinstance(decision, Leave)
            entry = entry.with_condition(ready, decision.reason, decision.message, now=now)
        try:
            if decision.reason:
                await self.ledger.save(entry)
            elif transitions.forgettable(entry):
                await self.ledger.delete(entry)
            else:
                await self.ledger.save(transitions.unasked(entry, now))
        except (Conflict, NotFound):
            return

    # --- the steps

    async def _replace(self, work: _Work, why: Replace) -> AdminKeyOutcome:
        name = PREFIX_OF_NAMES + "".join(self.random.choices(_ALPHABET, k=_RANDOM))
        made: NewAdminKey | None = None
        entry: AdminEntry | None = None
        try:
            async with self.openai.turn(work.named, work.view.value):
                entry, written_at = await self._intend(work.entry, name)
                made = await self._create(work, name)
            entry = await self._record_answer(work, entry, name, made)
            await self._verify(work, made, written_at)
            at = await self._publish(work, name, made, written_at)
        except RotatorError as error:
            if entry is None and isinstance(error, Conflict):
                message = "another run has just begun to replace it"
                return AdminKeyOutcome(work.named.ref.secret, Result.KEPT, "InProgress", message)
            if entry is None:
                raise  # nothing was asked for
            return await self._give_up(work, entry, name, error=error, made=made)
        return await self._record(work, entry, name, why=why, at=at)

    async def _intend(self, entry: AdminEntry, name: str) -> tuple[AdminEntry, Instant]:
        """Write the intent, again while that takes too long. Returns the entry and the time of the write."""
        for _ in range(_ATTEMPTS):
            begun, now = self.context.clock.instant(), self.context.now()
            intended = transitions.intended(entry, name, now=now, claimed_until=now + CLAIM)
            before, entry = entry.version, await self.ledger.save(intended)
            if self.context.clock.elapsed(begun) <= INTENT_FRESH_FOR and entry.version != before:
                return entry, begun
        message = f"nothing is asked for while writing the ledger takes over {INTENT_FRESH_FOR:.0f} s"
        raise Unanswered("TooSlow", message)

    async def _create(self, work: _Work, name: str) -> NewAdminKey:
        facts = _of(work.listed or (), work.entry.current)
        wanted = lifetime(facts) if facts is not None else None
        return await self.openai.create(work.named, work.view.value, name, lifetime=wanted)

    async def _record_answer(self, work: _Work, entry: AdminEntry, name: str, made: NewAdminKey) -> AdminEntry:
        """Note id and digest before the key can get into the Secret."""

        def noted(entry: AdminEntry) -> AdminEntry:
            intent = entry.intent
            if intent is None:
                return transitions.lost(entry, name, made.id, now=self.context.now())
            if intent.name != name:
                return entry
            known = replace(intent, id=made.id, digest=made.value.digest(), expires_at=made.expires_at)
            return transitions.answered(entry, known)

        entry = await self.ledger.update(entry, noted)
        if not transitions.holds(entry, name) or not _has(entry.intent, name, made):
            # Its claim has ended, and another run has settled it: nobody has this key's value.
            async def ready() -> None:
                return

            await self.openai.delete(work.named, work.view.value, made.id, ready=ready)
            raise Abandoned("LostClaim", "the ledger does not hold this run's claim any more")
        return entry

    async def _verify(self, work: _Work, made: NewAdminKey, written_at: Instant) -> None:
        """Wait until a list, asked for with the new key, shows it and the key that it replaces."""
        begun, pause, clock = self.context.clock.instant(), _FIRST_PAUSE, self.context.clock
        current = work.entry.current
        while True:
            try:
                listed = await self.openai.listed(work.named, made.value)
                ids = {facts.id for facts in listed}
                if made.id in ids and (current is None or current.id in ids):
                    return
                last = "its list of admin keys does not show it yet"
            except Deferred as error:
                last = error.message
                pause = _LONGEST_PAUSE
            except (Unanswered, Refused) as error:
                last = error.message
            if clock.elapsed(begun) + pause > VERIFYING or clock.elapsed(written_at) + pause > WORK:
                message = f"OpenAI did not accept the new admin key within {VERIFYING:.0f} s: {last}"
                raise Refused("KeyNotAccepted", message)
            await self.context.slots.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _publish(self, work: _Work, name: str, made: NewAdminKey, written_at: Instant) -> datetime:
        """Write the key. Returns the time of the API server's answer."""
        view, before = work.view, work.view.value.digest()
        for _ in range(_ATTEMPTS):
            await self._still_ours(work, name, made, written_at)
            begun = self.context.now()
            try:
                at = await self._patch(work.named, view, made.value, name)
                return max(at or self.context.now(), begun)
            except Conflict:
                view = await self.observer.view(work.named)
                now_there = view.value.digest()
                if now_there == made.value.digest():
                    return self.context.now()  # something on the way has sent the write twice
                if now_there != before:
                    raise Abandoned("Changed", "its Secret was changed while the key was made") from None
            except NotSent:
                raise
            except Unanswered:
                found = await self.observer.look(work.named)
                if isinstance(found, AdminSecretView) and found.value.digest() == made.value.digest():
                    return self.context.now()
                raise
        raise Abandoned("Conflict", "its Secret is being changed by others: a later run tries again")

    async def _still_ours(self, work: _Work, name: str, made: NewAdminKey, written_at: Instant) -> None:
        """The claim must have time left for a PATCH, and the ledger must hold the intent with its id."""
        asked = self.context.clock.instant()
        entry = await self.ledger.read(work.named.secret)
        if entry is None or not transitions.holds(entry, name) or not _has(entry.intent, name, made):
            raise Abandoned("LostClaim", "the ledger does not hold this run's claim any more")
        slow = self.context.clock.elapsed(asked) > INTENT_FRESH_FOR
        if slow or self.context.clock.elapsed(written_at) > WORK:
            raise Abandoned("TooSlow", "the claim ended before the key could be published: a later run tries again")

    async def _record(
        self, work: _Work, entry: AdminEntry, name: str, *, why: Replace, at: datetime
    ) -> AdminKeyOutcome:
        """Note the Secret's new key. Where that fails the next run tells it by its digest."""
        secret = work.named.ref.secret

        def noted(entry: AdminEntry) -> AdminEntry:
            done = transitions.published(entry, name, at=at)
            done = replace(done, next_rotation_at=due_at(done, work.view))
            return done.with_condition(True, transitions.READY, f"key {name} is current", now=at)

        try:
            entry = await self.ledger.update(entry, noted)
        except RotatorError as error:
            message = f"the key was published, but not yet noted in the ledger ({error.message}): the next run does"
            return AdminKeyOutcome(secret, Result.FAILED, "LedgerNotWritten", message)
        message = f"{why.message}: admin key {name} published"
        return AdminKeyOutcome(
            secret, Result.ROTATED, why.reason, message, entry.next_rotation_at, name, waiting=len(entry.superseded)
        )

    async def _give_up(
        self, work: _Work, entry: AdminEntry, name: str, *, error: RotatorError, made: NewAdminKey | None
    ) -> AdminKeyOutcome:
        """Note a failed attempt. After a definite answer the claim ends at once; otherwise it runs out by itself."""
        definite = isinstance(error, Refused | Abandoned | NotSent | Deferred)
        secret = work.named.ref.secret

        def noted(entry: AdminEntry) -> AdminEntry:
            return transitions.failed(
                entry,
                name,
                reason=error.reason,
                message=error.message,
                now=self.context.now(),
                definite=definite,
                made=made is not None,
            )

        try:
            entry = await self.ledger.update(entry, noted)
        except RotatorError as second:
            message = f"{error.message}; and the ledger could not be written ({second.message})"
            return AdminKeyOutcome(secret, Result.FAILED, error.reason, message)
        later = entry.failures.next_attempt_at
        return AdminKeyOutcome(secret, Result.FAILED, error.reason, error.message + next_attempt(later), later)

    async def _patch(
        self, named: NamedAdminKey, view: AdminSecretView, value: Hidden, name: str, *, dry_run: bool = False
    ) -> datetime | None:
        body = admin_key_patch(view.version, named.ref.key, value=value, name=name)
        try:
            async with asyncio.timeout(WRITING):
                return (await self.context.cluster.patch(SECRETS, named.ref.secret, body, dry_run=dry_run)).at
        except TimeoutError:
            message = f"writing Secret {named.ref.secret} took over {WRITING:.0f} s"
            raise Unanswered("SecretNotWritten", message) from None


def _of(listed: Collection[AdminKeyFacts], key: AdminKey | None) -> AdminKeyFacts | None:
    return next((facts for facts in listed if key is not None and facts.id == key.id), None)


def _has(intent: AdminIntent | None, name: str, made: NewAdminKey) -> bool:
    return intent is not None and intent.name == name and intent.id == made.id
