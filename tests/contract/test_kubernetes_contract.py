"""What the worker relies on in the Kubernetes API, held against the sandbox and against a real API server."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.contract.conftest import GROUPS, Answer, Api
from tests.support.workloads import workload

PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
ADMIN_KEY = {"name": "openai-admin-secret", "key": "api-key"}
GENERATOR = {"spec": {"projectId": "proj_1", "openAiAdminKey": ADMIN_KEY}}


def entry(**status: Any) -> dict[str, Any]:
    """The spec of a ledger entry, with a status."""
    return {"spec": {"target": {"namespace": "default", "secret": "s"}, "ledger": "uid"}, "status": status}


def encoded(text: str) -> str:
    """Text as a Secret carries it."""
    return base64.b64encode(text.encode()).decode()


def refusal(answer: Answer) -> tuple[int, str]:
    """The status and the reason of a refusal, which is a Status object."""
    status = answer.json()
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert status["code"] == answer.status
    return answer.status, status["reason"]


def causes(answer: Answer) -> set[tuple[str, str]]:
    """The fields that an invalid object was refused for, each with the reason."""
    return {(cause["field"], cause["reason"]) for cause in answer.json()["details"]["causes"]}


# Versions and conflicts


@pytest.mark.parametrize(("plural", "fields"), [("secrets", {}), ("keyrotations", entry())])
async def test_a_merge_patch_with_a_stale_version_is_refused(api: Api, plural: str, fields: dict[str, Any]) -> None:
    """409 Conflict, with the object's name and resource, and nothing has changed."""
    first = await api.created(plural, "a", fields)
    label = {"metadata": {"labels": {"by": "someone"}}}
    second = (await api.patch(plural, "a", label)).json()
    stale = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"], "labels": {"by": "late"}}}
    answer = await api.patch(plural, "a", stale)
    assert refusal(answer) == (409, "Conflict")
    details = answer.json()["details"]
    assert (details["name"], details["kind"]) == ("a", plural)
    assert await api.get(plural, "a") == second


@pytest.mark.parametrize(("plural", "fields"), [("secrets", {}), ("keyrotations", entry())])
async def test_a_merge_patch_with_the_current_version_passes(api: Api, plural: str, fields: dict[str, Any]) -> None:
    """200, with a new resourceVersion and the uid that it had."""
    first = await api.created(plural, "a", fields)
    version = first["metadata"]["resourceVersion"]
    answer = await api.patch(plural, "a", {"metadata": {"resourceVersion": version, "labels": {"x": "y"}}})
    assert answer.status == 200
    assert answer.json()["metadata"]["resourceVersion"] != version
    assert answer.json()["metadata"]["uid"] == first["metadata"]["uid"]


