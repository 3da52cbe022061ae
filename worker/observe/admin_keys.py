"""The operator's admin keys as the cluster has them: the ledger's entries first, then the Secrets.

Guarantee: nothing is written.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from worker.errors import NotFound, RotatorError
from worker.kubernetes.admin_secret import admin_secret_view, digests_of_others
from worker.kubernetes.secret import SECRETS
from worker.ledger.admin_store import AdminLedger
from worker.model.admin_keys import AdminEntry, AdminSecretView, NamedAdminKey
from worker.model.entries import Unreadable
from worker.ports import Cluster


@dataclass(frozen=True, slots=True)
class SeenAdminKey:
    """One Secret, and what the ledger knows of it. `entry`: None where it has none; an error where it is unreadable.

    `view`: an error where the Secret cannot be read, or holds no admin key.
    """

    named: NamedAdminKey
    entry: AdminEntry | RotatorError | None
    view: AdminSecretView | RotatorError


@dataclass(frozen=True, slots=True)
class AdminKeyObserver:
    cluster: Cluster
    ledger: AdminLedger
    digests: dict[str, set[str]] = field(default_factory=dict)
    """By digest of a value, the Secrets beside the ledger that have it, as last read in this run. A data key that is
    not the named one stands with the Secret's name."""

    async def all_of(self, named: Collection[NamedAdminKey]) -> list[SeenAdminKey]:
        """Each of the Secrets. Where the ledger's part cannot be read, that is the error of every entry."""
        entries: dict[str, AdminEntry | Unreadable] = {}
        trouble: RotatorError | None = None
        try:
            entries = await self.ledger.read_all() if named else {}
        except NotFound:
            message = "the cluster does not know AdminKeyRotation: kubectl apply -k manifests/crds"
            trouble = RotatorError("CRDMissing", message)
        except RotatorError as error:
            trouble = error
        return [SeenAdminKey(one, trouble or _readable(entries.get(one.secret)), await self.look(one)) for one in named]

    async def look(self, named: NamedAdminKey) -> AdminSecretView | RotatorError:
        """The Secret now, or the error."""
        try:
            return await self.view(named)
        except RotatorError as error:
            return error

    async def view(self, named: NamedAdminKey) -> AdminSecretView:
        """The Secret now. Raises RotatorError."""
        place = f"Secret {named.ref.secret}"
        answer = await self.cluster.read(SECRETS, named.ref.secret)
        view = admin_secret_view(answer.body, named.ref.key)
        if view is None:
            raise RotatorError("AdminKeyInvalid", f"{named.ref} is no usable admin key")
        for places in self.digests.values():
            places -= {found for found in places if found.partition(",")[0] == place}
        self.digests.setdefault(view.value.digest(), set()).add(place)
        for data_key, digest in digests_of_others(answer.body, named.ref.key).items():
            self.digests.setdefault(digest, set()).add(f"{place}, data key {data_key!r}")
        return view


def _readable(entry: AdminEntry | Unreadable | None) -> AdminEntry | RotatorError | None:
    if isinstance(entry, Unreadable):
        message = f"AdminKeyRotation {entry.name} was edited: {entry.message}; put it right, or ask for help"
        return RotatorError("LedgerUnreadable", message)
    return entry
