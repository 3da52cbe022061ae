"""The ledger's objects: stored and read again, edited, and patched with what changed."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import NOW, empty_entry, entry, intent, publication
from tests.support.strategies import JSONS
from worker.kubernetes.reading import Malformed
from worker.ledger.codec import decode_entry, entry_object, entry_patch, merge_patch
from worker.ledger.holds import hold_reason
from worker.model.entries import (
    Account,
    Condition,
    Entry,
    Failures,
    GeneratorNote,
    Hold,
    Intent,
    Look,
    Publication,
    RefusedScopes,
    Restart,
    RestartState,
    Throttle,
)
from worker.model.names import entry_name
from worker.model.scopes import canonical
from worker.model.targets import AdminKeyRef, CleanupKind, CleanupPolicy, Project, ProjectAccess
from worker.model.templates import Placed, Rendered
from worker.model.values import JSON, Ref, Version

# --- KeyRotation -------------------------------------------------------------------------------------------------

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
TEXTS = st.text(min_size=1, max_size=20)
TIMES = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)).map(
    lambda time: time.replace(microsecond=0)
)
MAYBE_TIME = st.none() | TIMES
HOLDS = st.builds(Hold, st.builds(hold_reason, TEXTS), TIMES, st.none() | TEXTS)
RESTARTS = st.none() | st.builds(
    Restart, st.sampled_from(RestartState), st.lists(TEXTS).map(tuple), MAYBE_TIME, st.text(), st.booleans()
)
DURATIONS = st.integers(0, 10**7).map(lambda seconds: timedelta(seconds=seconds))


def accounts(name: str) -> st.SearchStrategy[Account]:
    access = st.builds(
        ProjectAccess,
        st.builds(Project, TEXTS, IDS),
        st.builds(AdminKeyRef, st.builds(Ref, st.just("default"), TEXTS), TEXTS),
    )
    known = st.none() | IDS
    scopes = st.just(()) | SCOPES
    return st.builds(
        Account, st.just(name), access, known, known, MAYBE_TIME, scopes=scopes, rendered=st.none() | RENDERED
    )


LOOKS = st.builds(Look, TIMES, IDS)
PLACED = st.builds(Placed, st.none() | st.integers(0, 10**6), st.none() | IDS)
RENDERED = st.builds(Rendered, IDS, st.dictionaries(IDS, PLACED, min_size=1, max_size=3))
SCOPES = st.sets(st.sampled_from(["model.request", "api.all.read", "a"]), min_size=1).map(canonical)
REFUSED = st.builds(RefusedScopes, SCOPES, st.builds(Project, TEXTS, IDS), TIMES, TEXTS, TEXTS)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Any entry that the stages could make, in the order in which it would be read again."""
    names = draw(st.lists(TEXTS, unique=True, max_size=4))
    cut = draw(st.integers(0, len(names)))
    history = [
        draw(
            st.builds(
                Publication,
                accounts(name),
                TIMES,
                MAYBE_TIME,
                MAYBE_TIME,
                st.none() | HOLDS,
                restart=RESTARTS,
                look=st.none() | LOOKS,
            )
        )
        for name in names[:cut]
    ]
    unpublished = [
        draw(st.builds(Intent, accounts(name), TIMES, TIMES, MAYBE_TIME, restart=st.booleans())) for name in names[cut:]
    ]
    failures = draw(st.just(Failures()) | st.builds(Failures, st.integers(1, 99), MAYBE_TIME))
    return Entry(
        target=Ref("default", draw(TEXTS)),
        ledger=draw(TEXTS),
        generator=draw(
            st.builds(
                GeneratorNote, st.text(), st.builds(CleanupPolicy, st.sampled_from(CleanupKind), DURATIONS, DURATIONS)
            )
        ),
        history=tuple(sorted(history, key=lambda p: (p.at, p.account.name))),
        unpublished=tuple(sorted(unpublished, key=lambda i: (i.requested_at, i.account.name))),
        since=draw(MAYBE_TIME),
        last_rotated_at=draw(MAYBE_TIME),
        next_rotation_at=draw(MAYBE_TIME),
        honoured=draw(st.dictionaries(TEXTS, st.text())),
        failures=failures,
        throttle=draw(st.none() | TIMES.map(lambda until: Throttle("https://host", "0123", until, 3))),
        refused_scopes=draw(st.none() | REFUSED),
        condition=draw(st.none() | st.builds(Condition, st.booleans(), st.text(), st.text(), TIMES)),
    )


def stored(entry: Entry) -> JSON:
    """The object as the API server would give it back."""
    answer: JSON = json.loads(json.dumps(entry_object(entry)))
    return answer | {"metadata": {"name": "x", "uid": "u", "resourceVersion": "1"}}


@settings(max_examples=60)
@given(entries())
def test_an_entry_is_the_same_after_it_was_stored_and_read(entry: Entry) -> None:
    """Whatever it holds: published and unpublished accounts, failures, conditions, any characters."""
    read = decode_entry(stored(entry))
    assert read.version == Version("u", "1")
    assert entry_object(read) == entry_object(entry)
    assert read == Entry(**{field: getattr(entry, field) for field in _FIELDS}, version=read.version)


