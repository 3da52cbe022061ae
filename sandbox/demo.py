"""`make demo`: the real worker against the sandbox, several runs while a clock moves on, told as a timeline.

Guarantees:
- The demo prints the worker's own output as it comes.
- The two APIs supply each statement about keys, accounts and Secrets.
- The demo contacts no process but its own, and leaves none running.
"""

from __future__ import annotations

import base64
import json
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sandbox.http_server import SandboxServer
from sandbox.kubernetes.server import Kubernetes
from sandbox.kubernetes.setup import apply, create_namespace, install_crds, send, set_node
from sandbox.openai.server import OpenAI
from sandbox.openai.state import KeyStatus
from sandbox.transport.faults import Rule, Rules, response_lost
from worker.cli import main as worker

PROJECT = "my-openai-project-id"
DOCUMENTED = Path(__file__).parent.parent / "manifests" / "examples" / "documented.yaml"
CURRENT = "openai-key-rotator.io/service-account"
RESTART, RESTARTED = "openai-key-rotator.io/restart", "deployment/search"
GENERATORS = "/apis/generators.external-secrets.io/v1alpha1/namespaces"
WORKLOADS = "/apis/apps/v1/namespaces"

MORE = """
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: chat-openai, namespace: team-a}
spec:
  refreshInterval: 15m
  target: {name: chat-key}
  dataFrom:
    - sourceRef: {generatorRef: {kind: OpenAI, name: openai-generator}}
      rewrite: [{regexp: {source: api_key, target: OPENAI_API_KEY}}]
---
apiVersion: generators.external-secrets.io/v1alpha1
kind: OpenAI
metadata:
  name: search
  namespace: team-b
  annotations:
    openai-key-rotator.io/secret: search-openai      # no ExternalSecret needed
    openai-key-rotator.io/refresh-interval: 30m
    openai-key-rotator.io/key-scopes: model.request   # less reach
spec: {projectId: %(project)s, host: "%(host)s", openAiAdminKey: {name: openai-admin-secret, key: api-key}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: search, namespace: team-b}
spec:
  replicas: 1
  selector: {matchLabels: {app: search}}
  template:
    metadata: {labels: {app: search}}
    spec:
      containers:
        - name: app
          image: search
          env: [{name: OPENAI_API_KEY, valueFrom: {secretKeyRef: {name: search-openai, key: api_key}}}]
---
apiVersion: generators.external-secrets.io/v1alpha1
kind: OpenAI
metadata:
  name: typo
  namespace: team-b
  annotations: {openai-key-rotator.io/secret: typo-openai}
spec:
  projectId: %(project)s
  host: https://api.openai.com@evil.example/v1
  openAiAdminKey: {name: openai-admin-secret, key: api-key}
"""


