"""The project as a user has it: installed by the commands of its README, run as Jobs of its CronJob in its image.

Guarantees: what a container printed, and what it left as its termination message, is looked through for keys and
tracebacks whatever it was run for. OpenAI is the sandbox's, by https, at an address that pods reach.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

import yaml

from sandbox.http_server import Locked, ServerThread, serving
from sandbox.openai.server import OpenAI
from tests.cluster.endpoint import call, kubectl, service_account_token
from tests.cluster.rig import PREFIX, Rig, Run
from tests.node.build import IMAGE, TAG
from tests.node.inside import GATEWAY
from tests.node.way import Way, certificate
from tests.node.world import Node
from tests.support.canary import leaks
from tests.support.scene import ROOT, documented

WORKER = "openai-key-rotator"
OVERLAY = "manifests/overlays/production"
SECRET = "openai-credentials"
HOLDS = re.compile(r"^  (\S+): (?:has|(may) have) the key of (\w+)\b", re.MULTILINE)
SHORT_GRACE = {"spec": {"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "1s"}}}
PATIENCE = 120.0
"""Seconds in which a pod gets somewhere, at the latest. It takes one or two."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finished:
    """A Job's container that has ended."""

    pod: dict[str, Any]
    run: Run
    message: str
    """Its termination message."""
    peak: int
    """Bytes of memory that its pod had at most."""

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.message)
        return found


