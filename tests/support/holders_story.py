"""One target's history as it happens to the model's Secret, and as runs write it into the ledger's entry.

The runs use the worker's own code: `transitions` for the entry, `consumers_of` for the pods, `decide_retirement` for
the verdicts. A run looks at a key that was put back before anything else happens: unseen, it is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto

from tests.support.builders import RUN, account, empty_entry, named, secret_view, target
from tests.support.holders_model import OTHER, SECRET, Pod, Secret, at
from worker.kubernetes.pod import consumers_of
from worker.ledger.catch_up import catch_up_with_secret
from worker.ledger.holds import with_reasons
from worker.ledger.transitions import CLAIM, intended, presumed, published
from worker.model.entries import Account, Entry, HoldReason, Publication
from worker.model.sightings import Consumer, Node, SecretView
from worker.model.targets import CleanupKind, CleanupPolicy
from worker.plan.holders import nodes_then
from worker.plan.retirement import (
    Delete,
    Held,
    RetirePolicy,
    Usage,
    Wait,
    decide_retirement,
    ended_claims,
    may_yet_publish,
)

IDLE = 3600
RETAIN = CleanupPolicy(CleanupKind.RETAIN_LATEST, timedelta(minutes=2), timedelta(seconds=IDLE))
DAY = timedelta(hours=24)


class Do(Enum):
    """What happens to the Secret, and to the ledger's entry for it."""

    ROTATE = auto()
    DIE_AFTER_PUBLISHING = auto()
    DIE_BEFORE_PUBLISHING = auto()
    LOOK = auto()
    """A run that has nothing to rotate."""
    DELETE = auto()
    PUT_BACK = auto()


ROTATING = (Do.ROTATE, Do.DIE_AFTER_PUBLISHING, Do.DIE_BEFORE_PUBLISHING)


@dataclass(frozen=True)
class Step:
    do: Do
    after: int
    """Seconds after the step before."""
    took: int = 5
    """Seconds from the request for an account to its publication."""
    which: int = 0
    """Which of the older keys is put back."""


@dataclass(frozen=True)
class Verdict:
    """What a run decided about one superseded account."""

    now: int
    publication: Publication
    entry: Entry
    last_used: int | None
    decision: Delete | Wait | Held

    @property
    def key(self) -> str:
        return self.publication.account.name


@dataclass
class Story:
    """One target's history: the Secret as it is, and the entry that runs write by what they see."""

    pods: list[Pod]
    cleanup: CleanupPolicy = RETAIN
    late: int = 0
    blind: bool = False
    """The worker may not read nodes."""
    secret: Secret = field(default_factory=Secret, init=False)
    entry: Entry = field(default_factory=empty_entry, init=False)
    now: int = field(default=0, init=False)
    unseen: bool = field(default=False, init=False)
    """A key was put back and no run has looked since."""

    def tell(self, steps: list[Step]) -> Iterator[Verdict]:
        """All verdicts of all runs."""
        for number, step in enumerate(steps):
            self.now += step.after
            if self.unseen or step.do not in (Do.DELETE, Do.PUT_BACK):
                yield from self.run(step, f"a{number}")
            carried = self.secret.read(self.now)
            if step.do is Do.DELETE and carried is not None:
                self.secret.changes.append((self.now, None))
            if step.do is Do.PUT_BACK and self.entry.history:
                put_back = self.entry.history[step.which % len(self.entry.history)].account.name
                self.secret.changes.append((self.now, put_back))
                self.unseen = True

    def run(self, step: Step, name: str) -> Iterator[Verdict]:
        """One run: correct the entry by the Secret, rotate, correct again, and retire."""
        self.look()
        if self.entry.claimed_until(at(self.now)) is None and step.do in ROTATING:
            new, requested = account(name, id=None, key_id=None, data_key="api_key"), at(self.now)
            self.entry = intended(
                self.entry, target(), new, run=RUN, requested_at=requested, claimed_until=requested + CLAIM
            )
            self.now += step.took
            if step.do is not Do.DIE_BEFORE_PUBLISHING:
                self.secret.changes.append((self.now, name))
            if step.do is not Do.ROTATE:
                return
            then = nodes_then(self.consumers())
            self.entry = published(self.entry, ours(name), requested, at=at(self.now), nodes_then=then)
        self.look()
        yield from self.retire()

    def look(self) -> None:
        self.unseen = False
        carried = self.secret.read(self.now)
        self.entry = catch_up_with_secret(self.entry, view(carried), carried, now=at(self.now))

    def retire(self) -> Iterator[Verdict]:
        for intent in ended_claims(self.entry, at(self.now)):
            if not may_yet_publish(self.entry, intent):
                account, gone = f"user-{intent.account.name}", self.secret.read(self.now) is None
                self.entry = presumed(self.entry, intent, account, now=at(self.now), secret_gone=gone)
        consumers = self.consumers()
        used = dict(sorted(use for pod in self.pods for use in pod.uses(self.secret, self.now - self.late)))
        held: dict[str, HoldReason | None] = {}
        for publication in self.entry.history:
            if publication.superseded_at is not None:
                last_used = used.get(publication.account.name)
                decision = self.decide(publication, consumers, last_used)
                held[publication.account.name] = decision.reason if isinstance(decision, Held) else None
                yield Verdict(self.now, publication, self.entry, last_used, decision)
        self.entry, _ = with_reasons(self.entry, held, at(self.now))

    def decide(
        self, publication: Publication, consumers: list[Consumer], last_used: int | None
    ) -> Delete | Wait | Held:
        used = at(last_used) if last_used is not None else None
        usage = Usage(used, consumers, at(self.now), nodes=self.nodes())
        return decide_retirement(publication, usage, RetirePolicy(self.cleanup, DAY), now=at(self.now))

    def nodes(self) -> dict[str, Node] | None:
        """The nodes as the API server shows them; None: the worker may not read them."""
        if self.blind:
            return None
        found = {}
        for pod in self.pods:
            since = pod.node.ready_since(self.now)
            ttl = timedelta(seconds=pod.node.ttl)
            found[pod.node.name] = Node(at(since) if since is not None else None, ttl, kubelet=37)
        return found

    def consumers(self) -> list[Consumer]:
        shown = [pod.shown(self.secret, self.now) for pod in self.pods]
        return [consumer for pod in shown if pod is not None for consumer in consumers_of(pod, {SECRET})]


def ours(name: str) -> Account:
    return account(name, key_digest=name, data_key="api_key")


def view(carried: str | None) -> SecretView | None:
    if carried is None:
        return None
    name = named(ours(carried), data_key="api_key") if carried != OTHER else None
    return secret_view(named=name, digests={"api_key": carried})
