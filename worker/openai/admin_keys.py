"""The organisation's admin keys, asked for with one of them, within the run's limits.

Guarantees: a create is sent once. No admin key leaves for a host that is not allowed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from worker.errors import ConfigurationError
from worker.model.admin_keys import NamedAdminKey
from worker.model.audited import AdminKeyFacts
from worker.model.hidden import Hidden
from worker.model.hosts import Origin, is_allowed
from worker.model.sightings import NewAdminKey
from worker.model.targets import Project, ProjectAccess
from worker.openai.limiter import Limiter
from worker.ports import OpenAIAdmin

_NO_PROJECT = "(the organisation)"
"""In place of a project's id where the limiter counts requests; it never becomes part of a path."""


@dataclass(frozen=True, slots=True)
class AdminKeysAtOpenAI:
    openai: OpenAIAdmin
    limiter: Limiter
    allowed_hosts: Collection[Origin]

    async def listed(self, named: NamedAdminKey, key: Hidden) -> list[AdminKeyFacts]:
        """Every admin key of the organisation, as this key sees them."""
        access = self._access(named)
        return await self.limiter.ask(access, key, lambda: self.openai.list_admin_keys(named.host, key), kind="read")

    @asynccontextmanager
    async def turn(self, named: NamedAdminKey, key: Hidden) -> AsyncIterator[None]:
        """Wait until a create may be sent. Raises Deferred if this run sends none."""
        async with self.limiter.turn(self._access(named), key, kind="create"):
            yield

    async def create(self, named: NamedAdminKey, key: Hidden, name: str, *, lifetime: timedelta | None) -> NewAdminKey:
        """Make a key, within a turn."""
        return await self.limiter.send(
            self._access(named),
            key,
            lambda: self.openai.create_admin_key(named.host, key, name, lifetime=lifetime),
            kind="create",
        )

    async def delete(
        self, named: NamedAdminKey, key: Hidden, key_id: str, *, ready: Callable[[], Awaitable[None]]
    ) -> None:
        """Delete a key. `ready` runs right before, and raises if it must stay. NotFound: there is no such key."""
        await self.limiter.ask(
            self._access(named),
            key,
            lambda: self.openai.delete_admin_key(named.host, key, key_id),
            kind="delete",
            ready=ready,
        )

    def _access(self, named: NamedAdminKey) -> ProjectAccess:
        if not is_allowed(named.host, self.allowed_hosts):
            message = f"{named.host[:80]!r} may not receive the admin key (any more): see --allow-host"
            raise ConfigurationError("HostNotAllowed", message)
        return ProjectAccess(Project(named.host, _NO_PROJECT), named.ref)
