"""`GeneratorState`: the closed enterprise operator's note of each account that it made. Pure.

The latest of an ExternalSecret has no `garbageCollectionDeadline`.
A tenant can write all of it, so it is only evidence to compare with OpenAI's answers.
Guarantee: ids match the pattern of OpenAI's ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker.kubernetes.generator import GENERATOR_GROUP
from worker.kubernetes.reading import mapping_or_empty
from worker.model.hosts import DEFAULT_HOST, normalise
from worker.model.names import ID
from worker.model.targets import Project
from worker.model.times import parse_time
from worker.model.values import JSON, Ref, Resource

GENERATOR_STATES = Resource(GENERATOR_GROUP, "v1alpha1", "generatorstates")


@dataclass(frozen=True, slots=True)
class GeneratorState:
    """`account_id` and `project` are None where they do not have that operator's format."""

    ref: Ref
    made_at: datetime
    owners: frozenset[str]
    """Uids of the ExternalSecrets that it belongs to."""
    latest: bool
    """Neither superseded nor being deleted; of several the newest is in the Secret."""
    account_id: str | None
    project: Project | None


def generator_state(obj: JSON) -> GeneratorState | None:
    """Read a listed GeneratorState; None where it is another generator's."""
    metadata, spec = obj["metadata"], mapping_or_empty(obj.get("spec"))
    resource = mapping_or_empty(spec.get("resource"))
    group = str(resource.get("apiVersion", "")).partition("/")[0]
    if resource.get("kind") != "OpenAI" or group != GENERATOR_GROUP:
        return None
    account = mapping_or_empty(spec.get("state")).get("serviceAccountId")
    owners = metadata.get("ownerReferences") or []
    return GeneratorState(
        ref=Ref(metadata["namespace"], metadata["name"]),
        made_at=parse_time(metadata["creationTimestamp"]),
        owners=frozenset(str(owner.get("uid")) for owner in owners if owner.get("kind") == "ExternalSecret"),
        latest=not spec.get("garbageCollectionDeadline") and "deletionTimestamp" not in metadata,
        account_id=account if isinstance(account, str) and ID.match(account) else None,
        project=_project(mapping_or_empty(resource.get("spec"))),
    )


def _project(spec: Mapping[str, Any]) -> Project | None:
    project = spec.get("projectId")
    try:
        host, _ = normalise(spec.get("host") or DEFAULT_HOST)
    except ValueError:
        return None
    return Project(host, project) if isinstance(project, str) and ID.match(project) else None
