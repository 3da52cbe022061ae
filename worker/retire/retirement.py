"""Delete the accounts of one target that may go, and let them go from the ledger.

Guarantees: I3 retirement deletes an account only if all of these hold:
- the ledger records it for this target, and no claim runs;
- its grace has passed, and nobody holds its key;
- the Secret, read once more right before, does not name it.
I4 an account leaves the ledger only when OpenAI has confirmed that it does not exist.
Everything comes from the ledger: this run's rotations hand nothing on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    NotShown,
    Refused,
    RotatorError,
    Throttled,
    Unanswered,
    about,
    without_request_id,
)
from worker.ledger import catch_up, holds, transitions
from worker.ledger.account_keys import is_own
from worker.ledger.store import Ledger
from worker.model.entries import (
    Account,
    Entry,
    HoldKind,
    HoldReason,
    Intent,
    Publication,
    accounts_of,
    current,
    is_empty,
)
from worker.model.outcomes import BilledKey, Notice, Result, RetireOutcome
from worker.model.sightings import SecretView
from worker.model.times import next_attempt
from worker.model.values import Ref
from worker.observe.consumers import Pods
from worker.observe.nodes import Nodes
from worker.openai.projects import Projects
from worker.plan.holders import Holder, holders, nodes_of_interest
from worker.plan.retirement import (
    Delete,
    Held,
    RetirePolicy,
    Usage,
    Wait,
    decide_retirement,
    ended_claims,
    may_yet_publish,
    next_release,
    reachable,
    ripe_at,
)
from worker.retire.deletion import AccountDeleter, SecretSnapshot
from worker.runtime.clocks import RunClock

_SHOWN = 3
"""Containers that a message names."""
_CARRIED = HoldReason(HoldKind.PASSING, "the Secret has its key still, perhaps under another data key")
_UNKNOWN_KEY = HoldReason(HoldKind.STUCK, "the Secret holds a key that the ledger does not know: it may be this one's")


@dataclass(frozen=True, slots=True)
class _LetGo:
    """The result for one account: the entry afterwards, the reason of a hold, and the notice to its holders."""

    entry: Entry
    held: HoldReason | None = None
    notice: Notice | None = None
    free: tuple[Holder, ...] = ()
    """Containers that cannot have the key of the account that went, with the facts."""


@dataclass(frozen=True, slots=True)
class Retirement:
    """Retires the accounts of one target at a time, all in one round."""

    ledger: Ledger
    pods: Pods
    nodes: Nodes
    projects: Projects
    deletion: AccountDeleter
    clock: RunClock
    unseen_hold: timedelta
    max_hold: timedelta | None
    begun: datetime
    """Accounts ripe at this time may go. Later ones wait for the next round, so a round lists pods once."""

    async def retire(self, entry: Entry, *, has_source: bool, served: bool) -> RetireOutcome:
        """Delete the accounts that may go now. Raises no expected error.

        `has_source`: something still asks for this target. `served`: this run has reconciled it already; otherwise
        `retire` looks at the Secret, for it may be gone.
        """
        now = self.clock.now()
        claim = entry.claimed_until(now)
        if entry.ledger != self.ledger.uid:
            message = f"the entry is another installation's; see `openai-key-rotator adopt {entry.target}`"
            return RetireOutcome(entry.target, Result.BLOCKED, "ForeignLedger", message)
        if claim is not None:
            return waiting(entry, now)
        if served and not _ripe(entry, self.begun) and not ended_claims(entry, now) and not self._twins(entry):
            return waiting(entry, now)
        try:
            return await self._retire(entry, has_source=has_source)
        except RotatorError as error:
            if isinstance(error, ConfigurationError):
                await self._note(entry, error, has_source=has_source)
            return _troubled(entry, error)

    async def _taken_over(self, seen: Entry, secret: SecretView | None) -> Entry:
        """The entry without a current account where somebody else's key has taken its place in the Secret."""
        after = catch_up.taken_over(seen, secret, self.clock.now())
        publication = current(seen)
        if after is seen or secret is None or publication is None:
            return after
        # A line that somebody adds to a file leaves the key in it.
        return seen if await self.deletion.observer.has_within(secret, publication.account) else after

    async def _retire(self, entry: Entry, *, has_source: bool) -> RetireOutcome:
        seen, snapshot = await self.deletion.look(entry)
        if not has_source and transitions.was_suspended(seen) and snapshot.secret is not None:
            message = "it was suspended when its source went: delete the Secret to let its accounts go"
            return replace(waiting(seen, self.clock.now()), message=message)
        if not has_source:
            seen = await self._taken_over(seen, snapshot.secret)
        trouble: RotatorError | None = None
        held: dict[str, HoldReason | None] = {}
        notices: list[Notice] = []
        free: dict[str, Holder] = {}
        after = seen
        # With a source the Secret gets another key; until then a run that was only stopped may still write its own.
        claims = ended_claims(seen, self.clock.now())
        intents = [intent for intent in claims if not (has_source and may_yet_publish(seen, intent))]
        items: tuple[Publication | Intent, ...] = (*seen.history, *intents)
        for item in items:
            try:
                let_go = await self._let_go(after, item, snapshot)
                after, held[item.account.name] = let_go.entry, let_go.held
                notices += [let_go.notice] if let_go.notice is not None else []
                free |= {holder.name: holder for holder in let_go.free}
            except RotatorError as error:
                trouble = error
                held[item.account.name] = stuck(error, item.account, entry.target)
                if isinstance(error, NotShown):
                    after = transitions.absent(after, item.account.name, self.clock.now())
        left = {p.account.name for p in after.history} | {i.account.name for i in after.unpublished}
        gone = [item.account for item in items if item.account.name not in left]
        deleted, keys = [account.name for account in gone], _billed(gone)
        try:
            for account, twin in await self._unused_twins(seen):
                await self.deletion.account(account, twin, snapshot, requested_at=None, by_name=False)
        except RotatorError as error:
            trouble = error
        after = self._shown_again(after)
        after, of_holds = holds.with_reasons(after, held, self.clock.now())
        if not has_source:
            after = self._disowned(after, snapshot.secret, trouble)
        elif after.condition is not None and after.condition.reason == transitions.READY:
            after = transitions.healthy(after, self.clock.now())  # its message names the held accounts
        stored = await self._save(entry, transitions.with_throttle(after, trouble), deleted)
        if trouble is not None:
            troubled = replace(_troubled(stored, trouble), deleted=tuple(deleted), deleted_keys=keys)
            return replace(troubled, notices=(*notices, *of_holds))
        summary = await self._summed_up(stored, deleted, held, free=list(free.values()), has_source=has_source)
        return replace(summary, deleted_keys=keys, notices=(*notices, *of_holds))

    def _shown_again(self, entry: Entry) -> Entry:
        """A project that this run has listed does not look empty any more."""
        for account in accounts_of(entry):
            if self.projects.known_listing(account.access) is not None:
                entry = transitions.shown_again(entry, account.name)
        return entry

    async def _summed_up(
        self,
        stored: Entry,
        deleted: list[str],
        held: Mapping[str, HoldReason | None],
        *,
        free: Sequence[Holder],
        has_source: bool,
    ) -> RetireOutcome:
        parts = [f"deleted {', '.join(deleted)}"] if deleted else []
        if free:
            more = f", and {len(free) - _SHOWN} more" if len(free) > _SHOWN else ""
            parts.append(f"not held by {', '.join(map(str, free[:_SHOWN]))}{more}")
        staying = tuple(f"{name} stays ({reason})" for name, reason in held.items() if reason is not None)
        if not has_source and is_empty(stored):
            # Another run works on it, or something has sent the delete twice: then the second answer is a 404.
            with suppress(Conflict, NotFound):
                await self.ledger.delete(stored)
        elif not has_source and stored.condition is not None:
            parts.append(stored.condition.message)
        message = "; ".join((*parts, *staying))
        return replace(waiting(stored, self.clock.now()), deleted=tuple(deleted), held=staying, message=message)

    async def _let_go(self, entry: Entry, item: Publication | Intent, snapshot: SecretSnapshot) -> _LetGo:
        """Delete an account that may go. The entry lacks it only where OpenAI confirms that it is gone."""
        item = replace(item, account=reachable(entry, item.account))
        account = item.account
        try:
            if isinstance(item, Intent):
                if not item.refused and catch_up.unaccounted(entry, item, snapshot.secret):
                    return _LetGo(entry, _UNKNOWN_KEY)
                return _LetGo(await self._settle(entry, item, snapshot))
            if item.superseded_at is not None and catch_up.unaccounted(entry, item, snapshot.secret):
                return _LetGo(entry, _UNKNOWN_KEY)
            verdict = await self._verdict(item, entry, snapshot)
            if isinstance(verdict, Delete):
                without = await self._delete_all(entry, item, await self.deletion.ids(item), snapshot=snapshot)
                if without is not None and verdict.affected is not None:
                    return _LetGo(without, notice=holds.ended(item, verdict.affected, verdict.why))
                if without is not None:
                    return _LetGo(without, free=verdict.free)
                carried = without is None and snapshot.secret is not None and snapshot.secret.carries(account)
                return _LetGo(without or entry, _CARRIED if carried else None)
            return _LetGo(entry, verdict.reason if isinstance(verdict, Held) else None)
        except Refused as error:
            if await self.projects.archived(account.access, error):
                return _LetGo(transitions.released(entry, {account.name}))
            raise

    async def _verdict(
        self, previous: Publication, entry: Entry, snapshot: SecretSnapshot
    ) -> Delete | Wait | Held | None:
        """Delete, Wait or Held. It lists pods and asks OpenAI for the last use only once the grace has passed."""
        now, cleanup = self.clock.now(), entry.generator.cleanup
        ripe = ripe_at(previous, cleanup)
        if ripe is None or ripe > self.begun:
            return None
        consumers = await self.pods.consumers(entry.target)
        wanted, looked_at = nodes_of_interest(previous, consumers), self.pods.looked_at(entry.target.namespace)
        nodes = await self.nodes.named(wanted) if wanted else {}
        found = holders(previous, consumers, nodes, looked_at=looked_at)
        # Certain holders hold it whatever its last use was, so retirement does not ask OpenAI.
        last_used, another = (None, None) if found.certain else await self._last_uses(previous, found.possible)
        usage = Usage(last_used, consumers, looked_at, another, nodes)
        return decide_retirement(previous, usage, RetirePolicy(cleanup, self.unseen_hold, self.max_hold), now=now)

    async def _last_uses(
        self, previous: Publication, possible: Collection[Holder]
    ) -> tuple[datetime | None, datetime | None]:
        """The last use of its key, and of any other key of the account, as far as OpenAI knows; None: never."""
        account = previous.account
        if account.id is None:
            return None, None
        own, others = await self._keys(previous)
        if account.key_id is not None:
            own = [account.key_id]
        elif not possible:
            # A run that was stopped for long, and noted no key id, may have tried the key itself, late.
            # Without a possible holder that use would look like an unseen consumer's, so nobody asks for it.
            # Of several keys all but one are somebody else's, and which is not known.
            return None, await self._latest_use(account, others + (own if len(own) > 1 else []))
        used = await self._latest_use(account, own)
        # The answer may have taken long, and somebody may have made a key meanwhile.
        _, others = await self._keys(previous)
        return used, await self._latest_use(account, others)

    async def _keys(self, previous: Publication) -> tuple[list[str], list[str]]:
        """The ids of the account's keys by a list that is fresh: those that were made with it, and the others."""
        account = previous.account
        listed = (await self.projects.account_keys(account.access, fresh=True)).get(account.id or "", ())
        own = [key.id for key in listed if is_own(key, previous)]
        return own, [key.id for key in listed if key.id not in own]

    async def _latest_use(self, account: Account, key_ids: Collection[str]) -> datetime | None:
        uses = [await self.projects.key_last_used(account.access, key_id) for key_id in key_ids]
        return max((use for use in uses if use is not None), default=None)

    async def _settle(self, entry: Entry, intent: Intent, snapshot: SecretSnapshot) -> Entry:
        """Delete every account that the intent made: by its id, and by its name in a list begun after its claim."""
        account = intent.account
        ids = await self.deletion.ids(intent)
        if not ids:
            # Without a known account the intent stays until a second such list confirms that there is none.
            if self.clock.jumped:
                raise Unanswered("ClockJumped", "the API server's clock was set during this run: no list counts")
            listing = await self.projects.listing(account.access, not_before=intent.claimed_until)
            return transitions.missed(entry, account.name, listing.begun_at)
        if not intent.refused:
            # Its run died, perhaps after publishing, so somebody may hold its key: it goes as a publication does.
            return transitions.presumed(
                entry, intent, account.id or ids[0], now=self.clock.now(), secret_gone=snapshot.secret is None
            )
        return await self._delete_all(entry, intent, ids, snapshot=snapshot) or entry

    async def _delete_all(
        self, entry: Entry, item: Publication | Intent, ids: list[str], *, snapshot: SecretSnapshot
    ) -> Entry | None:
        """The entry without the item once all of its accounts are gone; None: not all of them are."""
        if not await self.deletion.all_of(item, ids, snapshot):
            return None
        if isinstance(item, Intent) and item.requested_at + transitions.CLAIM > self.clock.now():
            # Something may have sent the create twice, and OpenAI may show the other account later.
            return None
        return transitions.released(entry, {item.account.name})

    def _twins(self, entry: Entry) -> list[tuple[Publication, str]]:
        """Other accounts with the name of a published one, in lists that this run has read.

        Something on the way (a proxy, say) repeated a create. The name is the ledger's, so they are ours.
        """
        found = []
        for publication in entry.history:
            account, listing = publication.account, self.projects.known_listing(publication.account.access)
            # Without a digest nobody knows for certain which of them a run published: they go together.
            if listing is not None and account.id is not None and account.key_digest is not None:
                found += [(publication, id) for id in listing.twins_of(account)]
        return found

    async def _unused_twins(self, entry: Entry) -> list[tuple[Account, str]]:
        """Those whose key nobody has used: its value was lost on the way. One that is used is a human's account."""
        return [
            (publication.account, twin)
            for publication, twin in self._twins(entry)
            if not await self.deletion.is_others(publication.account, twin, publication.requested_at)
        ]

    def _disowned(self, entry: Entry, secret: SecretView | None, trouble: RotatorError | None) -> Entry:
        """The condition of a target that nothing asks for any more."""
        if trouble is not None:
            reason, message = trouble.reason, _explained(trouble, entry)
        elif secret is None:
            reason, message = "TargetGone", "its Secret is gone: its accounts go when their grace has passed"
        else:
            reason, message = "SourceGone", "nothing asks for this Secret any more: delete it to let its account go"
        message += holds.in_words(entry)
        return replace(entry, next_rotation_at=None).with_condition(False, reason, message, now=self.clock.now())

    async def _save(self, before: Entry, after: Entry, deleted: list[str]) -> Entry:
        """Store the result. Where the entry changed meanwhile, carry over only the releases, which are facts."""
        try:
            return await self.ledger.save(after)
        except Conflict:
            return await self.ledger.update(
                await self.ledger.read(before.target) or before, lambda entry: transitions.released(entry, deleted)
            )

    async def _note(self, entry: Entry, error: ConfigurationError, *, has_source: bool) -> None:
        """Say in the ledger why a target without a source is still there."""
        if has_source:
            # Its condition is that of its rotation.
            return
        noted = entry.with_condition(False, error.reason, _explained(error, entry), now=self.clock.now())
        try:
            await self.ledger.save(noted)
        except Conflict:
            # Another run works on it and says the same.
            return


