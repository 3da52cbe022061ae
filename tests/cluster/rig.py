"""What tests of `python run.py` on the real API server share: a test's namespaces, its OpenAI, and runs of the worker.

Guarantee: what a run printed is looked through for keys, tracebacks and bugs, whatever it was run for.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from sandbox.kubernetes.setup import known_crds
from sandbox.openai.server import OpenAI
from tests.cluster.endpoint import Endpoint, call, kubectl
from tests.support.canary import leaks
from tests.support.scene import PROJECT, ROOT, documented
from worker.model.times import format_time

CRDS = ROOT / "manifests" / "crds"
PREFIX = "openai-key-rotator.io/"

MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""
"""Runs a program and writes its peak of memory; a process of its own, for a child's peak begins with its parent's."""


def install_crds(endpoint: Endpoint, crds: Path = CRDS, *, rules: bool = True) -> None:
    """Install what the worker needs (`crds`), ExternalSecrets included, and wait until it is served.

    Without `rules` as users of the enterprise operator have it: malformed generators get in, for the worker to meet.
    """
    apply = ("apply", "--server-side", "--force-conflicts")
    if rules:
        for part in (crds, crds / "external-secret"):
            kubectl(endpoint, *apply, "-k", str(part))
    else:
        kubectl(endpoint, *apply, "-f", "-", given=yaml.safe_dump_all(known_crds()))
    kubectl(endpoint, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    deadline = time.monotonic() + 30
    while (dry_run(endpoint, {"projectId": "a/b", "openAiAdminKey": {}})[0] == 422) is not rules:
        assert time.monotonic() < deadline, "the API server goes by the CRD that was there before"
        time.sleep(0.05)


def dry_run(endpoint: Endpoint, spec: dict[str, Any]) -> tuple[int, Any]:
    """What the API server answers to a new generator with this spec, which it does not store."""
    version = "generators.external-secrets.io/v1alpha1"
    generator = {"apiVersion": version, "kind": "OpenAI", "metadata": {"name": "dry-run"}, "spec": spec}
    return call(endpoint, "POST", f"/apis/{version}/namespaces/default/openais?dryRun=All", generator)


def command(arguments: Sequence[str], variables: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """`python run.py` as a user runs it: the command, and an environment with these variables and no others of ours."""
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "COVERAGE_PROCESS_START")}
    return [sys.executable, str(ROOT / "run.py"), *arguments], kept | variables


class Rig:
    """One test's namespaces on the real API server, and its OpenAI."""

    def __init__(self, endpoint: Endpoint, openai: OpenAI, url: str, directory: Path) -> None:
        self.endpoint = endpoint
        self.openai = openai
        self.openai_url = url
        self.directory = directory
        self.namespace = f"team-{secrets.token_hex(4)}"
        self.ledger = f"ledger-{secrets.token_hex(4)}"
        self.variables: dict[str, str] = {}
        """More of the environment that the worker is run with."""
        self.admin_key = openai.add_organization("acme")
        openai.add_project("acme", PROJECT)

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        return kubectl(self.endpoint, *arguments, given=given)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(objects))

    def apply_documented(self, namespace: str) -> None:
        """The documentation's objects, verbatim but for host, admin key and, perhaps, namespace."""
        objects = documented(self.admin_key, self.openai_url)
        for obj in objects:
            obj["metadata"]["namespace"] = namespace
        self.apply(*objects)

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
        place = ["-n", namespace or self.namespace]
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json", *place))
        return found

    def run(self, *arguments: str, kubeconfig: Path | None = None, ledger: str | None = None, **more: str) -> Run:
        """`python run.py` with these arguments, for this test's namespace unless they or variables say otherwise."""
        variables = {
            "KUBECONFIG": str(kubeconfig or self.endpoint.kubeconfig),
            "ROTATOR_ALLOW_HOST": self.openai_url,
            "ROTATOR_LEDGER_NAMESPACE": ledger or self.ledger,
            "ROTATOR_MAX_WAIT": "0s",
            "ROTATOR_NAMESPACE": self.namespace,
            "HOME": str(self.directory),
            **more,
            **self.variables,
        }
        program, environment = command(arguments, variables)
        with tempfile.NamedTemporaryFile("r") as peak:
            whole = [sys.executable, "-c", MEASURED, peak.name, *program]
            done = subprocess.run(whole, capture_output=True, text=True, env=environment, timeout=120, check=False)
            return Run(done.returncode, done.stdout, done.stderr, peak=int(peak.read()) / 1024)

    def key(self, namespace: str = "") -> str:
        return b64decode(self.get("secret", "openai-credentials", namespace)["data"]["api_key"]).decode()

    def age(self) -> None:
        """Let ten minutes have passed since the accounts were asked for: before, none goes (`planning.ripe_at`)."""
        then = format_time(datetime.now(UTC) - timedelta(minutes=10))
        for entry in json.loads(self.kubectl("-n", self.ledger, "get", "keyrotations", "-o", "json"))["items"]:
            aged = {name: {"requestedAt": then} for name in entry["status"]["accounts"]}
            patch = json.dumps({"status": {"accounts": aged}})
            name = entry["metadata"]["name"]
            self.kubectl("-n", self.ledger, "patch", "keyrotation", name, "--type=merge", "-p", patch)

    def accounts(self) -> list[str]:
        return [account.name for account in self.openai.accounts(PROJECT)]


class Run:
    """What a run said; neither a key nor a traceback. `peak`: of its memory, in MiB."""

    def __init__(self, code: int, out: str, error: str, *, peak: float = 0) -> None:
        self.code = code
        self.peak = peak
        self.output = out + error
        assert not leaks(self.output)
        assert "Traceback" not in self.output
        assert "internal error" not in self.output
        assert '"reason": "InternalError"' not in self.output
        self.lines = [json.loads(line) for line in out.splitlines() if line.startswith('{"')]  # the log's

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def reasons(self) -> dict[str, str]:
        """Event and reason of each target's outcome, by its Secret."""
        shown = ("target.rotated", "target.kept", "target.blocked", "target.failed")
        return {line["secret"]: f"{line['event']} {line['reason']}" for line in self.lines if line["event"] in shown}

    @property
    def message(self) -> str:
        """Of the one target, or of the run that failed as a whole."""
        (line,) = [line for line in self.lines if "message" in line and line["level"] in ("error", "warning")]
        return str(line["message"])
