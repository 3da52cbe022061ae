"""`python run.py` against the real API server and an OpenAI over HTTP: what a user does, and what a user sees."""

from __future__ import annotations

import json
import random
import re
import secrets
import socket
import ssl
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
from worker.plan.refusals import LARGEST_SECRET


@pytest.fixture
def rig(real_api_server: Endpoint, tmp_path: Path) -> Iterator[Rig]:
    with working(real_api_server, tmp_path) as rig:
        yield rig


@contextmanager
def working(endpoint: Endpoint, directory: Path) -> Iterator[Rig]:
    """A rig with its namespaces, and the CRDs as users of the enterprise operator have them."""

    def now() -> datetime:
        return datetime.now(UTC)

    chance = random.Random(secrets.randbits(64))
    openai = OpenAI(now, chance)
    with SandboxServer(Kubernetes(now, chance), openai) as server:
        rig = Rig(endpoint, openai, server.openai_url, directory)
        install_crds(endpoint, rules=False)
        for name in (rig.namespace, rig.ledger):
            rig.kubectl("create", "namespace", name)
        yield rig
        rig.kubectl("delete", "namespace", rig.namespace, rig.ledger, "--wait=false")


SHOWN = "--show-managed-fields"


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

        shown = rig.run("status", *place, "--output", "table")
        assert "openai-credentials" in shown.output
    finally:
        rig.kubectl("-n", "default", "delete", "openai,externalsecret,deployment,secret,events", "--all")


def test_the_key_inside_a_configuration_file(rig: Rig) -> None:
    """Made, healed and changed with its template; and the limit of a Secret's size is the API server's."""
    rig.apply_documented(rig.namespace)
    place = ("-n", rig.namespace)
    patch = ("patch", "--type=merge", "-p")
    source, secret = ("externalsecret", "openai-credentials"), ("secret", "openai-credentials")

    def ask(template: dict[str, Any], **target: str) -> None:
        spec = {"spec": {"refreshInterval": "0", "target": {"template": template, **target}}}
        rig.kubectl(*place, *patch, json.dumps(spec), *source)

    def values() -> dict[str, str]:
        found = rig.get(*secret)
        return {name: b64decode(value).decode() for name, value in found["data"].items()}

    def is_live(key: str) -> bool:
        return rig.openai.key_status(key) is KeyStatus.ACTIVE

    ask({"data": {"config.yaml": 'key: "{{ .api_key | quote }}"'}})
    ended = rig.run()
    assert ended.reasons() == {"openai-credentials": "target.blocked UnsupportedField"}
    assert "spec.target.template.data['config.yaml'], line 1, has 'quote' in braces" in ended.message
    ask({"data": {"config.yaml": 'key: "{{ .api_key }}"\n', "LEVEL": "info"}})
    assert rig.run().reasons() == {"openai-credentials": "target.rotated First"}
    assert is_live(values()["config.yaml"].removeprefix('key: "').removesuffix('"\n'))
    assert values().keys() == {"config.yaml", "LEVEL"}
    assert rig.run().reasons() == {"openai-credentials": "target.kept NotDue"}

    rig.kubectl(*place, *patch, '{"data": {"LEVEL": null}}', *secret)
    assert rig.run().reasons() == {"openai-credentials": "target.rotated KeyMissing"}
    ask({"mergePolicy": "Merge", "data": {"config.yaml": None, "LEVEL": "debug"}}, creationPolicy="CreateOrMerge")
    assert rig.run().reasons() == {"openai-credentials": "target.rotated TemplateChanged"}
    assert values().keys() == {"api_key", "LEVEL"}
    assert is_live(values()["api_key"])
    assert rig.run().reasons() == {"openai-credentials": "target.kept NotDue"}
    assert "openai-credentials" in rig.run("status", "--output", "table").output

    # As large as the API server allows: one byte more is refused.
    room = LARGEST_SECRET - sum(map(len, values().values()))
    path = f"/api/v1/namespaces/{rig.namespace}/secrets/openai-credentials"
    for size, answer in ((room + 1, 422), (room, 200)):
        body = {"data": {"large": b64encode(b"x" * size).decode()}}
        status, _ = call(rig.endpoint, "PATCH", path, body, content_type="application/merge-patch+json")
        assert status == answer
    mints = rig.openai.mints
    assert rig.run("--force").reasons() == {"openai-credentials": "target.blocked SecretTooLarge"}
    assert rig.openai.mints == mints


