"""The embedded API server as a machine: knobs, controllers, views. What clients see of it is in tests/contract."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from sandbox.kubernetes.call import Admission, Denial
from sandbox.kubernetes.server import Kubernetes
from sandbox.kubernetes.setup import Refused, apply, create_namespace, install_crds, send
from sandbox.kubernetes.tables import human_duration
from sandbox.transport.wire import Request
from tests.sandbox.conftest import Clock

SECRETS = "/api/v1/namespaces/default/secrets"
GENERATORS = "/apis/generators.external-secrets.io/v1alpha1/namespaces/default/openais"


def secret(name: str, **metadata: Any) -> dict[str, Any]:
    """A Secret in the namespace `default`."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, **metadata}}


def generator(name: str) -> dict[str, Any]:
    """A generator in the namespace `default`."""
    spec = {"projectId": "p", "openAiAdminKey": {"name": "a", "key": "k"}}
    head = {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI"}
    return head | {"metadata": {"name": name}, "spec": spec}


def owned_by(owner: dict[str, Any], **changes: str) -> dict[str, Any]:
    """Metadata that names the owner."""
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
    reference |= {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], **changes}
    return {"ownerReferences": [reference]}


def status_of(kubernetes: Kubernetes, method: str, target: str, body: object = None) -> int:
    """The status of the answer."""
    try:
        send(kubernetes, method, target, body=body)
    except Refused as error:
        return error.response.status
    return 200


def names(kubernetes: Kubernetes, plural: str = "secrets") -> list[str]:
    """The names of all objects of the resource."""
    return [item["metadata"]["name"] for item in kubernetes.objects(plural)]


def test_the_same_seed_gives_the_same_answers(clock: Clock) -> None:
    """Uids and generated names come from the given randomness alone, times from the clock."""
    request = Request.of("POST", SECRETS, json={"metadata": {"generateName": "a-"}})
    first, second = (Kubernetes(clock, random.Random(7)).handle(request) for _ in range(2))
    assert first.body == second.body
    assert first.json()["metadata"]["creationTimestamp"] == "2026-11-24T10:00:00Z"
    assert first.headers["Date"] == "Tue, 24 Nov 2026 10:00:00 GMT"


def test_what_was_read_does_not_change(kubernetes: Kubernetes) -> None:
    """A later write leaves an object that somebody holds as it was."""
    apply(kubernetes, secret("a", labels={"x": "1"}))
    held = kubernetes.find("secrets", "default", "a")
    apply(kubernetes, secret("a", labels={"x": "2"}))
    assert held is not None
    assert held["metadata"]["labels"] == {"x": "1"}


def test_secrets_are_not_printed(kubernetes: Kubernetes) -> None:
    """Not by the machine, nor by the error that a refusal becomes."""
    apply(kubernetes, secret("a") | {"stringData": {"key": "CANARY"}})
    with pytest.raises(Refused) as caught:
        apply(kubernetes, secret("a") | {"stringData": {"key": "CANARY"}, "type": "other"})
    assert "CANARY" not in repr(kubernetes) + repr(caught.value) + str(caught.value)


# Knobs


def test_verbs_can_be_forbidden_everywhere_or_somewhere(kubernetes: Kubernetes) -> None:
    """In one namespace, in all of them, or for requests across all of them; and permitted again."""
    create_namespace(kubernetes, "other")
    here, there, everywhere = SECRETS, "/api/v1/namespaces/other/secrets", "/api/v1/secrets"
    for namespace, expected in (("default", [403, 200, 200]), (None, [403, 403, 403]), ("", [200, 200, 403])):
        kubernetes.forbid("list", "secrets", namespace)
        assert [status_of(kubernetes, "GET", path) for path in (here, there, everywhere)] == expected
        kubernetes.permit("list", "secrets", namespace)
    assert status_of(kubernetes, "GET", everywhere) == 200


def test_a_forbidden_subresource_is_not_the_resource(kubernetes: Kubernetes) -> None:
    """`pods/status` is a permission of its own."""
    kubernetes.forbid("patch", "pods/status")
    apply(kubernetes, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}})
    path = "/api/v1/namespaces/default/pods/a"
    assert status_of(kubernetes, "PATCH", path, {"metadata": {"labels": {"x": "y"}}}) == 200
    assert status_of(kubernetes, "PATCH", f"{path}/status", {"status": {"phase": "Running"}}) == 403


def test_continue_tokens_can_expire(kubernetes: Kubernetes) -> None:
    """410 Expired for those given so far."""
    apply(kubernetes, [secret("a"), secret("b")])
    token = send(kubernetes, "GET", f"{SECRETS}?limit=1")["metadata"]["continue"]
    kubernetes.expire_continue_tokens()
    with pytest.raises(Refused) as caught:
        send(kubernetes, "GET", f"{SECRETS}?limit=1&continue={token}")
    assert caught.value.response.json()["reason"] == "Expired"
    assert caught.value.response.status == 410


