"""The adapter to the API server, answer by answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from kubernetes.aio.config import incluster_config

from sandbox.http_server import write_kubeconfig
from tests.support.builders import KEY, THINGS, FixedRandom, told
from tests.support.clients import with_session
from tests.support.virtual_time import run_virtually
from tests.support.web import Answer, Web, assert_silent, brief, connection_refused, js
from worker.errors import (
    ConfigurationError,
    Conflict,
    Forbidden,
    NotFound,
    NotSent,
    OutOfReach,
    Refused,
    RotatorError,
    Throttled,
    Unanswered,
    Unintelligible,
)
from worker.kubernetes.client import KubernetesApi
from worker.kubernetes.connection import connect
from worker.kubernetes.secret import SECRETS
from worker.model.values import JSON, Ref, Resource, Version
from worker.runtime.retrying import ATTEMPTS

CREDS = Ref("default", "creds")
PATH = "/api/v1/namespaces/default/secrets"
BODY: JSON = {"data": {"api_key": KEY}}
Call = Callable[[KubernetesApi], Awaitable[Any]]


def ask(web: Web, call: Call) -> Any:
    """What the adapter's method returns, or the error it raises."""

    def with_client(session: aiohttp.ClientSession) -> Awaitable[Any]:
        return call(KubernetesApi(with_session(session), FixedRandom()))

    return web.ask(with_client)


def read(api: KubernetesApi) -> Awaitable[Any]:
    return api.read(SECRETS, CREDS)


def list_all(api: KubernetesApi) -> Awaitable[Any]:
    return api.list_all(SECRETS, name_of)


def create(api: KubernetesApi) -> Awaitable[Any]:
    return api.create(SECRETS, "default", BODY)


def patch(api: KubernetesApi) -> Awaitable[Any]:
    return api.patch(SECRETS, CREDS, BODY)


def delete(api: KubernetesApi) -> Awaitable[Any]:
    return api.delete(SECRETS, CREDS, Version("u", "7"))


def name_of(obj: JSON) -> str:
    return str(obj["metadata"]["name"])


ALL = [read, list_all, create, patch, delete]
READS = [read, list_all]
WRITES = [create, patch, delete]

LEAKY = {
    "kind": "Status",
    "message": f'Secret "creds" is invalid: data: Invalid value: "{KEY}"',
    "reason": "Invalid",
    "details": {"causes": [{"field": "data[api_key]", "message": KEY}, {"field": f"bad field {KEY}"}, "x", {}]},
}
"""An error as the API server writes it: its messages quote the object."""


# --- requests ----------------------------------------------------------------------------------------------------


def test_an_object_is_read_with_the_servers_time() -> None:
    """From the header `Date`."""
    web = Web([js({"kind": "Secret"}, Date="Tue, 24 Nov 2026 10:00:00 GMT")])
    answer = ask(web, read)
    assert answer.body == {"kind": "Secret"}
    assert answer.at == datetime(2026, 11, 24, 10, tzinfo=UTC)
    assert web.paths == [("GET", f"{PATH}/creds")]


@pytest.mark.parametrize("date", ["", "now", "24.11.2026", "Tue, 99 Nov 2026 10:00:00 GMT"])
def test_a_date_that_is_none_is_ignored(date: str) -> None:
    """A proxy's fault."""
    assert ask(Web([js({}, Date=date)]), read).at is None


