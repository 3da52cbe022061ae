"""Who holds a superseded key, case by case; `test_holders_model.py` has the rule against random histories."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.support.scene import EPOCH
from worker.ledger.holds import hold_reason
from worker.ledger.transitions import VOLUMES_FOLLOW
from worker.model.entries import Account, NodeThen, Publication
from worker.model.sightings import Consumer, Node
from worker.model.targets import AdminKeyRef, CleanupKind, CleanupPolicy, Project, ProjectAccess
from worker.model.values import Ref
from worker.plan.retirement import Delete, Held, RetirePolicy, Usage, Wait, decide_retirement

ACCESS = ProjectAccess(Project("https://openai.test/v1", "p"), AdminKeyRef(Ref("default", "admin"), "key"))
GRACE = CleanupPolicy(CleanupKind.RETAIN_LATEST, timedelta(minutes=2), timedelta(hours=24))
DAY = timedelta(hours=24)


SUPERSEDED = EPOCH + timedelta(hours=1)
OLD = Publication(Account("a0", ACCESS, "id0"), EPOCH, SUPERSEDED, EPOCH - timedelta(seconds=2))


READY = Node(EPOCH - timedelta(days=1), timedelta(0), kubelet=37)


def verdict(
    *consumers: Consumer,
    after: timedelta,
    used: timedelta | None = None,
    old: Publication = OLD,
    node: Node | None = READY,
) -> object:
    """What becomes of an account so long after it was superseded; `used`: last use, after that moment.

    `node`: the consumers' one; None: the worker may not read nodes.
    """
    last_used = SUPERSEDED + used if used is not None else None
    now = SUPERSEDED + after
    usage = Usage(last_used, consumers, now, nodes={"n1": node} if node is not None else None)
    return decide_retirement(old, usage, RetirePolicy(GRACE, DAY), now=now)


def consumer(minutes: float | None, *, follows: bool = False, created: float = -600) -> Consumer:
    """A consumer started so many minutes after the account was superseded; None: about to start.

    `created`: seconds from that moment to its pod's creation.
    """
    started = SUPERSEDED + timedelta(minutes=minutes) if minutes is not None else None
    return Consumer("s", "p/c", started, follows, node="n1", created_at=SUPERSEDED + timedelta(seconds=created))


def test_a_container_started_before_holds_without_limit() -> None:
    """A year later its key still lives, and the words name the container."""
    found = verdict(consumer(-10), after=timedelta(days=365))
    assert found == Held(hold_reason("1: p/c"), None)


def test_a_container_started_after_holds_nothing() -> None:
    """Whoever started well after the successor was published reads that one."""
    assert isinstance(verdict(consumer(6), after=timedelta(minutes=10)), Delete)
    assert isinstance(verdict(consumer(61), after=timedelta(minutes=70), node=None), Delete)


def test_a_container_from_before_the_account_holds_nothing_of_it() -> None:
    """A container older than the account carries an earlier key, or none of ours."""
    assert isinstance(verdict(consumer(-90), after=timedelta(minutes=10)), Delete)


def test_a_container_started_just_after_is_a_possible_holder() -> None:
    """Held until its key has gone unused for the idle timeout, counted from the last use."""
    found = verdict(consumer(4), after=timedelta(hours=1), used=timedelta(minutes=30))
    reason = hold_reason("possibly 1: p/c (started 4m after the change on node n1)")
    assert found == Held(reason, SUPERSEDED + timedelta(minutes=30) + DAY)
    assert isinstance(verdict(consumer(4), after=timedelta(hours=25)), Delete)
    assert isinstance(verdict(consumer(None), after=timedelta(hours=1)), Held)


def why(found: object) -> str:
    assert isinstance(found, Held), found
    return str(found.reason)


def test_without_a_look_at_nodes_an_hour_is_the_measure() -> None:
    """Nobody can tell whether the node was cut off: the reason says so."""
    found = verdict(consumer(50), after=timedelta(hours=2), node=None)
    assert why(found) == "possibly 1: p/c (started 50m after the change, and nodes may not be read)"


@pytest.mark.parametrize(
    ("node", "fact"),
    [
        (replace(READY, ready_since=None), "which is not Ready"),
        (
            replace(READY, ready_since=SUPERSEDED + timedelta(minutes=18)),
            "which was cut off until 2026-11-24T11:18:00Z",
        ),
    ],
)
def test_a_container_of_a_node_that_was_cut_off_may_have_the_old_key_whenever_it_started(node: Node, fact: str) -> None:
    """Its kubelet restarts containers in place with what it had: facts/kubelet.md 5.6 saw it after 312 s."""
    found = verdict(consumer(20), after=timedelta(hours=1), node=node)
    assert why(found) == f"possibly 1: p/c (started 20m after the change on node n1, {fact})"
    long_before = replace(READY, ready_since=SUPERSEDED + timedelta(minutes=15))
    assert isinstance(verdict(consumer(20), after=timedelta(hours=1), node=long_before), Delete)


def test_a_container_older_than_the_key_may_have_restarted_on_a_node_that_is_cut_off() -> None:
    """Nobody tells: its status is as old as the cut. Found by the search, seed 101 of 2026-11-29."""
    lost = replace(READY, ready_since=None)
    assert why(verdict(consumer(-90), after=timedelta(hours=1), node=lost)) == (
        "possibly 1: p/c (it may have restarted on node n1, which is not Ready)"
    )
    back = replace(READY, ready_since=SUPERSEDED + timedelta(minutes=58))
    assert isinstance(verdict(consumer(-90), after=timedelta(hours=1), node=back), Held)
    assert isinstance(verdict(consumer(-90), after=timedelta(minutes=63), node=back), Delete)


def test_a_kubelet_that_caches_secrets_gives_them_to_restarted_containers_for_its_ttl() -> None:
    """Not to new pods: for those it asks anew."""
    caches = replace(READY, ttl=timedelta(minutes=10))
    assert isinstance(verdict(consumer(14), after=timedelta(hours=1), node=caches), Held)
    assert isinstance(verdict(consumer(15), after=timedelta(hours=1), node=caches), Delete)
    assert isinstance(verdict(consumer(6, created=10), after=timedelta(hours=1), node=caches), Delete)


NEW = consumer(0.2, created=10)
"""A pod that a controller made ten seconds after the change, because of it."""


def test_a_new_pod_on_a_node_where_no_other_has_the_secret_holds_nothing() -> None:
    """Its kubelet asks the API server for it: the old account goes with its grace, and the fact is told."""
    alone = replace(OLD, nodes_then=(NodeThen("n2", None),))
    found = verdict(NEW, after=timedelta(minutes=3), old=alone)
    assert isinstance(found, Delete)
    assert [str(holder) for holder in found.free] == [
        "p/c (started 12s after the change on node n1: no other pod there had the Secret)"
    ]


@pytest.mark.parametrize("created", [0, -1, -20])
def test_a_pod_that_is_made_in_the_second_of_the_change_is_a_new_one(created: int) -> None:
    """Reloader is that fast, and the API server's clock may be behind the worker's. Two replicas, on one node."""
    old = replace(OLD, nodes_then=(NodeThen("n1", SUPERSEDED - timedelta(minutes=10)),))
    pods = [replace(consumer(0.02, created=created), name=f"{name}/c") for name in "pq"]
    assert isinstance(verdict(*pods, after=timedelta(minutes=3), old=old), Delete)


@pytest.mark.parametrize("read_at", [None, SUPERSEDED - timedelta(seconds=1)])
def test_a_pod_of_that_second_that_was_there_at_the_change_may_have_the_old_key(read_at: datetime | None) -> None:
    """The list of pods at the change has it, as about to start or as just started."""
    old = replace(OLD, nodes_then=(NodeThen("n1", read_at),))
    found = verdict(consumer(0.02, created=0), after=timedelta(minutes=3), old=old)
    assert why(found) == "possibly 1: p/c (started 1s after the change on node n1)"


def test_a_pod_of_that_second_that_starts_late_is_taken_for_an_old_one() -> None:
    """By then what was read at the change does not count any more, and its node was cut off meanwhile."""
    old = replace(OLD, nodes_then=(NodeThen("n1", SUPERSEDED - timedelta(seconds=1)),))
    back = replace(READY, ready_since=SUPERSEDED + timedelta(minutes=8))
    found = verdict(consumer(10, created=0), after=timedelta(minutes=30), old=old, node=back)
    assert "which was cut off until" in why(found)
    beside = replace(consumer(8, created=0), name="q/c")
    new = consumer(10, created=500)
    assert "2: p/c" in why(
        verdict(new, beside, after=timedelta(minutes=30), old=replace(old, nodes_then=()), node=back)
    )


@pytest.mark.parametrize(
    "old",
    [
        pytest.param(OLD, id="unknown who was there"),
        pytest.param(replace(OLD, nodes_then=(NodeThen("n1", None),)), id="a volume was there"),
        pytest.param(
            replace(OLD, nodes_then=(NodeThen("n1", SUPERSEDED - timedelta(minutes=5)),)), id="it was read lately"
        ),
    ],
)
def test_a_new_pod_beside_another_may_get_what_that_one_had(old: Publication) -> None:
    assert why(verdict(NEW, after=timedelta(hours=1), old=old)) == (
        "possibly 1: p/c (started 12s after the change on node n1)"
    )


def test_a_new_pod_where_the_secret_was_not_read_for_long_holds_nothing() -> None:
    """An hourly rotation of a Deployment that is restarted with each: the kubelet had stopped to watch the Secret."""
    old = replace(OLD, nodes_then=(NodeThen("n1", SUPERSEDED - timedelta(minutes=50)),))
    assert isinstance(verdict(NEW, after=timedelta(minutes=3), old=old), Delete)


@pytest.mark.parametrize(
    "beside",
    [
        replace(consumer(-10), name="q/c", follows=True),
        replace(consumer(0.1), name="q/c"),
        replace(consumer(None), name="q/c"),
    ],
    ids=["a volume", "one restarted in place", "one about to start"],
)
def test_a_new_pod_beside_one_that_keeps_the_watch_alive_may_have_the_old_key(beside: Consumer) -> None:
    """The list of pods at the change did not show it, and the one now does."""
    found = verdict(NEW, beside, after=timedelta(hours=1), old=replace(OLD, nodes_then=()))
    assert "p/c (started 12s after the change on node n1)" in why(found)


def test_an_old_kubelet_is_not_trusted_with_its_first_read() -> None:
    """Before 1.35 it took what the API server's cache had."""
    old = replace(OLD, nodes_then=())
    assert isinstance(verdict(NEW, after=timedelta(hours=1), old=old, node=replace(READY, kubelet=34)), Held)


