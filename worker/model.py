"""The nouns of the rotator: immutable values without behaviour that does I/O or asks for the time.

Guarantees: values cannot be changed after they were made; a secret value is always a `Hidden`, which no log, format
string, repr, traceback or pickle can show.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, NoReturn

PREFIX = "openai-key-rotator.io/"
"""Prefix of every label and annotation that is ours."""

ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
"""What an id must look like before it becomes part of a path (yarl would normalise `..`)."""

JSON = dict[str, Any]
"""A JSON object as the API server sends it: unchecked until the codec or discovery has read it."""


class Hidden:
    """A secret value. `reveal` is called in the places that put it into a request, nowhere else."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def digest(self) -> str:
        """64 bits that tell one key from another and nothing of either: keys are random and far longer."""
        return hashlib.sha256(self._value.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return "Hidden(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a hidden value cannot be pickled or copied")


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """A namespaced object of a kind that the context tells."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A Kubernetes resource type, as its URL names it."""

    group: str
    version: str
    plural: str

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, slots=True)
class Answer:
    """An object from the API server, the server's time when it answered (header `Date`; one second fine), and the bytes
    that it took.
    """

    body: JSON
    at: datetime | None = None
    length: int = 0


# --- what users ask for ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Project:
    """An OpenAI project. `host` is the Admin API's base URL without a trailing slash."""

    host: str
    id: str

    def __str__(self) -> str:
        return f"{self.id} at {self.host}"


@dataclass(frozen=True, slots=True, order=True)
class AdminKeyRef:
    """Where an admin key is kept: a key of a Secret."""

    secret: Ref
    key: str

    def is_central(self, namespace: str) -> bool:
        """For targets of that namespace: is it the operator's, which sees more than this tenant may?"""
        return self.secret.namespace != namespace

    def __str__(self) -> str:
        return f"key {self.key!r} of Secret {self.secret}"


@dataclass(frozen=True, slots=True, order=True)
class ProjectAccess:
    """A project seen through one admin key: what a list of accounts is asked for."""

    project: Project
    admin_key: AdminKeyRef


class CleanupKind(StrEnum):
    RETAIN_LATEST = "retainLatest"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class CleanupPolicy:
    """How superseded accounts go; the defaults are those of the generator's CRD."""

    kind: CleanupKind = CleanupKind.RETAIN_LATEST
    grace: timedelta = timedelta(minutes=2)
    idle: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Generator:
    """An `OpenAI` object that was found to be well formed."""

    ref: Ref
    uid: str
    access: ProjectAccess
    name_prefix: str
    name_size: int
    cleanup: CleanupPolicy


class CreationPolicy(StrEnum):
    """Who makes the target Secret, and whether it goes with its source (ExternalSecret `target.creationPolicy`)."""

    OWNER = "Owner"
    ORPHAN = "Orphan"
    MERGE = "Merge"
    CREATE_OR_MERGE = "CreateOrMerge"


class RefreshPolicy(StrEnum):
    PERIODIC = "Periodic"
    ON_CHANGE = "OnChange"
    CREATED_ONCE = "CreatedOnce"


@dataclass(frozen=True, slots=True)
class Source:
    """The object that asked for a target: an ExternalSecret, or a generator that stands alone; for an Event about one
    that nothing asks for any more, the Secret.
    """

    resource: Resource
    kind: Literal["ExternalSecret", "OpenAI", "Secret"]
    ref: Ref
    uid: str
    generation: int = 0
    metadata_hash: str = ""
    status: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.kind} {self.ref}"


@dataclass(frozen=True, slots=True)
class Target:
    """One Secret that a generator feeds, with all that was asked of it."""

    ref: Ref
    source: Source
    generator: Generator
    data_key: str
    interval: timedelta | None
    """None: rotated once, then only for a reason other than time."""
    refresh: RefreshPolicy
    creation: CreationPolicy
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    suspended: bool = False
    requests: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Values of the annotations that force one rotation each, by what carries them."""
    key_lifetime: timedelta | None = None

    @property
    def central(self) -> bool:
        return self.generator.access.admin_key.is_central(self.ref.namespace)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A source that cannot be served as it is written. `secret` is None where it does not even tell its Secret."""

    secret: Ref | None
    source: Source
    reason: str
    message: str

    @property
    def subject(self) -> Ref:
        """What is reported on: the Secret, or where that is not known its source."""
        return self.secret or self.source.ref


