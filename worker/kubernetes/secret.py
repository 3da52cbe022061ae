"""Secrets as the rotator reads and writes them: the view without values, the one PATCH with the key. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from worker.kubernetes.reading import Malformed, mapping, present, text, time, version_of
from worker.model.entries import Account, Entry, accounts_of
from worker.model.hidden import Hidden
from worker.model.names import ID
from worker.model.sightings import NamedAccount, SecretView
from worker.model.targets import CreationPolicy, Project, Target
from worker.model.values import JSON, PREFIX, Ref, Resource

SECRETS = Resource("", "v1", "secrets")


CURRENT = PREFIX + "service-account"


PREVIOUS = PREFIX + "previous-service-accounts"


MANAGED = PREFIX + "managed"


_LONGEST_ANNOTATION = 16_384
"""An annotation of ours has a few hundred characters; a longer one is not ours, and we do not parse it."""


# --- the target Secret -------------------------------------------------------------------------------------------


def secret_view(obj: Mapping[str, Any]) -> SecretView:
    """A Secret for the stages: everything but its values."""
    metadata = mapping(obj, "metadata")
    annotations = dict(mapping(metadata, "annotations"))
    data = mapping(obj, "data")
    return SecretView(
        ref=Ref(text(metadata, "namespace"), text(metadata, "name")),
        version=version_of(obj),
        type=str(obj.get("type", "Opaque")),
        immutable=obj.get("immutable") is True,
        filled=frozenset(key for key, value in data.items() if value),
        labels=dict(mapping(metadata, "labels")),
        annotations=annotations,
        digests={key: _digest(value) for key, value in data.items() if value},
        owners=tuple(metadata.get("ownerReferences") or ()),
        named=_named_account(annotations.get(CURRENT)),
    )


def secret_value(obj: Mapping[str, Any], data_key: str) -> Hidden | None:
    """One data value of a Secret, None if there is none, or no text."""
    try:
        value = base64.b64decode(str(mapping(obj, "data").get(data_key, ""))).decode()
    except ValueError:
        return None
    return Hidden(value) if value else None


def placeholder(ref: Ref) -> JSON:
    """An empty Secret of that name as the rotator would make it: for asking whether there could be one."""
    metadata = {"name": ref.name, "namespace": ref.namespace, "labels": {MANAGED: "true"}}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata}


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
        return time(stored, field)
    except Malformed:
        return None


def previous_accounts(secret: SecretView) -> tuple[tuple[str, str], ...] | None:
    """Id and name of each account that the Secret's annotation lists as previous; None if it is unreadable."""
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
    target: Target,
    secret: SecretView | None,
    entry: Entry,
    *,
    key: Account,
    value: Hidden,
    at: datetime,
    owned: bool = True,
) -> JSON:
    """The one PATCH (or, without a Secret, the object to create) that publishes a key together with its account's name.

    The PATCH carries the resourceVersion of the read Secret. `at` is the time of writing, for the annotation only.
    `owned`: False leaves the owner references as they are.
    """
    previous = [p.account for p in entry.history if p.account.name != key.name]
    annotations = dict(target.annotations) | {
        CURRENT: _json(_annotation(key, entry, at) | {"dataKey": target.data_key}),
        PREVIOUS: _json([{"id": account.id, "name": account.name} for account in previous]),
    }
    metadata: JSON = {"labels": dict(target.labels) | {MANAGED: "true"}, "annotations": annotations}
    owners = _owners(target, secret) if owned else None
    if owners is not None:
        metadata["ownerReferences"] = owners
    data: JSON = {target.data_key: base64.b64encode(value.reveal().encode()).decode()}
    for former in _former_keys(secret, entry) if secret is not None else ():
        if former != target.data_key:
            data[former] = None  # somebody renamed the data key: a dying key would stay under the old name
    body: JSON = {"metadata": metadata, "data": data}
    if secret is None:
        metadata["name"], metadata["namespace"] = target.ref.name, target.ref.namespace
        return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque"} | body
    metadata["resourceVersion"] = secret.version.resource_version
    return body


def _former_keys(secret: SecretView, entry: Entry) -> set[str]:
    """The data keys with keys of ours: told by the annotation, or by the digests that the ledger has."""
    digests = {account.key_digest for account in accounts_of(entry)} - {None}
    former = {place for place, digest in secret.digests.items() if digest in digests}
    named = secret.named.data_key if secret.named is not None else None
    return former | ({named} if named is not None and named in secret.filled else set())


def release_patch(target: Target, secret: SecretView) -> JSON | None:
    """The PATCH without our owner reference, where the Secret is to outlive its source; None: it has none."""
    if target.creation is CreationPolicy.OWNER:
        return None
    owners = _owners(target, secret)
    if owners is None:
        return None
    return {"metadata": {"resourceVersion": secret.version.resource_version, "ownerReferences": owners}}


def _annotation(account: Account, entry: Entry, at: datetime) -> JSON:
    return present(
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
    """The owner references to write; None if they stay as they are."""
    source = target.source
    ours = {
        "apiVersion": source.resource.api_version,
        "kind": source.kind,
        "name": source.ref.name,
        "uid": source.uid,
        "controller": True,
    }
    existing = secret.owners if secret is not None else ()
    named = [owner for owner in existing if owner.get("uid") == source.uid]
    if target.creation is CreationPolicy.OWNER and any(o.get("apiVersion") == ours["apiVersion"] for o in named):
        # It goes with its source already. Clusters that guard owner references would refuse any other form of it.
        return None
    # A reference to an earlier object of the same kind and name goes: with it the collector would take the Secret.
    others = [owner for owner in existing if not _same_object(owner, ours)]
    if target.creation is not CreationPolicy.OWNER:
        # An earlier policy may have left ours: with it the collector would take the Secret.
        return others if len(others) < len(existing) else None
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


OPERATOR_LABELS = ("reconcile.external-secrets.io/created-by", "reconcile.external-secrets.io/managed")
