"""Overlays as people write them: over a base that is moved, renamed, labelled or remote, and over each other. kubectl
renders them, the real API server takes them, and then all that names something else has to name the right thing: the
account may do what it must, the policy is about it, its ledger is beside it, and the image is the one asked for.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.http_server import SandboxServer
from sandbox.kubernetes.server import Kubernetes
from sandbox.openai.server import OpenAI
from tests.cluster.control_plane import control_plane, find_binaries
from tests.cluster.endpoint import Endpoint, call, kubectl, service_account_token
from tests.cluster.kubelet import Ended, execute, pods_of_a_job
from tests.cluster.rig import Rig, install_crds
from tests.support.programs import required_program
from tests.support.scene import ROOT
from tests.support.version import VERSION
from tests.support.workloads import workload

pytestmark = pytest.mark.cluster

WORKER = "openai-key-rotator"
MANIFESTS = ROOT / "manifests"
DIGEST = "sha256:" + "0123456789abcdef" * 4
LABEL = {"openai-key-rotator.io/managed": "true"}
AGGREGATED = "rbac.authorization.k8s.io/aggregate-to-edit"
"""A role with this label is for tenants; the worker has none of these."""
NAMED = {"name": WORKER, "newName": "registry.acme.example/rotator"}

TENANTS = (
    ("list", "generators.external-secrets.io", "openais"),
    ("list", "external-secrets.io", "externalsecrets"),
    ("patch", "external-secrets.io", "externalsecrets/status"),
    ("get", "", "secrets"),
    ("create", "", "secrets"),
    ("patch", "", "secrets"),
    ("list", "", "pods"),
    ("create", "", "events"),
    ("patch", "generators.external-secrets.io", "openais/status"),
)
"""What the worker does in tenants' namespaces (test_installed: each right is used, and no other)."""
BESIDE = (
    ("get", "", "namespaces"),
    *((verb, "openai-key-rotator.io", "keyrotations") for verb in ("get", "list", "create", "patch", "delete")),
    ("list", "openai-key-rotator.io", "adminkeyrotations"),
)
"""And in its own."""
READS = ("get", "list")

Kustomization = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Overlay:
    """Folders with kustomizations, the last of which is applied, and what has to come of them.

    `MANIFESTS/` in a resource or component is our folder; `GIT/` is a repository of it, far away.
    """

    name: str
    layers: dict[str, Kustomization]
    namespace: str = WORKER
    account: str = WORKER
    """What the ServiceAccount and the CronJob are called."""
    image: str = f"openai-key-rotator:{VERSION}"
    policy: bool = True
    tenants: str = ""
    """The only namespace that is served; otherwise all are."""
    without: tuple[tuple[str, str], ...] = ()
    """Verbs on resources that this overlay takes away."""
    reads: bool = False
    """It may read and nothing else."""
    restarts: bool = False
    """It may restart workloads, and change nothing else of them."""
    shards: int = 1


def on(resource: str, **more: Any) -> Kustomization:
    return {"resources": [resource], **more}


PRODUCTION = "MANIFESTS/overlays/production"
MOVED = {"namespace": "acme-keys"}

