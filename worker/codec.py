"""Our own formats: the KeyRotation object, and what is written into and read from a target Secret. Pure.

Guarantees: an entry that is encoded and decoded again is equal to the first (times to the second); a value that is not
what we write raises `Malformed`, naming the field; no function returns or raises a data value of a Secret.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from worker.formats import format_duration, format_time, parse_duration, parse_time
from worker.model import (
    ID,
    JSON,
    PREFIX,
    Account,
    AdminKeyRef,
    CleanupKind,
    CleanupPolicy,
    Condition,
    CreationPolicy,
    Entry,
    Failures,
    GeneratorNote,
    Hidden,
    Hold,
    Intent,
    NamedAccount,
    Project,
    ProjectAccess,
    Publication,
    Ref,
    Resource,
    SecretView,
    Target,
    Throttle,
    Version,
)

KEY_ROTATIONS = Resource("openai-key-rotator.io", "v1alpha1", "keyrotations")
SECRETS = Resource("", "v1", "secrets")

CURRENT = PREFIX + "service-account"
PREVIOUS = PREFIX + "previous-service-accounts"
MANAGED = PREFIX + "managed"

_LONGEST_ANNOTATION = 16_384
"""An annotation of ours has a few hundred characters; a longer one is not ours and is not parsed."""


class Malformed(ValueError):
    """A stored value is not what we write there."""


# --- KeyRotation -------------------------------------------------------------------------------------------------


def entry_name(target: Ref) -> str:
    """The object's name: `<namespace>.<secret>`, cut and hashed where that is longer than 253 characters.

    A namespace has no dots, so two targets never share a name.
    """
    name = f"{target.namespace}.{target.name}"
    if len(name) <= 253:
        return name
    return f"{name[:230].rstrip('.-')}.{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def entry_object(entry: Entry) -> JSON:
    """The KeyRotation's `spec` and `status`; absent values are left out."""
    accounts: JSON = {}
    for publication in entry.history:
        accounts[publication.account.name] = _account_object(publication.account, entry.target) | _present(
            publishedAt=publication.at,
            supersededAt=publication.superseded_at,
            requestedAt=publication.requested_at,
            secretGone=publication.secret_gone or None,
            secretBackAt=publication.secret_back_at,
            **_hold_object(publication.held),
        )
    for intent in entry.unpublished:
        accounts[intent.account.name] = _account_object(intent.account, entry.target) | _present(
            requestedAt=intent.requested_at,
            claimedUntil=intent.claimed_until,
            missedAt=intent.missed_at,
            refused=intent.refused or None,
        )
    condition = entry.condition
    oldest = min((publication.at for publication in entry.history), default=None)
    held = min((publication.held.since for publication in entry.history if publication.held is not None), default=None)
    ends = [publication.account.expires_at for publication in entry.history]
    cleanup = entry.generator.cleanup
    return {
        "spec": {
            "target": {"namespace": entry.target.namespace, "secret": entry.target.name},
            "generator": {
                "name": entry.generator.name,
                "cleanupPolicy": {
                    "type": cleanup.kind.value,
                    "gracePeriod": format_duration(cleanup.grace),
                    "idleTimeout": format_duration(cleanup.idle),
                },
            },
            "ledger": entry.ledger,
        },
        "status": _present(
            accountCount=len(accounts),
            since=entry.since,
            oldestKeyAt=oldest,
            heldSince=held,
            nextExpiryAt=min((at for at in ends if at is not None), default=None),
            lastRotatedAt=entry.last_rotated_at,
            nextRotationAt=entry.next_rotation_at,
        )
        | ({"accounts": accounts} if accounts else {})
        | ({"honoured": dict(entry.honoured)} if entry.honoured else {})
        | (
            {"failures": _present(count=entry.failures.count, nextAttemptAt=entry.failures.next_attempt_at)}
            if entry.failures.count
            else {}
        )
        | ({"throttle": _throttle_object(entry.throttle)} if entry.throttle is not None else {})
        | (
            {
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "True" if condition.ready else "False",
                        "reason": condition.reason,
                        "message": condition.message,
                        "lastTransitionTime": format_time(condition.since),
                    }
                ]
            }
            if condition is not None
            else {}
        ),
    }


