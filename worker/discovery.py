"""Generators and ExternalSecrets, as the API server lists them, to targets. Pure.

Their formats live here and nowhere else. Guarantees: a target holds only checked values; whatever is not on the list of
honoured fields and would change the result rejects its source, by the field's name; one malformed object rejects itself
alone; two sources that want one Secret reject each other; no Secret that holds an admin key becomes a target.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from worker.formats import parse_duration
from worker.hosts import DEFAULT_HOST, Origin, allowed, normalise
from worker.model import (
    ID,
    JSON,
    PREFIX,
    AdminKeyRef,
    CleanupKind,
    CleanupPolicy,
    CreationPolicy,
    Generator,
    Project,
    ProjectAccess,
    Ref,
    RefreshPolicy,
    Rejected,
    Resource,
    Source,
    Target,
)

GENERATOR_GROUP = "generators.external-secrets.io"
GENERATORS = Resource(GENERATOR_GROUP, "v1alpha1", "openais")
EXTERNAL_SECRETS = tuple(Resource("external-secrets.io", version, "externalsecrets") for version in ("v1", "v1beta1"))

DEFAULT_INTERVAL = timedelta(hours=1)
DEFAULT_DATA_KEY = "api_key"
LONGEST_LIFETIME = timedelta(seconds=31_536_000)
"""OpenAI's `expires_in_seconds` goes up to one year."""

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")
_NAME_PREFIX = re.compile(r"[A-Za-z0-9_-]{0,55}\Z")
_LONGEST_ACCOUNT_NAME = 64
E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class RawObject:
    """The parts of a listed object that matter here; made page by page so that a large list stays small."""

    ref: Ref
    uid: str
    generation: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    deleting: bool
    spec: Mapping[str, Any]
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Discovered:
    targets: tuple[Target, ...]
    rejected: tuple[Rejected, ...]
    unused: tuple[Ref, ...]
    """Well-formed generators that feed nothing."""


class Mistake(ValueError):
    """A field of a user's object is not as it must be. `reason` is fit for a condition."""

    def __init__(self, field: str, problem: object, reason: str = "InvalidSpec") -> None:
        super().__init__(f"{field} {problem}")
        self.reason = reason


