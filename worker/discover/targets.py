"""Generators and ExternalSecrets, as the API server lists them, to targets. Pure.

Guarantees: a target holds only checked values; one malformed object rejects itself alone; two sources that want one
Secret reject each other; no Secret that holds an admin key becomes a target.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from worker.kubernetes.external_secret import from_external_secret
from worker.kubernetes.fields import Mistake, RawObject, reject
from worker.kubernetes.generator import admin_secrets, from_generator, generator_source, try_generator
from worker.model.hosts import Origin
from worker.model.shard import WHOLE, Shard
from worker.model.targets import Rejected, Source, Target
from worker.model.values import PREFIX, Ref, Resource
from worker.settings.central_keys import CentralKeys


@dataclass(frozen=True, slots=True)
class Discovered:
    targets: tuple[Target, ...]
    rejected: tuple[Rejected, ...]
    idle: tuple[Source, ...]
    """Well-formed generators that feed nothing."""
    malformed: tuple[Rejected, ...] = ()
    """Generators of whose mistakes the ExternalSecrets that use them are told."""

    @property
    def unused(self) -> tuple[Ref, ...]:
        return tuple(source.ref for source in self.idle)


def resolve_targets(
    generators: Iterable[RawObject],
    external_secrets: Iterable[RawObject],
    *,
    resource: Resource | None,
    allowed_hosts: Collection[Origin],
    central: CentralKeys,
    selected: Collection[Ref] | None = None,
    protected: Collection[Ref] = (),
    shard: Shard = WHOLE,
    used: Collection[Ref] = (),
) -> Discovered:
    """Find every target. `external_secrets`: those that name a generator. `resource`: the version in which they were
    listed, None where there are none.

    `selected`: the generators that this run is about (None: all). The others still count against double use of a
    Secret and protect their admin keys. `protected`: Secrets that are never written besides those and the central ones.
    `shard`: whose targets are wanted; of the others' sources none need be given, but for the generators that they use
    (`used`).
    """
    listed = tuple(generators)
    known = {raw.ref: raw for raw in listed if not raw.deleting}
    checked = {ref: try_generator(raw, allowed_hosts, central) for ref, raw in known.items()}
    protected = {ref for raw in listed for ref in admin_secrets(raw)} | central.secrets | set(protected)

    found: list[tuple[Target | Rejected, Ref]] = []
    used = set(used)
    if resource is not None:
        for raw in external_secrets:
            generator = Ref(raw.ref.namespace, raw.generator)
            used.add(generator)
            found.append((from_external_secret(raw, resource, known.get(generator), checked.get(generator)), generator))
    for ref, raw in known.items():
        if PREFIX + "secret" in raw.annotations:
            used.add(ref)
            found.append((from_generator(raw, checked[ref]), ref))
    found = [(item, generator) for item, generator in found if shard.owns(_subject(item))]

    wanted_by: dict[Ref, list[Source]] = defaultdict(list)
    for item, _ in found:
        secret = item.ref if isinstance(item, Target) else item.secret
        if secret is not None:
            wanted_by[secret].append(item.source)

    targets: list[Target] = []
    rejected: list[Rejected] = []
    for item, generator in found:
        if selected is not None and generator not in selected:
            continue
        item = _refuse_shared(item, wanted_by, protected)
        if isinstance(item, Target):
            targets.append(item)
        else:
            rejected.append(item)
    idle: list[Source] = []
    malformed: list[Rejected] = []
    for ref in sorted(known):
        if (selected is not None and ref not in selected) or not shard.owns(ref):
            continue
        source, mistake = generator_source(known[ref]), checked[ref]
        if isinstance(mistake, Mistake):
            if PREFIX + "secret" not in known[ref].annotations:  # else it was rejected as the source that it is
                (malformed if ref in used else rejected).append(reject(None, source, mistake))
        elif ref not in used:
            idle.append(source)
    return Discovered(tuple(targets), tuple(rejected), tuple(idle), tuple(malformed))


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
        return Rejected(secret, item.source, "SharedTarget", message)
    if secret in protected:
        message = f"Secret {secret} holds an admin key of a generator and is never written"
        return Rejected(secret, item.source, "AdminKeySecret", message)
    return item
