"""What exists at OpenAI, next to what the ledger records: one line for each key. Pure.

Guarantees: every listed account and key has a line, and every recorded account has one.
A run records an account before it makes it. So the ledger of before and after the lists together has all of ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from worker.ledger.account_keys import is_own
from worker.model.audited import KeyOwner, ProjectKey
from worker.model.entries import Entry, Intent, Publication, accounts_of
from worker.model.sightings import AccountKey, ListedAccount, Listing
from worker.model.targets import AdminKeyRef, CleanupPolicy, Generator, Project, ProjectAccess
from worker.model.values import Ref
from worker.settings.central_keys import ANY, CentralKeys

_SETTLED = timedelta(minutes=10)
"""A list shows an account so long after it was asked for, at the latest."""


class Standing(StrEnum):
    """How an account, or a key without an account, stands to the ledger."""

    CURRENT = "current"
    SUPERSEDED = "superseded"
    UNPUBLISHED = "unpublished"
    GONE = "gone"
    """Recorded, and not at OpenAI."""
    RESEMBLING = "unrecorded, named like ours"
    UNRECORDED = "unrecorded"
    USERS = "a user's"
    """A key that a person owns, and no service account."""


RECORDED = frozenset({Standing.CURRENT, Standing.SUPERSEDED, Standing.UNPUBLISHED, Standing.GONE})


@dataclass(frozen=True, slots=True)
class Record:
    """An account in the ledger. `scopes`: those that were asked for; None: the ledger does not say."""

    target: Ref
    item: Publication | Intent
    cleanup: CleanupPolicy
    scopes: tuple[str, ...] | None = None

    @property
    def standing(self) -> Standing:
        if isinstance(self.item, Intent):
            return Standing.UNPUBLISHED
        return Standing.CURRENT if self.item.superseded_at is None else Standing.SUPERSEDED

    @property
    def requested_at(self) -> datetime:
        if isinstance(self.item, Intent):
            return self.item.requested_at
        return self.item.requested_at or self.item.at


@dataclass(frozen=True, slots=True)
class Line:
    """One key, or an account without any. `own`: the key was made with its account, by the worker."""

    project: Project
    standing: Standing
    account_id: str = ""
    account_name: str = ""
    created_at: datetime | None = None
    key: ProjectKey | None = None
    own: bool = False
    record: Record | None = None
    listed: bool = True
    """OpenAI has the account."""

    @property
    def target(self) -> Ref | None:
        return self.record.target if self.record is not None else None

    @property
    def held(self) -> str:
        item = self.record.item if self.record is not None else None
        return item.held.why if isinstance(item, Publication) and item.held is not None else ""

    @property
    def begun_at(self) -> datetime | None:
        """When the key was made, or else its account."""
        if self.key is not None and self.key.created_at is not None:
            return self.key.created_at
        return self.created_at or (self.record.requested_at if self.record is not None else None)


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    """What OpenAI lists of a project. `access`: how it was asked."""

    access: ProjectAccess
    listing: Listing
    keys: tuple[ProjectKey, ...]


@dataclass(frozen=True, slots=True)
class Records:
    """The ledger, by project: accounts by id, and those without an id by name."""

    by_id: Mapping[tuple[Project, str], Record]
    by_name: Mapping[tuple[Project, str], Record]
    of_project: Mapping[Project, tuple[Record, ...]]
    """Those that the ledger has now, and had before OpenAI was asked."""

    @classmethod
    def of(cls, before: Iterable[Entry], after: Iterable[Entry]) -> Records:
        early, late = list(_records(before)), list(_records(after))
        by_id: dict[tuple[Project, str], Record] = {}
        by_name: dict[tuple[Project, str], Record] = {}
        for record in (*early, *late):
            account = record.item.account
            by_name[account.access.project, account.name] = record
            if account.id is not None:
                by_id[account.access.project, account.id] = record
        known = {(record.item.account.access.project, record.item.account.name) for record in early}
        lasting: defaultdict[Project, list[Record]] = defaultdict(list)
        for record in late:
            account = record.item.account
            if (account.access.project, account.name) in known:
                lasting[account.access.project].append(record)
        return cls(by_id, by_name, {project: tuple(found) for project, found in lasting.items()})

    def find(self, project: Project, account_id: str, name: str) -> Record | None:
        """The record of a listed account. A name alone counts for an account whose id nobody has noted yet."""
        found = self.by_id.get((project, account_id))
        if found is not None:
            return found
        named = self.by_name.get((project, name))
        return named if named is not None and named.item.account.id is None else None


def accesses(
    generators: Iterable[Generator], grants: CentralKeys, entries: Iterable[Entry], namespaces: Collection[str]
) -> dict[Project, tuple[ProjectAccess, ...]]:
    """The projects that somebody names, each with the admin keys that were named for it, and no others.

    `namespaces`: those that the audit is about; none: all.
    """
    found: defaultdict[Project, set[AdminKeyRef]] = defaultdict(set)
    for generator in generators:
        found[generator.access.project].add(generator.access.admin_key)
    for (project, namespace), key in grants.granted.items():
        if not namespaces or namespace == ANY or namespace in namespaces:
            found[project].add(key)
    for entry in entries:
        if not namespaces or entry.target.namespace in namespaces:
            for account in accounts_of(entry):
                found[account.access.project].add(account.access.admin_key)
    # The fallback admin key is for what the ledger records, and a list shows all of a project.
    return {
        project: tuple(ProjectAccess(project, key, fallback=False) for key in sorted(keys))
        for project, keys in sorted(found.items())
    }


@dataclass(slots=True)
class Forms:
    """The forms of the names that generators give their accounts, each form once."""

    _by_project: defaultdict[Project, dict[tuple[str, int], Generator]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    @classmethod
    def of(cls, generators: Iterable[Generator]) -> Forms:
        forms = cls()
        for generator in generators:
            form = (generator.name_prefix, generator.name_size)
            forms._by_project[generator.access.project].setdefault(form, generator)
        return forms

    def fits(self, project: Project, name: str) -> bool:
        return any(generator.gives(name) for generator in self._by_project.get(project, {}).values())


def lines_of(facts: ProjectFacts, records: Records, forms: Forms, *, now: datetime) -> Iterator[Line]:
    """The lines of one project: its accounts by name, then the keys of people, then what is recorded and not there."""
    project = facts.access.project
    keys: defaultdict[str, list[ProjectKey]] = defaultdict(list)
    others: list[ProjectKey] = []
    for key in facts.keys:
        if key.owner is KeyOwner.ACCOUNT and key.owner_id in facts.listing.accounts:
            keys[key.owner_id].append(key)
        else:
            others.append(key)
    shown: set[str] = set()
    for id, account in sorted(facts.listing.accounts.items(), key=lambda item: (item[1].name, item[0])):
        record = records.find(project, id, account.name)
        if record is not None:
            shown.add(record.item.account.name)
        yield from _account_lines(project, id, account, keys.get(id, ()), record=record, forms=forms)
    for key in others:
        standing = Standing.USERS if key.owner is KeyOwner.USER else Standing.UNRECORDED
        record = records.find(project, key.owner_id, key.owner_name) if key.owner is KeyOwner.ACCOUNT else None
        standing = record.standing if record is not None else standing
        shown |= {record.item.account.name} if record is not None else set()
        yield Line(project, standing, key.owner_id, key.owner_name, None, key, _is_own(key, record), record)
    for record in records.of_project.get(project, ()):
        account_of = record.item.account
        if account_of.name in shown:
            continue
        # A list may not show an account yet that is minutes old, and an intent may never have made one.
        missing = isinstance(record.item, Publication) and record.requested_at + _SETTLED < now
        standing = Standing.GONE if missing else record.standing
        yield Line(project, standing, account_of.id or "", account_of.name, record=record, listed=False)


def _account_lines(
    project: Project,
    id: str,
    account: ListedAccount,
    keys: Collection[ProjectKey],
    *,
    record: Record | None,
    forms: Forms,
) -> Iterator[Line]:
    if record is not None:
        standing = record.standing
    else:
        standing = Standing.RESEMBLING if forms.fits(project, account.name) else Standing.UNRECORDED
    whole = False
    for key in keys:
        own = _is_own(key, record)
        whole = whole or own
        yield Line(project, standing, id, account.name, account.created_at, key, own, record)
    # Of a current account somebody may have deleted our key and made another.
    if not keys or (standing is Standing.CURRENT and not whole):
        yield Line(project, standing, id, account.name, account.created_at, None, False, record)


def _is_own(key: ProjectKey, record: Record | None) -> bool:
    """Is it the key that the worker made with the account? Of an intent's account the ledger knows no key yet."""
    if record is None:
        return False
    item = record.item
    if item.account.key_id is not None or key.created_at is None or isinstance(item, Intent):
        return item.account.key_id in (None, key.id)
    return is_own(AccountKey(key.id, key.owner_id, key.created_at), item)


def _records(entries: Iterable[Entry]) -> Iterator[Record]:
    for entry in entries:
        items: tuple[Publication | Intent, ...] = (*entry.history, *entry.unpublished)
        for item in items:
            yield Record(entry.target, item, entry.generator.cleanup, item.account.scopes or None)
