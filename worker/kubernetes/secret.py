"""Secrets as the rotator reads and writes them: the view without values, the one PATCH with the key. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from worker.kubernetes.reading import (
    USER_AGENT,
    Malformed,
    mapping,
    mapping_or_empty,
    mappings,
    present,
    text,
    time,
    time_or_none,
    version_of,
)
from worker.kubernetes.rendered import read_rendered, rendered_object
from worker.model.entries import Account, Entry, Publication, accounts_of, current
from worker.model.hidden import Hidden
from worker.model.names import ID
from worker.model.sightings import NamedAccount, SecretView
from worker.model.targets import CreationPolicy, Project, Target
from worker.model.values import JSON, PREFIX, Ref, Resource

SECRETS = Resource("", "v1", "secrets")


CURRENT = PREFIX + "service-account"


PREVIOUS = PREFIX + "previous-service-accounts"


MANAGED = PREFIX + "managed"


TEMPLATE = PREFIX + "template"
"""Labels and annotations that the last publication took from the target's template, with their values."""


_LONGEST_ANNOTATION = 32_768
"""An annotation of ours has some hundred characters, and 17,000 at most, with a template of many long data keys. A
longer one is not ours, and we do not parse it."""


_MANAGER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,62}\Z")
"""The form of a field manager's name that messages repeat: any writer may choose its own."""


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
        sizes={key: _size(str(value)) for key, value in data.items()},
        owners=tuple(metadata.get("ownerReferences") or ()),
        named=_named_account(annotations.get(CURRENT)),
        last_writer=_last_writer(metadata.get("managedFields")),
    )


def _last_writer(managed: object) -> str | None:
    """The manager of the latest write, unless that was the worker's. Whoever only took fields away is not noted."""
    written: dict[str, datetime] = {}
    for item in mappings(managed):
        name, at = item.get("manager"), time_or_none(item.get("time"))
        if isinstance(name, str) and _MANAGER.match(name) and at is not None:
            written[name] = max(at, written.get(name, at))
    ours = written.pop(USER_AGENT, None)
    latest = max(written, key=lambda name: (written[name], name), default=None)
    return latest if latest is not None and (ours is None or written[latest] >= ours) else None


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