def decode_entry(obj: Mapping[str, Any]) -> Entry:
    """Read a KeyRotation. Raises Malformed naming the field that is not as we write it."""
    spec, status = _mapping(obj, "spec"), _mapping(obj, "status")
    target, generator = _mapping(spec, "target"), _mapping(spec, "generator")
    ref = Ref(_text(target, "namespace"), _text(target, "secret"))
    history, unpublished = [], []
    for name, stored in _mapping(status, "accounts").items():
        if not isinstance(stored, Mapping):
            raise Malformed("status.accounts holds something that is not an object")
        account = _account(name, stored, ref.namespace, _mapping(obj, "metadata").get("namespace"))
        published, requested = _time(stored, "publishedAt"), _time(stored, "requestedAt")
        if published is not None:
            superseded = _time(stored, "supersededAt")
            held = _hold(stored, since=superseded or published)
            gone, back = stored.get("secretGone") is True, _time(stored, "secretBackAt")
            history.append(Publication(account, published, superseded, requested, held, gone, back))
        else:
            claimed = _time(stored, "claimedUntil")
            if requested is None or claimed is None:
                raise Malformed("status.accounts holds an account without publishedAt, requestedAt or claimedUntil")
            unpublished.append(
                Intent(account, requested, claimed, _time(stored, "missedAt"), stored.get("refused") is True)
            )
    failures = _mapping(status, "failures")
    count = failures.get("count", 0)
    honoured = _mapping(status, "honoured")
    if not isinstance(count, int) or not all(isinstance(value, str) for value in honoured.values()):
        raise Malformed("status.failures.count or status.honoured is not as written by the rotator")
    return Entry(
        target=ref,
        ledger=_text(spec, "ledger"),
        generator=GeneratorNote(str(generator.get("name", "")), _cleanup(_mapping(generator, "cleanupPolicy"))),
        history=tuple(sorted(history, key=lambda p: (p.at, p.account.name))),
        unpublished=tuple(sorted(unpublished, key=lambda i: (i.requested_at, i.account.name))),
        since=_time(status, "since"),
        last_rotated_at=_time(status, "lastRotatedAt"),
        next_rotation_at=_time(status, "nextRotationAt"),
        honoured=dict(honoured),
        failures=Failures(count, _time(failures, "nextAttemptAt")),
        throttle=_throttle(_mapping(status, "throttle")),
        condition=_condition(status.get("conditions")),
        version=version_of(obj),
        stored=json.dumps({"spec": spec, "status": status}).encode(),
    )


def _hold_object(hold: Hold | None) -> JSON:
    return {} if hold is None else {"held": hold.why, "heldSince": hold.since, "heldTold": hold.told}


def _hold(stored: Mapping[str, Any], *, since: datetime) -> Hold | None:
    """`since`: where the object does not say since when, as those of the first version do not."""
    begun = _time(stored, "heldSince") or since
    told = _text(stored, "heldTold") if stored.get("heldTold") is not None else None
    return Hold(_text(stored, "held"), begun, told) if stored.get("held") is not None else None


def _throttle_object(throttle: Throttle) -> JSON:
    return {
        "host": throttle.host,
        "adminKeyDigest": throttle.key,
        "until": format_time(throttle.until),
        "times": throttle.times,
    }


def _throttle(stored: Mapping[str, Any]) -> Throttle | None:
    if not stored:
        return None
    until, times = _time(stored, "until"), stored.get("times")
    if until is None or not isinstance(times, int):
        raise Malformed("status.throttle is not as written by the rotator")
    return Throttle(_text(stored, "host"), _text(stored, "adminKeyDigest"), until, times)


def version_of(obj: Mapping[str, Any]) -> Version:
    metadata = _mapping(obj, "metadata")
    return Version(_text(metadata, "uid"), _text(metadata, "resourceVersion"))


def entry_patch(entry: Entry) -> JSON:
    """What turns the entry as it was read into what it is now."""
    return merge_patch(json.loads(entry.stored), entry_object(entry))


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> JSON:
    """The smallest JSON merge patch (RFC 7396) that turns `before` into `after`."""
    patch: JSON = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            if inner := merge_patch(old, value):
                patch[key] = inner
        elif key not in before or old != value:
            patch[key] = value
    return patch


def _account_object(account: Account, target: Ref) -> JSON:
    access, admin = account.access, account.access.admin_key
    central = admin.is_central(target.namespace)
    return _present(
        id=account.id,
        keyId=account.key_id,
        host=access.project.host,
        projectId=access.project.id,
        adminKey=_present(name=admin.secret.name, key=admin.key, namespace=admin.secret.namespace if central else None),
        expiresAt=account.expires_at,
        keyDigest=account.key_digest,
        dataKey=account.data_key,
    )