def test_a_stripped_secret_keeps_its_key_and_the_message_names_who_wrote_it(rig: Rig) -> None:
    """By the API server's own notes of who manages which field."""
    rig.apply_documented(rig.namespace)
    place = ("--namespace", rig.namespace)
    assert rig.run(*place).code == 0
    secret = rig.get("secret", "openai-credentials", rig.namespace)
    stripped = {"labels": {MANAGED: None, "theirs": "x"}, "annotations": {CURRENT: None}}
    patch = ("patch", "secret", "openai-credentials", "--type=merge", "--field-manager=argocd-controller")
    rig.kubectl("-n", rig.namespace, *patch, "-p", json.dumps({"metadata": stripped}))
    ended = rig.run(*place)
    assert ended.reasons() == {"openai-credentials": "target.kept AnnotationLost"}
    assert "'argocd-controller' wrote it last" in ended.output
    healed = rig.get("secret", "openai-credentials", rig.namespace)
    assert healed["data"] == secret["data"]
    assert healed["metadata"]["labels"] == {MANAGED: "true", "theirs": "x"}
    before, after = (json.loads(one["metadata"]["annotations"][CURRENT]) for one in (secret, healed))
    # The first was written before the API server's answer said when.
    assert after | {"publishedAt": ""} == before | {"publishedAt": ""}
    assert len(rig.accounts()) == 1
    assert rig.run(*place).reasons() == {"openai-credentials": "target.kept NotDue"}


def test_the_api_server_keeps_no_record_of_who_wrote_an_entry_and_of_who_wrote_the_rest(rig: Rig) -> None:
    """It costs a fifth of each write of the ledger. Others' objects keep theirs: it names who has emptied a Secret."""
    rig.apply_documented(rig.namespace)
    assert rig.run().code == 0
    (entry,) = json.loads(rig.kubectl("-n", rig.ledger, "get", "keyrotations", "-o", "json", SHOWN))["items"]
    assert "managedFields" not in entry["metadata"]
    for kind in ("secret", "externalsecret"):
        obj = json.loads(rig.kubectl("-n", rig.namespace, "get", kind, "openai-credentials", "-o", "json", SHOWN))
        assert {"openai-key-rotator"} & {one["manager"] for one in obj["metadata"]["managedFields"]}


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
    """Deleted, or its key replaced: a new key; the owner reference stands up to the garbage collector."""
    rig.apply_documented(rig.namespace)
    rig.run()
    rig.kubectl("-n", rig.namespace, "delete", "secret", "openai-credentials")
    assert rig.run().reasons() == {"openai-credentials": "target.rotated SecretMissing"}
    rig.kubectl("-n", rig.namespace, "patch", "secret", "openai-credentials", "-p", '{"data": {"api_key": "bWluZQ=="}}')
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
    {"target": {"template": {"data": {"a": "{{ .api_key | upper }}"}}}},
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
    rig.kubectl("delete", "clusterrole,clusterrolebinding", f"openai-key-rotator-{rig.ledger}", "--ignore-not-found")


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


def test_an_api_server_on_loopback_is_reached_whatever_proxy_there_is(rig: Rig) -> None:
    """kind and minikube on a company's machine: the proxy that is named answers nobody."""
    rig.apply_documented(rig.namespace)
    done = rig.run(HTTPS_PROXY="http://127.0.0.1:1")
    assert done.code == 0, done.output
    assert rig.openai.key_status(rig.key()) is KeyStatus.ACTIVE


# --- a cluster that guards owner references, as OpenShift's does


def owners(rig: Rig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rig.get("secret", "openai-credentials")["metadata"].get("ownerReferences", [])
    return found


def test_an_owner_that_is_right_is_left_alone_and_the_key_rotates(granted: Rig) -> None:
    """As the operator left it: with a blockOwnerDeletion that the worker has no right to set."""
    kubeconfig = grant(granted)
    assert granted.run(kubeconfig=kubeconfig).code == 0
    (owner,) = owners(granted)
    taken_over = owner | {"blockOwnerDeletion": True}
    patch = json.dumps({"metadata": {"ownerReferences": [taken_over]}})
    granted.kubectl("-n", granted.namespace, "patch", "secret", "openai-credentials", "--type=merge", "-p", patch)
    done = granted.run("--force", kubeconfig=kubeconfig)
    assert done.code == 0, done.output
    assert done.reasons() == {"openai-credentials": "target.rotated Forced"}
    assert owners(granted) == [taken_over]
    assert not done.said("target.not_announced")


def test_a_secret_whose_owner_may_not_be_set_gets_its_key_without_and_it_is_told(granted: Rig) -> None:
    """`Orphan` turned to `Owner`: changing the owners of an object takes the right to delete it."""
    kubeconfig = grant(granted)
    target = ("-n", granted.namespace, "patch", "externalsecret", "openai-credentials", "--type=merge", "-p")
    for policy, arguments in (("Orphan", []), ("Owner", ["--force"])):
        granted.kubectl(*target, json.dumps({"spec": {"target": {"creationPolicy": policy}}}))
        done = granted.run(*arguments, kubeconfig=kubeconfig)
        assert done.code == 0, done.output
        assert done.said("target.rotated")
        assert owners(granted) == []
    assert any("written without its owner" in line["message"] for line in done.said("target.not_announced"))
    assert granted.openai.key_status(granted.key()) is KeyStatus.ACTIVE


def within(rig: Rig) -> dict[str, Any]:
    """A policy's rules: Secrets of the test's namespace alone."""
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": rig.namespace}},
        "resourceRules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["secrets"],
                "operations": ["CREATE", "UPDATE"],
            }
        ],
    }


def quota(rig: Rig, name: str) -> list[dict[str, Any]]:
    spec = {"hard": {"secrets": "0"}}
    return [of("v1", "ResourceQuota", name, spec=spec) | {"metadata": {"name": name, "namespace": rig.namespace}}]