@pytest.mark.parametrize(
    ("resource", "ref", "subresource", "path"),
    [
        (SECRETS, CREDS, "", f"{PATH}/creds"),
        (THINGS, CREDS, "", "/apis/example.org/v1/namespaces/default/things/creds"),
        (THINGS, CREDS, "status", "/apis/example.org/v1/namespaces/default/things/creds/status"),
        (Resource("", "v1", "namespaces"), Ref("", "ops"), "", "/api/v1/namespaces/ops"),
    ],
)
def test_a_patch_is_a_merge_of_what_is_given(resource: Resource, ref: Ref, subresource: str, path: str) -> None:
    """Not the strategic merge that a dict would become; the server is told when to give up."""
    web = Web([js({})])
    ask(web, lambda api: api.patch(resource, ref, BODY, subresource=subresource))
    assert web.paths == [("PATCH", path)]
    assert web.sent[0]["headers"]["Content-Type"] == "application/merge-patch+json"
    assert json.loads(web.sent[0]["data"]) == BODY
    assert web.queries == [{"timeout": "15s"}]
    assert web.sent[0]["timeout"].total == 15


def test_a_creation_names_its_namespace_only() -> None:
    """The name is in the object."""
    web = Web([js({}, 201)])
    ask(web, create)
    assert web.paths == [("POST", PATH)]
    assert web.sent[0]["headers"]["Content-Type"] == "application/json"
    assert json.loads(web.sent[0]["data"]) == BODY


def test_a_dry_run_is_asked_for_as_such() -> None:
    """Of creations and patches."""
    web = Web([js({}), js({})])
    ask(web, lambda api: _both(api))
    assert web.queries == [{"timeout": "15s", "dryRun": "All"}] * 2


async def _both(api: KubernetesApi) -> None:
    await api.create(SECRETS, "default", BODY, dry_run=True)
    await api.patch(SECRETS, CREDS, BODY, dry_run=True)


def test_a_deletion_is_of_the_version_that_was_read() -> None:
    """Both of its marks."""
    web = Web([js({})])
    assert ask(web, delete) is None
    assert json.loads(web.sent[0]["data"])["preconditions"] == {"uid": "u", "resourceVersion": "7"}
    assert web.paths == [("DELETE", f"{PATH}/creds")]


def test_every_request_says_who_asks() -> None:
    """For the audit log."""
    web = Web([js({})])
    ask(web, read)
    assert web.sent[0]["headers"]["User-Agent"] == "openai-key-rotator"


# --- lists -------------------------------------------------------------------------------------------------------


def page(*names: str, token: object = "") -> Answer:
    return js({"metadata": {"continue": token}, "items": [{"metadata": {"name": name}} for name in names]})


EXPIRED: Answer = {"status": 410, "body": json.dumps(LEAKY)}


def test_a_list_is_read_page_by_page() -> None:
    """To the last one, by the server's tokens, which may hold any characters."""
    web = Web([page("a", token="x/y=&z"), page("b", token="t2"), page("c")])
    assert ask(web, list_all) == ["a", "b", "c"]
    assert web.queries == [
        {"limit": "200"},
        {"limit": "200", "continue": "x/y=&z"},
        {"limit": "200", "continue": "t2"},
    ]
    assert web.paths == [("GET", "/api/v1/secrets")] * 3


def test_a_list_may_be_of_a_namespace_and_by_labels() -> None:
    """On every page."""
    web = Web([page("a", token="t"), page("b")])
    ask(web, lambda api: api.list_all(THINGS, name_of, namespace="ns", selector="a=b,c!=d"))
    assert {path for _, path in web.paths} == {"/apis/example.org/v1/namespaces/ns/things"}
    assert [query["labelSelector"] for query in web.queries] == ["a=b,c!=d"] * 2


@pytest.mark.parametrize("last", [js({"items": []}), js({"items": [], "metadata": None}), page(token=None)])
def test_a_list_may_end_in_any_form(last: Answer) -> None:
    """Without a token."""
    assert ask(Web([last]), list_all) == []


def test_a_list_that_expired_begins_anew() -> None:
    """And holds nothing twice."""
    web = Web([page("a", token="t"), EXPIRED, page("a", token="t"), page("b")])
    assert ask(web, list_all) == ["a", "b"]


def test_a_list_that_always_expires_is_given_up() -> None:
    """After a few times."""
    error = ask(Web([EXPIRED] * 3), list_all)
    assert (type(error), error.reason) == (Unanswered, "ListExpired")


