"""The machines behind HTTP: fates, other threads and processes, kubectl."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from sandbox.http_server import SandboxServer, serving
from sandbox.kubernetes.server import Kubernetes
from sandbox.kubernetes.setup import apply, install_crds
from sandbox.openai.server import OpenAI
from sandbox.transport.faults import Fate, Rule, Rules, answered, committed_late, request_lost, response_lost
from sandbox.transport.wire import Response
from tests.support.programs import required_program

ROOT = Path(__file__).parent.parent.parent
SECRETS = "/api/v1/namespaces/default/secrets"
SECRET = {"metadata": {"name": "a"}}


def once(fate: Fate) -> Rules:
    """The fate of the first POST; everything else is served."""
    return Rules([Rule(fate, "POST", count=1)], random.Random(1))


async def test_requests_and_answers_arrive_unchanged(kubernetes: Kubernetes) -> None:
    """Method, path, query, headers, body; status, headers, body."""
    async with serving(kubernetes) as url, aiohttp.ClientSession(url) as session:
        async with session.post(SECRETS, json=SECRET) as response:
            assert response.status == 201
            assert response.headers["Date"] == "Tue, 24 Nov 2026 10:00:00 GMT"
        async with session.get(SECRETS, params={"labelSelector": "x in (a, b)"}) as response:
            assert (await response.json())["items"] == []
        async with session.get(SECRETS + "/..%2fa") as response:
            assert response.status == 404


@pytest.mark.parametrize(("lose", "served"), [(request_lost, 404), (response_lost, 200)])
async def test_a_closed_connection_is_noticed(kubernetes: Kubernetes, lose: Callable[..., Fate], served: int) -> None:
    """Before or after the machine has served the request."""
    faults = once(lose(disconnected=True))
    async with serving(kubernetes, faults) as url, aiohttp.ClientSession(url) as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post(SECRETS, json=SECRET)
        assert (await session.get(SECRETS + "/a")).status == served


@pytest.mark.parametrize(("lose", "served"), [(request_lost, 404), (response_lost, 200)])
async def test_silence_lasts_until_the_client_gives_up(
    kubernetes: Kubernetes, lose: Callable[..., Fate], served: int
) -> None:
    """Before or after the machine has served the request."""
    async with serving(kubernetes, once(lose())) as url, aiohttp.ClientSession(url) as session:
        with pytest.raises(TimeoutError):
            await session.post(SECRETS, json=SECRET, timeout=aiohttp.ClientTimeout(total=0.2))
        assert (await session.get(SECRETS + "/a")).status == served


async def test_a_late_commit_happens_though_nobody_waits(kubernetes: Kubernetes) -> None:
    """After its client has gone."""
    async with serving(kubernetes, once(committed_late(0.3))) as url, aiohttp.ClientSession(url) as session:
        with pytest.raises(TimeoutError):
            await session.post(SECRETS, json=SECRET, timeout=aiohttp.ClientTimeout(total=0.1))
        async with asyncio.timeout(30):
            while kubernetes.find("secrets", "default", "a") is None:
                await asyncio.sleep(0.01)


async def test_something_in_between_may_answer(kubernetes: Kubernetes) -> None:
    """The machine never hears of the request."""
    fate = answered(Response.of_text(502, "<html>", "text/html", headers={"Retry-After": "3"}))
    async with serving(kubernetes, once(fate)) as url, aiohttp.ClientSession(url) as session:
        response = await session.post(SECRETS, json=SECRET)
        assert (response.status, response.headers["Retry-After"]) == (502, "3")
        assert await response.text() == "<html>"
    assert kubernetes.log == []


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    """Both machines in a thread, with the CRDs and one generator."""
    kubernetes = Kubernetes(lambda: datetime.now(UTC), random.Random(1))
    openai = OpenAI(lambda: datetime.now(UTC), random.Random(1))
    install_crds(kubernetes)
    spec = {"projectId": "p", "openAiAdminKey": {"name": "a", "key": "k"}}
    head = {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI", "metadata": {"name": "gen"}}
    apply(kubernetes, head | {"spec": spec})
    with SandboxServer(kubernetes, openai) as running:
        yield running


def test_the_machines_run_in_a_thread(server: SandboxServer) -> None:
    """Each has a URL, and can be looked at while no request is served."""
    request = urllib.request.Request(server.openai_url + "/models", headers={"Authorization": "Bearer wrong"})
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(request):
        pass
    caught.value.close()
    assert caught.value.code == 401
    with server.locked():
        assert [exchange.status for exchange in server.openai.log] == [401]


def kubectl(kubeconfig: Path, *arguments: str, stdin: str = "") -> str:
    """What kubectl prints."""
    command = [
        required_program("kubectl"),
        "--kubeconfig",
        str(kubeconfig),
        "--cache-dir",
        str(kubeconfig.parent / "cache"),
        *arguments,
    ]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True, timeout=60).stdout


def test_kubectl_works(server: SandboxServer, tmp_path: Path) -> None:
    """get, with the CRD's columns; apply, again and again; annotate, patch and delete."""
    kubeconfig = server.write_kubeconfig(tmp_path / "kubeconfig")
    header, row = kubectl(kubeconfig, "get", "openais").splitlines()
    assert (header.split(), row.split()[:2]) == (["NAME", "PROJECT", "READY", "REASON", "AGE"], ["gen", "p"])
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: '1'}\n"
    apply_it = ("apply", "-f", "-")
    assert "created" in kubectl(kubeconfig, *apply_it, stdin=config)
    assert "configured" in kubectl(kubeconfig, *apply_it, stdin=config.replace("'1'", "'2'"))
    assert "unchanged" in kubectl(kubeconfig, *apply_it, stdin=config.replace("'1'", "'2'"))
    with pytest.raises(subprocess.CalledProcessError):
        kubectl(kubeconfig, *apply_it, stdin=config.replace("data", "date"))
    kubectl(kubeconfig, "annotate", "openai", "gen", "openai-key-rotator.io/rotate=now")
    kubectl(kubeconfig, "patch", "openai", "gen", "--type=merge", "-p", '{"spec": {"serviceAccountNameSize": 20}}')
    assert kubectl(kubeconfig, "get", "openai", "gen", "-o", "jsonpath={.spec.serviceAccountNameSize}") == "20"
    assert "deleted" in kubectl(kubeconfig, "delete", "openai", "gen")
    with server.locked():
        assert server.kubernetes.objects("openais") == []


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """It says where everything is, applies what it is given, and ends well on SIGTERM."""
    seed = tmp_path / "seed.yaml"
    seed.write_text(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: admin}\n"
        'stringData: {key: "${OPENAI_ADMIN_KEY}", host: "${OPENAI_URL}"}\n'
    )
    options = ["--apply", str(seed), "--directory", str(tmp_path), "--latency", "0.001", "--fault", "429:POST:/v1/.*"]
    command = [sys.executable, "-m", "sandbox", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = dict(process.stdout.readline().strip().split("=", 1) for _ in range(4))
        with urllib.request.urlopen(told["KUBERNETES_URL"] + SECRETS + "/admin") as response:
            body = response.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout.read() == ""
    key = Path(told["OPENAI_ADMIN_KEY_FILE"])
    assert key.stat().st_mode & 0o077 == 0
    assert key.read_text().startswith("sk-admin-CANARY")
    assert "CANARY" not in str(told)
    assert told["KUBECONFIG"] == str(tmp_path / "kubeconfig")
    assert b"${OPENAI" not in body
    assert told["OPENAI_URL"].endswith("/v1")
