"""The chart on the real API server: Helm installs it, upgrades it and its CRDs, and takes it away. The ledger stays.

The worker that it installs rotates a key under a name and in a namespace of its own.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.http_server import SandboxServer
from sandbox.kubernetes.server import Kubernetes
from sandbox.openai.server import OpenAI
from sandbox.openai.state import KeyStatus
from tests.cluster.control_plane import control_plane, find_binaries
from tests.cluster.endpoint import Endpoint, call, service_account_token
from tests.cluster.kubelet import Ended, execute, pods_of_a_job
from tests.cluster.rig import Rig
from tests.support.chart import CHART, MANIFESTS, NAME, chart_tool, helm, run_helm

pytestmark = pytest.mark.cluster

LEDGER_CRD = "keyrotations.openai-key-rotator.io"


class Released(Rig):
    """Helm at a cluster, and a tenant's namespace for the documented objects."""

    release = NAME

    @property
    def name(self) -> str:
        """Of all objects of the release."""
        return self.release if NAME in self.release else f"{self.release}-{NAME}"

    def helm(self, command: str, *arguments: str | Path, values: Mapping[str, Any] | None = None) -> str:
        """A command about the release; `values` on top of those that this test's OpenAI needs."""
        given = None
        if values is not None:
            arguments += ("--values", "-")
            given = yaml.safe_dump({**self.options, **values})
        return helm(self.directory, command, self.release, *arguments, *self.where, given=given)

    @property
    def where(self) -> tuple[str | Path, ...]:
        return ("--namespace", self.ledger, "--kubeconfig", self.endpoint.kubeconfig)

    @property
    def options(self) -> dict[str, Any]:
        hosts = {"allow-host": self.openai_url, "fallback-host": self.openai_url, "max-wait": "0s"}
        return {"options": hosts, "crds": {"externalSecret": True}}

    def names(self, kinds: str) -> set[str]:
        """Of all objects of these kinds that are the release's by their labels."""
        selector = f"app.kubernetes.io/instance={self.release}"
        return set(self.kubectl("get", kinds, "-A", "-l", selector, "-o", "name").split())

    def worker_runs(self) -> Ended:
        (pod,) = pods_of_a_job(self.endpoint, self.ledger, self.name)
        return execute(self.endpoint, pod, self.directory / pod["metadata"]["name"])

    def entries(self) -> str:
        return self.kubectl("-n", self.ledger, "get", "keyrotations", "-o", "name")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Of its own: no CRD is there but those that the chart installs. Pods get a token; nothing schedules them."""
    if find_binaries(controllers=True) is None:
        pytest.skip("no real cluster: `make control-plane` builds it")
    chart_tool("helm")
    with control_plane(tmp_path_factory.mktemp("chart"), controllers=True, audited=True) as endpoint:
        yield endpoint


@pytest.fixture
def rig(cluster: Endpoint, tmp_path: Path) -> Iterator[Released]:
    chance = random.Random(secrets.randbits(64))
    openai = OpenAI(lambda: datetime.now(UTC), chance)
    with SandboxServer(Kubernetes(lambda: datetime.now(UTC), chance), openai) as server:
        rig = Released(cluster, openai, server.openai_url, tmp_path)
        rig.kubectl("create", "namespace", rig.namespace)
        yield rig
        rig.kubectl("delete", "namespace", rig.namespace, "--timeout=60s")
        if rig.release in helm(tmp_path, "list", "--short", *rig.where):
            rig.helm("uninstall")
        for crd in json.loads(rig.kubectl("get", "crd", "-o", "json"))["items"]:
            rig.kubectl("delete", "crd", crd["metadata"]["name"], "--timeout=60s")


def commands_of(notes: str) -> list[list[str]]:
    """What NOTES tell to type."""
    return [shlex.split(line) for line in notes.splitlines() if line.startswith("    kubectl ")]


def older(directory: Path) -> Path:
    """The chart as it may have been: its ledger has a column less."""
    chart = directory / "older"
    shutil.copytree(CHART, chart)
    crd = chart / "files" / "crds" / "keyrotation.yaml"
    text, count = re.subn(r"^ +- \{name: Restart, .*\n", "", crd.read_text(), flags=re.MULTILINE)
    assert count == 1
    crd.write_text(text)
    return chart


def columns(rig: Released) -> list[str]:
    crd = json.loads(rig.kubectl("get", "crd", LEDGER_CRD, "-o", "json"))
    return [column["name"] for column in crd["spec"]["versions"][0]["additionalPrinterColumns"]]


def test_a_release_is_installed_upgraded_and_taken_away(rig: Released) -> None:
    """Its worker rotates; an upgrade brings the newer CRD; what is left when it goes is the ledger, and its CRD."""
    rig.release = "keys"
    said = rig.helm("install", older(rig.directory), "--create-namespace", "--wait", "--timeout=60s", values={})
    assert "Restart" not in columns(rig)
    rig.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    rig.apply_documented(rig.namespace)
    the_notes_can_be_typed(rig, said)

    ended = rig.worker_runs()
    assert ended.run.code == 0, ended.run.output
    key, entries = rig.key(), rig.entries()
    assert rig.openai.key_status(key) is KeyStatus.ACTIVE
    assert f"/{rig.namespace}.openai-credentials" in entries
    the_policy_is_about_the_releases_account(rig)

    rig.helm("upgrade", CHART, "--wait", "--timeout=60s", values={"image": {"tag": "0.2.0"}, "schedule": "*/5 * * * *"})
    assert "Restart" in columns(rig)
    cronjob = rig.get("cronjob", rig.name, rig.ledger)
    assert cronjob["spec"]["schedule"] == "*/5 * * * *"
    (container,) = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{NAME}:0.2.0"
    ended = rig.worker_runs()
    assert ended.run.code == 0, ended.run.output
    assert (rig.key(), rig.entries()) == (key, entries), "an upgrade rotates nothing by itself"

    ours = "cronjob,sa,role,rolebinding,clusterrole,clusterrolebinding,netpol,validatingadmissionpolicy"
    assert len(rig.names(ours)) >= 10
    crds = rig.names("crd")
    assert len(crds) >= 3
    said = rig.helm("uninstall", "--wait", "--timeout=60s")
    assert LEDGER_CRD in said
    assert rig.names(ours) == set()
    assert rig.entries() == entries
    assert rig.names("crd") == crds

    # Again, over the CRDs that were kept: the ledger is found, and nothing rotates.
    rig.helm("install", CHART, "--wait", "--timeout=60s", values={})
    ended = rig.worker_runs()
    assert ended.run.code == 0, ended.run.output
    assert (rig.key(), rig.entries()) == (key, entries)


def the_notes_can_be_typed(rig: Released, said: str) -> None:
    """As they are; only FILE is the reader's."""
    key = rig.directory / "admin-key"
    key.write_text(rig.admin_key)
    commands = commands_of(said)
    assert len(commands) == 3
    for _, *arguments in commands:
        rig.kubectl(*(argument.replace("=FILE", f"={key}") for argument in arguments))
    assert rig.get("job", "first-1", rig.ledger)["metadata"]["ownerReferences"][0]["name"] == rig.name
    assert "api-key" in rig.get("secret", "openai-admin-fallback", rig.ledger)["data"]


