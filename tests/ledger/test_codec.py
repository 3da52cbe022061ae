"""The ledger's objects and what is written into and read from a target Secret."""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import (
    ACCESS,
    KEY,
    LEDGER,
    NOW,
    SECRET,
    account,
    empty_entry,
    entry,
    intent,
    named,
    publication,
    secret_view,
    source,
    target,
    told,
)
from worker.kubernetes import secret as secrets
from worker.kubernetes.generator import GENERATORS
from worker.kubernetes.reading import Malformed
from worker.kubernetes.secret import CURRENT, MANAGED, PREVIOUS, key_patch
from worker.ledger.codec import decode_entry, entry_object, merge_patch
from worker.ledger.holds import hold_reason
from worker.model.entries import Account, Condition, Entry, Failures, GeneratorNote, Hold, Intent, Publication, Throttle
from worker.model.hidden import Hidden
from worker.model.names import entry_name
from worker.model.targets import AdminKeyRef, CleanupKind, CleanupPolicy, CreationPolicy, Project, ProjectAccess
from worker.model.values import JSON, Ref, Version

# --- KeyRotation -------------------------------------------------------------------------------------------------

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
TEXTS = st.text(min_size=1, max_size=20)
TIMES = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)).map(
    lambda time: time.replace(microsecond=0)
)
MAYBE_TIME = st.none() | TIMES
HOLDS = st.builds(Hold, st.builds(hold_reason, TEXTS), TIMES, st.none() | TEXTS)
DURATIONS = st.integers(0, 10**7).map(lambda seconds: timedelta(seconds=seconds))