def _account(name: str, stored: Mapping[str, Any], namespace: str, ledger_namespace: object) -> Account:
    admin = _mapping(stored, "adminKey")
    where = admin.get("namespace", namespace)
    if where not in (namespace, ledger_namespace):
        raise Malformed("status.accounts: adminKey.namespace is neither the target's nor the ledger's")
    for field in ("id", "keyId", "projectId", "keyDigest"):
        if field in stored and not (isinstance(stored[field], str) and ID.match(stored[field])):
            raise Malformed(f"status.accounts: {field} is not an id")
    return Account(
        name=name,
        access=_access(
            _text(stored, "host"), _text(stored, "projectId"), where, _text(admin, "name"), _text(admin, "key")
        ),
        id=stored.get("id"),
        key_id=stored.get("keyId"),
        expires_at=_time(stored, "expiresAt"),
        key_digest=stored.get("keyDigest"),
        data_key=_text(stored, "dataKey") if "dataKey" in stored else None,
    )


@functools.lru_cache(maxsize=1024)
def _access(host: str, project: str, namespace: str, secret: str, key: str) -> ProjectAccess:
    """Thousands of accounts have few of them between them, so each is one object."""
    return ProjectAccess(Project(host, project), AdminKeyRef(Ref(namespace, secret), key))


def _cleanup(stored: Mapping[str, Any]) -> CleanupPolicy:
    default = CleanupPolicy()
    try:
        return CleanupPolicy(
            CleanupKind(stored.get("type", default.kind)),
            parse_duration(stored["gracePeriod"]) if "gracePeriod" in stored else default.grace,
            parse_duration(stored["idleTimeout"]) if "idleTimeout" in stored else default.idle,
        )
    except ValueError as error:
        raise Malformed(f"spec.generator.cleanupPolicy: {error}") from None


def _condition(stored: object) -> Condition | None:
    if not isinstance(stored, list):
        return None
    for item in stored:
        if isinstance(item, Mapping) and item.get("type") == "Ready":
            since = _time(item, "lastTransitionTime")
            if since is not None:
                reason, message = str(item.get("reason", "")), str(item.get("message", ""))
                return Condition(item.get("status") == "True", reason, message, since)
    return None


def _present(**values: Any) -> JSON:
    """The values that are not None, times in our format."""
    return {
        key: format_time(value) if isinstance(value, datetime) else value
        for key, value in values.items()
        if value is not None
    }


def _mapping(obj: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = obj.get(field) or {}
    if not isinstance(value, Mapping):
        raise Malformed(f"{field} is not an object")
    return value


def _text(obj: Mapping[str, Any], field: str) -> str:
    value = obj.get(field)
    if not isinstance(value, str) or not value:
        raise Malformed(f"{field} is missing")
    return value


def _time(obj: Mapping[str, Any], field: str) -> datetime | None:
    if obj.get(field) is None:
        return None
    try:
        return parse_time(obj[field])
    except ValueError as error:
        raise Malformed(f"{field}: {error}") from None


# --- the target Secret -------------------------------------------------------------------------------------------


def secret_view(obj: Mapping[str, Any]) -> SecretView:
    """What the stages may know of a Secret: everything but its values."""
    metadata = _mapping(obj, "metadata")
    annotations = dict(_mapping(metadata, "annotations"))
    data = _mapping(obj, "data")
    return SecretView(
        ref=Ref(_text(metadata, "namespace"), _text(metadata, "name")),
        version=version_of(obj),
        type=str(obj.get("type", "Opaque")),
        immutable=obj.get("immutable") is True,
        filled=frozenset(key for key, value in data.items() if value),
        labels=dict(_mapping(metadata, "labels")),
        annotations=annotations,
        digests={key: _digest(value) for key, value in data.items() if value},
        owners=tuple(metadata.get("ownerReferences") or ()),
        named=_named_account(annotations.get(CURRENT)),
    )


def _digest(value: object) -> str:
    try:
        return Hidden(base64.b64decode(str(value)).decode()).digest()
    except ValueError:
        return ""  # not text, so no key


def _named_account(text: object) -> NamedAccount | None:
    if not isinstance(text, str) or len(text) > _LONGEST_ANNOTATION:
        return None
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(stored, dict):
        return None
    texts = {key: stored.get(key) for key in ("id", "name", "target", "ledger")}
    if not all(isinstance(value, str) and value for value in texts.values()) or not ID.match(stored["id"]):
        return None
    key_id, host, project = stored.get("keyId"), stored.get("host"), stored.get("projectId")
    return NamedAccount(
        id=stored["id"],
        name=stored["name"],
        key_id=key_id if isinstance(key_id, str) and ID.match(key_id) else None,
        project=Project(host, project) if isinstance(host, str) and isinstance(project, str) else None,
        target=stored["target"],
        ledger=stored["ledger"],
        data_key=stored["dataKey"] if isinstance(stored.get("dataKey"), str) else None,
        expires_at=_time_if_any(stored, "expiresAt"),
        published_at=_time_if_any(stored, "publishedAt"),
    )


def _time_if_any(stored: Mapping[str, Any], field: str) -> datetime | None:
    try:
        return _time(stored, field)
    except Malformed:
        return None


def previous_accounts(secret: SecretView) -> tuple[tuple[str, str], ...] | None:
    """Id and name of the accounts that the Secret's annotation lists as previous ones; None where it is unreadable."""
    text = secret.annotations.get(PREVIOUS, "[]")
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError, TypeError):
        return None
    found = []
    for item in stored if isinstance(stored, list) else [None]:
        pair = [str(item.get(field, "")) for field in ("id", "name")] if isinstance(item, dict) else [""]
        if not all(ID.match(value) for value in pair):
            return None
        found.append((pair[0], pair[1]))
    return tuple(found)


