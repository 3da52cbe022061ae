"""Many targets on the real API server with an OpenAI of their own, workers as processes, and an oracle that watches.

Guarantees: all requests of the workers pass the gate and the witness; the oracle looks past both, through the API
server itself and OpenAI's own records, all the time and in an order that makes its findings certain; no worker
outlives its fleet.
"""

from __future__ import annotations

import random
import secrets
import signal
import subprocess
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sandbox.http_server import Locked, ServerThread, serving, write_kubeconfig
from sandbox.openai.server import OpenAI
from sandbox.openai.state import KeyStatus
from sandbox.transport.faults import Faults, NoFaults
from tests.cluster.endpoint import Endpoint, call
from tests.cluster.relay import LATEST, Gate, Heard, Trap, relaying
from tests.cluster.rig import PREFIX, Run, command
from tests.cluster.witness import Witness
from tests.support.canary import leaks
from worker.kubernetes.secret import CURRENT, secret_view
from worker.ledger.codec import decode_entry
from worker.ledger.transitions import CLAIM, LISTS_APART
from worker.model.entries import Entry

MERGE_PATCH = "application/merge-patch+json"
PROJECTS = ("project-a", "project-b")
PATIENCE = 500
"""Seconds until a worker that should end by itself is taken to hang."""
CALM_RUNS = 4
"""The most that it takes until only one account per target is left."""
SETTLED = timedelta(seconds=2)
"""Added to times of the ledger, which are whole seconds."""


BUSY = threading.BoundedSemaphore(4)
"""So many fleets have something to do at once; the others wait for their turn, or for their claims."""


class Worker:
    """A process of `python run.py`; what it prints goes to files, so that it never waits for a reader."""

    def __init__(self, fleet: Fleet, *arguments: str) -> None:
        self._place = fleet.directory / f"worker-{secrets.token_hex(4)}"
        program, environment = command(arguments, fleet.variables)
        with self._place.with_suffix(".out").open("w") as out, self._place.with_suffix(".err").open("w") as err:
            self._process = subprocess.Popen(
                program, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True
            )

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def tell(self, number: signal.Signals) -> bool:
        """Send a signal; whether it lived to hear it."""
        lives = self.lives
        self._process.send_signal(number)
        return lives

    def stop(self) -> None:
        """SIGSTOP, and wait until it has stopped."""
        self.tell(signal.SIGSTOP)
        stat = Path(f"/proc/{self._process.pid}/stat")
        while self.lives and stat.read_text().rpartition(")")[2].split()[0] not in "Tt":
            time.sleep(0.01)

    def ended(self) -> Run:
        """Wait for its end; what it said."""
        self._process.wait(timeout=PATIENCE)
        return Run(
            self._process.returncode,
            self._place.with_suffix(".out").read_text(),
            self._place.with_suffix(".err").read_text(),
        )

    def bury(self) -> None:
        """End it, whatever state it is in."""
        self._process.kill()
        self._process.wait()


