"""A connection that ends after its request was taken: what the client sends again by itself, over real sockets.

aiohttp repeats GET, PUT and DELETE then, also on a fresh connection. So a 404 may be the answer to one's own delete.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sandbox.http_server import write_kubeconfig
from tests.support.builders import KEY, FixedRandom
from worker.errors import NotFound, RotatorError, Unanswered
from worker.kubernetes.client import KubernetesApi
from worker.kubernetes.connection import connect
from worker.kubernetes.secret import SECRETS
from worker.model.hidden import Hidden
from worker.model.targets import Project
from worker.model.values import Ref, Version
from worker.openai.client import OpenAIAdminApi

SECRET = Ref("default", "s")
STATUS = {
    "kind": "Status",
    "apiVersion": "v1",
    "status": "Failure",
    "reason": "NotFound",
    "details": {"name": "s"},
    "code": 404,
    "error": {"message": "no", "code": None},
}


class Server:
    """Takes a first request and hangs up; answers 404 to what comes then."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:")), 0)
        await reader.readexactly(length)
        self.taken.append(head.split()[0])
        if len(self.taken) > 1:
            body = json.dumps(STATUS).encode()
            writer.write(
                b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nConnection: close\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        writer.close()


def asked(work: Callable[[str], Awaitable[Any]]) -> tuple[list[str], BaseException | None]:
    """The requests that arrived, and what the caller got to hear."""
    taker = Server()

    async def go() -> None:
        server = await asyncio.start_server(taker.serve, "127.0.0.1", 0)
        async with server:
            await work(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        try:
            runner.run(go())
        except RotatorError as error:
            return taker.taken, error
    return taker.taken, None


@pytest.mark.parametrize(
    ("call", "arrived", "heard"),
    [
        (lambda api: api.read(SECRETS, SECRET), ["GET", "GET"], NotFound),
        (lambda api: api.delete(SECRETS, SECRET, Version("u", "7")), ["DELETE", "DELETE"], NotFound),
        (lambda api: api.patch(SECRETS, SECRET, {"data": {}}), ["PATCH"], Unanswered),
        (lambda api: api.create(SECRETS, "default", {"metadata": {"name": "s"}}), ["POST"], Unanswered),
    ],
    ids=["get", "delete", "patch", "create"],
)
def test_at_the_api_server_reads_and_deletes_go_out_again_and_writes_never(
    tmp_path: Path, call: Callable[[KubernetesApi], Awaitable[Any]], arrived: list[str], heard: type[RotatorError]
) -> None:
    async def work(url: str) -> None:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        async with await connect(kubeconfig=str(path), context=None, in_cluster=False, connections=1) as client:
            await call(KubernetesApi(client, FixedRandom()))

    taken, error = asked(work)
    assert taken == arrived
    assert type(error) is heard


@pytest.mark.parametrize(
    ("call", "arrived", "heard"),
    [
        (lambda api, project, key: api.delete_account(project, key, "user-1"), ["DELETE", "DELETE"], NotFound),
        (lambda api, project, key: api.read_account(project, key, "user-1"), ["GET", "GET"], NotFound),
        (lambda api, project, key: api.create_account(project, key, "app_1", lifetime=None), ["POST"], Unanswered),
    ],
    ids=["delete", "read", "create"],
)
def test_at_openai_a_create_is_sent_once_whatever_the_connection_does(
    call: Callable[[OpenAIAdminApi, Project, Hidden], Awaitable[Any]], arrived: list[str], heard: type[RotatorError]
) -> None:
    async def work(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            await call(OpenAIAdminApi(session, FixedRandom()), Project(url, "p"), Hidden("sk-admin-" + KEY))

    taken, error = asked(work)
    assert taken == arrived
    assert type(error) is heard