def raw_object(obj: JSON) -> RawObject:
    """Keep what matters of a listed generator or ExternalSecret, whatever its shape."""
    metadata = obj["metadata"]
    return RawObject(
        ref=Ref(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        labels=_object(metadata.get("labels")),
        annotations={
            key: value
            for key, value in _object(metadata.get("annotations")).items()
            if key.startswith(PREFIX) or key == "force-sync"
        },
        deleting="deletionTimestamp" in metadata,
        spec=_object(obj.get("spec")),
        status=_object(obj.get("status")),
    )


def discover(
    generators: Iterable[RawObject],
    external_secrets: Iterable[RawObject],
    *,
    resource: Resource | None,
    allowed_hosts: Collection[Origin],
    selected: Collection[Ref] | None = None,
    protected: Collection[Ref] = (),
) -> Discovered:
    """Find every target. `resource`: the version in which ExternalSecrets were listed, None where there are none.

    `selected`: the generators that this run is about (None: all). The others still count against double use of a
    Secret and protect their admin keys. `protected`: Secrets that are never written besides those.
    """
    listed = tuple(generators)
    known = {raw.ref: raw for raw in listed if not raw.deleting}
    checked = {ref: _try_generator(raw, allowed_hosts) for ref, raw in known.items()}
    protected = {ref for raw in listed for ref in _admin_secrets(raw)} | set(protected)

    found: list[tuple[Target | Rejected, Ref]] = []
    used: set[Ref] = set()
    if resource is not None:
        for raw in external_secrets:
            name = None if raw.deleting else _generator_name(raw)
            if name is not None:
                generator = Ref(raw.ref.namespace, name)
                used.add(generator)
                found.append(
                    (_from_external_secret(raw, resource, known.get(generator), checked.get(generator)), generator)
                )
    for ref, raw in known.items():
        if PREFIX + "secret" in raw.annotations:
            used.add(ref)
            found.append((_from_generator(raw, checked[ref]), ref))

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
    unused = []
    for ref in sorted(set(known) - used):
        if selected is not None and ref not in selected:
            continue
        generator_or_mistake = checked[ref]
        if isinstance(generator_or_mistake, Mistake):
            rejected.append(_reject(None, _generator_source(known[ref]), generator_or_mistake))
        else:
            unused.append(ref)
    return Discovered(tuple(targets), tuple(rejected), tuple(unused))


def _refuse_shared(
    item: Target | Rejected, wanted_by: Mapping[Ref, list[Source]], protected: Collection[Ref]
) -> Target | Rejected:
    secret = item.ref if isinstance(item, Target) else item.secret
    if secret is None:
        return item
    rivals = [source for source in wanted_by[secret] if source != item.source]
    if rivals:
        others = ", ".join(str(source) for source in rivals[:3])
        message = f"Secret {secret} is also the target of {others}: each Secret can have one source"
        return Rejected(secret, item.source, "SharedTarget", message)
    if secret in protected:
        message = f"Secret {secret} holds an admin key of a generator and is never written"
        return Rejected(secret, item.source, "AdminKeySecret", message)
    return item


# --- generators --------------------------------------------------------------------------------------------------


def _try_generator(raw: RawObject, allowed_hosts: Collection[Origin]) -> Generator | Mistake:
    try:
        return _generator(raw, allowed_hosts)
    except Mistake as mistake:
        return mistake


def _generator(raw: RawObject, allowed_hosts: Collection[Origin]) -> Generator:
    spec = raw.spec
    project = spec.get("projectId")
    if not isinstance(project, str) or not ID.match(project):
        raise Mistake("spec.projectId", "must be an OpenAI project id: letters, digits, - and _")
    try:
        host, origin = normalise(spec.get("host", DEFAULT_HOST))
    except ValueError as error:
        raise Mistake("spec.host", error) from None
    if not allowed(origin, allowed_hosts):
        raise Mistake(
            "spec.host",
            "is not a host that may receive the admin key: it is not OpenAI's own over https, "
            "and the operator has not named it with --allow-host",
            "HostNotAllowed",
        )
    size = spec.get("serviceAccountNameSize", 12)
    if not isinstance(size, int) or isinstance(size, bool) or not 8 <= size <= 40:
        raise Mistake("spec.serviceAccountNameSize", "must be a whole number from 8 to 40")
    prefix = spec.get("serviceAccountNamePrefix") or ""
    if not isinstance(prefix, str) or not _NAME_PREFIX.match(prefix) or len(prefix) + 1 + size > _LONGEST_ACCOUNT_NAME:
        raise Mistake(
            "spec.serviceAccountNamePrefix",
            f"must be letters, digits, - and _, and the account's name at most {_LONGEST_ACCOUNT_NAME} characters",
        )
    return Generator(
        ref=raw.ref,
        uid=raw.uid,
        access=ProjectAccess(Project(host, project), _admin_key(raw)),
        name_prefix=prefix,
        name_size=size,
        cleanup=_cleanup(spec.get("cleanupPolicy")),
    )


def _admin_key(raw: RawObject) -> AdminKeyRef:
    where = raw.spec.get("openAiAdminKey")
    if not isinstance(where, Mapping):
        raise Mistake("spec.openAiAdminKey", "must name the Secret and the key that hold the admin key")
    name, key = where.get("name"), where.get("key")
    if not _is_name(name):
        raise Mistake("spec.openAiAdminKey.name", "must be the name of a Secret")
    if not isinstance(key, str) or not _DATA_KEY.match(key):
        raise Mistake("spec.openAiAdminKey.key", "must be a key of that Secret")
    if where.get("namespace") not in (None, raw.ref.namespace):
        raise Mistake("spec.openAiAdminKey.namespace", "must be the generator's own namespace, or absent")
    return AdminKeyRef(Ref(raw.ref.namespace, str(name)), key)


def _admin_secrets(raw: RawObject) -> list[Ref]:
    """The Secret that a generator names as admin key; protected also while it is malformed or being deleted."""
    name = _object(raw.spec.get("openAiAdminKey")).get("name")
    return [Ref(raw.ref.namespace, name)] if isinstance(name, str) else []


def _cleanup(spec: object) -> CleanupPolicy:
    if spec is None:
        return CleanupPolicy()
    if not isinstance(spec, Mapping):
        raise Mistake("spec.cleanupPolicy", "must be an object")
    default = CleanupPolicy()
    try:
        kind = CleanupKind(spec.get("type", default.kind))
    except ValueError:
        raise Mistake("spec.cleanupPolicy.type", "must be retainLatest or idle") from None
    return CleanupPolicy(
        kind,
        _duration("spec.cleanupPolicy.gracePeriod", spec.get("gracePeriod"), default.grace),
        _duration("spec.cleanupPolicy.idleTimeout", spec.get("idleTimeout"), default.idle),
    )


def _from_generator(raw: RawObject, generator: Generator | Mistake) -> Target | Rejected:
    """A standalone target: the generator's own annotations say which Secret it feeds."""
    source, annotations = _generator_source(raw), raw.annotations
    name = annotations[PREFIX + "secret"]
    secret = Ref(raw.ref.namespace, name) if _is_name(name) else None
    try:
        if secret is None:
            raise Mistake(f"annotation {PREFIX}secret", "must be the name of a Secret")
        if isinstance(generator, Mistake):
            raise generator
        data_key = annotations.get(PREFIX + "secret-key", DEFAULT_DATA_KEY)
        if not _DATA_KEY.match(data_key):
            raise Mistake(f"annotation {PREFIX}secret-key", "must be a key that a Secret may have")
        interval = _duration(
            f"annotation {PREFIX}refresh-interval",
            annotations.get(PREFIX + "refresh-interval"),
            DEFAULT_INTERVAL,
            zero=True,
        )
        return Target(
            ref=secret,
            source=source,
            generator=generator,
            data_key=data_key,
            interval=interval or None,
            refresh=RefreshPolicy.PERIODIC,
            creation=CreationPolicy.OWNER,
            suspended=_suspended(raw),
            requests=_requests(raw),
            key_lifetime=_lifetime(raw),
        )
    except Mistake as mistake:
        return _reject(secret, source, mistake)


def _generator_source(raw: RawObject) -> Source:
    return Source(GENERATORS, "OpenAI", raw.ref, raw.uid, raw.generation)


# --- ExternalSecrets ---------------------------------------------------------------------------------------------


def _generator_name(raw: RawObject) -> str | None:
    """The OpenAI generator that an ExternalSecret names anywhere, None where it names none and is not our business."""
    for field in ("dataFrom", "data"):
        items = raw.spec.get(field)
        for item in items if isinstance(items, list) else []:
            reference = _object(_object(_object(item).get("sourceRef")).get("generatorRef"))
            group = str(reference.get("apiVersion", GENERATOR_GROUP)).partition("/")[0]
            if reference.get("kind") == "OpenAI" and group == GENERATOR_GROUP:
                return str(reference.get("name", ""))
    return None


def _from_external_secret(
    raw: RawObject, resource: Resource, feeding: RawObject | None, generator: Generator | Mistake | None
) -> Target | Rejected:
    source = Source(
        resource,
        "ExternalSecret",
        raw.ref,
        raw.uid,
        raw.generation,
        _metadata_hash(raw),
        _status_of_interest(raw.status),
    )
    wanted = _object(raw.spec.get("target"))
    name = wanted.get("name") or raw.ref.name
    secret = Ref(raw.ref.namespace, name) if _is_name(name) else None
    try:
        if secret is None:
            raise Mistake("spec.target.name", "must be the name of a Secret")
        data_key = _data_key(raw.spec)
        labels, annotations = _template_metadata(wanted)
        creation = _creation_policy(wanted)
        refresh = _choice(RefreshPolicy, "spec.refreshPolicy", raw.spec.get("refreshPolicy"), RefreshPolicy.PERIODIC)
        interval = _duration("spec.refreshInterval", raw.spec.get("refreshInterval"), DEFAULT_INTERVAL, zero=True)
        if feeding is None or generator is None:
            raise Mistake(
                "spec.dataFrom[0].sourceRef.generatorRef",
                f"names an OpenAI generator that does not exist: {str(_generator_name(raw))[:80]!r}",
                "NoGenerator",
            )
        if isinstance(generator, Mistake):
            raise Mistake(f"generator {feeding.ref}:", generator, generator.reason)
        requests = _requests(raw, feeding)
        if refresh is RefreshPolicy.ON_CHANGE:
            requests = {**requests, "generation": str(raw.generation)}
        return Target(
            ref=secret,
            source=source,
            generator=generator,
            data_key=data_key,
            interval=interval if interval and refresh is RefreshPolicy.PERIODIC else None,
            refresh=refresh,
            creation=creation,
            labels=labels,
            annotations=annotations,
            suspended=_suspended(raw, feeding),
            requests=requests,
            key_lifetime=_lifetime(raw, feeding),
        )
    except Mistake as mistake:
        return _reject(secret, source, mistake)


def _data_key(spec: Mapping[str, Any]) -> str:
    """The Secret's data key, after the one rewrite that is honoured: a new name for `api_key`."""
    _only(spec, "spec", {"refreshInterval", "refreshPolicy", "secretStoreRef", "target", "data", "dataFrom"})
    items = spec.get("dataFrom")
    if spec.get("data"):
        raise Mistake("spec.data", "is not honoured beside or in place of the generator: use spec.dataFrom alone")
    if not isinstance(items, list) or len(items) != 1:
        raise Mistake("spec.dataFrom", "must have the generator as its only source", "MixedSources")
    item = _object(items[0])
    _only(item, "spec.dataFrom[0]", {"sourceRef", "rewrite"})
    reference = _object(_object(item.get("sourceRef")).get("generatorRef"))
    if reference.get("apiVersion", GENERATORS.api_version) != GENERATORS.api_version:
        raise Mistake("spec.dataFrom[0].sourceRef.generatorRef.apiVersion", f"must be {GENERATORS.api_version}")
    rewrite = item.get("rewrite")
    if not rewrite:
        return DEFAULT_DATA_KEY
    rename = _object(_object(rewrite[0]).get("regexp")) if isinstance(rewrite, list) and len(rewrite) == 1 else {}
    if rename.get("source") not in (DEFAULT_DATA_KEY, f"^{DEFAULT_DATA_KEY}$"):
        raise Mistake("spec.dataFrom[0].rewrite", f"is honoured only as one regexp whose source is {DEFAULT_DATA_KEY}")
    target = rename.get("target")
    if not isinstance(target, str) or not _DATA_KEY.match(target):
        raise Mistake("spec.dataFrom[0].rewrite[0].regexp.target", "must be a key that a Secret may have")
    return target


def _creation_policy(wanted: Mapping[str, Any]) -> CreationPolicy:
    """Also refuses what is not honoured in `spec.target`.

    `deletionPolicy` says what happens when a source has no data; a generator always has, so each of its values is
    accepted and none has an effect (as in External Secrets Operator).
    """
    _only(wanted, "spec.target", {"name", "creationPolicy", "deletionPolicy", "template", "immutable"})
    if wanted.get("immutable"):
        raise Mistake("spec.target.immutable", "is not honoured: an immutable Secret cannot be rotated")
    if wanted.get("deletionPolicy") not in (None, "Delete", "Merge", "Retain"):
        raise Mistake("spec.target.deletionPolicy", "must be Delete, Merge or Retain")
    if wanted.get("creationPolicy") == "None":
        raise Mistake("spec.target.creationPolicy", "None writes no Secret, so there is nothing to rotate")
    return _choice(CreationPolicy, "spec.target.creationPolicy", wanted.get("creationPolicy"), CreationPolicy.OWNER)


def _template_metadata(wanted: Mapping[str, Any]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    template = _object(wanted.get("template"))
    _only(template, "spec.target.template", {"metadata", "type", "engineVersion", "mergePolicy", "data"})
    if template.get("data"):
        raise Mistake("spec.target.template.data", "is not honoured: the key is written as it is, under its data key")
    if template.get("type") not in (None, "", "Opaque"):
        raise Mistake("spec.target.template.type", "must be Opaque: Secrets of other types are never written")
    metadata = _object(template.get("metadata"))
    _only(metadata, "spec.target.template.metadata", {"labels", "annotations"})
    return _plain_map(metadata, "labels"), _plain_map(metadata, "annotations")


def _plain_map(metadata: Mapping[str, Any], field: str) -> Mapping[str, str]:
    where = f"spec.target.template.metadata.{field}"
    values = _object(metadata.get(field))
    for key, value in values.items():
        if key.startswith(PREFIX) or "external-secrets.io/" in key:
            raise Mistake(where, f"may not set {key[:80]!r}: that prefix belongs to a controller")
        if not isinstance(value, str) or "{{" in value:
            raise Mistake(where, "must be plain text: Go templates are not honoured")
    return dict(values)


def _status_of_interest(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """What announcing compares with: the conditions and the fields that it writes."""
    return {
        key: status[key] for key in ("conditions", "syncedResourceVersion", "binding", "refreshTime") if key in status
    }


def _metadata_hash(raw: RawObject) -> str:
    text = json.dumps([dict(raw.labels), dict(raw.annotations)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- small checks ------------------------------------------------------------------------------------------------


def _only(obj: Mapping[str, Any], where: str, honoured: Collection[str]) -> None:
    for field in sorted(obj):
        if field not in honoured and obj[field] not in (None, "", [], {}):
            raise Mistake(f"{where}.{field[:80]}", "is not honoured by the rotator", "UnsupportedField")


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 253 and _SUBDOMAIN.match(value) is not None


def _choice(kind: type[E], field: str, value: object, default: E) -> E:
    if value is None:
        return default
    try:
        return kind(str(value))
    except ValueError:
        raise Mistake(field, f"must be one of {', '.join(kind)}") from None


def _duration(field: str, value: object, default: timedelta, *, zero: bool = False) -> timedelta:
    if value is None:
        return default
    try:
        duration = parse_duration(value)
    except ValueError as error:
        raise Mistake(field, error) from None
    if not duration and not zero:
        raise Mistake(field, "must be longer than nothing")
    return duration


def _suspended(*objects: RawObject) -> bool:
    """Suspended by any of the objects that make a target."""
    field = PREFIX + "suspend"
    values = [raw.annotations[field] for raw in objects if field in raw.annotations]
    if not set(values) <= {"true", "false"}:
        raise Mistake(f"annotation {field}", 'must be "true" or "false"')
    return "true" in values


def _requests(source: RawObject, generator: RawObject | None = None) -> Mapping[str, str]:
    """The requests for one rotation each; a long value is kept as its hash, for it goes into the ledger."""
    values = {"rotate": source.annotations.get(PREFIX + "rotate"), "forceSync": source.annotations.get("force-sync")}
    if generator is not None:
        values["generatorRotate"] = generator.annotations.get(PREFIX + "rotate")
    return {
        key: value if len(value) <= 64 else "sha256:" + hashlib.sha256(value.encode()).hexdigest()
        for key, value in values.items()
        if value is not None
    }


def _lifetime(*objects: RawObject) -> timedelta | None:
    """The key lifetime that the first of the objects asks for."""
    field = PREFIX + "key-lifetime"
    for raw in objects:
        if field in raw.annotations:
            lifetime = _duration(f"annotation {field}", raw.annotations[field], timedelta(0))
            if not timedelta(seconds=1) <= lifetime <= LONGEST_LIFETIME:
                raise Mistake(f"annotation {field}", "must be from 1s to 8760h (a year)")
            return lifetime
    return None


def _reject(secret: Ref | None, source: Source, mistake: Mistake) -> Rejected:
    return Rejected(secret, source, mistake.reason, str(mistake))
