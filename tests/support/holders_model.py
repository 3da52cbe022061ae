"""A plain model of a Secret, the containers that read it, and which keys these really hold. Knows nothing of worker/.

All times are whole seconds, true ones unless said otherwise. A key is told by its account's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

EPOCH = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
NEVER = 10**6
OTHER = "a key that is not ours"
SECRET = "creds"


def at(moment: int) -> datetime:
    return EPOCH + timedelta(seconds=moment)


class Secret:
    """What the target Secret carried when. It was there before us (creationPolicy Merge)."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, str | None]] = [(-NEVER, OTHER)]

    def read(self, moment: int) -> str | None:
        """The key that the API server had then; None: there was no Secret."""
        return next((key for since, key in reversed(self.changes) if since <= moment), OTHER)

    def left(self, key: str, now: int) -> int:
        """When the key was last taken out of it."""
        return max(moment for moment, _ in self.changes if moment <= now and self.read(moment - 1) == key)

    def was_gone(self, since: int, until: int) -> bool:
        """Was there no Secret at some moment of this time?"""
        return self.read(since) is None or any(key is None for moment, key in self.changes if since <= moment <= until)

    def in_volume(self, moment: int) -> str:
        """What a volume carries that followed the Secret until then: a deleted Secret leaves its files in place."""
        return next((key for since, key in reversed(self.changes) if since <= moment and key is not None), OTHER)


class Way(StrEnum):
    """How a container gets at the Secret."""

    ENV = "env"
    ENV_FROM = "envFrom"
    SUB_PATH = "subPath"
    VOLUME = "volume"
    PROJECTED = "projected volume"
    ENV_AND_VOLUME = "env and volume"


class Role(StrEnum):
    """Which of its pod's containers it is. An INIT container hands what it has read on to the main one."""

    MAIN = "containers"
    INIT = "initContainers"
    SIDECAR = "initContainers with restartPolicy Always"
    EPHEMERAL = "ephemeralContainers"


VOLUMES = (Way.VOLUME, Way.PROJECTED)
MOUNTS = (*VOLUMES, Way.SUB_PATH)


UNNOTICED = 60
"""Seconds for which a node may be cut off without a word in its conditions."""
BACK = 95
"""Seconds for which a kubelet gives old values after it can reach the API server again (docs/adr/0009)."""


@dataclass(frozen=True)
class Node:
    """A node, and when it could not reach the API server: each cut from its first second to the first after it."""

    name: str = "node"
    cuts: tuple[tuple[int, int], ...] = ()
    ttl: int = 0
    """Seconds for which its kubelet gives a cached Secret to containers that restart in place."""
    late: int = 0
    """Seconds after the end of a cut at which its kubelet says that it is Ready."""
    skew: int = 0
    """How far its clock is ahead."""

    def knows(self, moment: int) -> int:
        """As of when its kubelet knows the Secret then, at worst."""
        return min([moment, *(begun for begun, ended in self.cuts if begun <= moment < ended + BACK)])

    def told(self, now: int) -> int:
        """As of when the API server shows its pods."""
        return min([now, *(begun for begun, ended in self.cuts if begun <= now < ended + self.late)])

    def ready_since(self, now: int) -> int | None:
        """By its own clock; None: the API server shows that it is not Ready."""
        since = -NEVER
        for begun, ended in self.cuts:
            if ended - begun <= UNNOTICED or now < begun + UNNOTICED:
                continue
            if now < ended + self.late:
                return None
            since = ended + self.late + self.skew
        return since


@dataclass(frozen=True)
class Life:
    """A container from the kubelet's look at the Secret to its end.

    What the kubelet sees is `stale` seconds old, from its cache; the container starts `early` seconds after.
    """

    reads: int
    stale: int
    early: int
    ends: int

    @property
    def sees(self) -> int:
        return self.reads - self.stale

    @property
    def starts(self) -> int:
        return self.reads + self.early