OVERLAYS = [
    Overlay("as-it-is", {"mine": on(PRODUCTION)}),
    Overlay(
        "image-by-its-documented-name-with-a-digest",
        {"mine": on(PRODUCTION, images=[NAMED | {"digest": DIGEST}])},
        image=f"{NAMED['newName']}@{DIGEST}",
    ),
    Overlay(
        "image-with-another-tag",
        {"mine": on(PRODUCTION, images=[{"name": WORKER, "newTag": "7"}])},
        image=f"{WORKER}:7",
    ),
    Overlay("namespace", {"mine": on(PRODUCTION, **MOVED)}, namespace="acme-keys"),
    Overlay("name-prefix", {"mine": on(PRODUCTION, namePrefix="acme-")}, account=f"acme-{WORKER}"),
    Overlay(
        "namespace-prefix-and-suffix",
        {"mine": on(PRODUCTION, namespace="acme-both", namePrefix="acme-", nameSuffix="-eu")},
        namespace="acme-both",
        account=f"acme-{WORKER}-eu",
    ),
    Overlay(
        "labels-over-ours",
        {
            "mine": on(
                PRODUCTION,
                labels=[{"pairs": {"app.kubernetes.io/name": "keys", "team": "acme"}, "includeTemplates": True}],
                commonAnnotations={"acme.example/owner": "platform"},
            )
        },
    ),
    Overlay(
        "labels-in-selectors",
        {"mine": on(PRODUCTION, namespace="acme-labels", commonLabels={"app.kubernetes.io/name": "keys"})},
        namespace="acme-labels",
    ),
    Overlay(
        "overlays-of-overlays",
        {
            "platform": on(
                PRODUCTION,
                namespace="acme-first",
                namePrefix="acme-",
                images=[NAMED | {"newTag": "1"}],
                patches=[
                    {
                        "patch": yaml.safe_dump([{"op": "replace", "path": "/spec/schedule", "value": "*/5 * * * *"}]),
                        "target": {"kind": "CronJob", "name": WORKER},
                    }
                ],
            ),
            "europe": on(
                "../platform",
                namespace="acme-second",
                namePrefix="eu-",
                images=[{"name": NAMED["newName"], "newTag": "2"}],
                patches=[{"path": "more.yaml"}],
            ),
        },
        namespace="acme-second",
        account=f"eu-acme-{WORKER}",
        image=f"{NAMED['newName']}:2",
    ),
    Overlay(
        "remote-base",
        {"mine": on("GIT//manifests/overlays/production?ref=v1", namespace="acme-remote", images=[NAMED])},
        namespace="acme-remote",
        image=f"{NAMED['newName']}:{VERSION}",
    ),
    Overlay(
        "components-over-a-moved-base",
        {
            "moved": on("MANIFESTS/base", namespace="acme-parts", namePrefix="acme-"),
            "mine": on(
                "../moved",
                components=[
                    "MANIFESTS/components/fallback-admin-key",
                    "MANIFESTS/components/admission-policy",
                    "MANIFESTS/components/shards",
                    "MANIFESTS/components/without-pods",
                ],
                namespace="acme-parts",
            ),
        },
        namespace="acme-parts",
        account=f"acme-{WORKER}",
        without=(("list", "pods"),),
        shards=4,
    ),
    Overlay(
        "policy-over-a-moved-base",
        {
            "moved": on("MANIFESTS/base", namespace="acme-policy", namePrefix="acme-"),
            "mine": on("../moved", components=["MANIFESTS/components/admission-policy"]),
            "renamed": on("../mine", nameSuffix="-eu"),
        },
        namespace="acme-policy",
        account=f"acme-{WORKER}-eu",
    ),
    Overlay(
        "restart-workloads-with-everything-renamed",
        {
            "mine": on(
                PRODUCTION,
                components=["MANIFESTS/components/restart-workloads"],
                namespace="acme-restart",
                namePrefix="acme-",
            ),
            "again": on("../mine", namespace="acme-again", nameSuffix="-eu"),
        },
        namespace="acme-again",
        account=f"acme-{WORKER}-eu",
        restarts=True,
    ),
    Overlay(
        "restart-workloads-over-a-moved-base",
        {
            "moved": on("MANIFESTS/base", namespace="acme-stamps", namePrefix="acme-"),
            "mine": on("../moved", components=["MANIFESTS/components/restart-workloads"]),
        },
        namespace="acme-stamps",
        account=f"acme-{WORKER}",
        policy=False,
        restarts=True,
    ),
    Overlay(
        "central-admin-keys-with-everything-renamed",
        {
            "mine": on(
                PRODUCTION,
                components=["MANIFESTS/components/central-admin-keys"],
                namespace="acme-central",
                namePrefix="acme-",
                configMapGenerator=[
                    {"name": "openai-key-rotator-admin-keys", "namespace": WORKER, "literals": ["admin-keys.yaml=[]"]}
                ],
            )
        },
        namespace="acme-central",
        account=f"acme-{WORKER}",
    ),
    Overlay(
        "single-namespace-moved",
        {
            "moved": on("MANIFESTS/base", namespace="acme-single"),
            "mine": on("../moved", components=["MANIFESTS/components/single-namespace"], namePrefix="acme-"),
        },
        namespace="acme-single",
        account=f"acme-{WORKER}",
        policy=False,
        tenants="team-a",
    ),
    Overlay(
        "staging-moved",
        {"mine": on("MANIFESTS/overlays/staging", namespace="acme-staging", namePrefix="acme-", images=[NAMED])},
        namespace="acme-staging",
        account=f"acme-{WORKER}",
        image=f"{NAMED['newName']}:{VERSION}",
        policy=False,
        reads=True,
        without=(("list", "pods"),),
    ),
    Overlay(
        "a-job-beside-it",
        {"mine": {"resources": [PRODUCTION, "MANIFESTS/job"], "namespace": "acme-job", "namePrefix": "acme-"}},
        namespace="acme-job",
        account=f"acme-{WORKER}",
    ),
]