@pytest.mark.parametrize(("plural", "fields"), [("secrets", {}), ("keyrotations", entry(since="2026-11-24T10:00:00Z"))])
async def test_a_patch_that_changes_nothing_keeps_the_version(api: Api, plural: str, fields: dict[str, Any]) -> None:
    """No write happens, so no watcher hears of it."""
    first = await api.created(plural, "a", fields, labels={"x": "y"})
    same = {"metadata": {"labels": {"x": "y", "absent": None}}, **fields}
    answer = await api.patch(plural, "a", same)
    assert answer.json()["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_of_two_concurrent_creates_one_wins(api: Api) -> None:
    """201 once, 409 AlreadyExists for the other."""
    answers = await asyncio.gather(*(api.create("keyrotations", "a", entry()) for _ in range(2)))
    assert sorted(answer.status for answer in answers) == [201, 409]
    loser = next(answer for answer in answers if answer.status == 409)
    assert refusal(loser) == (409, "AlreadyExists")
    assert loser.json()["details"] == {"name": "a", "group": "openai-key-rotator.io", "kind": "keyrotations"}


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_absent_object_is_not_found(api: Api, method: str) -> None:
    """404 NotFound; a merge patch creates nothing."""
    answer = await api.call(method, api.path("secrets", "absent"), {} if method == "PATCH" else None)
    assert refusal(answer) == (404, "NotFound")
    assert answer.json()["details"] == {"name": "absent", "kind": "secrets"}


async def test_a_create_may_not_name_a_version(api: Api) -> None:
    """An object that was read cannot be created again as it is."""
    answer = await api.create("secrets", "a", resourceVersion="1")
    assert answer.status == 500
    assert (await api.call("GET", api.path("secrets", "a"))).status == 404


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
async def test_a_delete_whose_precondition_fails_deletes_nothing(api: Api, field: str) -> None:
    """409 Conflict; with the right value it passes."""
    item = await api.created("keyrotations", "a", entry())
    wrong = {"preconditions": {field: "1"}}
    assert refusal(await api.call("DELETE", api.path("keyrotations", "a"), wrong)) == (409, "Conflict")
    right = {"preconditions": {field: item["metadata"][field]}}
    answer = await api.call("DELETE", api.path("keyrotations", "a"), right)
    assert (answer.status, answer.json()["status"]) == (200, "Success")
    assert (await api.call("GET", api.path("keyrotations", "a"))).status == 404


async def test_a_patch_for_another_uid_is_refused(api: Api) -> None:
    """An object that was deleted and made again is not changed by who meant the old one."""
    await api.created("secrets", "a")
    answer = await api.patch("secrets", "a", {"metadata": {"uid": "00000000-0000-4000-8000-000000000000"}})
    assert refusal(answer) == (422, "Invalid")
    assert causes(answer) == {("metadata.uid", "FieldValueInvalid")}


async def test_a_replacement_of_a_custom_resource_must_name_its_version(api: Api) -> None:
    """422 without one, 409 with a stale one, 200 with the current one."""
    item = await api.created("keyrotations", "a", entry())
    path, version = api.path("keyrotations", "a"), item["metadata"].pop("resourceVersion")
    assert refusal(await api.call("PUT", path, item)) == (422, "Invalid")
    await api.patch("keyrotations", "a", {"metadata": {"labels": {"x": "y"}}})
    item["metadata"]["resourceVersion"] = version
    assert refusal(await api.call("PUT", path, item)) == (409, "Conflict")
    item["metadata"]["resourceVersion"] = (await api.get("keyrotations", "a"))["metadata"]["resourceVersion"]
    assert (await api.call("PUT", path, item)).status == 200


# Merge patches


async def test_null_deletes_what_it_names(api: Api) -> None:
    """A data key, an annotation and a label go; their neighbours stay."""
    marks = {"annotations": {"a/x": "1", "a/y": "2"}, "labels": {"x": "1", "y": "2"}}
    await api.created("secrets", "a", {"data": {"x": encoded("1"), "y": encoded("2")}}, **marks)
    gone = {"data": {"x": None}, "metadata": {"annotations": {"a/x": None}, "labels": {"x": None}}}
    item = (await api.patch("secrets", "a", gone)).json()
    assert item["data"] == {"y": encoded("2")}
    assert item["metadata"]["annotations"] == {"a/y": "2"}
    assert item["metadata"]["labels"] == {"y": "2"}


async def test_map_keys_may_have_underscores_and_capitals(api: Api) -> None:
    """An account's name is a key of the ledger's map, and null drops it."""
    accounts = {"app_k3x9Zq": {"id": "user-1"}, "app_Other_2": {"id": "user-2"}}
    await api.created("keyrotations", "a", entry(accounts=accounts))
    patch = {"status": {"accounts": {"app_k3x9Zq": None, "app_New": {"id": "user-3"}}}}
    item = (await api.patch("keyrotations", "a", patch)).json()
    assert item["status"]["accounts"] == {"app_Other_2": {"id": "user-2"}, "app_New": {"id": "user-3"}}


async def test_a_patch_of_a_dropped_map_entry_brings_half_of_it_back(api: Api) -> None:
    """Which is why each PATCH of the ledger carries a resourceVersion."""
    await api.created("keyrotations", "a", entry(accounts={"x": {"id": "user-1", "keyId": "key_1"}}))
    await api.patch("keyrotations", "a", {"status": {"accounts": {"x": None}}})
    item = (await api.patch("keyrotations", "a", {"status": {"accounts": {"x": {"held": "1"}}}})).json()
    assert item["status"]["accounts"] == {"x": {"held": "1"}}


@pytest.mark.parametrize(
    ("plural", "kind", "status"),
    [
        ("keyrotations", "application/strategic-merge-patch+json", 415),
        ("keyrotations", "text/plain", 415),
        ("secrets", "application/json", 415),
    ],
)
async def test_a_patch_of_an_unknown_type_is_refused(api: Api, plural: str, kind: str, status: int) -> None:
    """415: only a merge patch is one."""
    await api.created(plural, "a", entry() if plural == "keyrotations" else {})
    answer = await api.call("PATCH", api.path(plural, "a"), {}, headers={"Content-Type": kind})
    assert refusal(answer) == (status, "UnsupportedMediaType")


async def test_a_patch_cannot_rename(api: Api) -> None:
    """400: the name in the body is not that in the path."""
    await api.created("secrets", "a")
    assert refusal(await api.patch("secrets", "a", {"metadata": {"name": "b"}})) == (400, "BadRequest")


async def test_any_version_may_be_meant(api: Api) -> None:
    """By none or "0" for a built-in kind; a custom resource's null is refused, for no PATCH can do without there."""
    await api.created("secrets", "a")
    for version in ("0", "", None):
        answer = await api.patch(
            "secrets", "a", {"metadata": {"resourceVersion": version, "labels": {"x": f"y{version}"}}}
        )
        assert answer.status == 200
    await api.created("keyrotations", "a", entry())
    for version in ("0", "", None):
        answer = await api.patch("keyrotations", "a", {"metadata": {"resourceVersion": version}})
        assert refusal(answer) == (422, "Invalid")
        assert causes(answer) == {("metadata.resourceVersion", "FieldValueInvalid")}
    assert (await api.patch("secrets", "a", {"metadata": {"resourceVersion": "x"}})).status == 500


@pytest.mark.parametrize(
    "patch",
    [{"data": {"x": "not base64!"}}, {"data": {"x": 1}}, {"kind": "ConfigMap"}, {"metadata": {"labels": {"x": 1}}}],
)
async def test_a_patch_that_leaves_no_object_is_refused_in_words_that_quote_it(api: Api, patch: dict[str, Any]) -> None:
    """422 with all of the Secret's data in the message: which is why messages go nowhere."""
    await api.created("secrets", "a", {"data": {"key": encoded("sk-1")}})
    answer = await api.patch("secrets", "a", patch)
    assert refusal(answer) == (422, "Invalid")
    assert causes(answer) == {("patch", "FieldValueInvalid")}
    assert encoded("sk-1") in answer.json()["message"]


async def test_nulls_within_lists_go_from_objects_only(api: Api) -> None:
    """As the API server's library reads a merge patch."""
    await api.created("openais", "a", GENERATOR)
    patch = {"status": {"output": {"list": [None, {"x": None, "y": 1}], "map": {"x": None}}}}
    item = (await api.call("PATCH", api.path("openais", "a") + "/status", patch)).json()
    assert item["status"]["output"] == {"list": [None, {"y": 1}], "map": {}}


# Lists


async def test_pages_show_everything_once(api: Api) -> None:
    """`limit` and `continue` give the objects in the order of their names, as they were when the list began."""
    for name in ("e", "d", "c", "b", "a"):
        await api.created("keyrotations", name, entry())
    first = (await api.call("GET", api.path("keyrotations"), query={"limit": 2})).json()
    assert first["kind"] == "KeyRotationList"
    assert first["metadata"]["remainingItemCount"] == 3
    await api.created("keyrotations", "cc", entry())
    await api.call("DELETE", api.path("keyrotations", "d"))
    token = first["metadata"]["continue"]
    second = (await api.call("GET", api.path("keyrotations"), query={"limit": 2, "continue": token})).json()
    token = second["metadata"]["continue"]
    third = (await api.call("GET", api.path("keyrotations"), query={"limit": 2, "continue": token})).json()
    assert not third["metadata"].get("continue")
    pages = [[item["metadata"]["name"] for item in page["items"]] for page in (first, second, third)]
    assert pages == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_token_is_good_for_another_limit_and_more_than_once(api: Api) -> None:
    """It names the last object that was shown, and nothing of how many."""
    for name in "abcde":
        await api.created("keyrotations", name, entry())
    first = (await api.call("GET", api.path("keyrotations"), query={"limit": 2})).json()
    pages = []
    for limit in (3, 1, 2):
        query = {"limit": limit, "continue": first["metadata"]["continue"]}
        page = (await api.call("GET", api.path("keyrotations"), query=query)).json()
        pages.append("".join(item["metadata"]["name"] for item in page["items"]))
    assert pages == ["cde", "c", "cd"]


async def test_a_continue_token_that_was_never_given_is_refused(api: Api) -> None:
    """400: it is not taken for the beginning."""
    answer = await api.call("GET", api.path("secrets"), query={"limit": 1, "continue": "nonsense"})
    assert refusal(answer) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("tier=web", "a"),
        ("tier==web,env=prod", "a"),
        ("tier!=web", "bcd"),
        ("tier in (web, db)", "ab"),
        ("tier notin (web,db),env", "c"),
        ("tier", "abc"),
        ("!tier", "d"),
        ("tier=", ""),
        ("", "abcd"),
    ],
)
async def test_label_selectors_select(api: Api, selector: str, names: str) -> None:
    """Equality, sets and existence, all of them at once."""
    labels = {"a": {"tier": "web", "env": "prod"}, "b": {"tier": "db"}, "c": {"tier": "x", "env": "test"}, "d": {}}
    for name, given in labels.items():
        await api.created("configmaps", name, labels=given)
    page = (await api.call("GET", api.path("configmaps"), query={"labelSelector": selector})).json()
    found = [item["metadata"]["name"] for item in page["items"]]
    assert "".join(name for name in found if len(name) == 1) == names