@pytest.mark.parametrize(
    "answers",
    [
        [js({})],
        [js({"items": None})],
        [js({"items": {"a": "b"}})],
        [js({"items": [], "metadata": "x"})],
        [page("a", token=5)],
        [page("a", token="t"), page("b", token="t")],
        [page("a", token="t"), page("b", token="u"), page("c", token="t")],
        [page("a", token="t"), {"status": 200, "body": "<html>"}],
    ],
    ids=range(8),
)
def test_a_list_that_is_not_known_to_be_complete_is_no_list(answers: list[Answer]) -> None:
    """What is missing from it would be taken for gone."""
    assert type(ask(Web(answers), list_all)) is Unintelligible


# --- pages of large objects --------------------------------------------------------------------------------------

LONGEST = 10_000


@pytest.fixture
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an object is large with some kB."""
    monkeypatch.setattr("worker.kubernetes.client.LONGEST_PAGE", LONGEST)
    monkeypatch.setattr("worker.kubernetes.client.LONGEST_ANSWER", 4 * LONGEST)


def paged(sizes: Sequence[int]) -> tuple[Callable[[web.Request], Awaitable[web.StreamResponse]], list[tuple[int, int]]]:
    """A server of a list of objects of these sizes, and what it is asked for: the first object, and how many."""
    asked: list[tuple[int, int]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        first, limit = int(request.query.get("continue", "0")), int(request.query["limit"])
        asked.append((first, limit))
        shown = range(first, min(first + limit, len(sizes)))
        items = [{"metadata": {"name": str(i)}, "spec": "x" * sizes[i]} for i in shown]
        token = str(shown.stop) if shown.stop < len(sizes) else ""
        response = web.json_response({"metadata": {"continue": token}, "items": items})
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            response.enable_compression()
        return response

    return answer, asked


def over_sockets(answer: Callable[[web.Request], Awaitable[web.StreamResponse]], call: Call, directory: Path) -> Any:
    """What the adapter's method returns, or the error it raises, with the client as `connect` makes it."""

    async def whole() -> Any:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        path = write_kubeconfig(directory / "kubeconfig", f"http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            async with await connect(kubeconfig=str(path), context=None, in_cluster=False, connections=30) as client:
                return await call(KubernetesApi(client, FixedRandom()))
        except RotatorError as error:
            return error
        finally:
            await runner.cleanup()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(whole())


@pytest.mark.usefixtures("short_pages")
def test_a_page_that_is_too_long_is_asked_for_again_with_fewer_objects(tmp_path: Path) -> None:
    """By the same token, and compressed as it is; the pages after it begin with as few."""
    answer, asked = paged([10] * 200 + [4000] * 6)
    assert over_sockets(answer, list_all, tmp_path) == [str(i) for i in range(206)]
    begun = [(0, 200), (0, 50), (50, 100), (150, 100), (150, 25), (175, 50), (175, 12), (187, 24), (187, 6)]
    assert asked[:9] == begun


@pytest.mark.usefixtures("short_pages")
def test_large_objects_are_not_met_with_one_page_in_two_too_long(tmp_path: Path) -> None:
    """As many requests as there have to be, and a few."""
    answer, asked = paged([3000] * 60)
    assert len(over_sockets(answer, list_all, tmp_path)) == 60
    assert len(asked) == 3 + 20


@pytest.mark.usefixtures("short_pages")
def test_a_few_large_objects_do_not_slow_down_a_long_list(tmp_path: Path) -> None:
    """Once they are read, the pages grow again."""
    answer, asked = paged([4000] * 10 + [0] * 2000)
    assert len(over_sockets(answer, list_all, tmp_path)) == 2010
    assert len(asked) < 40


@pytest.mark.usefixtures("short_pages")
def test_one_object_alone_may_be_larger_than_a_page(tmp_path: Path) -> None:
    """Or a tenant could keep everybody's list from being read."""
    answer, asked = paged([3 * LONGEST] * 3)
    assert over_sockets(answer, list_all, tmp_path) == ["0", "1", "2"]
    assert asked == [(0, 200), (0, 50), (0, 12), (0, 3), (0, 1), (1, 1), (2, 1)]


@pytest.mark.usefixtures("short_pages")
@pytest.mark.parametrize("call", ALL)
def test_an_answer_without_end_is_given_up(tmp_path: Path, call: Call) -> None:
    """Whatever was asked for; it is not asked for again, and what is still to come has nowhere to go."""
    ended = []

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * LONGEST)
        except ConnectionError:
            ended.append(request.query.get("limit", ""))
            raise

    error = over_sockets(answer, call, tmp_path)
    assert (type(error).__mro__[1], error.reason) == (Unintelligible, "ApiServerUnintelligible")
    assert "longer than" in error.message
    assert ended == (["200", "50", "12", "3", "1"] if call is list_all else [""])


