"""No redirect of an API server is followed: the PATCH that it would carry elsewhere has a key in it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from aiohttp import web

from sandbox.http_server import write_kubeconfig
from worker.errors import Unanswered
from worker.kubernetes.client import KubernetesApi
from worker.kubernetes.connection import connect
from worker.kubernetes.secret import SECRETS
from worker.model.values import Ref


def test_a_patch_is_not_sent_where_a_redirect_points(tmp_path: Path) -> None:
    """Over real sockets, with the client as `connect` makes it."""
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.path)
        raise web.HTTPTemporaryRedirect("/elsewhere")

    async def patch() -> None:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        path = write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            async with await connect(kubeconfig=str(path), context=None, in_cluster=False, connections=1) as client:
                await KubernetesApi(client, random.Random(1)).patch(SECRETS, Ref("default", "s"), {"data": {}})
        finally:
            await runner.cleanup()

    with pytest.raises(Unanswered), asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(patch())
    assert seen == ["/api/v1/namespaces/default/secrets/s"]
