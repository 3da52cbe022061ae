"""The targets of a benchmark: tenants of up to 50 ExternalSecrets each, with one generator and one OpenAI project; and
how they are made due.

Guarantee: what is made due has a whole history in the ledger, moved into the past; the worker sees nothing unusual.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiohttp

from benchmarks.clusters import Cluster
from benchmarks.targets import LEDGER, NAME, NAMESPACE, PROJECT, at_most, places
from worker.model.times import format_time, parse_time

INTERVAL = "1h"
GRACE = "1h"
"""So that nothing ripens by itself while a benchmark goes on; `age` lets more than that pass."""
PASSED = timedelta(hours=2)
_AT_ONCE = 40
_TIMES = ("requestedAt", "claimedUntil", "publishedAt", "supersededAt")
_MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Client:
    """Just enough of a client to set the scene."""

    session: aiohttp.ClientSession
    url: str

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of the answer; an AssertionError if it is not 2xx."""
        headers = {"Content-Type": _MERGE if method == "PATCH" else "application/json"}
        async with self.session.request(method, self.url + path, json=body, headers=headers) as answer:
            assert answer.status < 300, f"{method} {path}: {answer.status} {(await answer.text())[:300]}"
            return await answer.json(content_type=None)


def with_client(cluster: Cluster, work: Callable[[Client], Awaitable[None]]) -> None:
    """Do something with a client."""

    async def run() -> None:
        context = ssl.create_default_context(cafile=str(cluster.ca_file)) if cluster.ca_file else None
        connector = aiohttp.TCPConnector(limit=_AT_ONCE, ssl=context if context is not None else True)
        headers = {"Authorization": f"Bearer {cluster.token}"} if cluster.token else {}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            await work(Client(session, cluster.url))

    asyncio.run(run())


def make(cluster: Cluster, targets: int, host: str, admin_key: str) -> None:
    """Make everything that the worker is asked for."""

    async def work(client: Client) -> None:
        async def tenant(number: int, members: list[int]) -> None:
            namespace = NAMESPACE.format(number)
            await client.ask("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            secret = {"metadata": {"name": "openai-admin-secret"}, "stringData": {"api-key": admin_key}}
            await client.ask("POST", f"/api/v1/namespaces/{namespace}/secrets", secret)
            generators = f"/apis/generators.external-secrets.io/v1alpha1/namespaces/{namespace}/openais"
            await client.ask("POST", generators, _generator(number, host))
            for member in members:
                path = f"/apis/external-secrets.io/v1/namespaces/{namespace}/externalsecrets"
                await client.ask("POST", path, _external_secret(member))

        await at_most((tenant(number, members) for number, members in places(targets)), _AT_ONCE)

    with_client(cluster, work)


def age(cluster: Cluster, due: Callable[[int], bool]) -> None:
    """Let two hours have passed for the targets that are due: they are, and their previous accounts may go."""

    async def work(client: Client) -> None:
        entries = await _entries(client)

        async def one(entry: dict[str, Any]) -> None:
            path = f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations/{entry['metadata']['name']}"
            await client.ask("PATCH", path, {"status": aged(entry["status"])})

        wanted = [entry for entry in entries if due(int(entry["spec"]["target"]["secret"][-4:]))]
        await at_most((one(entry) for entry in wanted), _AT_ONCE)

    with_client(cluster, work)


def aged(status: dict[str, Any]) -> dict[str, Any]:
    """The merge patch that moves the times of an entry's status into the past."""
    accounts = {
        name: {field: _earlier(account[field]) for field in _TIMES if field in account}
        for name, account in status["accounts"].items()
    }
    times = {field: _earlier(status[field]) for field in ("since", "lastRotatedAt", "nextRotationAt", "oldestKeyAt")}
    return {"accounts": accounts, **times}


async def _entries(client: Client) -> list[dict[str, Any]]:
    path = f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations?limit=500"
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = await client.ask("GET", path + (f"&continue={token}" if token else ""))
        found += page["items"]
        token = page["metadata"].get("continue") or ""
        if not token:
            return found


def _earlier(time: str) -> str:
    return format_time(parse_time(time) - PASSED)


def _generator(number: int, host: str) -> dict[str, Any]:
    return {
        "apiVersion": "generators.external-secrets.io/v1alpha1",
        "kind": "OpenAI",
        "metadata": {"name": "openai-generator"},
        "spec": {
            "projectId": PROJECT.format(number),
            "host": host,
            "openAiAdminKey": {"name": "openai-admin-secret", "key": "api-key"},
            "serviceAccountNamePrefix": "app",
            "serviceAccountNameSize": 10,
            "cleanupPolicy": {"type": "retainLatest", "gracePeriod": GRACE},
        },
    }


def _external_secret(number: int) -> dict[str, Any]:
    group = "generators.external-secrets.io/v1alpha1"
    reference = {"apiVersion": group, "kind": "OpenAI", "name": "openai-generator"}
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": NAME.format(number)},
        "spec": {"refreshInterval": INTERVAL, "dataFrom": [{"sourceRef": {"generatorRef": reference}}]},
    }
