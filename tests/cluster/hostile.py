"""A hostile tenant beside a victim on the real API server, and all that must not have changed after a run.

Guarantees: a tenant writes with its own ServiceAccount's token, which is good for its own namespace alone; nothing here
prints a key: objects are compared by digests, admin keys are called by whom they belong to.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import secrets
import socket
import threading
import time
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from sandbox.openai.server import OpenAI
from sandbox.openai.state import KeyStatus
from sandbox.transport.wire import Request, Response
from tests.cluster.endpoint import Endpoint, call, service_account_token
from tests.cluster.rig import PREFIX, Rig, Run, install_crds
from tests.cluster.rights import grant
from tests.support.scene import PROJECT
from worker.model.times import format_time

OWN_PROJECT = "hostile-project"
STRANGE_PROJECT = "strange-project"
FALLBACK = "fallback"
ABOUT_ITSELF = ("GET", "/v1/organization/admin_api_keys")
"""Each admin key but the fallback is asked when it ends, once a run."""
KINDS = {
    "Secret": ("/api/v1", "secrets"),
    "Pod": ("/api/v1", "pods"),
    "OpenAI": ("/apis/generators.external-secrets.io/v1alpha1", "openais"),
    "ExternalSecret": ("/apis/external-secrets.io/v1", "externalsecrets"),
    "KeyRotation": ("/apis/openai-key-rotator.io/v1alpha1", "keyrotations"),
    "Event": ("/api/v1", "events"),
}


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def path_of(kind: str, namespace: str, name: str = "") -> str:
    root, plural = KINDS[kind]
    return f"{root}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


class WatchedOpenAI(OpenAI):
    """OpenAI that remembers who asked for what; a key is called by its owner, one that nobody owns `other`."""

    def __init__(self) -> None:
        super().__init__(lambda: datetime.now(UTC), random.Random(secrets.randbits(64)))
        self.owners: dict[str, str] = {}
        self.asked: list[tuple[str, str, str]] = []

    def handle(self, request: Request) -> Response:
        self.asked.append((self.owners.get(request.bearer or "", "other"), request.method, request.path))
        return super().handle(request)


class Attacker:
    """A host of the attacker's on loopback. Whoever connects, with whatever protocol, is counted."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()