@pytest.mark.parametrize("selector", ["tier in web", "=x", "a=b=c", "tier in (a", "a b", "a" * 64, "x=" + "a" * 64])
async def test_a_malformed_selector_is_refused(api: Api, selector: str) -> None:
    """400: it is not taken to select everything."""
    answer = await api.call("GET", api.path("configmaps"), query={"labelSelector": selector})
    assert refusal(answer) == (400, "BadRequest")


async def test_fields_select_by_name_and_namespace(api: Api) -> None:
    """Across all namespaces, too."""
    await api.created("secrets", "a")
    await api.created("secrets", "b")
    selector = f"metadata.namespace={api.namespace},metadata.name!=b"
    page = (await api.call("GET", api.path("secrets", namespace=""), query={"fieldSelector": selector})).json()
    assert [item["metadata"]["name"] for item in page["items"]] == ["a"]


async def test_a_list_of_a_missing_namespace_is_empty(api: Api) -> None:
    """200: a list does not tell whether a namespace exists."""
    for plural in ("secrets", "keyrotations"):
        answer = await api.call("GET", api.path(plural, namespace="missing-namespace"))
        assert (answer.status, answer.json()["items"]) == (200, [])


async def test_items_of_a_built_in_list_lack_their_kind(api: Api) -> None:
    """Items of a custom resource's list have it."""
    await api.created("secrets", "a")
    await api.created("openais", "a", GENERATOR)
    secret = (await api.call("GET", api.path("secrets"))).json()["items"][0]
    generator = (await api.call("GET", api.path("openais"))).json()["items"][0]
    assert "kind" not in secret
    assert generator["kind"] == "OpenAI"


async def test_an_unknown_api_is_not_found(api: Api) -> None:
    """404 for a CRD that is not installed, and not as a Status object."""
    answer = await api.call("GET", f"/apis/nothing.example/v1/namespaces/{api.namespace}/things")
    assert answer.status == 404
    assert not answer.headers["Content-Type"].startswith("application/json")


async def test_a_part_of_an_api_that_does_not_exist_is_not_found(api: Api) -> None:
    """404 with a Status object, where the API as such exists."""
    for path in ("/api/v1/nothings", "/apis/apps/v1/nothings", api.path("secrets", "a") + "/status"):
        assert refusal(await api.call("GET", path)) == (404, "NotFound")


async def test_a_field_that_cannot_select_is_refused(api: Api) -> None:
    """400: it is not taken to select everything."""
    for plural in ("secrets", "keyrotations"):
        answer = await api.call("GET", api.path(plural), query={"fieldSelector": "spec.x=y"})
        assert refusal(answer) == (400, "BadRequest")


# Custom resources


async def test_status_is_a_world_of_its_own_where_its_subresource_is_on(api: Api) -> None:
    """Writes of the object ignore status with 2xx; writes of /status change nothing else, and count no generation."""
    item = await api.created("openais", "a", {**GENERATOR, "status": {"output": {"x": 1}}})
    assert "status" not in item
    answer = await api.patch("openais", "a", {"status": {"output": {"x": 1}}})
    assert answer.status == 200
    assert "status" not in answer.json()
    patch = {"status": {"output": {"x": 1}}, "spec": {"projectId": "other"}, "metadata": {"labels": {"x": "y"}}}
    item = (await api.call("PATCH", api.path("openais", "a") + "/status", patch)).json()
    assert item["status"] == {"output": {"x": 1}}
    assert item["spec"]["projectId"] == "proj_1"
    assert item["metadata"]["generation"] == 1
    item = (await api.patch("openais", "a", {"spec": {"projectId": "other"}})).json()
    assert item["status"] == {"output": {"x": 1}}
    assert item["metadata"]["generation"] == 2


async def test_the_ledger_has_no_status_subresource(api: Api) -> None:
    """One PATCH writes spec and status, and each change counts a generation."""
    await api.created("keyrotations", "a", entry(accountCount=1))
    item = (await api.patch("keyrotations", "a", {"status": {"accountCount": 2}})).json()
    assert item["status"]["accountCount"] == 2
    assert item["metadata"]["generation"] == 2
    item = (await api.patch("keyrotations", "a", {"metadata": {"labels": {"x": "y"}}})).json()
    assert item["metadata"]["generation"] == 2
    assert (await api.call("GET", api.path("keyrotations", "a") + "/status")).status == 404


async def test_defaults_are_filled_in(api: Api) -> None:
    """Absent and null fields get the schema's default, nested ones where their parent is given."""
    spec = GENERATOR["spec"] | {"serviceAccountNameSize": None, "cleanupPolicy": {"type": "idle"}}
    item = await api.created("openais", "a", {"spec": spec})
    assert item["spec"]["host"] == "https://api.openai.com/v1"
    assert item["spec"]["serviceAccountNameSize"] == 12
    assert item["spec"]["cleanupPolicy"] == {"type": "idle", "gracePeriod": "2m", "idleTimeout": "24h"}
    assert "cleanupPolicy" not in (await api.created("openais", "b", GENERATOR))["spec"]