def key_patch(
    target: Target, secret: SecretView | None, entry: Entry, key: Account, value: Hidden, at: datetime
) -> JSON:
    """The one PATCH (or, without a Secret, the object to create) that publishes a key together with its account's name.

    Under the resourceVersion of the Secret that was read. `at` is the time of writing, for the annotation only.
    """
    previous = [p.account for p in entry.history if p.account.name != key.name]
    annotations = dict(target.annotations) | {
        CURRENT: _json(_annotation(key, entry, at) | {"dataKey": target.data_key}),
        PREVIOUS: _json([{"id": account.id, "name": account.name} for account in previous]),
    }
    metadata: JSON = {"labels": dict(target.labels) | {MANAGED: "true"}, "annotations": annotations}
    owners = _owners(target, secret)
    if owners is not None:
        metadata["ownerReferences"] = owners
    data: JSON = {target.data_key: base64.b64encode(value.reveal().encode()).decode()}
    former = secret.named.data_key if secret is not None and secret.named is not None else None
    if secret is not None and former != target.data_key and former in secret.filled:
        data[former] = None  # the data key was renamed: under the old name a key would stay that is going to die
    body: JSON = {"metadata": metadata, "data": data}
    if secret is None:
        metadata["name"], metadata["namespace"] = target.ref.name, target.ref.namespace
        return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque"} | body
    metadata["resourceVersion"] = secret.version.resource_version
    return body


def _annotation(account: Account, entry: Entry, at: datetime) -> JSON:
    return _present(
        id=account.id,
        name=account.name,
        keyId=account.key_id,
        projectId=account.access.project.id,
        host=account.access.project.host,
        publishedAt=at,
        expiresAt=account.expires_at,
        target=str(entry.target),
        ledger=entry.ledger,
    )


def _owners(target: Target, secret: SecretView | None) -> list[Mapping[str, Any]] | None:
    """The owner references to write; None where they stay as they are.

    A reference to an earlier object of the same kind and name is dropped: with it the Secret would be collected.
    """
    if target.creation is not CreationPolicy.OWNER:
        return None
    source = target.source
    ours = {
        "apiVersion": source.resource.api_version,
        "kind": source.kind,
        "name": source.ref.name,
        "uid": source.uid,
        "controller": True,
    }
    existing = secret.owners if secret is not None else ()
    others = [owner for owner in existing if not _same_object(owner, ours)]
    if any(owner.get("controller") for owner in others):
        ours["controller"] = False
    return [*others, ours]


def _same_object(owner: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """The same kind and name, whatever version of the API and whichever uid."""
    return (owner.get("kind"), owner.get("name")) == (ours["kind"], ours["name"]) and str(
        owner.get("apiVersion", "")
    ).partition("/")[0] == str(ours["apiVersion"]).partition("/")[0]


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
