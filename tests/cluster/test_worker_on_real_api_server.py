"""`python run.py` against the real API server and an OpenAI over HTTP: what a user does, and what a user sees."""

from __future__ import annotations

import json
import random
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.http_server import SandboxServer
from sandbox.kubernetes.server import Kubernetes
from sandbox.openai.server import OpenAI
from sandbox.openai.state import KeyStatus
from tests.cluster.control_plane import control_plane, find_binaries
from tests.cluster.endpoint import Endpoint, call, kubeconfig_for, write_private
from tests.cluster.rig import CRDS, PREFIX, Rig, install_crds
from tests.cluster.rights import grant
from tests.support.scene import documented
from worker.kubernetes.secret import CURRENT, MANAGED
from worker.model.times import format_time


@pytest.fixture
def rig(real_api_server: Endpoint, tmp_path: Path) -> Iterator[Rig]:
    def now() -> datetime:
        return datetime.now(UTC)

    chance = random.Random(secrets.randbits(64))
    openai = OpenAI(now, chance)
    with SandboxServer(Kubernetes(now, chance), openai) as server:
        rig = Rig(real_api_server, openai, server.openai_url, tmp_path)
        install_crds(real_api_server, rules=False)
        for name in (rig.namespace, rig.ledger):
            rig.kubectl("create", "namespace", name)
        yield rig
        rig.kubectl("delete", "namespace", rig.namespace, rig.ledger, "--wait=false")