def test_few_pages_are_on_their_way_at_once(tmp_path: Path) -> None:
    """Each may be of the greatest length: the pods of many namespaces are asked for together."""
    underway = most = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal underway, most
        underway += 1
        most = max(most, underway)
        await asyncio.sleep(0.01)
        underway -= 1
        return web.json_response({"items": []})

    async def lists(api: KubernetesApi) -> list[Any]:
        return await asyncio.gather(*(api.list_all(SECRETS, name_of, namespace=f"ns-{i}") for i in range(30)))

    assert over_sockets(answer, lists, tmp_path) == [[]] * 30
    assert 1 < most <= 8


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ALL)
@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, Refused, "ClusterRefused"),
        (401, Refused, "ClusterUnauthorized"),
        (403, Forbidden, "Forbidden"),
        (405, Refused, "ClusterRefused"),
        (413, Refused, "ClusterRefused"),
        (415, Refused, "ClusterRefused"),
        (422, Refused, "ClusterRefused"),
    ],
)
@pytest.mark.parametrize("body", [json.dumps(LEAKY), f"<html>{KEY}</html>", "[" * 9999, "null", '{"details": "x"}'])
def test_a_definite_answer_is_not_asked_for_again(
    call: Call, status: int, kind: type[Refused], reason: str, body: str
) -> None:
    """It says what was tried, and quotes nothing."""
    web = Web([{"status": status, "body": body}])
    error = ask(web, call)
    assert (type(error), error.reason, error.status) == (kind, reason, status)
    assert "secrets" in error.message
    assert_silent(error, "Invalid value")


def test_a_409_is_the_api_servers_or_no_answer() -> None:
    """A page in its place may have hidden a success; a create that met the object says so."""
    own = {"kind": "Status", "reason": "Conflict"}
    for body, kind, reason in (
        (own, Conflict, "Conflict"),
        (own | {"reason": "AlreadyExists"}, Conflict, "AlreadyExists"),
        ({"error": "conflict"}, Unanswered, "ClusterUnanswered"),
    ):
        error = ask(Web([{"status": 409, "body": json.dumps(body)}]), lambda api: api.patch(SECRETS, CREDS, BODY))
        assert (type(error), error.reason) == (kind, reason)


def not_found(name: str, kind: str = "secrets") -> JSON:
    return {"kind": "Status", "reason": "NotFound", "code": 404, "details": {"name": name, "kind": kind}}


def test_an_object_is_gone_where_the_api_server_says_so_of_this_very_object() -> None:
    for name in ("creds", "default"):  # the object, or its namespace
        error = ask(Web([{"status": 404, "body": json.dumps(not_found(name))}]), lambda api: api.read(SECRETS, CREDS))
        assert (type(error), error.reason) == (NotFound, "NotFound")