def test_hooks_see_and_refuse_writes(kubernetes: Kubernetes) -> None:
    """Dry runs too; a refusal stores nothing, and a hook can be taken away again."""
    seen: list[tuple[str, str, bool]] = []

    def hook(admission: Admission) -> str | Denial | None:
        seen.append((admission.operation, admission.name, admission.dry_run))
        if admission.name == "bad":
            return "no"
        return Denial("exceeded quota", 422, "Invalid") if admission.name == "worse" else None

    remove = kubernetes.admission(hook)
    assert status_of(kubernetes, "POST", SECRETS, secret("good")) == 200
    assert status_of(kubernetes, "PATCH", f"{SECRETS}/good?dryRun=All", {"data": {"x": "eA=="}}) == 200
    assert status_of(kubernetes, "DELETE", f"{SECRETS}/good") == 200
    assert status_of(kubernetes, "POST", SECRETS, secret("bad")) == 403
    assert status_of(kubernetes, "POST", f"{SECRETS}?dryRun=All", secret("worse")) == 422
    remove()
    assert status_of(kubernetes, "POST", SECRETS, secret("bad")) == 200
    assert seen == [
        ("CREATE", "good", False),
        ("UPDATE", "good", True),
        ("DELETE", "good", False),
        ("CREATE", "bad", False),
        ("CREATE", "worse", True),
    ]


def test_a_token_may_be_asked_for(clock: Clock) -> None:
    """401 without it, or with another one."""
    kubernetes = Kubernetes(clock, random.Random(1), token="right")
    statuses = [
        kubernetes.handle(Request.of("GET", SECRETS, headers={"Authorization": f"Bearer {token}"})).status
        for token in ("right", "wrong", "")
    ]
    assert statuses == [200, 401, 401]


# The controllers' part


def test_garbage_is_collected_when_told(clock: Clock) -> None:
    """And then down to the last dependent; dependents of a living owner stay."""
    kubernetes = Kubernetes(clock, random.Random(1), automatic_collection=False)
    install_crds(kubernetes)
    owner, other = apply(kubernetes, [generator("owner"), generator("other")])
    middle = apply(kubernetes, secret("middle", **owned_by(owner)))[0]
    apply(kubernetes, [secret("leaf", **owned_by(middle)), secret("kept", **owned_by(other))])
    both = owned_by(owner)["ownerReferences"] + owned_by(other)["ownerReferences"]
    apply(kubernetes, secret("of-both", ownerReferences=both))
    send(kubernetes, "DELETE", f"{GENERATORS}/owner")
    assert names(kubernetes) == ["kept", "leaf", "middle", "of-both"]
    assert kubernetes.collect_garbage() == 2
    assert names(kubernetes) == ["kept", "of-both"]
    assert kubernetes.collect_garbage() == 0


def test_garbage_is_collected_by_itself(kubernetes: Kubernetes) -> None:
    """An owner's old uid counts as missing, at once."""
    install_crds(kubernetes)
    owner = apply(kubernetes, generator("owner"))[0]
    apply(kubernetes, secret("kept", **owned_by(owner)))
    apply(kubernetes, secret("old", **owned_by(owner, uid="00000000-0000-4000-8000-000000000000")))
    assert names(kubernetes) == ["kept"]
    send(kubernetes, "DELETE", f"{GENERATORS}/owner")
    assert names(kubernetes) == []


def test_deleting_a_crd_deletes_what_its_objects_own(kubernetes: Kubernetes) -> None:
    """Though the owner's kind cannot be looked up any more."""
    install_crds(kubernetes)
    owner = apply(kubernetes, generator("owner"))[0]
    apply(kubernetes, secret("a", **owned_by(owner)))
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/openais.generators.external-secrets.io"
    send(kubernetes, "DELETE", crd)
    assert names(kubernetes) == []
    assert status_of(kubernetes, "GET", GENERATORS) == 404


def test_an_owner_of_an_unknown_kind_is_waited_for(kubernetes: Kubernetes) -> None:
    """The real collector cannot tell either."""
    reference = {"apiVersion": "example.com/v1", "kind": "Thing", "name": "a", "uid": "u"}
    apply(kubernetes, secret("a", ownerReferences=[reference]))
    assert names(kubernetes) == ["a"]


