"""Which containers may still carry a previous account's key, and the fact that decides. From plain values. Pure.

The numbers come from kubelet v1.37.2 and its sources (docs/adr/0009-who-may-hold-an-old-key.md).
A kubelet that lost the API server gives old values, also to new containers: its node's Ready condition tells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from worker.ledger.transitions import CLOCKS_APART, VOLUMES_FOLLOW
from worker.model.entries import NodeThen, Publication
from worker.model.sightings import Consumer, Node
from worker.model.times import format_duration, format_time

SLOW_START = timedelta(minutes=2)
"""A kubelet reads a container's environment so long before the container starts, at most."""
SETTLED = timedelta(seconds=160) + SLOW_START
"""A kubelet that could not reach the API server gives no old value any more so long after, at the latest."""
CACHED = timedelta(seconds=90) + SLOW_START
"""A kubelet that caches Secrets gives the old value for its TTL, and for so long where its next read fails."""
WATCH_STOPPED = timedelta(minutes=7) + SLOW_START
"""A kubelet stops a watch that no container has read for so long, and asks anew at the next read."""
AT_ONCE = timedelta(minutes=5)
"""A pod that starts this soon after a change, and was made around it, was made because of it, or was listed then."""
WATCHLIST_KUBELET = 35
"""From this minor version on, a kubelet's first read of a Secret is never older than the read itself."""
STALE = timedelta(minutes=5)
"""A pod that began this soon after its Secret was deleted may still have got the Secret's volume."""
UNKNOWN_NODE = timedelta(hours=1)
"""Where nodes may not be read: a container that started this soon after the change may have the old key."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A consumer, and the fact that makes it a holder, a possible one, or none."""

    consumer: Consumer
    fact: str

    @property
    def name(self) -> str:
        return self.consumer.name

    def __str__(self) -> str:
        return f"{self.name} ({self.fact})" if self.fact else self.name


@dataclass(frozen=True, slots=True)
class Holders:
    """The consumers that carry a key for certain, those that may, and those that started later and cannot."""

    certain: tuple[Holder, ...] = ()
    possible: tuple[Holder, ...] = ()
    free: tuple[Holder, ...] = ()


class _Carries(Enum):
    CERTAINLY = "certainly"
    POSSIBLY = "possibly"
    CANNOT = "cannot"
    NO = "no"


_Finding = tuple[_Carries, str]


def holders(
    previous: Publication,
    consumers: Collection[Consumer],
    nodes: Mapping[str, Node] | None = None,
    *,
    looked_at: datetime | None = None,
) -> Holders:
    """Who carries a superseded account's key.

    `nodes`: those of the consumers by name; None: the worker may not read nodes.
    `looked_at`: when the consumers were looked at; None: unknown, and a volume's node counts for nothing.
    While the Secret is gone, its volumes keep their data, also for containers that start in between.
    Such a container then keeps the old key from a `subPath`.
    """
    if previous.superseded_at is None:
        raise ValueError("a current account is held by its Secret")
    beside: defaultdict[str, list[Consumer]] = defaultdict(list)
    for consumer in consumers:
        if not _is_new(consumer, previous.superseded_at):
            beside[consumer.node].append(consumer)
    around = _Around(previous, nodes, looked_at, beside)
    found: dict[_Carries, list[Holder]] = {carries: [] for carries in _Carries}
    for consumer in consumers:
        carries, fact = _carries(around, consumer, superseded=previous.superseded_at)
        found[carries].append(Holder(consumer, fact))
    return Holders(tuple(found[_Carries.CERTAINLY]), tuple(found[_Carries.POSSIBLY]), tuple(found[_Carries.CANNOT]))


MOST_NODES = 50
"""An entry notes no more nodes than these: beyond them, who started soon after a change counts as a possible holder."""


def nodes_then(consumers: Collection[Consumer]) -> tuple[NodeThen, ...] | None:
    """The nodes on which pods refer to a Secret that has just changed; None: too many to note."""
    found: dict[str, list[Consumer]] = {}
    for consumer in consumers:
        found.setdefault(consumer.node, []).append(consumer)
    if len(found) > MOST_NODES:
        return None
    return tuple(NodeThen(name, _last_read(found[name])) for name in sorted(found))


def _last_read(consumers: Collection[Consumer]) -> datetime | None:
    """When the newest container started; None where one has a volume, or is about to start."""
    times = [consumer.started_at for consumer in consumers if not consumer.mounted and not consumer.follows]
    known = [time for time in times if time is not None]
    return max(known) if len(known) == len(consumers) else None


def nodes_of_interest(previous: Publication, consumers: Collection[Consumer]) -> frozenset[str]:
    """The nodes on which it depends whether a consumer may carry a superseded account's key."""
    superseded = previous.superseded_at
    return frozenset(
        consumer.node
        for consumer in consumers
        if consumer.node and superseded is not None and not _is_certain(previous, consumer, superseded)
    )


def _is_certain(previous: Publication, consumer: Consumer, superseded: datetime) -> bool:
    """Does its own start decide, or that it has not started, whatever its node says?"""
    started = consumer.started_at
    if consumer.follows:
        return False
    return started is None or (started < superseded and _read_in_time(previous, consumer, started))


def _is_new(consumer: Consumer, left: datetime) -> bool:
    """Was its pod made after the key had left the Secret?"""
    # The API server's times are cut to seconds: a whole second later is later.
    return consumer.created_at is not None and consumer.created_at >= left.replace(microsecond=0) + timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class _Around:
    """All that is known besides one consumer."""

    previous: Publication
    nodes: Mapping[str, Node] | None
    looked_at: datetime | None
    beside: Mapping[str, Collection[Consumer]]
    """By node, the consumers of pods that were there before the key had left the Secret."""


