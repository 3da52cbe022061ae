"""Proxies that the environment names, and what else in it must not matter."""

from __future__ import annotations

import asyncio
import random
import ssl
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sandbox.http_server import write_kubeconfig
from tests.support.builders import KEY
from tests.support.tls import OPENSSL, Certificates, listening
from worker.errors import NotSent, RotatorError
from worker.kubernetes.client import KubernetesApi
from worker.kubernetes.connection import connect
from worker.kubernetes.secret import SECRETS
from worker.model.hidden import Hidden
from worker.model.targets import Project
from worker.model.values import Ref
from worker.openai.client import OpenAIAdminApi
from worker.settings.arguments import UsageError, parse
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
        ({"HTTPS_PROXY": "proxy.corp:3128"}, "https://api.openai.com/v1", PROXY),
        ({"HTTPS_PROXY": "https://user:p%23w@proxy.corp"}, "https://a.b", "https://user:p%23w@proxy.corp"),
        ({"ALL_PROXY": PROXY, "Https_Proxy": PROXY}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": "HTTP://prox_y.corp.:3128/"}, "https://a.b", "HTTP://prox_y.corp.:3128/"),
        ({"HTTPS_PROXY": "[::1]:3128"}, "https://a.b", "http://[::1]:3128"),
        ({"HTTPS_PROXY": "user:p@ss@proxy.corp:3128"}, "https://a.b", "http://user:p@ss@proxy.corp:3128"),
        ({"HTTPS_PROXY": PROXY, "ALL_PROXY": "socks5://x:1"}, "https://api.openai.com/v1", PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*.openai.com"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "a.b openai.com."}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "API.OpenAI.com:443"}, "https://api.openai.com/v1", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "api.openai.com:8443"}, "https://api.openai.com/v1", PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.1:6443"}, "https://10.0.0.1:6443", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.1:6443"}, "https://10.0.0.1:443", PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "[fd00::1]"}, "https://[fd00::1]:443", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "[fd00::1]:443"}, "https://[fd00::1]:443", None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": ","}, "https://api.openai.com/v1", PROXY),
    ],
)
def test_the_environment_says_which_proxy(environ: dict[str, str], url: str, proxy: str | None) -> None:
    """As curl and kubectl read it, networks included."""
    assert proxies(environ).for_url(url) == proxy


@pytest.mark.parametrize(
    "value",
    [
        "socks5://proxy.corp:1080",
        "htp://proxy.corp",
        "http://proxy.corp:port",
        "http://proxy.corp:99999",
        f"http://user:{KEY}#x@proxy.corp",
        "http://",
        f"http://proxy.corp/{KEY}",
        "proxy corp:3128",
        "${PROXY}",
        "http://{{ .proxy }}:3128",
        "http://a..b:3128",
        "http://1.2.3.4.5:80",
        f"http://{'a' * 64}:80",
        "http://user:p\tw@proxy.corp:1",
        '"http://proxy.corp:3128"',
    ],
)
def test_a_proxy_that_cannot_be_used_is_a_mistake_that_names_the_variable(value: str) -> None:
    """Exit code 2, before anything is sent; the value may hold a password."""
    with pytest.raises(UsageError) as raised:
        parse(["run"], {"HTTPS_PROXY": value})
    (mistake,) = raised.value.mistakes
    assert mistake.startswith("HTTPS_PROXY: ")
    assert value not in mistake
    assert KEY not in mistake