def accounts(name: str) -> st.SearchStrategy[Account]:
    access = st.builds(
        ProjectAccess,
        st.builds(Project, TEXTS, IDS),
        st.builds(AdminKeyRef, st.builds(Ref, st.just("default"), TEXTS), TEXTS),
    )
    return st.builds(Account, st.just(name), access, st.none() | IDS, st.none() | IDS, MAYBE_TIME)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Any entry that the stages could make, in the order in which it would be read again."""
    names = draw(st.lists(TEXTS, unique=True, max_size=4))
    cut = draw(st.integers(0, len(names)))
    history = [
        draw(st.builds(Publication, accounts(name), TIMES, MAYBE_TIME, MAYBE_TIME, st.none() | HOLDS))
        for name in names[:cut]
    ]
    unpublished = [draw(st.builds(Intent, accounts(name), TIMES, TIMES, MAYBE_TIME)) for name in names[cut:]]
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


_FIELDS = [field for field in Entry.__dataclass_fields__ if field not in ("version", "stored")]


def test_no_optional_field_is_written_while_it_is_unknown() -> None:
    """A new entry is small, and its number of accounts is there for the column."""
    assert entry_object(empty_entry())["status"] == {"accountCount": 0}


def test_the_oldest_key_and_the_number_of_accounts_are_written_out() -> None:
    """Printer columns and metrics cannot compute them."""
    status = entry_object(entry(publication("a", NOW), publication("b", NOW - timedelta(1)), unpublished=(intent(),)))[
        "status"
    ]
    assert (status["accountCount"], status["oldestKeyAt"]) == (3, "2026-11-23T10:00:00Z")


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
    ("status.accounts.app_1.held", {"by": "x"}, "held"),
    ("status.accounts.app_1.heldSince", "then", "heldSince"),
    ("status.accounts.app_1.heldTold", 5, "heldTold"),
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


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


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


# --- reading a Secret --------------------------------------------------------------------------------------------

_NO_TEXTS: list[object] = [None, "", 5, [], {}]
ANNOTATION = {
    "id": "user-1",
    "name": "app_1",
    "keyId": "key_1",
    "projectId": "proj_1",
    "host": ACCESS.project.host,
    "publishedAt": "2026-11-24T10:00:00Z",
    "target": "default/creds",
    "ledger": LEDGER,
}


def secret_object(annotation: object = None, **changes: Any) -> JSON:
    annotations = {} if annotation is None else {CURRENT: annotation}
    metadata = {"namespace": "default", "name": "creds", "uid": "u", "resourceVersion": "7", "annotations": annotations}
    return {"metadata": metadata, "type": "Opaque", "data": {"api_key": "QQ=="}} | changes


def test_a_secret_is_read_without_its_values() -> None:
    """Which keys hold something is all that the stages may know."""
    obj = secret_object(json.dumps(ANNOTATION), data={"api_key": base64.b64encode(KEY.encode()).decode(), "empty": ""})
    view = secrets.secret_view(obj)
    assert view.filled == {"api_key"}
    assert view.named == named(account(), id="user-1", key_id="key_1", published_at=NOW)
    assert obj["data"]["api_key"] not in repr(view)
    assert (view.version, view.immutable) == (Version("u", "7"), False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "5",
        '"x"',
        "[" * 10_000,
        '{"a":' * 3000,
        json.dumps(ANNOTATION | {"padding": "x" * 20_000}),
        "1" * 5000,
        5,
        None,
        {"id": "user-1"},
        *(json.dumps({k: v for k, v in ANNOTATION.items() if k != f}) for f in ("id", "name", "target", "ledger")),
        *(json.dumps(ANNOTATION | {f: v}) for f in ("id", "name", "target", "ledger") for v in _NO_TEXTS),
        *(json.dumps(ANNOTATION | {"id": v}) for v in ("../x", "a/b", "a b", "x" * 129, "ü", "user-1\n")),
    ],
    ids=lambda text: str(text)[:30],
)
def test_an_annotation_that_is_not_ours_is_not_read(text: object) -> None:
    """Too long, too deep, of another type, or without what ours has: the Secret names no account."""
    assert secrets.secret_view(secret_object(text)).named is None


@pytest.mark.parametrize("value", [None, 5, [], "../x", "a b"])
def test_an_unusable_key_id_is_left_out(value: object) -> None:
    """It is only needed to ask for the last use."""
    view = secrets.secret_view(secret_object(json.dumps(ANNOTATION | {"keyId": value})))
    assert view.named is not None
    assert view.named.key_id is None


@pytest.mark.parametrize("value", [None, 5, "soon", "0001-01-01T00:00:00+14:00"])
def test_an_unusable_expiry_is_left_out(value: object) -> None:
    """The account is named all the same: to be named protects it."""
    view = secrets.secret_view(secret_object(json.dumps(ANNOTATION | {"expiresAt": value})))
    assert view.named is not None
    assert view.named.expires_at is None


@pytest.mark.parametrize(("field", "value"), [("host", 5), ("host", None), ("projectId", []), ("projectId", None)])
def test_a_project_counts_only_as_a_whole(field: str, value: object) -> None:
    """Half a project says nothing about where the account is."""
    view = secrets.secret_view(secret_object(json.dumps(ANNOTATION | {field: value})))
    assert view.named is not None
    assert view.named.project is None


@given(JSONS, JSONS)
def test_any_json_in_an_annotation_is_harmless(value: object, other: object) -> None:
    """Whoever may annotate a Secret breaks nothing by it."""
    secrets.secret_view(secret_object(json.dumps(value)))
    secrets.secret_view(secret_object(json.dumps({**ANNOTATION, "host": value, "projectId": other, "keyId": value})))


def test_a_secret_read_without_its_data_holds_nothing() -> None:
    """PartialObjectMetadata has neither type nor data."""
    obj = secret_object(json.dumps(ANNOTATION))
    del obj["data"], obj["type"]
    view = secrets.secret_view(obj)
    assert (view.filled, view.type) == (frozenset(), "Opaque")
    assert view.named is not None


# --- publishing --------------------------------------------------------------------------------------------------


EXPIRY = NOW + timedelta(days=30)


def patch_of(secret: Any = None, entry: Entry | None = None, **changes: Any) -> JSON:
    new = account("app_9", expires_at=EXPIRY)
    return key_patch(target(**changes), secret, entry or empty_entry(), new, Hidden(KEY), NOW)


def test_a_new_secret_holds_key_and_name_together() -> None:
    """One object with all of it, ours by label and owned by its source."""
    body = patch_of(labels={"team": "a"}, annotations={"note": "b"}, data_key="OPENAI_API_KEY")
    metadata = body["metadata"]
    assert (body["apiVersion"], body["kind"], body["type"]) == ("v1", "Secret", "Opaque")
    assert (metadata["namespace"], metadata["name"]) == ("default", "creds")
    assert metadata["labels"] == {"team": "a", MANAGED: "true"}
    assert metadata["annotations"]["note"] == "b"
    assert {key: base64.b64decode(value).decode() == KEY for key, value in body["data"].items()} == {
        "OPENAI_API_KEY": True
    }
    assert "resourceVersion" not in metadata


def test_an_existing_secret_is_patched_under_its_version() -> None:
    """Only metadata and the one data key; a Secret that changed meanwhile answers 409."""
    body = patch_of(secret_view())
    assert set(body) == {"metadata", "data"}
    assert body["metadata"]["resourceVersion"] == "7"
    assert "name" not in body["metadata"]


def test_the_annotation_names_the_account_and_can_be_read_again() -> None:
    """Writer and reader agree; the previous accounts are listed beside it."""
    older = entry(publication("app_1", superseded_at=NOW), publication("app_9"))
    body = patch_of(entry=older)
    annotations = body["metadata"]["annotations"]
    assert json.loads(annotations[PREVIOUS]) == [{"id": "user-app_1", "name": "app_1"}]
    assert secrets.secret_view(secret_object(annotations[CURRENT])).named == named(
        account("app_9"), expires_at=EXPIRY, data_key="api_key", published_at=NOW
    )
    assert KEY not in annotations[CURRENT] + annotations[PREVIOUS]


@pytest.mark.parametrize(
    ("former", "filled", "written"),
    [
        ("OLD", {"OLD", "api_key"}, {"OLD", "api_key"}),
        ("OLD", {"api_key"}, {"api_key"}),
        ("api_key", {"api_key"}, {"api_key"}),
        (None, {"OLD", "api_key"}, {"api_key"}),
    ],
)
def test_a_data_key_that_was_renamed_leaves_no_key_behind(
    former: str | None, filled: set[str], written: set[str]
) -> None:
    """The one of ours goes; others' data keys stay untouched."""
    body = patch_of(secret_view(filled=frozenset(filled), named=named(data_key=former)))
    assert set(body["data"]) == written
    assert {key for key, value in body["data"].items() if value is None} == written - {"api_key"}


