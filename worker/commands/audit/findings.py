"""What is wrong with a key: the findings of an audit. Pure; no clock of its own.

Each rule takes one line and returns at most one finding. `RULES` has them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from worker.commands.audit.inventory import RECORDED, Line, Standing
from worker.ledger.transitions import CLAIM
from worker.model.entries import Intent, Publication
from worker.model.targets import Target
from worker.model.times import format_duration, format_time
from worker.model.values import Ref
from worker.plan.retirement import ripe_at
from worker.report.table import age

LATE = timedelta(minutes=30)
"""So much later than its policy says a rotation or a deletion counts as overdue, as for the alerts."""


class FindingKind(StrEnum):
    """In the order in which a reader should look at them."""

    GONE = "Gone"
    FORGOTTEN = "Forgotten"
    FOREIGN_KEY = "ForeignKey"
    WIDER = "WiderScopes"
    OVERDUE = "Overdue"
    UNUSED = "Unused"
    NO_END = "NoEnd"
    ADMIN_KEY_EXPIRING = "AdminKeyExpiring"
    ADMIN_KEY_OLD = "AdminKeyOld"


ADVICE: Mapping[FindingKind, str] = {
    FindingKind.GONE: "recorded, and OpenAI does not have it, or has ended it: the next run makes a new key",
    FindingKind.FORGOTTEN: "no run deletes it: record it (openai-key-rotator adopt), or delete it at OpenAI",
    FindingKind.FOREIGN_KEY: "somebody made a further key on an account of ours: it ends when the account is deleted",
    FindingKind.WIDER: "it may do more than was asked for",
    FindingKind.OVERDUE: "it should have been replaced or deleted by now: the last run's log says why it was not",
    FindingKind.UNUSED: "nobody uses it: delete it at OpenAI, or what asks for it in the cluster",
    FindingKind.NO_END: "OpenAI does not end it, and no rotation replaces it",
    FindingKind.ADMIN_KEY_EXPIRING: "without it nothing is rotated or deleted: put a new one into the Secret",
    FindingKind.ADMIN_KEY_OLD: "it may do everything in its organisation: replace it",
}


@dataclass(frozen=True, slots=True)
class Finding:
    kind: FindingKind
    message: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What the lines are held against. `targets`: who asks for a Secret now."""

    now: datetime
    unused: timedelta
    targets: Mapping[Ref, Target] = field(default_factory=dict)

    def target_of(self, line: Line) -> Target | None:
        return self.targets.get(line.target) if line.target is not None else None


def findings_of(line: Line, policy: Policy) -> tuple[Finding, ...]:
    """What is wrong with this key."""
    return tuple(found for rule in RULES if (found := rule(line, policy)) is not None)


def _gone(line: Line, policy: Policy) -> Finding | None:
    """Recorded, and OpenAI does not have the account or its key, or accepts it no more."""
    item = line.record.item if line.record is not None else None
    if line.standing is Standing.GONE:
        if isinstance(item, Publication) and item.superseded_at is None:
            return Finding(FindingKind.GONE, "the current account does not exist: its key in the Secret is dead")
        return Finding(FindingKind.GONE, "the account is recorded and does not exist: a run will let it go")
    if line.standing is not Standing.CURRENT or not line.listed:
        return None
    if line.key is None:
        return Finding(FindingKind.GONE, "the current account has no key: the one in the Secret is dead")
    if not line.own:
        return None
    if line.key.expires_at is not None and line.key.expires_at <= policy.now:
        return Finding(FindingKind.GONE, f"the current key has ended at {format_time(line.key.expires_at)}")
    if not line.key.active:
        return Finding(FindingKind.GONE, "the current key is disabled")
    return None


def _forgotten(line: Line, policy: Policy) -> Finding | None:
    """Named like ours and not recorded. Younger than a claim it may be of a run that another ledger has begun."""
    begun = line.created_at or line.begun_at
    if line.standing is not Standing.RESEMBLING or (begun is not None and policy.now - begun < CLAIM):
        return None
    since = f", made {age(policy.now - begun)} ago" if begun is not None else ""
    return Finding(FindingKind.FORGOTTEN, f"named like ours, and no ledger entry records it{since}")


def _foreign_key(line: Line, policy: Policy) -> Finding | None:
    if line.key is None or line.own or line.standing not in RECORDED:
        return None
    name = f" ({line.key.name})" if line.key.name else ""
    return Finding(FindingKind.FOREIGN_KEY, f"the worker has not made this key{name}")


def _wider(line: Line, policy: Policy) -> Finding | None:
    asked = line.record.scopes if line.record is not None else None
    if asked is None or line.key is None or not line.own or line.key.scopes is None:
        return None
    more = sorted(set(line.key.scopes) - set(asked))
    if line.key.scopes and not more:
        return None
    return Finding(
        FindingKind.WIDER, f"may do {', '.join(more) or 'everything'}; asked for was only {', '.join(asked)}"
    )


def _overdue(line: Line, policy: Policy) -> Finding | None:
    """Older than its policy: a current key past its interval, a superseded one past its grace that nobody holds."""
    item = line.record.item if line.record is not None else None
    if not line.listed or line.record is None or item is None or line.standing is Standing.GONE:
        return None
    if line.key is not None and not line.own:
        return None
    if isinstance(item, Intent):
        due = item.claimed_until
        return _late("unpublished, and should have been deleted by", due, policy)
    ripe = ripe_at(item, line.record.cleanup)
    if ripe is not None:
        return None if item.held is not None else _late("superseded, and should have been deleted by", ripe, policy)
    target = policy.target_of(line)
    if target is None or target.suspended or target.interval is None:
        return None
    return _late("should have been rotated by", item.at + target.interval, policy)


def _late(what: str, due: datetime, policy: Policy) -> Finding | None:
    if policy.now <= due + LATE:
        return None
    return Finding(FindingKind.OVERDUE, f"{what} {format_time(due)}, {age(policy.now - due)} ago")


def _unused(line: Line, policy: Policy) -> Finding | None:
    """Superseded keys and unpublished ones go by themselves, so their disuse is as it should be."""
    if line.key is None or line.standing in (Standing.SUPERSEDED, Standing.UNPUBLISHED, Standing.GONE):
        return None
    used, begun = line.key.last_used_at, line.begun_at
    last = used or begun
    if last is None or policy.now - last <= policy.unused:
        return None
    if used is None:
        return Finding(FindingKind.UNUSED, f"never used in {age(policy.now - last)}")
    return Finding(FindingKind.UNUSED, f"not used for {age(policy.now - used)}")


def _no_end(line: Line, policy: Policy) -> Finding | None:
    """A key that lives until somebody deletes it: neither OpenAI nor a rotation ends it."""
    if line.key is None or line.key.expires_at is not None:
        return None
    if line.standing in (Standing.SUPERSEDED, Standing.UNPUBLISHED, Standing.GONE):
        return None
    if line.standing is not Standing.CURRENT or not line.own:
        return Finding(FindingKind.NO_END, "never ends, and nothing rotates it")
    target = policy.target_of(line)
    if target is None:
        return Finding(FindingKind.NO_END, "never ends, and nothing asks for its Secret any more")
    if target.suspended:
        return Finding(FindingKind.NO_END, "never ends, and its target is suspended")
    if target.key_lifetime is not None:
        asked = format_duration(target.key_lifetime)
        return Finding(FindingKind.NO_END, f"was to end after {asked}, and never ends")
    if target.interval is None:
        return Finding(FindingKind.NO_END, "never ends, and is rotated on request only")
    return None


RULES = (_gone, _forgotten, _foreign_key, _wider, _overdue, _unused, _no_end)
