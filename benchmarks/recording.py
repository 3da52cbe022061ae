"""Record the patterns: of a run whose only target is due, and of one whose only target is not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from benchmarks import fleet
from benchmarks.clusters import Cluster, cluster
from benchmarks.patterns import Pattern, Step, pattern
from benchmarks.processes import environment, measure
from benchmarks.servers import Server, server
from sandbox.http_server import serving, write_kubeconfig
from sandbox.transport.wire import Request, Response

_SENT_ON = ("Authorization", "Content-Type", "Accept")
_SENT_BACK = ("Content-Type", "Date")


def record(directory: Path, *, real: bool | None = None) -> tuple[Pattern, Pattern]:
    """The patterns for a due and for an idle target, on an API server of their own.

    The due one has what most have: a previous account of an earlier run, which goes in this one.
    """
    with cluster(directory, real=real) as api, server("openai", "1") as openai:
        return asyncio.run(_record(api, openai, directory / "recorded"))


async def _record(api: Cluster, openai: Server, kubeconfig: Path) -> tuple[Pattern, Pattern]:
    async with recording(api, openai.url, openai.key) as (kubernetes_url, openai_url, steps):
        variables = environment(api, openai_url)
        variables["KUBECONFIG"] = str(write_kubeconfig(kubeconfig, kubernetes_url, api.token))

        async def run() -> Pattern:
            steps.clear()
            took = await asyncio.to_thread(measure, ["run.py"], variables)
            assert took.code == 0, f"the recorded worker ended with {took.code}:\n{took.output[-2000:]}"
            return pattern(list(steps))

        await asyncio.to_thread(fleet.make, api, 1, f"{openai_url}/v1", openai.key)
        for _ in range(2):
            await run()
            await asyncio.to_thread(fleet.age, api, lambda _: True)
        return await run(), await run()


class Recorder:
    """Passes requests on to a server, and keeps them."""

    def __init__(
        self, api: str, url: str, session: aiohttp.ClientSession, steps: list[Step], admin_key: str, token: str = ""
    ) -> None:
        """`token`: of the worker, which sends none over plain HTTP, and so not to this either."""
        self._api = api
        self._token = token
        self._url = url
        self._session = session
        self._steps = steps
        self._admin_key = admin_key

    async def handle(self, request: Request) -> Response:
        """Answer as the server does."""
        target = request.path + (f"?{urlencode(request.query)}" if request.query else "")
        headers = {name: request.headers[name] for name in _SENT_ON if name in request.headers}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        new_key = self._api == "openai" and request.bearer != self._admin_key
        content = headers.get("Content-Type", "") if request.body else ""
        self._steps.append(Step(self._api, request.method, target, request.body.decode(), content, new_key))
        async with self._session.request(
            request.method, URL(self._url + target, encoded=True), headers=headers, data=request.body or None
        ) as answer:
            body = await answer.read()
        kept = {name: answer.headers[name] for name in _SENT_BACK if name in answer.headers}
        return Response(answer.status, kept, body)


@asynccontextmanager
async def recording(cluster: Cluster, openai: str, admin_key: str) -> AsyncIterator[tuple[str, str, list[Step]]]:
    """Two URLs that lead to the API server and to OpenAI, and what was asked for there, as it comes."""
    context = ssl.create_default_context(cafile=str(cluster.ca_file)) if cluster.ca_file else True
    steps: list[Step] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        to_cluster = Recorder("kubernetes", cluster.url, session, steps, admin_key, cluster.token)
        to_openai = Recorder("openai", openai, session, steps, admin_key)
        async with serving(to_cluster) as kubernetes_url, serving(to_openai) as openai_url:
            yield kubernetes_url, openai_url, steps
