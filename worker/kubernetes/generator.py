"""The `OpenAI` generator's format: its fields, and the annotations that make it feed a Secret by itself. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from worker.kubernetes.fields import (
    DEFAULT_DATA_KEY,
    DEFAULT_INTERVAL,
    Mistake,
    RawObject,
    Shape,
    at_least,
    duration,
    key_scopes,
    lifetime,
    raw_object,
    reject,
    requests_of,
    restart_wish,
    status_of_interest,
    suspended,
    text,
)
from worker.kubernetes.reading import mapping_or_empty
from worker.model.hosts import DEFAULT_HOST, Origin, allowed, normalise
from worker.model.names import DATA_KEY, ID, is_name
from worker.model.scopes import ScopePolicy
from worker.model.targets import (
    AdminKeyRef,
    CleanupKind,
    CleanupPolicy,
    CreationPolicy,
    Generator,
    Project,
    ProjectAccess,
    RefreshPolicy,
    Rejected,
    Source,
    Target,
)
from worker.model.values import JSON, PREFIX, Ref, Resource
from worker.settings.central_keys import CentralKeys

GENERATOR_GROUP = "generators.external-secrets.io"
GENERATORS = Resource(GENERATOR_GROUP, "v1alpha1", "openais")

_NAME_PREFIX = re.compile(r"[A-Za-z0-9_-]{0,55}\Z")
_LONGEST_ACCOUNT_NAME = 64
_SPEC: Mapping[str, Shape] = {
    "projectId": text,
    "host": text,
    "openAiAdminKey": {"name": text, "key": text, "namespace": text},
    "serviceAccountNamePrefix": text,
    "serviceAccountNameSize": text,
    "cleanupPolicy": {"type": text, "gracePeriod": text, "idleTimeout": text},
}


def raw_generator(obj: JSON) -> RawObject:
    """The kept part of a listed generator."""
    return raw_object(obj, _SPEC, status=status_of_interest(obj))


def try_generator(raw: RawObject, allowed_hosts: Collection[Origin], central: CentralKeys) -> Generator | Mistake:
    try:
        return _generator(raw, allowed_hosts, central)
    except Mistake as mistake:
        return mistake


def _generator(raw: RawObject, allowed_hosts: Collection[Origin], central: CentralKeys) -> Generator:
    spec = raw.spec
    id = spec.get("projectId")
    if not isinstance(id, str) or not ID.match(id):
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
    project = Project(host, id)
    return Generator(
        ref=raw.ref,
        uid=raw.uid,
        access=ProjectAccess(project, _admin_key(raw, project, central)),
        name_prefix=prefix,
        name_size=size,
        cleanup=_cleanup(spec.get("cleanupPolicy")),
    )


def _admin_key(raw: RawObject, project: Project, central: CentralKeys) -> AdminKeyRef:
    """The admin key in the generator's own namespace; the operator's if it names none (`openAiAdminKey: {}`)."""
    where = raw.spec.get("openAiAdminKey")
    if not isinstance(where, Mapping):
        raise Mistake("spec.openAiAdminKey", "must name the Secret and the key that hold the admin key")
    name, key, namespace = where.get("name"), where.get("key"), where.get("namespace")
    if name is None and key is None and namespace is None:
        granted = central.key_for(project, raw.ref.namespace)
        if granted is None:
            message = f"names no Secret, and namespace {raw.ref.namespace} may use no central admin key for {project}"
            raise Mistake("spec.openAiAdminKey", message + " (--central-admin-keys)", "NoCentralAdminKey")
        return granted
    if not is_name(name):
        raise Mistake("spec.openAiAdminKey.name", "must be the name of a Secret")
    if not isinstance(key, str) or not DATA_KEY.match(key):
        raise Mistake("spec.openAiAdminKey.key", "must be a key of that Secret")
    if namespace not in (None, raw.ref.namespace):
        raise Mistake("spec.openAiAdminKey.namespace", "must be the generator's own namespace, or absent")
    return AdminKeyRef(Ref(raw.ref.namespace, str(name)), key)


def admin_secrets(raw: RawObject) -> list[Ref]:
    """The Secret that a generator names as admin key; protected also while it is malformed or being deleted."""
    name = mapping_or_empty(raw.spec.get("openAiAdminKey")).get("name")
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
        duration("spec.cleanupPolicy.gracePeriod", spec.get("gracePeriod"), default.grace),
        duration("spec.cleanupPolicy.idleTimeout", spec.get("idleTimeout"), default.idle),
    )


def own_secret(raw: RawObject) -> Ref | None:
    """The Secret that a generator feeds by itself; None if it feeds none, or if the name is invalid."""
    name = raw.annotations.get(PREFIX + "secret")
    return Ref(raw.ref.namespace, name) if name is not None and is_name(name) else None


def from_generator(raw: RawObject, generator: Generator | Mistake, scopes: ScopePolicy) -> Target | Rejected:
    """A standalone target: the generator's own annotations name its Secret."""
    source, annotations = generator_source(raw), raw.annotations
    secret = own_secret(raw)
    try:
        if secret is None:
            raise Mistake(f"annotation {PREFIX}secret", "must be the name of a Secret")
        if isinstance(generator, Mistake):
            raise generator
        data_key = annotations.get(PREFIX + "secret-key", DEFAULT_DATA_KEY)
        if not DATA_KEY.match(data_key):
            raise Mistake(f"annotation {PREFIX}secret-key", "must be a key that a Secret may have")
        interval = duration(
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
            interval=at_least(interval),
            refresh=RefreshPolicy.PERIODIC,
            creation=CreationPolicy.OWNER,
            suspended=suspended(raw),
            requests=requests_of(raw),
            key_lifetime=lifetime(raw),
            key_scopes=key_scopes(scopes, raw),
            restart=restart_wish(raw),
        )
    except Mistake as mistake:
        return reject(secret, source, mistake, raw)


def generator_source(raw: RawObject) -> Source:
    return Source(GENERATORS, "OpenAI", raw.ref, raw.uid, raw.generation, status=raw.status)
