"""The machines behind real HTTP, for clients that need it: kubectl, the demo, contract tests, benchmarks.

Guarantees: requests meet the same fates as in `in_process`; a lost request or response keeps its connection open, and
silent, until the client gives up. Nothing is logged.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from sandbox.faults import Delivery, Fate, Faults, NoFaults
from sandbox.kubernetes import Kubernetes
from sandbox.openai import OpenAI
from sandbox.wire import Machine, Request, Response

_BODY_LIMIT = 4 * 1024 * 1024  # above the API server's own, so that it is the one to refuse


@asynccontextmanager
async def serving(
    machine: Machine, faults: Faults | None = None, *, host: str = "127.0.0.1", port: int = 0
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


class _Shell:
    """Turns aiohttp's requests into ours and our responses into aiohttp's."""

    def __init__(self, machine: Machine, faults: Faults) -> None:
        self._machine = machine
        self._faults = faults

    def server(self) -> web.Server:
        loop = asyncio.get_running_loop()

        def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
            return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_BODY_LIMIT)

        # A client that gives up takes its request back, as in the in-process carrier.
        return web.Server(self._serve, request_factory=request, handler_cancellation=True, access_log=None)

    async def _serve(self, http: web.BaseRequest) -> web.StreamResponse:
        path, _, query = http.raw_path.partition("?")
        parameters = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        request = Request(http.method, path, parameters, http.headers, await http.read())
        fate = self._faults.fate(request)
        if fate.delivery is Delivery.COMMITTED_LATE:
            asyncio.get_running_loop().call_later(fate.before, self._machine.handle, request)
            return await _silence(http, fate)
        if fate.before:
            await asyncio.sleep(fate.before)
        if fate.delivery is Delivery.REQUEST_LOST:
            return await _silence(http, fate)
        response = fate.answer if fate.answer is not None else self._machine.handle(request)
        if fate.after:
            await asyncio.sleep(fate.after)
        if fate.delivery is Delivery.RESPONSE_LOST:
            return await _silence(http, fate)
        return web.Response(status=response.status, headers=response.headers, body=response.body)


async def _silence(http: web.BaseRequest, fate: Fate) -> web.StreamResponse:
    if fate.disconnected and http.transport is not None:
        http.transport.abort()
    never: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await never  # until the connection is closed, which cancels this


class _Locked:
    """A machine that serves one thread at a time."""

    def __init__(self, machine: Machine, lock: threading.RLock) -> None:
        self._machine = machine
        self._lock = lock

    def handle(self, request: Request) -> Response:
        with self._lock:
            return self._machine.handle(request)


class SandboxServer:
    """Both machines behind HTTP in a thread of their own, for synchronous tests and other processes.

    Look at the machines, or change them, only inside `locked()`.
    """

    def __init__(
        self,
        kubernetes: Kubernetes,
        openai: OpenAI,
        *,
        kubernetes_faults: Faults | None = None,
        openai_faults: Faults | None = None,
    ) -> None:
        self.kubernetes = kubernetes
        self.openai = openai
        self.kubernetes_url = ""
        self.openai_url = ""
        self._faults = (kubernetes_faults, openai_faults)
        self._lock = threading.RLock()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No request is served inside."""
        with self._lock:
            yield

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig for the API server, and return its path."""
        return write_kubeconfig(path, self.kubernetes_url, self.kubernetes.token)

    def __enter__(self) -> SandboxServer:
        self._thread.start()
        self._started.wait()
        if not self.openai_url:
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
            for_kubernetes, for_openai = self._faults
            enter = stack.enter_async_context
            self.kubernetes_url = await enter(serving(_Locked(self.kubernetes, self._lock), for_kubernetes))
            self.openai_url = await enter(serving(_Locked(self.openai, self._lock), for_openai)) + "/v1"
            self._started.set()
            await self._stop.wait()


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
