"""The form of an AdminKeyRotation: what the ledger keeps of one Secret's admin keys. Pure.

Guarantees: an entry equals itself after encoding and decoding (times to the second).
A value in another format raises `Malformed`, which names the field.
A time that lies ahead, by a wrong clock or an editor, makes nothing wait longer and lets no key go earlier.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from worker.kubernetes.reading import Malformed, mapping, mappings, present, text, time, version_of
from worker.ledger.codec import merge_patch
from worker.ledger.conditions import condition_objects, read_condition
from worker.ledger.transitions import CLAIM, CLOCKS_APART
from worker.model.admin_keys import AdminEntry, AdminIntent, AdminKey
from worker.model.entries import Failures
from worker.model.names import ID
from worker.model.values import JSON, Resource

ADMIN_KEY_ROTATIONS = Resource("openai-key-rotator.io", "v1alpha1", "adminkeyrotations")
LONGEST_PAUSE = timedelta(days=1)


def admin_entry_object(entry: AdminEntry) -> JSON:
    """The object's `spec` and `status`; absent values are left out."""
    condition, failures = entry.condition, entry.failures
    held = [key.held_since for key in entry.superseded if key.held_since is not None]
    current = entry.current
    return {
        "spec": {"secret": entry.secret, "key": entry.key, "host": entry.host, "ledger": entry.ledger},
        "status": present(
            keyCount=len(entry.history) + (entry.intent is not None),
            lastRotatedAt=entry.last_rotated_at,
            nextRotationAt=entry.next_rotation_at,
            expiresAt=current.expires_at if current is not None else None,
            heldSince=min(held, default=None),
        )
        | ({"keys": [_key_object(key) for key in entry.history]} if entry.history else {})
        | ({"intent": _intent_object(entry.intent)} if entry.intent is not None else {})
        | (
            {"failures": present(count=failures.count, nextAttemptAt=failures.next_attempt_at)}
            if failures.count
            else {}
        )
        | ({"conditions": condition_objects(condition)} if condition is not None else {}),
    }


def admin_entry_patch(entry: AdminEntry) -> JSON:
    """The patch from the stored entry to its present state."""
    return merge_patch(json.loads(entry.stored), admin_entry_object(entry))


def decode_admin_entry(obj: Mapping[str, Any], now: datetime) -> AdminEntry:
    """Read an AdminKeyRotation. Raises Malformed naming the field that is not as we write it."""
    spec, status = mapping(obj, "spec"), mapping(obj, "status")
    failures = mapping(status, "failures")
    count, later = failures.get("count", 0), time(failures, "nextAttemptAt")
    keys = status.get("keys", [])
    if not isinstance(count, int) or not isinstance(keys, list) or len(mappings(keys)) != len(keys):
        raise Malformed("status.failures or status.keys is not as written by the rotator")
    history = tuple(sorted((_key(key, now) for key in keys), key=lambda key: (key.at, key.id)))
    if sum(key.superseded_at is None for key in history) > 1:
        raise Malformed("status.keys names two current keys")
    return AdminEntry(
        secret=text(spec, "secret"),
        key=text(spec, "key"),
        host=text(spec, "host"),
        ledger=text(spec, "ledger"),
        history=history,
        intent=_intent(mapping(status, "intent"), now) if "intent" in status else None,
        last_rotated_at=_not_ahead(time(status, "lastRotatedAt"), now),
        next_rotation_at=time(status, "nextRotationAt"),
        failures=Failures(count, now if later is not None and later > now + LONGEST_PAUSE + CLOCKS_APART else later),
        condition=read_condition(status.get("conditions")),
        version=version_of(obj),
        stored=json.dumps({"spec": spec, "status": status}).encode(),
    )


def _key_object(key: AdminKey) -> JSON:
    return present(
        id=key.id,
        name=key.name,
        digest=key.digest,
        at=key.at,
        made=key.made or None,
        createdAt=key.created_at,
        expiresAt=key.expires_at,
        supersededAt=key.superseded_at,
        replacedAt=key.replaced_at,
        putBack=key.put_back or None,
        held=key.held or None,
        heldSince=key.held_since,
        missedAt=key.missed_at,
    )


def _key(stored: Mapping[str, Any], now: datetime) -> AdminKey:
    at = _not_ahead(time(stored, "at"), now)
    if at is None:
        raise Malformed("status.keys: at is missing")
    return AdminKey(
        id=_id(stored, "id"),
        name=str(stored.get("name", "")),
        digest=_id(stored, "digest"),
        at=at,
        made=stored.get("made") is True,
        created_at=time(stored, "createdAt"),
        expires_at=time(stored, "expiresAt"),
        superseded_at=_not_ahead(time(stored, "supersededAt"), now),
        replaced_at=_not_ahead(time(stored, "replacedAt"), now),
        put_back=stored.get("putBack") is True,
        held=str(stored.get("held", "")),
        held_since=_not_ahead(time(stored, "heldSince"), now),
        missed_at=_not_ahead(time(stored, "missedAt"), now),
    )


def _intent_object(intent: AdminIntent) -> JSON:
    return present(
        name=intent.name,
        requestedAt=intent.requested_at,
        claimedUntil=intent.claimed_until,
        id=intent.id,
        digest=intent.digest,
        expiresAt=intent.expires_at,
        refused=intent.refused or None,
        missedAt=intent.missed_at,
    )


def _intent(stored: Mapping[str, Any], now: datetime) -> AdminIntent:
    asked, claimed = time(stored, "requestedAt"), time(stored, "claimedUntil")
    if asked is None or claimed is None:
        raise Malformed("status.intent has no requestedAt or no claimedUntil")
    return AdminIntent(
        name=_id(stored, "name"),
        requested_at=min(asked, now),
        claimed_until=now if claimed > now + CLAIM + CLOCKS_APART else claimed,
        id=_id(stored, "id") if "id" in stored else None,
        digest=_id(stored, "digest") if "digest" in stored else None,
        expires_at=time(stored, "expiresAt"),
        refused=stored.get("refused") is True,
        missed_at=_not_ahead(time(stored, "missedAt"), now),
    )


def _id(stored: Mapping[str, Any], field: str) -> str:
    found = text(stored, field)
    if not ID.match(found):
        raise Malformed(f"status: {field} is not an id")
    return found


def _not_ahead(at: datetime | None, now: datetime) -> datetime | None:
    return now if at is not None and at > now + CLOCKS_APART else at