def _billed(accounts: Sequence[Account]) -> tuple[BilledKey, ...]:
    """Their keys' ids, which the ledger is about to forget; a lost create's key was never told to anybody."""
    return tuple(BilledKey(a.name, a.key_id, a.access.project.id) for a in accounts if a.key_id is not None)


def stuck(error: RotatorError, account: Account, target: Ref) -> HoldReason:
    """Why an account stays after an error: the same text in every run, for it goes into the ledger."""
    if error.reason == "OpenAINotFound":
        # The list of a whole project answers so: its accounts stay until a human says that it was deleted.
        message = without_request_id(about(account.access, error)) + _forget_it(error, target)
        return HoldReason(HoldKind.STUCK, f"{error.reason}: {message}")
    if isinstance(error, ConfigurationError | ConsumersUnseen):
        return HoldReason(HoldKind.STUCK, f"{error.reason}: {error.message}")
    if isinstance(error, Refused) and not isinstance(error, NotFound | Conflict | Throttled) and error.status != 409:
        # The same answer comes until a human changes the admin key's permissions.
        return HoldReason(HoldKind.STUCK, f"{error.reason}: {without_request_id(about(account.access, error))}")
    if error.reason == "OpenAINotReached":
        # A firewall that stops deletes, say: it does so until a human acts.
        return HoldReason(HoldKind.STUCK, f"{error.reason}: {without_request_id(error.message)}")
    # Messages of errors that pass differ from run to run.
    return HoldReason(HoldKind.PASSING, error.reason)


