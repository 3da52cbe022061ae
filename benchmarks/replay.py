"""The bare replay: the requests of a run, sent without the worker's logic, its libraries or its care.

`python -m benchmarks.replay < job`, a process of its own, prints one line of JSON. It does what whoever sends these
requests cannot avoid: it follows lists to their end, and keeps the versions and ids that later requests name.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from benchmarks.patterns import TARGET_HERE, TENANT_HERE, Made, Pattern, Phase, Step
from benchmarks.targets import at_most, places

CONCURRENCY = 50


@dataclass(frozen=True, slots=True)
class Job:
    """What to send, and where. `due`: the targets that get the due pattern; all others get the idle one."""

    due_pattern: str
    idle_pattern: str
    targets: int
    due: Sequence[int]
    kubernetes: str
    ca_file: str
    token: str
    openai: str
    admin_key: str
    concurrency: int = CONCURRENCY


class Replay:
    """Sends what a job says."""

    def __init__(self, job: Job, session: aiohttp.ClientSession) -> None:
        self._job = job
        self._session = session
        self._due, self._idle = Pattern.of_text(job.due_pattern), Pattern.of_text(job.idle_pattern)
        wanted = set(job.due)
        self._tenants = [Made(number, members[0], "") for number, members in places(job.targets)]
        targets = [
            Made(number, member, secrets.token_hex(8)) for number, members in places(job.targets) for member in members
        ]
        # As the worker does: one of each tenant in turn.
        self._targets = sorted(targets, key=lambda made: (made.number - made.tenant * len(targets), made.tenant))
        self._wanted = {made.number for made in targets if made.number in wanted}
        self._versions: dict[str, str] = {}
        self._sources: dict[tuple[str, str], str] = {}
        """The uid of each ExternalSecret, which owns its Secret."""
        self.requests: Counter[str] = Counter()
        self.in_turn = 0.0

    async def run(self) -> None:
        """All phases, one after the other."""
        for number, phase in enumerate(self._due.phases):
            idle = self._idle.phases[number] if number < len(self._idle.phases) else Phase()
            for step in phase.run:
                await self._list(step, self._tenants[0])
            # Where nothing is due, the tenants are not asked for what only due targets need.
            steps = phase.tenant if self._wanted else idle.tenant
            await at_most((self._tenant(steps, tenant) for tenant in self._tenants), self._job.concurrency)
            begun = time.monotonic()
            await at_most(
                (self._target(phase if made.number in self._wanted else idle, made) for made in self._targets),
                self._job.concurrency,
            )
            self.in_turn += time.monotonic() - begun

    async def _tenant(self, steps: Sequence[Step], tenant: Made) -> None:
        for step in steps:
            await self._list(step, tenant)

    async def _target(self, phase: Phase, made: Made) -> None:
        made.source = self._sources.get((made.fill(TENANT_HERE), made.fill(TARGET_HERE)), "")
        for step in phase.target:
            path = made.path(step)
            made.versions.setdefault(path.partition("?")[0], self._versions.get(path.partition("?")[0], "0"))
            made.learn(path, step, await self._send(step, path, made))

    async def _list(self, step: Step, made: Made) -> None:
        """Send it; where it is a list, to its end."""
        first = path = made.path(step)
        while True:
            answer = await self._send(step, path, made)
            if step.method != "GET":
                return
            page: dict[str, Any] = json.loads(answer)
            for item in page.get("items", ()):
                metadata = item["metadata"]
                self._versions[f"{first.partition('?')[0]}/{metadata['name']}"] = metadata["resourceVersion"]
                if step.kind == "GET externalsecrets":
                    self._sources[metadata["namespace"], metadata["name"]] = metadata["uid"]
            if token := page.get("metadata", {}).get("continue"):
                path = f"{first}&continue={token}"
            elif page.get("has_more") is True:
                path = f"{first}&after={page['last_id']}"
            else:
                return

    async def _send(self, step: Step, path: str, made: Made) -> bytes:
        to_openai = step.api == "openai"
        token = (made.key if step.key else self._job.admin_key) if to_openai else self._job.token
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        if step.body:
            headers["Content-Type"] = step.content
        url = URL((self._job.openai if to_openai else self._job.kubernetes) + path, encoded=True)
        body = made.body(step, path).encode() or None
        async with self._session.request(step.method, url, headers=headers, data=body) as answer:
            content = await answer.read()
        assert answer.status < 300, f"{step.kind}: {answer.status} {content[:300]!r}"
        self.requests[step.kind] += 1
        return content


async def _main(job: Job) -> None:
    context = ssl.create_default_context(cafile=job.ca_file) if job.ca_file else True
    connector = aiohttp.TCPConnector(limit=job.concurrency + 10, ssl=context)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        one = Replay(job, session)
        begun = time.monotonic()
        await one.run()
        print(
            json.dumps({"sending": time.monotonic() - begun, "in_turn": one.in_turn, "requests": one.requests}),
            flush=True,
        )


if __name__ == "__main__":
    asyncio.run(_main(Job(**json.load(sys.stdin))))
