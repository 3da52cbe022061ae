"""The manifests as a user applies them, on a whole cluster: what they install is admitted, runs, and may do exactly
what it does. The containers of their pods are run by `kubelet.execute`.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
from tests.cluster.endpoint import Endpoint, call, kubeconfig_for, service_account_token
from tests.cluster.kubelet import Ended, execute
from tests.cluster.rig import Rig, install_crds
from tests.support.scene import PROJECT, ROOT

pytestmark = pytest.mark.cluster

WORKER = "openai-key-rotator"
USER = f"system:serviceaccount:{WORKER}:{WORKER}"
MANIFESTS = ROOT / "manifests"
MAX_PAUSE_ROTATING = {"spec": {"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "1s"}}}


class Installed(Rig):
    """An overlay that was applied, and a tenant's namespace with the documented objects."""

    heard = 0
    """How much the API server had written down before."""

    def cronjob_runs(self, *arguments: str) -> Ended:
        """A Job made from the CronJob by the real controllers, its pod run to its end."""
        (ended,) = self.pods_run(1, *arguments)
        return ended

    def pods_run(self, count: int, *arguments: str) -> list[Ended]:
        """The same of a Job with so many pods, one after the other."""
        job = f"run-{secrets.token_hex(4)}"
        self.kubectl("-n", WORKER, "create", "job", job, f"--from=cronjob/{WORKER}")
        pods: list[dict[str, Any]] = []

        def made() -> bool:
            found = self.kubectl("-n", WORKER, "get", "pods", "-l", f"job-name={job}", "-o", "json")
            pods[:] = json.loads(found)["items"]
            return len(pods) == count

        until(made)
        for pod in pods:
            pod["spec"]["containers"][0]["args"] += arguments
        return [execute(self.endpoint, pod, self.directory / f"{job}-{i}") for i, pod in enumerate(pods)]

    def stop_the_application(self) -> None:
        """Nobody holds a key any more."""
        self.kubectl("-n", self.namespace, "delete", "deployment", "my-app")
        self.kubectl("-n", self.namespace, "wait", "--for=delete", "pod", "--all", "--timeout=60s")

    def as_worker(self, method: str, path: str, body: object) -> int:
        """The status of a request with the worker's own token."""
        token = service_account_token(self.endpoint, WORKER, WORKER)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        return call(self.endpoint, method, path, body, token=token, content_type=kind)[0]

    def may(self, verb: str, resource: str, namespace: str) -> bool:
        """Is the worker's account allowed this there?"""
        attributes = {"verb": verb, "resource": resource, "namespace": namespace}
        review = {"spec": {"user": USER, "groups": ["system:serviceaccounts"], "resourceAttributes": attributes}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        status, answer = call(self.endpoint, "POST", path, review)
        assert status == 201, status
        return bool(answer["status"]["allowed"])

    def command(self, *arguments: str) -> None:
        """A command with the worker's own token, which goes well."""
        token = service_account_token(self.endpoint, WORKER, WORKER)
        done = self.run(*arguments, kubeconfig=kubeconfig_for(self.endpoint, self.directory / "own", token))
        assert done.code == 0, done.output


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Of its own: the manifests' names are theirs alone, and the API server writes down what is asked."""
    if find_binaries(nodes=True) is None:
        pytest.skip("no real cluster: `make control-plane` builds it")
    with control_plane(tmp_path_factory.mktemp("installed"), nodes=True, audited=True) as endpoint:
        install_crds(endpoint)
        yield endpoint


@pytest.fixture
def install(cluster: Endpoint, tmp_path: Path) -> Iterator[Callable[..., Installed]]:
    """Applies an overlay, with components and what a test's OpenAI needs on top, and takes it away again."""
    with ExitStack() as stack:
        yield lambda *parts, central_for="", **settings: stack.enter_context(
            installing(cluster, parts, tmp_path, settings, central_for)
        )


@contextmanager
def installing(
    cluster: Endpoint, parts: tuple[str, ...], directory: Path, settings: dict[str, str], central_for: str = ""
) -> Iterator[Installed]:
    chance = random.Random(secrets.randbits(64))
    openai = OpenAI(lambda: datetime.now(UTC), chance)
    kubernetes = Kubernetes(lambda: datetime.now(UTC), chance)
    with SandboxServer(kubernetes, openai) as server:
        rig = Installed(cluster, openai, server.openai_url, directory)
        rig.ledger, rig.namespace = WORKER, settings.pop("namespace", rig.namespace)
        values = {
            "ROTATOR_ALLOW_HOST": server.openai_url,
            "ROTATOR_FALLBACK_HOST": server.openai_url,
            "ROTATOR_MAX_WAIT": "0s",
            **settings,
        }
        projects = {PROJECT: [central_for]}
        keys = [{"secret": "openai-admin", "host": server.openai_url, "projects": projects}] if central_for else None
        mine = users_overlay(directory, parts, values, keys)
        rig.kubectl("create", "namespace", rig.namespace)
        rig.kubectl("apply", "-k", str(mine))
        rig.apply_documented(rig.namespace)
        patch = json.dumps(MAX_PAUSE_ROTATING)
        rig.kubectl("-n", rig.namespace, "patch", "openai", "openai-generator", "--type=merge", "-p", patch)
        rig.heard = len(written(cluster))
        yield rig
        rig.kubectl("delete", "-k", str(mine), "--timeout=60s")
        # Gone, or the next test's worker would serve it as well.
        rig.kubectl("delete", "namespace", rig.namespace, "--timeout=60s")


def users_overlay(directory: Path, parts: tuple[str, ...], values: dict[str, str], keys: object = None) -> Path:
    """A kustomization over one of ours, as a user writes it: components, some variables, central admin keys."""
    mine = directory / "mine"
    mine.mkdir()
    variables = [{"name": name, "value": value} for name, value in values.items()]
    containers = [{"name": WORKER, "env": variables}]
    job = {"spec": {"template": {"spec": {"containers": containers}}}}
    patch = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": WORKER}, "spec": {"jobTemplate": job}}
    overlay, *components = (os.path.relpath(MANIFESTS / part, mine.resolve()) for part in parts)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [overlay],
        "components": components,
        "patches": [{"patch": yaml.safe_dump(patch)}],
    }
    if keys is not None:
        (mine / "admin-keys.yaml").write_text(yaml.safe_dump(keys))
        made = {"name": "openai-key-rotator-admin-keys", "namespace": WORKER, "files": ["admin-keys.yaml"]}
        kustomization["configMapGenerator"] = [made]
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return mine