def test_a_namespace_goes_when_its_termination_is_finished(kubernetes: Kubernetes) -> None:
    """With all that is in it, unless a finalizer holds some of it; others are left alone."""
    for name in ("going", "held"):
        create_namespace(kubernetes, name)
        apply(kubernetes, secret("a", namespace=name))
    apply(kubernetes, secret("b", namespace="held", finalizers=["sandbox.example/hold"]))
    apply(kubernetes, secret("elsewhere"))
    for name in ("going", "held"):
        send(kubernetes, "DELETE", f"/api/v1/namespaces/{name}")
    assert names(kubernetes) == ["elsewhere", "a", "a", "b"]
    kubernetes.finish_termination()
    assert names(kubernetes) == ["elsewhere", "b"]
    assert "going" not in names(kubernetes, "namespaces")
    send(kubernetes, "PATCH", "/api/v1/namespaces/held/secrets/b", body={"metadata": {"finalizers": None}})
    kubernetes.finish_termination()
    assert names(kubernetes, "namespaces") == ["default", "kube-system"]


def test_a_pod_on_a_node_waits_for_its_kubelet_when_collected(kubernetes: Kubernetes) -> None:
    """The collector marks it and goes on; the kubelet's delete ends it."""
    owner = apply(kubernetes, secret("owner"))[0]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", **owned_by(owner)}, "spec": {"nodeName": "n"}}
    apply(kubernetes, pod)
    send(kubernetes, "DELETE", f"{SECRETS}/owner")
    found = kubernetes.find("pods", "default", "a")
    assert found is not None
    assert found["metadata"]["deletionTimestamp"]
    assert kubernetes.collect_garbage() == 0
    send(kubernetes, "DELETE", "/api/v1/namespaces/default/pods/a?gracePeriodSeconds=0")
    assert names(kubernetes, "pods") == []


# What is not done


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"{SECRETS}?watch=true"),
        ("GET", "/api/v1/pods?fieldSelector=spec.hostNetwork%3Dtrue"),
        ("GET", f"{SECRETS}?resourceVersion=7"),
        ("DELETE", SECRETS),
        ("DELETE", f"{SECRETS}/a?propagationPolicy=Orphan"),
        ("GET", "/api/v1/namespaces/default/pods/a/log"),
    ],
)
def test_what_is_not_done_is_said(kubernetes: Kubernetes, method: str, target: str) -> None:
    """501, never an answer that might be wrong."""
    apply(kubernetes, secret("a"))
    assert status_of(kubernetes, method, target) == 501
    assert names(kubernetes) == ["a"]


@pytest.mark.parametrize("kind", ["application/json-patch+json", "application/apply-patch+yaml"])
def test_other_patches_are_not_done(kubernetes: Kubernetes, kind: str) -> None:
    """501 for those that a real API server would take."""
    apply(kubernetes, secret("a"))
    request = Request.of("PATCH", f"{SECRETS}/a", headers={"Content-Type": kind}, body=b"[]")
    assert kubernetes.handle(request).status == 501


def test_a_strategic_patch_is_taken_where_it_means_the_same(kubernetes: Kubernetes) -> None:
    """As `kubectl apply` sends it for built-in kinds; 501 if it has lists or directives."""
    apply(kubernetes, secret("a"))
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    for patch, status in (
        ({"metadata": {"labels": {"x": "y"}}}, 200),
        ({"metadata": {"finalizers": ["a/b"]}}, 501),
        ({"$patch": "replace"}, 501),
    ):
        request = Request.of("PATCH", f"{SECRETS}/a", headers=headers, json=patch)
        assert kubernetes.handle(request).status == status


@pytest.mark.parametrize(
    "change",
    [
        {"format": "ipv4", "type": "string"},
        {"properties": {"x": {"type": "object", "x-kubernetes-embedded-resource": True}}},
        {"items": {"anyOf": [{"x-unknown": 1}]}},
    ],
)
def test_a_schema_that_is_not_understood_is_refused(kubernetes: Kubernetes, change: dict[str, Any]) -> None:
    """501 when the CRD is created, not a wrong verdict later."""
    assert status_of(kubernetes, "POST", CRDS, thing_crd({"type": "object", **change})) == 501
    assert names(kubernetes, "customresourcedefinitions") == []


CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def test_rules_are_kept_and_not_applied(kubernetes: Kubernetes) -> None:
    """What an expression would refuse is accepted; the real API server has to show that."""
    rules = [{"rule": "false", "message": "never"}]
    apply(kubernetes, thing_crd({"type": "object", "x-kubernetes-validations": rules}))
    schema = send(kubernetes, "GET", f"{CRDS}/things.example.com")["spec"]["versions"][0]["schema"]
    assert schema["openAPIV3Schema"]["x-kubernetes-validations"] == rules
    apply(kubernetes, {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}})


def thing_crd(schema: dict[str, Any], *more_versions: dict[str, Any]) -> dict[str, Any]:
    """A CRD of `things.example.com`."""
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "things", "kind": "Thing"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version, *more_versions]}
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return head | {"metadata": {"name": "things.example.com"}, "spec": spec}


