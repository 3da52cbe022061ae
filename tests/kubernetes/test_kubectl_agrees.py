"""The worker next to the real kubectl, with the same kubeconfigs: same server, same identity, same verdict."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.builders import FixedRandom
from tests.support.programs import required_program
from worker.errors import OutOfReach, RotatorError
from worker.kubernetes.client import KubernetesApi
from worker.kubernetes.connection import connect
from worker.model.values import Ref, Resource

PODS = Resource("", "v1", "pods")


@dataclass
class Listener:
    """A plain-text server: who came, with which headers."""

    url: str
    seen: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def listener() -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown = {name.lower(): value for name, value in self.headers.items()}
            found.seen.append({k: v for k, v in shown.items() if k == "authorization" or k.startswith("impersonate")})
            body = json.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "n"}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Listener(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def write(path: Path, server: str, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": path.name,
        "contexts": [{"name": path.name, "context": {"cluster": path.name, "user": path.name}}],
        "clusters": [{"name": path.name, "cluster": {"server": server} | (cluster or {})}],
        "users": [{"name": path.name, "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def kubectl(kubeconfig: str) -> bool:
    """Does kubectl get as far as an answer?"""
    done = subprocess.run(
        [required_program("kubectl"), "get", "--raw", "/api/v1/namespaces/n/pods/p", "--request-timeout=5s"],
        env={"KUBECONFIG": kubeconfig, "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def worker(kubeconfig: str) -> bool:
    async def ask() -> bool:
        async with await connect(kubeconfig=kubeconfig, context=None, in_cluster=False, connections=1) as client:
            await KubernetesApi(client, FixedRandom()).read(PODS, Ref("n", "p"))
        return True

    try:
        return asyncio.run(ask())
    except RotatorError:
        return False


PLUGIN = """#!/bin/sh
echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "from-plugin"}}'
"""
EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "interactiveMode": "Never"}


@pytest.mark.parametrize(
    ("scheme", "user"),
    [
        ("", {}),
        ("http://", {}),
        ("http://", {"token": "secret"}),
        ("", {"token": "secret"}),
        ("http://", {"as": "ada"}),
        ("http://", {"username": "a", "password": "b"}),
        ("http://", {"exec": EXEC}),
        ("http://", {"exec": EXEC | {"command": "./missing"}}),
    ],
    ids=["no scheme", "plain", "token", "token, no scheme", "impersonation", "password", "plugin", "missing plugin"],
)
def test_over_plain_http_both_send_the_same(
    listener: Listener, tmp_path: Path, scheme: str, user: dict[str, Any]
) -> None:
    """No credential, whatever the file has."""
    plugin = tmp_path / "plugin"
    plugin.write_text(PLUGIN)
    plugin.chmod(0o755)
    path = str(write(tmp_path / "one", scheme + listener.url, user))
    theirs = kubectl(path)
    by_kubectl, listener.seen = listener.seen, []
    ours = worker(path)
    assert ours == theirs
    assert listener.seen == by_kubectl
    assert all("authorization" not in headers for headers in listener.seen)


def test_of_several_files_both_take_the_firsts_context(listener: Listener, tmp_path: Path) -> None:
    first = write(tmp_path / "first", f"http://{listener.url}", {})
    second = write(tmp_path / "second", "http://127.0.0.1:1", {})
    both, missing = f"{first}:{second}", tmp_path / "absent"
    assert kubectl(both)
    assert worker(both)
    assert worker(f"{missing}:{both}") == kubectl(f"{missing}:{both}")
    assert worker(f"{second}:{first}") == kubectl(f"{second}:{first}") == False  # noqa: E712


def test_a_plugin_that_fails_sends_nothing(listener: Listener, tmp_path: Path) -> None:
    """Nobody goes on as anonymous."""
    user = {"exec": EXEC | {"command": "/nonexistent/login"}}
    path = write(tmp_path / "one", f"https://{listener.url}", user)

    async def go() -> None:
        async with await connect(kubeconfig=str(path), context=None, in_cluster=False, connections=1):
            pass

    with pytest.raises(OutOfReach, match="credential plugin 'login' failed") as raised:
        asyncio.run(go())
    assert raised.value.reason == "NoKubeconfig"
    assert listener.seen == []
