"""What users ask for: projects, admin keys, generators, targets. Immutable values, checked when they were read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal

from worker.model.values import Ref, Resource

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