class DemoClock:
    """The demo's time of day: it stands still but for `advance`."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def advance(self, minutes: int) -> None:
        self.moment += timedelta(minutes=minutes)


@dataclass
class Demo:
    server: SandboxServer
    clock: DemoClock
    admin_key: str
    faults: Rules
    chance: random.Random
    history: dict[str, list[str]] = field(default_factory=dict)
    """The fate of each account, one mark for each shown moment."""
    moments: list[str] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)

    # --- the story

    def play(self) -> None:
        self.prepare()
        print("The real worker, OpenAI's and Kubernetes' APIs embedded in this process, and a clock that jumps.")
        print("Each run has three more options: --allow-host (of the sandbox), --output table and --concurrency 1.")
        say("The documentation's objects in namespace default, two more teams, and one generator with a bad host.")
        say("team-b asks for less reach: its key is narrowed to `model.request` before its Secret sees it.")
        self.run("the first run: every Secret gets an account of its own, with a key that works")
        self.show_scopes()
        self.start_container("search-1")
        say("In team-b a container starts and takes the key from its environment, as the documented Deployment does.")
        self.later(5)
        self.run("nothing is due, so nothing is written")
        self.later(10)
        self.run("team-a asked for 15 minutes: new key first, the old one stays for its grace of 2 minutes")
        self.later(5)
        self.run("the grace is over: the old account is deleted")
        self.later(10)
        say("Now OpenAI's answer to one create gets lost on the way. Did it happen? Nobody knows.")
        self.faults.rules = [Rule(response_lost(disconnected=True), method="POST", count=1)]
        self.run("the app keeps its key; the account that may exist is in the ledger, by name")
        self.later(5)
        self.run("found by its name and deleted, and the rotation made up for")
        self.later(3)
        say("Somebody deletes a Secret, and team-a removes its ExternalSecret.")
        self.delete("/api/v1/namespaces/default/secrets/openai-credentials")
        self.delete("/apis/external-secrets.io/v1/namespaces/team-a/externalsecrets/chat-openai")
        self.run(
            "the deleted Secret is back; what nobody asks for goes after its grace; team-b's old key is still held"
        )
        self.later(3)
        say("kubectl rollout restart in team-b: a new container replaces the holder.")
        self.stop_container("search-1")
        self.start_container("search-2")
        self.later(2)
        self.run("the old container is gone; so is the account that it held")
        say(f"Nobody wants to do that each time: team-b annotates its generator, {RESTART}: {RESTARTED}.")
        self.annotate(f"{GENERATORS}/team-b/openais/search", RESTART, RESTARTED)
        self.later(22)
        self.run("rotated, and restarted: the worker has stamped the Deployment, as kubectl rollout restart does")
        self.later(1)
        self.roll_out("search-2", "search-3")
        self.later(9)
        self.run("the rollout is over; the account that it let go is gone, and nobody did a thing")
        self.show_status()
        self.show_timeline()
        say("A colleague makes an account by hand, for a notebook. And the admin key ends in ten days.")
        self.tamper()
        self.show_audit()

    def prepare(self) -> None:
        with self.server.locked():
            cluster = self.server.kubernetes
            install_crds(cluster)
            set_node(cluster, "node-1", ready=True, since=self.clock.moment - timedelta(days=1))
            for namespace in ("openai-key-rotator", "team-a", "team-b"):
                create_namespace(cluster, namespace)
            documented = DOCUMENTED.read_text().replace("https://api.openai.com/v1", self.server.openai_url)
            documented = documented.replace("sk-admin-example", self.admin_key)
            apply(cluster, documented)
            # The same admin Secret and generator for team-a, the admin Secret for team-b.
            for namespace, kinds in (("team-a", ("Secret", "OpenAI")), ("team-b", ("Secret",))):
                for obj in yaml_objects(documented):
                    if obj["kind"] in kinds:
                        obj["metadata"]["namespace"] = namespace
                        apply(cluster, obj)
            apply(cluster, MORE % {"project": PROJECT, "host": self.server.openai_url})
            status = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1}
            send(cluster, "PATCH", f"{WORKLOADS}/team-b/deployments/search/status", body={"status": status})

    def annotate(self, path: str, name: str, value: str) -> None:
        with self.server.locked():
            send(self.server.kubernetes, "PATCH", path, body={"metadata": {"annotations": {name: value}}})

    def run(self, title: str) -> None:
        """A run of the worker, with its own output."""
        moment = self.clock.moment.strftime("%H:%M")
        print(f"\n━━ {moment} ━━ {title}\n")
        print("$ openai-key-rotator run --max-wait 0s")
        host = self.server.openai_url.removesuffix("/v1")
        # One at a time, so that the story is the same each time it is told.
        options = ["--max-wait", "0s", "--allow-host", host, "--output", "table", "--concurrency", "1"]
        code = worker(["run", *options], clock=self.clock, chance=self.chance)
        print(f"(exit code {code})")
        self.look(moment)

    def later(self, minutes: int) -> None:
        self.clock.advance(minutes)

    def delete(self, path: str) -> None:
        with self.server.locked():
            send(self.server.kubernetes, "DELETE", path)

    def start_container(self, name: str) -> None:
        """Start a container as a kubelet does: its environment has the key of this moment."""
        key = {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "search-openai", "key": "api_key"}}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "team-b"},
            "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "search", "env": [key]}]},
        }
        state = {"running": {"startedAt": self.clock.moment.strftime("%Y-%m-%dT%H:%M:%SZ")}}
        status = {"phase": "Running", "containerStatuses": [{"name": "app", "state": state}]}
        with self.server.locked():
            apply(self.server.kubernetes, pod)
            send(
                self.server.kubernetes,
                "PATCH",
                f"/api/v1/namespaces/team-b/pods/{name}/status",
                body={"status": status},
            )

    def roll_out(self, old: str, new: str) -> None:
        """The Deployment's controller, if somebody has asked for a restart: a new container, and the old one goes."""
        path = f"{WORKLOADS}/team-b/deployments/search"
        with self.server.locked():
            found = send(self.server.kubernetes, "GET", path)
        generation, template = found["metadata"]["generation"], found["spec"]["template"]
        if found["status"]["observedGeneration"] == generation:
            raise SystemExit("nobody has restarted the Deployment")
        stamp = template["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"]
        say(f"Its controller sees the stamp {stamp}: {new} takes the place of {old}.")
        self.start_container(new)
        self.stop_container(old)
        with self.server.locked():
            status = {"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1}
            send(self.server.kubernetes, "PATCH", f"{path}/status", body={"status": status})

    def stop_container(self, name: str) -> None:
        self.delete(f"/api/v1/namespaces/team-b/pods/{name}?gracePeriodSeconds=0")

    # --- what exists

    def look(self, moment: str) -> None:
        """Note, for the timeline, which account each Secret names and which others exist."""
        with self.server.locked():
            alive = {account.name for account in self.server.openai.accounts(PROJECT)}
            current = dict(self.secrets())
        for name, secret in current.items():
            self.owners.setdefault(name, secret)
        for name in [*current, *sorted(alive)]:
            self.history.setdefault(name, [" "] * len(self.moments))
        for name, marks in self.history.items():
            was_there = any(mark != " " for mark in marks)
            marks.append("█" if name in current else "░" if name in alive else "·" if was_there else " ")
        self.moments.append(moment)

    def secrets(self) -> list[tuple[str, str]]:
        """Account name and Secret, for each Secret whose key OpenAI accepts. A dead key would end the demo."""
        found = []
        for namespace in ("default", "team-a", "team-b"):
            for secret in self.server.kubernetes.objects("secrets", namespace):
                annotation = secret["metadata"].get("annotations", {}).get(CURRENT)
                if annotation is None:
                    continue
                subject = f"{namespace}/{secret['metadata']['name']}"
                (value,) = secret["data"].values()
                status = self.server.openai.key_status(base64.b64decode(value).decode())
                if status is not KeyStatus.ACTIVE:
                    raise SystemExit(f"the key in {subject} does not work: {status}")
                found.append((json.loads(annotation)["name"], subject))
        return found

    def show_scopes(self) -> None:
        """What OpenAI says that each key in a Secret may do."""
        print("\nWhat each key may do, asked at OpenAI:")
        with self.server.locked():
            for _, subject in self.secrets():
                namespace, _, name = subject.partition("/")
                secret = self.server.kubernetes.find("secrets", namespace, name) or {"data": {}}
                (value,) = secret["data"].values()
                key = self.server.openai.key(base64.b64decode(value).decode())
                scopes = key.scopes if key is not None else ()
                print(f"  {subject}: {', '.join(scopes) or 'everything'}")

    def show_status(self) -> None:
        print("\n$ openai-key-rotator status")
        worker(["status", "--output", "table"], clock=self.clock)

    def tamper(self) -> None:
        """What no run is asked to look after."""
        with self.server.locked():
            self.server.openai.add_account(PROJECT, "notebook")
            self.server.openai.expire_admin_key(self.admin_key, self.clock.moment + timedelta(days=10))

    def show_audit(self) -> None:
        """Every account and key at OpenAI next to the ledger."""
        print("\n$ openai-key-rotator audit")
        host = self.server.openai_url.removesuffix("/v1")
        worker(["audit", "--output", "table", "--allow-host", host], clock=self.clock)

    def show_timeline(self) -> None:
        print(
            "\n━━ what became of every account ━━  █ its key is in the Secret   ░ exists, not in a Secret   · deleted\n"
        )
        width = max(len(name) for name in self.history)
        print(" " * (width + 2) + "  ".join(self.moments))
        for name, marks in sorted(self.history.items(), key=lambda item: item[1].count(" ")):  # the oldest first
            line = "".join(f"{mark * 5}  " for mark in marks)
            print(f"{name.ljust(width)}  {line}{self.owners.get(name, '(answer lost: never published)')}")
        with self.server.locked():
            alive = {account.name for account in self.server.openai.accounts(PROJECT)}
            current = dict(self.secrets())
            ledger = {
                name
                for entry in self.server.kubernetes.objects("keyrotations", "openai-key-rotator")
                for name in entry["status"].get("accounts", {})
            }
        print(
            f"\n{len(self.history)} accounts were made. Now {len(alive)} exist at OpenAI, {len(current)} keys are in "
            f"Secrets and work, {len(alive - ledger)} accounts are unknown to the ledger."
        )


def say(text: str) -> None:
    print(f"\n{text}")


def yaml_objects(text: str) -> list[dict[str, Any]]:
    import yaml

    return [obj for obj in yaml.safe_load_all(text) if obj]


def main() -> None:
    """Play the demo."""
    clock = DemoClock()
    source = random.Random(7)
    now: Callable[[], datetime] = clock.now
    kubernetes, openai = Kubernetes(now, source), OpenAI(now, source)
    admin_key = openai.add_organization("demo")
    openai.add_project("demo", PROJECT)
    faults = Rules([], source)
    with tempfile.TemporaryDirectory() as directory, SandboxServer(kubernetes, openai, openai_faults=faults) as server:
        for name in [name for name in os.environ if name.startswith("ROTATOR_")]:
            del os.environ[name]
        os.environ["KUBECONFIG"] = str(server.write_kubeconfig(Path(directory) / "kubeconfig"))
        Demo(server, clock, admin_key, faults, source).play()


if __name__ == "__main__":
    main()
