"""The ledger's knowledge of a target: accounts, publications, intents. Immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, StrEnum

from worker.model.faults import needs_a_human
from worker.model.scopes import Scopes
from worker.model.targets import CleanupPolicy, Project, ProjectAccess
from worker.model.templates import Placed, Rendered
from worker.model.values import Ref, Version


def accounts_of(entry: Entry) -> list[Account]:
    return [p.account for p in entry.history] + [i.account for i in entry.unpublished]


def current(entry: Entry) -> Publication | None:
    """The publication that nothing has superseded."""
    return next((publication for publication in entry.history if publication.superseded_at is None), None)


def is_at_rest(entry: Entry) -> bool:
    """Has it its current account alone? Then there is nothing to retire."""
    return current(entry) is not None and len(entry.history) == 1 and not entry.unpublished


def is_empty(entry: Entry) -> bool:
    return not entry.history and not entry.unpublished


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A ledger object that somebody edited: it does not have the form that the rotator writes."""

    name: str
    message: str


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
    """The Secret's data key that holds the account's key alone; None: unknown, or a template has made the values."""
    scopes: Scopes = ()
    """What its key was asked to be narrowed to; a published key has been. Empty: not narrowed, or adopted."""
    rendered: Rendered | None = None
    """The data values that a template makes of its key; None: the key stands alone, under `data_key`."""

    def values(self) -> Mapping[str, Placed]:
        """What its publication puts into the Secret, by data key, as far as that is known."""
        if self.rendered is not None:
            return self.rendered.values
        return {self.data_key: Placed(0, self.key_digest)} if self.data_key is not None else {}

    def places_of_key(self) -> Mapping[str, int]:
        """By the digest of each value with its key in it: the characters before the key."""
        found = {} if self.key_digest is None else {self.key_digest: 0}
        for placed in self.rendered.values.values() if self.rendered is not None else ():
            if placed.at is not None and placed.digest is not None:
                found[placed.digest] = placed.at
        return found


class HoldKind(Enum):
    """The cause that holds a superseded account. Its text begins with the value, in the ledger and in messages."""

    CONTAINERS = ""
    """Containers carry the key for certain, or did at the last look."""
    FROZEN = "by pods of a Secret that was immutable: "
    """Kubelets give the key to new pods too, as long as an earlier pod is on the node: a restart does not help."""
    POSSIBLE = "possibly "
    """Containers may carry it."""
    UNSEEN = "by somebody unseen: "
    """The key is in use, and we see no pod that uses it."""
    NOT_IDLE = "until it is idle "
    """The generator's policy asks for a key without use for a while."""
    PASSING = "cannot be deleted for the moment: "
    """Something stands in the way that passes by itself."""
    STUCK = "cannot be deleted: "
    """Something stands in the way until a human acts."""


@dataclass(frozen=True, slots=True)
class HoldReason:
    """The reason why a superseded account stays although its grace has passed."""

    kind: HoldKind
    detail: str

    def __str__(self) -> str:
        return self.kind.value + self.detail


@dataclass(frozen=True, slots=True)
class Hold:
    """A superseded account that is held, and since when.

    `event_reason`: the reason of the last Event about it, None where there was none.
    """

    reason: HoldReason
    since: datetime
    event_reason: str | None = None

    @property
    def kind(self) -> HoldKind:
        return self.reason.kind

    @property
    def why(self) -> str:
        """The reason as text."""
        return str(self.reason)


class RestartState(StrEnum):
    """How far the restart of a publication's workloads is. `kubectl get keyrotations -o wide` shows it."""

    DUE = "Due"
    WAITING = "Waiting"
    """It goes on by itself with a later run."""
    BLOCKED = "Blocked"
    """A human has to act first."""
    DONE = "Done"


@dataclass(frozen=True, slots=True)
class Restart:
    """The restart of workloads that an annotation asked for before the account was requested.

    `done`: the workloads that need no restart any more. `at`: when none was left; None: some may be. `why`: what it
    waits for.
    """

    state: RestartState = RestartState.DUE
    done: tuple[str, ...] = ()
    at: datetime | None = None
    why: str = ""
    urgent: bool = False
    """The keys that containers may have are dead already."""