@pytest.mark.parametrize("value", [None, 5, []])
def test_an_unusable_data_key_is_left_out(value: object) -> None:
    """The account is named all the same."""
    view = secrets.secret_view(secret_object(json.dumps(ANNOTATION | {"dataKey": value})))
    assert view.named is not None
    assert view.named.data_key is None


def test_our_own_annotations_win_over_the_templates() -> None:
    """Discovery refuses such a template; this is the second line."""
    body = patch_of(labels={MANAGED: "false"}, annotations={CURRENT: "x"})
    assert body["metadata"]["labels"][MANAGED] == "true"
    assert body["metadata"]["annotations"][CURRENT] != "x"


OURS = {
    "apiVersion": "external-secrets.io/v1",
    "kind": "ExternalSecret",
    "name": "creds",
    "uid": "source-uid",
    "controller": True,
}
OTHER = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "creds", "uid": "d"}
STALE = OURS | {"uid": "earlier"}
STALE_BETA = STALE | {"apiVersion": "external-secrets.io/v1beta1"}


@pytest.mark.parametrize(
    ("existing", "written"),
    [
        ([], [OURS]),
        ([OURS], [OURS]),
        ([STALE], [OURS]),
        ([STALE_BETA], [OURS]),
        ([OTHER], [OTHER, OURS]),
        ([OTHER, STALE], [OTHER, OURS]),
        ([OTHER | {"controller": True}], [OTHER | {"controller": True}, OURS | {"controller": False}]),
        ([STALE | {"name": "another"}], [STALE | {"name": "another"}, OURS | {"controller": False}]),
        ([STALE | {"apiVersion": "example.org/v1", "controller": False}], None),
    ],
)
def test_the_owner_is_the_source_as_it_is_now(existing: list[JSON], written: list[JSON] | None) -> None:
    """Other owners stay, an earlier self goes (its uid would get the Secret collected), one controller at most."""
    body = patch_of(secret_view(owners=tuple(existing)))
    assert body["metadata"]["ownerReferences"] == (written if written is not None else [*existing, OURS])


@pytest.mark.parametrize("policy", [CreationPolicy.ORPHAN, CreationPolicy.MERGE, CreationPolicy.CREATE_OR_MERGE])
@pytest.mark.parametrize("exists", [True, False])
def test_without_ownership_the_owners_stay_as_they_are(policy: CreationPolicy, exists: bool) -> None:
    """Not written at all, so that nobody else's are lost."""
    body = patch_of(secret_view(owners=(OTHER,)) if exists else None, creation=policy)
    assert "ownerReferences" not in body["metadata"]


def test_a_standalone_generator_owns_its_secret() -> None:
    """With the API version of generators."""
    body = patch_of(source=source(kind="OpenAI", resource=GENERATORS, uid="g"))
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["apiVersion"], owner["kind"]) == ("generators.external-secrets.io/v1alpha1", "OpenAI")
    assert "blockOwnerDeletion" not in owner


@settings(max_examples=30)
@given(st.sampled_from(MALFORMED))
def test_errors_show_no_data_of_a_secret(case: tuple[str, Any, str]) -> None:
    """Not even of one that is malformed elsewhere."""
    obj = secret_object(data={"api_key": KEY}) | {"metadata": {"name": case[1], "namespace": SECRET.namespace}}
    with pytest.raises(Malformed) as caught:
        secrets.secret_view(obj)
    assert "CANARY" not in told(caught.value)