def test_a_volume_on_a_node_that_was_cut_off_may_have_the_old_key() -> None:
    """Until its kubelet has had the time to bring it up to date."""
    mounted = consumer(-10, follows=True)
    lost = replace(READY, ready_since=None)
    assert why(verdict(mounted, after=timedelta(hours=1), node=lost)) == (
        "possibly 1: p/c (its volume is on node n1, which is not Ready)"
    )
    back = replace(READY, ready_since=SUPERSEDED + timedelta(minutes=58))
    assert isinstance(verdict(mounted, after=timedelta(hours=1), node=back), Held)
    assert isinstance(verdict(mounted, after=timedelta(minutes=63), node=back), Delete)


def test_a_volume_is_waited_for_and_then_holds_nothing() -> None:
    """Kubelets bring volumes up to date within four minutes; a deleted Secret leaves the old files in place."""
    mounted = consumer(-10, follows=True)
    short = replace(GRACE, grace=timedelta(seconds=10))
    waited = decide_retirement(
        OLD, Usage(None, [mounted]), RetirePolicy(short, DAY), now=SUPERSEDED + timedelta(seconds=30)
    )
    assert waited == Wait(SUPERSEDED + VOLUMES_FOLLOW)
    assert isinstance(verdict(mounted, after=timedelta(minutes=5)), Delete)
    gone = replace(OLD, secret_gone=True)
    assert verdict(mounted, after=timedelta(minutes=3), old=gone) == Held(hold_reason("1: p/c"), None)
    back = replace(gone, secret_back_at=SUPERSEDED + timedelta(hours=1))
    assert verdict(mounted, after=timedelta(minutes=61), old=back) == Wait(SUPERSEDED + timedelta(minutes=64))
    assert isinstance(verdict(mounted, after=timedelta(minutes=64), old=back), Delete)


def test_many_holders_are_counted_and_some_named() -> None:
    """A message stays readable with a thousand holders."""
    crowd = [replace(consumer(-10), name=f"app-{index:04}/c") for index in range(1000)]
    found = verdict(*crowd, after=timedelta(hours=1))
    assert found == Held(hold_reason("1000: app-0000/c, app-0001/c, app-0002/c, …"), None)
