"""The machines behind real HTTP, for clients that need it: kubectl, the demo, contract tests, benchmarks.

Guarantees:
- Requests meet the same fates as in `in_process`.
- A lost request or response keeps its connection open, and silent, until the client gives up.
- The server logs nothing.

`Remote` is a machine in another server, to which the shell carries requests.
`Patient` decides a fate later: it may hold a request until a test releases it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import parse_qsl

from aiohttp import web
from multidict import MultiDict

from sandbox.kubernetes.server import Kubernetes
from sandbox.openai.server import OpenAI
from sandbox.transport.faults import Delivery, Fate, Faults, NoFaults
from sandbox.transport.wire import Machine, Request, Response

_BODY_LIMIT = 4 * 1024 * 1024  # above the API server's own limit, so that the API server refuses
T = TypeVar("T")


class Remote(Protocol):
    """A machine in another server."""

    async def handle(self, request: Request) -> Response:
        """Carry the request there and the answer back."""


class Patient(Protocol):
    """Faults that take their time."""

    async def fate(self, request: Request) -> Fate:
        """The fate of this request; it waits for it."""


@asynccontextmanager
async def serving(
    machine: Machine | Remote, faults: Faults | Patient | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[str]:
    """Serve the machine while the context lasts; gives its URL."""
    shell = _Shell(machine, faults or NoFaults())
    runner = web.ServerRunner(shell.server(), shutdown_timeout=0.1, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        shell.forget_late_ones()


class _Shell:
    """Turns aiohttp's requests into ours and our responses into aiohttp's."""

    def __init__(self, machine: Machine | Remote, faults: Faults | Patient) -> None:
        self._machine = machine
        self._faults = faults
        self._late: set[asyncio.Task[Response]] = set()

    def forget_late_ones(self) -> None:
        """Drop the late requests that the machine has not served yet."""
        for task in self._late:
            task.cancel()

    def server(self) -> web.Server:
        loop = asyncio.get_running_loop()

        def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
            return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_BODY_LIMIT)

        # A client that gives up takes its request back, as in the in-process carrier.
        return web.Server(self._serve, request_factory=request, handler_cancellation=True, access_log=None)

    async def _serve(self, http: web.BaseRequest) -> web.StreamResponse:
        path, _, query = http.raw_path.partition("?")
        parameters = MultiDict(parse_qsl(query, keep_blank_values=True)) if query else {}
        request = Request(http.method, path, parameters, http.headers, await http.read())
        fate = await _now(self._faults.fate(request))
        if fate.delivery is Delivery.COMMITTED_LATE:
            late = asyncio.get_running_loop().create_task(self._serve_late(request, fate.before))
            self._late.add(late)
            late.add_done_callback(self._late.discard)
            return await _silence(http, fate)
        if fate.before:
            await asyncio.sleep(fate.before)
        if fate.delivery is Delivery.REQUEST_LOST:
            return await _silence(http, fate)
        response = fate.answer if fate.answer is not None else await _now(self._machine.handle(request))
        if fate.after:
            await asyncio.sleep(fate.after)
        if fate.delivery is Delivery.RESPONSE_LOST:
            return await _silence(http, fate)
        return web.Response(status=response.status, headers=response.headers, body=response.body)

    async def _serve_late(self, request: Request, seconds: float) -> Response:
        await asyncio.sleep(seconds)
        return await _now(self._machine.handle(request))


async def _now(value: T | Awaitable[T]) -> T:
    """The value, after a wait if it is awaitable: a machine in this process answers at once."""
    return await value if inspect.isawaitable(value) else value


async def _silence(http: web.BaseRequest, fate: Fate) -> web.StreamResponse:
    if fate.disconnected and http.transport is not None:
        http.transport.abort()
    never: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await never  # until the connection closes, which cancels this


class Locked:
    """A machine that serves one thread at a time."""

    def __init__(self, machine: Machine, lock: threading.RLock) -> None:
        self._machine = machine
        self._lock = lock

    def handle(self, request: Request) -> Response:
        """Answer the request, when it is its turn."""
        with self._lock:
            return self._machine.handle(request)


class ServerThread:
    """The servers of `serving`, in a thread of its own, for synchronous tests and other processes.

    `urls` are those of the given servers, in their order, while the context lasts.
    Read or change a `Locked` machine only inside `locked()`.
    """

    def __init__(self, *servers: AbstractAsyncContextManager[str], lock: threading.RLock | None = None) -> None:
        self.urls: list[str] = []
        self._servers = servers
        self._lock = lock or threading.RLock()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock: no machine serves a request inside."""
        with self._lock:
            yield

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if len(self.urls) < len(self._servers):
            raise RuntimeError("the sandbox did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._started.set()

    async def _serve(self) -> None:
        async with AsyncExitStack() as stack:
            for server in self._servers:
                self.urls.append(await stack.enter_async_context(server))
            self._started.set()
            await self._stop.wait()


class SandboxServer(ServerThread):
    """Both machines in a thread of their own."""

    def __init__(
        self,
        kubernetes: Kubernetes,
        openai: OpenAI,
        *,
        kubernetes_faults: Faults | None = None,
        openai_faults: Faults | None = None,
    ) -> None:
        lock = threading.RLock()
        super().__init__(
            serving(Locked(kubernetes, lock), kubernetes_faults),
            serving(Locked(openai, lock), openai_faults),
            lock=lock,
        )
        self.kubernetes = kubernetes
        self.openai = openai

    @property
    def kubernetes_url(self) -> str:
        return self.urls[0]

    @property
    def openai_url(self) -> str:
        return self.urls[1] + "/v1"

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig for the API server, and return its path."""
        return write_kubeconfig(path, self.kubernetes_url, self.kubernetes.token)


def write_kubeconfig(path: Path, url: str, token: str | None = None) -> Path:
    """Write a kubeconfig that names one cluster, `sandbox`."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sandbox",
        "clusters": [{"name": "sandbox", "cluster": {"server": url}}],
        "users": [{"name": "sandbox", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox"}}],
    }
    path.write_text(json.dumps(config, indent=2))  # JSON is YAML
    path.chmod(0o600)
    return path
