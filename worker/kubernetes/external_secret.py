"""The ExternalSecret's format: the honoured fields and their meaning. Pure.

Guarantee: a field outside the list of honoured fields raises a `Mistake` with its name, if it would change the result.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from worker.kubernetes.fields import (
    DEFAULT_DATA_KEY,
    DEFAULT_INTERVAL,
    LARGEST_METADATA,
    Mistake,
    RawObject,
    Shape,
    at_least,
    choice,
    duration,
    key_scopes,
    lifetime,
    only,
    plain_map,
    raw_object,
    reject,
    requests_of,
    restart_wish,
    status_of_interest,
    suspended,
    text,
)
from worker.kubernetes.generator import GENERATOR_GROUP, GENERATORS
from worker.kubernetes.reading import mapping_or_empty
from worker.kubernetes.template import LARGEST_TEMPLATE, template_of
from worker.model.names import DATA_KEY, is_name
from worker.model.scopes import ScopePolicy
from worker.model.targets import CreationPolicy, Generator, RefreshPolicy, Rejected, Source, Target
from worker.model.values import JSON, PREFIX, Ref, Resource

EXTERNAL_SECRETS = tuple(Resource("external-secrets.io", version, "externalsecrets") for version in ("v1", "v1beta1"))


def _template_data(value: object) -> object:
    """A template's texts, whole because they are written; True if they are too large for that."""
    if not isinstance(value, Mapping):
        return text(value)
    if sum(sys.getsizeof(name) + sys.getsizeof(part) for name, part in value.items()) > LARGEST_TEMPLATE:
        return True
    return {name: part if isinstance(part, str) else True for name, part in value.items()}


# The honoured fields. `text` also stands for a field without checked content: we ignore the field, or refuse any value.
_REFERENCE: Shape = {"apiVersion": text, "kind": text, "name": text}
_SOURCE: Mapping[str, Shape] = {
    "sourceRef": {"generatorRef": _REFERENCE},
    "rewrite": ({"regexp": {"source": text, "target": text}},),
}
_METADATA: Mapping[str, Shape] = {"labels": plain_map, "annotations": plain_map}
_TEMPLATE: Mapping[str, Shape] = {
    "metadata": _METADATA,
    "type": text,
    "engineVersion": text,
    "mergePolicy": text,
    "data": _template_data,
}
_TARGET: Mapping[str, Shape] = {
    "name": text,
    "creationPolicy": text,
    "deletionPolicy": text,
    "template": _TEMPLATE,
    "immutable": text,
}
_SPEC: Mapping[str, Shape] = {
    "refreshInterval": text,
    "refreshPolicy": text,
    "secretStoreRef": text,
    "target": _TARGET,
    "data": text,
    "dataFrom": (_SOURCE,),
}


def raw_external_secret(obj: JSON) -> RawObject | None:
    """The kept part of a listed ExternalSecret; None if it is being deleted or names no OpenAI generator."""
    spec = mapping_or_empty(obj.get("spec"))
    generator = _generator_name(spec)
    if generator is None or "deletionTimestamp" in obj["metadata"]:
        return None
    return raw_object(obj, _SPEC, status=status_of_interest(obj), generator=generator)


def _generator_name(spec: Mapping[str, Any]) -> str | None:
    """The OpenAI generator that an ExternalSecret names anywhere."""
    for reference in _references(spec):
        if reference.get("kind") == "OpenAI" and _group(reference) == GENERATOR_GROUP:
            return str(text(str(reference.get("name", ""))))
    return None