def policy(rig: Rig, name: str) -> list[dict[str, Any]]:
    """Its own status is 422, as of each policy that names no reason."""
    version, rules = "admissionregistration.k8s.io/v1", within(rig)
    refusing = {"validations": [{"expression": "false", "message": "sk-CANARY"}], "matchConstraints": rules}
    binding = {"policyName": name, "validationActions": ["Deny"]}
    return [
        of(version, "ValidatingAdmissionPolicy", name, spec=refusing),
        of(version, "ValidatingAdmissionPolicyBinding", name, spec=binding),
    ]


def mutation(rig: Rig, name: str) -> list[dict[str, Any]]:
    """It cannot be evaluated: 403, whose own reason is Invalid."""
    version, reads = "admissionregistration.k8s.io/v1", "object.metadata.annotations['sk-CANARY']"
    patch = {"expression": f"Object{{metadata: Object.metadata{{labels: {{'x': {reads}}}}}}}"}
    broken = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": within(rig),
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": patch}],
    }
    return [
        of(version, "MutatingAdmissionPolicy", name, spec=broken),
        of(version, "MutatingAdmissionPolicyBinding", name, spec={"policyName": name}),
    ]


def webhook(rig: Rig, name: str) -> list[dict[str, Any]]:
    """Nobody listens there: 500."""
    hook = {
        "name": f"{name}.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/sk-CANARY"},
        "namespaceSelector": within(rig)["namespaceSelector"],
        "rules": within(rig)["resourceRules"],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    return [of("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", name, webhooks=[hook])]


def of(version: str, kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}


@pytest.mark.parametrize(
    ("obstacle", "words"),
    [
        (quota, "the ResourceQuota {name} is exhausted"),
        (policy, "the ValidatingAdmissionPolicy {name} denies it"),
        (mutation, "the admission policy {name} denies it"),
        (webhook, "the webhook {name}.example.com does not answer"),
    ],
    ids=["quota", "policy", "mutation", "webhook"],
)
def test_who_denies_a_secret_is_named_where_people_look(
    granted: Rig, obstacle: Callable[[Rig, str], list[dict[str, Any]]], words: str
) -> None:
    """At the ExternalSecret and in the ledger, with none of the denier's own text. No account is made in a loop."""
    name = f"denies-{granted.ledger}"
    objects = obstacle(granted, name)
    granted.apply(*objects)
    target = {"metadata": {"name": "probe", "namespace": granted.namespace}}
    path = f"/api/v1/namespaces/{granted.namespace}/secrets?dryRun=All"
    deadline = time.monotonic() + 60
    while call(granted.endpoint, "POST", path, target)[0] == 201:
        assert time.monotonic() < deadline, "the obstacle never counted"
        time.sleep(0.1)
    try:
        done = granted.run()
        granted.run("--force")
    finally:
        for obj in objects:
            granted.kubectl("-n", granted.namespace, "delete", obj["kind"], name)
    assert granted.openai.mints == 1
    for kind, named, namespace in (
        ("externalsecret", "openai-credentials", granted.namespace),
        ("keyrotation", f"{granted.namespace}.openai-credentials", granted.ledger),
    ):
        shown = granted.kubectl("-n", namespace, "describe", kind, named)
        assert words.format(name=name) in shown, done.output + shown
        assert "CANARY" not in shown


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


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A cluster whose authority has no key usage, as EKS, GKE and MicroK8s make them."""
    if find_binaries() is None:
        pytest.skip("no real API server")
    with control_plane(tmp_path_factory.mktemp("bare"), bare=True) as endpoint:
        yield endpoint


@pytest.fixture
def on_bare(bare: Endpoint, tmp_path: Path) -> Iterator[Rig]:
    with working(bare, tmp_path) as rig:
        yield rig


@pytest.mark.cluster
def test_an_authority_without_key_usage_is_accepted(on_bare: Rig) -> None:
    """As kubectl accepts it, with any Python; the strictest rules of its newest refuse it."""
    strict = ssl.create_default_context(cafile=str(on_bare.endpoint.ca_file))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    address = urlsplit(on_bare.endpoint.url)
    with (
        socket.create_connection((address.hostname, address.port)) as connection,
        pytest.raises(ssl.SSLCertVerificationError, match=r"Key Identifier|key usage"),
    ):
        strict.wrap_socket(connection, server_hostname=address.hostname)
    on_bare.apply_documented(on_bare.namespace)
    done = on_bare.run()
    assert done.code == 0, done.output
    assert on_bare.openai.key_status(on_bare.key()) is KeyStatus.ACTIVE


@pytest.mark.cluster
def test_the_name_in_such_a_certificate_still_counts(on_bare: Rig) -> None:
    """And the message says what is wrong with it."""
    config = json.loads(on_bare.endpoint.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    cluster["server"] = cluster["server"].replace("127.0.0.1", "localhost")
    done = on_bare.run(kubeconfig=write_private(on_bare.directory / "wrong", json.dumps(config)))
    assert done.code == 3
    assert "certificate is not accepted" in done.message


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
