"""Between a worker and the servers that it talks to: a relay that loses, delays and holds requests and answers.

Guarantees: what was passed on is seen to its end, also where the worker has died meanwhile, as on a real way to a
server; and the witness hears of every effect before the worker does.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import asynccontextmanager, suppress
from threading import Event
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from sandbox.http_server import Patient, serving
from sandbox.transport.faults import (
    Fate,
    Faults,
    Rule,
    Rules,
    bad_gateway,
    committed_late,
    delivered,
    request_lost,
    response_lost,
    too_many_requests,
)
from sandbox.transport.wire import Machine, Request, Response
from tests.cluster.endpoint import Endpoint

Hear = Callable[[Request, Response], None]
Retell = Callable[[Request, Response], Response]
PASSED_ON = ("Content-Type", "Accept")
PASSED_BACK = ("Content-Type", "Date", "Retry-After")
LATEST = 3.0
"""Seconds by which a request is late at most."""


class Trap:
    """Holds the first request that is wanted, until its fate is told. `sprung`: it holds one."""

    def __init__(self, wanted: Callable[[Request], bool]) -> None:
        self.sprung = Event()
        self._wanted = wanted
        self._fate: Future[Fate] = Future()

    def takes(self, request: Request) -> bool:
        return not self.sprung.is_set() and self._wanted(request)

    async def hold(self) -> Fate:
        self.sprung.set()
        return await asyncio.wrap_future(self._fate)

    def release(self, fate: Fate) -> None:
        """Let the request go its way; nothing where its client has given up."""
        with suppress(InvalidStateError):
            self._fate.set_result(fate)


class Gate:
    """Where all requests pass: a trap may hold one; what befalls the others is the weather's."""

    def __init__(self, weather: Faults) -> None:
        self.weather = weather
        self.trap: Trap | None = None

    async def fate(self, request: Request) -> Fate:
        trap = self.trap
        if trap is not None and trap.takes(request):
            return await trap.hold()
        return self.weather.fate(request)


def rough(chance: random.Random, share: float) -> Rules:
    """Weather in which this share of all requests has a hard fate, and the others take their time."""
    fates = (
        (request_lost(disconnected=True), ".*"),
        (response_lost(disconnected=True), ".*"),
        (response_lost(disconnected=True), "PATCH|POST|DELETE"),
        (response_lost(), "PATCH|POST|DELETE"),
        (committed_late(1.0, disconnected=True), "PATCH|POST|DELETE"),
        (committed_late(LATEST), "PATCH|POST|DELETE"),
        (too_many_requests(1), ".*"),
        (bad_gateway(), ".*"),
        (delivered(0.5, 0.5), ".*"),
    )
    rules = [Rule(fate, method, probability=share / len(fates)) for fate, method in fates]
    return Rules(rules, chance, _Drizzle(chance))


class _Drizzle:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def fate(self, request: Request) -> Fate:
        return delivered(self._chance.uniform(0, 0.01), self._chance.uniform(0, 0.01))


class Heard:
    """A machine of this process; `hear` is told of what it did."""

    def __init__(self, machine: Machine, hear: Hear) -> None:
        self._machine = machine
        self._hear = hear

    def handle(self, request: Request) -> Response:
        response = self._machine.handle(request)
        self._hear(request, response)
        return response


def _nobody_hears(request: Request, response: Response) -> None:
    pass


def _verbatim(request: Request, response: Response) -> Response:
    return response


@asynccontextmanager
async def relaying(
    endpoint: Endpoint, faults: Faults | Patient, hear: Hear = _nobody_hears, *, retell: Retell = _verbatim
) -> AsyncIterator[str]:
    """Relay to the API server while the context lasts; the URL of the relay, plain http on loopback.

    `retell`: what becomes of an answer on its way back.
    """
    context = ssl.create_default_context(cafile=str(endpoint.ca_file))
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
        serving(_ApiServer(session, endpoint, hear, retell), faults) as url,
    ):
        yield url


class _ApiServer:
    """The real API server as a machine. It adds the token, as `kubectl proxy` does: no client sends one in clear."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Endpoint, hear: Hear, retell: Retell) -> None:
        self._session = session
        self._endpoint = endpoint
        self._hear = hear
        self._retell = retell
        self._under_way: set[asyncio.Task[Response]] = set()

    async def handle(self, request: Request) -> Response:
        task = asyncio.get_running_loop().create_task(self._carry(request))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _carry(self, request: Request) -> Response:
        url = URL(f"{self._endpoint.url}{request.path}?{urlencode(request.query)}", encoded=True)
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        headers |= {"Authorization": f"Bearer {self._endpoint.token}", "Accept-Encoding": "identity"}
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=request.body or None, allow_redirects=False
            ) as answer:
                body = await answer.read()
        except aiohttp.ClientError:
            return Response(502)
        kept = {name: answer.headers[name] for name in PASSED_BACK if name in answer.headers}
        response = Response(answer.status, kept, body)
        self._hear(request, response)
        return self._retell(request, response)
