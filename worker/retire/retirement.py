"""Delete the accounts of one target that may go, and let them go from the ledger.

Guarantees: I3 an account is deleted only if the ledger records it for this target, no claim runs, its grace has passed,
nobody holds its key, and the Secret, read once more right before, does not name it; I4 it leaves the ledger only when
OpenAI has confirmed that it does not exist. Everything comes from the ledger: nothing that this run's rotations did is
handed on.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worker.errors import (
    AdminKeyUnusable,
    ConfigurationError,
    Conflict,
    ConsumersUnseen,
    Deferred,
    NotFound,
    Refused,
    RotatorError,
)
from worker.ledger import holds, transitions
from worker.ledger.holds import STUCK, STUCK_FOR_NOW
from worker.ledger.store import Ledger
from worker.model.entries import Account, Entry, Intent, Publication, is_empty
from worker.model.outcomes import Notice, Result, RetireOutcome
from worker.model.sightings import Consumer, SecretView
from worker.model.times import next_attempt
from worker.observe.consumers import Pods
from worker.openai.projects import Projects
from worker.plan.holders import holders
from worker.plan.retirement import (
    Delete,
    Held,
    Wait,
    decide_retirement,
    ended_claims,
    may_yet_publish,
    next_release,
    reachable,
    ripe_at,
)
from worker.ports import Clock
from worker.retire.deletion import AccountDeleter, SecretSnapshot

_UNKNOWN_KEY = f"{STUCK}: the Secret holds a key that the ledger does not know: it may be this one's"


@dataclass(frozen=True, slots=True)
class Retirement:
    ledger: Ledger
    pods: Pods
    projects: Projects
    deletion: AccountDeleter
    clock: Clock
    unseen_hold: timedelta
    max_hold: timedelta | None
    begun: datetime
    """What is ripe now may go; what ripens meanwhile is the next round's, so pods are listed once."""

    async def retire(self, entry: Entry, *, wanted: bool, served: bool) -> RetireOutcome:
        """Delete what may go now. Raises nothing expected.

        `wanted`: something still asks for this target. `served`: this run has looked at its Secret and all is known;
        otherwise it is looked at here, for it may be gone.
        """
        now = self.clock.now()
        claim = entry.claimed_until(now)
        if entry.ledger != self.ledger.uid:
            words = f"the entry is another installation's; see `openai-key-rotator adopt {entry.target}`"
            return RetireOutcome(entry.target, Result.BLOCKED, "ForeignLedger", words)
        if claim is not None:
            return waiting(entry, now)
        if served and not _ripe(entry, self.begun) and not ended_claims(entry, now) and not self._twins(entry):
            return waiting(entry, now)
        try:
            return await self._retire(entry, wanted)
        except RotatorError as error:
            if isinstance(error, ConfigurationError):
                await self._note(entry, wanted, error.reason, _words(error, entry))
            return _troubled(entry, error)

    async def _retire(self, entry: Entry, wanted: bool) -> RetireOutcome:
        seen, sight = await self.deletion.look(entry)
        trouble: RotatorError | None = None
        held: dict[str, str | None] = {}
        hit: list[Notice] = []
        after = seen
        # Where the Secret is going to get another key: until then a run that was only stopped may still write its own.
        claims = ended_claims(seen, self.clock.now())
        intents = [intent for intent in claims if not (wanted and may_yet_publish(seen, intent))]
        items: tuple[Publication | Intent, ...] = (*seen.history, *intents)
        for item in items:
            try:
                after, held[item.account.name] = await self._let_go(after, item, sight, hit)
            except RotatorError as error:
                trouble = error
                held[item.account.name] = stuck(error)
        left = {p.account.name for p in after.history} | {i.account.name for i in after.unpublished}
        deleted = [item.account.name for item in items if item.account.name not in left]
        try:
            for account, twin in self._twins(seen):
                await self.deletion.account(account, twin, sight, None, by_name=False)
        except RotatorError as error:
            trouble = error
        after, notices = holds.with_reasons(after, held, self.clock.now())
        if not wanted:
            after = self._disowned(after, sight.secret, trouble)
        elif after.condition is not None and after.condition.reason == transitions.READY:
            after = transitions.healthy(after, self.clock.now())  # which says what is held
        stored = await self._save(entry, transitions.with_throttle(after, trouble), deleted)
        if trouble is not None:
            return replace(_troubled(stored, trouble), deleted=tuple(deleted), notices=(*hit, *notices))
        summary = await self._summed_up(stored, wanted, deleted, held)
        return replace(summary, notices=(*hit, *notices))

    async def _summed_up(
        self, stored: Entry, wanted: bool, deleted: list[str], held: dict[str, str | None]
    ) -> RetireOutcome:
        words = [f"deleted {', '.join(deleted)}"] if deleted else []
        staying = tuple(f"{name} stays ({why})" for name, why in held.items() if why is not None)
        if not wanted and is_empty(stored):
            with suppress(Conflict, NotFound):  # another run is at it
                await self.ledger.delete(stored)
        elif not wanted and stored.condition is not None:
            words.append(stored.condition.message)
        message = "; ".join((*words, *staying))
        return replace(waiting(stored, self.clock.now()), deleted=tuple(deleted), held=staying, message=message)

    async def _let_go(
        self, entry: Entry, item: Publication | Intent, sight: SecretSnapshot, hit: list[Notice]
    ) -> tuple[Entry, str | None]:
        """The entry without this account, where it may go and is gone; otherwise, where it is held, why.

        `hit` gets what is to be told of holders who lose it.
        """
        item = replace(item, account=reachable(entry, item.account))
        account = item.account
        try:
            if isinstance(item, Intent):
                if not item.refused and transitions.unaccounted(entry, item, sight.secret):
                    return entry, _UNKNOWN_KEY
                return await self._settle(entry, item, sight), None
            if item.superseded_at is not None and transitions.unaccounted(entry, item, sight.secret):
                return entry, _UNKNOWN_KEY
            verdict = await self._verdict(item, entry, sight)
            if isinstance(verdict, Delete):
                entry, gone = await self._delete_all(entry, item, await self.deletion.ids(item), sight)
                if gone and verdict.hit is not None:
                    hit.append(holds.ended(item, verdict.hit, verdict.why))
                return entry, None
            return entry, verdict.why if isinstance(verdict, Held) else None
        except Refused as error:
            if await self.projects.archived(account.access, error):
                return transitions.released(entry, {account.name}), None
            raise

    async def _verdict(self, previous: Publication, entry: Entry, sight: SecretSnapshot) -> Delete | Wait | Held | None:
        """Delete, Wait or Held; pods are listed and OpenAI asked for the last use only once the grace has passed."""
        now, cleanup = self.clock.now(), entry.generator.cleanup
        ripe = ripe_at(previous, cleanup)
        if ripe is None or ripe > self.begun:
            return None
        consumers = await self.pods.consumers(entry.target)
        certain, possible = holders(previous, consumers)
        return decide_retirement(
            previous,
            cleanup,
            None if certain else await self._last_used(previous.account, possible),  # for those it does not matter
            self.unseen_hold,
            now,
            consumers=consumers,
            looked_at=self.pods.looked_at(entry.target.namespace),
            max_hold=self.max_hold,
        )

    async def _last_used(self, account: Account, possible: Collection[Consumer]) -> datetime | None:
        """When its key was last used, as far as OpenAI knows; None: never.

        An account whose run died before it could note its key is asked about by name only where somebody may hold it: a
        run that was stopped for long may have tried the key itself, late, and that would be taken for somebody unseen.
        """
        ids = [account.key_id] if account.key_id is not None else await self._key_ids(account) if possible else []
        uses = [await self.projects.key_last_used(account.access, key_id) for key_id in ids]
        return max((use for use in uses if use is not None), default=None)

    async def _key_ids(self, account: Account) -> list[str]:
        """Its keys, as OpenAI lists them."""
        if account.id is None:
            return []
        return [key.id for key in (await self.projects.account_keys(account.access)).get(account.id, ())]

    async def _settle(self, entry: Entry, intent: Intent, sight: SecretSnapshot) -> Entry:
        """Delete every account that the intent made: by its id, and by its name in a list begun after its claim.

        Where neither is known the intent stays until a second such list confirms it. Where its run died, it may have
        been published, and then somebody may hold its key: it goes as a publication does.
        """
        account = intent.account
        ids = await self.deletion.ids(intent)
        if not ids:
            listing = await self.projects.listing(account.access, not_before=intent.claimed_until)
            return transitions.missed(entry, account.name, listing.begun_at)
        if not intent.refused:
            return transitions.presumed(entry, intent, ids[0], self.clock.now(), secret_gone=sight.secret is None)
        return (await self._delete_all(entry, intent, ids, sight))[0]

    async def _delete_all(
        self, entry: Entry, item: Publication | Intent, ids: list[str], sight: SecretSnapshot
    ) -> tuple[Entry, bool]:
        """The entry without the item, where all of its accounts are gone now; and whether they are."""
        gone = await self.deletion.all_of(item, ids, sight)
        return (transitions.released(entry, {item.account.name}), True) if gone else (entry, False)

    def _twins(self, entry: Entry) -> list[tuple[Account, str]]:
        """Other accounts with the name of a published one, in lists that this run has read: a create was repeated on
        its way (by a proxy, say). The name is the ledger's, so they are ours.

        Where it is not known for certain which of them was published (no digest), they go together.
        """
        found = []
        for publication in entry.history:
            account, listing = publication.account, self.projects.known_listing(publication.account.access)
            if listing is not None and account.id is not None and account.key_digest is not None:
                found += [(account, id) for id in listing.ids_of(account.name) if id != account.id]
        return found

    def _disowned(self, entry: Entry, secret: SecretView | None, trouble: RotatorError | None) -> Entry:
        """The condition of a target that nothing asks for any more."""
        if trouble is not None:
            reason, message = trouble.reason, _words(trouble, entry)
        elif secret is None:
            reason, message = "TargetGone", "its Secret is gone: its accounts go when their grace has passed"
        else:
            reason, message = "SourceGone", "nothing asks for this Secret any more: delete it to let its account go"
        message += holds.in_words(entry)
        return replace(entry, next_rotation_at=None).with_condition(False, reason, message, self.clock.now())

    async def _save(self, before: Entry, after: Entry, deleted: list[str]) -> Entry:
        """Store what was done. Where the entry changed meanwhile, only the releases are carried over, as facts."""
        try:
            return await self.ledger.save(after)
        except Conflict:
            return await self.ledger.update(
                await self.ledger.read(before.target) or before, lambda entry: transitions.released(entry, deleted)
            )

    async def _note(self, entry: Entry, wanted: bool, reason: str, message: str) -> None:
        """Say in the ledger of an unwanted target why it is still there; a wanted one's condition is its rotation's."""
        if not wanted:
            try:
                await self.ledger.save(entry.with_condition(False, reason, message, self.clock.now()))
            except Conflict:
                return  # another run is at it and says the same


