"""One target's entry, Secret, account and key at OpenAI, read together and in this order: ledger first, then Secret.

Guarantees:
- An observation's entry is reconciled with its Secret.
- Nothing is written.
- A Secret of ours counts as gone only where the API server would make it anew.
- A trouble with OpenAI or the admin key is part of the observation: a target that is not due does not need them.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from worker.errors import (
    EXISTS,
    Conflict,
    Forbidden,
    NotFound,
    NotShown,
    Refused,
    RotatorError,
    Throttled,
    Unanswered,
    Unintelligible,
)
from worker.kubernetes.secret import SECRETS, placeholder, secret_value, secret_view
from worker.ledger.account_keys import is_own, widened, with_keys
from worker.ledger.catch_up import catch_up_with_secret
from worker.model.entries import Account, Entry, Publication, current
from worker.model.hidden import Hidden
from worker.model.sightings import AccountKey, ListedAccount, SecretView
from worker.model.targets import ProjectAccess, Target
from worker.model.values import Ref
from worker.observe.observation import Observation
from worker.openai.projects import Projects
from worker.ports import Clock, Cluster

YOUNG = timedelta(minutes=3)
"""A key is not looked at before it is so old."""
SHOWN_WITHIN = timedelta(minutes=10)
"""OpenAI shows a key so long after it was made, at the latest. Until then a 404 alone proves nothing."""


@dataclass(frozen=True, slots=True)
class Observer:
    cluster: Cluster
    projects: Projects
    clock: Clock

    async def observe(self, target: Target, entry: Entry) -> Observation:
        """Read the target's Secret and its account at OpenAI. Raises the errors of reading the Secret."""
        secret = await self.secret(target.ref, known=bool(entry.history or entry.unpublished))
        return await self._at_openai(target, entry, secret)

    async def observe_presuming(self, target: Target, entry: Entry, secret: SecretView) -> Observation:
        """Read the target's account at OpenAI, for a Secret that is presumed to be so (`worker.plan.looking`)."""
        return replace(await self._at_openai(target, entry, secret), presumed=True)

    async def _at_openai(self, target: Target, entry: Entry, secret: SecretView | None) -> Observation:
        access = target.generator.access
        try:
            await self.projects.admin_key(access.admin_key)
            await self.projects.listing(access)
            name, asked = await self._named_at_openai(entry, secret, access)
        except NotShown as trouble:
            return await self._not_shown(entry, secret, trouble)
        except RotatorError as trouble:
            return self._observation(entry, secret, trouble=trouble)
        seen = self._observation(entry, secret, name=name, asked=asked)
        if asked and name is None and _names_current(seen.entry, secret):
            message = "OpenAI does not show the account that the Secret names"
            return await self._not_shown(entry, secret, NotShown("AccountNotShown", message))
        if _noted_by_name(entry, seen.entry) and await self._key_refused(seen.entry, secret):
            # The run that published it died before it noted the key's digest, and somebody has changed the data since.
            return replace(seen, key_problem="is not in the Secret: OpenAI refuses the one that is")
        return await self._with_keys(seen, access)

    async def caught_up(self, entry: Entry) -> tuple[Entry, SecretView | None]:
        """The entry, reconciled with its Secret, and the Secret. Raises the errors of reading the Secret."""
        secret = await self.secret(entry.target, known=bool(entry.history or entry.unpublished))
        name = None
        if secret is not None and secret.named is not None:
            intents = [i for i in entry.unpublished if i.account.name == secret.named.name]
            if intents:
                with suppress(RotatorError):  # not confirmed; a delete of the account meets the error again
                    access = intents[0].account.access
                    found = await self.projects.account(access, secret.named.id)
                    name = await self._name_of(found, entry, secret, access=access)
        return catch_up_with_secret(entry, secret, name, now=self.clock.now()), secret

    async def secret(self, ref: Ref, *, known: bool = True) -> SecretView | None:
        """The Secret as the stages may see it; None if there is none.

        `known`: the ledger has accounts for it. Raises Unanswered (SecretHidden) if it can be neither read nor made.
        """
        try:
            return secret_view((await self.cluster.read(SECRETS, ref)).body)
        except NotFound:
            if known:
                await self._confirm_absence(ref)
            return None

    async def _confirm_absence(self, ref: Ref) -> None:
        """Ask for the Secret to be made, without effect: something before the API server may hide it from reads."""
        try:
            await self.cluster.create(SECRETS, ref.namespace, placeholder(ref), dry_run=True)
        except Conflict as error:
            if error.reason != EXISTS:
                raise Unanswered(error.reason, f"whether Secret {ref} is gone is not known: {error.message}") from None
            message = f"Secret {ref} cannot be read and exists all the same: something hides it from the worker"
            raise Unanswered("SecretHidden", message) from None
        except Refused as error:
            if not error.own or isinstance(error, Throttled):
                raise Unanswered(error.reason, f"whether Secret {ref} is gone is not known: {error.message}") from None
            # A policy or a quota refuses it, or the namespace goes: the API server's word on the read has to do.
            return

    async def _not_shown(self, entry: Entry, secret: SecretView | None, trouble: NotShown) -> Observation:
        """An account is missing at OpenAI: gone if its key, which is in the Secret, is refused as well.

        Without a Secret there is nobody whose key could be dead: a new one may be made.
        """
        gone = secret is None or await self._key_refused(entry, secret)
        return self._observation(entry, secret, trouble=None if gone else trouble)

    def _observation(
        self,
        entry: Entry,
        secret: SecretView | None,
        *,
        name: str | None = None,
        asked: bool = True,
        trouble: RotatorError | None = None,
    ) -> Observation:
        now = self.clock.now()
        return Observation(secret, catch_up_with_secret(entry, secret, name, now=now), name, trouble, asked, at=now)

    # --- the account

    async def _named_at_openai(
        self, entry: Entry, secret: SecretView | None, access: ProjectAccess
    ) -> tuple[str | None, bool]:
        """The name of the account whose id the Secret names, and whether OpenAI could be asked about it.

        The observer looks up a recorded account in the project that the ledger names. It looks up an unrecorded one
        with the target's own admin key, at the target's own host.
        """
        if secret is None or secret.named is None:
            return None, True
        named = secret.named
        accounts = [p.account for p in entry.history] + [i.account for i in entry.unpublished]
        known = next((account for account in accounts if account.name == named.name), None)
        project = known.access.project if known is not None else named.project
        central = access.admin_key.is_central(secret.ref.namespace)
        if project == access.project:
            found = await self.projects.account(access, named.id)
            return await self._name_of(found, entry, secret, access=access), True
        # An annotation does not decide which host receives an admin key.
        if project is None or project.host != access.project.host:
            return None, False
        # A central key sees other tenants' projects, so it serves only projects that ledger or operator name.
        if known is None and central:
            return None, False
        try:
            elsewhere = known.access if known is not None else ProjectAccess(project, access.admin_key)
            found = await self.projects.account(elsewhere, named.id)
        except RotatorError:
            return None, False  # the former project may be out of reach, and the present one is not
        return await self._name_of(found, entry, secret, access=elsewhere), True

    async def _name_of(
        self, found: ListedAccount | None, entry: Entry, secret: SecretView, *, access: ProjectAccess
    ) -> str | None:
        """What counts as the name of the account that the annotation names: OpenAI's, or that of the intent it is of.

        Somebody may have renamed the account at OpenAI since a run died. The annotation's id may be forged as well: so
        the Secret must hold the very key that OpenAI lists for the account, and OpenAI must accept it.
        """
        named = secret.named
        if (
            found is None
            or named is None
            or found.name == named.name
            or access.admin_key.is_central(entry.target.namespace)
        ):
            # With a central key, which sees others' accounts, only OpenAI's name counts.
            return found.name if found is not None else None
        intent = next((i for i in entry.unpublished if i.account.name == named.name and not i.refused), None)
        if intent is None or (await self.projects.listing(access)).ids_of(named.name):
            return found.name
        keys = (await self.projects.account_keys(access)).get(named.id, ())
        key = next((key for key in keys if key.id == named.key_id and key.tail), None)
        value = await self._key_of_intent(secret, intent.account)
        if key is None or value is None or not value.ends_with(key.tail):
            return found.name
        return named.name if await self.projects.key_accepted(access.project, value) else found.name

    async def _key_of_intent(self, secret: SecretView, account: Account) -> Hidden | None:
        """The key where the account's run has put it, by the annotation that named the account."""
        named = secret.named
        if account.rendered is None:
            return await self._value(secret, account.data_key or (named.data_key if named is not None else "") or "")
        if named is None or named.key_digest is None:
            return None
        for data_key, at in account.rendered.key_places().items():
            text = await self._value(secret, data_key)
            key = text.part(at, named.key_digest) if text is not None else None
            if key is not None:
                return key
        return None

    async def has_within(self, secret: SecretView, account: Account) -> bool:
        """Is the account's key in one of the Secret's texts still, whatever somebody has made of the rest?"""
        digest = account.key_digest
        if account.rendered is None or digest is None:
            return False
        body = (await self.cluster.read(SECRETS, secret.ref)).body
        texts = [secret_value(body, data_key) for data_key in secret.filled]
        return any(text is not None and text.contains(digest) for text in texts)

    async def _value(self, secret: SecretView, data_key: str) -> Hidden | None:
        return secret_value((await self.cluster.read(SECRETS, secret.ref)).body, data_key)

    # --- the key

    async def _with_keys(self, seen: Observation, access: ProjectAccess) -> Observation:
        """With what OpenAI says of the current account's key; unchanged where it may not be asked about keys."""
        publication = current(seen.entry)
        if (
            publication is None
            or publication.account.id is None
            or publication.account.access.project != access.project
        ):
            return seen
        age = self.clock.now() - (publication.requested_at or publication.at)
        if age < YOUNG:
            # Lists may not show so young a key yet, and OpenAI accepted it right before it was published.
            return seen
        try:
            listed = await self.projects.account_keys(access)
            keys = listed.get(publication.account.id, ())
            entry = with_keys(seen.entry, publication.account.id, keys)
            known = current(entry) or publication
            problem = await self._key_problem(known, keys, seen, access)
        except (Forbidden, Unintelligible) as error:
            # An admin key may lack that right, or one key in the list may be odd: then this key is asked for alone.
            return await self._with_one_key(seen, publication.account, access, error)
        except RotatorError as error:
            return replace(seen, blind=error)
        if problem is not None and age < SHOWN_WITHIN and not await self._key_refused(seen.entry, seen.secret):
            problem = None
        return replace(seen, entry=entry, key_problem=problem, widened=widened(entry, access.project, listed))

    async def _with_one_key(
        self, seen: Observation, account: Account, access: ProjectAccess, error: RotatorError
    ) -> Observation:
        """What OpenAI says of the key by its id. Not seeing keys stops no rotation; it is told."""
        try:
            if account.key_id is None or await self.projects.key_exists(access, account.key_id):
                return seen
        except RotatorError:
            return replace(seen, blind=error)
        if not await self._key_refused(seen.entry, seen.secret):
            # One answer alone, and the key works, or nobody knows: a replica that is behind may have given it.
            return replace(seen, blind=error)
        return replace(seen, key_problem="does not exist at OpenAI any more")

    async def _key_problem(
        self, publication: Publication, keys: Collection[AccountKey], seen: Observation, access: ProjectAccess
    ) -> str | None:
        """Why the account's key cannot be used; None if it can, or nobody knows."""
        gone, account = "does not exist at OpenAI any more", publication.account
        if account.key_id is None:
            # Adopted without its id. Where no key was made with the account, the Secret's own confirms that it is gone.
            lost = not any(is_own(key, publication) for key in keys)
            return gone if lost and await self._key_refused(seen.entry, seen.secret) else None
        key = next((key for key in keys if key.id == account.key_id), None)
        if key is not None:
            return None if key.active else "is disabled at OpenAI"
        return None if await self.projects.key_exists(access, account.key_id) else gone

    async def _current_key(self, secret: SecretView, account: Account) -> Hidden | None:
        """The account's key, from wherever the Secret has it; None: it has changed since, or nobody knows the key."""
        place, digest = secret.place_of_key(account), account.key_digest
        text = await self._value(secret, place[0]) if place is not None else None
        return text.part(place[1], digest) if text is not None and place is not None and digest is not None else None

    async def _key_refused(self, entry: Entry, secret: SecretView | None) -> bool:
        """Does OpenAI refuse the key that is in the Secret, and that the ledger knows as the current account's?"""
        publication = current(entry)
        if publication is None or secret is None or not secret.carries(publication.account):
            return False
        try:
            value = await self._current_key(secret, publication.account)
            if value is None:
                return False
            return not await self.projects.key_accepted(publication.account.access.project, value)
        except (Unanswered, Refused):
            return False  # nobody knows


def _names_current(entry: Entry, secret: SecretView | None) -> bool:
    """Does the Secret name and carry the account that the ledger takes for current? Then its key can be tried."""
    publication = current(entry)
    if publication is None or secret is None or secret.named is None:
        return False
    return secret.named.id == publication.account.id and secret.carries(publication.account)


def _noted_by_name(before: Entry, after: Entry) -> bool:
    """Has the annotation alone, just now, told which account is current and what its key's digest is?"""
    publication = current(after)
    if publication is None or publication.account.key_digest is None:
        return False
    name = publication.account.name
    return any(intent.account.name == name and intent.account.key_digest is None for intent in before.unpublished)
