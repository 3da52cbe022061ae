"""The worker next to the real kubectl over TLS, field by field of a kubeconfig: who came, and whether they got in.

A row is "same", or "refused": then kubectl goes on, and the worker says which field it does not honour.
"""

from __future__ import annotations

import asyncio
import base64
import json
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest
import yaml

from tests.support.builders import FixedRandom
from tests.support.scene import ROOT
from tests.support.tls import NAME, OPENSSL, Certificates, Listener, listening
from worker.errors import OutOfReach, RotatorError
from worker.kubernetes import kubeconfig as fields
from worker.kubernetes.client import KubernetesApi
from worker.kubernetes.connection import connect
from worker.model.values import Ref, Resource

KUBECTL = ROOT / ".venv" / "bin" / "kubectl"
PODS = Resource("", "v1", "pods")
pytestmark = pytest.mark.skipif(
    not KUBECTL.exists() or OPENSSL is None, reason="needs kubectl in .venv, and openssl for certificates"
)

PLUGIN = """#!/bin/sh
printf '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": %s}' "$1"
"""
TOKEN = '{"token": "from-plugin"}'
EXEC: dict[str, Any] = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "command": "./plugin",
    "args": [TOKEN],
    "interactiveMode": "Never",
}
ANSWER = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "from-plugin"}}
WITH_ENVIRONMENT: dict[str, Any] = {
    "command": "sh",
    "args": ["-c", 'printf "%s" "$ANSWER"'],
    "env": [{"name": "ANSWER", "value": json.dumps(ANSWER)}],
}
OLD = "client.authentication.k8s.io/v1beta1"
OLDER: dict[str, Any] = {
    "apiVersion": OLD,
    "command": "printf",
    "args": ['{"apiVersion": "%s", "kind": "ExecCredential", "status": {"token": "from-plugin"}}', OLD],
}
CA = {"certificate-authority": "ca.crt"}
PAIR = {"client-certificate": "client.crt", "client-key": "client.key"}
SAME, REFUSED, NOT_OURS = "same", "not honoured", "without a name or password"
INLINE = {"certificate-authority-data": "@ca.crt", "tls-server-name": NAME, "disable-compression": True}
FOR_PLUGINS = CA | {"extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}]}
SAY = f"printf '%s' '{json.dumps(ANSWER)}'"
MUCH = "head -c 500000 /dev/zero"
"""More than fits into a pipe."""
GONE, PAST = "client.authentication.k8s.io/v1alpha1", "2020-01-01T00:00:00Z"
OIDC = {"name": "oidc", "config": {"id-token": "a.b.c", "client-id": "x", "idp-issuer-url": "https://127.0.0.1:1"}}
NONSENSE = {"clientCertificateData": "x", "clientKeyData": "y"}
TELLS = """
import json, os, sys
told = json.dumps(json.loads(os.environ["KUBERNETES_EXEC_INFO"]), sort_keys=True)
status = {"token": "".join(c if c.isalnum() else "." for c in told)}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""
TELLING: dict[str, Any] = EXEC | {"command": sys.executable, "args": ["-c", TELLS]}
"""Its token is what it was told."""


def saying(**changes: Any) -> dict[str, Any]:
    """A plugin whose answer has these parts; None takes one away."""
    answer = {name: value for name, value in (ANSWER | changes).items() if value is not None}
    return EXEC | {"command": "printf", "args": ["%s", json.dumps(answer)]}


TOKEN_USER = {"token": "t"}
"""Without any credential kubectl asks for a name and a password."""

Row = tuple[str, str, dict[str, Any], dict[str, Any]]
ROWS: list[Row] = [
    # --- the server
    ("authority in a file", SAME, CA, TOKEN_USER),
    ("authority inline", SAME, {"certificate-authority-data": "@ca.crt"}, TOKEN_USER),
    (
        "inline goes before a file",
        SAME,
        {"certificate-authority-data": "@ca.crt", "certificate-authority": "none"},
        TOKEN_USER,
    ),
    ("another authority", SAME, {"certificate-authority": "stranger.crt"}, TOKEN_USER),
    ("no authority", SAME, {}, TOKEN_USER),
    ("authority's file is missing", SAME, {"certificate-authority": "none.crt"}, TOKEN_USER),
    ("authority is no certificate", SAME, {"certificate-authority-data": "eA=="}, TOKEN_USER),
    ("not verified", SAME, {"insecure-skip-tls-verify": True}, TOKEN_USER),
    ("not verified, and an authority", SAME, CA | {"insecure-skip-tls-verify": True}, TOKEN_USER),
    ("the server's name", SAME, CA | {"tls-server-name": NAME}, TOKEN_USER),
    ("another server's name", SAME, CA | {"tls-server-name": "other.example"}, TOKEN_USER),
    ("without a scheme, with an authority", SAME, CA | {"server": "@bare"}, TOKEN_USER),
    ("without a scheme, not verified", SAME, {"insecure-skip-tls-verify": True, "server": "@bare"}, TOKEN_USER),
    ("a slash at the end", SAME, CA | {"server": "@slash"}, TOKEN_USER),
    ("compression", SAME, CA | {"disable-compression": True}, TOKEN_USER),
    ("extensions", SAME, CA | {"extensions": [{"name": "x", "extension": {}}]}, {"token": "t", "extensions": []}),
    ("a proxy", SAME, CA | {"proxy-url": "@proxy"}, {"token": "t"}),
    ("a proxy that is not there", SAME, CA | {"proxy-url": "http://127.0.0.1:1"}, TOKEN_USER),
    ("a proxy without a scheme", SAME, CA | {"proxy-url": "127.0.0.1:1"}, TOKEN_USER),
    ("a proxy of a scheme that nobody knows", SAME, CA | {"proxy-url": "htp://127.0.0.1:1"}, TOKEN_USER),
    ("a scheme in capital letters", SAME, CA | {"server": "@capital"}, TOKEN_USER),
    ("a path", SAME, CA | {"server": "@path"}, TOKEN_USER),
    ("a scheme that nobody knows", SAME, CA | {"server": "ftp://127.0.0.1:1"}, TOKEN_USER),
    ("not verified, in quotes", SAME, {"insecure-skip-tls-verify": "true"}, TOKEN_USER),
    ("verified, in quotes", SAME, {"insecure-skip-tls-verify": "false"}, TOKEN_USER),
    ("authority that is not base64", SAME, {"certificate-authority-data": "@blank"}, TOKEN_USER),
    ("authority that is empty", SAME, {"certificate-authority": "empty"}, TOKEN_USER),
    ("a name and password in the address", NOT_OURS, CA | {"server": "@user"}, TOKEN_USER),
    ("a field that nobody knows", REFUSED, CA | {"unheard-of": "x"}, TOKEN_USER),
    # --- who comes
    ("token", SAME, CA, {"token": "t"}),
    ("token's file", SAME, CA, {"tokenFile": "token"}),
    ("token, and its file", SAME, CA, {"token": "t", "tokenFile": "token"}),
    ("token's file is missing", SAME, CA, {"tokenFile": "none"}),
    ("name and password", SAME, CA, {"username": "a", "password": "b"}),
    ("token, and name and password", SAME, CA, {"token": "t", "username": "a", "password": "b"}),
    ("certificate's files", SAME, CA, PAIR),
    ("certificate inline", SAME, CA, {"client-certificate-data": "@client.crt", "client-key-data": "@client.key"}),
    ("certificate's file, key inline", SAME, CA, PAIR | {"client-key-data": "@client.key"}),
    ("certificate without a key", SAME, CA, {"client-certificate": "client.crt"}),
    ("certificate's file is missing", SAME, CA, PAIR | {"client-certificate": "none"}),
    ("certificate and token", SAME, CA, PAIR | {"token": "t"}),
    ("certificate, not verified", SAME, {"insecure-skip-tls-verify": True}, PAIR),
    ("key without a certificate, and a token", SAME, CA, {"client-key": "client.key", "token": "t"}),
    ("certificate without a key, and a token", SAME, CA, {"client-certificate": "client.crt", "token": "t"}),
    ("token's file is empty, and a token", SAME, CA, {"tokenFile": "empty", "token": "t"}),
    ("token's file is missing, and a token", SAME, CA, {"tokenFile": "none", "token": "t"}),
    ("name without a password", SAME, CA, {"username": "a"}),
    ("plugin, and a name and password", SAME, CA, {"exec": EXEC, "username": "a", "password": "b"}),
    ("plugin, and a token's file", SAME, CA, {"exec": EXEC, "tokenFile": "token"}),
    ("plugin that is missing, and a token", SAME, CA, {"exec": EXEC | {"command": "./none"}, "token": "t"}),
    ("plugin with a token", SAME, CA, {"exec": EXEC}),
    ("plugin, and a token in the file", SAME, CA, {"exec": EXEC, "token": "t"}),
    ("plugin, and a certificate", SAME, CA, {"exec": EXEC} | PAIR),
    ("plugin that is missing", SAME, CA, {"exec": EXEC | {"command": "./none"}}),
    ("plugin that fails", SAME, CA, {"exec": EXEC | {"command": "false", "args": []}}),
    ("plugin that says nothing", SAME, CA, {"exec": EXEC | {"command": "true", "args": []}}),
    ("plugin that gives nothing", SAME, CA, {"exec": EXEC | {"args": ["{}"]}}),
    ("plugin of another version", SAME, CA, {"exec": EXEC | {"apiVersion": "client.authentication.k8s.io/v1beta1"}}),
    ("plugin of no version", SAME, CA, {"exec": {k: v for k, v in EXEC.items() if k != "apiVersion"}}),
    ("plugin of no mode", SAME, CA, {"exec": {k: v for k, v in EXEC.items() if k != "interactiveMode"}}),
    ("plugin that wants to know the cluster", SAME, FOR_PLUGINS, {"exec": TELLING | {"provideClusterInfo": True}}),
    ("plugin that knows an inline authority", SAME, INLINE, {"exec": TELLING | {"provideClusterInfo": True}}),
    ("plugin that does not want to know it", SAME, FOR_PLUGINS, {"exec": TELLING}),
    (
        "plugin that knows of a proxy",
        SAME,
        CA | {"proxy-url": "@proxy"},
        {"exec": TELLING | {"provideClusterInfo": True}},
    ),
    ("plugin of a version that is gone", SAME, CA, {"exec": saying(apiVersion=GONE) | {"apiVersion": GONE}}),
    ("plugin that gives another kind", SAME, CA, {"exec": saying(kind="Pod")}),
    ("plugin that gives no kind", SAME, CA, {"exec": saying(kind=None)}),
    ("plugin that gives no status", SAME, CA, {"exec": saying(status=None)}),
    ("plugin whose token is a number", SAME, CA, {"exec": saying(status={"token": 5})}),
    ("plugin whose token has a line end", SAME, CA, {"exec": saying(status={"token": "a\nb"})}),
    ("plugin whose time is none", SAME, CA, {"exec": saying(status={"token": "x", "expirationTimestamp": "soon"})}),
    ("plugin whose token has ended", SAME, CA, {"exec": saying(status={"token": "x", "expirationTimestamp": PAST})}),
    ("plugin that gives half a certificate", SAME, CA, {"exec": saying(status={"clientCertificateData": "x"})}),
    ("plugin that gives no certificate", SAME, CA, {"exec": saying(status=NONSENSE)}),
    ("plugin that talks first", SAME, CA, {"exec": EXEC | {"command": "sh", "args": ["-c", f"echo hello; {SAY}"]}}),
    ("plugin that talks much", SAME, CA, {"exec": EXEC | {"command": "sh", "args": ["-c", f"{MUCH} >&2; {SAY}"]}}),
    ("plugin that reads", SAME, CA, {"exec": EXEC | {"command": "sh", "args": ["-c", f"cat; {SAY}"]}}),
    ("plugin whose variable is a number", SAME, CA, {"exec": EXEC | {"env": [{"name": "A", "value": 5}]}}),
    ("plugin, and a provider", SAME, CA, {"exec": EXEC, "auth-provider": {"name": "oidc", "config": {}}}),
    ("plugin that wants a terminal", SAME, CA, {"exec": EXEC | {"interactiveMode": "Always"}}),
    ("plugin that takes a terminal", SAME, CA, {"exec": EXEC | {"interactiveMode": "IfAvailable"}}),
    ("plugin of an odd mode", SAME, CA, {"exec": EXEC | {"interactiveMode": "Sometimes"}}),
    ("plugin with an environment", SAME, CA, {"exec": EXEC | WITH_ENVIRONMENT}),
    ("plugin with an older version and no mode", SAME, CA, {"exec": OLDER}),
    ("plugin without a command", SAME, CA, {"exec": EXEC | {"command": ""}}),
    ("acting for a user", SAME, CA, {"token": "t", "as": "ada"}),
    ("acting for a user of a group", SAME, CA, {"token": "t", "as": "ada", "as-uid": "u", "as-groups": ["devs"]}),
    ("acting for a user of two groups", REFUSED, CA, {"token": "t", "as": "ada", "as-groups": ["devs", "ops"]}),
    ("acting for a user with more", REFUSED, CA, {"token": "t", "as": "ada", "as-user-extra": {"a": ["b"]}}),
    ("acting for a group without a user", SAME, CA, {"token": "t", "as-groups": ["devs"]}),
    ("a provider that is gone", SAME, CA, {"auth-provider": {"name": "gcp"}}),
    ("a provider, and a token", SAME, CA, {"token": "t", "auth-provider": OIDC}),
    ("a provider, and a name", SAME, CA, {"username": "a", "password": "b", "auth-provider": OIDC}),
    ("password without a name", SAME, CA, {"password": "b"}),
    ("certificate's file with its key in it", SAME, CA, {"client-certificate": "both.pem"}),
    ("certificate and another's key", SAME, CA, PAIR | {"client-key": "server.key"}),
    ("key that is not base64", SAME, CA, {"client-certificate": "client.crt", "client-key-data": "!!"}),
    ("token that is a number", SAME, CA, {"token": 5}),
    ("token with a line end", SAME, CA, {"token": "a\nb"}),
    ("acting for a user with a line end", SAME, CA, {"token": "t", "as": "a\nb"}),
]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def listener(certificates: Certificates) -> Iterator[Listener]:
    with listening(certificates) as found:
        yield found


@pytest.fixture
def tunnel() -> Iterator[str]:
    """A proxy that knows CONNECT alone."""

    class Tunnel(StreamRequestHandler):
        def handle(self) -> None:
            host, _, port = self.rfile.readline().decode().split()[1].rpartition(":")
            while self.rfile.readline().strip():
                pass
            with socket.create_connection((host, int(port))) as there:
                self.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                other = {self.connection: there, there: self.connection}
                while ready := select.select(list(other), [], [], 10)[0]:
                    for end in ready:
                        piece = end.recv(65536)
                        if not piece:
                            return
                        other[end].sendall(piece)

    with ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def written(directory: Path, server: str, cluster: dict[str, Any], user: dict[str, Any], *, proxy: str) -> Path:
    """The kubeconfig; `@name` stands for a file's content, or for what only the test knows."""
    authority = base64.b64encode((directory / "ca.crt").read_bytes()).decode()
    known = {
        "@bare": server,
        "@slash": f"https://{server}/",
        "@capital": f"HTTPS://{server}",
        "@path": f"https://{server}/k8s/clusters/c-1",
        "@user": f"https://u:p@{server}",
        "@blank": f"{authority[:10]} {authority[10:]}",
        "@proxy": proxy,
    }

    def value(of: Any) -> Any:
        if not isinstance(of, str) or not of.startswith("@"):
            return of
        return known.get(of) or base64.b64encode((directory / of[1:]).read_bytes()).decode()

    (directory / "plugin").write_text(PLUGIN)
    (directory / "plugin").chmod(0o755)
    (directory / "token").write_text("from-file\n")
    (directory / "empty").write_text("")
    (directory / "both.pem").write_text((directory / "client.crt").read_text() + (directory / "client.key").read_text())
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [
            {"name": "k", "cluster": {"server": f"https://{server}"} | {k: value(v) for k, v in cluster.items()}}
        ],
        "users": [{"name": "u", "user": {k: value(v) for k, v in user.items()}}],
    }
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