# --- what exists -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """A service account of ours. Its id is None until OpenAI has told it."""

    name: str
    access: ProjectAccess
    id: str | None = None
    key_id: str | None = None
    expires_at: datetime | None = None
    key_digest: str | None = None
    """Tells whether a Secret carries this account's key, whatever the Secret's annotation says."""
    data_key: str | None = None
    """Under which of the Secret's data keys its key is written."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a superseded account was not deleted although its grace has passed, and since when that is so.

    `told`: the reason of the last Event about it, None where there was none.
    """

    why: str
    since: datetime
    told: str | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """An account whose key is or was in the target Secret; superseded when another took its place.

    `requested_at`: no container that started before can carry its key.
    """

    account: Account
    at: datetime
    superseded_at: datetime | None = None
    requested_at: datetime | None = None
    held: Hold | None = None
    secret_gone: bool = False
    """It was superseded by nothing: the Secret was deleted. Volumes then keep what they have."""
    secret_back_at: datetime | None = None
    """After that: when the Secret was seen again, and volumes began to follow it. None: it is still gone."""

    @property
    def followed_from(self) -> datetime | None:
        """Since when volumes have followed the Secret to another key, unless they were left behind; None: current."""
        return self.secret_back_at or self.superseded_at

    @property
    def frozen(self) -> bool:
        """May volumes carry its key for as long as they like?"""
        return self.secret_gone and self.secret_back_at is None


@dataclass(frozen=True, slots=True)
class Intent:
    """An account that was asked for, or is about to be, and of which nobody has noted that it was published.

    Until `claimed_until` its run may be working on it. `missed_at`: when the first complete list without it began.
    `refused`: its run has noted that its key is never published; otherwise it may have been, or may yet be.
    """

    account: Account
    requested_at: datetime
    claimed_until: datetime
    missed_at: datetime | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed attempts since the last publication, and when the next may be made."""

    count: int = 0
    next_attempt_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Throttle:
    """OpenAI asked for nothing more with an admin key until then. `key`: its digest, the same in whatever Secret it is.

    `times`: how many runs, one after the other, gave up on it.
    """

    host: str
    key: str
    until: datetime
    times: int


@dataclass(frozen=True, slots=True)
class Condition:
    """The `Ready` condition."""

    ready: bool
    reason: str
    message: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """Which stored object an entry was read from: what a PATCH or DELETE of it is conditional on."""

    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class GeneratorNote:
    """What is still needed of a generator once it is gone."""

    name: str = ""
    cleanup: CleanupPolicy = CleanupPolicy()


@dataclass(frozen=True, slots=True)
class Entry:
    """All that the ledger knows about one target. `version` is None while it is not stored yet."""

    target: Ref
    ledger: str
    generator: GeneratorNote = GeneratorNote()
    history: tuple[Publication, ...] = ()
    unpublished: tuple[Intent, ...] = ()
    since: datetime | None = None
    last_rotated_at: datetime | None = None
    next_rotation_at: datetime | None = None
    honoured: Mapping[str, str] = field(default_factory=dict, hash=False)
    failures: Failures = Failures()
    throttle: Throttle | None = None
    """What OpenAI said when it was last asked for this target, if it asked to slow down."""
    condition: Condition | None = None
    version: Version | None = None
    stored: bytes = field(default=b"{}", compare=False, repr=False)
    """`spec` and `status` as they were read: what a PATCH is made against. JSON takes a third of what objects take."""

    def claimed_until(self, now: datetime) -> datetime | None:
        """The end of the last claim that still runs."""
        running = [intent.claimed_until for intent in self.unpublished if intent.claimed_until > now]
        return max(running, default=None)

    def with_condition(self, ready: bool, reason: str, message: str, now: datetime) -> Entry:
        """The same entry with this condition; its time moves only when its status does, as Kubernetes has it."""
        old = self.condition
        since = old.since if old is not None and old.ready == ready else now
        return replace(self, condition=Condition(ready, reason, message, since))


@dataclass(frozen=True, slots=True)
class NamedAccount:
    """What a Secret's annotation claims. Evidence to compare with the ledger, never a reason to delete."""

    id: str
    name: str
    key_id: str | None
    project: Project | None
    target: str
    ledger: str
    data_key: str | None = None
    expires_at: datetime | None = None
    published_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SecretView:
    """A Secret without its values. `filled` names the data keys that hold something."""

    ref: Ref
    version: Version
    type: str
    immutable: bool
    filled: frozenset[str]
    labels: Mapping[str, str] = field(hash=False)
    annotations: Mapping[str, str] = field(hash=False)
    owners: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    """Its ownerReferences, as they are."""
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Of each data value, as `Hidden.digest` makes it."""
    named: NamedAccount | None = None
    """The account that the annotation names; None where it is absent or unreadable."""

    def carries(self, account: Account) -> bool:
        """Is the account's key one of the values, as far as its digest is known?"""
        return account.key_digest is not None and account.key_digest in self.digests.values()