class Fleet:
    """Targets in some namespaces, and a ledger. Made by `fleet`."""

    def __init__(self, name: str, seed: int, endpoint: Endpoint, directory: Path) -> None:
        self.name = name
        self.seed = seed
        self.chance = random.Random(seed)
        self.endpoint = endpoint
        self.directory = directory / f"{name}-{secrets.token_hex(4)}"
        self.directory.mkdir()
        self.ledger = f"ledger-{secrets.token_hex(4)}"
        self.namespaces: list[str] = []
        self.targets: set[str] = set()
        self.gate = Gate(NoFaults())
        self.witness = Witness()
        self.openai = OpenAI(lambda: datetime.now(UTC), random.Random(seed))
        self.admin_key = self.openai.add_organization("acme")
        for project in PROJECTS:
            self.openai.add_project("acme", project)
        self.variables: dict[str, str] = {}
        self.workers: list[Worker] = []
        self.kills = 0
        self.killed_keys: set[str] = set()
        """Values of keys that somebody has deleted at OpenAI."""
        self.looks = 0
        self._lock = threading.RLock()
        self._enough = threading.Event()
        self._idle = True

    # --- setting up

    def servers(self) -> ServerThread:
        """The relay to the API server, and OpenAI."""
        openai = Heard(Locked(self.openai, self._lock), self.witness.hear_openai)
        return ServerThread(
            relaying(self.endpoint, self.gate, self.witness.hear_kubernetes), serving(openai, self.gate)
        )

    def prepare(self, kubernetes_url: str, openai_url: str, *, namespaces: int, generators: int, fed: int) -> None:
        """Make all objects: each generator feeds a Secret by itself, and `fed` ExternalSecrets."""
        kubeconfig = write_kubeconfig(self.directory / "kubeconfig", kubernetes_url)
        self.namespaces = [f"team-{secrets.token_hex(4)}" for _ in range(namespaces)]
        self.variables = {
            "KUBECONFIG": str(kubeconfig),
            "ROTATOR_ALLOW_HOST": openai_url,
            "ROTATOR_LEDGER_NAMESPACE": self.ledger,
            "ROTATOR_NAMESPACE": ",".join(self.namespaces),
            "HOME": str(self.directory),
        }
        for name in (self.ledger, *self.namespaces):
            self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        for namespace in self.namespaces:
            admin = {"metadata": {"name": "admin"}, "stringData": {"api-key": self.admin_key}}
            self.call("POST", f"/api/v1/namespaces/{namespace}/secrets", admin)
            for i in range(generators):
                generator = _generator(f"generator-{i}", PROJECTS[i % len(PROJECTS)], openai_url)
                self.call("POST", f"{_generators(namespace)}", generator)
                self.targets.add(f"{namespace}.alone-{i}")
                for j in range(fed):
                    source = _external_secret(f"fed-{i}-{j}", f"generator-{i}")
                    path = f"/apis/external-secrets.io/v1/namespaces/{namespace}/externalsecrets"
                    self.call("POST", path, source)
                    self.targets.add(f"{namespace}.fed-{i}-{j}")

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Ask the API server itself, past the relay."""
        kind = MERGE_PATCH if method == "PATCH" else "application/json"
        for _ in range(30):
            status, answer = call(self.endpoint, method, path, body, content_type=kind)
            if status != 429:
                break
            time.sleep(1)  # another test has just installed the CRD again: it is not served for a moment
        assert status < 300, f"{method} {path}: {status}"
        return answer

    # --- what happens to it

    def due(self) -> None:
        """A new due date for every target: a rotation is asked for at its generator."""
        self.witness.due += 1
        value = {"metadata": {"annotations": {PREFIX + "rotate": str(self.witness.due)}}}
        for namespace in self.namespaces:
            for generator in self.call("GET", _generators(namespace))["items"]:
                self.call("PATCH", f"{_generators(namespace)}/{generator['metadata']['name']}", value)

    def delete_a_key(self) -> None:
        """Somebody deletes the key of a Secret at OpenAI, and leaves its account."""
        stored = self.secrets()
        if not stored:
            return
        secret = stored[self.chance.choice(sorted(stored))]
        (value,) = (b64decode(one).decode() for one in secret["data"].values())
        with self._lock:
            key = self.openai.key(value)
            if key is not None and key.status is KeyStatus.ACTIVE:
                self.killed_keys.add(value)
                self.openai.delete_key(key.project, key.id)

    def start(self, *arguments: str) -> Worker:
        worker = Worker(self, *arguments)
        self.workers.append(worker)
        return worker

    def run(self, *arguments: str) -> Run:
        """One run, to its end."""
        return self.start(*arguments).ended()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Have something to do."""
        with BUSY:
            self._idle = False
            try:
                yield
            finally:
                self._idle = True

    def trap(self, trap: Trap) -> Trap:
        self.gate.trap = trap
        return trap

    @contextmanager
    def weather(self, faults: Faults) -> Iterator[None]:
        self.gate.weather = faults
        try:
            yield
        finally:
            self.gate.weather = NoFaults()

    # --- looking at it, from outside

    def entries(self) -> dict[str, Entry]:
        path = f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{self.ledger}/keyrotations"
        return {item["metadata"]["name"]: decode_entry(item) for item in self.call("GET", path)["items"]}

    def secrets(self) -> dict[str, dict[str, Any]]:
        """Every target Secret that exists."""
        found = {}
        for namespace in self.namespaces:
            for item in self.call("GET", f"/api/v1/namespaces/{namespace}/secrets")["items"]:
                target = f"{namespace}.{item['metadata']['name']}"
                if target in self.targets:
                    found[target] = item
        return found

    def alive(self) -> dict[str, str]:
        """Name of every account that exists at OpenAI, by its id."""
        with self._lock:
            return {account.id: account.name for project in PROJECTS for account in self.openai.accounts(project)}

    def claimed_until(self) -> datetime | None:
        """The end of the last claim that is in the ledger."""
        ends = [intent.claimed_until for entry in self.entries().values() for intent in entry.unpublished]
        return max(ends, default=None)

    def sleep_until_claims_end(self) -> None:
        ends = self.claimed_until()
        if ends is not None:
            sleep_until(ends + SETTLED)

    def sleep_until_accounts_may_go(self) -> None:
        """All accounts of now: none goes before all that its request may have made has appeared."""
        sleep_until(datetime.now(UTC) + CLAIM + SETTLED)

    def look(self) -> None:
        """What must hold at every moment. OpenAI is read before the ledger, and a suspicion is looked at again: an
        account that lived before and after the ledger was read without it is an orphan, and a Secret that carries a
        key which was dead before the Secret was read carries a dead key.
        """
        self.looks += 1
        before = self.alive()
        entries = self.entries().values()
        recorded = {publication.account.name for entry in entries for publication in entry.history}
        recorded |= {intent.account.name for entry in entries for intent in entry.unpublished}
        suspects = {id for id, name in before.items() if name not in recorded}
        self._violate(
            [f"account {before[id]} exists and is in no KeyRotation" for id in suspects & self.alive().keys()]
        )
        dead = {target for target, secret in self.secrets().items() if self._is_dead(secret)}
        if dead:
            values = {target: secret["data"] for target, secret in self.secrets().items()}
            again = {target for target in dead if self._is_dead({"data": values[target]})}
            third = self.secrets()
            sure = [target for target in again if third[target]["data"] == values[target]]
            self._violate([f"Secret {target} carries a dead key" for target in sure])

    def _status(self, secret: dict[str, Any]) -> KeyStatus:
        (value,) = secret["data"].values()
        with self._lock:
            return self.openai.key_status(b64decode(value).decode())

    def _is_dead(self, secret: dict[str, Any]) -> bool:
        """Does it carry a dead key, and nobody but a worker can have killed it?"""
        (value,) = secret["data"].values()
        return b64decode(value).decode() not in self.killed_keys and self._status(secret) is not KeyStatus.ACTIVE

    def _violate(self, words: list[str]) -> None:
        self.witness.violations += [text for text in words if text not in self.witness.violations]

    def keep_looking(self) -> None:
        while not self._enough.wait(5 if self._idle else 0.5):
            self.look()

    @contextmanager
    def watched(self) -> Iterator[None]:
        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(self.keep_looking)
            try:
                yield
            finally:
                self._enough.set()
            looking.result()

    def check(self) -> None:
        """Nothing that must never happen has happened so far."""
        self.look()
        assert self.witness.violations == [], f"{self}: {self.witness.violations}"

    def __str__(self) -> str:
        return f"fleet {self.name!r}, seed {self.seed}"

    # --- at rest

    def settle(self) -> None:
        """Calm runs: past the last claim, then once more for the second of the two lists that let an intent go."""
        self.gate.trap, self.gate.weather = None, NoFaults()
        time.sleep(LATEST + 1)  # what dead workers have sent is in the ledger now
        self.sleep_until_claims_end()
        with self.busy():
            if any(entry.failures.count for entry in self.entries().values()):
                self.due()  # else what failed is put off
            self.run("--max-wait", "5s")
        sleep_until(datetime.now(UTC) + LISTS_APART + SETTLED)
        for _ in range(CALM_RUNS):
            last = self.run("--max-wait", "5m")  # it waits for the first that may go of each target, and once
            assert last.code == 0, f"{self}: {last.output}"
            if all(len(entry.history) == 1 and not entry.unpublished for entry in self.entries().values()):
                break
        self.check()
        self.check_at_rest()

    def check_at_rest(self) -> None:
        """One account per target, made for the last due date; its key works, and the ledger says the same."""
        stored = self.secrets()
        assert stored.keys() == self.targets, str(self)
        named = {}
        for target, secret in stored.items():
            view = secret_view(secret)
            assert view.named is not None, f"{self}: {target}"
            assert CURRENT in view.annotations, f"{self}: {target}"
            assert self._status(secret) is KeyStatus.ACTIVE, f"{self}: {target}"
            named[target] = view.named
        assert self.alive() == {account.id: account.name for account in named.values()}, str(self)
        for target, entry in self.entries().items():
            assert entry.unpublished == (), f"{self}: {entry}"
            (publication,) = entry.history
            assert (publication.account.id, publication.account.name) == (named[target].id, named[target].name)
            assert self.witness.recorded[publication.account.name] == (target, self.witness.due), str(self)
        for namespace in self.namespaces:
            for path in (
                f"/api/v1/namespaces/{namespace}/events",
                f"/apis/external-secrets.io/v1/namespaces/{namespace}/externalsecrets",
            ):
                assert not leaks(str(self.call("GET", path))), f"{self}: a key is in {path}"

    def tally(self) -> dict[str, int]:
        return {
            "targets": len(self.targets),
            "due dates": self.witness.due,
            "runs": len(self.workers),
            "kills": self.kills,
            "keys deleted by hand": len(self.killed_keys),
            "accounts made": len(self.witness.made),
            "rotations": sum(map(len, self.witness.published.values())),
            "accounts deleted": len(self.witness.deleted),
            "looks": self.looks,
            "violations": len(self.witness.violations),
        }


