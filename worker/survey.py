"""Read generators and ExternalSecrets from the cluster, and find the targets that they make.

Guarantee: a cluster that cannot be asked, or does not know generators, ends the command (OutOfReach) in words that name
what is missing; one without ExternalSecrets has standalone targets only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from worker.central_keys import CentralKeys
from worker.discovery import Discovered, discover
from worker.errors import ConfigurationError, NotFound, OutOfReach, Refused, RotatorError
from worker.external_secrets import EXTERNAL_SECRETS, raw_external_secret
from worker.fields import RawObject
from worker.generators import GENERATORS, raw_generator
from worker.hosts import Origin
from worker.model import JSON, AdminKeyRef, Ref, Resource
from worker.ports import Cluster

T = TypeVar("T")


async def survey(
    cluster: Cluster,
    *,
    namespaces: tuple[str, ...],
    selector: str = "",
    allowed_hosts: Collection[Origin],
    fallback: AdminKeyRef | None,
    central: CentralKeys,
) -> Discovered:
    """Every target of these namespaces (none: all), or of the generators with these labels.

    `fallback`: an admin key whose Secret is no target either. Raises ConfigurationError for a selector that is none.
    """
    try:
        generators = await list_in(cluster, namespaces, GENERATORS, raw_generator)
        selected = await _selected(cluster, namespaces, selector) if selector else None
        resource, external_secrets = await _external_secrets(cluster, namespaces)
    except NotFound:
        message = f"the cluster does not know {GENERATORS}: kubectl apply -k manifests/crds"
        raise OutOfReach("CRDMissing", message) from None
    except ConfigurationError:
        raise
    except RotatorError as error:
        raise OutOfReach(error.reason, error.message) from None
    return discover(
        generators,
        external_secrets,
        resource=resource,
        allowed_hosts=allowed_hosts,
        selected=selected,
        central=central,
        protected=[fallback.secret] if fallback is not None else [],
    )


async def list_in(
    cluster: Cluster, namespaces: tuple[str, ...], resource: Resource, keep: Callable[[JSON], T], selector: str = ""
) -> list[T]:
    """The objects of these namespaces, or of all where none is named."""
    places: tuple[str | None, ...] = namespaces or (None,)
    return [
        kept for place in places for kept in await cluster.list_all(resource, keep, namespace=place, selector=selector)
    ]


async def _selected(cluster: Cluster, namespaces: tuple[str, ...], selector: str) -> set[Ref]:
    try:
        return set(await list_in(cluster, namespaces, GENERATORS, _ref, selector))
    except Refused as error:
        if error.status != 400:
            raise
        raise ConfigurationError(
            "InvalidSelector", "--selector is not a label selector such as app=x,tier!=y"
        ) from None


def _ref(obj: JSON) -> Ref:
    return Ref(obj["metadata"]["namespace"], obj["metadata"]["name"])


async def _external_secrets(cluster: Cluster, namespaces: tuple[str, ...]) -> tuple[Resource | None, list[RawObject]]:
    """In the first version that the cluster serves."""
    for resource in EXTERNAL_SECRETS:
        try:
            listed = await list_in(cluster, namespaces, resource, raw_external_secret)
            return resource, [raw for raw in listed if raw is not None]
        except NotFound:
            continue
    return None, []
