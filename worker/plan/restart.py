"""Whether a workload is restarted for a publication. Decided from plain values. Pure.

Guarantees: a publication restarts a workload once: the stamp is the time of the publication.
A later stamp is somebody's later restart, which did the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from worker.ledger.transitions import CLOCKS_APART
from worker.model.entries import Entry, Publication, Restart, RestartState, current
from worker.model.workloads import Workload, WorkloadView

UNDER_WAY = "its last rollout is still under way"
NOBODY = "no workload reads the Secret by its environment"
_LONGEST_NOTICE = timedelta(hours=6)
_SHOWN = 3


class Fate(Enum):
    """What became of one workload in this run."""

    STAMPED = auto()
    ALREADY = auto()
    """Somebody has restarted it since the publication: an earlier run, or a human."""
    WAITS = auto()
    HINDERED = auto()
    """A human has to act first."""
    FAILED = auto()
    """Something failed that may pass."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """The workload is to be restarted, by this value."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one workload, and why. `reason`: of an error."""

    fate: Fate
    why: str = ""
    reason: str = ""


def restart_due(entry: Entry, ledger: str, now: datetime) -> Publication | None:
    """The publication for which workloads are still to be restarted; None: there is none in this run."""
    publication = current(entry)
    if entry.ledger != ledger or publication is None or publication.restart is None:
        return None
    # While a claim runs another key may be on its way: a restart now would be one too many.
    if publication.restart.at is not None or entry.claimed_until(now) is not None:
        return None
    return publication


def cannot_wait(entry: Entry, max_hold: timedelta | None, now: datetime) -> bool:
    """Have containers a dead key, or will they soon? Then a rollout that is under way puts off no restart.

    An end is near in the last quarter of a key's life, six hours at most: a run or two still come before it.
    """
    earlier = [publication for publication in entry.history if publication.superseded_at is not None]
    asked = current(entry)
    dead = asked is not None and asked.restart is not None and asked.restart.urgent
    return dead or any(_ends_soon(publication, max_hold, now) for publication in earlier)


def _ends_soon(publication: Publication, max_hold: timedelta | None, now: datetime) -> bool:
    ends = [publication.account.expires_at] if publication.account.expires_at is not None else []
    if max_hold is not None and publication.superseded_at is not None:
        ends.append(publication.superseded_at + max_hold)
    return any(end - now <= min((end - publication.at) / 4, _LONGEST_NOTICE) for end in ends)


def decide_restart(view: WorkloadView, published_at: datetime, *, urgent: bool, now: datetime) -> Stamp | Verdict:
    """Stamp the workload, or not. `urgent`: it `cannot_wait`."""
    # A stamp from the future is a wrong clock's: it would keep the workload from being restarted at all.
    if view.stamp is not None and published_at <= view.stamp <= now + CLOCKS_APART:
        return Verdict(Fate.ALREADY)
    if view.obstacle:
        return Verdict(Fate.HINDERED, view.obstacle)
    if view.rolling and not urgent:
        return Verdict(Fate.WAITS, UNDER_WAY)
    return Stamp(published_at)


def restart_after(
    before: Restart, verdicts: Mapping[Workload, Verdict], now: datetime, *, trouble: Verdict | None = None
) -> Restart:
    """What the ledger says after this run. `trouble`: the wish, or the workloads that it means, could not be read."""
    settled = (Fate.STAMPED, Fate.ALREADY)
    done = {*before.done, *(str(workload) for workload, verdict in verdicts.items() if verdict.fate in settled)}
    left = [(f"{workload}: ", verdict) for workload, verdict in sorted(verdicts.items(), key=lambda item: item[0])]
    left = [*([("", trouble)] if trouble else []), *((name, v) for name, v in left if v.fate not in settled)]
    if left:
        hindered = any(verdict.fate is Fate.HINDERED for _, verdict in left)
        state = RestartState.BLOCKED if hindered else RestartState.WAITING
        shown = "; ".join(name + verdict.why for name, verdict in left[:_SHOWN])
        more = f"; and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        return replace(before, state=state, done=tuple(sorted(done)), why=shown + more)
    return replace(before, state=RestartState.DONE, done=tuple(sorted(done)), at=now, why="" if done else NOBODY)
