"""The API servers that the contract is held against, each behind the same small client."""

from __future__ import annotations

import asyncio
import io
import json
import random
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sandbox.http_server import serving
from sandbox.kubernetes.server import Kubernetes
from sandbox.kubernetes.setup import MERGE_PATCH, known_crds

GROUPS = {
    "openais": "/apis/generators.external-secrets.io/v1alpha1",
    "keyrotations": "/apis/openai-key-rotator.io/v1alpha1",
    "customresourcedefinitions": "/apis/apiextensions.k8s.io/v1",
    "deployments": "/apis/apps/v1",
    "statefulsets": "/apis/apps/v1",
    "daemonsets": "/apis/apps/v1",
}
KINDS = {
    "secrets": ("v1", "Secret"),
    "configmaps": ("v1", "ConfigMap"),
    "pods": ("v1", "Pod"),
    "events": ("v1", "Event"),
    "deployments": ("apps/v1", "Deployment"),
    "statefulsets": ("apps/v1", "StatefulSet"),
    "daemonsets": ("apps/v1", "DaemonSet"),
    "openais": ("generators.external-secrets.io/v1alpha1", "OpenAI"),
    "keyrotations": ("openai-key-rotator.io/v1alpha1", "KeyRotation"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Any
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Api:
    """A raw client of one API server, with a namespace of its own."""

    def __init__(self, session: aiohttp.ClientSession, url: str, namespace: str, machine: Kubernetes | None) -> None:
        self.namespace = namespace
        self.machine = machine
        self._session = session
        self._url = url

    def path(self, plural: str, name: str = "", namespace: str | None = None) -> str:
        """The path of a resource, or of an object, in the own namespace or another one (all of them: "")."""
        space = self.namespace if namespace is None else namespace
        parts = [GROUPS.get(plural, "/api/v1"), f"namespaces/{space}" if space else "", plural, name]
        return "/".join(part for part in parts if part)

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str | int] | None = None,
    ) -> Answer:
        """Make a request; a body that is not bytes is sent as JSON, with PATCH as a merge patch."""
        kind = MERGE_PATCH if method == "PATCH" else "application/json"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        stream = None if data is None else io.BytesIO(data)
        given = {"Content-Type": kind, **(headers or {})}
        async with self._session.request(
            method, self._url + path, data=stream, headers=given, params=query or {}
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def create(self, plural: str, name: str, fields: dict[str, Any] | None = None, **metadata: Any) -> Answer:
        """Create an object with these fields beside its metadata."""
        version, kind = KINDS[plural]
        item = {"apiVersion": version, "kind": kind, "metadata": {"name": name, **metadata}, **(fields or {})}
        return await self.call("POST", self.path(plural), item)

    async def created(self, plural: str, name: str, fields: dict[str, Any] | None = None, **metadata: Any) -> Any:
        """Create an object that must be accepted, and return it."""
        answer = await self.create(plural, name, fields, **metadata)
        assert answer.status == 201, answer.status
        return answer.json()

    async def get(self, plural: str, name: str) -> Any:
        """An object that must exist."""
        answer = await self.call("GET", self.path(plural, name))
        assert answer.status == 200, answer.status
        return answer.json()

    async def patch(self, plural: str, name: str, patch: object, **query: str | int) -> Answer:
        """Send a merge patch."""
        return await self.call("PATCH", self.path(plural, name), patch, query=query)

    def forbidding(self, verb: str, resource: str) -> dict[str, str]:
        """Headers with which this request is refused for want of permission."""
        if self.machine is not None:
            self.machine.forbid(verb, resource)
            return {}
        return {"Impersonate-User": "system:serviceaccount:nowhere:nobody"}

    async def eventually(self, check: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
        """Wait for what a real controller does in its own time."""
        async with asyncio.timeout(seconds):
            while True:
                if await check():
                    return
                await asyncio.sleep(0.05)


@pytest.fixture(params=["sandbox", pytest.param("real", marks=pytest.mark.cluster)])
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    """A client of the API server under test, in a new namespace, with our CRDs installed, without rules."""
    if request.param == "sandbox":
        machine = Kubernetes(lambda: datetime.now(UTC), random.Random(secrets.randbits(64)), token="sandbox-token")
        async with serving(machine) as url, _client(url, "sandbox-token", None, machine) as client:
            yield client
    else:
        endpoint = request.getfixturevalue("real_api_server")
        async with _client(endpoint.url, endpoint.token, endpoint.ca_file, None) as client:
            yield client


@asynccontextmanager
async def _client(url: str, token: str, ca_file: Path | None, machine: Kubernetes | None) -> AsyncIterator[Api]:
    """A client with a namespace that lasts as long as the context."""
    context = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
    connector = aiohttp.TCPConnector(ssl=context)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        api = Api(session, url, f"contract-{secrets.token_hex(6)}", machine)
        for crd in known_crds():
            await _install(api, crd)
        namespace = {"metadata": {"name": api.namespace}}
        assert (await api.call("POST", "/api/v1/namespaces", namespace)).status == 201
        try:
            yield api
        finally:
            await api.call("DELETE", f"/api/v1/namespaces/{api.namespace}")


async def _install(api: Api, crd: Mapping[str, Any]) -> None:
    path = api.path("customresourcedefinitions", namespace="")
    answer = await api.call("POST", path, crd)
    assert answer.status in (201, 409), answer.status
    spec = crd["spec"]

    async def served() -> bool:
        version = f"/apis/{spec['group']}/{spec['versions'][0]['name']}"
        return (await api.call("GET", f"{version}/{spec['names']['plural']}", query={"limit": 1})).status == 200

    await api.eventually(served)