def _carries(around: _Around, consumer: Consumer, *, superseded: datetime) -> _Finding:
    """Does this consumer carry the superseded account's key?"""
    started, previous = consumer.started_at, around.previous
    if previous.immutable:
        # A kubelet that has seen the Secret immutable never looks again while one of its pods refers to it.
        # Which pods have left a node meanwhile is not known, so each consumer may be of such a node.
        return _Carries.CERTAINLY, ""
    if consumer.follows:
        # Its volume follows the Secret to the next key, except while the Secret is gone: then it keeps the old one.
        if previous.frozen and (started is None or started <= superseded + STALE):
            return _Carries.CERTAINLY, ""
        return _if_cut_off(around, consumer, within=VOLUMES_FOLLOW, what="its volume is")
    if started is None:
        # It has not started, so nobody knows which key the kubelet has read for it.
        return _Carries.POSSIBLY, "it is about to start"
    if started < superseded:
        if _read_in_time(previous, consumer, started):
            return _Carries.CERTAINLY, ""
        # As far as its node has told: one that is cut off tells nothing of a restart.
        return _if_cut_off(around, consumer, within=SETTLED, what="it may have restarted")
    if consumer.mounted and _while_gone(previous, started):
        # The node's volume kept the old key while the Secret was gone, and the container took it from there.
        return _Carries.CERTAINLY, ""
    # It started after the key had left the Secret; its kubelet may still have given it the old one.
    return _by_node(around, consumer, started, left=secret_back_at(previous) if consumer.mounted else superseded)


def _read_in_time(previous: Publication, consumer: Consumer, started: datetime) -> bool:
    """Did it read the Secret while this key could be there, and not only before the key's request?"""
    # Nodes' clocks and the API server's differ a little.
    earliest = (previous.requested_at or previous.at) - CLOCKS_APART
    return earliest <= (consumer.read_until or started)


def _if_cut_off(around: _Around, consumer: Consumer, *, within: timedelta, what: str) -> _Finding:
    """Possibly, where its node cannot reach the API server, or could not `within` so long before the look."""
    if around.nodes is None or around.looked_at is None:
        return _Carries.NO, ""
    node = around.nodes.get(consumer.node)
    if node is None or node.ready_since is None:
        return _Carries.POSSIBLY, f"{what} on node {consumer.node}, which is not Ready"
    if node.ready_since > around.looked_at - within:
        since = format_time(node.ready_since)
        return _Carries.POSSIBLY, f"{what} on node {consumer.node}, which was cut off until {since}"
    return _Carries.NO, ""


def _by_node(around: _Around, consumer: Consumer, started: datetime, *, left: datetime) -> _Finding:
    """May the kubelet have given the old value to a container that started after the key had left the Secret?"""
    passed = format_duration(timedelta(seconds=int((started - left).total_seconds())))
    later = f"started {passed} after the change"
    if around.nodes is None:
        carries = _Carries.POSSIBLY if started <= left + UNKNOWN_NODE else _Carries.CANNOT
        return carries, f"{later}, and nodes may not be read"
    node, later = around.nodes.get(consumer.node), f"{later} on node {consumer.node}"
    if node is None or node.ready_since is None:
        return _Carries.POSSIBLY, f"{later}, which is not Ready"
    new = _is_new(consumer, left)
    listed = around.previous.nodes_then is not None and not consumer.mounted
    if listed and node.kubelet >= WATCHLIST_KUBELET and (new or _at_once(consumer, started, left)):
        alone = _reads_anew(around, consumer, started, superseded=left)
        if alone is not None:
            return _Carries.CANNOT, f"{later}: {alone}"
    if node.ready_since > started - SETTLED:
        return _Carries.POSSIBLY, f"{later}, which was cut off until {format_time(node.ready_since)}"
    cached = timedelta(0) if new else node.ttl + CACHED
    followed = VOLUMES_FOLLOW + SLOW_START if consumer.mounted else timedelta(0)
    if started <= left + max(SETTLED, cached, followed) + CLOCKS_APART:
        return _Carries.POSSIBLY, later
    return _Carries.CANNOT, later


def _at_once(consumer: Consumer, started: datetime, superseded: datetime) -> bool:
    """Was its pod made around the change, and started soon after it?

    Reloader makes a pod within the second of the change, and creation times are whole seconds, by another clock.
    A pod that was there before is in `nodes_then`: as about to start, or as a read of less than nine minutes ago.
    """
    return started <= superseded + AT_ONCE and _is_new(consumer, superseded - CLOCKS_APART)


def _reads_anew(around: _Around, consumer: Consumer, started: datetime, *, superseded: datetime) -> str | None:
    """Why the kubelet asked the API server for this new pod; None: it may have given what another pod had read."""
    then = next((node for node in around.previous.nodes_then or () if node.name == consumer.node), None)
    beside = [
        other
        for other in around.beside.get(consumer.node, ())
        if started > superseded + AT_ONCE
        or other.started_at is None
        or not _at_once(other, other.started_at, superseded)
    ]
    if then is None and not beside:
        return "no other pod there had the Secret"
    idle = started - WATCH_STOPPED
    known = then is None or (then.read_at is not None and then.read_at < idle)
    if known and all(not o.mounted and not o.follows and o.started_at and o.started_at < idle for o in beside):
        return f"no other pod there had read the Secret for {format_duration(WATCH_STOPPED)}"
    return None


def _while_gone(previous: Publication, moment: datetime) -> bool:
    """Was the Secret deleted then, as far as is known?"""
    return previous.frozen or (previous.secret_gone and moment < secret_back_at(previous))


def secret_back_at(previous: Publication) -> datetime:
    if previous.followed_from is None:
        raise ValueError("a current account is in its Secret")
    return previous.followed_from