@pytest.mark.parametrize("status", [407, 403, 502])
def test_a_tunnel_that_the_proxy_refuses_was_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Nothing happened at OpenAI or in the cluster: a create is not counted as perhaps made."""
    monkeypatch.setattr("worker.runtime.retrying.FIRST_DELAY", 0.001)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async def ask() -> list[RotatorError]:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        named = Proxies({"https": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"})
        path = write_kubeconfig(tmp_path / "kubeconfig", "https://cluster.test")
        errors = []
        async with server, aiohttp.ClientSession() as session:
            openai = OpenAIAdminApi(session, random.Random(1), named)
            client = await connect(kubeconfig=str(path), context=None, in_cluster=False, connections=1, proxies=named)
            project = Project("https://openai.test/v1", "proj_1")
            try:
                await openai.create_account(project, Hidden(KEY), "app_1", lifetime=None)
            except RotatorError as error:
                errors.append(error)
            async with client:
                try:
                    await KubernetesApi(client, random.Random(1)).patch(SECRETS, Ref("default", "a"), {})
                except RotatorError as error:
                    errors.append(error)
        return errors

    for error in asyncio.run(ask()):
        assert (type(error), error.reason) == (NotSent, "ProxyRefused")
        assert str(status) in error.message


def refused_by(proxy: str, directory: Path) -> list[NotSent]:
    """The errors of both adapters, whose requests go through this proxy."""

    async def ask() -> list[NotSent]:
        named = Proxies({"https": proxy})
        path = write_kubeconfig(directory / "kubeconfig", "https://cluster.test")
        client = await connect(kubeconfig=str(path), context=None, in_cluster=False, connections=1, proxies=named)
        async with aiohttp.ClientSession() as session, client:
            openai = OpenAIAdminApi(session, random.Random(1), named)
            with pytest.raises(NotSent) as first:
                await openai.list_accounts(Project("https://openai.test/v1", "proj_1"), Hidden(KEY))
            with pytest.raises(NotSent) as second:
                await KubernetesApi(client, random.Random(1)).read(SECRETS, Ref("default", "a"))
        return [first.value, second.value]

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("proxy", "words"),
    [("http://127.0.0.1:1", "Connection refused"), ("http://proxy.invalid:3128", "its name cannot be resolved")],
)
def test_a_proxy_that_is_not_there_is_named_as_the_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str, words: str
) -> None:
    """Not OpenAI, nor the API server: their names may be right."""
    monkeypatch.setattr("worker.runtime.retrying.FIRST_DELAY", 0.001)
    openai, cluster = refused_by(proxy, tmp_path)
    assert (openai.reason, cluster.reason) == ("OpenAIUnreachable", "ClusterUnreachable")
    assert "no connection to the proxy that leads to OpenAI" in openai.message
    assert "no connection to the proxy that leads to the cluster" in cluster.message
    assert words in openai.message
    assert words in cluster.message


@pytest.mark.skipif(OPENSSL is None, reason="needs openssl for certificates")
def test_a_proxys_own_certificate_is_named_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is spoken to by https."""
    monkeypatch.setattr("worker.runtime.retrying.FIRST_DELAY", 0.001)
    with listening(Certificates.made_in(tmp_path)) as listener:
        openai, cluster = refused_by(f"https://{listener.url}", tmp_path)
    assert (openai.reason, cluster.reason) == ("OpenAICertificate", "ClusterCertificate")
    assert "the certificate of the proxy is not accepted" in openai.message
    assert "the proxy's certificate is not accepted" in cluster.message


def test_an_api_server_on_this_machine_needs_no_proxy(tmp_path: Path) -> None:
    """kind, minikube, `kubectl proxy`: as in Go."""

    async def proxy_of(server: str) -> str | None:
        path = write_kubeconfig(tmp_path / "kubeconfig", server)
        named = Proxies({"https": PROXY, "http": PROXY})
        async with await connect(
            kubeconfig=str(path), context=None, in_cluster=False, connections=1, proxies=named
        ) as client:
            found: str | None = client.configuration.proxy
            return found

    assert asyncio.run(proxy_of("https://127.0.0.1:6443")) is None
    assert asyncio.run(proxy_of("https://localhost:6443")) is None
    assert asyncio.run(proxy_of("https://cluster.test:6443")) == PROXY


def test_the_clusters_authority_is_verified_as_kubectl_does(tmp_path: Path) -> None:
    """Chain, name and dates; not the strict rules of Python 3.13, which authorities of EKS, GKE and MicroK8s break."""

    async def flags() -> tuple[int, bool, ssl.VerifyMode]:
        path = write_kubeconfig(tmp_path / "kubeconfig", "https://cluster.test")
        async with await connect(kubeconfig=str(path), context=None, in_cluster=False, connections=1) as client:
            context = client.rest_client.ssl_context
            return context.verify_flags & ssl.VERIFY_X509_STRICT, context.check_hostname, context.verify_mode

    assert asyncio.run(flags()) == (0, True, ssl.CERT_REQUIRED)


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
