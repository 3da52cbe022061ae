"""A stand-in for `aiohttp.ClientSession` that brings requests to a machine in this process.

Guarantees:
- All waiting is `asyncio.sleep`, so a loop with virtual time works.
- Requests meet their fate as in the HTTP shell.
- A cancelled or timed-out client leaves the same state behind as a real one.
- After it, the machine has served the request, or has not, or will later.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from sandbox.transport.faults import Delivery, Fate, Faults, NoFaults
from sandbox.transport.wire import JSON, Exchange, Machine, Request, Response, dump

_DEFAULT_TIMEOUT = 300.0  # seconds, as aiohttp's


class InProcessSession:
    """Stands in for `aiohttp.ClientSession`; `log` has every request, answered or not."""

    def __init__(
        self, machine: Machine, faults: Faults | None = None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        self.log: list[Exchange] = []
        self.closed = False
        self._late: list[tuple[float, Request]] = []
        self._machine = machine
        self._faults = faults or NoFaults()
        self._headers = dict(headers or {})

    def request(self, method: str, url: str | URL, **options: Any) -> PendingResponse:
        """Make a request; the caller awaits it, or enters it as an asynchronous context manager."""
        return PendingResponse(self._request(method, url, **options))

    def get(self, url: str | URL, **options: Any) -> PendingResponse:
        """GET."""
        return self.request("GET", url, **options)

    def post(self, url: str | URL, **options: Any) -> PendingResponse:
        """POST."""
        return self.request("POST", url, **options)

    def patch(self, url: str | URL, **options: Any) -> PendingResponse:
        """PATCH."""
        return self.request("PATCH", url, **options)

    def put(self, url: str | URL, **options: Any) -> PendingResponse:
        """PUT."""
        return self.request("PUT", url, **options)

    def delete(self, url: str | URL, **options: Any) -> PendingResponse:
        """DELETE."""
        return self.request("DELETE", url, **options)

    def commit_late(self, moment: float) -> None:
        """Serve the late requests that are due by this moment of the loop's time.

        The loop does so by itself while it runs; this serves the ones that its end has left behind.
        """
        due = [late for late in self._late if late[0] <= moment]
        for late in sorted(due, key=lambda late: late[0]):
            self._late.remove(late)
            self._machine.handle(late[1])

    async def close(self) -> None:
        """Refuse further requests."""
        self.closed = True

    async def __aenter__(self) -> InProcessSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _request(
        self,
        method: str,
        url: str | URL,
        *,
        headers: Mapping[str, str] | None = None,
        data: str | bytes | None = None,
        json: object = None,
        params: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | float | None = None,
        **_: object,  # allow_redirects, server_hostname, ssl: no machine could notice them
    ) -> InProcessResponse:
        if self.closed:
            raise RuntimeError("Session is closed")
        address = URL(url)
        if params:
            address = address.update_query(params)
        request = self._compose(method.upper(), address, headers, data, json)
        loop = asyncio.get_running_loop()
        started = loop.time()
        status = 0
        try:
            async with asyncio.timeout(_seconds(timeout)):
                response = await self._carry(request, self._faults.fate(request))
            status = response.status
        finally:
            self.log.append(Exchange(started, request.method, request.path, status))
        return InProcessResponse(request.method, address, response)

    def _compose(
        self, method: str, url: URL, headers: Mapping[str, str] | None, data: str | bytes | None, json: object
    ) -> Request:
        sent: CIMultiDict[str] = CIMultiDict(self._headers)
        sent.update(headers or {})
        body = data.encode() if isinstance(data, str) else data or b""
        if json is not None:
            sent.setdefault("Content-Type", JSON)
            body = dump(json)
        return Request(method, url.raw_path, url.query, CIMultiDictProxy(sent), body)

    async def _carry(self, request: Request, fate: Fate) -> Response:
        if fate.delivery is Delivery.COMMITTED_LATE:
            # Not a task: a client that gives up on the request, or dies, must not take it back.
            loop = asyncio.get_running_loop()
            self._late.append((loop.time() + fate.before, request))
            loop.call_later(fate.before, lambda: self.commit_late(loop.time()))
            return await _silence(fate)
        await asyncio.sleep(fate.before)
        if fate.delivery is Delivery.REQUEST_LOST:
            return await _silence(fate)
        response = fate.answer if fate.answer is not None else self._machine.handle(request)
        await asyncio.sleep(fate.after)
        if fate.delivery is Delivery.RESPONSE_LOST:
            return await _silence(fate)
        return response


class PendingResponse(Awaitable["InProcessResponse"]):
    """The result of `session.request(...)`: awaitable, and an asynchronous context manager."""

    def __init__(self, response: Coroutine[Any, Any, InProcessResponse]) -> None:
        self._response = response

    def __await__(self) -> Generator[Any, Any, InProcessResponse]:
        return self._response.__await__()

    async def __aenter__(self) -> InProcessResponse:
        return await self._response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


class InProcessContent:
    """Stands in for `aiohttp.StreamReader`."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def iter_any(self) -> AsyncIterator[bytes]:
        """The only piece."""
        yield self._body


class InProcessResponse:
    """Stands in for `aiohttp.ClientResponse`; the whole body has arrived."""

    def __init__(self, method: str, url: URL, response: Response) -> None:
        self.method = method
        self.url = url
        self.status = response.status
        self.reason = HTTPStatus(response.status).phrase
        self.headers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict(response.headers))
        self._body = response.body

    def __repr__(self) -> str:
        return f"<InProcessResponse [{self.status} {self.reason}]>"

    @property
    def ok(self) -> bool:
        """Is the status below 400?"""
        return self.status < 400

    @property
    def content_type(self) -> str:
        """The media type without its parameters."""
        return self.headers.get("Content-Type", "application/octet-stream").partition(";")[0].strip().lower()

    @property
    def content(self) -> InProcessContent:
        """The body, to be read piece by piece."""
        return InProcessContent(self._body)

    async def read(self) -> bytes:
        """The body."""
        return self._body

    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        """The body as text."""
        return self._body.decode(encoding or "utf-8", errors)

    async def json(
        self,
        *,
        encoding: str | None = None,
        loads: Callable[[str], Any] = jsonlib.loads,
        content_type: str | None = JSON,
    ) -> Any:
        """The body as JSON; `aiohttp.ContentTypeError` if its content type differs."""
        if content_type is not None and self.content_type != content_type:
            info = aiohttp.RequestInfo(self.url, self.method, CIMultiDictProxy(CIMultiDict()), self.url)
            raise aiohttp.ContentTypeError(info, (), status=self.status, message="unexpected mimetype")
        return loads(await self.text(encoding))

    def release(self) -> None:
        """Nothing to give back."""

    def close(self) -> None:
        """Nothing to close."""


def _seconds(timeout: aiohttp.ClientTimeout | float | None) -> float | None:
    if timeout is None:
        return _DEFAULT_TIMEOUT
    if isinstance(timeout, aiohttp.ClientTimeout):
        limits = [limit for limit in (timeout.total, timeout.sock_read) if limit]
        return min(limits) if limits else None
    return timeout or None


async def _silence(fate: Fate) -> Response:
    if fate.disconnected:
        raise aiohttp.ServerDisconnectedError
    never: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    return await never  # until the client's own timeout