@pytest.mark.parametrize(
    "body",
    [
        "<html>default backend - 404</html>",
        "404 page not found",
        "null",
        json.dumps(not_found("another")),
        json.dumps(not_found("creds") | {"reason": "Gone"}),
        json.dumps({"kind": "Status", "reason": "NotFound"}),
        json.dumps({"error": "not found"}),
    ],
)
def test_any_other_404_is_no_answer(body: str) -> None:
    """It is asked again like a failure, and at last nobody knows."""
    web = Web([{"status": 404, "body": body}] * ATTEMPTS)
    error = ask(web, lambda api: api.read(SECRETS, CREDS))
    assert (type(error), error.reason) == (Unanswered, "ClusterUnanswered")
    error = ask(Web([{"status": 404, "body": body}]), lambda api: api.patch(SECRETS, CREDS, BODY))
    assert (type(error), error.reason) == (Unanswered, "ClusterUnanswered")


GROUPS = {"kind": "APIGroupList", "groups": [{"name": "example.com", "versions": [{"version": "v1"}]}]}
THERE = {"kind": "APIResourceList", "resources": [{"name": "things"}, {"name": "things/status"}]}
NO_PAGE: Answer = {"status": 404, "body": "404 page not found"}


@pytest.mark.parametrize(
    ("documents", "kind"),
    [
        ([GROUPS | {"groups": [{"name": "apps", "versions": [{"version": "v1"}]}]}], NotFound),
        ([GROUPS | {"groups": [{"name": "example.com", "versions": [{"version": "v1beta1"}]}]}], NotFound),
        ([GROUPS, THERE | {"resources": []}], NotFound),
        ([GROUPS, THERE], Unanswered),
        ([{"kind": "Other", "groups": []}], Unanswered),
        ([GROUPS | {"groups": []}], Unanswered),
    ],
)
def test_a_list_that_is_not_found_is_looked_up_in_the_servers_own_documents(
    documents: list[JSON], kind: type[RotatorError]
) -> None:
    """A 404 of a list says nothing by itself: the API server's own is a page of plain text."""
    things = Resource("example.com", "v1", "things")
    web = Web([NO_PAGE, *({"status": 200, "body": json.dumps(document)} for document in documents)])
    error = ask(web, lambda api: api.list_all(things, lambda obj: obj))
    assert type(error) is kind


def test_a_list_that_nothing_knows_of_is_no_answer() -> None:
    """A proxy answers everything with its page."""
    web = Web([NO_PAGE] * 9)
    assert type(ask(web, lambda api: api.list_all(SECRETS, lambda obj: obj))) is Unanswered


