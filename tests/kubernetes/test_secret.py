"""The Secret with the key: what is read of it, and the one PATCH that publishes."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given

from tests.support.builders import (
    ACCESS,
    KEY,
    LEDGER,
    NOW,
    account,
    empty_entry,
    entry,
    named,
    publication,
    secret_view,
    source,
    target,
    told,
)
from tests.support.strategies import JSONS, NO_TEXTS
from worker.kubernetes import secret as secrets
from worker.kubernetes.generator import GENERATORS
from worker.kubernetes.reading import Malformed
from worker.kubernetes.secret import CURRENT, MANAGED, PREVIOUS, key_patch
from worker.kubernetes.template import MOST_DATA_KEYS
from worker.model.entries import Entry
from worker.model.hidden import Hidden
from worker.model.targets import CreationPolicy
from worker.model.templates import KEY_ALONE, Template
from worker.model.values import JSON, Version

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
        json.dumps(ANNOTATION | {"padding": "x" * 40_000}),
        "1" * 5000,
        5,
        None,
        {"id": "user-1"},
        *(json.dumps({k: v for k, v in ANNOTATION.items() if k != f}) for f in ("id", "name", "target", "ledger")),
        *(json.dumps(ANNOTATION | {f: v}) for f in ("id", "name", "target", "ledger") for v in NO_TEXTS),
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
    return key_patch(target(**changes), secret, entry or empty_entry(), key=new, value=Hidden(KEY), at=NOW)


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


TEMPLATE = Template({"file": ("key=", ";", ""), "api_key": KEY_ALONE, "level": ("info",)})


def test_a_templates_values_are_one_publication() -> None:
    """All in one write, and the annotation has the digest of each."""
    new = account("app_9", key_digest=Hidden(KEY).digest(), rendered=TEMPLATE.rendered(Hidden(KEY)))
    body = key_patch(target(template=TEMPLATE), None, empty_entry(), key=new, value=Hidden(KEY), at=NOW)
    written = {key: base64.b64decode(value).decode() for key, value in body["data"].items()}
    assert {key: value.replace(KEY, "K") for key, value in written.items()} == {
        "file": "key=K;K", "api_key": "K", "level": "info",
    }  # fmt: skip
    annotation = body["metadata"]["annotations"][CURRENT]
    assert KEY not in annotation
    view = secrets.secret_view(secret_object(annotation) | {"data": body["data"]})
    assert view.named is not None
    assert (view.named.rendered, view.named.key_digest) == (new.rendered, new.key_digest)
    assert view.named.data_key is None
    assert all(view.has(key, placed) for key, placed in new.values().items())
    assert view.carries(new)
    assert view.sizes == {key: len(value.encode()) for key, value in written.items()}


def test_an_empty_text_is_there_or_not() -> None:
    placed = Template({"a": ("",), "b": ("x", "")}).rendered(None).values["a"]
    assert secrets.secret_view(secret_object("{}") | {"data": {"a": ""}}).has("a", placed)
    assert not secrets.secret_view(secret_object("{}") | {"data": {"b": ""}}).has("a", placed)
    assert not secrets.secret_view(secret_object("{}") | {"data": {"a": "eA=="}}).has("a", placed)


def test_the_largest_template_fits_into_an_annotation_that_is_read_again() -> None:
    data_keys = [f"{i:03}".ljust(253, "x") for i in range(MOST_DATA_KEYS)]
    template = Template(dict.fromkeys(data_keys, ("x" * 65536, "")))
    new = account("a" * 64, expires_at=EXPIRY, rendered=template.rendered(Hidden(KEY)), scopes=("a.b",) * 10)
    body = key_patch(target(template=template), None, empty_entry(), key=new, value=Hidden(KEY), at=NOW)
    view = secrets.secret_view(secret_object(body["metadata"]["annotations"][CURRENT]))
    assert view.named is not None
    assert view.named.rendered == new.rendered


def test_what_the_template_made_before_goes_and_what_others_made_stays() -> None:
    """A key of ours from wherever it is, under whatever name; text of ours where it is unchanged, under its name."""
    rendered = TEMPLATE.rendered(Hidden(KEY))
    former = entry(publication(account=account(key_digest=Hidden(KEY).digest(), rendered=rendered)))
    digests = {data_key: str(placed.digest) for data_key, placed in rendered.values.items()}
    there = digests | {"copy": digests["file"], "same": digests["level"], "mine": "x"}
    view = secret_view(digests=there, filled=frozenset(there))
    body = patch_of(view, former, data_key="new")
    assert {key for key, value in body["data"].items() if value is None} == {"file", "api_key", "level", "copy"}
    edited = secret_view(digests=there | {"level": "y"}, filled=frozenset(there))
    assert "level" not in patch_of(edited, former, data_key="new")["data"]


def test_an_edited_file_of_the_current_key_goes_too() -> None:
    """A dying key may be in it. An earlier key's file is somebody else's by now, as is one of the annotation's."""
    current = publication(account=account(rendered=TEMPLATE.rendered(Hidden(KEY))))
    earlier = replace(current, superseded_at=NOW)
    digests = {"file": "x", "level": "x"}
    view = secret_view(digests=digests, filled=frozenset(digests), named=named(rendered=current.account.rendered))
    for history, gone in (((current,), {"file"}), ((earlier, publication("app_2")), set()), ((publication(),), set())):
        body = patch_of(view, entry(*history), data_key="new")
        assert {key for key, value in body["data"].items() if value is None} == gone


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
        ([OURS], None),
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
    kept = [*existing, OURS] if written is None and OURS not in existing else written
    assert body["metadata"].get("ownerReferences") == kept


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