MORE = yaml.safe_dump(
    {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": WORKER},
        "spec": {"jobTemplate": {"spec": {"activeDeadlineSeconds": 1000}}},
    }
)
"""A patch that names the CronJob as the documentation does."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Of its own: the manifests' names are theirs alone, and pods get a token. Nothing schedules them."""
    if find_binaries(controllers=True) is None:
        pytest.skip("no real cluster: `make control-plane` builds it")
    with control_plane(tmp_path_factory.mktemp("overlays"), controllers=True, audited=True) as endpoint:
        install_crds(endpoint)
        yield endpoint


def written(overlay: Overlay, directory: Path) -> Path:
    """The overlay's folders, and the one that is applied."""
    for name, layer in overlay.layers.items():
        place = directory / name
        place.mkdir()
        ours = os.path.relpath(MANIFESTS, place.resolve())
        text = json.dumps(layer).replace("MANIFESTS/", f"{ours}/")
        if "GIT/" in text:
            text = text.replace("GIT/", f"{repository(directory / 'far-away')}/")
        (place / "kustomization.yaml").write_text(text)
        (place / "more.yaml").write_text(MORE)
    return place


def repository(place: Path) -> str:
    """A git repository with our manifests and a tag, as kustomize reaches one without a network."""
    shutil.copytree(MANIFESTS, place / "manifests")
    author = ["-c", "user.name=nobody", "-c", "user.email=nobody@acme.example"]
    for arguments in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "-m", "all"], ["tag", "v1"]):
        subprocess.run([required_program("git"), *arguments], cwd=place, check=True, capture_output=True)
    return place.as_uri()


