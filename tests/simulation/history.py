"""One history: several runs of the real worker, faults, kills and users, under virtual time, all decided by one seed.

The real code runs through the real adapters; only time and chance are the history's. After every effect the oracle
checks what must hold at every moment; at the end, after fault-free runs, what must hold at rest.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sandbox.cluster import Refused as SandboxRefused
from sandbox.cluster import apply, create_namespace, install_crds, send
from sandbox.faults import (
    Fate,
    answered,
    bad_gateway,
    committed_late,
    delivered,
    request_lost,
    response_lost,
    too_many_requests,
)
from sandbox.in_process import InProcessSession, api_client
from sandbox.kubernetes import Kubernetes
from sandbox.openai import OpenAI
from sandbox.openai_state import KeyStatus
from sandbox.wire import Machine, Request, Response
from tests.scene import EPOCH, HOST, LEDGER, PROJECT, RecordingWatcher, documented
from tests.virtual_time import run_virtually
from worker.codec import CURRENT, secret_view
from worker.concurrency import Stop
from worker.errors import OutOfReach
from worker.formats import format_time
from worker.hosts import named_origin
from worker.job import Options, World, run
from worker.kubernetes_api import KubernetesApi
from worker.openai_admin import OpenAIAdminApi

OTHER_PROJECT = "another-project"


class Violation(AssertionError):
    """Something happened that must never happen."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How rough a history is. Probabilities are per request."""

    faults: float = 0.15
    kills: float = 0.02
    runs: int = 8
    users: int = 10