@contextmanager
def fleet(
    name: str,
    seed: int,
    endpoint: Endpoint,
    directory: Path,
    *,
    namespaces: int = 1,
    generators: int = 2,
    fed: int = 2,
) -> Iterator[Fleet]:
    """A fleet, every target of which has its first key already, watched while the context lasts."""
    made = Fleet(name, seed, endpoint, directory)
    with made.servers() as server:
        kubernetes_url, openai_url = server.urls
        try:
            with made.busy():
                made.prepare(kubernetes_url, openai_url + "/v1", namespaces=namespaces, generators=generators, fed=fed)
            with made.watched():
                with made.busy():
                    first = made.run()
                assert first.code == 0, first.output
                assert made.secrets().keys() == made.targets
                yield made
        finally:
            for worker in made.workers:
                worker.bury()
            for namespace in (made.ledger, *made.namespaces):
                made.call("DELETE", f"/api/v1/namespaces/{namespace}")


def sleep_until(moment: datetime) -> None:
    time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


def _generators(namespace: str) -> str:
    return f"/apis/generators.external-secrets.io/v1alpha1/namespaces/{namespace}/openais"


def _generator(name: str, project: str, host: str) -> dict[str, Any]:
    return {
        "apiVersion": "generators.external-secrets.io/v1alpha1",
        "kind": "OpenAI",
        "metadata": {"name": name, "annotations": {PREFIX + "secret": name.replace("generator", "alone")}},
        "spec": {
            "projectId": project,
            "host": host,
            "openAiAdminKey": {"name": "admin", "key": "api-key"},
            "cleanupPolicy": {"type": "retainLatest", "gracePeriod": "1s"},
        },
    }


def _external_secret(name: str, generator: str) -> dict[str, Any]:
    reference = {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI", "name": generator}
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": name},
        "spec": {"refreshInterval": "1h", "dataFrom": [{"sourceRef": {"generatorRef": reference}}]},
    }