def _ripe(entry: Entry, now: datetime) -> list[Publication]:
    times = [(ripe_at(publication, entry.generator.cleanup), publication) for publication in entry.history]
    return [publication for time, publication in times if time is not None and time <= now]


def leaving(entry: Entry) -> int:
    """How many accounts are to go, now or later."""
    return len(entry.unpublished) + sum(p.superseded_at is not None for p in entry.history)


def _troubled(entry: Entry, error: RotatorError) -> RetireOutcome:
    """The outcome of an error: BLOCKED where a human has to act, FAILED where the error may pass."""
    if isinstance(error, ConfigurationError | ConsumersUnseen):
        return RetireOutcome(
            entry.target, Result.BLOCKED, error.reason, _explained(error, entry), waiting=leaving(entry)
        )
    later = error.until if isinstance(error, Deferred) else None
    message = error.message + _forget_it(error, entry.target) + next_attempt(later)
    return RetireOutcome(entry.target, Result.FAILED, error.reason, message, waiting=leaving(entry), next_at=later)


def _explained(trouble: RotatorError, entry: Entry) -> str:
    """Why accounts of a target stay that should go, and the remedy."""
    if not isinstance(trouble, ConfigurationError):
        return trouble.message + _forget_it(trouble, entry.target)
    absent = isinstance(trouble, AdminKeyUnusable) and trouble.absent
    note = " (--fallback-admin-key can serve them)" if absent else ""
    return f"{leaving(entry)} accounts cannot be deleted: {trouble.message}{note}"


def _forget_it(error: RotatorError, target: Ref) -> str:
    if error.reason != "OpenAINotFound":
        return ""
    return f"; if the project was deleted, `openai-key-rotator revoke --forget {target}` lets its accounts go"


def waiting(entry: Entry, now: datetime) -> RetireOutcome:
    """How many accounts stay, and when the next one may go. Ripe accounts that stayed are the next run's."""
    return RetireOutcome(entry.target, waiting=leaving(entry), next_at=next_release(entry, now))