_FIELDS = [field for field in Entry.__dataclass_fields__ if field not in ("version", "base")]


def test_no_optional_field_is_written_while_it_is_unknown() -> None:
    """A new entry is small, and its number of accounts is there for the column."""
    assert entry_object(empty_entry())["status"] == {"accountCount": 0}


def test_the_oldest_key_and_the_number_of_accounts_are_written_out() -> None:
    """Printer columns and metrics cannot compute them."""
    status = entry_object(entry(publication("a", NOW), publication("b", NOW - timedelta(1)), unpublished=(intent(),)))[
        "status"
    ]
    assert (status["accountCount"], status["oldestKeyAt"]) == (3, "2026-11-23T10:00:00Z")


def test_how_far_the_restart_of_the_current_key_is_is_written_out() -> None:
    """For the column; what was asked for an earlier key does not matter any more."""
    done = publication("b", NOW, restart=Restart(RestartState.DONE, ("deployment/app",), at=NOW))
    before = publication("a", NOW - timedelta(1), superseded_at=NOW)
    status = entry_object(entry(before, done))["status"]
    assert (status["restart"], status["restartedAt"]) == ("Done", "2026-11-24T10:00:00Z")
    assert "restart" not in entry_object(entry(before))["status"]


MALFORMED: list[tuple[str, Any, str]] = [
    ("spec", "x", "spec"),
    ("spec.target", ["x"], "target"),
    ("spec.target.namespace", 5, "namespace"),
    ("spec.target.secret", "", "secret"),
    ("spec.ledger", None, "ledger"),
    ("spec.generator", "x", "generator"),
    ("spec.generator.cleanupPolicy", [1], "cleanupPolicy"),
    ("spec.generator.cleanupPolicy.type", "never", "cleanupPolicy"),
    ("spec.generator.cleanupPolicy.gracePeriod", "soon", "cleanupPolicy"),
    ("spec.generator.cleanupPolicy.idleTimeout", 5, "cleanupPolicy"),
    ("status", 7, "status"),
    ("status.accounts", ["x"], "accounts"),
    ("status.accounts.app_1", "x", "accounts"),
    ("status.accounts.app_1.id", "../x", "id"),
    ("status.accounts.app_1.id", 5, "id"),
    ("status.accounts.app_1.keyId", "a b", "keyId"),
    ("status.accounts.app_1.projectId", "x/..", "projectId"),
    ("status.accounts.app_1.host", None, "host"),
    ("status.accounts.app_1.adminKey", "x", "adminKey"),
    ("status.accounts.app_1.adminKey.name", 5, "name"),
    ("status.accounts.app_1.adminKey.key", None, "key"),
    ("status.accounts.app_1.publishedAt", "yesterday", "publishedAt"),
    ("status.accounts.app_1.publishedAt", "0001-01-01T00:00:00+14:00", "publishedAt"),
    ("status.accounts.app_1.supersededAt", 5, "supersededAt"),
    ("status.accounts.app_1.requestedAt", {}, "requestedAt"),
    ("status.accounts.app_1.expiresAt", "2026-11-24", "expiresAt"),
    ("status.accounts.app_1.scopes", [], "scopes"),
    ("status.accounts.app_1.scopes", ["A"], "scopes"),
    ("status.accounts.app_1.scopes", "model.request", "scopes"),
    ("status.accounts.app_1.rendered", "x", "rendered"),
    ("status.accounts.app_1.rendered", {}, "rendered.values"),
    ("status.accounts.app_1.rendered", {"template": "a", "values": {"a/b": {}}}, "rendered.values"),
    ("status.accounts.app_1.rendered", {"values": {"a": {}}}, "rendered.template"),
    ("status.accounts.app_1.rendered", {"template": "a b", "values": {"a": {}}}, "template"),
    ("status.accounts.app_1.rendered", {"template": "a", "values": {"a": {"keyAt": -1}}}, "keyAt"),
    ("status.accounts.app_1.rendered", {"template": "a", "values": {"a": {"keyAt": True}}}, "keyAt"),
    ("status.accounts.app_1.rendered", {"template": "a", "values": {"a": {"digest": 5}}}, "digest"),
    ("status.refusedScopes", "x", "refusedScopes"),
    ("status.refusedScopes", {"scopes": []}, "host"),
    ("status.accounts.app_1.held", {"by": "x"}, "held"),
    ("status.accounts.app_1.heldSince", "then", "heldSince"),
    ("status.accounts.app_1.heldTold", 5, "heldTold"),
    ("status.accounts.app_1.lookedAt", "2026-11-24T10:00:00Z", "lookedFor"),
    ("status.accounts.app_1.lookedAt", 5, "lookedAt"),
    ("status.accounts.app_1.restart", "Due", "restart"),
    ("status.accounts.app_1.restart", {}, "state"),
    ("status.accounts.app_1.restart", {"state": "Perhaps"}, "restart.state"),
    ("status.accounts.app_1.restart", {"state": "Done", "done": "app"}, "restart.done"),
    ("status.accounts.app_1.restart", {"state": "Done", "at": "then"}, "at"),
    ("status.accounts.app_1.restart", {"state": "Waiting", "why": 5}, "why"),
    ("status.accounts.app_2.claimedUntil", None, "claimedUntil"),
    ("status.accounts.app_2.requestedAt", None, "requestedAt"),
    ("status.accounts.app_2.missedAt", "x", "missedAt"),
    ("status.since", "x", "since"),
    ("status.lastRotatedAt", 1, "lastRotatedAt"),
    ("status.nextRotationAt", [], "nextRotationAt"),
    ("status.honoured", "x", "honoured"),
    ("status.honoured", {"rotate": 5}, "honoured"),
    ("status.failures", "x", "failures"),
    ("status.failures.count", "many", "failures.count"),
    ("status.failures.nextAttemptAt", "x", "nextAttemptAt"),
    ("metadata", "x", "metadata"),
    ("metadata.uid", None, "uid"),
    ("metadata.resourceVersion", 5, "resourceVersion"),
]


