"""One target's entry, Secret and account at OpenAI, read together and in this order: ledger first, then Secret.

Guarantees: an observation's entry is reconciled with its Secret.
The observer writes nothing.
A trouble with OpenAI or the admin key is part of the observation, for a target that is not due needs neither.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from worker.errors import NotFound, RotatorError
from worker.kubernetes.secret import SECRETS, secret_view
from worker.ledger.transitions import catch_up_with_secret
from worker.model.entries import Entry
from worker.model.sightings import SecretView
from worker.model.targets import ProjectAccess, Target
from worker.model.values import Ref
from worker.observe.observation import Observation
from worker.openai.projects import Projects
from worker.ports import Clock, Cluster


@dataclass(frozen=True, slots=True)
class Observer:
    cluster: Cluster
    projects: Projects
    clock: Clock

    async def observe(self, target: Target, entry: Entry) -> Observation:
        """Read the target's Secret and its account at OpenAI. Raises the errors of reading the Secret."""
        secret = await self.secret(target.ref)
        access = target.generator.access
        try:
            await self.projects.admin_key(access.admin_key)
            await self.projects.listing(access)
            name, asked = await self._named_at_openai(entry, secret, access)
        except RotatorError as trouble:
            return Observation(secret, catch_up_with_secret(entry, secret, None, now=self.clock.now()), None, trouble)
        return Observation(secret, catch_up_with_secret(entry, secret, name, now=self.clock.now()), name, asked=asked)

    async def caught_up(self, entry: Entry) -> tuple[Entry, SecretView | None]:
        """The entry, reconciled with its Secret, and the Secret. Raises the errors of reading the Secret."""
        secret = await self.secret(entry.target)
        name = None
        if secret is not None and secret.named is not None:
            intents = [i for i in entry.unpublished if i.account.name == secret.named.name]
            if intents:
                with suppress(RotatorError):  # not confirmed; a delete of the account meets the error again
                    name = await self.projects.account_name(intents[0].account.access, secret.named.id)
        return catch_up_with_secret(entry, secret, name, now=self.clock.now()), secret

    async def secret(self, ref: Ref) -> SecretView | None:
        """The Secret as the stages may see it; None where the API server answers 404 (and nothing else)."""
        try:
            return secret_view((await self.cluster.read(SECRETS, ref)).body)
        except NotFound:
            return None

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
        if project == access.project:
            return await self.projects.account_name(access, named.id), True
        # An annotation does not decide which host receives an admin key.
        if project is None or project.host != access.project.host:
            return None, False
        # A central key sees other tenants' projects, so it serves only projects that ledger or operator name.
        if known is None and access.admin_key.is_central(secret.ref.namespace):
            return None, False
        try:
            elsewhere = known.access if known is not None else ProjectAccess(project, access.admin_key)
            return await self.projects.account_name(elsewhere, named.id), True
        except RotatorError:
            return None, False  # the former project may be out of reach, and the present one is not
