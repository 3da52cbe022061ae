"""The manifests as a user applies them, on a whole cluster: what they install is admitted, runs, and may do exactly
what it does. The containers of their pods are run by `kubelet.execute`.
"""

from __future__ import annotations

import base64
import json
import os
import random
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
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
from tests.cluster.kubelet import Ended, execute, pods_of_a_job
from tests.cluster.rig import Rig, install_crds
from tests.support.programs import required_program
from tests.support.scene import PROJECT, ROOT
from tests.support.workloads import workload

pytestmark = pytest.mark.cluster

WORKER = "openai-key-rotator"
USER = f"system:serviceaccount:{WORKER}:{WORKER}"
MANIFESTS = ROOT / "manifests"
MAX_PAUSE_ROTATING = {"spec": {"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "1s"}}}


class Installed(Rig):
    """An overlay that was applied, and a tenant's namespace with the documented objects."""

    heard = 0
    """How much the API server had written down before."""

    def cronjob_runs(self, *arguments: str, cronjob: str = WORKER) -> Ended:
        """A Job made from the CronJob by the real controllers, its pod run to its end."""
        (ended,) = self.pods_run(1, *arguments, cronjob=cronjob)
        return ended

    def pods_run(self, count: int, *arguments: str, cronjob: str = WORKER) -> list[Ended]:
        """The same of a Job with so many pods, one after the other."""
        pods = pods_of_a_job(self.endpoint, WORKER, cronjob, count)
        for pod in pods:
            pod["spec"]["containers"][0]["args"] += arguments
        return [execute(self.endpoint, pod, self.directory / pod["metadata"]["name"]) for pod in pods]

    def stop_the_application(self) -> None:
        """Nobody holds a key any more."""
        self.kubectl("-n", self.namespace, "delete", "deployment", "my-app")
        self.kubectl("-n", self.namespace, "wait", "--for=delete", "pod", "--all", "--timeout=300s")

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
        rig.kubectl("delete", "-k", str(mine), "--timeout=300s")
        # Gone, or the next test's worker would serve it as well.
        rig.kubectl("delete", "namespace", rig.namespace, "--timeout=300s")


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
        "patches": [{"patch": yaml.safe_dump(patch), "target": {"kind": "CronJob"}}],
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


def for_tenants(role: dict[str, Any]) -> bool:
    """Does the API server add it to the built-in roles? The worker has none of these."""
    labels = role["metadata"].get("labels", {})
    return any(label.startswith("rbac.authorization.k8s.io/aggregate-to-") for label in labels)


def granted(rig: Installed) -> set[Right]:
    """The same of what our roles allow, which are told apart by their names."""
    found = set()
    items = json.loads(rig.kubectl("get", "clusterroles,roles", "-A", "-o", "json"))["items"]
    for role in (item for item in items if item["metadata"]["name"].startswith(WORKER)):
        if for_tenants(role):
            continue
        place = "tenants" if role["metadata"]["name"] in (WORKER, f"{WORKER}-nodes") else "ledger"
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
    # A container that started after a change: its node is looked at.
    rig.kubectl("-n", rig.namespace, "rollout", "restart", "deployment/my-app")
    rig.kubectl("-n", rig.namespace, "rollout", "status", "deployment/my-app", "--timeout=300s")
    assert rig.cronjob_runs().run.code == 0
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


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_a_tenant_with_a_built_in_role_may_use_our_kinds(install: Callable[..., Installed], role: str) -> None:
    """In its namespace alone; the entries of the ledger are nobody's to write."""
    rig = install("overlays/production")
    rig.kubectl("-n", rig.namespace, "create", "rolebinding", "someone", f"--clusterrole={role}", "--user=someone")

    def may(verb: str, kind: str, namespace: str = rig.namespace, *, subresource: str = "") -> bool:
        asked = ["auth", "can-i", verb, kind, f"--subresource={subresource}", "-n", namespace, "--as=someone"]
        done = subprocess.run(
            [required_program("kubectl"), f"--kubeconfig={rig.endpoint.kubeconfig}", *asked],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() == "yes"

    # The controller that adds rules to the built-in roles needs a moment.
    until(lambda: may("list", "openais.generators.external-secrets.io"))
    until(lambda: may("create", "openais.generators.external-secrets.io") == (role != "view"))
    until(lambda: may("create", "externalsecrets.external-secrets.io") == (role != "view"))
    assert may("get", "keyrotations.openai-key-rotator.io")
    assert not may("patch", "keyrotations.openai-key-rotator.io")
    assert not may("patch", "openais.generators.external-secrets.io", subresource="status")
    assert not may("list", "openais.generators.external-secrets.io", "default")
    assert not may("get", "keyrotations.openai-key-rotator.io", WORKER)


def test_staging_reads_and_writes_nothing(install: Callable[..., Installed]) -> None:
    """It may not, and it says what it would do."""
    rig = install("overlays/staging")
    ended = rig.cronjob_runs()
    assert ended.run.code == 0, ended.run.output
    assert ended.message["would_rotate"] == 1
    assert rig.accounts() == []
    assert used(rig) == granted(rig)
    assert {verb for verb, _, _ in granted(rig)} == {"get", "list"}


@pytest.mark.parametrize("overlay", ["overlays/production", "overlays/staging", "overlays/single-namespace"])
def test_an_audit_needs_no_right_to_write(install: Callable[..., Installed], overlay: str) -> None:
    """Its Job tells the counts in its pod's message, and fails where it finds something."""
    # As the overlay itself says it to its own CronJobs; a component on top of an overlay comes after that.
    rig = install(overlay, "components/audit", namespace="team-a", ROTATOR_NAMESPACE="team-a")
    rig.openai.add_account(PROJECT, "somebody")
    ended = rig.cronjob_runs(cronjob=f"{WORKER}-audit")
    assert ended.run.code == 1, ended.run.output
    assert {"projects_not_asked": 0, "accounts": 1, "by_finding": {"NoEnd": 1}}.items() <= ended.message.items()
    assert "NoEnd (1)" in ended.run.output
    assert {verb for verb, _, _ in used(rig)} == {"get", "list"}


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
    rig.kubectl("-n", WORKER, "wait", "--for=condition=Complete", "job/openai-key-rotator-once", "--timeout=300s")


# --- the component restart-workloads

RESTART = "components/restart-workloads"
STAMP = "kubectl.kubernetes.io/restartedAt"


def asking(rig: Installed, value: str) -> None:
    annotation = f"openai-key-rotator.io/restart={value}"
    rig.kubectl("-n", rig.namespace, "annotate", "--overwrite", "externalsecret", "openai-credentials", annotation)


def stamp_of(rig: Installed) -> str | None:
    template = rig.get("deployment", "my-app")["spec"]["template"]
    stamp: str | None = template["metadata"].get("annotations", {}).get(STAMP)
    return stamp


def policy_counts(rig: Installed, path: str) -> None:
    """That takes a moment; until then each of these is a change."""
    until(lambda: rig.as_worker("PATCH", path, {"metadata": {"labels": {"try": secrets.token_hex(4)}}}) == 422)


def rolled_out(rig: Installed) -> None:
    rig.kubectl("-n", rig.namespace, "rollout", "status", "deployment/my-app", "--timeout=300s")


def test_the_component_gives_the_right_to_restart_and_each_verb_is_used(install: Callable[..., Installed]) -> None:
    """Beside the rights that are there without it: three verbs on three kinds."""
    rig = install("overlays/production", RESTART)
    rolled_out(rig)
    for kind in ("statefulset", "daemonset"):
        rig.apply(workload(kind, "other", namespace=rig.namespace))
    rig.kubectl("-n", rig.namespace, "rollout", "status", "daemonset/other", "--timeout=300s")
    rig.kubectl("-n", rig.namespace, "rollout", "status", "statefulset/other", "--timeout=300s")
    # The policy lets each of them pass.
    policy_counts(rig, f"/apis/apps/v1/namespaces/{rig.namespace}/deployments/my-app")
    asking(rig, "auto")
    assert rig.cronjob_runs().run.code == 0
    rig.age()
    ended = rig.cronjob_runs("--force")
    assert ended.run.code == 0, ended.run.output
    assert {"restarted": 3, "restart_blocked": 0}.items() <= ended.message.items(), ended.run.output
    asking(rig, "deployment/my-app,statefulset/other,daemonset/other")
    rolled_out(rig)
    rig.kubectl("-n", rig.namespace, "rollout", "status", "daemonset/other", "--timeout=300s")
    rig.kubectl("-n", rig.namespace, "rollout", "status", "statefulset/other", "--timeout=300s")
    rig.age()
    ended = rig.cronjob_runs("--force")
    assert {"restarted": 3, "restart_blocked": 0}.items() <= ended.message.items(), ended.run.output
    given = {right for right in granted(rig) if right[1].startswith("apps/")}
    kinds = ("apps/deployments", "apps/statefulsets", "apps/daemonsets")
    assert given == {(verb, kind, "tenants") for verb in ("get", "list", "patch") for kind in kinds}
    assert {right for right in used(rig) if right[1].startswith("apps/")} == given
    assert not rig.may("create", "deployments", rig.namespace)


def test_without_the_component_the_restart_is_told_and_nothing_fails(install: Callable[..., Installed]) -> None:
    rig = install("overlays/production")
    rolled_out(rig)
    asking(rig, "deployment/my-app")
    assert rig.cronjob_runs().run.code == 0
    rig.age()
    ended = rig.cronjob_runs("--force")
    assert ended.run.code == 0, ended.run.output
    assert {"rotated": 1, "restarted": 0, "restart_blocked": 1}.items() <= ended.message.items()
    assert "restart-workloads gives the right" in ended.run.output
    assert stamp_of(rig) is None
    shown = rig.kubectl("-n", WORKER, "get", "keyrotations", "-o", "wide")
    assert shown.splitlines()[1].split()[-1] == "Blocked"


def test_the_component_keeps_the_worker_to_the_one_annotation(install: Callable[..., Installed]) -> None:
    """RBAC cannot: with it alone the worker could run any image as any account."""
    rig = install("overlays/production", RESTART)
    path = f"/apis/apps/v1/namespaces/{rig.namespace}/deployments/my-app"
    policy_counts(rig, path)
    pod = {"containers": [{"name": "other", "image": "other"}]}
    for refused in (
        {"spec": {"template": {"spec": {"serviceAccountName": "other"}}}},
        {"spec": {"template": {"spec": pod}}},
        {"spec": {"template": {"metadata": {"labels": {"more": "x"}}}}},
        {"spec": {"template": {"metadata": {"annotations": {"more": "x"}}}}},
        {"spec": {"paused": True}},
        {"metadata": {"labels": {"more": "x"}}},
        {"metadata": {"annotations": {"more": "x"}}},
        {"metadata": {"finalizers": ["example.org/x"]}},
    ):
        assert rig.as_worker("PATCH", path, refused) == 422, refused
    stamped = {"spec": {"template": {"metadata": {"annotations": {STAMP: "2026-11-24T10:00:00Z"}}}}}
    assert rig.as_worker("PATCH", path, stamped) == 200
    assert stamp_of(rig) == "2026-11-24T10:00:00Z"
    rig.kubectl("-n", rig.namespace, "scale", "deployment/my-app", "--replicas=2")  # everybody else is left alone


# --- the component rotate-admin-keys

ROTATE = "components/rotate-admin-keys"
ADMIN_SECRET = f"/api/v1/namespaces/{WORKER}/secrets/openai-admin-fallback"
ASKED = "openai-key-rotator.io/admin-key-interval=1h"


def beside_the_ledger(rig: Installed, *, annotated: bool = True) -> None:
    """The fallback key's Secret, whose key is a month old."""
    rig.openai.date_admin_key(rig.admin_key, datetime.now(UTC) - timedelta(days=30))
    made = ["create", "secret", "generic", "openai-admin-fallback", f"--from-literal=api-key={rig.admin_key}"]
    rig.kubectl("-n", WORKER, *made)
    if annotated:
        rig.kubectl("-n", WORKER, "annotate", "secret", "openai-admin-fallback", ASKED)


def admin_key_of(rig: Installed) -> str:
    stored = rig.kubectl("-n", WORKER, "get", "secret", "openai-admin-fallback", "-o", "jsonpath={.data.api-key}")
    return base64.b64decode(stored).decode()


def guarded(rig: Installed) -> bool:
    """Has the API server heard of the policy? Until then it lets a label through, and the same one ever after."""
    label = f"at-{time.monotonic_ns()}"
    return rig.as_worker("PATCH", ADMIN_SECRET, {"metadata": {"labels": {"x": label}}}) == 422


def two_days_pass(rig: Installed, former: str) -> None:
    """For what the ledger knows of the fallback's keys, and without a use of the former one."""
    long_ago = datetime.now(UTC) - timedelta(days=2)
    key = rig.openai.admin_key(former)
    assert key is not None
    key.uses[:] = [long_ago]
    kind = "adminkeyrotation.openai-key-rotator.io/openai-admin-fallback"
    keys = json.loads(rig.kubectl("-n", WORKER, "get", kind, "-o", "json"))["status"]["keys"]
    for recorded in keys:
        recorded |= {"at": long_ago.strftime("%Y-%m-%dT%H:%M:%SZ")}
        recorded |= {"supersededAt": recorded["at"]} if "supersededAt" in recorded else {}
    patch = json.dumps({"status": {"keys": keys}})
    rig.kubectl("-n", WORKER, "patch", kind, "--type=merge", "-p", patch)


def test_the_component_gives_the_right_to_replace_admin_keys_and_each_verb_is_used(
    install: Callable[..., Installed],
) -> None:
    """Beside the rights that are there without it. The tenant's own key is another one."""
    rig = install("overlays/production", ROTATE)
    beside_the_ledger(rig)
    own = rig.openai.add_admin_key("acme")
    rig.kubectl("-n", rig.namespace, "delete", "secret", "openai-admin-secret")
    made = ["create", "secret", "generic", "openai-admin-secret", f"--from-literal=api-key={own}"]
    rig.kubectl("-n", rig.namespace, *made)
    until(lambda: guarded(rig))
    ended = rig.cronjob_runs()
    assert ended.run.code == 0, ended.run.output
    assert {"admin_keys_rotated": 1, "admin_keys_failed": 0}.items() <= ended.message.items(), ended.run.output
    new = admin_key_of(rig)
    assert new != rig.admin_key
    assert rig.openai.use_admin_key(new)
    shown = rig.kubectl("-n", WORKER, "get", "adminkeyrotations").splitlines()
    assert shown[1].split()[:2] == ["openai-admin-fallback", "2"], shown

    # Two days later nobody has used the former one, and nobody asks for a rotation any more.
    two_days_pass(rig, rig.admin_key)
    rig.kubectl(
        "-n", WORKER, "annotate", "secret", "openai-admin-fallback", "openai-key-rotator.io/admin-key-interval-"
    )
    ended = rig.cronjob_runs()
    assert ended.run.code == 0, ended.run.output
    assert rig.openai.admin_key(rig.admin_key) is None, ended.run.output

    # The entry stays while the Secret has a key that the worker made, and goes with that one.
    theirs = rig.openai.add_admin_key("acme")
    rig.kubectl(
        "-n", WORKER, "patch", "secret", "openai-admin-fallback", "-p", json.dumps({"stringData": {"api-key": theirs}})
    )
    assert rig.cronjob_runs().run.code == 0
    two_days_pass(rig, new)
    for _ in range(2):
        ended = rig.cronjob_runs()
        assert ended.run.code == 0, ended.run.output
    assert rig.openai.admin_key(new) is None, ended.run.output
    assert rig.kubectl("-n", WORKER, "get", "adminkeyrotations", "-o", "name") == ""

    rules = rig.get("role", "openai-key-rotator-admin-keys", WORKER)["rules"]
    given = {
        (verb, "/".join(filter(None, (group, resource))), "ledger")
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert given <= used(rig)
    assert not rig.may("delete", "secrets", WORKER)


def test_the_policy_lets_the_worker_change_the_named_admin_keys_alone(install: Callable[..., Installed]) -> None:
    """And of these the values, only while their annotation asks for it."""
    rig = install("overlays/production", ROTATE)
    beside_the_ledger(rig)
    rig.kubectl("-n", WORKER, "create", "secret", "generic", "other", "--from-literal=api-key=x")
    rig.kubectl("-n", WORKER, "annotate", "secret", "other", ASKED)
    until(lambda: guarded(rig))
    value = {"data": {"api-key": "eA=="}}
    name = {"metadata": {"annotations": {"openai-key-rotator.io/admin-key-name": "n"}}}
    assert rig.as_worker("PATCH", ADMIN_SECRET, value | name) == 200
    for refused in (
        {"data": {"more": "eA=="}},
        {"data": {"api-key": None}},
        {"metadata": {"annotations": {"more": "x"}}},
        {"metadata": {"annotations": {"openai-key-rotator.io/admin-key-interval": None}}},
        {"metadata": {"annotations": {"openai-key-rotator.io/admin-key-interval": "2h"}}},
        {"metadata": {"labels": {"openai-key-rotator.io/managed": "true"}}},
        {"metadata": {"finalizers": ["example.org/x"]}},
        {"immutable": True},
    ):
        assert rig.as_worker("PATCH", ADMIN_SECRET, refused) == 422, refused
    assert rig.as_worker("PATCH", f"/api/v1/namespaces/{WORKER}/secrets/other", value) == 422
    # A Secret of that name elsewhere is a tenant's.
    made = ["create", "secret", "generic", "openai-admin-fallback", "--from-literal=api-key=x"]
    rig.kubectl("-n", rig.namespace, *made)
    rig.kubectl("-n", rig.namespace, "annotate", "secret", "openai-admin-fallback", ASKED)
    assert rig.as_worker("PATCH", f"/api/v1/namespaces/{rig.namespace}/secrets/openai-admin-fallback", value) == 422
    rig.kubectl(
        "-n", WORKER, "annotate", "secret", "openai-admin-fallback", "openai-key-rotator.io/admin-key-interval-"
    )
    assert rig.as_worker("PATCH", ADMIN_SECRET, value) == 422


def test_without_the_component_the_wish_is_told_and_nothing_fails(install: Callable[..., Installed]) -> None:
    rig = install("overlays/production")
    beside_the_ledger(rig)
    until(lambda: rig.as_worker("PATCH", ADMIN_SECRET, {"data": {"x": "eA=="}}) == 422)
    ended = rig.cronjob_runs()
    assert ended.run.code == 0, ended.run.output
    assert {"admin_keys_rotated": 0, "admin_keys_blocked": 1}.items() <= ended.message.items(), ended.run.output
    assert "the component rotate-admin-keys" in ended.run.output
    assert admin_key_of(rig) == rig.admin_key
    assert len(rig.openai.admin_keys("acme")) == 1