def test_an_object_is_served_in_each_version(kubernetes: Kubernetes) -> None:
    """Stored once; only the apiVersion differs. A version that is taken away is not found any more."""
    open_schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    old = {"name": "v1beta1", "served": True, "storage": False, "schema": {"openAPIV3Schema": open_schema}}
    apply(kubernetes, thing_crd(open_schema, old))
    thing = {"apiVersion": "example.com/v1beta1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"x": 1}}
    apply(kubernetes, thing)
    path = "/apis/example.com/{}/namespaces/default/things/a"
    for version in ("v1", "v1beta1"):
        found = send(kubernetes, "GET", path.format(version))
        assert (found["apiVersion"], found["spec"]) == (f"example.com/{version}", {"x": 1})
    page = send(kubernetes, "GET", "/apis/example.com/v1/things")
    assert (page["kind"], page["items"][0]["apiVersion"]) == ("ThingList", "example.com/v1")
    send(kubernetes, "PATCH", f"{CRDS}/things.example.com", body=thing_crd(open_schema))
    assert status_of(kubernetes, "GET", path.format("v1beta1")) == 404
    assert status_of(kubernetes, "GET", path.format("v1")) == 200


@pytest.mark.parametrize(
    ("crd", "status"),
    [
        ({"metadata": {"name": "x"}}, 400),
        (thing_crd({"type": "object"}) | {"metadata": {"name": "other.example.com"}}, 422),
        (thing_crd({}, {"name": "v2", "storage": True, "schema": {"openAPIV3Schema": {}}}), 422),
    ],
)
def test_a_malformed_crd_is_refused(kubernetes: Kubernetes, crd: dict[str, Any], status: int) -> None:
    """And nothing is served for it."""
    assert status_of(kubernetes, "POST", CRDS, crd) == status
    assert status_of(kubernetes, "GET", "/apis/example.com/v1/things") == 404


@pytest.mark.parametrize("path", [".spec.x[*]", "spec.x", ".spec['x']", '.spec[?(@.x>"y")]'])
def test_a_column_that_is_not_understood_is_refused(kubernetes: Kubernetes, path: str) -> None:
    """501 when the CRD is created, not an empty column later."""
    crd = thing_crd({"type": "object"})
    crd["spec"]["versions"][0]["additionalPrinterColumns"] = [{"name": "X", "type": "string", "jsonPath": path}]
    assert status_of(kubernetes, "POST", CRDS, crd) == 501


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (605, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (15000, "4h10m"),
        (28800, "8h"),
        (172799, "47h"),
        (176400, "2d1h"),
        (691200, "8d"),
        (63072000, "2y"),
        (64000000, "2y10d"),
        (260000000, "8y"),
        (-1, "<invalid>"),
    ],
)
def test_ages_are_short(seconds: float, text: str) -> None:
    """As kubectl prints them."""
    assert human_duration(seconds) == text


# Discovery and the helper


def test_what_is_served_can_be_discovered(kubernetes: Kubernetes) -> None:
    """As kubectl does: versions, groups, and the resources of each."""
    install_crds(kubernetes)
    assert send(kubernetes, "GET", "/version")["major"] == "1"
    assert send(kubernetes, "GET", "/api")["versions"] == ["v1"]
    groups = {group["name"]: group for group in send(kubernetes, "GET", "/apis")["groups"]}
    assert groups["external-secrets.io"]["preferredVersion"]["version"] == "v1"
    assert send(kubernetes, "GET", "/apis/apps")["name"] == "apps"
    found = {one["name"] for one in send(kubernetes, "GET", "/api/v1")["resources"]}
    assert {"secrets", "pods", "pods/status", "namespaces"} <= found
    assert status_of(kubernetes, "GET", "/apis/nothing.example/v1") == 404
    assert status_of(kubernetes, "POST", "/apis") == 405


def test_applying_creates_or_merges(kubernetes: Kubernetes, tmp_path: Path) -> None:
    """Text, files, dicts and lists of them; the answers are the objects as they are then."""
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: '1'}\n---\n"
    assert apply(kubernetes, text)[0]["data"] == {"x": "1"}
    path = tmp_path / "a.yaml"
    path.write_text(text.replace("x: '1'", "y: '2'"))
    assert apply(kubernetes, path)[0]["data"] == {"x": "1", "y": "2"}
    listed = {"apiVersion": "v1", "kind": "List", "items": [secret("a"), secret("b")]}
    assert len(apply(kubernetes, listed)) == 2
    assert names(kubernetes) == ["a", "b"]
    with pytest.raises(LookupError):
        apply(kubernetes, {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}})


def test_the_project_s_own_crds_are_installed(kubernetes: Kubernetes) -> None:
    """All of them."""
    assert install_crds(kubernetes) == [
        "adminkeyrotations.openai-key-rotator.io",
        "externalsecrets.external-secrets.io",
        "keyrotations.openai-key-rotator.io",
        "openais.generators.external-secrets.io",
    ]