@dataclass
class History:
    seed: int
    profile: Profile = Profile()
    trace: list[str] = field(default_factory=list)
    steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self.random = random.Random(self.seed)
        self.kubernetes = Kubernetes(self.now, random.Random(self.random.random()))
        self.openai = OpenAI(self.now, random.Random(self.random.random()))
        self.admin_key = self.openai.add_organization("acme")
        for project in (PROJECT, OTHER_PROJECT):
            self.openai.add_project("acme", project)
        self.calm = False
        self.made: dict[str, str] = {}
        """Account id to name, of every account that a worker made."""
        self.violations: list[str] = []
        self.containers: dict[str, str] = {}
        """Pod to the id of the account whose key it took from its environment."""
        self.old_copies: list[dict[str, Any]] = []

    # --- time

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.moment())

    def moment(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    def monotonic(self) -> float:
        return self.moment()

    # --- playing

    def play(self) -> None:
        """Play the history to its end. Raises Violation."""
        run_virtually(self._play(), 0.0)
        if self.violations:
            raise Violation(self.violations[0])

    async def _play(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._prepare()
        pace = random.Random(self.random.random())
        # Things happen in bursts: runs that overlap, and users in the middle of them.
        bursts = [pace.uniform(0, 3600 * 3) for _ in range(max(1, self.profile.runs // 2))]

        def moment() -> float:
            return pace.choice(bursts) + pace.choice((pace.uniform(0, 5), pace.uniform(0, 300), pace.uniform(0, 3600)))

        runs = [self._after(moment(), self._run(index, pace.random())) for index in range(self.profile.runs)]
        users = [self._after(moment(), self._user(pace.random())) for _ in range(self.profile.users)]
        await asyncio.gather(*runs, *users)
        self.calm = True
        while self.containers:
            self._stop_pod(pace)
        self.say("-- calm")
        for index in range(6):
            await asyncio.sleep(1200)
            await self._run(100 + index, pace.random())
        self.check_at_rest()

    async def _after(self, seconds: float, act: Coroutine[Any, Any, None]) -> None:
        try:
            await asyncio.sleep(seconds)
        except BaseException:
            act.close()
            raise
        await act

    def _prepare(self) -> None:
        install_crds(self.kubernetes)
        for namespace in (LEDGER, "team"):
            create_namespace(self.kubernetes, namespace)
        for obj in documented(self.admin_key, HOST):
            apply(self.kubernetes, obj)
            if obj["kind"] in ("Secret", "OpenAI"):
                obj["metadata"]["namespace"] = "team"
                if obj["kind"] == "OpenAI":
                    obj["metadata"]["annotations"] = {
                        "openai-key-rotator.io/secret": "alone",
                        "openai-key-rotator.io/refresh-interval": "20m",
                    }
                apply(self.kubernetes, obj)
        apply(self.kubernetes, self.external_secret())

    def external_secret(self) -> dict[str, Any]:
        """A second target of the documented generator."""
        return {
            "apiVersion": "external-secrets.io/v1",
            "kind": "ExternalSecret",
            "metadata": {"name": "second", "namespace": "default"},
            "spec": {
                "refreshInterval": "30m",
                "dataFrom": [{"sourceRef": {"generatorRef": {"kind": "OpenAI", "name": "openai-generator"}}}],
            },
        }

    async def _run(self, index: int, seed: float) -> None:
        """One run of the worker, which may be killed."""
        chance = random.Random(seed)
        name = f"run{index}"
        options = Options(ledger_namespace=LEDGER, allowed_hosts=frozenset({named_origin(HOST)}))
        options = replace(
            options,
            max_wait=timedelta(minutes=5 if self.calm else chance.choice((0, 5))),
            force=not self.calm and chance.random() < 0.2,
            concurrency=chance.choice((1, 2, 50)),
        )
        task = asyncio.current_task()
        assert task is not None

        async def whole() -> None:
            me = asyncio.current_task()
            assert me is not None
            cluster = api_client(_Watched(self, self.kubernetes, name), _Fates(self, name, me, chance))
            fates = _Fates(self, name, me, chance)
            session = InProcessSession(_Watched(self, self.openai, name), fates)
            world = World(KubernetesApi(cluster, chance), OpenAIAdminApi(session, chance), self, chance)  # type: ignore[arg-type]
            stop = Stop(last_start=self.moment() + 800, deadline=self.moment() + 900)
            watcher = RecordingWatcher()
            report = await run(options, world, stop, watcher)
            for outcome in report.outcomes:
                self.say(f"{name}: {outcome.target} {outcome.result} {outcome.reason}: {outcome.message}")
                if outcome.reason == "InternalError":
                    self.violate(outcome.message)
            for item in report.retired:
                if item.deleted or item.message:
                    self.say(f"{name}: {item.target} retired {item.deleted} {item.reason} {item.message}")

        work = asyncio.get_running_loop().create_task(whole())
        try:
            await work
        except asyncio.CancelledError:
            if task.cancelling():
                work.cancel()
                raise
            self.say(f"{name}: killed")
        except OutOfReach as error:
            self.say(f"{name}: {error.message}")

    # --- users

    async def _user(self, seed: float) -> None:
        chance = random.Random(seed)
        acts: tuple[Callable[[random.Random], str], ...] = (
            self._delete_secret,
            self._edit_label,
            self._request_rotation,
            self._recreate_external_secret,
            self._copy_or_restore,
            self._change_project,
            self._delete_account,
            self._start_pod,
            self._start_pod,
            self._stop_pod,
        )
        act = chance.choice(acts)
        try:
            self.say(f"user: {act(chance)}")
        except SandboxRefused as error:
            self.say(f"user: {error}")

    def _secrets(self) -> list[dict[str, Any]]:
        return [
            secret
            for namespace in ("default", "team")
            for secret in self.kubernetes.objects("secrets", namespace)
            if CURRENT in secret["metadata"].get("annotations", {})
        ]

    def _path(self, secret: dict[str, Any]) -> str:
        return f"/api/v1/namespaces/{secret['metadata']['namespace']}/secrets/{secret['metadata']['name']}"

    def _delete_secret(self, chance: random.Random) -> str:
        secrets = self._secrets()
        if not secrets:
            return "nothing to delete"
        path = self._path(chance.choice(secrets))
        send(self.kubernetes, "DELETE", path)
        return f"deleted {path}"

    def _edit_label(self, chance: random.Random) -> str:
        secrets = self._secrets()
        if not secrets:
            return "nothing to edit"
        path = self._path(chance.choice(secrets))
        send(self.kubernetes, "PATCH", path, {"metadata": {"labels": {"edited": str(self.steps)}}})
        return f"edited {path}"

    def _request_rotation(self, chance: random.Random) -> str:
        path = "/apis/external-secrets.io/v1/namespaces/default/externalsecrets/openai-credentials"
        send(self.kubernetes, "PATCH", path, {"metadata": {"annotations": {"force-sync": str(self.steps)}}})
        return "asked for a rotation"

    def _recreate_external_secret(self, chance: random.Random) -> str:
        send(self.kubernetes, "DELETE", "/apis/external-secrets.io/v1/namespaces/default/externalsecrets/second")
        apply(self.kubernetes, self.external_secret())
        return "recreated the second ExternalSecret"

    def _copy_or_restore(self, chance: random.Random) -> str:
        """GitOps, or a backup: keep a copy of a Secret, or put an old copy back."""
        if self.old_copies and chance.random() < 0.7:
            copy = chance.choice(self.old_copies)
            body = {"data": copy["data"], "metadata": {"annotations": copy["metadata"]["annotations"]}}
            half = chance.choice(("", "", "data", "metadata"))
            body.pop(half, None)
            send(self.kubernetes, "PATCH", self._path(copy), body)
            return f"restored an old copy of {self._path(copy)}{' without its ' + half if half else ''}"
        self.old_copies += [json.loads(json.dumps(secret)) for secret in self._secrets()]
        return "kept copies of the Secrets"

    def _change_project(self, chance: random.Random) -> str:
        path = "/apis/generators.external-secrets.io/v1alpha1/namespaces/default/openais/openai-generator"
        project = chance.choice((PROJECT, OTHER_PROJECT))
        send(self.kubernetes, "PATCH", path, {"spec": {"projectId": project}})
        return f"changed the project to {project}"

    def _delete_account(self, chance: random.Random) -> str:
        accounts = [(project, a) for project in (PROJECT, OTHER_PROJECT) for a in self.openai.accounts(project)]
        if not accounts:
            return "no account to delete"
        project, account = chance.choice(accounts)
        self.openai.delete_account(project, account.id)
        return f"deleted account {account.name} by hand"

    def _start_pod(self, chance: random.Random) -> str:
        """A kubelet starts a container: it reads the Secret, and up to a minute later reports the start."""
        secrets = self._secrets()
        if not secrets:
            return "no Secret to start with"
        secret = chance.choice(secrets)
        name, namespace = f"pod-{self.steps}-{len(self.containers)}", secret["metadata"]["namespace"]
        account = self._carried(secret)
        if account is None:
            return "no key of ours to start with"
        container = {"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": secret["metadata"]["name"]}}]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"nodeName": "n", "containers": [container]},
        }
        apply(self.kubernetes, pod)
        started = self.now() + timedelta(seconds=chance.uniform(0, 60))
        state = {"running": {"startedAt": format_time(started)}}
        status = {"phase": "Running", "containerStatuses": [{"name": "c", "state": state}]}
        send(self.kubernetes, "PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": status})
        self.containers[f"{namespace}/pods/{name}"] = account
        return f"started {namespace}/{name} with the key of {self.made.get(account)}"

    def _carried(self, secret: dict[str, Any]) -> str | None:
        """The id of the account whose key is in a Secret's data, whatever the annotation says."""
        for value in secret["data"].values():
            key = self.openai.key(base64.b64decode(value).decode())
            if key is not None and key.account is not None:
                return key.account
        return None

    def _stop_pod(self, chance: random.Random) -> str:
        if not self.containers:
            return "no pod to stop"
        name = chance.choice(sorted(self.containers))
        del self.containers[name]
        send(self.kubernetes, "DELETE", f"/api/v1/namespaces/{name}?gracePeriodSeconds=0")
        return f"stopped {name}"

    # --- the oracle

    def say(self, text: str) -> None:
        self.trace.append(f"{self.moment():9.1f}  {text}")

    def violate(self, text: str) -> None:
        """Noted, not raised: the worker isolates what a target's work raises."""
        self.say(f"VIOLATION: {text}")
        self.violations.append(text)

    def effect(self, who: str, request: Request, response: Response) -> None:
        """Something was done: what must hold at every moment?"""
        self.steps += 1
        self.requests[request.method] += 1
        self.say(f"{who}: {request.method} {request.path} -> {response.status}")
        if request.method == "GET" or response.status >= 300:
            return
        if "/service_accounts" in request.path and request.method == "POST":
            body = response.json()
            self.made[body["id"]] = body["name"]
        if "/service_accounts/" in request.path and request.method == "DELETE":
            self._check_delete(request.path.rpartition("/")[2])
        self._check_recorded()

    def _check_delete(self, account_id: str) -> None:
        """A worker deleted an account: no Secret may carry its key."""
        for secret in self._secrets():
            if self._carried(secret) == account_id:
                self.violate(f"account {self.made[account_id]} was deleted while {self._path(secret)} carries its key")
        for pod, held in self.containers.items():
            if held == account_id:
                self.violate(f"account {self.made[account_id]} was deleted while {pod} holds its key")

    def _check_recorded(self) -> None:
        """Every live account that a worker made is in the ledger, by name."""
        recorded = self._recorded()
        for project in (PROJECT, OTHER_PROJECT):
            for account in self.openai.accounts(project):
                if account.id in self.made and account.name not in recorded:
                    self.violate(f"account {account.name} exists and is not in the ledger")

    def _recorded(self) -> set[str]:
        entries = self.kubernetes.objects("keyrotations", LEDGER)
        return {name for entry in entries for name in entry["status"].get("accounts", {})}

    def check_at_rest(self) -> None:
        """After fault-free runs: one account per target, its key works, and the ledger says the same."""
        current = {}
        for secret in self._secrets():
            view = secret_view(secret)
            if view.named is None:
                raise Violation(f"{self._path(secret)} names no account")
            current[view.named.id] = view.named.name
            (value,) = secret["data"].values()
            if self.openai.key_status(base64.b64decode(value).decode()) is not KeyStatus.ACTIVE:
                raise Violation(f"{self._path(secret)} carries a dead key")
        if len(current) != 3:
            raise Violation(f"{len(current)} of 3 targets have a key")
        alive = {a.id: a.name for project in (PROJECT, OTHER_PROJECT) for a in self.openai.accounts(project)}
        if alive != current:
            raise Violation(f"at OpenAI: {sorted(alive.values())}, in Secrets: {sorted(current.values())}")
        if self._recorded() != set(current.values()):
            raise Violation(f"in the ledger: {sorted(self._recorded())}, in Secrets: {sorted(current.values())}")