async def test_unknown_fields_are_pruned(api: Api) -> None:
    """Except below x-kubernetes-preserve-unknown-fields."""
    item = await api.created("openais", "a", {"spec": GENERATOR["spec"] | {"unknown": {"x": 1}}, "other": 1})
    assert "unknown" not in item["spec"]
    assert "other" not in item
    item = (await api.patch("openais", "a", {"spec": {"openAiAdminKey": {"unknown": 1}}})).json()
    assert item["spec"]["openAiAdminKey"] == ADMIN_KEY
    assert item["metadata"]["generation"] == 1


async def test_strict_validation_refuses_unknown_fields(api: Api) -> None:
    """As `kubectl apply` asks for it."""
    item = {"apiVersion": GROUPS["openais"][6:], "kind": "OpenAI", "metadata": {"name": "a"}}
    item |= {"spec": GENERATOR["spec"] | {"unknown": 1}}
    answer = await api.call("POST", api.path("openais"), item, query={"fieldValidation": "Strict"})
    assert refusal(answer) == (400, "BadRequest")
    assert 'unknown field "spec.unknown"' in answer.json()["message"]


INVALID_GENERATORS: list[tuple[dict[str, Any], set[tuple[str, str]]]] = [
    ({"projectId": None}, {("spec.projectId", "FieldValueRequired")}),
    ({"serviceAccountNameSize": "12"}, {("spec.serviceAccountNameSize", "FieldValueTypeInvalid")}),
    ({"serviceAccountNameSize": 1.5}, {("spec.serviceAccountNameSize", "FieldValueTypeInvalid")}),
    ({"cleanupPolicy": {"type": "never"}}, {("spec.cleanupPolicy.type", "FieldValueNotSupported")}),
    ({"openAiAdminKey": {"name": "Bad_Name", "key": "k"}}, {("spec.openAiAdminKey.name", "FieldValueInvalid")}),
    ({"openAiAdminKey": {"name": "", "key": "k"}}, {("spec.openAiAdminKey.name", "FieldValueInvalid")}),
    ({"openAiAdminKey": {"name": "a" * 254, "key": "k"}}, {("spec.openAiAdminKey.name", "FieldValueTooLong")}),
    ({"openAiAdminKey": "x"}, {("spec.openAiAdminKey", "FieldValueTypeInvalid")}),
]


@pytest.mark.parametrize(("change", "expected"), INVALID_GENERATORS)
async def test_an_invalid_custom_resource_is_refused(
    api: Api, change: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    """422 Invalid, which names the object and each field that is wrong."""
    spec = {name: value for name, value in (GENERATOR["spec"] | change).items() if value is not None}
    answer = await api.create("openais", "a", {"spec": spec})
    assert refusal(answer) == (422, "Invalid")
    details = answer.json()["details"]
    group = "generators.external-secrets.io"
    assert (details["name"], details["group"], details["kind"]) == ("a", group, "OpenAI")
    assert expected <= causes(answer)


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("2026-11-24T10:00:00Z", True),
        ("2026-11-24T10:00:00.123456Z", True),
        ("2026-11-24T10:00:00+01:00", True),
        ("2026-11-24T10:00:00", False),
        ("2026-11-24", False),
        ("2026-13-24T10:00:00Z", False),
        ("soon", False),
    ],
)
async def test_times_must_be_times(api: Api, text: str, accepted: bool) -> None:
    """The format date-time is checked."""
    answer = await api.create("keyrotations", "a", entry(since=text))
    assert answer.status == (201 if accepted else 422)
    if not accepted:
        assert causes(answer) == {("status.since", "FieldValueTypeInvalid")}


async def test_two_conditions_of_one_type_are_refused(api: Api) -> None:
    """A list that is a map by type has each type once."""
    condition = {"type": "Ready", "status": "True", "reason": "R", "lastTransitionTime": "2026-11-24T10:00:00Z"}
    answer = await api.create("keyrotations", "a", entry(conditions=[condition, condition]))
    assert causes(answer) == {("status.conditions[1]", "FieldValueDuplicate")}


async def test_a_null_that_may_not_be_one_is_dropped(api: Api) -> None:
    """From fields and from maps; in a list it is a value, of the wrong type."""
    item = await api.created(
        "keyrotations", "a", entry(honoured={"rotate": None}, accountCount=None, accounts={"x": None})
    )
    assert item["status"] == {"honoured": {}, "accounts": {}}
    answer = await api.create("keyrotations", "b", entry(conditions=[None]))
    assert causes(answer) == {("status.conditions[0]", "FieldValueTypeInvalid")}


@pytest.mark.parametrize(
    ("text", "accepted"),
    [("2m", True), ("1h30m", True), ("0", True), ("-1m", True), ("1d", True), ("2 minutes", True), ("1H", True)]
    + [("2", False), ("", False), ("1mo", False), ("soon", False)],
)
async def test_durations_are_many_things(api: Api, text: str, accepted: bool) -> None:
    """The API server takes more than Go does, so whoever reads one must be prepared."""
    spec = GENERATOR["spec"] | {"cleanupPolicy": {"type": "idle", "gracePeriod": text}}
    answer = await api.create("openais", "a", {"spec": spec})
    assert answer.status == (201 if accepted else 422)


async def test_deleting_a_crd_deletes_its_objects(api: Api) -> None:
    """And its API is not found any more; a new CRD of that name begins empty."""
    group = f"{api.namespace}.example"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": "things", "singular": "thing", "kind": "Thing"}
    crd: dict[str, Any] = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    crd |= {"metadata": {"name": f"things.{group}"}}
    crd |= {"spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}}
    crds = api.path("customresourcedefinitions", namespace="")
    things = f"/apis/{group}/v1/namespaces/{api.namespace}/things"
    thing = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "a"}}

    async def status_is(status: int) -> bool:
        return (await api.call("GET", things)).status == status

    assert (await api.call("POST", crds, crd)).status == 201
    await api.eventually(lambda: status_is(200))

    async def accepted() -> bool:
        return (await api.call("POST", things, thing)).status == 201

    await api.eventually(accepted)
    assert (await api.call("DELETE", f"{crds}/things.{group}")).status == 200
    await api.eventually(lambda: status_is(404))

    async def created_again() -> bool:
        return (await api.call("POST", crds, crd)).status == 201

    await api.eventually(created_again)
    await api.eventually(lambda: status_is(200))
    assert (await api.call("GET", things)).json()["items"] == []
    await api.call("DELETE", f"{crds}/things.{group}")