def _size(value: str) -> int:
    """Bytes behind a data value, which is base64."""
    return len(value) // 4 * 3 - value.count("=")


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
    try:
        rendered = read_rendered(stored)
    except Malformed:
        return None
    key_id, host, project = stored.get("keyId"), stored.get("host"), stored.get("projectId")
    digest = stored.get("keyDigest")
    return NamedAccount(
        id=stored["id"],
        name=stored["name"],
        key_id=key_id if isinstance(key_id, str) and ID.match(key_id) else None,
        project=Project(host, project) if isinstance(host, str) and isinstance(project, str) else None,
        target=stored["target"],
        ledger=stored["ledger"],
        data_key=stored["dataKey"] if isinstance(stored.get("dataKey"), str) else None,
        key_digest=digest if isinstance(digest, str) and ID.match(digest) else None,
        rendered=rendered,
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
    given = {"labels": dict(target.labels), "annotations": dict(target.annotations)}
    dropped = _dropped(secret, given)
    annotations = dropped["annotations"] | given["annotations"] | _account_annotations(target, entry, key, at)
    ours = _ours(secret, given)
    if any(ours.values()):
        annotations[TEMPLATE] = _json(ours)
    elif secret is not None and TEMPLATE in secret.annotations:
        annotations[TEMPLATE] = None
    metadata: JSON = {
        "labels": dropped["labels"] | given["labels"] | {MANAGED: "true"},
        "annotations": annotations,
    }
    owners = _owners(target, secret) if owned else None
    if owners is not None:
        metadata["ownerReferences"] = owners
    data: JSON = {data_key: _encoded(value.between(pieces)) for data_key, pieces in target.values.items()}
    for former in _former_keys(secret, entry) if secret is not None else ():
        if former not in data:
            # Somebody renamed the data key, or took it from the template: a dying key would stay under the old name.
            data[former] = None
    body: JSON = {"metadata": metadata, "data": data}
    if secret is None:
        metadata["name"], metadata["namespace"] = target.ref.name, target.ref.namespace
        return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque"} | body
    metadata["resourceVersion"] = secret.version.resource_version
    return body


def _encoded(value: Hidden) -> str:
    return base64.b64encode(value.reveal().encode()).decode()


def marks_patch(target: Target, secret: SecretView, entry: Entry, publication: Publication) -> JSON:
    """The PATCH that writes label and annotations again, for the key that is in place. The data stays as it is."""
    account = publication.account
    return {
        "metadata": {
            "resourceVersion": secret.version.resource_version,
            "labels": {MANAGED: "true"},
            "annotations": _account_annotations(target, entry, account, publication.at),
        }
    }


def _account_annotations(target: Target, entry: Entry, account: Account, at: datetime) -> dict[str, str]:
    previous = [p.account for p in entry.history if p.account.name != account.name]
    places = {"dataKey": target.data_key}
    if account.rendered is not None:
        places = present(keyDigest=account.key_digest, rendered=rendered_object(account.rendered))
    return {
        CURRENT: _json(_annotation(account, entry, at) | places),
        PREVIOUS: _json([{"id": other.id, "name": other.name} for other in previous]),
    }


def _ours(secret: SecretView | None, given: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """What this publication gives the Secret, and what earlier ones gave it: not what somebody else had put there."""
    if secret is None:
        return {field: dict(values) for field, values in given.items()}
    written = _written(secret.annotations.get(TEMPLATE))
    found: dict[str, dict[str, str]] = {}
    for field, now in (("labels", secret.labels), ("annotations", secret.annotations)):
        before = mapping_or_empty(written.get(field))
        found[field] = {
            name: value for name, value in given[field].items() if now.get(name) != value or before.get(name) == value
        }
    return found


def _dropped(secret: SecretView | None, given: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str | None]]:
    """What goes from the Secret: what an earlier template gave, this one lacks, and nobody has changed since."""
    dropped: dict[str, dict[str, str | None]] = {"labels": {}, "annotations": {}}
    if secret is None:
        return dropped
    written = _written(secret.annotations.get(TEMPLATE))
    for field, now in (("labels", secret.labels), ("annotations", secret.annotations)):
        for name, value in mapping_or_empty(written.get(field)).items():
            # An annotation is anybody's to edit: it never takes away what belongs to a controller.
            if name in given[field] or PREFIX in name or "external-secrets.io/" in name:
                continue
            if isinstance(value, str) and now.get(name) == value:
                dropped[field][name] = None
    return dropped


def _written(stored: str | None) -> Mapping[str, Any]:
    try:
        return mapping_or_empty(json.loads(stored or "{}"))
    except (ValueError, RecursionError):
        return {}


def _former_keys(secret: SecretView, entry: Entry) -> set[str]:
    """The data keys of earlier publications: told by the ledger, or that of a key that stands alone by the annotation.

    A key of ours goes from wherever it is. Text without a key goes where it is what we wrote, under the name it had.
    """
    former = set()
    for account in accounts_of(entry):
        places = account.places_of_key()
        former |= {data_key for data_key, digest in secret.digests.items() if digest in places}
        former |= {data_key for data_key, placed in account.values().items() if secret.has(data_key, placed)}
    named = secret.named
    if named is not None and named.data_key is not None:
        former |= secret.filled & {named.data_key}
    publication = current(entry)
    if publication is not None and publication.account.rendered is not None:
        # Somebody may have edited the file: a dying key may be in it still. The annotation, which anybody may edit,
        # has no say in this.
        former |= secret.filled & publication.account.rendered.key_places().keys()
    return former


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
        scopes=list(account.scopes) or None,
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
