"""The session that stands in for aiohttp's, under virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import aiohttp
import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException

from sandbox.kubernetes.server import Kubernetes
from sandbox.openai.server import OpenAI
from sandbox.transport.faults import Fate, answered, committed_late, delivered, request_lost, response_lost
from sandbox.transport.in_process import InProcessSession
from sandbox.transport.wire import Request, Response
from tests.support.virtual_time import run_virtually

T = TypeVar("T")
SECRETS = "https://cluster.test/api/v1/namespaces/default/secrets"


class Always:
    """The same fate for every request."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate

    def fate(self, request: Request) -> Fate:
        return self._fate


def run(coroutine: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """The result, and how long it took in virtual seconds."""
    return run_virtually(coroutine, 0.0)


def secret(name: str) -> dict[str, Any]:
    """A Secret."""
    return {"metadata": {"name": name}}


def stored(kubernetes: Kubernetes) -> list[str]:
    """The names of all Secrets."""
    return [item["metadata"]["name"] for item in kubernetes.objects("secrets")]


def test_it_is_used_as_aiohttp_s(kubernetes: Kubernetes) -> None:
    """Awaited or entered; bodies as JSON, text or bytes; parameters in the URL or beside it."""

    async def use() -> None:
        async with InProcessSession(kubernetes, headers={"X-Own": "1"}) as session:
            response = await session.request(method="post", url=SECRETS, json=secret("a"), server_hostname="x")
            assert (response.status, response.reason, response.ok) == (201, "Created", True)
            assert (await response.json())["metadata"]["name"] == "a"
            async with session.post(SECRETS, data='{"metadata": {"name": "b"}}') as response:
                assert response.status == 201
            async with session.get(SECRETS + "?limit=1", params={"labelSelector": "x=y"}) as response:
                assert (await response.json())["items"] == []
                assert response.headers["date"] == response.headers["Date"]
                assert response.content_type == "application/json"
                assert (await response.text()).encode() == await response.read()
                response.release()
            async with session.delete(SECRETS + "/a", timeout=5) as response:
                assert response.status == 200
            async with session.get(SECRETS + "/a", allow_redirects=False) as response:
                assert (response.status, response.ok) == (404, False)
                response.close()
        assert session.closed

    run(use())
    assert stored(kubernetes) == ["b"]


def test_headers_of_the_request_come_before_the_session_s(openai: OpenAI) -> None:
    """As in aiohttp."""
    key = openai.add_organization("acme")
    openai.add_project("acme", "p")
    url = "https://openai.test/v1/organization/projects/p"

    async def statuses() -> list[int]:
        session = InProcessSession(openai, headers={"Authorization": "Bearer wrong"})
        return [
            (await session.get(url)).status,
            (await session.get(url, headers={"authorization": f"Bearer {key}"})).status,
        ]

    assert run(statuses())[0] == [401, 200]


def test_a_closed_session_makes_no_requests(kubernetes: Kubernetes) -> None:
    """RuntimeError, as in aiohttp."""

    async def use() -> None:
        session = InProcessSession(kubernetes)
        await session.close()
        with pytest.raises(RuntimeError):
            await session.get(SECRETS)

    run(use())


def test_what_is_not_json_is_not_read_as_json(kubernetes: Kubernetes) -> None:
    """A proxy's page raises what aiohttp raises, unless the type is not to be looked at."""
    page = answered(Response.of_text(502, "{}", "text/html"))

    async def use() -> None:
        response = await InProcessSession(kubernetes, Always(page)).get(SECRETS)
        with pytest.raises(aiohttp.ContentTypeError):
            await response.json()
        assert await response.json(content_type=None) == {}

    run(use())
    assert kubernetes.log == []


def test_latency_passes_in_virtual_time(kubernetes: Kubernetes) -> None:
    """Before the machine hears of the request, and after."""

    async def use() -> float:
        session = InProcessSession(kubernetes, Always(delivered(2, 3)))
        task = asyncio.create_task(session.post(SECRETS, json=secret("a"))._response)
        await asyncio.sleep(1.9)
        assert stored(kubernetes) == []
        await asyncio.sleep(0.2)
        assert stored(kubernetes) == ["a"]
        await task
        return asyncio.get_running_loop().time()

    assert run(use())[0] == pytest.approx(5)


@pytest.mark.parametrize(
    ("fate", "timeout", "served"),
    [
        (request_lost(), 7, []),
        (response_lost(), 7, ["a"]),
        (delivered(8, 0), 7, []),
        (delivered(0, 8), 7, ["a"]),
        (request_lost(), aiohttp.ClientTimeout(total=7), []),
        (request_lost(), aiohttp.ClientTimeout(total=None, sock_read=7), []),
    ],
)
def test_silence_lasts_until_the_client_s_timeout(
    kubernetes: Kubernetes, fate: Fate, timeout: float | aiohttp.ClientTimeout, served: list[str]
) -> None:
    """TimeoutError, after which the request was served, or never will be."""

    async def use() -> float:
        session = InProcessSession(kubernetes, Always(fate))
        with pytest.raises(TimeoutError):
            await session.post(SECRETS, json=secret("a"), timeout=timeout)
        moment = asyncio.get_running_loop().time()
        await asyncio.sleep(60)
        assert [(exchange.kind, exchange.status) for exchange in session.log] == [("POST secrets", 0)]
        return moment

    assert run(use())[0] == pytest.approx(7)
    assert stored(kubernetes) == served


def test_without_a_timeout_silence_ends_too(kubernetes: Kubernetes) -> None:
    """After aiohttp's five minutes."""

    async def use() -> None:
        with pytest.raises(TimeoutError):
            await InProcessSession(kubernetes, Always(request_lost())).get(SECRETS)

    assert run(use())[1] == pytest.approx(300)


@pytest.mark.parametrize(("lose", "served"), [(request_lost, []), (response_lost, ["a"])])
def test_a_closed_connection_is_noticed_at_once(
    kubernetes: Kubernetes, lose: Callable[..., Fate], served: list[str]
) -> None:
    """ServerDisconnectedError, before or after the machine has served the request."""

    async def use() -> None:
        session = InProcessSession(kubernetes, Always(lose(disconnected=True)))
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post(SECRETS, json=secret("a"))

    assert run(use())[1] == 0
    assert stored(kubernetes) == served


def test_a_late_commit_happens_though_nobody_waits(kubernetes: Kubernetes) -> None:
    """Also when who asked for it was killed."""

    async def use() -> None:
        session = InProcessSession(kubernetes, Always(committed_late(10)))
        with pytest.raises(TimeoutError):
            await session.post(SECRETS, json=secret("a"), timeout=5)
        task = asyncio.create_task(session.post(SECRETS, json=secret("b"))._response)
        await asyncio.sleep(4)
        task.cancel()
        assert stored(kubernetes) == []
        await asyncio.sleep(1)
        assert stored(kubernetes) == ["a"]
        await asyncio.sleep(5)
        assert stored(kubernetes) == ["a", "b"]

    run(use())


def test_a_late_commit_outlives_its_loop(kubernetes: Kubernetes) -> None:
    """Whoever runs the next loop can let it happen when its time has come, once."""

    async def use() -> InProcessSession:
        session = InProcessSession(kubernetes, Always(committed_late(10)))
        with pytest.raises(TimeoutError):
            await session.post(SECRETS, json=secret("a"), timeout=5)
        return session

    session, _ = run(use())
    session.commit_late(9)
    assert stored(kubernetes) == []
    for _ in range(2):
        session.commit_late(10)
    assert stored(kubernetes) == ["a"]
    assert len(kubernetes.log) == 1


def test_a_request_that_is_cancelled_before_it_arrives_is_never_served(kubernetes: Kubernetes) -> None:
    """As when its client is killed."""

    async def use() -> None:
        session = InProcessSession(kubernetes, Always(delivered(2)))
        task = asyncio.create_task(session.post(SECRETS, json=secret("a"))._response)
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(60)

    run(use())
    assert stored(kubernetes) == []


def official(kubernetes: Kubernetes) -> ApiClient:
    client = ApiClient(Configuration(host="https://kubernetes.invalid"))
    client.rest_client.pool_manager = cast(aiohttp.ClientSession, InProcessSession(kubernetes))
    return client


def test_the_official_client_uses_it(kubernetes: Kubernetes) -> None:
    """Its low level, with its errors; each client has a session of its own, and closes it."""

    async def call(method: str, path: str, body: object = None) -> Any:
        parts = await client.param_serialize(method, path, header_params={"Accept": "application/json"}, body=body)
        response = await client.call_api(*parts, _request_timeout=5)
        await response.read()  # type: ignore[no-untyped-call]
        return client.response_deserialize(response, {"200": "object", "201": "object"})

    async def use() -> None:
        await call("POST", "/api/v1/namespaces/default/secrets", secret("a"))
        answer = await call("GET", "/api/v1/namespaces/default/secrets/a")
        assert answer.data["metadata"]["name"] == "a"
        with pytest.raises(ApiException) as caught:
            await call("GET", "/api/v1/namespaces/default/secrets/absent")
        assert caught.value.status == 404
        await client.close()  # type: ignore[no-untyped-call]

    client, other = official(kubernetes), official(kubernetes)
    run(use())
    assert client.rest_client.pool_manager is not None
    assert client.rest_client.pool_manager.closed
    assert other.rest_client.pool_manager is not None
    assert not other.rest_client.pool_manager.closed


def test_paths_arrive_as_they_were_sent(clock: Callable[[], Any]) -> None:
    """An encoded slash stays one; a query is taken apart."""
    seen: list[Request] = []

    class Machine:
        def handle(self, request: Request) -> Response:
            seen.append(request)
            return OpenAI(clock, random.Random(1)).handle(request)

    async def use() -> None:
        await InProcessSession(Machine()).get("https://openai.test/v1/a%2Fb?x=1%202&y=", params={"z": "ä&"})

    run(use())
    assert seen[0].path == "/v1/a%2Fb"
    assert dict(seen[0].query) == {"x": "1 2", "y": "", "z": "ä&"}