# Secrets


async def test_a_secret_is_opaque_unless_it_says_otherwise(api: Api) -> None:
    """stringData ends up, encoded, in data; empty data is left out."""
    item = await api.created("secrets", "a", {"stringData": {"x": "1"}, "data": {"x": "", "y": encoded("2")}})
    assert item["type"] == "Opaque"
    assert item["data"] == {"x": encoded("1"), "y": encoded("2")}
    assert "stringData" not in item
    assert "data" not in await api.created("secrets", "b", {"data": {}})


async def test_a_secrets_type_does_not_change(api: Api) -> None:
    """422, with the field."""
    await api.created("secrets", "a")
    answer = await api.patch("secrets", "a", {"type": "example.com/other"})
    assert refusal(answer) == (422, "Invalid")
    assert causes(answer) == {("type", "FieldValueInvalid")}


async def test_an_immutable_secret_does_not_change(api: Api) -> None:
    """422 for its data; its metadata may change, and it may be deleted."""
    await api.created("secrets", "a", {"data": {"x": encoded("1")}, "immutable": True})
    answer = await api.patch("secrets", "a", {"data": {"x": encoded("2")}})
    assert refusal(answer) == (422, "Invalid")
    assert causes(answer) == {("data", "FieldValueForbidden")}
    assert (await api.patch("secrets", "a", {"immutable": False})).status == 422
    assert (await api.patch("secrets", "a", {"metadata": {"labels": {"x": "y"}}})).status == 200
    assert (await api.call("DELETE", api.path("secrets", "a"))).status == 200


@pytest.mark.parametrize("text", ["not base64!", "YQ", "YQ=", "Y Q=="])
async def test_data_that_is_not_base64_is_refused(api: Api, text: str) -> None:
    """400: the body cannot be read."""
    assert refusal(await api.create("secrets", "a", {"data": {"x": text}})) == (400, "BadRequest")


@pytest.mark.parametrize("key", ["a b", "a/b", "", ".."])
async def test_data_keys_have_few_letters(api: Api, key: str) -> None:
    """422 for a key that could not be a file's name."""
    assert refusal(await api.create("secrets", "a", {"data": {key: encoded("1")}})) == (422, "Invalid")


async def test_a_secret_of_a_typed_kind_needs_its_keys(api: Api) -> None:
    """422 where the type says which keys there are."""
    answer = await api.create("secrets", "a", {"type": "kubernetes.io/tls"})
    assert causes(answer) == {("data[tls.crt]", "FieldValueRequired"), ("data[tls.key]", "FieldValueRequired")}
    answer = await api.create("secrets", "a", {"type": "kubernetes.io/service-account-token"})
    assert answer.status == 422


# Names, sizes, bodies


@pytest.mark.parametrize("name", ["Upper", "a_b", "-a", "a.", "a" * 254, "ü", "a/b"])
async def test_a_malformed_name_is_refused(api: Api, name: str) -> None:
    """422: a name is a DNS subdomain of at most 253 characters."""
    for plural, fields in (("secrets", {}), ("openais", GENERATOR)):
        answer = await api.create(plural, name, fields)
        assert refusal(answer) == (422, "Invalid")
        assert causes(answer) == {("metadata.name", "FieldValueInvalid")}


async def test_a_long_name_is_accepted(api: Api) -> None:
    """253 characters with dots, as the ledger's names may be."""
    name = f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}"
    assert len(name) == 253
    await api.created("keyrotations", name, entry())


async def test_an_object_must_have_a_name(api: Api) -> None:
    """422; generateName makes one up."""
    assert refusal(await api.create("secrets", "")) == (422, "Invalid")
    item = (await api.call("POST", api.path("secrets"), {"metadata": {"generateName": "made-"}})).json()
    assert item["metadata"]["name"].startswith("made-")
    assert len(item["metadata"]["name"]) > len("made-")


@pytest.mark.parametrize("labels", [{"a b": "x"}, {"x": "a b"}, {"x": "a" * 64}, {"x/y/z": "1"}, {"/x": "1"}])
async def test_malformed_labels_are_refused(api: Api, labels: dict[str, str]) -> None:
    """422, with the field."""
    answer = await api.create("secrets", "a", labels=labels)
    assert refusal(answer) == (422, "Invalid")
    assert causes(answer) == {("metadata.labels", "FieldValueInvalid")}


async def test_annotations_are_limited_in_size(api: Api) -> None:
    """422 above 256 KiB."""
    answer = await api.create("secrets", "a", annotations={"x": "a" * 263_000})
    assert causes(answer) == {("metadata.annotations", "FieldValueTooLong")}


async def test_too_large_an_object_is_refused(api: Api) -> None:
    """Above what etcd takes, and above what the server reads at all (413)."""
    accounts = {f"app_{number}": {"held": "a" * 1000} for number in range(1700)}
    answer = await api.create("keyrotations", "a", entry(accounts=accounts))
    assert answer.status >= 400
    assert answer.json()["kind"] == "Status"
    answer = await api.call("POST", api.path("keyrotations"), b" " * (3 * 1024 * 1024 + 1))
    assert refusal(answer) == (413, "RequestEntityTooLarge")


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b'{"metadata": 1}', b'{"metadata": {"labels": {"x": 1}}}'])
async def test_a_body_that_is_no_object_is_refused(api: Api, body: bytes) -> None:
    """400."""
    answer = await api.call("POST", api.path("secrets"), body)
    assert refusal(answer) == (400, "BadRequest")


async def test_a_body_of_another_kind_is_refused(api: Api) -> None:
    """400: a ConfigMap is no Secret, and a generator of another version is none of this one."""
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    assert refusal(await api.call("POST", api.path("secrets"), item)) == (400, "BadRequest")
    item = {"apiVersion": "generators.external-secrets.io/v9", "kind": "OpenAI", "metadata": {"name": "a"}, **GENERATOR}
    assert refusal(await api.call("POST", api.path("openais"), item)) == (400, "BadRequest")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_collection_cannot_be_written(api: Api, method: str) -> None:
    """405."""
    assert refusal(await api.call(method, api.path("secrets"), {})) == (405, "MethodNotAllowed")