@dataclass(frozen=True, slots=True)
class Applied:
    """An overlay on the API server, and a tenant's namespace with the documented objects."""

    overlay: Overlay
    rig: Rig
    objects: list[dict[str, Any]]
    """As they were rendered."""

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """As the API server has them."""
        names = [
            (obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace", "default"))
            for obj in self.objects
            if obj["kind"] in kinds
        ]
        return [self.rig.get(kind, name, namespace) for kind, name, namespace in names]

    def one(self, kind: str) -> dict[str, Any]:
        (found,) = self.of(kind)
        return found

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.overlay.namespace}:{self.overlay.account}"

    def may(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """What the API server says of the worker's user."""
        resource, _, subresource = resource.partition("/")
        asked = {"verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace}
        if resource == "namespaces":
            asked["name"] = namespace
        review = {"spec": {"user": self.user, "groups": ["system:serviceaccounts"], "resourceAttributes": asked}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        status, answer = call(self.rig.endpoint, "POST", path, review)
        assert status == 201, status
        return bool(answer["status"]["allowed"])

    def create_secret(self, token: str | None, **metadata: Any) -> int:
        """Only tried; the status."""
        secret = {"metadata": {"name": "tried", **metadata}}
        path = f"/api/v1/namespaces/{self.rig.namespace}/secrets?dryRun=All"
        return call(self.rig.endpoint, "POST", path, secret, token=token)[0]


@pytest.fixture(params=OVERLAYS, ids=lambda overlay: overlay.name)
def applied(request: pytest.FixtureRequest, cluster: Endpoint, tmp_path: Path) -> Iterator[Applied]:
    with applying(request.param, cluster, tmp_path) as applied:
        yield applied


@contextmanager
def applying(overlay: Overlay, cluster: Endpoint, directory: Path) -> Iterator[Applied]:
    place = written(overlay, directory)
    rendered = list(yaml.safe_load_all(kubectl(cluster, "kustomize", place)))
    chance = random.Random(secrets.randbits(64))
    openai = OpenAI(lambda: datetime.now(UTC), chance)
    with SandboxServer(Kubernetes(lambda: datetime.now(UTC), chance), openai) as server:
        rig = Rig(cluster, openai, server.openai_url, directory)
        rig.namespace, rig.ledger = overlay.tenants or rig.namespace, overlay.namespace
        rig.kubectl("create", "namespace", rig.namespace)
        rig.kubectl("apply", "-k", str(place))
        try:
            rig.apply_documented(rig.namespace)
            yield Applied(overlay, rig, rendered)
        finally:
            # The namespaces go by themselves; their names are used once, but for the usual one, which stays.
            gone = [obj for obj in rendered if obj["kind"] != "Namespace"]
            rig.kubectl("delete", "--wait=false", "-f", "-", given=yaml.safe_dump_all(gone))
            rig.kubectl("delete", "namespace", rig.namespace, "--wait=false")


def test_an_overlay_leads_to_one_worker_with_its_rights_policy_ledger_and_image(applied: Applied) -> None:
    """All in one test, for applying takes longest."""
    overlay = applied.overlay
    cronjob = applied.one("CronJob")
    assert (cronjob["metadata"]["namespace"], cronjob["metadata"]["name"]) == (overlay.namespace, overlay.account)
    bindings_are_about_the_worker(applied)
    the_image_and_the_account_are_the_right_ones(applied, cronjob)
    the_network_policy_selects_its_pods(applied, cronjob)
    it_may_do_what_it_must(applied)
    the_policy_is_about_it(applied)
    it_may_restart_and_nothing_else(applied)
    its_pods_run_well_with_the_ledger_beside_them(applied, cronjob)


def bindings_are_about_the_worker(applied: Applied) -> None:
    account = {"kind": "ServiceAccount", "name": applied.overlay.account, "namespace": applied.overlay.namespace}
    assert applied.one("ServiceAccount")["metadata"]["name"] == account["name"]
    bindings = applied.of("ClusterRoleBinding", "RoleBinding")
    assert len(bindings) >= 2
    assert [binding["subjects"] for binding in bindings] == [[account]] * len(bindings)
    roles = {
        (role["kind"], role["metadata"]["name"])
        for role in applied.of("ClusterRole", "Role")
        if AGGREGATED not in role["metadata"]["labels"]
    }
    assert {(binding["roleRef"]["kind"], binding["roleRef"]["name"]) for binding in bindings} == roles


def the_image_and_the_account_are_the_right_ones(applied: Applied, cronjob: dict[str, Any]) -> None:
    jobs = [cronjob["spec"]["jobTemplate"], *applied.of("Job")]
    for pod in (job["spec"]["template"]["spec"] for job in jobs):
        assert [container["image"] for container in pod["containers"]] == [applied.overlay.image]
        assert pod["serviceAccountName"] == applied.overlay.account


def the_network_policy_selects_its_pods(applied: Applied, cronjob: dict[str, Any]) -> None:
    selector = applied.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    for job in [cronjob["spec"]["jobTemplate"], *applied.of("Job")]:
        assert selector.items() <= job["spec"]["template"]["metadata"]["labels"].items()


def it_may_do_what_it_must(applied: Applied) -> None:
    overlay, tenants = applied.overlay, applied.rig.namespace
    for verb, group, resource in TENANTS:
        wanted = (verb, resource) not in overlay.without and (verb in READS or not overlay.reads)
        assert applied.may(verb, group, resource, tenants) == wanted, (verb, resource)
        if overlay.tenants:
            assert not applied.may(verb, group, resource, overlay.namespace), (verb, resource)
    for verb, group, resource in BESIDE:
        wanted = not overlay.reads or (verb, resource) in (
            ("get", "namespaces"),
            ("list", "keyrotations"),
        )
        assert applied.may(verb, group, resource, overlay.namespace) == wanted, (verb, resource)
        assert not applied.may(verb, group, resource, tenants), (verb, resource)


def the_policy_is_about_it(applied: Applied) -> None:
    """And about nobody else; the API server needs a moment to heed it."""
    expected = int(applied.overlay.policy) + int(applied.overlay.restarts)
    assert len(applied.of("ValidatingAdmissionPolicy")) == expected
    if not applied.overlay.policy:
        return
    token = service_account_token(applied.rig.endpoint, applied.overlay.namespace, applied.overlay.account)
    deadline = time.monotonic() + 60
    while applied.create_secret(token) != 422:
        assert time.monotonic() < deadline, f"the policy never applied: {applied.create_secret(token)}"
        time.sleep(0.1)
    assert applied.create_secret(token, labels=LABEL) == 201
    assert applied.create_secret(None) == 201


def it_may_restart_and_nothing_else(applied: Applied) -> None:
    """By RBAC alone it could run any image of its own choice."""
    may_patch = applied.may("patch", "apps", "deployments", applied.rig.namespace)
    assert may_patch == applied.overlay.restarts
    if not may_patch:
        return
    rig = applied.rig
    rig.apply(workload("deployment", "app", namespace=rig.namespace))
    path = f"/apis/apps/v1/namespaces/{rig.namespace}/deployments/app?dryRun=All"
    token = service_account_token(rig.endpoint, applied.overlay.namespace, applied.overlay.account)

    def patched(template: dict[str, Any], token: str | None) -> int:
        body, kind = {"spec": {"template": template}}, "application/merge-patch+json"
        return call(rig.endpoint, "PATCH", path, body, token=token, content_type=kind)[0]

    other = {"spec": {"serviceAccountName": "other"}}
    deadline = time.monotonic() + 60
    while patched(other, token) != 422:
        assert time.monotonic() < deadline, f"the policy never applied: {patched(other, token)}"
        time.sleep(0.1)
    assert patched({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}, token) == 200
    assert patched(other, None) == 200


def its_pods_run_well_with_the_ledger_beside_them(applied: Applied, cronjob: dict[str, Any]) -> None:
    overlay, rig = applied.overlay, applied.rig
    ended = pods_run(applied, cronjob)
    assert [pod.run.code for pod in ended] == [0] * overlay.shards, [pod.run.output for pod in ended]
    rotated = sum(pod.message.get("rotated", 0) for pod in ended)
    assert rotated == (0 if overlay.reads else 1)
    entries = rig.kubectl("-n", overlay.namespace, "get", "keyrotations", "-o", "name")
    assert (f"/{rig.namespace}.openai-credentials" in entries) == (rotated == 1)


def pods_run(applied: Applied, cronjob: dict[str, Any]) -> list[Ended]:
    """The pods of a Job of the CronJob, run to their end, for the tenant's namespace alone and with its OpenAI."""
    overlay, rig = applied.overlay, applied.rig
    pods = pods_of_a_job(rig.endpoint, overlay.namespace, cronjob["metadata"]["name"], overlay.shards)
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        given = {variable["name"] for variable in container["env"]}
        container["env"].append({"name": "ROTATOR_ALLOW_HOST", "value": rig.openai_url})
        if "ROTATOR_NAMESPACE" not in given:
            container["env"].append({"name": "ROTATOR_NAMESPACE", "value": rig.namespace})
    return [execute(rig.endpoint, pod, rig.directory / f"pod-{number}") for number, pod in enumerate(pods)]


def test_a_namespace_on_top_of_single_namespace_is_told(cluster: Endpoint, tmp_path: Path) -> None:
    """It moves the RoleBinding too, which no kustomization can prevent: the worker says what it may not."""
    overlay = Overlay(
        "wrong",
        {"mine": on("MANIFESTS/overlays/single-namespace", namespace="acme-wrong")},
        namespace="acme-wrong",
        tenants="team-a",
    )
    with applying(overlay, cluster, tmp_path) as applied:
        (ended,) = pods_run(applied, applied.one("CronJob"))
        assert ended.run.code == 3
        assert ended.message["reason"] == "Forbidden"
        assert re.search("not allowed to list .* in namespace team-a", ended.message["message"])