Right = tuple[str, str, str]
"""A verb, on a resource, and where: in the ledger's namespace, or in tenants'."""


def written(endpoint: Endpoint) -> list[str]:
    return endpoint.audit_log.read_text().splitlines()


def used(rig: Installed) -> set[Right]:
    """What the worker's account has asked the API server for; it was allowed all of it."""
    found = set()
    for event in map(json.loads, written(rig.endpoint)[rig.heard :]):
        if event["user"]["username"] != USER:
            continue
        assert event["annotations"]["authorization.k8s.io/decision"] == "allow", event["requestURI"]
        place = event["objectRef"]
        resource = "/".join(filter(None, (place.get("apiGroup"), place["resource"], place.get("subresource"))))
        found.add((event["verb"], resource, "ledger" if place.get("namespace") == WORKER else "tenants"))
    return found


def granted(rig: Installed) -> set[Right]:
    """The same of what our roles allow, which are told apart by their names."""
    found = set()
    items = json.loads(rig.kubectl("get", "clusterroles,roles", "-A", "-o", "json"))["items"]
    for role in (item for item in items if item["metadata"]["name"].startswith(WORKER)):
        place = "tenants" if role["metadata"]["name"] == WORKER else "ledger"
        for rule in role["rules"]:
            resources = [f"{group}/{name}".lstrip("/") for group in rule["apiGroups"] for name in rule["resources"]]
            found |= {(verb, resource, place) for verb in rule["verbs"] for resource in resources}
    return found


@pytest.mark.parametrize("overlay", ["overlays/production", "overlays/development"])
def test_a_job_of_the_cronjob_rotates(install: Callable[..., Installed], overlay: str) -> None:
    """Its pod is admitted under the restricted policy; its account's token, and nothing else, lets it in."""
    rig = install(overlay)
    ended = rig.cronjob_runs()
    assert ended.run.code == 0, ended.run.output
    assert rig.openai.key_status(rig.key()) is KeyStatus.ACTIVE
    assert {"rotated": 1, "failed": 0, "exit_code": 0}.items() <= ended.message.items()