# Namespaces


async def test_a_missing_namespace_takes_nothing(api: Api) -> None:
    """404, about the namespace."""
    answer = await api.call("POST", api.path("secrets", namespace="missing-namespace"), {"metadata": {"name": "a"}})
    assert refusal(answer) == (404, "NotFound")
    assert answer.json()["details"] == {"name": "missing-namespace", "kind": "namespaces"}


async def test_a_terminating_namespace_takes_nothing_new(api: Api) -> None:
    """403 with the cause, in a dry run too; what exists can still be changed."""
    await api.created("configmaps", "hold", finalizers=["sandbox.example/hold"])
    assert (await api.call("DELETE", f"/api/v1/namespaces/{api.namespace}")).status == 200
    namespace = (await api.call("GET", f"/api/v1/namespaces/{api.namespace}")).json()
    assert namespace["status"]["phase"] == "Terminating"
    assert namespace["metadata"]["deletionTimestamp"]
    queries: list[dict[str, str]] = [{}, {"dryRun": "All"}]
    for query in queries:
        answer = await api.call("POST", api.path("secrets"), {"metadata": {"name": "a"}}, query=query)
        assert refusal(answer) == (403, "Forbidden")
        assert causes(answer) == {("metadata.namespace", "NamespaceTerminating")}
    assert (await api.patch("configmaps", "hold", {"data": {"x": "y"}})).status == 200
    assert (await api.patch("configmaps", "hold", {"metadata": {"finalizers": None}})).status == 200


async def test_a_namespaces_own_part_cannot_be_patched(api: Api) -> None:
    """Labels can; spec and status are written by other means, and what a patch says of them is ignored."""
    path = f"/api/v1/namespaces/{api.namespace}"
    before = (await api.call("GET", path)).json()
    patch = {"metadata": {"labels": {"x": "y"}}, "spec": {"finalizers": ["a/b"]}, "status": {"phase": "Terminating"}}
    after = (await api.call("PATCH", path, patch)).json()
    assert after["metadata"]["labels"]["x"] == "y"
    assert (after["spec"], after["status"]) == (before["spec"], before["status"])


@pytest.mark.parametrize(
    "options", [b"{", [], {"gracePeriodSeconds": "soon"}, {"preconditions": "uid"}, {"dryRun": "All"}]
)
async def test_malformed_deletions_delete_nothing(api: Api, options: object) -> None:
    """400."""
    await api.created("secrets", "a")
    assert refusal(await api.call("DELETE", api.path("secrets", "a"), options)) == (400, "BadRequest")
    await api.get("secrets", "a")


async def test_a_deletion_of_an_unknown_policy_deletes_nothing(api: Api) -> None:
    """422, by the body and by the query."""
    await api.created("secrets", "a")
    path = api.path("secrets", "a")
    assert refusal(await api.call("DELETE", path, {"propagationPolicy": "Nope"})) == (422, "Invalid")
    assert refusal(await api.call("DELETE", path, query={"propagationPolicy": "Nope"})) == (422, "Invalid")
    await api.get("secrets", "a")


async def test_a_finalizer_holds_a_deletion(api: Api) -> None:
    """The object stays, marked, until the last finalizer is gone."""
    await api.created("keyrotations", "a", entry(), finalizers=["sandbox.example/hold"])
    answer = await api.call("DELETE", api.path("keyrotations", "a"))
    assert answer.status == 200
    assert answer.json()["metadata"]["deletionTimestamp"]
    assert (await api.get("keyrotations", "a"))["metadata"]["deletionTimestamp"]
    assert (await api.patch("keyrotations", "a", {"metadata": {"finalizers": None}})).status == 200
    assert (await api.call("GET", api.path("keyrotations", "a"))).status == 404


async def test_a_deletion_takes_no_new_finalizers(api: Api) -> None:
    """422; and a built-in kind's are qualified names."""
    await api.created("secrets", "a", finalizers=["sandbox.example/hold"])
    await api.call("DELETE", api.path("secrets", "a"))
    added = {"metadata": {"finalizers": ["sandbox.example/hold", "sandbox.example/more"]}}
    assert causes(await api.patch("secrets", "a", added)) == {("metadata.finalizers", "FieldValueForbidden")}
    assert (await api.patch("secrets", "a", {"metadata": {"finalizers": None}})).status == 200
    answer = await api.create("secrets", "b", finalizers=["hold"])
    assert causes(answer) == {("metadata.finalizers[0]", "FieldValueInvalid")}


# Dry runs, forms, headers


async def test_a_dry_run_stores_nothing(api: Api) -> None:
    """Create, patch and delete answer as if, and check as if."""
    body = {"metadata": {"name": "a"}, "data": {"x": encoded("1")}}
    answer = await api.call("POST", api.path("secrets"), body, query={"dryRun": "All"})
    assert (answer.status, answer.json()["data"]) == (201, {"x": encoded("1")})
    assert (await api.call("GET", api.path("secrets", "a"))).status == 404
    item = await api.created("secrets", "a", {"data": {"x": encoded("1")}})
    answer = await api.patch("secrets", "a", {"data": {"x": encoded("2")}}, dryRun="All")
    assert (answer.status, answer.json()["data"]) == (200, {"x": encoded("2")})
    assert (await api.patch("secrets", "a", {"type": "other"}, dryRun="All")).status == 422
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"x": encoded("2")}}
    assert (await api.patch("secrets", "a", stale, dryRun="All")).status == 409
    assert (await api.call("DELETE", api.path("secrets", "a"), query={"dryRun": "All"})).status == 200
    assert (await api.call("DELETE", api.path("secrets", "a"), {"dryRun": ["All"]})).status == 200
    assert await api.get("secrets", "a") == item


async def test_a_dry_run_must_be_all(api: Api) -> None:
    """A misspelt one is refused, not taken for a real request."""
    answer = await api.call("POST", api.path("secrets"), {"metadata": {"name": "a"}}, query={"dryRun": "all"})
    assert refusal(answer) == (422, "Invalid")
    assert (await api.call("GET", api.path("secrets", "a"))).status == 404