@pytest.mark.parametrize("call", ALL)
@pytest.mark.parametrize(
    ("answer", "kind", "reads", "writes"),
    [
        ({"status": 500, "body": json.dumps(LEAKY)}, Unanswered, ATTEMPTS, 1),
        ({"status": 503, "body": f"<html>{KEY}"}, Unanswered, ATTEMPTS, 1),
        ({"status": 504}, Unanswered, ATTEMPTS, 1),
        ({"exception": TimeoutError(KEY)}, Unanswered, ATTEMPTS, 1),
        ({"exception": aiohttp.ServerTimeoutError(KEY)}, Unanswered, ATTEMPTS, 1),
        ({"exception": aiohttp.ServerDisconnectedError(KEY)}, Unanswered, ATTEMPTS, 1),
        ({"exception": aiohttp.ClientPayloadError(KEY)}, Unanswered, ATTEMPTS, 1),
        ({"exception": ConnectionResetError(KEY)}, Unanswered, ATTEMPTS, 1),
        ({"exception": connection_refused()}, NotSent, ATTEMPTS, ATTEMPTS),
        ({"status": 429, "headers": {"Retry-After": "1"}}, Throttled, ATTEMPTS, ATTEMPTS),
        ({"status": 429}, Throttled, 2, 2),
        ({"status": 429, "headers": {"Retry-After": "3600"}}, Throttled, 1, 1),
        ({"status": 429, "headers": {"Retry-After": "soon"}}, Throttled, 2, 2),
        ({"exception": ValueError(KEY)}, ConfigurationError, 1, 1),
        ({"status": 200, "body": f"<html>{KEY}</html>"}, Unintelligible, 1, 1),
        ({"status": 200, "body": ""}, Unintelligible, 1, 1),
        ({"status": 200, "body": "[]"}, Unintelligible, 1, 1),
    ],
    ids=brief,
)
def test_a_write_is_repeated_only_where_it_cannot_have_happened(
    call: Call, answer: Answer, kind: type[RotatorError], reads: int, writes: int
) -> None:
    """Reads are repeated within limits; every error is silent about texts."""
    web = Web([answer] * 9)
    error = ask(web, call)
    assert type(error) is kind
    assert len(web.asked) == (reads if call in READS else writes)
    assert_silent(error)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (read, "get secrets default/creds: RBAC forbids it"),
        (list_all, "list secrets in all namespaces: RBAC forbids it"),
        (lambda api: api.list_all(THINGS, name_of, namespace="ns"), "list things.example.org in namespace ns: RBAC"),
        (create, "create secrets in namespace default: RBAC, a quota or a webhook"),
        (patch, "patch secrets default/creds: RBAC, a quota or a webhook"),
        (delete, "delete secrets default/creds: RBAC, a quota or a webhook"),
        (
            lambda api: api.patch(THINGS, CREDS, BODY, subresource="status"),
            "patch things.example.org/status default/creds",
        ),
    ],
)
def test_a_missing_permission_is_told_as_rbac_names_it(call: Call, words: str) -> None:
    """Verb, resource and place: what to write into a Role."""
    assert f"not allowed to {words}" in ask(Web([{"status": 403, "body": json.dumps(LEAKY)}]), call).message


@pytest.mark.parametrize("call", WRITES)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 422, 429])
def test_a_denial_names_who_denied_whatever_status_it_chose(call: Call, status: int) -> None:
    """A webhook's is 400 where it names none, a policy's 422: no conflict, nothing that passes, nothing gone."""
    message = f'admission webhook "v.example.com" denied the request: {KEY}'
    error = ask(Web([js({"kind": "Status", "reason": "x", "message": message}, status)]), call)
    assert isinstance(error, Refused)
    assert not isinstance(error, NotFound | Conflict | Throttled)
    assert "the webhook v.example.com denies it" in error.message
    assert_silent(error)


def test_a_webhook_that_does_not_answer_is_named() -> None:
    """Nobody knows what became of the write."""
    message = f'Internal error occurred: failed calling webhook "v.example.com": failed to call webhook: Post "{KEY}"'
    error = ask(Web([js({"kind": "Status", "message": message}, 500)]), patch)
    assert type(error) is Unanswered
    assert "the webhook v.example.com does not answer" in error.message
    assert_silent(error)


def test_an_invalid_object_is_told_by_its_fields() -> None:
    """Names alone, and only what looks like one."""
    message = ask(Web([{"status": 422, "body": json.dumps(LEAKY)}]), create).message
    assert message.endswith("(status 422, reason Invalid, fields data[api_key])")


@pytest.mark.parametrize("reason", [KEY + " x", 5, None, {"a": "b"}, "x" * 121, "a\nb"], ids=brief)
@pytest.mark.parametrize("details", [None, "x", [], {"causes": "x"}, {"causes": [{"field": 5}]}])
def test_a_status_object_of_another_shape_is_told_by_its_status(reason: object, details: object) -> None:
    """Whatever a webhook made of it."""
    error = ask(Web([js({"reason": reason, "details": details}, 422)]), create)
    assert error.message.endswith("(status 422)")