def stuck(error: RotatorError) -> str:
    """For the ledger, so the same in every run: what only waiting can mend is told by its reason alone."""
    lasting = isinstance(error, ConfigurationError | ConsumersUnseen)
    return f"{STUCK}: {error.reason}: {error.message}" if lasting else f"{STUCK_FOR_NOW}: {error.reason}"


def _ripe(entry: Entry, now: datetime) -> list[Publication]:
    times = [(ripe_at(publication, entry.generator.cleanup), publication) for publication in entry.history]
    return [publication for time, publication in times if time is not None and time <= now]


def leaving(entry: Entry) -> int:
    """How many accounts are to go, now or later."""
    return len(entry.unpublished) + sum(p.superseded_at is not None for p in entry.history)


def _troubled(entry: Entry, error: RotatorError) -> RetireOutcome:
    """What is told where something stands in the way: of a human's doing (BLOCKED), or that may pass (FAILED)."""
    if isinstance(error, ConfigurationError | ConsumersUnseen):
        return RetireOutcome(entry.target, Result.BLOCKED, error.reason, _words(error, entry), waiting=leaving(entry))
    later = error.until if isinstance(error, Deferred) else None
    message = error.message + next_attempt(later)
    return RetireOutcome(entry.target, Result.FAILED, error.reason, message, waiting=leaving(entry), next_at=later)


def _words(trouble: RotatorError, entry: Entry) -> str:
    """Why accounts of a target stay that should go, and what can be done about it."""
    if not isinstance(trouble, ConfigurationError):
        return trouble.message
    absent = isinstance(trouble, AdminKeyUnusable) and trouble.absent
    note = " (--fallback-admin-key can serve them)" if absent else ""
    return f"{leaving(entry)} accounts cannot be deleted: {trouble.message}{note}"


def waiting(entry: Entry, now: datetime) -> RetireOutcome:
    """What stays, and when the next of it may go; what was ripe and stayed is the next run's."""
    return RetireOutcome(entry.target, waiting=leaving(entry), next_at=next_release(entry, now))