async def test_metadata_can_be_read_alone(api: Api) -> None:
    """One object, a list, and the answer to a patch, all without data."""
    item = await api.created("secrets", "a", {"data": {"x": encoded("1")}}, labels={"x": "y"})
    answer = await api.call("GET", api.path("secrets", "a"), headers={"Accept": PARTIAL})
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}
    assert answer.json() == partial
    page = (await api.call("GET", api.path("secrets"), headers={"Accept": PARTIAL_LIST})).json()
    assert (page["kind"], page["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
    assert [set(one) for one in page["items"]] == [{"kind", "apiVersion", "metadata"}]
    patch = {"data": {"x": encoded("2")}}
    answer = await api.call("PATCH", api.path("secrets", "a"), patch, headers={"Accept": PARTIAL})
    assert set(answer.json()) == {"kind", "apiVersion", "metadata"}
    answer = await api.call("GET", api.path("secrets"), headers={"Accept": PARTIAL})
    assert refusal(answer) == (406, "NotAcceptable")


async def test_a_custom_resource_can_be_shown_as_a_table(api: Api) -> None:
    """With the columns of its CRD, which is how `kubectl get keyrotations` tells the state."""
    begun = datetime.now(UTC) - timedelta(hours=5, minutes=30)
    ready = {"type": "Ready", "status": "True", "reason": "Rotated", "lastTransitionTime": "2026-11-24T10:00:00Z"}
    other = ready | {"type": "Other", "reason": "Else"}
    status = entry(accountCount=2, lastRotatedAt=begun.strftime("%Y-%m-%dT%H:%M:%SZ"), conditions=[other, ready])
    await api.created("keyrotations", "a", status)
    await api.created("keyrotations", "b", entry())
    table = (await api.call("GET", api.path("keyrotations"), headers={"Accept": TABLE})).json()
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    names = [column["name"] for column in table["columnDefinitions"]]
    cells = [dict(zip(names, row["cells"], strict=True)) for row in table["rows"]]
    assert cells[0] | {"Accounts": 2, "Rotated": "5h30m", "Ready": "True", "Reason": "Rotated"} == cells[0]
    assert cells[1] | {"Name": "b", "Accounts": None, "Rotated": None, "Ready": None} == cells[1]
    assert [set(row["object"]) for row in table["rows"]] == [{"kind", "apiVersion", "metadata"}] * 2
    one = (await api.call("GET", api.path("keyrotations", "b"), headers={"Accept": TABLE})).json()
    assert one["rows"] == table["rows"][1:]


async def test_every_answer_is_dated(api: Api) -> None:
    """Refusals too: the ledger takes its times from this header."""
    for path in (api.path("secrets"), api.path("secrets", "absent"), "/apis/nothing.example/v1/things"):
        date = parsedate_to_datetime((await api.call("GET", path)).headers["Date"])
        assert date.utcoffset() is not None


async def test_a_wrong_token_is_refused(api: Api) -> None:
    """401 Unauthorized, also where nothing is."""
    answer = await api.call("GET", api.path("secrets"), headers={"Authorization": "Bearer wrong"})
    assert refusal(answer) == (401, "Unauthorized")


async def test_a_refusal_for_want_of_permission_says_whose(api: Api) -> None:
    """403 Forbidden, with the resource in details and words on who may not do what where."""
    headers = api.forbidding("list", "pods")
    answer = await api.call("GET", api.path("pods"), headers=headers)
    assert refusal(answer) == (403, "Forbidden")
    assert answer.json()["details"] == {"kind": "pods"}
    words = f'cannot list resource "pods" in API group "" in the namespace "{api.namespace}"'
    assert words in answer.json()["message"]
    answer = await api.call("GET", api.path("pods", namespace=""), headers=headers)
    assert answer.json()["message"].endswith('cannot list resource "pods" in API group "" at the cluster scope')
    headers = api.forbidding("patch", "keyrotations")
    answer = await api.call("PATCH", api.path("keyrotations", "a"), {}, headers=headers)
    assert answer.json()["details"] == {"name": "a", "group": "openai-key-rotator.io", "kind": "keyrotations"}


# Pods and events


def pod(**spec: Any) -> dict[str, Any]:
    """A pod with one container."""
    return {"spec": {"containers": [{"name": "app", "image": "app"}], **spec}}


async def test_a_pods_status_is_its_subresource(api: Api) -> None:
    """It begins as Pending, whatever the create says."""
    item = await api.created("pods", "a", {**pod(), "status": {"phase": "Running"}})
    assert item["status"]["phase"] == "Pending"
    path = api.path("pods", "a") + "/status"
    assert (await api.call("PATCH", path, {"status": {"phase": "Running"}})).status == 200
    assert (await api.get("pods", "a"))["status"]["phase"] == "Running"


async def test_a_pod_on_a_node_ends_gracefully(api: Api) -> None:
    """Deleted, it stays and is marked, until its kubelet deletes it with no grace; one on no node goes at once."""
    for name, spec in (("scheduled", {"nodeName": "node-1"}), ("pending", {})):
        await api.created("pods", name, pod(**spec))
        assert (await api.call("DELETE", api.path("pods", name))).status == 200
    assert (await api.call("GET", api.path("pods", "pending"))).status == 404
    item = await api.get("pods", "scheduled")
    assert item["metadata"]["deletionTimestamp"]
    assert item["metadata"]["deletionGracePeriodSeconds"] == 30
    assert (await api.call("DELETE", api.path("pods", "scheduled"), {"gracePeriodSeconds": 0})).status == 200
    assert (await api.call("GET", api.path("pods", "scheduled"))).status == 404


# Workloads

WORKLOADS = ("deployment", "statefulset", "daemonset")


def stamped(at: str) -> dict[str, Any]:
    """What `kubectl rollout restart` patches."""
    return {"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": at}}}}}


@pytest.mark.parametrize("kind", WORKLOADS)
async def test_a_stamp_of_the_pod_template_is_a_new_generation_and_the_same_one_is_not(api: Api, kind: str) -> None:
    """So its controller makes new pods once, and all else of the template stays."""
    made = await api.created(f"{kind}s", "a", {"spec": workload(kind)["spec"]})
    assert made["metadata"]["generation"] == 1
    for at, generation in (("2026-11-24T10:00:00Z", 2), ("2026-11-24T10:00:00Z", 2), ("2026-11-24T11:00:00Z", 3)):
        answer = await api.patch(f"{kind}s", "a", stamped(at))
        assert (answer.status, answer.json()["metadata"]["generation"]) == (200, generation)
    template = (await api.get(f"{kind}s", "a"))["spec"]["template"]
    assert template["metadata"]["annotations"] == {"kubectl.kubernetes.io/restartedAt": "2026-11-24T11:00:00Z"}
    assert template["metadata"]["labels"] == made["spec"]["template"]["metadata"]["labels"]
    assert template["spec"] == made["spec"]["template"]["spec"]