def test_the_documented_objects(rig: Rig) -> None:
    """Verbatim, in the namespace `default`: made, kept, forced, requested and due, and shown by kubectl."""
    rig.apply_documented("default")
    place = ("--namespace", "default")
    try:
        first = rig.run(*place)
        assert first.code == 0, first.output
        assert first.reasons() == {"openai-credentials": "target.rotated First"}
        (name,) = rig.accounts()
        assert re.fullmatch(r"app_[A-Za-z0-9]{10}", name)
        assert rig.openai.key_status(rig.key("default")) is KeyStatus.ACTIVE

        secret = rig.get("secret", "openai-credentials", "default")
        assert secret["type"] == "Opaque"
        assert secret["metadata"]["labels"] == {MANAGED: "true"}
        assert json.loads(secret["metadata"]["annotations"][CURRENT])["name"] == name
        source = rig.get("externalsecret", "openai-credentials", "default")
        (owner,) = secret["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("ExternalSecret", source["metadata"]["uid"])
        assert source["status"]["binding"] == {"name": "openai-credentials"}
        assert source["status"]["refreshTime"]
        assert [(c["reason"], c["message"]) for c in source["status"]["conditions"]] == [
            ("SecretSynced", "secret synced")
        ]

        entry = "keyrotation/default.openai-credentials"
        rig.kubectl(
            "-n", "default", "wait", "--for=condition=Ready", "externalsecret/openai-credentials", "--timeout=10s"
        )
        rig.kubectl("-n", rig.ledger, "wait", "--for=condition=Ready", entry, "--timeout=10s")
        header, row = rig.kubectl("-n", rig.ledger, "get", "keyrotations").splitlines()
        assert header.split() == ["NAME", "NAMESPACE", "SECRET", "ACCOUNTS", "ROTATED", "NEXT", "READY", "REASON"]
        assert row.split()[1:4] == ["default", "openai-credentials", "1"]
        assert row.split()[-2:] == ["True", "Rotated"]
        row = rig.kubectl("-n", "default", "get", "externalsecret", "openai-credentials", "--no-headers")
        assert "SecretSynced" in row
        assert "True" in row

        assert rig.run(*place).reasons() == {"openai-credentials": "target.kept NotDue"}
        assert rig.run(*place, "--force").reasons() == {"openai-credentials": "target.rotated Forced"}
        for annotation in ("force-sync", PREFIX + "rotate"):
            rig.kubectl("-n", "default", "annotate", "externalsecret", "openai-credentials", f"{annotation}=1")
            assert rig.run(*place).reasons() == {"openai-credentials": "target.rotated Requested"}
            assert rig.run(*place).reasons() == {"openai-credentials": "target.kept NotDue"}
        patch = json.dumps({"spec": {"refreshInterval": "1s"}})
        rig.kubectl("-n", "default", "patch", "externalsecret", "openai-credentials", "--type=merge", "-p", patch)
        assert rig.run(*place).reasons() == {"openai-credentials": "target.kept NotDue"}  # a minute at least
        past = format_time(datetime.now(UTC) - timedelta(minutes=2))
        patch = json.dumps({"status": {"lastRotatedAt": past}})
        rig.kubectl("-n", rig.ledger, "patch", "keyrotation", entry.partition("/")[2], "--type=merge", "-p", patch)
        assert rig.run(*place).reasons() == {"openai-credentials": "target.rotated Due"}
        assert len(rig.accounts()) == 5
        events = rig.kubectl("-n", "default", "get", "events", "-o", "custom-columns=R:.reason,K:.involvedObject.kind")
        assert events.split().count("Created") == 1
        assert events.split().count("Updated") == 4

        shown = rig.run("status", "--output", "table")
        assert "openai-credentials" in shown.output
    finally:
        rig.kubectl("-n", "default", "delete", "openai,externalsecret,deployment,secret,events", "--all")


def test_the_account_before_is_deleted_after_its_grace(rig: Rig) -> None:
    """The one that the annotation recorded; and when the ExternalSecret is deleted, the last one and the entry go."""
    rig.apply_documented(rig.namespace)
    policy = json.dumps({"spec": {"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "1s"}}})
    rig.kubectl("-n", rig.namespace, "patch", "openai", "openai-generator", "--type=merge", "-p", policy)
    assert rig.run().code == 0
    before = rig.accounts()
    rig.age()
    done = rig.run("--force", "--max-wait", "30s")
    assert done.code == 0, done.output
    assert [line["deleted"] for line in done.said("target.retired")] == [before]
    (after,) = rig.accounts()
    assert [after] != before
    assert rig.openai.key_status(rig.key()) is KeyStatus.ACTIVE

    rig.kubectl("-n", rig.namespace, "delete", "externalsecret", "openai-credentials")
    rig.kubectl("-n", rig.namespace, "wait", "--for=delete", "secret/openai-credentials", "--timeout=90s")
    rig.age()
    done = rig.run("--max-wait", "30s")
    assert done.code == 0, done.output
    assert rig.accounts() == []
    assert rig.kubectl("-n", rig.ledger, "get", "keyrotations", "-o", "name") == ""


def test_a_compromised_key_is_revoked(granted: Rig) -> None:
    """With the worker's own permissions: asked first, then a new key, and the old one is dead at once."""
    kubeconfig = grant(granted)
    assert granted.run(kubeconfig=kubeconfig).code == 0
    granted.age()
    target, before, dead = f"{granted.namespace}/openai-credentials", granted.accounts(), granted.key()
    asked = granted.run("revoke", target, "--output", "table", kubeconfig=kubeconfig)
    assert (asked.code, granted.accounts()) == (2, before)
    assert f"{before[0]} (" in asked.output
    assert "--yes does it without asking" in asked.output
    done = granted.run("revoke", target, "--yes", "--output", "table", kubeconfig=kubeconfig)
    assert done.code == 0, done.output
    assert f"deleted: {before[0]}" in done.output
    assert granted.openai.key_status(dead) is KeyStatus.DELETED
    assert granted.openai.key_status(granted.key()) is KeyStatus.ACTIVE
    events = granted.kubectl("-n", granted.namespace, "get", "events", "-o", "jsonpath={.items[*].reason}")
    assert "Revoked" in events.split()


def test_a_secret_deleted_meanwhile_or_edited_heals(rig: Rig) -> None:
    """Deleted, or its annotation taken away: a new key; the owner reference stands up to the garbage collector."""
    rig.apply_documented(rig.namespace)
    rig.run()
    rig.kubectl("-n", rig.namespace, "delete", "secret", "openai-credentials")
    assert rig.run().reasons() == {"openai-credentials": "target.rotated SecretMissing"}
    rig.kubectl("-n", rig.namespace, "annotate", "secret", "openai-credentials", f"{CURRENT}-")
    assert rig.run().reasons() == {"openai-credentials": "target.rotated KeyMissing"}
    rig.kubectl("-n", rig.namespace, "patch", "secret", "openai-credentials", "-p", '{"immutable": true}')
    done = rig.run("--force")
    assert done.reasons() == {"openai-credentials": "target.blocked SecretImmutable"}
    assert done.code == 0
    assert rig.openai.key_status(rig.key()) is KeyStatus.ACTIVE


GENERATORS: list[dict[str, Any]] = [
    {"projectId": "x/../../admin_api_keys?"},
    {"projectId": ".."},
    {"projectId": ""},
    {"projectId": None},
    {"projectId": 5},
    {"host": "https://api.openai.com@evil.example/v1"},
    {"host": "http://evil.example/v1"},
    {"host": ""},
    {"openAiAdminKey": {"name": "openai-admin-secret", "key": "api-key", "namespace": "kube-system"}},
    {"openAiAdminKey": {}},
    {"openAiAdminKey": "x"},
    {"serviceAccountNameSize": -1},
    {"serviceAccountNameSize": 0},
    {"serviceAccountNameSize": 10**9},
    {"serviceAccountNameSize": "ten"},
    {"serviceAccountNamePrefix": "a b/../c"},
    {"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "-2m"}},
    {"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "soon"}},
    {"cleanupPolicy": {"type": "sometimes"}},
]
EXTERNAL_SECRETS: list[dict[str, Any]] = [
    {"refreshInterval": "-1h"},
    {"refreshInterval": "1d"},
    {"refreshInterval": 5},
    {"refreshPolicy": "Never"},
    {"target": {"name": "Not/A/Name"}},
    {"target": {"immutable": True}},
    {"target": {"creationPolicy": "None"}},
    {"target": {"template": {"type": "kubernetes.io/tls"}}},
    {"target": {"template": {"data": {"a": "{{ .api_key }}"}}}},
    {"data": [{"secretKey": "a", "remoteRef": {"key": "b"}}]},
]


def test_malformed_objects_are_refused_by_the_api_server_or_blocked(rig: Rig) -> None:
    """What the CRDs let in blocks its own target with words; the documented one beside them is served."""
    rig.apply_documented(rig.namespace)
    _, generator, source, _ = documented(rig.admin_key, rig.openai_url)
    admitted = 0
    for i, changes in enumerate(GENERATORS + EXTERNAL_SECRETS):
        name = f"bad-{i}"
        bad_generator, bad_source = json.loads(json.dumps([generator, source]))
        for obj in (bad_generator, bad_source):
            obj["metadata"] = {"name": name, "namespace": rig.namespace}
        (bad_generator if changes in GENERATORS else bad_source)["spec"] |= changes
        bad_source["spec"]["dataFrom"][0]["sourceRef"]["generatorRef"]["name"] = name
        group = f"namespaces/{rig.namespace}"
        path = f"/apis/generators.external-secrets.io/v1alpha1/{group}/openais"
        status = [call(rig.endpoint, "POST", path, bad_generator)[0]]
        path = f"/apis/external-secrets.io/v1/{group}/externalsecrets"
        status.append(call(rig.endpoint, "POST", path, bad_source)[0])
        assert set(status) <= {201, 400, 422}
        admitted += status == [201, 201]
    assert admitted >= 10
    done = rig.run()
    assert done.code == 0, done.output
    assert done.reasons().pop("openai-credentials") == "target.rotated First"
    blocked = done.said("target.blocked")
    assert len(blocked) >= admitted
    assert all(line["message"] for line in blocked)
    assert len(rig.accounts()) == 1
    assert rig.run("--strict").code == 1


@pytest.fixture
def granted(rig: Rig) -> Iterator[Rig]:
    """The documented objects in the test's namespace; cluster-wide permissions are taken back afterwards."""
    rig.apply_documented(rig.namespace)
    yield rig
    names = [f"{role}-{rig.ledger}" for role in ("openai-key-rotator", "openai-key-rotator-ledger")]
    rig.kubectl("delete", "clusterrole,clusterrolebinding", *names, "--ignore-not-found")


def test_the_permissions_of_our_manifests_are_enough(granted: Rig) -> None:
    """For a first run, a rotation with the deletion of the account before, and a target's end, in all namespaces."""
    policy = json.dumps({"spec": {"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "1s"}}})
    granted.kubectl("-n", granted.namespace, "patch", "openai", "openai-generator", "--type=merge", "-p", policy)
    kubeconfig = grant(granted)
    for arguments in ([], ["--force", "--max-wait", "30s"]):
        done = granted.run(*arguments, kubeconfig=kubeconfig)
        assert done.code == 0, done.output
        assert done.said("target.rotated")
        assert not done.said("target.not_announced")
        granted.age()
    assert len(granted.accounts()) == 1
    granted.kubectl("-n", granted.namespace, "delete", "externalsecret", "openai-credentials")
    granted.kubectl("-n", granted.namespace, "wait", "--for=delete", "secret/openai-credentials", "--timeout=90s")
    done = granted.run("--max-wait", "30s", kubeconfig=kubeconfig)
    assert done.code == 0, done.output
    assert granted.accounts() == []


@pytest.mark.parametrize(
    ("verb", "resource"),
    [("get", "namespaces"), ("list", "keyrotations"), ("list", "openais"), ("list", "externalsecrets")],
)
def test_without_a_permission_to_look_the_run_ends_with_3(granted: Rig, verb: str, resource: str) -> None:
    """One line names verb and resource."""
    done = granted.run(kubeconfig=grant(granted, (verb, resource)))
    assert done.code == 3
    assert f"{verb} {resource}" in done.message
    assert granted.accounts() == []


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("get", "secrets"),
        ("create", "secrets"),
        ("patch", "secrets"),
        ("create", "keyrotations"),
        ("patch", "keyrotations"),
    ],
)
def test_without_a_permission_to_work_the_target_fails(granted: Rig, verb: str, resource: str) -> None:
    """Exit code 1, and the message names verb and resource; at most one account is made."""
    if verb == "patch":
        assert granted.run().code == 0
    done = granted.run("--force", kubeconfig=grant(granted, (verb, resource)))
    assert done.code == 1
    assert list(done.reasons().values()) == ["target.failed Forbidden"]
    assert f"{verb} {resource}" in done.said("target.failed")[0]["message"]
    status = granted.get("externalsecret", "openai-credentials")["status"]["conditions"][0]
    assert (status["status"], status["reason"]) == ("False", "SecretSyncedError")
    assert f"{verb} {resource}" in status["message"]
    assert len(granted.accounts()) <= (2 if verb == "patch" else 1)


@pytest.mark.parametrize(("verb", "resource"), [("patch", "externalsecrets/status"), ("create", "events")])
def test_without_a_permission_to_tell_the_rotation_happens(granted: Rig, verb: str, resource: str) -> None:
    """And it is logged what could not be told."""
    done = granted.run(kubeconfig=grant(granted, (verb, resource)))
    assert done.code == 0
    assert done.said("target.rotated")
    (line,) = done.said("target.not_announced")
    assert all(word in line["message"] for word in (verb, *resource.split("/")))


def test_without_a_permission_to_list_pods_nothing_is_deleted(granted: Rig) -> None:
    """For nobody knows who holds the key; it is said what to grant."""
    policy = json.dumps({"spec": {"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "1s"}}})
    granted.kubectl("-n", granted.namespace, "patch", "openai", "openai-generator", "--type=merge", "-p", policy)
    kubeconfig = grant(granted, ("list", "pods"))
    granted.run(kubeconfig=kubeconfig)
    granted.age()
    done = granted.run("--force", "--max-wait", "30s", kubeconfig=kubeconfig)
    assert len(granted.accounts()) == 2
    (line,) = done.said("target.retired")
    assert "pods" in line["message"]


# --- a cluster that is not ready for it


def test_a_missing_ledger_namespace_is_named(rig: Rig) -> None:
    """With the command that makes it."""
    done = rig.run(ledger="no-such-namespace")
    assert done.code == 3
    assert "kubectl create namespace no-such-namespace" in done.message


def test_a_wrong_token(rig: Rig) -> None:
    """The credentials are not accepted; which ones is not repeated."""
    kubeconfig = kubeconfig_for(rig.endpoint, rig.directory / "wrong", "token-CANARY")
    done = rig.run(kubeconfig=kubeconfig)
    assert done.code == 3
    assert "credentials" in done.message


def test_a_certificate_of_another_authority(rig: Rig) -> None:
    """A kubeconfig that trusts nobody who has signed the API server's certificate: it says so, in OpenSSL's words."""
    config = json.loads(rig.endpoint.kubeconfig.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority"]
    done = rig.run(kubeconfig=write_private(rig.directory / "wrong", json.dumps(config)))
    assert done.code == 3
    assert "certificate is not accepted (self-signed certificate in certificate chain" in done.message


@pytest.mark.cluster
def test_missing_crds_are_named_one_after_the_other(tmp_path: Path) -> None:
    """On a new cluster: namespace, ledger, generators; without ExternalSecrets it works for standalone targets."""
    if find_binaries() is None:
        pytest.skip("no real API server")

    def now() -> datetime:
        return datetime.now(UTC)

    chance = random.Random(1)
    openai = OpenAI(now, chance)
    with control_plane(tmp_path) as endpoint, SandboxServer(Kubernetes(now, chance), openai) as server:
        rig = Rig(endpoint, openai, server.openai_url, tmp_path)
        done = rig.run()
        assert (done.code, f"kubectl create namespace {rig.ledger}" in done.message) == (3, True)
        for name in (rig.namespace, rig.ledger):
            rig.kubectl("create", "namespace", name)
        for name in ("keyrotation", "openai"):
            done = rig.run()
            assert done.code == 3
            assert f"{name}s" in done.message
            assert "kubectl apply" in done.message
            rig.kubectl("apply", "-f", str(CRDS / f"{name}.yaml"))
            rig.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        admin, generator, _, _ = documented(rig.admin_key, rig.openai_url)
        for obj in (admin, generator):
            obj["metadata"]["namespace"] = rig.namespace
        generator["metadata"]["annotations"] = {PREFIX + "secret": "openai-credentials"}
        rig.apply(admin, generator)
        done = rig.run()
        assert done.code == 0, done.output
        assert rig.openai.key_status(rig.key()) is KeyStatus.ACTIVE
