"""Read generators and ExternalSecrets from the cluster, and find the targets that they make.

Guarantees: a cluster that does not answer, or does not know generators, ends the command.
The message of that OutOfReach names the missing part.
A cluster without ExternalSecrets has standalone targets only.
ExternalSecrets that cannot be listed, because the webhook that converts them is down, say, stop nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from worker.discover.targets import Discovered, resolve_targets
from worker.errors import ConfigurationError, NotFound, NotSent, OutOfReach, Refused, RotatorError, Unanswered
from worker.kubernetes.external_secret import EXTERNAL_SECRETS, near_miss, raw_external_secret, wanted_secret
from worker.kubernetes.fields import RawObject
from worker.kubernetes.generator import GENERATORS, admin_secrets, own_secret, raw_generator
from worker.model.shard import Shard
from worker.model.targets import Rejected
from worker.model.values import JSON, Ref, Resource
from worker.ports import Cluster
from worker.settings.options import Options

T = TypeVar("T")


async def discover(cluster: Cluster, options: Options, *, partly: bool = False) -> Discovered:
    """Every target of the shard in these namespaces (none: all), or of the generators with these labels.

    `partly`: where ExternalSecrets alone cannot be listed, what does not depend on them is found all the same.

    Of other shards' objects it keeps only the names that matter to this shard's targets.
    Raises ConfigurationError for an invalid selector.
    """
    namespaces, selector, fallback = options.namespaces, options.selector, options.fallback_admin_key
    part = _Part(options.shard)
    try:
        resource, external_secrets, unlisted = await _external_secrets(cluster, namespaces, part)
        if unlisted is not None and not partly:
            raise unlisted
        part.needed = {Ref(raw.ref.namespace, raw.generator) for raw in external_secrets}
        generators = await list_in(cluster, namespaces, GENERATORS, keep=part.generator)
        selected = await _selected(cluster, namespaces, selector) if selector else None
    except NotFound:
        message = f"the cluster does not know {GENERATORS}: kubectl apply -k manifests/crds"
        raise OutOfReach("CRDMissing", message) from None
    except ConfigurationError:
        raise
    except RotatorError as error:
        raise OutOfReach(error.reason, error.message) from None
    known = [raw for raw in generators if raw is not None]
    discovered = resolve_targets(
        known,
        _drained(external_secrets),
        resource=resource,
        allowed_hosts=options.allowed_hosts,
        selected=selected,
        central=options.central_keys,
        protected=part.protected | ({fallback.secret} if fallback is not None else set()),
        scopes=options.scopes,
        shard=options.shard,
        # Any generator may feed an ExternalSecret that cannot be seen.
        used=part.used if unlisted is None else {raw.ref for raw in known},
    )
    # They name no generator, so no selector can mean them.
    near_misses = () if selector else tuple(part.near_misses.values())
    # Whether ExternalSecrets name a generator is not known where they could not be listed.
    in_use = discovered.in_use if unlisted is None else ()
    return replace(discovered, unlisted=unlisted, malformed=(*discovered.malformed, *near_misses), in_use=in_use)


def _drained(items: list[T]) -> Iterator[T]:
    """Each item in order; the list lets go of it. Thousands of raw objects beside their targets are a run's peak."""
    items.reverse()
    while items:
        yield items.pop()


@dataclass(slots=True)
class _Part:
    """What a shard keeps of a list. `needed`: the generators that its ExternalSecrets name."""

    shard: Shard
    needed: set[Ref] = field(default_factory=set)
    used: set[Ref] = field(default_factory=set)
    """Generators that feed another shard's targets."""
    protected: set[Ref] = field(default_factory=set)
    """Admin Secrets of generators that are not kept."""
    near_misses: dict[Ref, Rejected] = field(default_factory=dict)
    """ExternalSecrets that mean an OpenAI generator, it seems, and name none."""

    def external_secret(self, obj: JSON, resource: Resource) -> RawObject | None:
        raw = raw_external_secret(obj)
        missed = near_miss(obj, resource) if raw is None else None
        if missed is not None and self.shard.owns(missed.source.ref):
            self.near_misses[missed.source.ref] = missed
        if raw is None or self.shard.owns(wanted_secret(raw) or raw.ref):
            return raw
        self.used.add(Ref(raw.ref.namespace, raw.generator))
        return None

    def generator(self, obj: JSON) -> RawObject | None:
        raw = raw_generator(obj)
        own = own_secret(raw)
        if raw.ref in self.needed or self.shard.owns(raw.ref) or (own is not None and self.shard.owns(own)):
            return raw
        self.protected |= {secret for secret in admin_secrets(raw) if self.shard.owns(secret)}
        return None


async def list_in(
    cluster: Cluster, namespaces: tuple[str, ...], resource: Resource, *, keep: Callable[[JSON], T], selector: str = ""
) -> list[T]:
    """The objects of these namespaces, or of all where none is named."""
    places: tuple[str | None, ...] = namespaces or (None,)
    return [
        kept for place in places for kept in await cluster.list_all(resource, keep, namespace=place, selector=selector)
    ]


async def _selected(cluster: Cluster, namespaces: tuple[str, ...], selector: str) -> set[Ref]:
    try:
        return set(await list_in(cluster, namespaces, GENERATORS, keep=_ref, selector=selector))
    except Refused as error:
        if error.status != 400:
            raise
        raise ConfigurationError(
            "InvalidSelector", "--selector is not a label selector such as app=x,tier!=y"
        ) from None


def _ref(obj: JSON) -> Ref:
    return Ref(obj["metadata"]["namespace"], obj["metadata"]["name"])


async def _external_secrets(
    cluster: Cluster, namespaces: tuple[str, ...], part: _Part
) -> tuple[Resource | None, list[RawObject], RotatorError | None]:
    """The ExternalSecrets, in the first version that the cluster serves; or why this one cannot be listed."""
    for resource in EXTERNAL_SECRETS:
        try:
            listed = await list_in(cluster, namespaces, resource, keep=partial(part.external_secret, resource=resource))
            return resource, [raw for raw in listed if raw is not None], None
        except NotFound:
            continue
        except NotSent:
            raise
        except Unanswered as error:
            # The other version is not asked for: what is read in one and written in another meets the same webhook.
            return None, [], error
    return None, [], None