def by_kubectl(path: Path) -> bool:
    done = subprocess.run(
        [str(KUBECTL), "get", "--raw", "/api/v1/namespaces/n/pods/p", "--request-timeout=30s"],
        env={"KUBECONFIG": str(path), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def by_worker(path: Path) -> RotatorError | None:
    async def ask() -> None:
        async with await connect(kubeconfig=str(path), context=None, in_cluster=False, connections=1) as client:
            await KubernetesApi(client, FixedRandom()).read(PODS, Ref("n", "p"))

    try:
        asyncio.run(ask())
    except RotatorError as error:
        return error
    return None


@pytest.mark.parametrize(("verdict", "cluster", "user"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_same_file_leads_to_the_same_server_as_the_same_user(
    *,
    certificates: Certificates,
    listener: Listener,
    tunnel: str,
    verdict: str,
    cluster: dict[str, Any],
    user: dict[str, Any],
) -> None:
    path = written(certificates.directory, listener.url, cluster, user, proxy=tunnel)
    theirs = by_kubectl(path)
    who, asked = list(listener.seen), list(listener.asked)
    listener.seen.clear()
    listener.asked.clear()
    error = by_worker(path)
    if verdict != SAME:
        assert theirs
        assert isinstance(error, OutOfReach)
        assert verdict in error.message
        assert listener.seen == []
        return
    assert (error is None) == theirs, error
    assert listener.seen == who
    if theirs:
        assert listener.asked[-1:] == asked[-1:]


def test_every_field_that_is_honoured_has_a_row() -> None:
    clusters = {name for _, _, cluster, _ in ROWS for name in cluster} | {"server"}
    users = {name for _, _, _, user in ROWS for name in user}
    assert clusters - {"unheard-of"} == set(fields._CLUSTER)
    assert users == set(fields._USER)


def test_every_field_that_is_honoured_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    text = text[text.index("## Kubeconfig") : text.index("## Exit codes")]
    missing = [
        name
        for name in sorted(fields._CLUSTER | fields._USER)
        if f"`{name}`" not in text and f"`{name.removesuffix('-data')}(-data)`" not in text
    ]
    assert missing == []
