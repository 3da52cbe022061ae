"""Delete an account of a target at OpenAI, with a look at the Secret right before.

Guarantees: I3 no account is deleted that the Secret names, or whose key it carries, read once more right before; I4 an
account counts as gone only when OpenAI has confirmed that it does not exist. Whether it may go is for others to decide.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.errors import RotatorError, Unanswered
from worker.ledger import transitions
from worker.ledger.plausible import LONG_AGO
from worker.model.entries import Account, Entry, Intent, Publication
from worker.model.sightings import Listing, SecretView
from worker.model.values import Ref, Version
from worker.observe.observer import Observer
from worker.openai.projects import Projects
from worker.runtime.clocks import Instant, RunClock

SNAPSHOT_FRESH_FOR = 5.0
"""Seconds for which a look at the Secret counts as "right before" a delete."""
MADE_WITHIN = transitions.CLAIM + timedelta(minutes=2)
"""For so long after its request an account of ours may be made. OpenAI's clock is not the API server's."""
_LOOKS = 3
"""How often it is looked again where the look itself took longer than that."""


@dataclass(slots=True)
class SecretSnapshot:
    """The Secret as it was seen last, and when, by the monotonic clock."""

    target: Ref
    secret: SecretView | None
    at: Instant

    @property
    def version(self) -> Version | None:
        return _version(self.secret)


def _made_later(listing: Listing, account_id: str, requested_at: datetime | None) -> bool:
    """Was this account made after anything that a request of then can have made, as far as both times are known?"""
    created = listing.accounts[account_id].created_at
    if created is None or requested_at is None or requested_at <= LONG_AGO:
        return False
    return created > requested_at + MADE_WITHIN


def _made_together(listing: Listing, one: str | None, other: str) -> bool:
    """Has OpenAI made these two for one request? By its own clock, for the ledger's time may be another's."""
    shown = [listing.accounts[id].created_at for id in (one, other) if id is not None and id in listing.accounts]
    times = [at for at in shown if at is not None]
    return len(times) == 2 and max(times) - min(times) <= MADE_WITHIN


def _version(secret: SecretView | None) -> Version | None:
    return secret.version if secret is not None else None


class _InTheSecret(RotatorError):
    """The Secret names the account, or carries its key."""


@dataclass(frozen=True, slots=True)
class AccountDeleter:
    projects: Projects
    observer: Observer
    clock: RunClock

    async def look(self, entry: Entry) -> tuple[Entry, SecretSnapshot]:
        """The entry as its Secret says that it is now, and the look that says so. Raises what reading it raised."""
        at = self.clock.instant()
        seen, secret = await self.observer.caught_up(entry)
        return seen, SecretSnapshot(entry.target, secret, at)

    async def account(
        self,
        account: Account,
        account_id: str | None,
        snapshot: SecretSnapshot,
        *,
        requested_at: datetime | None,
        by_name: bool = True,
        spared: bool = True,
    ) -> bool:
        """Delete an account, unless the Secret names it or carries its key. True: OpenAI confirms that it is gone.

        `by_name`: an account of that name counts as named by the Secret, whatever its id. `spared`: False deletes even
        what is in the Secret, as a human may demand.
        """
        if account_id is None:
            return False

        async def ready() -> None:
            if not spared:
                return
            if self.clock.jumped:
                # Graces that began before the jump cannot be measured after it.
                raise Unanswered("ClockJumped", "the API server's clock was set during this run: nothing is deleted")
            await self._look_again(snapshot)
            carried = snapshot.secret is not None and account_id == account.id and snapshot.secret.carries(account)
            named = snapshot.secret.named if snapshot.secret is not None else None
            if carried or (named is not None and (named.id == account_id or (by_name and named.name == account.name))):
                raise _InTheSecret("InTheSecret", f"account {account.name} is in its Secret")

        try:
            shown_from = requested_at and requested_at + transitions.CLAIM
            return await self.projects.delete_account(account.access, account_id, ready=ready, shown_from=shown_from)
        except _InTheSecret:
            return False

    async def all_of(
        self,
        item: Publication | Intent,
        ids: Collection[str],
        snapshot: SecretSnapshot,
        *,
        spared: bool = True,
        early: bool = False,
    ) -> bool:
        """Delete what the item's request made. True: all of it is gone.

        `early`: what OpenAI shows now counts, although more may appear that the request has made.
        """
        account, requested_at = item.account, None if early else item.requested_at
        return all(
            [await self.account(account, one, snapshot, requested_at=requested_at, spared=spared) for one in ids]
        )

    async def ids(self, item: Publication | Intent) -> list[str]:
        """Every account that its request made: something on the way may have sent it twice, or lost the answer."""
        account, requested = item.account, item.requested_at
        appeared = item.claimed_until if isinstance(item, Intent) else requested and requested + transitions.CLAIM
        listing = await self.projects.listing(account.access, not_before=appeared)
        if account.id is None:
            asked = requested
            if isinstance(item, Intent):
                # A run whose create was on its way for long has noted so: its claim was made longer.
                asked = max(item.requested_at, item.claimed_until - transitions.CLAIM)
            found = listing.ids_of(account.name)
            timely = [id for id in found if not _made_later(listing, id, asked)]
            # A create that was on its way for hours is ours as well; beside a timely one it is a human's copy.
            return sorted(timely or found)
        twins = [id for id in listing.twins_of(account) if not await self.is_others(account, id, requested)]
        return sorted({*twins, account.id})

    async def is_others(self, account: Account, twin: str, requested_at: datetime | None) -> bool:
        """May this account, which has the name of ours, be somebody else's: made later, or used?

        Raises Unanswered while the lists of this run do not tell.
        """
        listing = await self.projects.listing(account.access)
        if _made_later(listing, twin, requested_at):
            return True
        known = requested_at is not None and requested_at > LONG_AGO
        if account.key_digest is None and (known or _made_together(listing, account.id, twin)):
            # Its run died before it noted which of the two it published: applications may have used either.
            return False
        keys = (await self.projects.account_keys(account.access, fresh=True)).get(twin, ())
        if not keys:
            # The list of keys may be older than the account.
            raise Unanswered("TwinUnknown", f"OpenAI does not show a key of another account named {account.name} yet")
        # Nobody was ever told the key of a twin: whoever uses one has made it.
        uses = [await self.projects.key_last_used(account.access, key.id) for key in keys]
        return any(use is not None for use in uses)

    async def _look_again(self, snapshot: SecretSnapshot) -> None:
        """See to it that the Secret was looked at right before; again, where the look itself took too long."""
        for _ in range(_LOOKS):
            if self.clock.elapsed(snapshot.at) <= SNAPSHOT_FRESH_FOR:
                return
            at = self.clock.instant()
            secret = await self.observer.secret(snapshot.target)
            if _version(secret) != snapshot.version:
                # Whatever was decided was decided about another Secret.
                raise Unanswered(
                    "Changed", f"Secret {snapshot.target} was changed meanwhile: the next run decides anew"
                )
            snapshot.secret = secret
            snapshot.at = at  # only now: a look that failed is none
        if self.clock.elapsed(snapshot.at) > SNAPSHOT_FRESH_FOR:
            raise Unanswered(
                "TooSlow",
                f"nothing is deleted while reading Secret {snapshot.target} takes over {SNAPSHOT_FRESH_FOR:.0f} s",
            )