def test_each_right_is_used_and_no_other_is_asked_for(install: Callable[..., Installed]) -> None:
    """By all commands that the worker's account is for, from the first key to the end of a target whose admin Secret
    went first. So a right that nobody needs any more fails here, and one that is missing as well.
    """
    rig = install("overlays/production")
    fallback = ["create", "secret", "generic", "openai-admin-fallback", f"--from-literal=api-key={rig.admin_key}"]
    rig.kubectl("-n", WORKER, *fallback)
    for _ in range(2):
        assert rig.cronjob_runs("--force").run.code == 0
        rig.age()
    rig.command("status")
    rig.command("revoke", f"{rig.namespace}/openai-credentials", "--yes", "--output", "table")
    assert len(rig.accounts()) == 1
    rig.age()
    rig.stop_the_application()
    rig.kubectl("-n", rig.namespace, "delete", "secret", "openai-admin-secret")
    rig.kubectl("-n", rig.namespace, "delete", "externalsecret", "openai-credentials")
    rig.kubectl("-n", rig.namespace, "wait", "--for=delete", "secret/openai-credentials", "--timeout=90s")
    for _ in range(2):
        ended = rig.cronjob_runs("--max-wait", "30s")
        rig.age()
    assert ended.run.code == 0, ended.run.output
    assert rig.accounts() == [], ended.run.output
    assert rig.kubectl("-n", WORKER, "get", "keyrotations", "-o", "name") == ""
    assert used(rig) == granted(rig)


def test_a_tenant_without_an_admin_secret_is_served_by_the_operators(install: Callable[..., Installed]) -> None:
    """Although the worker is bound to that namespace: beside the ledger it may read this one Secret, by its name."""
    parts = ("overlays/single-namespace", "components/central-admin-keys")
    rig = install(*parts, namespace="team-a", central_for="team-a")
    rig.kubectl("-n", WORKER, "create", "secret", "generic", "openai-admin", f"--from-literal=api-key={rig.admin_key}")
    rig.kubectl("-n", "team-a", "delete", "secret", "openai-admin-secret")
    patch = json.dumps([{"op": "replace", "path": "/spec/openAiAdminKey", "value": {}}])
    rig.kubectl("-n", "team-a", "patch", "openai", "openai-generator", "--type=json", "-p", patch)
    rig.stop_the_application()
    for arguments in (["--force"], ["--force"], []):
        ended = rig.cronjob_runs(*arguments)
        assert ended.run.code == 0, ended.run.output
        rig.age()
    assert rig.openai.key_status(rig.key()) is KeyStatus.ACTIVE
    assert len(rig.accounts()) == 1, ended.run.output
    assert not rig.may("get", "secrets", WORKER)