def _references(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for field in ("dataFrom", "data"):
        items = spec.get(field)
        for item in items if isinstance(items, list) else []:
            yield mapping_or_empty(mapping_or_empty(mapping_or_empty(item).get("sourceRef")).get("generatorRef"))


def _group(reference: Mapping[str, Any]) -> str:
    return str(reference.get("apiVersion", GENERATOR_GROUP)).partition("/")[0]


def near_miss(obj: JSON, resource: Resource) -> Rejected | None:
    """An ExternalSecret that means an OpenAI generator, it seems, and names none: wrong case, or another API group.

    It makes no target, not even a rejected one: the kind may be another controller's.
    """
    spec, metadata = mapping_or_empty(obj.get("spec")), obj["metadata"]
    if "deletionTimestamp" in metadata or _generator_name(spec) is not None:
        return None
    for reference in _references(spec):
        if str(reference.get("kind", "")).casefold() != "openai":
            continue
        ref = Ref(metadata["namespace"], metadata["name"])
        source = Source(resource, "ExternalSecret", ref, metadata["uid"], metadata.get("generation", 0))
        found = f"{_group(reference)[:80]!r}, kind {str(reference['kind'])[:20]!r}"
        message = (
            f"sourceRef.generatorRef names API group {found}: this rotator serves {GENERATORS.api_version}, kind "
            "'OpenAI', alone; nothing is made for it"
        )
        return Rejected(None, source, "NoGenerator", message)
    return None


def wanted_secret(raw: RawObject) -> Ref | None:
    """The Secret that an ExternalSecret asks for; None if its name is invalid."""
    name = mapping_or_empty(raw.spec.get("target")).get("name") or raw.ref.name
    return Ref(raw.ref.namespace, name) if is_name(name) else None


def from_external_secret(
    raw: RawObject,
    resource: Resource,
    feeding: RawObject | None,
    *,
    generator: Generator | Mistake | None,
    scopes: ScopePolicy,
) -> Target | Rejected:
    source = Source(
        resource,
        "ExternalSecret",
        raw.ref,
        raw.uid,
        raw.generation,
        raw.metadata_hash,
        raw.status,
        on_change=raw.spec.get("refreshPolicy") == RefreshPolicy.ON_CHANGE,
    )
    wanted, secret = mapping_or_empty(raw.spec.get("target")), wanted_secret(raw)
    try:
        if secret is None:
            raise Mistake("spec.target.name", "must be the name of a Secret")
        data_key = _data_key(raw.spec)
        labels, annotations = _template_metadata(wanted)
        template = template_of(mapping_or_empty(wanted.get("template")), data_key)
        creation = _creation_policy(wanted)
        refresh = choice(
            RefreshPolicy, "spec.refreshPolicy", raw.spec.get("refreshPolicy"), default=RefreshPolicy.PERIODIC
        )
        interval = duration("spec.refreshInterval", raw.spec.get("refreshInterval"), DEFAULT_INTERVAL, zero=True)
        if feeding is None or generator is None:
            raise Mistake(
                "spec.dataFrom[0].sourceRef.generatorRef",
                f"names an OpenAI generator that does not exist: {raw.generator[:80]!r}",
                "NoGenerator",
            )
        if isinstance(generator, Mistake):
            raise Mistake(f"generator {feeding.ref}:", generator, generator.reason)
        requests = requests_of(raw, feeding)
        if refresh is RefreshPolicy.ON_CHANGE:
            requests = {**requests, "generation": str(raw.generation)}
        return Target(
            ref=secret,
            source=source,
            generator=generator,
            data_key=data_key,
            interval=at_least(interval) if refresh is RefreshPolicy.PERIODIC else None,
            refresh=refresh,
            creation=creation,
            labels=labels,
            annotations=annotations,
            suspended=suspended(raw, feeding),
            requests=requests,
            key_lifetime=lifetime(raw, feeding),
            key_scopes=key_scopes(scopes, raw, feeding),
            restart=restart_wish(raw, feeding),
            template=template,
        )
    except Mistake as mistake:
        return reject(secret, source, mistake, raw, feeding)


def _data_key(spec: Mapping[str, Any]) -> str:
    """The Secret's data key, after the one honoured rewrite: a new name for `api_key`."""
    only(spec, "spec", _SPEC)
    items = spec.get("dataFrom")
    if spec.get("data"):
        raise Mistake("spec.data", "is not honoured beside or in place of the generator: use spec.dataFrom alone")
    if not isinstance(items, list) or len(items) != 1:
        raise Mistake("spec.dataFrom", "must have the generator as its only source", "MixedSources")
    item = mapping_or_empty(items[0])
    only(item, "spec.dataFrom[0]", _SOURCE)
    reference = mapping_or_empty(mapping_or_empty(item.get("sourceRef")).get("generatorRef"))
    if reference.get("apiVersion", GENERATORS.api_version) != GENERATORS.api_version:
        raise Mistake("spec.dataFrom[0].sourceRef.generatorRef.apiVersion", f"must be {GENERATORS.api_version}")
    rewrite = item.get("rewrite")
    if not rewrite:
        return DEFAULT_DATA_KEY
    rename = (
        mapping_or_empty(mapping_or_empty(rewrite[0]).get("regexp"))
        if isinstance(rewrite, list) and len(rewrite) == 1
        else {}
    )
    if rename.get("source") not in (DEFAULT_DATA_KEY, f"^{DEFAULT_DATA_KEY}$"):
        raise Mistake("spec.dataFrom[0].rewrite", f"is honoured only as one regexp whose source is {DEFAULT_DATA_KEY}")
    target = rename.get("target")
    if not isinstance(target, str) or not DATA_KEY.match(target):
        raise Mistake("spec.dataFrom[0].rewrite[0].regexp.target", "must be a key that a Secret may have")
    return target


def _creation_policy(wanted: Mapping[str, Any]) -> CreationPolicy:
    """Also refuses the fields of `spec.target` that are not honoured."""
    only(wanted, "spec.target", _TARGET)
    if wanted.get("immutable"):
        raise Mistake("spec.target.immutable", "is not honoured: an immutable Secret cannot be rotated")
    # `deletionPolicy` governs a source without data. A generator always has data.
    # So we accept each value, and none has an effect (as in External Secrets Operator).
    if wanted.get("deletionPolicy") not in (None, "Delete", "Merge", "Retain"):
        raise Mistake("spec.target.deletionPolicy", "must be Delete, Merge or Retain")
    if wanted.get("creationPolicy") == "None":
        raise Mistake("spec.target.creationPolicy", "None writes no Secret, so there is nothing to rotate")
    return choice(
        CreationPolicy, "spec.target.creationPolicy", wanted.get("creationPolicy"), default=CreationPolicy.OWNER
    )


def _template_metadata(wanted: Mapping[str, Any]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    template = mapping_or_empty(wanted.get("template"))
    only(template, "spec.target.template", _TEMPLATE)
    if template.get("type") not in (None, "", "Opaque"):
        raise Mistake("spec.target.template.type", "must be Opaque: Secrets of other types are never written")
    metadata = mapping_or_empty(template.get("metadata"))
    only(metadata, "spec.target.template.metadata", _METADATA)
    return _plain_map(metadata, "labels"), _plain_map(metadata, "annotations")


def _plain_map(metadata: Mapping[str, Any], field: str) -> Mapping[str, str]:
    where = f"spec.target.template.metadata.{field}"
    values = metadata.get(field) or {}
    if not isinstance(values, Mapping):
        raise Mistake(where, f"is too large to be honoured (above {LARGEST_METADATA // 1024} kB), or no map")
    for key, value in values.items():
        if key.startswith(PREFIX) or "external-secrets.io/" in key:
            raise Mistake(where, f"may not set {key[:80]!r}: that prefix belongs to a controller")
        if not isinstance(value, str) or "{{" in value:
            raise Mistake(where, "must be plain text: Go templates are not honoured")
    return dict(values)