@dataclass(frozen=True, slots=True)
class Listing:
    """A complete list of a project's accounts: id to name. `begun_at`: when its first page was asked for."""

    begun_at: datetime
    accounts: Mapping[str, str] = field(hash=False)
    ids: Mapping[str, tuple[str, ...]] = field(hash=False)
    """The same by name; a name may stand for several accounts."""

    @classmethod
    def of(cls, begun_at: datetime, accounts: Mapping[str, str]) -> Listing:
        ids: dict[str, tuple[str, ...]] = {}
        for id, name in sorted(accounts.items()):
            ids[name] = (*ids.get(name, ()), id)
        return cls(begun_at, accounts, ids)

    def ids_of(self, name: str) -> tuple[str, ...]:
        return self.ids.get(name, ())


@dataclass(frozen=True, slots=True)
class AccountKey:
    """An API key of a service account, as OpenAI lists it: without its value."""

    id: str
    account_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Consumer:
    """A container that lives and reads a Secret. `started_at` is None while it is about to start.

    `follows`: it sees the Secret through a volume, which belongs to its pod, starts with it (`started_at` is the pod's)
    and is kept up to date by the kubelet; otherwise it keeps what was in the Secret at its start, or, where it had a
    volume to read from, at any time until `read_until`. `mounted`: what it keeps is from a volume.
    """

    secret: str
    name: str
    started_at: datetime | None
    follows: bool
    mounted: bool = False
    read_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewAccount:
    """OpenAI's answer to a create. `expires_at`: when the key ends by itself; None: not, or OpenAI does not say."""

    id: str
    key_id: str
    value: Hidden
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new account and the only copy of its key outside OpenAI."""

    account: Account
    value: Hidden


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is the same for all targets of a run."""

    started_at: datetime
    ledger: str
    force: bool = False
    dry_run: bool = False


# --- what came of it ---------------------------------------------------------------------------------------------


class Result(StrEnum):
    ROTATED = "rotated"
    KEPT = "kept"
    BLOCKED = "blocked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did for one target, why, and what happens next. Feeds conditions, Events, log, table, exit code."""

    target: Ref
    result: Result
    reason: str
    message: str
    next_at: datetime | None = None
    account: str | None = None
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the users of a target are warned of, by an Event."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Retired:
    """What became of a target's accounts that are not current.

    `result` is KEPT where nothing stood in the way, whether or not something was deleted.
    """

    target: Ref
    result: Result = Result.KEPT
    reason: str = ""
    message: str = ""
    deleted: tuple[str, ...] = ()
    waiting: int = 0
    """Accounts that stay for now: their grace or claim runs, or somebody uses their key."""
    next_at: datetime | None = None
    held: tuple[str, ...] = ()
    """In words: which of them stay although their grace has passed, and why."""
    notices: tuple[Notice, ...] = ()