def test_the_pods_of_an_indexed_job_share_the_targets(install: Callable[..., Installed]) -> None:
    """Each by the index that the real Job controller gives it."""
    rig = install("overlays/production", "components/shards")
    found = rig.kubectl("-n", rig.namespace, "get", "externalsecret", "openai-credentials", "-o", "json")
    spec = json.loads(found)["spec"]
    kind = {"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "spec": spec}
    for i in range(7):
        rig.apply(kind | {"metadata": {"name": f"creds-{i}", "namespace": rig.namespace}})
    for _ in range(2):
        ended = rig.pods_run(4, "--force")
        assert [pod.run.code for pod in ended] == [0] * 4, [pod.run.output for pod in ended]
        assert {pod.message["shard"] for pod in ended} == {f"{i} of 4" for i in range(4)}
        assert sum(pod.message["rotated"] for pod in ended) == 8
        assert max(pod.message["rotated"] for pod in ended) < 8
        rig.age()
    assert rig.openai.key_status(rig.key()) is KeyStatus.ACTIVE


def test_staging_reads_and_writes_nothing(install: Callable[..., Installed]) -> None:
    """It may not, and it says what it would do."""
    rig = install("overlays/staging")
    ended = rig.cronjob_runs()
    assert ended.run.code == 0, ended.run.output
    assert ended.message["would_rotate"] == 1
    assert rig.accounts() == []
    assert used(rig) == granted(rig)
    assert {verb for verb, _, _ in granted(rig)} == {"get", "list"}


def test_in_a_single_namespace_nothing_else_is_in_reach(install: Callable[..., Installed]) -> None:
    """Neither to read nor to write; and it works there."""
    rig = install("overlays/single-namespace", namespace="team-a")
    ended = rig.cronjob_runs()
    assert ended.run.code == 0, ended.run.output
    assert rig.openai.key_status(rig.key()) is KeyStatus.ACTIVE
    for verb, resource in (("get", "secrets"), ("create", "secrets"), ("patch", "secrets"), ("list", "pods")):
        assert rig.may(verb, resource, "team-a")
        assert not rig.may(verb, resource, "default")
        assert not rig.may(verb, resource, WORKER)


@pytest.mark.parametrize("overlay", ["overlays/production", "overlays/single-namespace"])
def test_secrets_are_never_listed(install: Callable[..., Installed], overlay: str) -> None:
    """Nor watched, nor deleted."""
    rig = install(overlay, namespace="team-a")
    for verb in ("list", "watch", "delete", "deletecollection", "update"):
        assert not any(rig.may(verb, "secrets", namespace) for namespace in ("team-a", "kube-system", WORKER))


def test_without_the_right_to_list_pods_accounts_stay(install: Callable[..., Installed]) -> None:
    """It rotates, and tells which right is missing."""
    rig = install("overlays/development", "components/without-pods")
    for _ in range(3):
        ended = rig.cronjob_runs("--force")
        rig.age()
    assert rig.openai.key_status(rig.key()) is KeyStatus.ACTIVE
    assert len(rig.accounts()) == 3
    assert "list pods" in ended.run.output
    assert "PodsForbidden" in ended.run.output


def test_the_admission_policy_keeps_the_worker_to_its_own_secrets(install: Callable[..., Installed]) -> None:
    """RBAC cannot: it would let it create any, and write every one."""
    rig = install("overlays/production")
    secrets_path = f"/api/v1/namespaces/{rig.namespace}/secrets"
    admin = f"{secrets_path}/openai-admin-secret"
    until(lambda: rig.as_worker("PATCH", admin, {"data": {"x": "eA=="}}) == 422)  # the policy counts after a moment

    label = {"openai-key-rotator.io/managed": "true"}
    assert rig.as_worker("PATCH", admin, {"metadata": {"labels": label}}) == 422
    plain = {"metadata": {"name": "plain"}, "data": {"x": "eA=="}}
    assert rig.as_worker("POST", secrets_path, plain) == 422
    token = {"metadata": {"name": "token", "labels": label}, "type": "kubernetes.io/service-account-token"}
    assert rig.as_worker("POST", secrets_path, token) == 422
    assert rig.cronjob_runs().run.code == 0
    target = f"{secrets_path}/openai-credentials"
    assert rig.as_worker("PATCH", target, {"data": {"y": "eA=="}}) == 200
    assert rig.as_worker("PATCH", target, {"metadata": {"labels": {"openai-key-rotator.io/managed": None}}}) == 422

    # Everybody else is left alone, and a Secret of a user's own is filled once it has the label.
    rig.kubectl("-n", rig.namespace, "label", "secret", "openai-admin-secret", "seen=true")
    rig.kubectl("-n", rig.namespace, "create", "secret", "generic", "own")
    assert rig.as_worker("PATCH", f"{secrets_path}/own", {"metadata": {"labels": label}}) == 422
    rig.kubectl("-n", rig.namespace, "label", "secret", "own", "openai-key-rotator.io/managed=true")
    assert rig.as_worker("PATCH", f"{secrets_path}/own", {"data": {"api_key": "eA=="}}) == 200


def test_a_job_of_its_own_runs_once(install: Callable[..., Installed]) -> None:
    """`manifests/job` beside an overlay."""
    rig = install("overlays/production")
    rig.kubectl("apply", "-k", str(MANIFESTS / "job"))
    rig.kubectl("-n", WORKER, "wait", "--for=condition=Complete", "job/openai-key-rotator-once", "--timeout=60s")
