"""A running API server as tests see it: how to reach it, and a few ways to talk to it.

Guarantees: nothing here prints a token; an answer is returned whatever its status is.
"""

from __future__ import annotations

import functools
import json
import ssl
import subprocess
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.programs import required_program


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running API server, and how to be let in."""

    url: str
    token: str = field(repr=False)
    """Of a user in the group system:masters, who may do everything."""
    restricted_token: str = field(repr=False)
    """Of the user `restricted`, who may do what everybody known may do, and what a test's role binding allows."""
    ca_file: Path
    kubeconfig: Path
    """For the user who may do everything."""
    audit_log: Path
    """What service accounts asked for, a line of JSON each, where the API server was told to write it down."""


def call(
    endpoint: Endpoint,
    method: str,
    path: str,
    body: object = None,
    *,
    token: str | None = None,
    content_type: str = "application/json",
) -> tuple[int, Any]:
    """Make one request; the status and the JSON (or text) of the answer."""
    request = urllib.request.Request(
        endpoint.url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token or endpoint.token}", "Content-Type": content_type},
    )
    with _opener(endpoint.ca_file).open(request, timeout=60) as response:
        content = response.read()
        kind = response.headers.get_content_type()
        return response.status, json.loads(content) if kind == "application/json" else content.decode()


def kubeconfig_for(endpoint: Endpoint, path: Path, token: str | None = None) -> Path:
    """Write a kubeconfig for the bearer of this token (without one: of the user who may do everything)."""
    cluster = {"server": endpoint.url, "certificate-authority": str(endpoint.ca_file)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token or endpoint.token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    return write_private(path, json.dumps(config, indent=2))


def service_account_token(endpoint: Endpoint, namespace: str, name: str) -> str:
    """A token of this ServiceAccount, as its pods would have it."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    status, answer = call(endpoint, "POST", path, request)
    if status != 201:
        raise LookupError(f"no token for {namespace}/{name}: {status}")
    token: str = answer["status"]["token"]
    return token


def kubectl(endpoint: Endpoint, *arguments: str | Path, given: str | None = None) -> str:
    """What kubectl printed; `given` is its standard input. AssertionError, with its own words, if it failed."""
    cache = endpoint.kubeconfig.with_name("kubectl-cache")
    done = subprocess.run(
        [required_program("kubectl"), "--kubeconfig", endpoint.kubeconfig, "--cache-dir", cache, *arguments],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_private(path: Path, text: str) -> Path:
    """Write a file that only this user can read."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


class _Answers(urllib.request.HTTPErrorProcessor):
    """Answers are answers, also those that urllib would raise as errors."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response

    https_response = http_response


@functools.cache
def _opener(ca_file: Path) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context(cafile=str(ca_file))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as kubectl: chain, name and dates
    # A proxy that is set for this machine is not for its own loopback.
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _Answers()
    )
