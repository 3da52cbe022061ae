"""A cluster and an OpenAI in this process, under virtual time, and whole runs of the real worker against them."""

from __future__ import annotations

import asyncio
import base64
import copy
import functools
import json
import random
import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import yaml

from sandbox.kubernetes.resources import BUILT_IN
from sandbox.kubernetes.server import Kubernetes
from sandbox.kubernetes.setup import create_namespace, install_crds, send, set_node
from sandbox.openai.server import OpenAI
from sandbox.openai.state import CANARY, KeyStatus
from sandbox.transport.faults import Fate, Faults, delivered, response_lost
from sandbox.transport.in_process import InProcessSession
from sandbox.transport.wire import Request
from tests.support.clients import rest_client
from tests.support.virtual_time import run_virtually
from worker.commands.adopt.command import adopt
from worker.commands.adopt.judge import Adopted
from worker.commands.audit.command import audit
from worker.commands.audit.report import Audit
from worker.commands.revoke.command import plan, revoke
from worker.commands.revoke.plan import Plan, Revoked
from worker.commands.run import run
from worker.commands.session import World
from worker.kubernetes.client import KubernetesApi
from worker.kubernetes.secret import CURRENT
from worker.ledger.codec import decode_entry
from worker.model.entries import Entry
from worker.model.hosts import named_origin
from worker.model.names import entry_name
from worker.model.outcomes import AdminKeyOutcome, Outcome, Report, RestartOutcome, RetireOutcome
from worker.model.values import Ref
from worker.openai.client import OpenAIAdminApi
from worker.runtime.stop import Stop
from worker.settings.options import AdoptRequest, AuditRequest, Options

T = TypeVar("T")

EPOCH = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
LEDGER = "openai-key-rotator"
HOST = "https://openai.test/v1"
PROJECT = "my-openai-project-id"
ROOT = Path(__file__).parents[2]
DOCUMENTED = ROOT / "tests" / "data" / "documented-objects.yaml"
TARGET = Ref("default", "openai-credentials")


