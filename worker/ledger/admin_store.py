"""The ledger's part about the operator's own admin keys: one AdminKeyRotation per Secret, beside the Secret.

An object of a kind of its own: no earlier version of the worker takes it for a target that nothing asks for.
Guarantees: every write is conditional on the version that was read. No write is sent that changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from worker.errors import ConfigurationError, Conflict, NotFound
from worker.kubernetes.reading import Malformed
from worker.ledger.admin_codec import (
    ADMIN_KEY_ROTATIONS,
    admin_entry_object,
    admin_entry_patch,
    decode_admin_entry,
)
from worker.ledger.conditional import conditional
from worker.model.admin_keys import AdminEntry
from worker.model.entries import Unreadable
from worker.model.values import JSON, Answer, Ref
from worker.ports import Clock, Cluster

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class AdminLedger:
    """`uid` is that of the ledger's namespace."""

    cluster: Cluster
    clock: Clock
    namespace: str
    uid: str

    async def read_all(self) -> dict[str, AdminEntry | Unreadable]:
        """Every entry by its Secret's name. Raises NotFound where the cluster does not know the kind."""

        def keep(obj: JSON) -> tuple[str, AdminEntry | Unreadable]:
            name = obj["metadata"]["name"]
            try:
                entry = decode_admin_entry(obj, self.clock.now())
            except Malformed as error:
                return name, Unreadable(name, str(error))
            return name, entry if entry.secret == name else Unreadable(name, "its name is not the one of its Secret")

        return dict(await self.cluster.list_all(ADMIN_KEY_ROTATIONS, keep, namespace=self.namespace))

    async def read(self, secret: str) -> AdminEntry | None:
        """One entry as it is now; None where there is none. Raises ConfigurationError where it is unreadable."""
        try:
            answer = await self.cluster.read(ADMIN_KEY_ROTATIONS, Ref(self.namespace, secret))
        except NotFound:
            return None
        return self._decoded(answer)

    async def save(self, entry: AdminEntry) -> AdminEntry:
        """Store an entry. Raises Conflict where it has changed since it was read, or was created meanwhile."""
        if entry.version is None:
            body = {
                "apiVersion": ADMIN_KEY_ROTATIONS.api_version,
                "kind": "AdminKeyRotation",
                "metadata": {"name": entry.secret, "namespace": self.namespace},
                **admin_entry_object(entry),
            }
            return self._decoded(await self.cluster.create(ADMIN_KEY_ROTATIONS, self.namespace, body))
        patch = admin_entry_patch(entry)
        if not patch:
            return entry
        ref = Ref(self.namespace, entry.secret)
        answer = await self.cluster.patch(ADMIN_KEY_ROTATIONS, ref, conditional(patch, entry.version))
        return self._decoded(answer)

    async def update(self, entry: AdminEntry, change: Callable[[AdminEntry], AdminEntry]) -> AdminEntry:
        """Store the result of `change` on the entry, or on its present version where it has changed meanwhile.

        `update` recreates an object that somebody deleted: the keys that it recorded still exist.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self.save(change(entry))
            except (Conflict, NotFound):
                entry = await self.read(entry.secret) or replace(entry, version=None, stored=b"{}")
        return await self.save(change(entry))

    async def delete(self, entry: AdminEntry) -> None:
        """Remove an entry, if it is still as it was read (raises Conflict otherwise)."""
        if entry.version is not None:
            await self.cluster.delete(ADMIN_KEY_ROTATIONS, Ref(self.namespace, entry.secret), entry.version)

    def _decoded(self, answer: Answer) -> AdminEntry:
        try:
            return decode_admin_entry(answer.body, self.clock.now())
        except Malformed as error:
            name = answer.body.get("metadata", {}).get("name")
            message = f"AdminKeyRotation {name!r} was edited: {error}"
            raise ConfigurationError("LedgerUnreadable", message) from None