@pytest.mark.parametrize("name", NO_TEXTS, ids=repr)
def test_errors_show_no_data_of_a_secret(name: object) -> None:
    """Not even of one that is malformed elsewhere."""
    obj = secret_object(data={"api_key": KEY}) | {"metadata": {"name": name, "namespace": "default"}}
    with pytest.raises(Malformed) as caught:
        secrets.secret_view(obj)
    assert "CANARY" not in told(caught.value)


OWN = {"manager": "openai-key-rotator", "operation": "Update", "time": "2026-11-24T10:00:00Z"}


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ([], None),
        ([{"manager": "argocd-controller", "time": "2026-11-24T10:05:00Z"}], "argocd-controller"),
        ([{"manager": "argocd-controller", "time": "2026-11-24T10:00:00Z"}], "argocd-controller"),
        ([{"manager": "argocd-controller", "time": "2026-11-24T09:59:59Z"}], None),
        (
            [
                {"manager": "first", "time": "2026-11-24T10:01:00Z"},
                {"manager": "last", "time": "2026-11-24T10:02:00Z"},
            ],
            "last",
        ),
        ([{"manager": "a manager\nwith text", "time": "2026-11-24T10:05:00Z"}], None),
        ([{"manager": "x" * 100, "time": "2026-11-24T10:05:00Z"}], None),
        ([{"manager": "no-time"}], None),
        (["odd", 5, {"manager": 5, "time": 5}], None),
    ],
)
def test_who_wrote_last_is_told_where_the_api_server_notes_it(others: list[Any], wanted: str | None) -> None:
    obj = secret_object()
    obj["metadata"]["managedFields"] = [*others, OWN]
    assert secrets.secret_view(obj).last_writer == wanted
    obj["metadata"]["managedFields"] = [OWN, *others]
    assert secrets.secret_view(obj).last_writer == wanted


@given(managed=JSONS)
def test_odd_notes_of_managers_harm_nobody(managed: Any) -> None:
    obj = secret_object()
    obj["metadata"]["managedFields"] = managed
    assert secrets.secret_view(obj).last_writer is None or isinstance(managed, list)