@pytest.mark.parametrize(
    "strange", ["a/b", "..", ".", "../x", "a b", "a?b", "a#b", "a%2fb", "ä", "a\n", "-a", "x" * 254], ids=brief
)
def test_a_strange_name_never_reaches_a_path(strange: str) -> None:
    """Nothing is sent."""
    calls: list[Call] = [
        lambda api: api.read(SECRETS, Ref("default", strange)),
        lambda api: api.patch(SECRETS, Ref(strange, "creds"), BODY),
        lambda api: api.create(SECRETS, strange, BODY),
        lambda api: api.list_all(SECRETS, name_of, namespace=strange),
    ]
    for call in calls:
        error = ask(Web([]), call)
        assert (type(error), error.reason) == (ConfigurationError, "InvalidName")


# --- connecting --------------------------------------------------------------------------------------------------

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: 'https://cluster.test:6443'CLUSTER}}]
users: [{name: a, user: {USER}}]
contexts: [{name: a, context: {cluster: a, user: a}}, {name: b, context: {cluster: b, user: b}}]
current-context: a
"""


def connected(path: Path | None, **options: Any) -> Any:
    """The client's configuration, or the error."""

    async def whole() -> Any:
        chosen = {"kubeconfig": str(path) if path else None, "context": None, "in_cluster": False} | options
        try:
            client = await connect(**chosen, connections=7)
        except RotatorError as error:
            return error
        await client.close()
        return client.configuration

    return run_virtually(whole(), 0.0)[0]


def test_a_kubeconfig_is_used_as_kubectl_does(tmp_path: Path) -> None:
    """With a pool as large as the run needs."""
    path = tmp_path / "config"
    path.write_text(KUBECONFIG.replace("CLUSTER", "").replace("USER", "token: x"))
    configuration = connected(path)
    assert (configuration.host, configuration.connection_pool_maxsize) == ("https://cluster.test:6443", 7)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "5",
        f"a: [{KEY}\n: b",
        f"\x00{KEY}",
        KUBECONFIG.replace("CLUSTER", ", certificate-authority-data: '!!!'").replace("USER", f"token: {KEY}"),
        KUBECONFIG.replace("CLUSTER", ", certificate-authority-data: Zm9v").replace("USER", f"token: {KEY}"),
        KUBECONFIG.replace("CLUSTER", ", certificate-authority: /nowhere").replace("USER", f"token: {KEY}"),
        KUBECONFIG.replace("CLUSTER", "").replace("USER", f"client-certificate-data: Zm9v, client-key-data: {KEY}"),
    ],
    ids=range(9),
)
def test_a_kubeconfig_that_cannot_be_used_is_out_of_reach(tmp_path: Path, content: str) -> None:
    """With the file's name and the kind of error; the library's text may quote a credential."""
    path = tmp_path / "config"
    path.write_text(content)
    error = connected(path)
    assert (type(error), error.reason) == (OutOfReach, "NoKubeconfig")
    assert str(path) in error.message
    assert_silent(error)


@pytest.mark.parametrize("options", [{"context": "missing"}, {"context": "b"}])
def test_a_context_that_does_not_exist_is_out_of_reach(tmp_path: Path, options: dict[str, str]) -> None:
    """Or one that names a cluster that does not."""
    path = tmp_path / "config"
    path.write_text(KUBECONFIG.replace("CLUSTER", "").replace("USER", "token: x"))
    assert type(connected(path, **options)) is OutOfReach


def test_a_pods_authority_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token is there; nothing of either file is quoted."""
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text(f"not-{name}")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    error = connected(None, in_cluster=True)
    assert type(error) is OutOfReach
    assert told(error).startswith("no usable cluster configuration: the pod's ca.crt cannot be read")
    assert "not-" not in told(error)


def test_without_any_configuration_the_ways_to_give_one_are_told(tmp_path: Path) -> None:
    """Outside of a pod, without a file."""
    for error in (connected(tmp_path / "missing"), connected(None, in_cluster=True)):
        assert type(error) is OutOfReach
        assert "--kubeconfig" in told(error)