@dataclass
class Stage:
    """A victim that has been rotated before, a stranger at OpenAI, and a worker with our manifests' permissions."""

    rig: Rig
    openai: WatchedOpenAI
    attacker: Attacker
    kubeconfig: Path
    victim_keys: list[str] = field(repr=False)
    fixed: dict[str, set[str]]
    """The ids of the accounts that exist already, by project."""
    keys: dict[str, str] = field(repr=False)
    """The tenant's admin keys: `own` of its own organisation, `shared` of the victim's."""

    @classmethod
    def build(cls, endpoint: Endpoint, openai: WatchedOpenAI, url: str, attacker: Attacker, directory: Path) -> Self:
        rig = Rig(endpoint, openai, url, directory)
        install_crds(endpoint, rules=False)
        for name in (rig.namespace, rig.ledger):
            rig.kubectl("create", "namespace", name)
        openai.add_organization("stranger")
        openai.add_project("stranger", STRANGE_PROJECT)
        keys = {"own": openai.add_organization("hostile"), "shared": openai.add_admin_key("acme")}
        openai.add_project("hostile", OWN_PROJECT)
        fallback = openai.add_admin_key("acme")
        openai.owners |= {value: name for name, value in keys.items()}
        openai.owners |= {rig.admin_key: "victim", fallback: FALLBACK}
        rig.apply(secret(FALLBACK, rig.ledger, {"api-key": fallback}))
        rig.apply_documented(rig.namespace)
        policy = json.dumps({"spec": {"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "24h"}}})
        rig.kubectl("-n", rig.namespace, "patch", "openai", "openai-generator", "--type=merge", "-p", policy)
        kubeconfig = grant(rig)
        victim_keys = []
        for arguments in ([], ["--force"]):
            done = rig.run(*arguments, kubeconfig=kubeconfig)
            assert done.code == 0, done.output
            victim_keys.append(rig.key())
        victim_keys += [openai.add_account(project, "stranger")[1] for project in (PROJECT, STRANGE_PROJECT)]
        fixed = {project: {a.id for a in openai.accounts(project)} for project in (PROJECT, STRANGE_PROJECT)}
        return cls(rig, openai, attacker, kubeconfig, victim_keys, fixed, keys)

    def remove(self) -> None:
        """Take away what is not the tenants'."""
        self.rig.kubectl("delete", "clusterrole,clusterrolebinding", f"openai-key-rotator-{self.rig.ledger}")
        self.rig.kubectl("delete", "namespace", self.victim, self.rig.ledger, "--wait=false")

    @property
    def victim(self) -> str:
        return self.rig.namespace

    def objects(self, kind: str, namespace: str) -> list[dict[str, Any]]:
        status, answer = call(self.rig.endpoint, "GET", path_of(kind, namespace))
        assert status == 200
        items: list[dict[str, Any]] = answer["items"]
        return items

    def run(self, tenant: Tenant, *arguments: str) -> Run:
        """A run for tenant and victim, who is listed last."""
        places = [f"--namespace={name}" for name in (tenant.namespace, self.victim)]
        fallback = (f"--fallback-admin-key={FALLBACK}", f"--fallback-host={self.rig.openai_url}")
        return self.rig.run(*places, "--concurrency=5", *fallback, *arguments, kubeconfig=self.kubeconfig)

    def age(self, tenant: Tenant) -> None:
        """Let ten minutes have passed since the tenant's accounts were asked for: grace and claims have ended."""
        then = format_time(datetime.now(UTC) - timedelta(minutes=10))
        for entry in self.objects("KeyRotation", self.rig.ledger):
            if entry["spec"]["target"]["namespace"] == tenant.namespace:
                aged = {"requestedAt": then}
                accounts = {
                    name: aged | ({"claimedUntil": then} if "claimedUntil" in account else {})
                    for name, account in entry["status"].get("accounts", {}).items()
                }
                path = path_of("KeyRotation", self.rig.ledger, entry["metadata"]["name"])
                body = {"status": {"accounts": accounts}}
                kind = "application/merge-patch+json"
                assert call(self.rig.endpoint, "PATCH", path, body, content_type=kind)[0] == 200

    def picture(self, tenant: Tenant) -> dict[str, str]:
        """Everything that is not the tenant's: digests of whole objects, resourceVersion included; all accounts."""
        found = {}
        for kind in KINDS:
            for place in (self.victim, self.rig.ledger):
                for obj in self.objects(kind, place):
                    if kind == "KeyRotation" and obj["spec"]["target"]["namespace"] == tenant.namespace:
                        continue
                    found[f"{kind} {place}/{obj['metadata']['name']}"] = digest(obj)
        for project in self.fixed:
            found |= {
                f"Account {project}/{account.id}": digest(account.keys) for account in self.openai.accounts(project)
            }
        return found

    def ask_for_rotation(self) -> None:
        """The victim's next rotation is due."""
        rotate = f"{PREFIX}rotate={secrets.token_hex(4)}"
        self.rig.kubectl("-n", self.victim, "annotate", "--overwrite", "externalsecret", "openai-credentials", rotate)

    def victims_outcome(self, run: Run) -> str:
        (line,) = [line for line in run.lines if line.get("namespace") == self.victim and "source" in line]
        return f"{line['event']} {line['reason']}"

    def assert_unharmed(self, tenant: Tenant, before: dict[str, str], *, due: bool = False) -> None:
        """The assertions after every run. `due`: the victim's own rotation was due, and has changed its own objects."""
        after = self.picture(tenant)
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        made = {name for name in changed if name.startswith("Account ") and name not in before}
        recorded = self.recorded(tenant.namespace)
        if due:
            recorded |= self.recorded(self.victim)
            changed = {name for name in changed if not name.startswith(f"Event {self.victim}/")}
            changed -= {f"{kind} {self.victim}/openai-credentials" for kind in ("Secret", "ExternalSecret")}
            changed -= {f"KeyRotation {self.rig.ledger}/{self.victim}.openai-credentials"}
            self.victim_keys.append(self.rig.key())
        assert changed == made
        assert {name.rpartition("/")[2] for name in made} <= recorded, "accounts that nobody's target explains"
        dead = [i for i, key in enumerate(self.victim_keys) if self.openai.key_status(key) is not KeyStatus.ACTIVE]
        assert dead == [], "keys of the victim or a stranger are dead"
        connections = self.attacker.connections
        self.attacker.connections = 0
        assert connections == 0
        self.assert_keys_stayed_at_home(due=due)
        if due:
            self.fixed[PROJECT] |= self.recorded(self.victim)

    def deletes(self) -> set[tuple[str, str]]:
        """Whose admin key asked for the deletion of which account."""
        return {(owner, path.rpartition("/")[2]) for owner, method, path in self.openai.asked if method == "DELETE"}

    def recorded(self, namespace: str) -> set[str]:
        """The ids of the accounts that the ledger records for a namespace's targets."""
        entries = [
            e for e in self.objects("KeyRotation", self.rig.ledger) if e["spec"]["target"]["namespace"] == namespace
        ]
        return {a["id"] for entry in entries for a in entry["status"].get("accounts", {}).values() if "id" in a}

    def assert_keys_stayed_at_home(self, *, due: bool) -> None:
        """Nobody's admin key was used for more than its owner's targets explain: the victim's makes one account where
        its rotation was due, the fallback makes none.
        """
        base = "/v1/organization/projects"
        strays = set()
        for owner, method, path in self.openai.asked:
            if owner != FALLBACK and (method, path) == ABOUT_ITSELF:
                continue
            at_victims = path.startswith(f"{base}/{PROJECT}/")
            about_fixed = any(path.rsplit("/", 1)[-1] in ids for ids in self.fixed.values())
            if (
                (owner in ("victim", FALLBACK) and not at_victims)
                or (owner == "victim" and method == "DELETE")
                or (owner == FALLBACK and method == "POST")
                or (about_fixed and method != "GET")
                or (owner in ("own", "shared", "other") and not _is_usual(path))
            ):
                strays.add((owner, method, path))
        assert strays == set()
        made = [path for owner, method, path in self.openai.asked if (owner, method) == ("victim", "POST")]
        assert len(made) == (1 if due else 0), "accounts made with the victim's admin key"


def _is_usual(path: str) -> bool:
    """A path that a run of the worker asks for, without any detour."""
    parts = path.split("/")
    return path == "/v1/models" or (
        parts[:4] == ["", "v1", "organization", "projects"]
        and len(parts) <= 7
        and parts[5:6] in ([], ["service_accounts"], ["api_keys"])
        and not {"", ".", ".."} & set(parts[1:])
        and "%" not in path
    )


class Tenant:
    """A namespace, and a ServiceAccount that may write generators, ExternalSecrets, Secrets and pods there."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.endpoint = stage.rig.endpoint
        self.namespace = f"hostile-{secrets.token_hex(4)}"
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        place = f"/namespaces/{self.namespace}"
        verbs = ["get", "list", "create", "update", "patch", "delete"]
        groups = {"": ["secrets", "pods"], "generators.external-secrets.io": ["openais"]}
        groups["external-secrets.io"] = ["externalsecrets"]
        rules = [{"apiGroups": [group], "resources": names, "verbs": verbs} for group, names in groups.items()]
        subject = {"kind": "ServiceAccount", "name": "dev", "namespace": self.namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "dev"}
        for path, body in (
            ("/api/v1/namespaces", {"metadata": {"name": self.namespace}}),
            (f"/api/v1{place}/serviceaccounts", {"metadata": {"name": "dev"}}),
            (f"{rbac}{place}/roles", {"metadata": {"name": "dev"}, "rules": rules}),
            (f"{rbac}{place}/rolebindings", {"metadata": {"name": "dev"}, "roleRef": role, "subjects": [subject]}),
        ):
            status, _ = call(self.endpoint, "POST", path, body)
            assert status == 201, path
        self._token = service_account_token(self.endpoint, self.namespace, "dev")
        for _ in range(100):  # until the API server has heard of the binding
            if self.ask("GET", path_of("Secret", self.namespace)) == 200:
                return
            time.sleep(0.1)
        raise AssertionError("the tenant's role is not in force")

    def ask(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> int:
        """One request with the tenant's own token; the status."""
        return call(self.endpoint, method, path, body, token=self._token, content_type=content_type)[0]

    def write(self, obj: dict[str, Any]) -> int:
        """Create the object, or merge it into the one that is there."""
        path = path_of(obj["kind"], self.namespace)
        status = self.ask("POST", path, obj)
        if status == 409:
            return self.ask("PATCH", f"{path}/{obj['metadata']['name']}", obj, "application/merge-patch+json")
        return status

    def write_all(self, objects: list[dict[str, Any]]) -> dict[str, int]:
        """Write them; the names and statuses of those that the API server refused."""
        statuses = [(obj["metadata"]["name"], self.write(obj)) for obj in objects]
        return {name: status for name, status in statuses if status not in (200, 201)}

    def secrets(self) -> dict[str, str]:
        """Digests of its Secrets, but for those that Kubernetes itself fills."""
        found = self.stage.objects("Secret", self.namespace)
        filled = "kubernetes.io/service-account-token"
        return {obj["metadata"]["name"]: digest(obj) for obj in found if obj["type"] != filled}

    def delete(self, kind: str, name: str) -> None:
        assert self.ask("DELETE", path_of(kind, self.namespace, name)) == 200

    def said(self, run: Run) -> dict[str, str]:
        """Event and reason of the outcome of each of the tenant's sources, by the source's name."""
        return {
            line["source"].rpartition("/")[2]: f"{line['event'].removeprefix('target.')} {line['reason']}"
            for line in run.lines
            if line.get("namespace") == self.namespace and "source" in line
        }

    def assert_told(self, run: Run) -> None:
        """Every source that was not served says why: in its condition, and where it has none, in an Event."""
        conditions = {
            obj["metadata"]["name"]: {
                c["type"]: (c["status"], c["message"]) for c in obj.get("status", {}).get("conditions", [])
            }
            for obj in self.stage.objects("ExternalSecret", self.namespace)
        }
        events = {(e["involvedObject"]["name"], e["message"]) for e in self.stage.objects("Event", self.namespace)}
        for line in run.said("target.blocked") + run.said("target.failed"):
            kind, _, name = line["source"].partition(" ")
            name = name.rpartition("/")[2]
            message = re.sub(r", request [A-Za-z0-9_-]+", "", line["message"])  # the log alone has the id of a request
            if kind == "ExternalSecret":
                assert conditions[name]["Ready"] == ("False", message)
            assert (name, message) in events

    def close(self) -> None:
        """Its objects go at once, so that later runs do not meet them; the namespace in its own time."""
        for kind in ("ExternalSecret", "OpenAI", "Secret", "Pod"):
            call(self.endpoint, "DELETE", path_of(kind, self.namespace))
        call(self.endpoint, "DELETE", f"/api/v1/namespaces/{self.namespace}")


def secret(name: str, namespace: str, data: dict[str, str], kind: str = "Opaque", **metadata: Any) -> dict[str, Any]:
    encoded = {key: b64encode(value.encode()).decode() for key, value in data.items()}
    where = {"name": name, "namespace": namespace} | metadata
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": where, "data": encoded}