@dataclass(frozen=True, slots=True)
class NodeThen:
    """A node on which pods referred to a Secret when it changed.

    `read_at`: when the newest container started that had it in its environment; None: a volume has it, or a container
    was about to start.
    """

    name: str
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class Look:
    """A run read the Secret and found all as asked. `wish`: a digest of what was asked for then."""

    at: datetime
    wish: str


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
    """No account superseded it: somebody deleted the Secret. Volumes then keep their content."""
    secret_back_at: datetime | None = None
    """The time when a run saw the Secret again, and volumes began to follow it. None: it is still gone."""
    missed_at: datetime | None = None
    """Since then its project shows no account at all, so not this one either."""
    nodes_then: tuple[NodeThen, ...] | None = None
    """The nodes whose pods referred to the Secret when another account took this one's place; None: unknown."""
    immutable: bool = False
    """The Secret was immutable while it had this key: kubelets that saw it give the key to new pods as well."""
    restart: Restart | None = None
    """None: nobody asked for a restart of workloads, or a later account took its place."""
    look: Look | None = None
    """The last one that was noted while it was current; None where every run looks."""

    @property
    def followed_from(self) -> datetime | None:
        """The time from which volumes follow the Secret to another key, unless they stayed behind; None: current."""
        return self.secret_back_at or self.superseded_at

    @property
    def frozen(self) -> bool:
        """May volumes carry its key for as long as they like?"""
        return self.secret_gone and self.secret_back_at is None


@dataclass(frozen=True, slots=True)
class Intent:
    """An account that a run requests or has requested; no run has noted its publication.

    Until `claimed_until` its run may be working on it. `missed_at`: when the first complete list without it began.
    `refused`: its run has noted that it never publishes the key; otherwise a run may have done so, or may yet.
    """

    account: Account
    requested_at: datetime
    claimed_until: datetime
    missed_at: datetime | None = None
    refused: bool = False
    absent_at: datetime | None = None
    """Since then its project shows no account at all."""
    restart: bool = False
    """Once its key is published, workloads are to be restarted."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed attempts since the last publication, and the earliest time of the next one."""

    count: int = 0
    next_attempt_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Healings:
    """Rotations that put a broken Secret right, shortly one after the other; and the time of the last."""

    count: int = 0
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RefusedScopes:
    """Scopes that OpenAI did not give to a key of this project; when, and with which reason and message."""

    scopes: Scopes
    project: Project
    at: datetime
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Throttle:
    """OpenAI wants no request with an admin key until then. `key`: the key's digest, the same in every Secret.

    `times`: how many runs, one after the other, gave up on it.
    """

    host: str
    key: str
    until: datetime
    times: int


@dataclass(frozen=True, slots=True)
class Condition:
    """The `Ready` condition, and `Stalled` beside it."""

    ready: bool
    reason: str
    message: str
    since: datetime
    stalled_since: datetime | None = None
    """Since when it stays as it is until somebody acts; None: it does not."""


@dataclass(frozen=True, slots=True)
class GeneratorNote:
    """The part of a generator that the ledger needs after the generator is gone."""

    name: str = ""
    cleanup: CleanupPolicy = field(default_factory=CleanupPolicy)
    source: str = ""
    """The kind of the object that asked for the target; empty in entries of earlier versions."""


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
    healings: Healings = Healings()
    throttle: Throttle | None = None
    """OpenAI's last answer for this target, if it asked to slow down."""
    admin_key_ends_at: datetime | None = None
    """When the admin key that serves it ends by itself; None: never, or OpenAI does not tell."""
    refused_scopes: RefusedScopes | None = None
    """Asking for them again would cost another account."""
    condition: Condition | None = None
    forgotten: tuple[str, ...] = ()
    """Accounts that a human had it forget, each as a line of text."""
    version: Version | None = None
    base: Entry | bytes | None = field(default=None, compare=False, repr=False)
    """The entry as it was read, for a PATCH: JSON where what is stored has another form than this version gives it.

    None: nothing is stored.
    """

    def claimed_until(self, now: datetime) -> datetime | None:
        """The end of the last claim that still runs."""
        running = [intent.claimed_until for intent in self.unpublished if intent.claimed_until > now]
        return max(running, default=None)

    def with_condition(self, ready: bool, reason: str, message: str, *, now: datetime) -> Entry:
        """The same entry with this condition; its times move only when their status does, as Kubernetes has it."""
        old = self.condition
        since = old.since if old is not None and old.ready == ready else now
        stalled = (old.stalled_since if old is not None else None) or now
        human = not ready and needs_a_human(reason)
        return replace(self, condition=Condition(ready, reason, message, since, stalled if human else None))
