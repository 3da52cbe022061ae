"""The ledger: one KeyRotation object per target, in the worker's own namespace.

Guarantees: every write is conditional on the version that the ledger read.
The ledger sends no write that changes nothing.
The ledger returns the entry that the API server has stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from worker.errors import ConfigurationError, Conflict, NotFound, OutOfReach, RotatorError
from worker.kubernetes.reading import Malformed, mapping_or_empty, version_of
from worker.ledger.codec import KEY_ROTATIONS, decode_entry, entry_object, entry_patch
from worker.ledger.conditional import conditional
from worker.ledger.plausible import plausible
from worker.model.entries import Entry, Unreadable, is_at_rest
from worker.model.names import entry_name
from worker.model.shard import WHOLE, Shard
from worker.model.targets import Project
from worker.model.values import JSON, Answer, Ref, Resource
from worker.ports import Clock, Cluster

NAMESPACES = Resource("", "v1", "namespaces")
_ATTEMPTS = 5
_ENOUGH = 100
"""Accounts of a project that are remembered during a run."""


async def ledger_uid(cluster: Cluster, namespace: str) -> tuple[str, datetime | None]:
    """The uid of the ledger's namespace, and the API server's time. Raises OutOfReach where it cannot be used."""
    try:
        answer = await cluster.read(NAMESPACES, Ref("", namespace))
    except NotFound:
        raise OutOfReach(
            "LedgerNamespaceMissing",
            f"the ledger's namespace {namespace!r} does not exist: kubectl create namespace {namespace}",
        ) from None
    except RotatorError as error:
        raise OutOfReach(error.reason, error.message) from None
    return version_of(answer.body).uid, answer.at


class Ledger:
    """`uid` is that of the ledger's namespace: it tells this ledger from a copy. `shard`: the targets to read."""

    def __init__(self, cluster: Cluster, namespace: str, uid: str, *, clock: Clock, shard: Shard = WHOLE) -> None:
        self._cluster = cluster
        self._clock = clock
        self._shard = shard
        self._latest: dict[str, Entry] = {}
        """The last listed entries, by name: the ledger decodes and keeps an unchanged entry only once."""
        self.changed: dict[Ref, Entry | None] = {}
        """What this run has written: the entry where it is at rest since, else None, to keep no more than that."""
        self.recorded: defaultdict[Project, set[str]] = defaultdict(set)
        """By project, names of accounts of every shard, as many as tell an empty list from one account's end."""
        self.namespace = namespace
        self.uid = uid

    async def read_all(self) -> dict[Ref, Entry | Unreadable]:
        """Every entry of the shard. Raises OutOfReach where the ledger cannot be read."""

        def keep(obj: JSON) -> tuple[Ref, Entry | Unreadable] | None:
            name = obj["metadata"]["name"]
            if not self._shard.owns_entry(name):
                self._note_recorded(obj)
                return None
            known = self._latest.get(name)
            if known is not None and known.version == version_of(obj):
                return known.target, known
            target, entry = _decode(obj, self._clock.now())
            if isinstance(entry, Entry):
                self._latest[name] = entry
            self._note_recorded(obj)
            return target, entry

        try:
            decoded = await self._cluster.list_all(KEY_ROTATIONS, keep, namespace=self.namespace)
        except NotFound:
            raise OutOfReach(
                "CRDMissing", f"the cluster does not know {KEY_ROTATIONS}: kubectl apply -k manifests/crds"
            ) from None
        except RotatorError as error:
            raise OutOfReach(error.reason, error.message) from None
        return dict(item for item in decoded if item is not None)

    def _note_recorded(self, obj: JSON) -> None:
        if mapping_or_empty(obj.get("spec")).get("ledger") != self.uid:
            return
        for name, account in mapping_or_empty(mapping_or_empty(obj.get("status")).get("accounts")).items():
            host, project = mapping_or_empty(account).get("host"), mapping_or_empty(account).get("projectId")
            if isinstance(host, str) and isinstance(project, str):
                known = self.recorded[Project(host, project)]
                if len(known) < _ENOUGH:
                    known.add(str(name))

    def unchanged(self, target: Ref) -> Entry | None:
        """An entry as it was last listed; None where there was none, or this run has written it since."""
        return self._latest.get(entry_name(target))

    def as_listed(self) -> list[Entry]:
        """The readable entries that this run has listed, and not written since."""
        return list(self._latest.values())

    async def read(self, target: Ref) -> Entry | None:
        """One entry as it is now; None where there is none. Raises ConfigurationError where it is unreadable."""
        try:
            answer = await self._cluster.read(KEY_ROTATIONS, Ref(self.namespace, entry_name(target)))
        except NotFound:
            return None
        return _decoded(answer.body, self._clock.now())

    async def save(self, entry: Entry) -> Entry:
        """Store an entry. Raises Conflict where it has changed since it was read, or was created meanwhile."""
        name = entry_name(entry.target)
        if entry.version is None:
            self.changed[entry.target] = None
            body = {
                "apiVersion": KEY_ROTATIONS.api_version,
                "kind": "KeyRotation",
                "metadata": {"name": name, "namespace": self.namespace},
                **entry_object(entry),
            }
            return self._stored(await self._cluster.create(KEY_ROTATIONS, self.namespace, body))
        patch = entry_patch(entry)
        if not patch:
            return entry
        ref = Ref(self.namespace, name)
        self.changed[entry.target] = None  # the answer may be lost
        return self._stored(await self._cluster.patch(KEY_ROTATIONS, ref, conditional(patch, entry.version)))

    def _stored(self, answer: Answer) -> Entry:
        entry = _decoded(answer.body, self._clock.now())
        self._latest.pop(entry_name(entry.target), None)  # nobody else keeps the old version
        self.changed[entry.target] = entry if is_at_rest(entry) else None
        return entry

    async def update(self, entry: Entry, change: Callable[[Entry], Entry]) -> Entry:
        """Store the result of `change` on the entry, or on its present version where it has changed meanwhile.

        `update` recreates an object that somebody deleted: the accounts that it recorded still exist.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self.save(change(entry))
            except (Conflict, NotFound):
                entry = await self.read(entry.target) or replace(entry, version=None, base=None)
        return await self.save(change(entry))

    async def delete(self, entry: Entry) -> None:
        """Remove an entry, if it is still as it was read (raises Conflict otherwise)."""
        if entry.version is not None:
            ref = Ref(self.namespace, entry_name(entry.target))
            await self._cluster.delete(KEY_ROTATIONS, ref, entry.version)


def _decode(obj: JSON, now: datetime) -> tuple[Ref, Entry | Unreadable]:
    name = obj["metadata"]["name"]
    try:
        entry = plausible(decode_entry(obj), now)
    except Malformed as error:
        return _target_of(name), Unreadable(name, str(error))
    if entry_name(entry.target) != name:
        return _target_of(name), Unreadable(name, "its name is not the one of its target")
    return entry.target, entry


def _target_of(name: str) -> Ref:
    """The target of an unreadable object, by its name: its content may name another target."""
    namespace, _, secret = name.partition(".")
    return Ref(namespace, secret)


def _decoded(body: JSON, now: datetime) -> Entry:
    try:
        return plausible(decode_entry(body), now)
    except Malformed as error:
        name = body.get("metadata", {}).get("name")
        raise ConfigurationError("LedgerUnreadable", f"ledger entry {name!r} was edited: {error}") from None
