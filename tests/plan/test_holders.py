"""Who holds a superseded key, case by case; `test_holders_model.py` has the rule against random histories."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.support.scene import EPOCH
from worker.ledger.holds import hold_reason
from worker.ledger.transitions import VOLUMES_FOLLOW
from worker.model.entries import Account, Publication
from worker.model.sightings import Consumer
from worker.model.targets import AdminKeyRef, CleanupKind, CleanupPolicy, Project, ProjectAccess
from worker.model.values import Ref
from worker.plan.holders import STALE
from worker.plan.retirement import Delete, Held, RetirePolicy, Usage, Wait, decide_retirement

ACCESS = ProjectAccess(Project("https://openai.test/v1", "p"), AdminKeyRef(Ref("default", "admin"), "key"))
GRACE = CleanupPolicy(CleanupKind.RETAIN_LATEST, timedelta(minutes=2), timedelta(hours=24))
DAY = timedelta(hours=24)


SUPERSEDED = EPOCH + timedelta(hours=1)
OLD = Publication(Account("a0", ACCESS, "id0"), EPOCH, SUPERSEDED, EPOCH - timedelta(seconds=2))


def verdict(*consumers: Consumer, after: timedelta, used: timedelta | None = None, old: Publication = OLD) -> object:
    """What becomes of an account so long after it was superseded; `used`: last use, after that moment."""
    last_used = SUPERSEDED + used if used is not None else None
    now = SUPERSEDED + after
    return decide_retirement(old, Usage(last_used, consumers), RetirePolicy(GRACE, DAY), now=now)


def consumer(minutes: float | None, *, follows: bool = False) -> Consumer:
    """A consumer started so many minutes after the account was superseded; None: about to start."""
    return Consumer("s", "p/c", SUPERSEDED + timedelta(minutes=minutes) if minutes is not None else None, follows)


def test_a_container_started_before_holds_without_limit() -> None:
    """A year later its key still lives, and the words name the container."""
    found = verdict(consumer(-10), after=timedelta(days=365))
    assert found == Held(hold_reason("1: p/c"), None)


def test_a_container_started_after_holds_nothing() -> None:
    """Whoever started well after the successor was published reads that one."""
    assert isinstance(verdict(consumer(6), after=timedelta(minutes=10)), Delete)


def test_a_container_from_before_the_account_holds_nothing_of_it() -> None:
    """A container older than the account carries an earlier key, or none of ours."""
    assert isinstance(verdict(consumer(-90), after=timedelta(minutes=10)), Delete)


def test_a_container_started_just_after_is_a_possible_holder() -> None:
    """Held until its key has gone unused for the idle timeout, counted from the last use."""
    soon = STALE.total_seconds() / 60 - 1
    found = verdict(consumer(soon), after=timedelta(hours=1), used=timedelta(minutes=30))
    assert found == Held(hold_reason("possibly 1: p/c"), SUPERSEDED + timedelta(minutes=30) + DAY)
    assert isinstance(verdict(consumer(soon), after=timedelta(hours=25)), Delete)
    assert isinstance(verdict(consumer(None), after=timedelta(hours=1)), Held)


def test_a_volume_is_waited_for_and_then_holds_nothing() -> None:
    """Kubelets bring volumes up to date within two minutes; a deleted Secret leaves the old files in place."""
    mounted = consumer(-10, follows=True)
    short = replace(GRACE, grace=timedelta(seconds=10))
    waited = decide_retirement(
        OLD, Usage(None, [mounted]), RetirePolicy(short, DAY), now=SUPERSEDED + timedelta(seconds=30)
    )
    assert waited == Wait(SUPERSEDED + VOLUMES_FOLLOW)
    assert isinstance(verdict(mounted, after=timedelta(minutes=3)), Delete)
    gone = replace(OLD, secret_gone=True)
    assert verdict(mounted, after=timedelta(minutes=3), old=gone) == Held(hold_reason("1: p/c"), None)
    back = replace(gone, secret_back_at=SUPERSEDED + timedelta(hours=1))
    assert verdict(mounted, after=timedelta(minutes=61), old=back) == Wait(SUPERSEDED + timedelta(minutes=62))
    assert isinstance(verdict(mounted, after=timedelta(minutes=62), old=back), Delete)


def test_many_holders_are_counted_and_some_named() -> None:
    """A message stays readable with a thousand holders."""
    crowd = [replace(consumer(-10), name=f"app-{index:04}/c") for index in range(1000)]
    found = verdict(*crowd, after=timedelta(hours=1))
    assert found == Held(hold_reason("1000: app-0000/c, app-0001/c, app-0002/c, …"), None)