@dataclass(frozen=True)
class Pod:
    """A pod in which one container reads the Secret, and its lives: it is restarted in place."""

    name: str
    role: Role
    way: Way
    lives: tuple[Life, ...]
    ends: int
    node: Node = Node()
    behind: int = 0
    """By how much its volume follows late; its status, as the API server shows it, does by a quarter of that."""
    loops: bool = False
    """Between two lives its status is CrashLoopBackOff; otherwise it just says that the last one has ended."""
    rhythm: int = 1200
    """It uses what it holds once in so long; NEVER: not at all."""

    def lived(self, secret: Secret, moment: int) -> list[Life]:
        """The lives begun by then. Without the Secret no container is made, unless its volume is there already."""
        found: list[Life] = []
        for life in self.lives:
            if life.reads <= moment and (secret.read(life.sees) is not None or (found and self.way in MOUNTS)):
                found.append(life)
        return found

    def over(self, life: Life) -> int:
        """When what a life has read is gone: with it, or, handed on by an init container, with the pod."""
        handed_on = self.role is Role.INIT and life is self.lives[-1]
        return self.ends if handed_on else min(life.ends, self.ends)

    def has(self, life: Life, secret: Secret, moment: int) -> set[str]:
        """What is in a container's environment and files at a moment of its life."""
        if self.way in (Way.ENV, Way.ENV_FROM):
            return {str(secret.read(life.sees))}
        if self.way is Way.SUB_PATH:
            return {secret.in_volume(life.sees)}
        followed = self.node.knows(min(moment, life.ends) - self.behind)
        volume = secret.in_volume(max(life.sees, followed))
        return {volume} if self.way in VOLUMES else {volume, str(secret.read(life.sees))}

    def living(self, secret: Secret, moment: int) -> list[Life]:
        return [life for life in self.lived(secret, moment) if moment < self.over(life)]

    def holds(self, secret: Secret, moment: int) -> set[str]:
        """The keys that the pod's living containers really hold."""
        return set().union(*(self.has(life, secret, moment) for life in self.living(secret, moment)))

    def uses(self, secret: Secret, until: int) -> Iterator[tuple[str, int]]:
        """Each use of a key by then."""
        for life in self.lived(secret, until):
            for moment in range(life.starts + self.rhythm, min(until + 1, self.over(life)), self.rhythm):
                yield from ((key, moment) for key in self.has(life, secret, moment))

    def reported(self, life: Life) -> int:
        """The start of a life by its node's clock."""
        return life.starts + self.node.skew

    def shown(self, secret: Secret, now: int) -> dict[str, Any] | None:
        """The pod as the API server lists it; None: it is gone."""
        if now >= self.ends or now < self.lives[0].reads:
            return None
        spec: dict[str, Any] = {"nodeName": self.node.name}
        container: dict[str, Any] = {"name": "reader", "image": "i"}
        if self.role is Role.SIDECAR:
            container["restartPolicy"] = "Always"
        if self.way in (Way.ENV, Way.ENV_AND_VOLUME):
            container["env"] = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "api_key"}}}]
        if self.way is Way.ENV_FROM:
            container["envFrom"] = [{"secretRef": {"name": SECRET}}]
        if self.way in (*MOUNTS, Way.ENV_AND_VOLUME):
            mount = {"name": "v", "mountPath": "/key"}
            container["volumeMounts"] = [mount | {"subPath": "api_key"} if self.way is Way.SUB_PATH else mount]
            plain = {"name": "v", "secret": {"secretName": SECRET}}
            projected = {"name": "v", "projected": {"sources": [{"secret": {"name": SECRET}}]}}
            spec["volumes"] = [projected if self.way is Way.PROJECTED else plain]
        field = self.role.value.split()[0]
        spec |= {"containers": [{"name": "main", "image": "i"}], field: [container]}
        state = self.state(secret, now)
        states = {f"{field.removesuffix('s')}Statuses": [{"name": "reader", "state": state}]} if state else {}
        return {
            "metadata": {"name": self.name, "namespace": "default", "creationTimestamp": _text(self.created)},
            "spec": spec,
            "status": {"phase": "Running", "startTime": at(self.lives[0].reads).isoformat(), **states},
        }

    @property
    def created(self) -> int:
        """By the API server's clock."""
        return self.lives[0].reads

    def told(self, now: int) -> int:
        """As of when its status is."""
        return self.node.told(now - self.behind // 4)

    def state(self, secret: Secret, now: int) -> dict[str, Any] | None:
        """The container's state, as its kubelet has told it; None: nothing yet."""
        moment = self.told(now)
        begun = [life for life in self.lives if life.reads <= moment]
        lived = self.lived(secret, moment)
        if not begun:
            return None
        if begun[-1] not in lived:
            return {"waiting": {"reason": "CreateContainerConfigError"}}
        running = [life for life in lived if life.starts <= moment]
        if not running:
            return {"waiting": {"reason": "ContainerCreating"}}
        started = {"startedAt": _text(self.reported(running[-1]))}
        if moment < running[-1].ends:
            return {"running": started}
        if self.loops and running[-1] is not self.lives[-1]:
            return {"waiting": {"reason": "CrashLoopBackOff"}}
        return {"terminated": {**started, "finishedAt": _text(running[-1].ends + self.node.skew)}}


def _text(moment: int) -> str:
    return at(moment).strftime("%Y-%m-%dT%H:%M:%SZ")