def the_policy_is_about_the_releases_account(rig: Released) -> None:
    """Not about the name of manifests/: that worker may not write a Secret without the label."""
    token = service_account_token(rig.endpoint, rig.ledger, rig.name)
    path = f"/api/v1/namespaces/{rig.namespace}/secrets?dryRun=All"
    unlabelled = {"metadata": {"name": "tried"}}
    labelled = {"metadata": {"name": "tried", "labels": {"openai-key-rotator.io/managed": "true"}}}
    deadline = time.monotonic() + 60
    while call(rig.endpoint, "POST", path, unlabelled, token=token)[0] != 422:
        assert time.monotonic() < deadline, "the policy never applied"
        time.sleep(0.1)
    assert call(rig.endpoint, "POST", path, labelled, token=token)[0] == 201
    assert call(rig.endpoint, "POST", path, unlabelled)[0] == 201


def test_what_kustomize_installed_becomes_a_release(rig: Released) -> None:
    """With --take-ownership, as the chart's README says; without, Helm leaves it alone. The ledger goes on."""
    rig.ledger = NAME
    mine = rig.directory / "mine"
    mine.mkdir()
    places = [MANIFESTS / "overlays" / "production", MANIFESTS / "crds", MANIFESTS / "crds" / "external-secret"]
    options = [{"name": f"ROTATOR_{name.upper().replace('-', '_')}", "value": value} for name, value in hosts(rig)]
    containers = [{"name": NAME, "env": options}]
    job = {"spec": {"template": {"spec": {"containers": containers}}}}
    patch = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": NAME}, "spec": {"jobTemplate": job}}
    kustomization = {
        "resources": [os.path.relpath(place, mine.resolve()) for place in places],
        "patches": [{"patch": yaml.safe_dump(patch)}],
    }
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    rig.kubectl("apply", "--server-side", "-k", str(mine))
    rig.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    rig.apply_documented(rig.namespace)
    assert rig.worker_runs().run.code == 0
    key, entries = rig.key(), rig.entries()

    command = ["install", NAME, CHART, *rig.where, "--values", "-"]
    refused = run_helm(rig.directory, *command, given=yaml.safe_dump(rig.options))
    assert refused.returncode != 0
    assert "invalid ownership metadata" in refused.stderr
    rig.helm("install", CHART, "--take-ownership", "--force-conflicts", "--wait", "--timeout=60s", values={})
    ended = rig.worker_runs()
    assert ended.run.code == 0, ended.run.output
    assert (rig.key(), rig.entries()) == (key, entries)
    assert len(rig.names("crd")) >= 3
    assert json.loads(rig.kubectl("get", "cronjobs", "-A", "-o", "json"))["items"][1:] == []


def hosts(rig: Released) -> list[tuple[str, str]]:
    options: dict[str, str] = rig.options["options"]
    return list(options.items())


@pytest.mark.parametrize("file", sorted((CHART / "ci").iterdir()), ids=lambda path: path.stem)
def test_the_api_server_takes_what_every_values_file_makes(rig: Released, file: Path) -> None:
    """Field by field: a field that it does not know is refused."""
    where = ("--namespace", rig.ledger, "--set", "namespace.create=false")
    rendered = helm(rig.directory, "template", NAME, CHART, "--values", file, *where)
    for namespace in (rig.ledger, *yaml.safe_load(file.read_text()).get("namespaces", ())):
        rig.kubectl("create", "namespace", namespace)
    crds = [obj for obj in yaml.safe_load_all(rendered) if obj["kind"] == "CustomResourceDefinition"]
    rig.kubectl("apply", "--server-side", "-f", "-", given=yaml.safe_dump_all(crds))
    rig.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", given=rendered)