@dataclass
class RecordingWatcher:
    """Keeps what a run told while it went on."""

    outcomes: list[Outcome] = field(default_factory=list)
    retirements: list[RetireOutcome] = field(default_factory=list)
    restarts: list[RestartOutcome] = field(default_factory=list)
    admin_keys: list[AdminKeyOutcome] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unused: list[Ref] = field(default_factory=list)
    waits: list[datetime] = field(default_factory=list)

    def found(self, targets: int, unused: Collection[Ref]) -> None:
        self.unused += unused

    def served(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def waiting(self, targets: int, until: datetime) -> None:
        self.waits.append(until)

    def retired(self, retired: RetireOutcome) -> None:
        self.retirements.append(retired)

    def restarted(self, restarted: RestartOutcome) -> None:
        self.restarts.append(restarted)

    def admin_key(self, outcome: AdminKeyOutcome) -> None:
        self.admin_keys.append(outcome)

    def not_announced(self, target: Ref, problem: str) -> None:
        self.problems.append(problem)


Command: TypeAlias = Callable[[Options, World, Stop, RecordingWatcher], Awaitable[T]]


async def run_command(options: Options, world: World, stop: Stop, watcher: RecordingWatcher) -> Report:
    """`run`, as a Command."""
    return await run(options, world, stop, watcher=watcher)


@dataclass
class Meanwhile:
    """Faults: does something right before a request that matches wholly is served, and then lets it through."""

    action: Callable[[], object]
    method: str
    path: str
    count: int = 1
    skip: int = 0

    def fate(self, request: Request) -> Fate:
        if re.fullmatch(self.method, request.method) and re.fullmatch(self.path, request.path):
            if self.skip:
                self.skip -= 1
            elif self.count:
                self.count -= 1
                self.action()
        return delivered()


class SceneClock:
    """Virtual time: the scene's between runs, the running loop's within one. `skew`: this machine's error."""

    def __init__(self, scene: Scene, skew: timedelta = timedelta(0)) -> None:
        self._scene = scene
        self._skew = skew

    def now(self) -> datetime:
        return self._scene.now() + self._skew

    def monotonic(self) -> float:
        return self._scene.moment()


@dataclass
class Killer:
    """Kills a command at its request of this number, counted from 0: before it is sent, or after it was served."""

    number: int
    after: bool
    work: asyncio.Future[Any] | None = None
    sent: int = 0

    def fate(self, request: Request) -> Fate:
        assert self.work is not None
        self.sent += 1
        if self.sent <= self.number:
            return delivered()
        if self.sent == self.number + 1 and self.after:
            asyncio.get_running_loop().call_later(0.1, self.work.cancel)
            return response_lost()
        self.work.cancel()
        raise asyncio.CancelledError


class Scene:
    """Documented objects may be applied with `apply_documented`; `run` is a whole run of the worker."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.seconds = 0.0
        self._running = False
        self.kubernetes = Kubernetes(self.now, self.random)
        self.openai = OpenAI(self.now, self.random)
        self.admin_key = self.openai.add_organization("acme")
        self.openai.add_project("acme", PROJECT)
        install_crds(self.kubernetes)
        create_namespace(self.kubernetes, LEDGER)
        self.set_node("node-1", since=self.now() - timedelta(days=1))
        self.watcher = RecordingWatcher()
        self.watchers: list[RecordingWatcher] = []
        self.cluster_session: InProcessSession | None = None
        self.openai_session: InProcessSession | None = None
        self.said: list[str] = []
        """What `revoke` has told while it waited."""

    # --- time

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.moment())

    def moment(self) -> float:
        if self._running:
            return asyncio.get_running_loop().time()
        return self.seconds

    def advance(self, **duration: float) -> None:
        self.seconds += timedelta(**duration).total_seconds()

    # --- the worker

    def run(self, **options: Any) -> Report:
        """One run of the worker; its report. The sessions that it used keep their logs of requests.

        `options`: the worker's, and `cluster_faults`, `openai_faults`, `skew` (this machine's clock), `deadline`
        (seconds), `stop_after` (seconds until SIGTERM).
        """
        return self.play(run_command, **options)

    def adopt(self, *targets: Ref, yes: bool = False, accounts: tuple[str, ...] = (), **options: Any) -> Adopted:
        """`openai-key-rotator adopt`; with the same options as a run."""
        wanted = AdoptRequest(targets, accounts, yes)
        return self.play(lambda asked, world, stop, _: adopt(asked, wanted, world, stop=stop), **options)

    def audit(self, *, unused: timedelta = timedelta(days=30), since: timedelta | None = None, **options: Any) -> Audit:
        """`openai-key-rotator audit`; with the same options as a run."""
        wanted = AuditRequest(unused, since)
        return self.play(lambda asked, world, stop, _: audit(asked, wanted, world, stop=stop), **options)

    def plan(self, target: Ref = TARGET, *, without_successor: bool = False, **options: Any) -> Plan:
        """What `openai-key-rotator revoke` shows before it asks."""

        async def command(asked: Options, world: World, stop: Stop, _: RecordingWatcher) -> Plan:
            return await plan(asked, target, world, stop=stop, without_successor=without_successor)

        return self.play(command, **options)

    def revoke(self, target: Ref = TARGET, **options: Any) -> Revoked:
        """`openai-key-rotator revoke --yes`."""
        return self._play(self._revocation(target, **options))

    def revoke_killed(self, killer: Killer) -> bool:
        """The same, killed at one of its requests; False: it has made fewer, and was not."""
        return self._killed(killer, lambda: self._revocation(cluster_faults=killer, openai_faults=killer))

    def run_killed(self, killer: Killer) -> bool:
        """A run, killed at one of its requests to OpenAI."""
        return self._killed(killer, lambda: self.whole(run_command, openai_faults=killer))

    def killed(self, killer: Killer, command: Command[Any], **options: Any) -> bool:
        """Any command, killed at one of all its requests; False: it has made fewer, and was not."""
        return self._killed(killer, lambda: self.whole(command, cluster_faults=killer, openai_faults=killer, **options))

    def _killed(self, killer: Killer, command: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        async def until_killed() -> bool:
            killer.work = asyncio.ensure_future(command())
            await asyncio.wait({killer.work})
            await asyncio.sleep(1)
            return killer.work.cancelled()

        return self._play(until_killed())

    async def _revocation(self, target: Ref = TARGET, *, without_successor: bool = False, **options: Any) -> Revoked:
        async def command(asked: Options, world: World, stop: Stop, _: RecordingWatcher) -> Revoked:
            return await revoke(
                asked, target, world, stop=stop, say=self.said.append, without_successor=without_successor
            )

        return await self.whole(command, **options)

    def run_together(self, *runs: dict[str, Any], apart: float = 0.0) -> list[Report]:
        """Several runs at once, so many seconds apart; `watchers[-len(runs):]` are theirs."""

        async def later(seconds: float, options: dict[str, Any]) -> Report:
            await asyncio.sleep(seconds)
            return await self.whole(run_command, **options)

        async def all_of_them() -> list[Report]:
            return list(await asyncio.gather(*(later(i * apart, options) for i, options in enumerate(runs))))

        return self._play(all_of_them())

    def play(self, command: Command[T], **options: Any) -> T:
        """Any command, from now on; with the same options as a run."""
        return self._play(self.whole(command, **options))

    async def whole(
        self,
        command: Command[T],
        *,
        cluster_faults: Faults | None = None,
        openai_faults: Faults | None = None,
        skew: timedelta = timedelta(0),
        deadline: float = 900,
        stop_after: float | None = None,
        **options: Any,
    ) -> T:
        """A command from its connections on, within a loop that runs; the same options as a run."""
        asked = replace(
            Options(
                ledger_namespace=LEDGER, allowed_hosts=frozenset({named_origin(HOST)}), fallback_host=named_origin(HOST)
            ),
            **options,
        )
        self.watcher = watcher = RecordingWatcher()
        self.watchers.append(watcher)
        client = rest_client(self.kubernetes, cluster_faults)
        self.cluster_session = cast(InProcessSession, client.rest_client.pool_manager)
        self.openai_session = InProcessSession(self.openai, openai_faults)
        world = World(
            KubernetesApi(client, self.random),
            OpenAIAdminApi(self.openai_session, self.random),  # type: ignore[arg-type]
            SceneClock(self, skew),
            self.random,
        )
        stop = Stop.within(deadline)
        if stop_after is not None:
            asyncio.get_running_loop().call_later(stop_after, stop.ask)
        try:
            return await command(asked, world, stop, watcher)
        finally:
            await client.close()

    def _play(self, coroutine: Coroutine[Any, Any, T]) -> T:
        self._running = True
        try:
            result, self.seconds = run_virtually(coroutine, self.seconds)
        finally:
            self._running = False
        return result

    def requests(self) -> list[str]:
        """What sort of requests the last run made: Kubernetes, then OpenAI."""
        sessions = [session for session in (self.cluster_session, self.openai_session) if session is not None]
        return [exchange.kind for session in sessions for exchange in session.log]

    def outcome(self, target: Ref = TARGET) -> Outcome:
        """What the last run did for a target."""
        return next(outcome for outcome in self.watcher.outcomes if outcome.target == target)

    def retired(self, target: Ref = TARGET) -> RetireOutcome | None:
        """What the last run said of a target's other accounts."""
        return next((item for item in self.watcher.retirements if item.target == target), None)

    # --- the cluster

    def merge(self, path: str, patch: object) -> Any:
        return send(self.kubernetes, "PATCH", path, body=patch)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create objects."""
        for obj in objects:
            send(self.kubernetes, "POST", self.kubernetes.path_of(obj).rpartition("/")[0], body=obj)

    def delete(self, path: str) -> None:
        send(self.kubernetes, "DELETE", path)

    def set_node(self, name: str, *, ready: bool = True, since: datetime | None = None) -> None:
        """The node is as told since then, or since now."""
        set_node(self.kubernetes, name, ready=ready, since=since or self.now())

    def namespace(self, name: str) -> None:
        create_namespace(self.kubernetes, name)

    def apply_documented(self, namespace: str = "default", **generator_spec: object) -> None:
        """The documentation's objects, verbatim but for host and admin key."""
        for obj in documented(self.admin_key, HOST):
            obj["metadata"]["namespace"] = namespace
            if obj["kind"] == "OpenAI":
                obj["spec"].update(generator_spec)
            self.apply(obj)

    def secret(self, ref: Ref = TARGET) -> dict[str, Any] | None:
        found = self.kubernetes.find("secrets", ref.namespace, ref.name)
        return dict(found) if found is not None else None

    def key(self, ref: Ref = TARGET, data_key: str = "api_key") -> str:
        """The API key in a target Secret."""
        secret = self.secret(ref)
        assert secret is not None
        return base64.b64decode(secret["data"][data_key]).decode()

    def named(self, ref: Ref = TARGET) -> dict[str, Any]:
        """What the Secret's annotation says."""
        secret = self.secret(ref)
        assert secret is not None
        annotation: dict[str, Any] = json.loads(secret["metadata"]["annotations"][CURRENT])
        return annotation

    def external_secret(self, ref: Ref = TARGET) -> dict[str, Any]:
        found = self.kubernetes.find("externalsecrets", ref.namespace, ref.name)
        assert found is not None
        return dict(found)

    def condition(self, ref: Ref = TARGET) -> dict[str, Any]:
        """The Ready condition of an ExternalSecret."""
        conditions = self.external_secret(ref)["status"]["conditions"]
        return next(dict(c) for c in conditions if c["type"] == "Ready")

    def entry(self, ref: Ref = TARGET) -> Entry | None:
        found = self.kubernetes.find("keyrotations", LEDGER, entry_name(ref))
        return decode_entry(found) if found is not None else None

    def stored_entry(self, ref: Ref = TARGET) -> Entry:
        entry = self.entry(ref)
        assert entry is not None
        return entry

    def events(self, namespace: str = "default") -> list[tuple[str, str]]:
        """Type and reason of every Event, in the order of their times."""
        events = sorted(self.kubernetes.objects("events", namespace), key=lambda event: event["lastTimestamp"])
        return [(event["type"], event["reason"]) for event in events]

    def accounts(self, project: str = PROJECT) -> list[str]:
        """Names of the accounts that exist at OpenAI."""
        return [account.name for account in self.openai.accounts(project)]

    def live_key(self, ref: Ref = TARGET, data_key: str = "api_key") -> bool:
        """Does the Secret hold a key that OpenAI accepts, of the account that its annotation names?"""
        record = self.openai.key(self.key(ref, data_key))
        return record is not None and record.status is KeyStatus.ACTIVE and record.account == self.named(ref)["id"]

    def account_ids(self, project: str = PROJECT) -> set[str]:
        """Ids of the accounts that exist at OpenAI."""
        return {account.id for account in self.openai.accounts(project)}

    def assert_nothing_shown(self) -> None:
        """No key is anywhere but in Secrets: not in other objects, outcomes or messages."""
        served = {resource.plural for resource in BUILT_IN}
        served |= {crd["spec"]["names"]["plural"] for crd in self.kubernetes.objects("customresourcedefinitions")}
        shown = [json.dumps(dict(item)) for plural in served - {"secrets"} for item in self.kubernetes.objects(plural)]
        shown += [repr(watcher) for watcher in self.watchers]
        shown += [
            json.dumps(secret["metadata"]) for secret in self.kubernetes.objects("secrets") if "metadata" in secret
        ]
        assert [text for text in shown if CANARY in text] == []


def checked_scene() -> Iterator[Scene]:
    """For `scene = pytest.fixture(checked_scene)`: after the test no key may show anywhere."""
    scene = Scene()
    yield scene
    scene.assert_nothing_shown()


def documented(admin_key: str, host: str) -> list[dict[str, Any]]:
    """The documentation's objects with another host and admin key."""
    objects = copy.deepcopy(_documented())
    for obj in objects:
        if obj["kind"] == "Secret":
            obj["stringData"]["api-key"] = admin_key
        if obj["kind"] == "OpenAI":
            obj["spec"]["host"] = host
    return objects


@functools.cache
def _documented() -> list[dict[str, Any]]:
    return [obj for obj in yaml.safe_load_all(DOCUMENTED.read_text()) if obj]