@pytest.mark.parametrize("kind", WORKLOADS)
async def test_a_stamp_for_another_version_is_refused(api: Api, kind: str) -> None:
    """409: it was changed, or deleted and made again, since it was looked at."""
    made = await api.created(f"{kind}s", "a", {"spec": workload(kind)["spec"]})
    assert (await api.patch(f"{kind}s", "a", {"metadata": {"labels": {"by": "someone"}}})).status == 200
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    assert refusal(await api.patch(f"{kind}s", "a", stamped("2026-11-24T10:00:00Z") | stale)) == (409, "Conflict")
    assert (await api.get(f"{kind}s", "a"))["metadata"]["generation"] == 1


@pytest.mark.parametrize("kind", WORKLOADS)
async def test_the_status_of_a_workload_is_its_subresource(api: Api, kind: str) -> None:
    """What its controller writes there is no new generation."""
    await api.created(f"{kind}s", "a", {"spec": workload(kind)["spec"]})
    status: dict[str, Any] = {"observedGeneration": 1}
    if kind == "daemonset":
        status |= dict.fromkeys(("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled"), 1)
        status |= {"numberReady": 0, "updatedNumberScheduled": 1}
    else:
        status |= {"replicas": 1, "updatedReplicas": 1}
    path = api.path(f"{kind}s", "a") + "/status"
    answer = await api.call("PATCH", path, {"status": status})
    assert answer.status == 200
    # What is read later may be what the kind's own controller has written since, where one runs.
    assert status.items() <= answer.json()["status"].items()
    assert (await api.get(f"{kind}s", "a"))["metadata"]["generation"] == 1


async def test_an_event_is_about_an_object_of_its_namespace(api: Api) -> None:
    """422 otherwise."""
    about = {"apiVersion": "v1", "kind": "Secret", "name": "a", "namespace": api.namespace}
    event = {"reason": "Rotated", "message": "m", "type": "Normal", "source": {"component": "c"}}
    item = {"metadata": {"generateName": "a."}, "involvedObject": about, **event}
    answer = await api.call("POST", api.path("events"), item)
    assert answer.status == 201
    assert answer.json()["reason"] == "Rotated"
    item["involvedObject"] = {**about, "namespace": "default"}
    assert causes(await api.call("POST", api.path("events"), item)) == {
        ("involvedObject.namespace", "FieldValueInvalid")
    }


@pytest.mark.parametrize(
    ("field", "text", "accepted"),
    [
        ("firstTimestamp", "2026-11-24T10:00:00Z", True),
        ("lastTimestamp", "2026-11-24T10:00:00.5+01:00", True),
        ("firstTimestamp", "soon", False),
        ("eventTime", "2026-11-24T10:00:00.000000Z", True),
        ("eventTime", "2026-11-24T10:00:00Z", False),
    ],
)
async def test_times_of_events_have_their_forms(api: Api, field: str, text: str, accepted: bool) -> None:
    """400 otherwise; eventTime wants microseconds."""
    fields: dict[str, Any] = {"involvedObject": {"namespace": api.namespace}, field: text}
    # An event with eventTime is one of the newer API, which asks for more.
    fields |= {
        "reportingComponent": "example.com/c",
        "reportingInstance": "i",
        "action": "A",
        "reason": "R",
        "type": "Normal",
    }
    answer = await api.create("events", "a", fields)
    assert answer.status == (201 if accepted else 400)


# Owners


async def test_an_object_whose_owner_is_gone_is_collected(api: Api) -> None:
    """Deleted owner, old uid of a living one, owner in another namespace; an owner that lives keeps what it owns."""
    if api.machine is None and not await _collects(api):
        pytest.skip("no controller manager runs beside this API server")
    owner = await api.created("openais", "owner", GENERATOR)
    other = await api.created("openais", "other", GENERATOR)
    elsewhere = await _anywhere_else(api)
    for name, uid, owner_name in (
        ("of-owner", owner["metadata"]["uid"], "owner"),
        ("of-other", other["metadata"]["uid"], "other"),
        ("of-old-uid", "00000000-0000-4000-8000-000000000000", "other"),
        ("of-elsewhere", elsewhere, "elsewhere"),
    ):
        await api.created("secrets", name, ownerReferences=[_reference(owner_name, uid)])
    await api.call("DELETE", api.path("openais", "owner"))

    async def collected() -> bool:
        page = (await api.call("GET", api.path("secrets"))).json()
        return [item["metadata"]["name"] for item in page["items"]] == ["of-other"]

    await api.eventually(collected, 60)


def _reference(name: str, uid: str) -> dict[str, str]:
    return {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI", "name": name, "uid": uid}


async def _anywhere_else(api: Api) -> str:
    item = {
        "apiVersion": GROUPS["openais"][6:],
        "kind": "OpenAI",
        "metadata": {"generateName": "elsewhere-"},
        **GENERATOR,
    }
    answer = await api.call("POST", api.path("openais", namespace="default"), item)
    assert answer.status == 201, answer.status
    return str(answer.json()["metadata"]["uid"])


async def _collects(api: Api) -> bool:
    """Whether something deletes what its namespace's deletion leaves: the controller manager does both."""
    await api.created(
        "configmaps", "probe", ownerReferences=[_reference("nobody", "00000000-0000-4000-8000-000000000000")]
    )

    async def gone() -> bool:
        return (await api.call("GET", api.path("configmaps", "probe"))).status == 404

    try:
        await api.eventually(gone, 15)
    except TimeoutError:
        return False
    return True


async def test_the_body_of_an_error_is_json_of_one_shape(api: Api) -> None:
    """What a client may read: code, reason, details; never more than that is relied on."""
    answer = await api.create("openais", "a", {"spec": {}})
    status = json.loads(answer.body)
    assert set(status) == {"kind", "apiVersion", "metadata", "status", "message", "reason", "details", "code"}
