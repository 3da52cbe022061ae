"""Proxies that the environment names, and what else in it must not matter."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sandbox.http_server import write_kubeconfig
from tests.support.builders import KEY
from worker.kubernetes.client import KubernetesApi
from worker.kubernetes.connection import connect
from worker.kubernetes.secret import SECRETS
from worker.model.hidden import Hidden
from worker.model.targets import Project
from worker.model.values import Ref
from worker.openai.client import OpenAIAdminApi
from worker.settings.proxies import Proxies, proxies

PROXY = "http://proxy.corp:3128"


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY}, "https://api.openai.com/v1", PROXY),
        ({"https_proxy": PROXY}, "https://api.openai.com/v1", PROXY),
        ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, "https://api.openai.com/v1", PROXY),
        ({"HTTPS_PROXY": ""}, "https://api.openai.com/v1", None),
        ({"HTTP_PROXY": PROXY}, "https://api.openai.com/v1", None),
        ({"HTTP_PROXY": PROXY}, "http://127.0.0.1:8080/v1", PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "openai.com"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "a.b, .openai.com"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "notopenai.com"}, "https://api.openai.com/v1", PROXY),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "*"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "kubernetes.default,10.96.0.0/12"}, "https://10.96.0.1:443", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.96.0.0/12"}, "https://10.1.0.1:443", PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.96.0.1"}, "https://10.96.0.1:6443", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "fd00::/8"}, "https://[fd00::1]:443", None),
    ],
)
def test_the_environment_says_which_proxy(environ: dict[str, str], url: str, proxy: str | None) -> None:
    """As curl and kubectl read it, networks included."""
    assert proxies(environ).for_url(url) == proxy


def test_requests_go_through_the_proxy_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both adapters' requests, over real sockets. The environment itself is looked at by nobody any more: neither its
    variables nor a ~/.netrc, whose entry for a host used to make each request to it fail.
    """
    seen: list[tuple[str, str]] = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    (tmp_path / ".netrc").write_text(f"machine openai.test login a password {KEY}\n")
    (tmp_path / ".netrc").chmod(0o600)

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.host, request.path))
        return web.json_response({"data": [], "has_more": False, "metadata": {}})

    async def ask() -> None:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        named = Proxies({"http": f"http://127.0.0.1:{runner.addresses[0][1]}"})
        path = write_kubeconfig(tmp_path / "kubeconfig", "http://cluster.test")
        try:
            async with aiohttp.ClientSession() as session:
                api = OpenAIAdminApi(session, random.Random(1), named)
                await api.list_accounts(Project("http://openai.test/v1", "proj_1"), Hidden(KEY))
            client = await connect(kubeconfig=str(path), context=None, in_cluster=False, connections=1, proxies=named)
            async with client:
                await KubernetesApi(client, random.Random(1)).read(SECRETS, Ref("default", "s"))
        finally:
            await runner.cleanup()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(ask())
    assert seen == [
        ("openai.test", "/v1/organization/projects/proj_1/service_accounts"),
        ("cluster.test", "/api/v1/namespaces/default/secrets/s"),
    ]