class _Watched:
    """A machine whose effects the oracle sees."""

    def __init__(self, history: History, machine: Machine, who: str) -> None:
        self._history = history
        self._machine = machine
        self._who = who

    def handle(self, request: Request) -> Response:
        response = self._machine.handle(request)
        self._history.effect(self._who, request, response)
        return response


class _Fates:
    """Decides each request's fate, and when its run is killed."""

    def __init__(self, history: History, who: str, run: asyncio.Task[None], chance: random.Random) -> None:
        self._history = history
        self._who = who
        self._run = run
        self._chance = chance

    def fate(self, request: Request) -> Fate:
        history, chance = self._history, self._chance
        if history.calm:
            return delivered()
        if chance.random() < history.profile.kills:
            history.faults["kill"] += 1
            delay = chance.choice((0.0, 0.0, 0.5))
            asyncio.get_running_loop().call_later(delay, self._run.cancel)
        if chance.random() >= history.profile.faults:
            return delivered(chance.uniform(0, 0.3), chance.uniform(0, 0.3))
        kinds: dict[str, Callable[[], Fate]] = {
            "request lost": lambda: request_lost(disconnected=chance.random() < 0.5),
            "response lost": lambda: response_lost(disconnected=chance.random() < 0.5),
            "late": lambda: committed_late(chance.uniform(1, 14), disconnected=chance.random() < 0.5),
            "slow": lambda: delivered(chance.uniform(0, 12), chance.uniform(0, 12)),
            "502 before": bad_gateway,
            "429": lambda: too_many_requests(chance.choice((1, 5, None))),
            "html": lambda: answered(Response(200, {"Content-Type": "text/html"}, b"<html>busy</html>")),
        }
        kind = chance.choice(sorted(kinds))
        history.faults[kind] += 1
        history.say(f"{self._who}: {kind}: {request.method} {request.path}")
        return kinds[kind]()
