"""Generators and ExternalSecrets, as the API server lists them, to targets. Pure.

Guarantees: a target holds only checked values; one malformed object rejects itself alone; two sources that want one
Secret reject each other; no Secret that holds an admin key becomes a target.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from worker.errors import RotatorError
from worker.kubernetes.external_secret import from_external_secret
from worker.kubernetes.fields import Mistake, RawObject, reject
from worker.kubernetes.generator import admin_secrets, from_generator, generator_source, try_generator
from worker.model.entries import Entry, Unreadable
from worker.model.hosts import Origin
from worker.model.scopes import ANY_SCOPES, ScopePolicy
from worker.model.shard import WHOLE, Shard
from worker.model.targets import Generator, Rejected, Source, Target
from worker.model.values import PREFIX, Ref, Resource
from worker.settings.central_keys import CentralKeys

NOT_SERVED = "ExternalSecretsNotServed"


@dataclass(frozen=True, slots=True)
class Discovered:
    targets: tuple[Target, ...]
    rejected: tuple[Rejected, ...]
    idle: tuple[Source, ...]
    """Well-formed generators that feed nothing."""
    malformed: tuple[Rejected, ...] = ()
    """Generators of whose mistakes the ExternalSecrets that use them are told, and ExternalSecrets that name none."""

    in_use: tuple[Source, ...] = ()
    """Well-formed generators that ExternalSecrets name."""
    generators: tuple[Generator, ...] = ()
    """Every well-formed generator, whether it feeds something or not."""
    unserved: bool = False
    """The cluster does not know ExternalSecrets: what they asked for is not known either."""
    unlisted: RotatorError | None = None
    """Why ExternalSecrets could not be listed, although the cluster knows them."""

    @property
    def unused(self) -> tuple[Ref, ...]:
        return tuple(source.ref for source in self.idle)


def without_asked_elsewhere(discovered: Discovered, entries: Mapping[Ref, Entry | Unreadable]) -> Discovered:
    """While ExternalSecrets cannot be listed: without the targets that one of them asked for, as far as is known."""
    if discovered.unlisted is None:
        return discovered
    message = "an ExternalSecret asked for this Secret, and ExternalSecrets cannot be listed"
    served: list[Target] = []
    refused: list[Rejected] = []
    for target in discovered.targets:
        entry = entries.get(target.ref)
        if isinstance(entry, Entry) and entry.generator.source != "OpenAI":
            refused.append(Rejected(target.ref, target.source, NOT_SERVED, message, target.suspended))
        else:
            served.append(target)
    return replace(discovered, targets=tuple(served), rejected=(*discovered.rejected, *refused))


def resolve_targets(
    generators: Iterable[RawObject],
    external_secrets: Iterable[RawObject],
    *,
    resource: Resource | None,
    allowed_hosts: Collection[Origin],
    central: CentralKeys,
    selected: Collection[Ref] | None = None,
    protected: Collection[Ref] = (),
    scopes: ScopePolicy = ANY_SCOPES,
    shard: Shard = WHOLE,
    used: Collection[Ref] = (),
) -> Discovered:
    """Find every target. `external_secrets`: those that name a generator. `resource`: the version in which they were
    listed, None where there are none.

    `selected`: the generators that this run is about (None: all). The others still count against double use of a
    Secret and protect their admin keys. `protected`: Secrets that are never written besides those and the central ones.
    `scopes`: the operator's word on what keys may do.
    `shard`: whose targets are wanted; of the others' sources none need be given, but for the generators that they use
    (`used`).
    """
    listed = tuple(generators)
    known = {raw.ref: raw for raw in listed if not raw.deleting}
    checked = {ref: try_generator(raw, allowed_hosts, central) for ref, raw in known.items()}
    # A generator that is being deleted protects its admin key, too.
    protected = {ref for raw in listed for ref in admin_secrets(raw)} | central.secrets | set(protected)

    found: list[tuple[Target | Rejected, Ref]] = []
    if resource is not None:
        for raw in external_secrets:
            generator = Ref(raw.ref.namespace, raw.generator)
            feeder, checked_one = known.get(generator), checked.get(generator)
            wanted = from_external_secret(raw, resource, feeder, generator=checked_one, scopes=scopes)
            found.append((wanted, generator))
    alone = [raw for raw in known.values() if _stands_alone(raw)]
    found += [(from_generator(raw, checked[raw.ref], scopes), raw.ref) for raw in alone]
    feeding = {generator for _, generator in found} | set(used)
    found = [(item, generator) for item, generator in found if shard.owns(_subject(item))]

    wanted_by: dict[Ref, list[Source]] = defaultdict(list)
    for item, _ in found:
        secret = item.ref if isinstance(item, Target) else item.secret
        if secret is not None:
            wanted_by[secret].append(item.source)

    # Generators outside the selection have counted above; only selected ones are reported on.
    items = [
        _refuse_shared(item, wanted_by, protected)
        for item, generator in found
        if selected is None or generator in selected
    ]
    looked_at = [known[ref] for ref in sorted(known) if (selected is None or ref in selected) and shard.owns(ref)]
    remarks = _remarks(looked_at, checked, feeding)
    rejected = [item for item in items if isinstance(item, Rejected)]
    return Discovered(
        tuple(item for item in items if isinstance(item, Target)),
        (*rejected, *remarks.unfed),
        remarks.idle,
        remarks.malformed,
        in_use=remarks.in_use,
        generators=tuple(found for found in checked.values() if isinstance(found, Generator)),
        unserved=resource is None,
    )


def _stands_alone(raw: RawObject) -> bool:
    return PREFIX + "secret" in raw.annotations


@dataclass(frozen=True, slots=True)
class _Remarks:
    """What the worker says of generators themselves.

    `unfed`: malformed, and they feed nothing. `malformed`: their ExternalSecrets are told of it as well. `idle`:
    well-formed, and they feed nothing. `in_use`: well-formed, and ExternalSecrets name them.
    """

    unfed: tuple[Rejected, ...]
    malformed: tuple[Rejected, ...]
    idle: tuple[Source, ...]
    in_use: tuple[Source, ...]


def _remarks(
    generators: Iterable[RawObject], checked: Mapping[Ref, Generator | Mistake], feeding: Collection[Ref]
) -> _Remarks:
    unfed: list[Rejected] = []
    malformed: list[Rejected] = []
    idle: list[Source] = []
    in_use: list[Source] = []
    for raw in generators:
        source, mistake = generator_source(raw), checked[raw.ref]
        if isinstance(mistake, Mistake):
            if _stands_alone(raw):
                # It was rejected as the source that it is.
                continue
            (malformed if raw.ref in feeding else unfed).append(reject(None, source, mistake))
        elif raw.ref not in feeding:
            idle.append(source)
        elif not _stands_alone(raw):
            in_use.append(source)
    return _Remarks(tuple(unfed), tuple(malformed), tuple(idle), tuple(in_use))


def _subject(item: Target | Rejected) -> Ref:
    return item.ref if isinstance(item, Target) else item.subject


def _refuse_shared(
    item: Target | Rejected, wanted_by: Mapping[Ref, list[Source]], protected: Collection[Ref]
) -> Target | Rejected:
    secret = item.ref if isinstance(item, Target) else item.secret
    if secret is None:
        return item
    rivals = list(islice((source for source in wanted_by[secret] if source != item.source), 3))
    if rivals:
        others = ", ".join(str(source) for source in rivals)
        message = f"Secret {secret} is also the target of {others}: each Secret can have one source"
        return Rejected(secret, item.source, "SharedTarget", message, item.suspended)
    if secret in protected:
        message = f"Secret {secret} holds an admin key of a generator and is never written"
        return Rejected(secret, item.source, "AdminKeySecret", message, item.suspended)
    return item
