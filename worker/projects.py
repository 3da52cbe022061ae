"""What OpenAI knows about a project, asked at most once a run: the admin key, the list of its accounts.

Guarantees: for one project and one admin key there is one read of the Secret and, unless a later list is demanded, one
list of accounts a run, failures included: a thousand targets with one bad key cost one request. No admin key leaves for
a host that is not allowed, whatever the ledger says.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import TypeVar

from worker.codec import SECRETS
from worker.errors import AdminKeyUnusable, ConfigurationError, NotFound, Refused, RotatorError
from worker.hosts import Origin, is_allowed
from worker.model import AccountKey, AdminKeyRef, Hidden, Listing, ProjectAccess
from worker.ports import Clock, Cluster, OpenAIAdmin

Key = TypeVar("Key")
Value = TypeVar("Value")


class Projects:
    """Admin keys and listings of one run. `fallback` serves accounts whose admin Secret is gone."""

    def __init__(
        self,
        cluster: Cluster,
        openai: OpenAIAdmin,
        clock: Clock,
        allowed_hosts: Collection[Origin],
        fallback: AdminKeyRef | None = None,
    ) -> None:
        self._cluster = cluster
        self._openai = openai
        self._clock = clock
        self._allowed_hosts = allowed_hosts
        self._fallback = fallback
        self._keys: dict[AdminKeyRef, Hidden | RotatorError] = {}
        self._listings: dict[ProjectAccess, Listing | RotatorError] = {}
        self._account_keys: dict[ProjectAccess, Mapping[str, tuple[AccountKey, ...]] | RotatorError] = {}
        self._locks: defaultdict[object, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def admin_key(self, ref: AdminKeyRef) -> Hidden:
        """The admin key as its Secret has it. Raises AdminKeyUnusable, or what reading the Secret raised."""
        return await self._once(ref, self._keys, lambda: self._read_key(ref))

    async def listing(self, access: ProjectAccess, *, not_before: datetime | None = None) -> Listing:
        """The project's accounts, by a list that began at `not_before` or later."""
        async with self._locks[access]:
            known = self._listings.get(access)
            if isinstance(known, Listing) and not_before is not None and known.begun_at < not_before:
                del self._listings[access]
        return await self._once(access, self._listings, lambda: self._list(access))

    def known_listing(self, access: ProjectAccess) -> Listing | None:
        """The list that this run has read, if it has."""
        known = self._listings.get(access)
        return known if isinstance(known, Listing) else None

    async def account_name(self, access: ProjectAccess, account_id: str) -> str | None:
        """The name of an account; None where OpenAI has no such account. A list that lacks it is not taken for it."""
        try:
            listing = await self.listing(access)
            if account_id in listing.accounts:
                return listing.accounts[account_id]
        except Refused as error:
            if await self.archived(access, error):
                return None
            raise
        try:
            return await self._openai.account_name(access.project, await self.retiring_key(access), account_id)
        except NotFound:
            return None

    async def account_keys(self, access: ProjectAccess) -> Mapping[str, tuple[AccountKey, ...]]:
        """The keys of the project's accounts, by account id."""
        return await self._once(access, self._account_keys, lambda: self._list_keys(access))

    async def retiring_key(self, access: ProjectAccess) -> Hidden:
        """The admin key of the project's accounts, or the fallback where its Secret does not exist any more.

        The host is checked here as well: the ledger's may have been allowed once, or edited.
        """
        if not is_allowed(access.project.host, self._allowed_hosts):
            message = f"{access.project.host[:80]!r} may not receive the admin key (any more): see --allow-host"
            raise ConfigurationError("HostNotAllowed", message)
        try:
            return await self.admin_key(access.admin_key)
        except AdminKeyUnusable as error:
            if not error.absent or self._fallback is None:
                raise
            return await self.admin_key(self._fallback)

    async def key_last_used(self, access: ProjectAccess, key_id: str) -> datetime | None:
        """When a key was last used; None: never, as far as OpenAI knows, or the key does not exist any more."""
        try:
            return await self._openai.key_last_used(access.project, await self.retiring_key(access), key_id)
        except NotFound:
            return None

    async def delete_account(self, access: ProjectAccess, account_id: str) -> bool:
        """Delete an account. True: OpenAI confirms that it does not exist (any more) (invariant I4)."""
        key = await self.retiring_key(access)
        try:
            await self._openai.delete_account(access.project, key, account_id)
        except NotFound:
            if account_id not in (await self.listing(access)).accounts:
                return True
            # It was listed earlier in this run: somebody else may have deleted it since.
            return account_id not in (await self.listing(access, not_before=self._clock.now())).accounts
        return True

    async def archived(self, access: ProjectAccess, error: RotatorError) -> bool:
        """Was this refused because the project is archived? "Archived projects have no service accounts" (OpenAI's API
        description of their DELETE), so that is a confirmation as well.
        """
        if not isinstance(error, Refused) or error.status != 400:
            return False
        return await self._openai.project_archived(access.project, await self.retiring_key(access))

    async def _list(self, access: ProjectAccess) -> Listing:
        key = await self.retiring_key(access)
        begun = self._clock.now()
        return Listing.of(begun, await self._openai.list_accounts(access.project, key))

    async def _list_keys(self, access: ProjectAccess) -> Mapping[str, tuple[AccountKey, ...]]:
        found: dict[str, tuple[AccountKey, ...]] = {}
        for key in await self._openai.list_keys(access.project, await self.retiring_key(access)):
            found[key.account_id] = (*found.get(key.account_id, ()), key)
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

    async def _once(
        self, key: Key, cache: dict[Key, Value | RotatorError], fetch: Callable[[], Awaitable[Value]]
    ) -> Value:
        """A lock and a dict, not a shared task: a task would outlive a killed run."""
        async with self._locks[key]:
            if key not in cache:
                try:
                    cache[key] = await fetch()
                except RotatorError as error:
                    cache[key] = error
            found = cache[key]
        if isinstance(found, RotatorError):
            raise found.with_traceback(None)  # it is raised many times: no growing chain of frames
        return found