@pytest.mark.parametrize(("path", "value", "field"), MALFORMED, ids=[f"{p}={v}" for p, v, _ in MALFORMED])
def test_an_edited_entry_is_malformed_and_the_field_is_named(path: str, value: object, field: str) -> None:
    """Whoever edited it can find the place."""
    obj = stored(entry(unpublished=(intent(),), failures=Failures(1, NOW), honoured={"rotate": "1"}))
    place: Any = obj
    *parents, last = path.split(".")
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(Malformed, match=field):
        decode_entry(obj)


@given(JSONS, JSONS, st.sampled_from([("spec", "target"), ("status", "accounts"), ("status", "conditions")]))
def test_any_json_is_an_entry_or_malformed(value: object, other: object, path: tuple[str, str]) -> None:
    """No other error comes out of an object that somebody edited."""
    obj = stored(entry(unpublished=(intent(),)))
    obj[path[0]][path[1]] = value
    obj["status"]["failures"] = other
    with contextlib.suppress(Malformed):
        decode_entry(obj)


@given(st.text("ab-.", max_size=260), st.text("ab-.", max_size=260))
def test_two_targets_never_share_a_name(one: str, other: str) -> None:
    """Long names differ in their hash."""
    assert (entry_name(Ref("ns", one)) == entry_name(Ref("ns", other))) == (one == other)


@given(st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True), st.data())
def test_an_entrys_name_is_one_that_kubernetes_allows(namespace: str, data: st.DataObject) -> None:
    """At most 253 characters, made of labels that begin and end well."""
    label = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,60}[a-z0-9])?", fullmatch=True)
    secret = ".".join(data.draw(st.lists(label, min_size=1, max_size=9)))[:253].strip(".-")
    name = entry_name(Ref(namespace, secret))
    assert len(name) <= 253
    assert all(part and part[0] != "-" and part[-1] != "-" for part in name.split("."))
    assert name.startswith(namespace + ".")


# --- merge patches -----------------------------------------------------------------------------------------------


def merged(target: object, patch: object) -> object:
    """RFC 7396, as it is written there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


WITHOUT_NULL = st.recursive(
    st.booleans() | st.integers(2, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), WITHOUT_NULL, max_size=4)


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_makes_after_of_before(before: JSON, after: JSON) -> None:
    """For any two objects; and it is empty exactly where nothing changed."""
    patch = merge_patch(before, after)
    assert merged(before, patch) == after
    assert (patch == {}) == (before == after)


@settings(max_examples=40)
@given(entries(), entries())
def test_an_entry_can_be_patched_into_any_other(before: Entry, after: Entry) -> None:
    """What the ledger sends is enough."""
    one, other = json.loads(json.dumps(entry_object(before))), json.loads(json.dumps(entry_object(after)))
    assert merged(one, merge_patch(one, other)) == other


def test_only_what_changed_is_sent() -> None:
    """A patch that repeats nothing overwrites nothing."""
    before = {"a": {"x": 1, "y": 2}, "b": [1], "c": 3}
    assert merge_patch(before, {"a": {"x": 1, "y": 5}, "b": [1]}) == {"a": {"y": 5}, "c": None}


def test_an_entry_in_this_versions_form_is_its_own_base() -> None:
    """The text of it would take a kilobyte, thousands of times."""
    read = decode_entry(stored(entry()))
    assert isinstance(read.base, Entry)
    assert entry_patch(read) == {}
    assert entry_patch(replace(read, honoured={"rotate": "1"})) == {"status": {"honoured": {"rotate": "1"}}}


def test_what_another_version_has_written_otherwise_is_written_anew() -> None:
    """By the first run, although that changes nothing else."""
    of_another = stored(entry())
    of_another["status"] |= {"ofALaterVersion": 1, "accountCount": 7}
    read = decode_entry(of_another)
    assert isinstance(read.base, bytes)
    assert entry_patch(read) == {"status": {"ofALaterVersion": None, "accountCount": 1}}
