"""What one reader of a list costs: the reader, and an API server that makes up its pages, each in its own process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from sandbox.http_server import write_kubeconfig

ROOT = Path(__file__).parent.parent


def measure(module: str, *case: str) -> dict[str, float]:
    """What the reader prints: `python -m MODULE --read KUBECONFIG`, of what `python -m MODULE --serve CASE…` serves."""
    with tempfile.TemporaryDirectory() as directory:
        program = [sys.executable, "-m", module]
        server = subprocess.Popen([*program, "--serve", *case], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            kubeconfig = write_kubeconfig(Path(directory) / "kubeconfig", server.stdout.readline().strip())
            done = subprocess.run(
                [*program, "--read", str(kubeconfig)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
            )
        finally:
            server.kill()
            server.communicate()
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def serve(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
    """Answer every GET on a free port, for ever; its URL is the first line printed."""

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())
