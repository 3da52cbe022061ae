"""A run's knowledge of each project, asked at most once: the admin key, the list of its accounts.

Guarantees:
- For one project and one admin key a run reads the Secret once.
- It lists the accounts once, unless a caller demands a later list; their keys once, unless a delete hangs on them.
- A failure counts as well: a thousand targets with one bad key cost one request.
- No admin key leaves for a host that is not allowed, whatever the ledger says.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
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
from worker.kubernetes.reading import version_of
from worker.kubernetes.secret import SECRETS
from worker.model.audited import AdminKeyFacts, AuditEvent, ProjectKey
from worker.model.entries import Account
from worker.model.hidden import Hidden
from worker.model.hosts import Origin, has_origin, is_allowed
from worker.model.sightings import AccountKey, ListedAccount, Listing
from worker.model.targets import AdminKeyRef, Project, ProjectAccess
from worker.model.values import Ref
from worker.openai.limiter import Kind, Limiter
from worker.ports import Cluster, OpenAIAdmin
from worker.runtime.clocks import Instant, RunClock
from worker.runtime.slots import Slots, Turns

Key = TypeVar("Key")
Value = TypeVar("Value")

KEYS_FRESH_FOR = 60.0
"""Seconds for which a list of keys decides a delete. Somebody may make a second key at any moment, and use it."""


@dataclass(frozen=True, slots=True)
class _ListedKeys:
    """The keys of a project by account, and when their list began."""

    begun: Instant
    by_account: Mapping[str, tuple[AccountKey, ...]]

    def owner(self, key_id: str) -> str | None:
        return next((id for id, keys in self.by_account.items() if key_id in {key.id for key in keys}), None)


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
        clock: RunClock,
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
        self._recorded = recorded if recorded is not None else {}  # the ledger fills it while it is read
        self._secret_uids: dict[Ref, str] = {}
        self._keys: dict[AdminKeyRef, Hidden | RotatorError] = {}
        self._listings: dict[ProjectAccess, Listing | RotatorError] = {}
        self._account_keys: dict[ProjectAccess, _ListedKeys | RotatorError] = {}
        self._admin_key_facts: dict[tuple[str, str], AdminKeyFacts | RotatorError | None] = {}
        self._listing_keys: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reading: defaultdict[AdminKeyRef, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._turns: defaultdict[ProjectAccess, Turns] = defaultdict(Turns)

    async def admin_key(self, ref: AdminKeyRef) -> Hidden:
        """The admin key as its Secret has it. Raises AdminKeyUnusable, or the error of reading the Secret."""
        async with self._reading[ref]:
            return await _cached(ref, self._keys, lambda: self._read_key(ref))

    def secrets_with(self, digest: str) -> set[Ref]:
        """The Secrets from which this run has read an admin key of this digest."""
        return {ref.secret for ref, key in self._keys.items() if isinstance(key, Hidden) and key.digest() == digest}

    def secret_uid(self, ref: AdminKeyRef) -> str:
        """The uid of the Secret that the admin key was read from; empty if it was not read."""
        return self._secret_uids.get(ref.secret, "")

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

    async def account_keys(self, access: ProjectAccess, *, fresh: bool = False) -> Mapping[str, tuple[AccountKey, ...]]:
        """The keys of the project's accounts, by account id; `fresh`: by a list of the last KEYS_FRESH_FOR seconds."""
        async with self._slots.in_turn(self._turns[access]):
            known = self._account_keys.get(access)
            if fresh and isinstance(known, _ListedKeys) and self._clock.elapsed(known.begun) > KEYS_FRESH_FOR:
                del self._account_keys[access]
            return (await _cached(access, self._account_keys, lambda: self._list_keys(access))).by_account

    async def own_key(self, access: ProjectAccess) -> Hidden:
        """The admin key of the project's accounts. Raises ConfigurationError if its host may not receive it."""
        # The ledger's host may have lost its permission, or somebody may have edited it.
        if not is_allowed(access.project.host, self._allowed_hosts):
            message = f"{access.project.host[:80]!r} may not receive the admin key (any more): see --allow-host"
            raise ConfigurationError("HostNotAllowed", message)
        return await self.admin_key(access.admin_key)

    async def retiring_key(self, access: ProjectAccess) -> Hidden:
        """The admin key of the project's accounts, or the fallback if its Secret does not exist any more."""
        try:
            return await self.own_key(access)
        except AdminKeyUnusable as error:
            usable = access.fallback and self._is_fallbacks(access.project.host)
            if not error.absent or self._fallback is None or not usable:
                raise
            return await self.admin_key(self._fallback)

    def _is_fallbacks(self, host: str) -> bool:
        """May the fallback key go there? A tenant's gateway may be an allowed host, and must not get it."""
        return is_allowed(host, ()) if self._fallback_host is None else has_origin(host, self._fallback_host)

    async def project_keys(self, access: ProjectAccess) -> list[ProjectKey]:
        """Every key of the project, whoever owns it."""
        return await self._ask(access, lambda key: self._openai.list_project_keys(access.project, key))

    async def audit_events(
        self, access: ProjectAccess, resources: Collection[str], *, since: datetime
    ) -> list[AuditEvent]:
        """What the organisation's audit log says of these accounts and keys of the project."""
        return await self._ask(
            access, lambda key: self._openai.list_audit_events(access.project, key, resources, since=since)
        )

    async def admin_key_facts(self, access: ProjectAccess) -> AdminKeyFacts | None:
        """What OpenAI says of the admin key itself, asked once for all Secrets that hold it.

        None: the list shows no key with both ends of its value, or several. Refused: it may not list the admin keys.
        """
        key, host = await self.own_key(access), access.project.host
        place = (host, key.digest())

        async def find() -> AdminKeyFacts | None:
            listed = await self._limiter.ask(access, key, lambda: self._openai.list_admin_keys(host, key), kind="read")
            found = [facts for facts in listed if key.fits(facts.redacted)]
            return found[0] if len(found) == 1 else None

        async with self._listing_keys[place]:
            return await _cached(place, self._admin_key_facts, find)

    async def key_exists(self, access: ProjectAccess, key_id: str) -> bool:
        """Does the key exist? A list without it proves nothing."""
        try:
            await self._ask(access, lambda key: self._openai.key_last_used(access.project, key, key_id))
        except NotFound:
            return False
        return True

    async def narrow_key(self, account: Account) -> bool:
        """Restrict the account's key to the scopes that the ledger names for it, and read it back.

        False: OpenAI tells other scopes than were asked for. A repetition changes nothing, so an unknown fate is no
        matter. Raises Refused (ScopesRefused) where OpenAI refuses a scope.
        """
        access, key_id, scopes = account.access, account.key_id or "", account.scopes
        await self._ask(access, lambda key: self._openai.narrow_key(access.project, key, key_id, scopes), kind="narrow")
        shown = await self._ask(access, lambda key: self._openai.key_scopes(access.project, key, key_id), kind="narrow")
        # OpenAI documents no scopes in its answers. Where it tells none, its 2xx for the change has to do.
        return shown is None or shown == scopes

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
            owner = await self._owner(access, key_id)
            if owner is not None and await self._exists(access, owner):
                # "Never used" would let an account go that somebody uses.
                problem = "OpenAI lists a key of the account and denies that it exists"
                raise Unintelligible("OpenAIUnintelligible", problem) from None
            return None

    async def _owner(self, access: ProjectAccess, key_id: str) -> str | None:
        """The account that has this key by a list: by this run's, or by a new one, for the key may be younger."""
        known = self._account_keys.get(access)
        owner = known.owner(key_id) if isinstance(known, _ListedKeys) else None
        if owner is not None:
            return owner
        # It may show a key that somebody has made meanwhile: whoever decides later in this run goes by it too.
        newer = self._account_keys[access] = await self._list_keys(access)
        return newer.owner(key_id)

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
            # A list of this run has it: somebody else may have deleted it since, or this very request, sent twice.
            # The client repeats a DELETE whose connection ended without an answer.
            # Later than now: a list of this very moment may have begun before the delete.
            after = self._clock.now() + timedelta.resolution
            return account_id not in (await self.listing(access, not_before=after)).accounts
        return True

    async def archived(self, access: ProjectAccess, error: RotatorError) -> bool:
        """Did OpenAI refuse this because the project is archived?"""
        # "Archived projects have no service accounts" (OpenAI's API description of their DELETE).
        # So an archived project confirms the absence of the account, too.
        if not isinstance(error, Refused) or error.status != 400:
            return False
        return await self._ask(access, lambda key: self._openai.project_archived(access.project, key))

    async def missing(self, access: ProjectAccess) -> bool:
        """Does OpenAI say, asked for its accounts and asked for itself, that there is no such project?"""
        try:
            await self.listing(access)
        except NotFound:
            pass
        except NotShown:
            return False  # it has answered
        except Refused as error:
            if await self.archived(access, error):
                return False
            raise
        else:
            return False
        try:
            await self._ask(access, lambda key: self._openai.project_archived(access.project, key))
        except NotFound:
            return True
        return False

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

    async def _ask(
        self, access: ProjectAccess, call: Callable[[Hidden], Awaitable[Value]], *, kind: Kind = "read"
    ) -> Value:
        """Make a request of this kind, if the limiter allows it."""
        key = await self.retiring_key(access)
        return await self._limiter.ask(access, key, lambda: call(key), kind=kind)

    async def _list_keys(self, access: ProjectAccess) -> _ListedKeys:
        async def begin(key: Hidden) -> _ListedKeys:
            begun = self._clock.instant()
            found: dict[str, tuple[AccountKey, ...]] = {}
            for found_key in await self._openai.list_keys(access.project, key):
                found[found_key.account_id] = (*found.get(found_key.account_id, ()), found_key)
            return _ListedKeys(begun, found)

        return await self._ask(access, begin)

    async def _read_key(self, ref: AdminKeyRef) -> Hidden:
        try:
            answer = await self._cluster.read(SECRETS, ref.secret)
        except NotFound:
            raise AdminKeyUnusable(f"Secret {ref.secret} with the admin key does not exist", absent=True) from None
        self._secret_uids[ref.secret] = version_of(answer.body).uid
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
