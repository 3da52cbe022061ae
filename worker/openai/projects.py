"""A run's knowledge of each project, asked at most once: the admin key, the list of its accounts.

Guarantees:
- For one project and one admin key a run reads the Secret once.
- It lists the accounts once, unless a caller demands a later list.
- A failure counts as well: a thousand targets with one bad key cost one request.
- No admin key leaves for a host that is not allowed, whatever the ledger says.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import TypeVar

from worker.errors import (
    AdminKeyUnusable,
    ConfigurationError,
    Deferred,
    NotFound,
    NotShown,
    Refused,
    RotatorError,
    Unintelligible,
)
from worker.kubernetes.secret import SECRETS
from worker.model.hidden import Hidden
from worker.model.hosts import Origin, has_origin, is_allowed
from worker.model.sightings import AccountKey, ListedAccount, Listing
from worker.model.targets import AdminKeyRef, Project, ProjectAccess
from worker.openai.limiter import Limiter
from worker.ports import Clock, Cluster, OpenAIAdmin
from worker.runtime.slots import Slots, Turns

Key = TypeVar("Key")
Value = TypeVar("Value")


class Projects:
    """Admin keys and listings of one run.

    `fallback` serves accounts whose admin Secret is gone, at `fallback_host` alone (None: OpenAI's own hosts).
    `recorded`: by project, names of accounts that the ledger records; a list without any of them is not believed.
    """

    def __init__(
        self,
        cluster: Cluster,
        openai: OpenAIAdmin,
        limiter: Limiter,
        *,
        slots: Slots,
        clock: Clock,
        allowed_hosts: Collection[Origin],
        fallback: AdminKeyRef | None = None,
        fallback_host: Origin | None = None,
        recorded: Mapping[Project, Collection[str]] | None = None,
    ) -> None:
        self._cluster = cluster
        self._openai = openai
        self._limiter = limiter
        self._slots = slots
        self._clock = clock
        self._allowed_hosts = allowed_hosts
        self._fallback = fallback
        self._fallback_host = fallback_host
        self._recorded = recorded or {}
        self._keys: dict[AdminKeyRef, Hidden | RotatorError] = {}
        self._listings: dict[ProjectAccess, Listing | RotatorError] = {}
        self._account_keys: dict[ProjectAccess, Mapping[str, tuple[AccountKey, ...]] | RotatorError] = {}
        self._reading: defaultdict[AdminKeyRef, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._turns: defaultdict[ProjectAccess, Turns] = defaultdict(Turns)

    async def admin_key(self, ref: AdminKeyRef) -> Hidden:
        """The admin key as its Secret has it. Raises AdminKeyUnusable, or the error of reading the Secret."""
        async with self._reading[ref]:
            return await _cached(ref, self._keys, lambda: self._read_key(ref))

    async def listing(self, access: ProjectAccess, *, not_before: datetime | None = None) -> Listing:
        """The project's accounts, by a list that began at `not_before` or later."""
        if access in self._listings and not self._outdated(access, not_before):
            return _found(self._listings[access])
        async with self._slots.in_turn(self._turns[access]):
            if self._outdated(access, not_before):
                del self._listings[access]
            return await _cached(access, self._listings, lambda: self._list(access))

    def _outdated(self, access: ProjectAccess, not_before: datetime | None) -> bool:
        known = self._listings.get(access)
        return isinstance(known, Listing) and not_before is not None and known.begun_at < not_before

    def known_listing(self, access: ProjectAccess) -> Listing | None:
        """The list that this run has read, if it has."""
        known = self._listings.get(access)
        return known if isinstance(known, Listing) else None

    async def account(self, access: ProjectAccess, account_id: str) -> ListedAccount | None:
        """An account; None if OpenAI has no such account. A list without it proves nothing."""
        try:
            listing = await self.listing(access)
            if account_id in listing.accounts:
                return listing.accounts[account_id]
        except Refused as error:
            if await self.archived(access, error):
                return None
            raise
        try:
            return await self._ask(access, lambda key: self._openai.read_account(access.project, key, account_id))
        except NotFound:
            return None

    async def account_keys(self, access: ProjectAccess) -> Mapping[str, tuple[AccountKey, ...]]:
        """The keys of the project's accounts, by account id."""
        async with self._slots.in_turn(self._turns[access]):
            return await _cached(access, self._account_keys, lambda: self._list_keys(access))

    async def retiring_key(self, access: ProjectAccess) -> Hidden:
        """The admin key of the project's accounts, or the fallback if its Secret does not exist any more."""
        # The ledger's host may have lost its permission, or somebody may have edited it.
        if not is_allowed(access.project.host, self._allowed_hosts):
            message = f"{access.project.host[:80]!r} may not receive the admin key (any more): see --allow-host"
            raise ConfigurationError("HostNotAllowed", message)
        try:
            return await self.admin_key(access.admin_key)
        except AdminKeyUnusable as error:
            usable = access.fallback and self._is_fallbacks(access.project.host)
            if not error.absent or self._fallback is None or not usable:
                raise
            return await self.admin_key(self._fallback)

    def _is_fallbacks(self, host: str) -> bool:
        """May the fallback key go there? A tenant's gateway may be an allowed host, and must not get it."""
        return is_allowed(host, ()) if self._fallback_host is None else has_origin(host, self._fallback_host)

    async def key_exists(self, access: ProjectAccess, key_id: str) -> bool:
        """Does the key exist? A list without it proves nothing."""
        try:
            await self._ask(access, lambda key: self._openai.key_last_used(access.project, key, key_id))
        except NotFound:
            return False
        return True

    async def key_accepted(self, project: Project, value: Hidden) -> bool:
        """Does OpenAI accept this key, which was made there?"""
        return await self._openai.key_accepted(project.host, value)

    async def key_last_used(self, access: ProjectAccess, key_id: str) -> datetime | None:
        """The last use of a key; None: OpenAI knows of no use, or the key does not exist any more.

        Raises Deferred if this run makes no more deletes, Unintelligible if a list of this run has the key and OpenAI
        denies it.
        """
        # A delete follows this request: without the delete the answer is of no use.
        self._limiter.check(access, await self.retiring_key(access), kind="delete")
        try:
            used = await self._ask(access, lambda key: self._openai.key_last_used(access.project, key, key_id))
            return used and min(used, self._clock.now())
        except NotFound:
            listed = self._account_keys.get(access)
            keys = listed.values() if listed is not None and not isinstance(listed, RotatorError) else ()
            owner = next((key.account_id for found in keys for key in found if key.id == key_id), None)
            if owner is not None and await self._exists(access, owner):
                # "Never used" would let an account go that somebody uses.
                problem = "OpenAI lists a key of the account and denies that it exists"
                raise Unintelligible("OpenAIUnintelligible", problem) from None
            return None

    async def _exists(self, access: ProjectAccess, account_id: str) -> bool:
        """Is the account there now, whatever a list of this run says? Another run may have deleted it since."""
        try:
            await self._ask(access, lambda key: self._openai.read_account(access.project, key, account_id))
        except NotFound:
            return False
        return True

    async def delete_account(
        self,
        access: ProjectAccess,
        account_id: str,
        *,
        ready: Callable[[], Awaitable[None]],
        shown_from: datetime | None = None,
    ) -> bool:
        """Delete an account. True: OpenAI confirms that it does not exist (any more) (invariant I4).

        `ready` runs right before the delete, and raises if the account must stay.
        `shown_from`: the latest time at which lists begin to show the account; an earlier list confirms nothing.
        """
        key = await self.retiring_key(access)
        try:
            await self._limiter.ask(
                access,
                key,
                lambda: self._openai.delete_account(access.project, key, account_id),
                kind="delete",
                ready=ready,
            )
        except NotFound:
            if shown_from is not None and shown_from > self._clock.now():
                return False
            if account_id not in (await self.listing(access, not_before=shown_from)).accounts:
                return True
            # A list of this run has it: somebody else may have deleted it since.
            return account_id not in (await self.listing(access, not_before=self._clock.now())).accounts
        return True

    async def archived(self, access: ProjectAccess, error: RotatorError) -> bool:
        """Did OpenAI refuse this because the project is archived?"""
        # "Archived projects have no service accounts" (OpenAI's API description of their DELETE).
        # So an archived project confirms the absence of the account, too.
        if not isinstance(error, Refused) or error.status != 400:
            return False
        return await self._ask(access, lambda key: self._openai.project_archived(access.project, key))

    async def _list(self, access: ProjectAccess) -> Listing:
        async def begin(key: Hidden) -> Listing:
            begun = self._clock.now()
            accounts = await self._openai.list_accounts(access.project, key)
            recorded = self._recorded.get(access.project, ())
            shown = {account.name for account in accounts.values()}
            if len(recorded) > 1 and shown.isdisjoint(recorded):
                message = (
                    f"project {access.project} shows none of the accounts that the ledger records for it: nothing is "
                    "made or forgotten on the strength of that, unless their keys are refused as well"
                )
                raise NotShown("OpenAIProjectEmpty", message)
            return Listing.of(begun, accounts)

        return await self._ask(access, begin)

    async def _ask(self, access: ProjectAccess, call: Callable[[Hidden], Awaitable[Value]]) -> Value:
        """Make a read, if the limiter allows it."""
        key = await self.retiring_key(access)
        return await self._limiter.ask(access, key, lambda: call(key), kind="read")

    async def _list_keys(self, access: ProjectAccess) -> Mapping[str, tuple[AccountKey, ...]]:
        found: dict[str, tuple[AccountKey, ...]] = {}
        for found_key in await self._ask(access, lambda key: self._openai.list_keys(access.project, key)):
            found[found_key.account_id] = (*found.get(found_key.account_id, ()), found_key)
        return found

    async def _read_key(self, ref: AdminKeyRef) -> Hidden:
        try:
            answer = await self._cluster.read(SECRETS, ref.secret)
        except NotFound:
            raise AdminKeyUnusable(f"Secret {ref.secret} with the admin key does not exist", absent=True) from None
        stored = (answer.body.get("data") or {}).get(ref.key)
        if stored is None:
            raise AdminKeyUnusable(f"Secret {ref.secret} has no key {ref.key!r} (openAiAdminKey.key)")
        try:
            value = base64.b64decode(stored, validate=True).decode("ascii").strip()
        except (binascii.Error, UnicodeDecodeError, TypeError):
            raise AdminKeyUnusable(f"{ref} has characters that are not ASCII: it is not an admin key") from None
        if not value or not value.isprintable() or " " in value:
            raise AdminKeyUnusable(f"{ref} is empty, or has blanks or line breaks inside: it is not an admin key")
        return Hidden(value)


async def _cached(key: Key, cache: dict[Key, Value | RotatorError], fetch: Callable[[], Awaitable[Value]]) -> Value:
    """The cached result, fetched at the first call. The caller holds a lock."""
    # No shared task: it would outlive a killed run.
    if key not in cache:
        try:
            cache[key] = await fetch()
        except Deferred:
            raise  # the limiter decides when the run may ask again
        except RotatorError as error:
            cache[key] = error
    return _found(cache[key])


def _found(found: Value | RotatorError) -> Value:
    if isinstance(found, RotatorError):
        raise found.with_traceback(None)  # many callers raise it: no growing chain of frames
    return found
