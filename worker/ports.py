"""The Protocols through which the stages see the world. Adapters implement them; the stages know nothing else.

Every method may raise the errors of `worker.errors` and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from worker.model.audited import AdminKeyFacts, AuditEvent, ProjectKey
from worker.model.hidden import Hidden
from worker.model.outcomes import AdminKeyOutcome, Outcome, RestartOutcome, RetireOutcome
from worker.model.scopes import Scopes
from worker.model.sightings import AccountKey, ListedAccount, NewAccount, NewAdminKey
from worker.model.targets import Project
from worker.model.values import JSON, Answer, Ref, Resource, Version

T = TypeVar("T")


class Clock(Protocol):
    """The time of day, and a clock that never jumps (seconds, from an arbitrary start)."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


class Randomness(Protocol):
    """The part of `random.Random` that is used."""

    def choices(self, population: str, *, k: int) -> list[str]: ...

    def random(self) -> float: ...


class Cluster(Protocol):
    """A Kubernetes API server."""

    async def list_all(
        self,
        resource: Resource,
        keep: Callable[[JSON], T],
        *,
        namespace: str | None = None,
        selector: str = "",
        heard: Callable[[datetime, timedelta], None] | None = None,
    ) -> list[T]:
        """Read every page, and return the result of `keep` for each object. NotFound: no such resource type.

        `heard` is told the API server's time with each page, before its objects are kept, and how long the page took.
        """

    async def read(self, resource: Resource, ref: Ref) -> Answer: ...

    async def create(self, resource: Resource, namespace: str, body: JSON, *, dry_run: bool = False) -> Answer:
        """Conflict: it exists already."""

    async def patch(
        self, resource: Resource, ref: Ref, patch: JSON, *, subresource: str = "", dry_run: bool = False
    ) -> Answer:
        """Merge the patch into the object. Conflict: the patch names a resourceVersion that is not current."""

    async def serves(self, resource: Resource, subresource: str = "") -> bool:
        """Does the API server say itself that it has such objects, or this subresource of them?"""

    async def delete(self, resource: Resource, ref: Ref, version: Version) -> None:
        """Delete this very version of the object. Conflict: it has changed."""


class OpenAIAdmin(Protocol):
    """OpenAI's Admin API, and the one question that the worker asks with a new key."""

    async def list_accounts(self, project: Project, admin_key: Hidden) -> dict[str, ListedAccount]:
        """Every account of the project by its id, all pages."""

    async def create_account(
        self, project: Project, admin_key: Hidden, name: str, *, lifetime: timedelta | None
    ) -> NewAccount:
        """Make an account with a key. The adapter sends the request once, whatever the answer is.

        Refused with the reason KeyLifetime: the organisation demands a lifetime, or a shorter one.
        """

    async def read_account(self, project: Project, admin_key: Hidden, account_id: str) -> ListedAccount:
        """NotFound: there is no such account."""

    async def list_keys(self, project: Project, admin_key: Hidden) -> list[AccountKey]:
        """Every key of the project that a service account owns, all pages."""

    async def list_project_keys(self, project: Project, admin_key: Hidden) -> list[ProjectKey]:
        """Every key of the project, whoever owns it, all pages."""

    async def list_admin_keys(self, host: str, admin_key: Hidden) -> list[AdminKeyFacts]:
        """Every admin key of the organisation, all pages. Refused: this one may not list them."""

    async def create_admin_key(
        self, host: str, admin_key: Hidden, name: str, *, lifetime: timedelta | None
    ) -> NewAdminKey:
        """Make an admin key of the organisation. The adapter sends the request once, whatever the answer is."""

    async def delete_admin_key(self, host: str, admin_key: Hidden, key_id: str) -> None:
        """NotFound: there is no such admin key (any more)."""

    async def list_audit_events(
        self, project: Project, admin_key: Hidden, resources: Collection[str], *, since: datetime
    ) -> list[AuditEvent]:
        """What the audit log says of these accounts and keys, all pages. Refused: it is off, or may not be read."""

    async def narrow_key(self, project: Project, admin_key: Hidden, key_id: str, scopes: Scopes) -> None:
        """Restrict a key to these scopes; a repetition changes nothing. NotFound: there is no such key (yet).

        Refused with the reason ScopesRefused: OpenAI does not know such a scope, or does not give it.
        """

    async def key_scopes(self, project: Project, admin_key: Hidden, key_id: str) -> Scopes | None:
        """The scopes of a key; None: OpenAI does not tell them. NotFound: there is no such key (yet)."""

    async def key_last_used(self, project: Project, admin_key: Hidden, key_id: str) -> datetime | None:
        """None: never used. NotFound: there is no such key."""

    async def delete_account(self, project: Project, admin_key: Hidden, account_id: str) -> None:
        """NotFound: there is no such account (any more)."""

    async def project_archived(self, project: Project, admin_key: Hidden) -> bool:
        """Has the project been archived? Archived projects have no accounts."""

    async def key_accepted(self, host: str, key: Hidden) -> bool:
        """Does OpenAI accept this key already? OpenAI may refuse a new key for a while."""


class Watcher(Protocol):
    """Hears of each event at once: the log, or the progress on a terminal."""

    def found(self, targets: int, unused: Collection[Ref]) -> None: ...

    def served(self, outcome: Outcome) -> None: ...

    def waiting(self, targets: int, until: datetime) -> None: ...

    def retired(self, retired: RetireOutcome) -> None: ...

    def restarted(self, restarted: RestartOutcome) -> None: ...

    def admin_key(self, outcome: AdminKeyOutcome) -> None: ...

    def not_announced(self, target: Ref, problem: str) -> None: ...