class Installation(Rig):
    """What the README installs, and one tenant's namespace with the documented objects."""

    def __init__(self, node: Node, openai: OpenAI, url: str) -> None:
        super().__init__(node.endpoint, openai, url, node.world.place)
        self.node = node
        self.ledger = WORKER
        self.first: Finished
        """The Job that the README makes."""
        self.shown = ""
        """What the README's last command shows after it."""

    def job(self, *arguments: str, account: str = WORKER, command: tuple[str, ...] = ()) -> Finished:
        """A Job of the CronJob, run to its end; perhaps with other arguments, account, or command than it has."""
        name = f"run-{secrets.token_hex(4)}"
        create = ("-n", WORKER, "create", "job", name, f"--from=cronjob/{WORKER}")
        job = json.loads(self.kubectl(*create, "--dry-run=client", "-o", "json"))
        template = job["spec"]["template"]["spec"]
        template["serviceAccountName"] = account
        if arguments:
            template["containers"][0]["args"] = list(arguments)
        if command:
            template["containers"][0] |= {"command": list(command), "args": []}
        self.kubectl("apply", "-f", "-", given=json.dumps(job))
        return self.finished(name)

    def python(self, program: str) -> Any:
        """What a program of Python's, in the image and with all that the CronJob says, printed as JSON."""
        ended = self.job(command=("/venv/bin/python", "-c", program))
        assert ended.run.code == 0, ended.run.output
        return json.loads(ended.run.output)

    def as_worker(self, method: str, resource: str, body: object) -> int:
        """The status of a request about the tenant's namespace, with the worker's own token."""
        token = service_account_token(self.endpoint, WORKER, WORKER)
        path = f"/api/v1/namespaces/{self.namespace}/{resource}"
        return call(self.endpoint, method, path, body, token=token)[0]

    def finished(self, job: str) -> Finished:
        """The pod of this Job, once it has ended."""
        (pod,) = until(lambda: self.pods(WORKER, f"job-name={job}"))
        path = f"/api/v1/namespaces/{WORKER}/pods/{pod['metadata']['name']}"
        peak = 0

        def ended() -> dict[str, Any] | None:
            nonlocal peak
            peak = max(peak, self.node.peak(pod["metadata"]["uid"]) or 0)
            seen: dict[str, Any] = call(self.endpoint, "GET", path)[1]
            return seen if seen["status"]["phase"] in ("Succeeded", "Failed") else None

        pod = until(ended, pause=0.02)
        state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
        printed = self.kubectl("-n", WORKER, "logs", pod["metadata"]["name"])
        message = state.get("message", "")
        assert not leaks(message)
        return Finished(pod, Run(state["exitCode"], printed, ""), message, peak)

    def pods(self, namespace: str, labels: str) -> list[dict[str, Any]]:
        status, found = call(self.endpoint, "GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector={labels}")
        assert status == 200, status
        items: list[dict[str, Any]] = found["items"]
        return items

    def rotate(self) -> Finished:
        """On request, by the README's annotation."""
        annotation = f"{PREFIX}rotate={secrets.token_hex(4)}"
        self.kubectl("-n", self.namespace, "annotate", "--overwrite", "externalsecret", SECRET, annotation)
        return self.job()

    def current(self) -> str:
        """The account whose key the Secret has."""
        found = self.get("secret", SECRET)["metadata"]["annotations"][f"{PREFIX}service-account"]
        name: str = json.loads(found)["name"]
        return name

    def holders(self) -> dict[str, tuple[set[str], set[str]]]:
        """By account: containers that have its key, and those that may. As `revoke --dry-run` tells, in the image."""
        shown = self.job("revoke", f"{self.namespace}/{SECRET}", "--dry-run")
        assert shown.run.code == 0, shown.run.output
        assert "nothing was done" in shown.run.output
        found: dict[str, tuple[set[str], set[str]]] = {name: (set(), set()) for name in self.accounts()}
        for holder, may, account in HOLDS.findall(shown.run.output):
            found[account][bool(may)].add(holder)
        return found

    def follow_readme(self, overlay: Path) -> None:
        """Execute the README's commands to install, in a folder with the manifests; the image is there already."""
        _, _, rest = (ROOT / "README.md").read_text().partition("\n## Install\n")
        lines = [line.strip() for line in rest.partition("\n## ")[0].splitlines() if line.startswith("    ")]
        commands = [re.sub(r"\s+#.*", "", line) for line in lines if line.startswith("kubectl")]
        assert any("overlays/production" in command for command in commands)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        for command in commands:
            done = subprocess.run(
                ["bash", "-euc", command],
                cwd=overlay,
                env={"PATH": path, "KUBECONFIG": str(self.endpoint.kubeconfig), "HOME": str(self.directory)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            assert "would violate PodSecurity" not in done.stderr, done.stderr


def until(happened: Callable[[], T | None], *, pause: float = 0.1, seconds: float = PATIENCE) -> T:
    """What it gives, once that is something."""
    deadline = time.monotonic() + seconds
    while True:
        given = happened()
        if given:
            return given
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(pause)


@contextmanager
def installing(node: Node) -> Iterator[Installation]:
    """Install it, with a tenant whose objects are there when the README's first Job starts."""
    openai = OpenAI(lambda: datetime.now(UTC), random.Random(secrets.randbits(64)))
    made, tls = certificate(node.world.place, GATEWAY)
    with ServerThread(serving(Locked(openai, RLock()))) as plain:
        port = int(plain.urls[0].rpartition(":")[2])
        with ServerThread(Way().leading(GATEWAY, 0, ("127.0.0.1", port), tls)) as server:
            installation = Installation(node, openai, server.urls[0] + "/v1")
            installation.variables = {"SSL_CERT_FILE": str(made)}
            _prepare(installation, made)
            installation.follow_readme(node.world.place / "checkout")
            installation.first = installation.finished("first")
            installation.shown = installation.kubectl("get", "keyrotations", "-n", WORKER)
            yield installation


def _prepare(installation: Installation, certificate_file: Path) -> None:
    """What the README has its reader do by hand, and what the documentation of the components says."""
    checkout = installation.node.world.place / "checkout"
    shutil.copytree(ROOT / "manifests", checkout / "manifests")
    _name_image(checkout, installation.openai_url)
    kubectl(installation.endpoint, "apply", "-f", str(checkout / "manifests/base/namespace.yaml"))
    make = ("-n", WORKER, "create")
    installation.kubectl(*make, "configmap", "openai-key-rotator-ca", f"--from-file=ca.crt={certificate_file}")
    fallback = f"--from-literal=api-key={installation.admin_key}"
    installation.kubectl(*make, "secret", "generic", "openai-admin-fallback", fallback)
    for folder in ("crds", "crds/external-secret"):
        installation.kubectl("apply", "-k", str(checkout / "manifests" / folder))
    installation.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    installation.kubectl("create", "namespace", installation.namespace)
    objects = documented(installation.admin_key, installation.openai_url)
    for one in objects:
        one["metadata"]["namespace"] = installation.namespace
        if one["kind"] == "OpenAI":
            one["spec"] |= SHORT_GRACE["spec"]
    installation.apply(*(one for one in objects if one["kind"] != "Deployment"))


def _name_image(checkout: Path, openai_url: str) -> None:
    """In the production overlay: the image, as the README says; and where this OpenAI is."""
    file = checkout / OVERLAY / "kustomization.yaml"
    kustomization = yaml.safe_load(file.read_text())
    (image,) = kustomization["images"]
    image |= {"newName": IMAGE, "newTag": TAG}
    kustomization["components"] += ["../../components/ca-bundle", "../../components/restart-workloads"]
    variables = {"ROTATOR_ALLOW_HOST": openai_url, "ROTATOR_FALLBACK_HOST": openai_url, "ROTATOR_MAX_WAIT": "0s"}
    environment = [{"name": name, "value": value} for name, value in variables.items()]
    template = {"spec": {"containers": [{"name": WORKER, "env": environment}]}}
    patch = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": WORKER},
        # No Job but those that a test makes.
        "spec": {"suspend": True, "jobTemplate": {"spec": {"template": template}}},
    }
    kustomization["patches"] = [{"patch": yaml.safe_dump(patch)}]
    file.write_text(yaml.safe_dump(kustomization))
