"""Users' requests: projects, admin keys, generators, targets. Immutable values; discovery has checked them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal

from worker.model.scopes import Scopes
from worker.model.templates import KEY_ALONE, Pieces, Template
from worker.model.values import Ref, Resource
from worker.model.workloads import RestartWish

# --- users' requests ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Project:
    """An OpenAI project. `host` is the Admin API's base URL without a trailing slash."""

    host: str
    id: str

    def __str__(self) -> str:
        return f"{self.id} at {self.host}"


@dataclass(frozen=True, slots=True, order=True)
class AdminKeyRef:
    """The place of an admin key: a key of a Secret."""

    secret: Ref
    key: str

    def is_central(self, namespace: str) -> bool:
        """For targets of that namespace: is it the operator's key, which sees more than this tenant may?"""
        return self.secret.namespace != namespace

    def __str__(self) -> str:
        return f"key {self.key!r} of Secret {self.secret}"


@dataclass(frozen=True, slots=True, order=True)
class ProjectAccess:
    """A project seen through one admin key: the subject of a list of accounts.

    `fallback`: the fallback admin key may serve in its place. Not for accounts that a tenant's word alone has recorded.
    """

    project: Project
    admin_key: AdminKeyRef
    fallback: bool = True


class CleanupKind(StrEnum):
    RETAIN_LATEST = "retainLatest"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class CleanupPolicy:
    """The rule by which superseded accounts go; the defaults are those of the generator's CRD."""

    kind: CleanupKind = CleanupKind.RETAIN_LATEST
    grace: timedelta = timedelta(minutes=2)
    idle: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Generator:
    """A well-formed `OpenAI` object."""

    ref: Ref
    uid: str
    access: ProjectAccess
    name_prefix: str
    name_size: int
    cleanup: CleanupPolicy

    def gives(self, name: str) -> bool:
        """Has the name the form that this generator gives its accounts: its prefix, and a random part of its length?"""
        prefix = f"{self.name_prefix}_" if self.name_prefix else ""
        return re.fullmatch(re.escape(prefix) + f"[A-Za-z0-9_-]{{{self.name_size}}}", name) is not None


class CreationPolicy(StrEnum):
    """The maker of the target Secret, and whether it goes with its source (ExternalSecret `target.creationPolicy`)."""

    OWNER = "Owner"
    ORPHAN = "Orphan"
    MERGE = "Merge"
    CREATE_OR_MERGE = "CreateOrMerge"


class MergePolicy(StrEnum):
    """Whether a template's data takes the generated data's place (ExternalSecret `target.template.mergePolicy`)."""

    REPLACE = "Replace"
    MERGE = "Merge"


class RefreshPolicy(StrEnum):
    PERIODIC = "Periodic"
    ON_CHANGE = "OnChange"
    CREATED_ONCE = "CreatedOnce"


@dataclass(frozen=True, slots=True)
class Source:
    """The object that asked for a target: an ExternalSecret, or a generator that stands alone.

    For an Event about a target that nothing asks for any more, it is the Secret.
    """

    resource: Resource
    kind: Literal["ExternalSecret", "OpenAI", "Secret"]
    ref: Ref
    uid: str
    generation: int = 0
    metadata_hash: str = ""
    status: Mapping[str, Any] = field(default_factory=dict, hash=False)
    on_change: bool = False
    """An ExternalSecret that is refreshed when it changes (`refreshPolicy: OnChange`)."""

    def __str__(self) -> str:
        return f"{self.kind} {self.ref}"


@dataclass(frozen=True, slots=True)
class Target:
    """One Secret that a generator feeds, with all the user's wishes for it."""

    ref: Ref
    source: Source
    generator: Generator
    data_key: str
    interval: timedelta | None
    """None: the worker rotates once, then only for a reason other than time."""
    refresh: RefreshPolicy
    creation: CreationPolicy
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    suspended: bool = False
    requests: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Values of the annotations that force one rotation each, by their carrier."""
    key_lifetime: timedelta | None = None
    key_scopes: Scopes = ()
    """What its key may do; empty: everything."""
    restart: RestartWish | None = None
    template: Template | None = None
    """None: the Secret gets the key alone, under `data_key`. A template names the key by that name."""

    @property
    def values(self) -> Mapping[str, Pieces]:
        """The data values that the Secret gets, by data key."""
        return self.template.values if self.template is not None else {self.data_key: KEY_ALONE}

    @property
    def central(self) -> bool:
        return self.generator.access.admin_key.is_central(self.ref.namespace)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A source that the worker cannot serve as it is written. `secret` is None if the source names no valid Secret."""

    secret: Ref | None
    source: Source
    reason: str
    message: str
    suspended: bool = False
    """An annotation suspends it, or its value is none that is known."""

    @property
    def subject(self) -> Ref:
        """The subject of reports: the Secret, or its source if the Secret is unknown."""
        return self.secret or self.source.ref
