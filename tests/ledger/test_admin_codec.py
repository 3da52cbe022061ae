"""The AdminKeyRotation: an entry equals itself after encoding and decoding, and an edited one is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import NOW
from worker.kubernetes.reading import Malformed
from worker.ledger.admin_codec import admin_entry_object, admin_entry_patch, decode_admin_entry
from worker.model.admin_keys import AdminEntry, AdminIntent, AdminKey
from worker.model.entries import Condition, Failures

METADATA = {"name": "central", "namespace": "ledger", "uid": "u", "resourceVersion": "1"}
HOUR = timedelta(hours=1)
TIMES = st.integers(0, 10_000).map(lambda minutes: NOW - timedelta(minutes=minutes))
MAYBE = st.none() | TIMES
IDS = st.from_regex(r"key_[a-z0-9]{1,12}", fullmatch=True)
KEYS = st.builds(
    AdminKey,
    id=IDS,
    name=st.text(max_size=20),
    digest=IDS,
    at=TIMES,
    made=st.booleans(),
    created_at=MAYBE,
    expires_at=MAYBE,
    superseded_at=TIMES,
    replaced_at=MAYBE,
    put_back=st.booleans(),
    held=st.text(max_size=20),
    held_since=MAYBE,
    missed_at=MAYBE,
)
INTENTS = st.builds(
    AdminIntent,
    name=IDS,
    requested_at=TIMES,
    claimed_until=TIMES,
    id=st.none() | IDS,
    digest=st.none() | IDS,
    expires_at=MAYBE,
    refused=st.booleans(),
    missed_at=MAYBE,
)
ENTRIES = st.builds(
    AdminEntry,
    secret=st.just("central"),
    key=st.just("api-key"),
    host=st.just("https://api.openai.com/v1"),
    ledger=IDS,
    history=st.lists(KEYS, max_size=3, unique_by=lambda key: key.id).map(
        lambda keys: tuple(sorted(keys, key=lambda key: (key.at, key.id)))
    ),
    intent=st.none() | INTENTS,
    last_rotated_at=MAYBE,
    next_rotation_at=MAYBE,
    failures=st.builds(Failures, st.integers(1, 9), TIMES) | st.just(Failures()),
    condition=st.none() | st.builds(Condition, st.booleans(), IDS, st.text(max_size=20), TIMES),
)


def stored(entry: AdminEntry) -> dict[str, Any]:
    return {"metadata": METADATA, **admin_entry_object(entry)}


@given(ENTRIES)
def test_an_entry_equals_itself(entry: AdminEntry) -> None:
    again = decode_admin_entry(stored(entry), NOW)
    assert replace(again, version=None, stored=entry.stored) == entry
    assert admin_entry_patch(again) == {}


KEY = {"id": "key_1", "digest": "d", "at": "2026-11-24T10:00:00Z"}


@pytest.mark.parametrize(
    "status",
    [
        {"keys": {}},
        {"keys": ["x"]},
        {"keys": [{**KEY, "id": "../x"}]},
        {"keys": [{**KEY, "digest": None}]},
        {"keys": [{"id": "key_1", "digest": "d"}]},
        {"keys": [{**KEY, "at": "yesterday"}]},
        {"keys": [KEY, {**KEY, "id": "key_2"}]},
        {"intent": {"name": "n"}},
        {"intent": {"name": "a b", "requestedAt": KEY["at"], "claimedUntil": KEY["at"]}},
        {"failures": {"count": "1"}},
    ],
)
def test_an_edited_entry_is_malformed(status: Any) -> None:
    spec = {"secret": "central", "key": "api-key", "host": "h", "ledger": "l"}
    with pytest.raises(Malformed):
        decode_admin_entry({"metadata": METADATA, "spec": spec, "status": status}, NOW)


def test_times_that_lie_ahead_are_taken_back() -> None:
    """By a wrong clock, or an editor: nothing waits for ever, and no key goes earlier than its grace from now."""
    ahead: datetime = NOW + 9999 * HOUR
    key = AdminKey("key_1", "n", "d", ahead, True, superseded_at=ahead)
    intent = AdminIntent("n", ahead, ahead)
    entry = AdminEntry("central", "k", "h", "l", (key,), intent, ahead, ahead, Failures(1, ahead))
    again = decode_admin_entry(stored(entry), NOW)
    assert (again.history[0].at, again.history[0].superseded_at, again.last_rotated_at) == (NOW, NOW, NOW)
    assert again.claimed_until(NOW) is None
    assert again.failures.next_attempt_at == NOW
