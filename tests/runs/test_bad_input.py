"""Bad input gets a clear message and nothing else: in outcome, condition, Event and exit code; no secret is shown."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.http_server import SandboxServer, write_kubeconfig
from sandbox.kubernetes.call import Admission, Denial
from sandbox.transport.faults import Fate, Rule, Rules, answered, delivered
from sandbox.transport.wire import Request, Response
from tests.support.command_line import run_py
from tests.support.paths import ACCOUNTS, ADMIN_SECRET, EXTERNAL_SECRETS, GENERATOR, NO_WAIT, SECRET
from tests.support.scene import EPOCH, HOST, PROJECT, TARGET, Scene, checked_scene, documented
from worker.errors import OutOfReach
from worker.model.hosts import named_origin
from worker.model.outcomes import Result
from worker.model.values import Ref
from worker.report.summary import exit_code

scene = pytest.fixture(checked_scene)
GOOD = Ref("team", TARGET.name)
SUBJECT = ("asked with key 'api-key' of Secret default/openai-admin-secret", f"about project {PROJECT} at {HOST}")
"""What a refused admin key's message names."""


def put_admin_key(scene: Scene, value: bytes) -> None:
    scene.merge(ADMIN_SECRET, {"data": {"api-key": base64.b64encode(value).decode()}})


def with_neighbour(scene: Scene) -> None:
    """The documented objects, and the same in another namespace and project, where nothing is wrong."""
    scene.apply_documented()
    scene.openai.add_project("acme", "good-project")
    scene.namespace("team")
    scene.apply_documented("team", projectId="good-project")


def assert_failed(scene: Scene, reason: str, *words: str, result: Result = Result.FAILED) -> None:
    """One target has come to this, everywhere with these words; its neighbour is served, and nothing is left over."""
    report = scene.run(max_wait=NO_WAIT)
    outcome = scene.outcome()
    assert (outcome.result, outcome.reason) == (result, reason)
    stored = scene.stored_entry().condition
    assert stored is not None
    assert (stored.ready, stored.reason) == (False, reason)
    condition = scene.condition()
    assert (condition["status"], condition["reason"]) == ("False", "SecretSyncedError")
    warnings = [e for e in scene.kubernetes.objects("events", "default") if e["type"] == "Warning"]
    assert {event["reason"] for event in warnings} == {"UpdateFailed"}
    events = [event for event in warnings if event["involvedObject"]["kind"] == "ExternalSecret"]
    assert len(events) == 1
    for word in words:
        assert word in outcome.message
        assert word in stored.message
        assert word in condition["message"]
        assert word in events[0]["message"]
    assert exit_code(report, strict=False) == (1 if result is Result.FAILED else 0)
    assert exit_code(report, strict=True) == 1
    assert scene.live_key(GOOD)
    assert scene.accounts() == []


# --- the admin key


def test_the_admin_secret_is_missing(scene: Scene) -> None:
    """It is named; once it is there the target is served."""
    with_neighbour(scene)
    scene.delete(ADMIN_SECRET)
    assert_failed(scene, "AdminKeyMissing", "default/openai-admin-secret", "does not exist")
    admin = documented(scene.admin_key, HOST)[0]
    scene.apply(admin)
    scene.run()
    assert scene.outcome().result is Result.ROTATED


def test_the_key_is_missing_in_the_admin_secret(scene: Scene) -> None:
    """Secret and key are named."""
    with_neighbour(scene)
    scene.merge(ADMIN_SECRET, {"data": {"api-key": None, "other": "eA=="}})
    assert_failed(scene, "AdminKeyInvalid", "default/openai-admin-secret", "'api-key'")


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b" ", b"\n\n"])
def test_a_line_break_after_the_admin_key_is_stripped(scene: Scene, ending: bytes) -> None:
    """As editors and `echo` leave it."""
    with_neighbour(scene)
    put_admin_key(scene, scene.admin_key.encode() + ending)
    scene.run()
    assert scene.live_key()


@pytest.mark.parametrize(
    "value",
    [
        "sk-admin-CANARYé".encode(),
        "sk-admin-CANARY\u200b".encode(),
        b"sk-admin-CANARY\xff\x00",
        b"sk-admin-CANARY\nX-Evil: 1",
        b"sk-admin-CANARY two",
        b"",
        b"\n",
        b"\x00CANARY",
    ],
)
def test_an_admin_key_that_is_none_is_not_sent(scene: Scene, value: bytes) -> None:
    """Not ASCII, empty, with line breaks inside: said by the name of the Secret and key, not by the value."""
    with_neighbour(scene)
    put_admin_key(scene, value)
    assert_failed(scene, "AdminKeyInvalid", "default/openai-admin-secret", "'api-key'")


def test_a_wrong_admin_key(scene: Scene) -> None:
    """401: OpenAI quotes the key in its message, which is therefore not passed on; status and code are."""
    with_neighbour(scene)
    put_admin_key(scene, b"sk-admin-CANARY-but-wrong")
    assert_failed(scene, "OpenAIUnauthorized", "status 401", "invalid_api_key", "admin key is not valid", *SUBJECT)
    assert "request req_" in scene.outcome().message


def test_a_key_of_an_application_is_no_admin_key(scene: Scene) -> None:
    """403."""
    with_neighbour(scene)
    put_admin_key(scene, scene.openai.add_user_key("good-project", "mine")[1].encode())
    assert_failed(scene, "OpenAIForbidden", "status 403", "permission", *SUBJECT)


def test_an_admin_key_that_may_only_read(scene: Scene) -> None:
    """Lists work, the create answers 403."""
    with_neighbour(scene)
    key = scene.openai.add_admin_key("acme", scopes=["read"])
    put_admin_key(scene, key.encode())
    assert_failed(scene, "OpenAIForbidden", "status 403", "create account", *SUBJECT)


@pytest.mark.parametrize("project", ["unknown-project", "globex-project"])
def test_an_unknown_project_or_one_of_another_organisation(scene: Scene, project: str) -> None:
    """404 both times."""
    with_neighbour(scene)
    scene.openai.add_organization("globex")
    scene.openai.add_project("globex", "globex-project")
    scene.merge(GENERATOR, {"spec": {"projectId": project}})
    assert_failed(scene, "OpenAINotFound", "status 404", f"asked about project {project} at {HOST}")


def test_an_archived_project(scene: Scene) -> None:
    """400, and the words say what may be the reason."""
    with_neighbour(scene)
    scene.openai.archive(PROJECT)
    assert_failed(scene, "OpenAIRefused", "status 400", "archived")


def test_the_default_project_takes_no_service_accounts(scene: Scene) -> None:
    """400 at the create."""
    with_neighbour(scene)
    scene.openai.add_project("acme", "default-project", default=True)
    scene.merge(GENERATOR, {"spec": {"projectId": "default-project"}})
    assert_failed(scene, "OpenAIRefused", "status 400", "create account")


def test_an_organisation_that_asks_for_a_lifetime(scene: Scene) -> None:
    """Without one the create is refused; with the annotation it works."""
    scene.openai.require_lifetime("acme", timedelta(days=30))
    scene.apply_documented()
    scene.run()
    assert (scene.outcome().result, scene.outcome().reason) == (Result.FAILED, "KeyLifetime")
    assert "annotation openai-key-rotator.io/key-lifetime" in scene.condition()["message"]
    scene.merge(GENERATOR, {"metadata": {"annotations": {"openai-key-rotator.io/key-lifetime": "24h"}}})
    scene.advance(minutes=2)
    scene.run()
    assert scene.live_key()


def test_a_failure_is_said_once_per_change(scene: Scene) -> None:
    """Runs every ten minutes with the same mistake neither fill the Events nor write anything again."""
    scene.apply_documented()
    scene.delete(ADMIN_SECRET)
    scene.run()
    for _ in range(5):
        scene.advance(minutes=10)
        scene.run()
        assert {kind for kind in scene.requests() if not kind.startswith("GET")} <= {"POST events"}
    assert len(scene.events()) == 1


def test_one_bad_key_costs_one_request_for_all_its_targets(scene: Scene) -> None:
    """A thousand targets with one wrong key do not get the organisation throttled."""
    scene.apply_documented()
    put_admin_key(scene, b"sk-admin-CANARY-but-wrong")
    source = scene.external_secret()
    for i in range(30):
        metadata = {"name": f"creds-{i}", "namespace": "default"}
        scene.apply(
            {"apiVersion": source["apiVersion"], "kind": source["kind"], "metadata": metadata, "spec": source["spec"]}
        )
    scene.run()
    assert len(scene.openai.log) == 1


# --- generators


def accept_everything(scene: Scene, *names: str) -> None:
    """As if the objects had been stored before their CRD had a schema."""
    for name in names or ("openais.generators.external-secrets.io", "externalsecrets.external-secrets.io"):
        crd = copy.deepcopy(dict(scene.kubernetes.find("customresourcedefinitions", "", name) or {}))
        for version in crd["spec"]["versions"]:
            anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            version["schema"] = {
                "openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}
            }
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        scene.merge(path, {"spec": {"versions": crd["spec"]["versions"]}})


REMOVED = None
BAD_GENERATORS: list[tuple[dict[str, Any], str]] = [
    ({"projectId": "a/b"}, "projectId"),
    ({"projectId": ".."}, "projectId"),
    ({"projectId": "x/../../admin_api_keys?"}, "projectId"),
    ({"projectId": "a?b"}, "projectId"),
    ({"projectId": "a#b"}, "projectId"),
    ({"projectId": "a%2fb"}, "projectId"),
    ({"projectId": "a b"}, "projectId"),
    ({"projectId": "a\n"}, "projectId"),
    ({"projectId": ""}, "projectId"),
    ({"projectId": "x" * 200}, "projectId"),
    ({"projectId": "проект"}, "projectId"),
    ({"projectId": 5}, "projectId"),
    ({"projectId": ["a"]}, "projectId"),
    ({"projectId": REMOVED}, "projectId"),
    ({"openAiAdminKey": REMOVED}, "openAiAdminKey"),
    ({"openAiAdminKey": "name"}, "openAiAdminKey"),
    ({"openAiAdminKey": {"name": REMOVED}}, "openAiAdminKey.name"),
    ({"openAiAdminKey": {"name": "../x"}}, "openAiAdminKey.name"),
    ({"openAiAdminKey": {"name": "A"}}, "openAiAdminKey.name"),
    ({"openAiAdminKey": {"name": 1}}, "openAiAdminKey.name"),
    ({"openAiAdminKey": {"key": REMOVED}}, "openAiAdminKey.key"),
    ({"openAiAdminKey": {"key": "a/b"}}, "openAiAdminKey.key"),
    ({"openAiAdminKey": {"namespace": "kube-system"}}, "openAiAdminKey.namespace"),
    ({"serviceAccountNameSize": 0}, "serviceAccountNameSize"),
    ({"serviceAccountNameSize": -1}, "serviceAccountNameSize"),
    ({"serviceAccountNameSize": 7}, "serviceAccountNameSize"),
    ({"serviceAccountNameSize": 41}, "serviceAccountNameSize"),
    ({"serviceAccountNameSize": 10**12}, "serviceAccountNameSize"),
    ({"serviceAccountNameSize": "10"}, "serviceAccountNameSize"),
    ({"serviceAccountNameSize": 10.5}, "serviceAccountNameSize"),
    ({"serviceAccountNameSize": True}, "serviceAccountNameSize"),
    ({"serviceAccountNamePrefix": "a b"}, "serviceAccountNamePrefix"),
    ({"serviceAccountNamePrefix": "a/../b"}, "serviceAccountNamePrefix"),
    ({"serviceAccountNamePrefix": "x" * 60}, "serviceAccountNamePrefix"),
    ({"serviceAccountNamePrefix": {"a": 1}}, "serviceAccountNamePrefix"),
    ({"cleanupPolicy": "retainLatest"}, "cleanupPolicy"),
    ({"cleanupPolicy": {"type": "never"}}, "cleanupPolicy.type"),
    ({"cleanupPolicy": {"type": ["idle"]}}, "cleanupPolicy.type"),
    ({"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "-2m"}}, "cleanupPolicy.gracePeriod"),
    ({"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "0s"}}, "cleanupPolicy.gracePeriod"),
    ({"cleanupPolicy": {"type": "retainLatest", "gracePeriod": 120}}, "cleanupPolicy.gracePeriod"),
    ({"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "2 minutes"}}, "cleanupPolicy.gracePeriod"),
    ({"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "999999999999h"}}, "cleanupPolicy.gracePeriod"),
    ({"cleanupPolicy": {"type": "idle", "idleTimeout": "1e9h"}}, "cleanupPolicy.idleTimeout"),
    ({"cleanupPolicy": {"type": "idle", "idleTimeout": "9" * 5000 + "h"}}, "cleanupPolicy.idleTimeout"),
]


@pytest.mark.parametrize(("spec", "field"), BAD_GENERATORS, ids=lambda value: str(value)[:60])
def test_a_malformed_generator_blocks_its_targets_by_the_name_of_the_field(
    scene: Scene, spec: dict[str, Any], field: str
) -> None:
    """Nothing is sent to OpenAI for it; its neighbour is served."""
    accept_everything(scene)
    with_neighbour(scene)
    scene.merge(GENERATOR, {"spec": spec})
    assert_failed(scene, "InvalidSpec", "generator default/openai-generator", f"spec.{field}", result=Result.BLOCKED)
    paths = [exchange.path for exchange in scene.openai.log]
    others = [path for path in paths if "good-project" not in path and "models" not in path]
    assert others == ["/v1/organization/admin_api_keys"]  # about the neighbour's admin key


@pytest.mark.parametrize(
    "host",
    [
        "https://api.openai.com@evil.example/v1",
        "https://api.openai.com:443@evil.example/v1",
        "https://user:password@openai.test/v1",
        "https://openai.test.evil.example/v1",
        "https://evilopenai.test/v1",
        "https://api.openai.com.evil.example/v1",
        "https://evil-api.openai.com/v1",
        "https://api.openai.com:8443/v1",
        "https://openai.test:8443/v1",
        "http://api.openai.com/v1",
        "http://openai.test/v1",
        "http://169.254.169.254/latest",
        "http://127.0.0.1:6443/v1",
        "https://kubernetes.default.svc/v1",
        "https://openai.test/v1?x=",
        "https://openai.test/v1#x",
        "https://openai.test/../admin",
        "https://openai.test/v1/%2e%2e/x",
        "https://openai.test\\@evil.example/v1",
        "https://оpenai.test/v1",
        "https://[::1]/v1",
        "https://",
        "openai.test/v1",
        "//openai.test/v1",
        "ftp://openai.test/v1",
        "file:///etc/passwd",
        "https://openai.test:99999/v1",
        "https://openai.test:x/v1",
        "https://openai.test/v1\r\nX-Evil: 1",
        "https://" + "a" * 10_000 + ".test/v1",
        "",
        5,
        ["https://openai.test/v1"],
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_host_that_is_not_allowed_never_sees_the_admin_key(scene: Scene, host: object) -> None:
    """However much it looks like one that is."""
    accept_everything(scene)
    with_neighbour(scene)
    scene.merge(GENERATOR, {"spec": {"host": host}})
    scene.run()
    assert scene.outcome().result is Result.BLOCKED
    assert scene.outcome().reason in ("HostNotAllowed", "InvalidSpec")
    assert "spec.host" in scene.outcome().message
    assert scene.live_key(GOOD)
    assert all(PROJECT not in exchange.path for exchange in scene.openai.log)


def test_a_host_that_is_allowed_no_more_blocks_and_keeps_the_key(scene: Scene) -> None:
    """The operator has taken `--allow-host` back."""
    scene.apply_documented()
    scene.run()
    scene.advance(hours=1)
    before = len(scene.openai.log)
    scene.run(allowed_hosts=frozenset())
    assert (scene.outcome().result, scene.outcome().reason) == (Result.BLOCKED, "HostNotAllowed")
    assert scene.live_key()
    assert len(scene.openai.log) == before


def test_a_host_that_is_allowed_no_more_receives_no_admin_key_for_deletions_either(scene: Scene) -> None:
    """Accounts that were made there stay recorded until the operator allows the host again."""
    eu = "https://eu.openai.test/v1"
    both = frozenset({named_origin(HOST), named_origin(eu)})
    scene.apply_documented(host=eu)
    scene.run(allowed_hosts=both)
    scene.merge(GENERATOR, {"spec": {"host": HOST}})
    scene.run(allowed_hosts=both, max_wait=NO_WAIT)
    scene.advance(minutes=10)
    sent: list[str] = []

    class Hosts:
        def fate(self, request: Request) -> Fate:
            sent.append(f"{request.method} {request.path}")
            return delivered()

    scene.run(openai_faults=Hosts(), max_wait=NO_WAIT)
    assert not [line for line in sent if line.startswith("DELETE")]
    assert len(scene.accounts()) == 2
    scene.run(allowed_hosts=both, max_wait=NO_WAIT)
    assert len(scene.accounts()) == 1


@pytest.mark.parametrize(
    "spec",
    [
        None,
        {},
        {"dataFrom": "x"},
        {"dataFrom": [None]},
        {"dataFrom": [{"sourceRef": "x"}]},
        {"dataFrom": [{"sourceRef": {"generatorRef": ["x"]}}]},
        {"dataFrom": [{"sourceRef": {"generatorRef": {"kind": "Password", "name": "x"}}}]},
        {"dataFrom": [{"extract": {"key": "x"}}]},
        {"data": "x"},
    ],
    ids=str,
)
def test_external_secrets_that_name_no_generator_of_ours_are_not_our_business(scene: Scene, spec: Any) -> None:
    """Whatever their shape: no outcome, no status, no Event."""
    accept_everything(scene)
    scene.apply(
        {
            "apiVersion": "external-secrets.io/v1",
            "kind": "ExternalSecret",
            "metadata": {"name": "x", "namespace": "default"},
        }
        | ({"spec": spec} if spec is not None else {})
    )
    report = scene.run()
    assert report.outcomes == ()
    assert scene.events() == []
    assert exit_code(report, strict=True) == 0


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"target": "x", "immutable": 1}, "immutable"),
        ({"target": {"name": 5}}, "spec.target.name"),
        ({"target": {"name": "../x"}}, "spec.target.name"),
        ({"target": {"name": "a/b"}}, "spec.target.name"),
        ({"target": {"creationPolicy": "Sometimes"}}, "creationPolicy"),
        ({"target": {"creationPolicy": ["Owner"]}}, "creationPolicy"),
        ({"target": {"template": {"metadata": {"labels": {"a": 5}}}}}, "labels"),
        ({"refreshInterval": 3600}, "refreshInterval"),
        ({"refreshInterval": "1e400h"}, "refreshInterval"),
        ({"refreshInterval": {"a": 1}}, "refreshInterval"),
        ({"refreshPolicy": "Never"}, "refreshPolicy"),
        ({"syncWindows": [{"schedule": "x"}]}, "syncWindows"),
    ],
    ids=str,
)
def test_malformed_external_secrets(scene: Scene, spec: dict[str, Any], word: str) -> None:
    """Blocked by the name of the field, whatever the API server let in."""
    accept_everything(scene)
    with_neighbour(scene)
    scene.merge(f"{EXTERNAL_SECRETS}/{TARGET.name}", {"spec": spec})
    scene.run()
    (outcome,) = [o for o in scene.watcher.outcomes if o.source is not None and o.source.ref == TARGET]
    assert outcome.result is Result.BLOCKED
    assert word in outcome.message
    assert scene.condition()["status"] == "False"
    assert scene.live_key(GOOD)
    assert scene.accounts() == []


def test_a_status_of_any_shape_is_no_obstacle(scene: Scene) -> None:
    """Another controller's, or a hand's."""
    accept_everything(scene)
    for i, status in enumerate(["x", {"conditions": "x"}, {"conditions": [None, "x", {"type": 5}, {"type": "Ready"}]}]):
        scene.namespace(f"team-{i}")
        scene.apply_documented(f"team-{i}")
        path = f"/apis/external-secrets.io/v1/namespaces/team-{i}/externalsecrets/{TARGET.name}"
        if isinstance(status, dict):
            scene.merge(path + "/status", {"status": status})
    report = scene.run()
    assert {outcome.result for outcome in report.outcomes} == {Result.ROTATED}


@pytest.mark.parametrize(
    "annotation",
    [
        "[]",
        "null",
        "5",
        '{"id": 5}',
        '{"id": "a/b", "name": "x", "target": "default/openai-credentials", "ledger": "x"}',
        '{"id": "../../x", "name": "x", "target": "default/openai-credentials", "ledger": "x"}',
        "[" * 15_000,
        '{"id": "' + "a" * 20_000 + '"}',
        "\u0000",
        '{"id": "user-1", "name": "\\ud800", "target": "t", "ledger": "l"}',
    ],
    ids=lambda value: value[:30],
)
def test_an_annotation_of_any_shape_harms_nobody(scene: Scene, annotation: str) -> None:
    """Either the annotation is put right or the target is blocked; no account is made or deleted for it."""
    with_neighbour(scene)
    scene.run()
    old = scene.named()["id"]
    scene.merge(SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/service-account": annotation}}})
    scene.run()
    outcome = scene.outcome()
    assert outcome.reason == "AnnotationLost" or outcome.result is Result.BLOCKED
    if outcome.reason == "AnnotationLost":
        assert scene.live_key()
    assert old in scene.account_ids()
    assert scene.live_key(GOOD)


# --- answers of OpenAI


def answer(status: int, body: object) -> Fate:
    if isinstance(body, str):
        return answered(Response.of_text(status, body, "text/html"))
    return answered(Response.of_json(status, body))


HTML = "<html><body>CANARY sign in</body></html>"
KEY = {"id": "key_1", "value": "sk-svcacct-CANARY-answered", "name": "x", "created_at": 1}
ACCOUNT = {"id": "user-1", "name": "x", "api_key": KEY}


@pytest.mark.parametrize(
    "body",
    [
        HTML,
        "",
        "null",
        "[]",
        "[" * 100_000,
        "{",
        {},
        {"data": None, "has_more": False},
        {"data": {}, "has_more": False},
        {"data": [], "has_more": "no"},
        {"data": [], "has_more": True, "last_id": None},
        {"data": [], "has_more": True, "last_id": "user-1"},
        {"data": [{"id": "user-1", "name": "x"}], "has_more": True, "last_id": "user-1"},
        {"data": [{"id": "../x", "name": "x"}], "has_more": False},
        {"data": ["x"], "has_more": False},
        {"data": [{"name": "x"}], "has_more": False},
    ],
    ids=lambda value: str(value)[:50],
)
@pytest.mark.parametrize("status", [200, 201])
def test_a_list_that_cannot_be_understood_stops_the_rotation(scene: Scene, body: object, status: int) -> None:
    """Also one whose pages go round in circles: nothing is minted by a list that is not one."""
    scene.apply_documented()
    report = scene.run(
        openai_faults=Rules([Rule(answer(status, body), "GET", ACCOUNTS)], scene.random), max_wait=NO_WAIT
    )
    assert (scene.outcome().result, scene.outcome().reason) == (Result.FAILED, "OpenAIUnintelligible")
    assert "list accounts" in scene.outcome().message
    assert exit_code(report, strict=False) == 1
    assert scene.openai.mints == 0
    assert len([kind for kind in scene.requests() if kind == "GET service_accounts"]) <= 3


def test_pages_without_end_come_to_an_end(scene: Scene) -> None:
    """Each page names another one, for ever."""
    count = 0

    class Endless:
        def fate(self, request: Request) -> Fate:
            nonlocal count
            count += 1
            last = f"user-{count % 7}"
            return answer(200, {"data": [{"id": last, "name": "x"}], "has_more": True, "last_id": last})

    scene.apply_documented()
    scene.run(openai_faults=Endless(), max_wait=NO_WAIT)
    assert (scene.outcome().result, scene.outcome().reason) == (Result.FAILED, "OpenAIUnintelligible")
    assert count < 10_001


@pytest.mark.parametrize(
    "body",
    [
        HTML,
        "",
        "null",
        {},
        {"id": "user-1"},
        ACCOUNT | {"api_key": None},
        ACCOUNT | {"api_key": "sk-svcacct-CANARY"},
        ACCOUNT | {"id": "a/b"},
        ACCOUNT | {"id": None},
        ACCOUNT | {"api_key": KEY | {"value": ""}},
        ACCOUNT | {"api_key": KEY | {"value": None}},
        ACCOUNT | {"api_key": KEY | {"value": 5}},
        ACCOUNT | {"api_key": KEY | {"value": "sk-CANARY\nX-Evil: 1"}},
        ACCOUNT | {"api_key": KEY | {"value": "sk-CANARY-ü"}},
        ACCOUNT | {"api_key": KEY | {"id": "../x"}},
    ],
    ids=lambda value: str(value)[:70],
)
@pytest.mark.parametrize("status", [200, 201])
def test_an_account_that_cannot_be_understood_is_not_published(scene: Scene, body: object, status: int) -> None:
    """And is looked for by its name after the claim, for it may well have been made."""

    class Made:
        def fate(self, request: Request) -> Fate:
            if request.method == "POST":
                scene.openai.handle(request)
                return answer(status, body)
            return delivered()

    scene.apply_documented()
    report = scene.run(openai_faults=Made(), max_wait=NO_WAIT)
    assert (scene.outcome().result, scene.outcome().reason) == (Result.FAILED, "OpenAIUnintelligible")
    assert exit_code(report, strict=False) == 1
    assert scene.secret() is None
    assert len(scene.accounts()) == 1
    scene.advance(minutes=10)
    scene.run()
    assert scene.live_key()
    assert len(scene.accounts()) == 1


@pytest.mark.parametrize("status", [200, 201, 202])
def test_any_status_of_success_is_success(scene: Scene, status: int) -> None:
    """OpenAI's description and its API do not agree on 200 or 201."""

    class Translated:
        def fate(self, request: Request) -> Fate:
            if request.method in ("POST", "DELETE"):
                real = scene.openai.handle(request)
                return answered(Response(status, real.headers, real.body))
            return delivered()

    scene.apply_documented()
    scene.run(openai_faults=Translated())
    scene.advance(hours=1)
    scene.run(openai_faults=Translated())
    assert scene.outcome().result is Result.ROTATED
    assert scene.live_key()
    assert len(scene.accounts()) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(scene: Scene, method: str, status: int) -> None:
    """The admin key goes nowhere else."""
    away = answered(Response(status, {"Location": "https://evil.example/CANARY"}))
    scene.apply_documented()
    scene.run(openai_faults=Rules([Rule(away, method, ACCOUNTS)], scene.random), max_wait=NO_WAIT)
    assert (scene.outcome().result, scene.outcome().reason) == (Result.FAILED, "OpenAIRedirect")
    assert scene.openai.mints == 0


@pytest.mark.parametrize("body", [HTML, "", "[]"])
def test_a_login_page_does_not_show_that_a_key_is_accepted(scene: Scene, body: object) -> None:
    """Something in between answered 200, so nobody knows whether OpenAI takes the key: it is not published."""
    scene.apply_documented()
    scene.run(openai_faults=Rules([Rule(answer(200, body), "GET", "/v1/models")], scene.random))
    assert (scene.outcome().result, scene.outcome().reason) == (Result.FAILED, "KeyNotAccepted")
    assert scene.secret() is None
    assert scene.accounts() == []


@pytest.mark.parametrize("status", [403, 404])
def test_a_host_that_cannot_tell_about_a_key_counts_as_accepting_it(scene: Scene, status: int) -> None:
    """A key without that permission, a host without that path."""
    scene.apply_documented()
    scene.run(openai_faults=Rules([Rule(answer(status, {"error": {}}), "GET", "/v1/models")], scene.random))
    assert scene.outcome().result is Result.ROTATED


@pytest.mark.parametrize(
    "retry_after", ["1", None, "soon", "-5", "1e400", "nan", "Wed, 21 Oct 2026 07:28:00 GMT", "3600"]
)
def test_throttling_neither_spins_nor_loses_anything(scene: Scene, retry_after: str | None) -> None:
    """Whatever `Retry-After` says: few requests, and a target that is served once it is over."""
    headers = {"Retry-After": retry_after} if retry_after is not None else {}
    slow_down = answered(Response.of_json(429, {"error": {"code": "rate_limit_exceeded"}}, headers))
    scene.apply_documented()
    scene.run(openai_faults=Rules([Rule(slow_down)], scene.random), max_wait=NO_WAIT)
    assert (scene.outcome().result, scene.outcome().reason) == (Result.FAILED, "OpenAIThrottled")
    assert scene.openai_session is not None
    assert len(scene.openai_session.log) <= 8
    later = scene.outcome().next_at
    assert later is not None
    scene.seconds = (later - EPOCH).total_seconds()
    scene.run()
    assert scene.live_key()


@pytest.mark.parametrize("used", [0, -1, "yesterday", 1e300, True, float("1e12"), [], {}])
def test_a_last_use_that_cannot_be_understood_deletes_nothing(scene: Scene, used: object) -> None:
    """And a use of null is none at all, not one in 1970."""
    scene.apply_documented()
    scene.run()
    scene.advance(hours=1)
    fate = answer(200, {"id": "key_1", "last_used_at": used})
    scene.run(openai_faults=Rules([Rule(fate, "GET", ".*/api_keys/.*")], scene.random))
    assert len(scene.accounts()) == 2
    scene.run()
    assert len(scene.accounts()) == 1


# --- permissions


@pytest.mark.parametrize(
    ("verb", "resource"),
    [("get", "namespaces"), ("list", "keyrotations"), ("list", "openais"), ("list", "externalsecrets")],
)
def test_without_a_permission_to_look_the_run_ends(scene: Scene, verb: str, resource: str) -> None:
    """The message names verb and resource, and nothing was done."""
    scene.apply_documented()
    scene.kubernetes.forbid(verb, resource)
    with pytest.raises(OutOfReach) as caught:
        scene.run()
    assert caught.value.reason == "Forbidden"
    assert f"{verb} {resource}" in caught.value.message
    assert scene.openai.mints == 0


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
def test_without_a_permission_to_work_the_target_fails(scene: Scene, verb: str, resource: str) -> None:
    """The message names verb and resource; at most one account is made, and with the permission all comes right."""
    scene.apply_documented()
    if verb == "patch":
        scene.run()
        scene.advance(hours=1)
    mints = scene.openai.mints
    scene.kubernetes.forbid(verb, resource)
    for _ in range(5):
        report = scene.run(max_wait=NO_WAIT)
        outcome = scene.outcome()
        assert (outcome.result, outcome.reason) == (Result.FAILED, "Forbidden")
        assert f"{verb} {resource}" in outcome.message
        assert exit_code(report, strict=False) == 1
        assert f"{verb} {resource}" in scene.condition()["message"]
        scene.advance(hours=2)
    assert scene.openai.mints <= mints + 1
    scene.kubernetes.permit(verb, resource)
    for _ in range(3):
        scene.run()
        scene.advance(minutes=10)
    assert scene.live_key()
    assert len(scene.accounts()) == 1


@pytest.mark.parametrize(("verb", "resource"), [("patch", "externalsecrets/status"), ("create", "events")])
def test_without_a_permission_to_tell_the_rotation_happens(scene: Scene, verb: str, resource: str) -> None:
    """What could not be told is logged."""
    scene.apply_documented()
    scene.kubernetes.forbid(verb, resource)
    report = scene.run()
    assert scene.outcome().result is Result.ROTATED
    assert exit_code(report, strict=True) == 0
    (problem,) = scene.watcher.problems
    assert all(word in problem for word in (f"{verb} ", *resource.split("/")))


def test_without_a_permission_to_delete_entries_nothing_is_lost(scene: Scene) -> None:
    """An empty entry stays until it can be deleted, and it is said."""
    scene.apply_documented()
    scene.run()
    scene.delete(f"{EXTERNAL_SECRETS}/{TARGET.name}")
    scene.kubernetes.forbid("delete", "keyrotations")
    report = scene.run()
    assert exit_code(report, strict=False) == 1
    retired = scene.retired()
    assert retired is not None
    assert "delete keyrotations" in retired.message
    assert scene.accounts() == []
    scene.kubernetes.permit("delete", "keyrotations")
    scene.run()
    assert scene.entry() is None


@pytest.mark.parametrize("crd", ["keyrotations.openai-key-rotator.io", "openais.generators.external-secrets.io"])
def test_a_missing_crd_is_named_with_the_command_that_is_missing(scene: Scene, crd: str) -> None:
    """And nothing was done."""
    scene.delete(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}")
    with pytest.raises(OutOfReach) as caught:
        scene.run()
    assert caught.value.reason == "CRDMissing"
    assert crd in caught.value.message
    assert "kubectl apply" in caught.value.message


def test_a_missing_ledger_namespace_is_named_with_the_command_that_is_missing(scene: Scene) -> None:
    """The worker does not make it: its uid is what tells this installation from another."""
    with pytest.raises(OutOfReach) as caught:
        scene.run(ledger_namespace="elsewhere")
    assert "kubectl create namespace elsewhere" in caught.value.message


@pytest.mark.parametrize(
    "fate",
    [
        answer(200, HTML),
        answer(200, ""),
        answer(200, "[]"),
        answer(503, HTML),
        answer(401, {"kind": "Status"}),
        answer(418, ""),
    ],
    ids=["html", "empty", "list", "503", "401", "418"],
)
def test_something_that_is_no_api_server(scene: Scene, fate: Fate) -> None:
    """A login page or a proxy in its place ends the run."""
    scene.apply_documented()
    with pytest.raises(OutOfReach) as caught:
        scene.run(cluster_faults=Rules([Rule(fate)], scene.random))
    assert "namespaces openai-key-rotator" in caught.value.message
    assert scene.openai.mints == 0


def test_an_admission_webhooks_message_is_not_repeated(scene: Scene) -> None:
    """It may quote the object, key included: reason and status are enough."""

    def quoting(admission: Admission) -> Denial | None:
        return Denial(json.dumps(admission.object)) if admission.resource == "secrets" else None

    scene.apply_documented()
    scene.kubernetes.admission(quoting)
    report = scene.run()
    assert scene.outcome().result is Result.FAILED
    assert exit_code(report, strict=False) == 1
    assert "create secrets" in scene.outcome().message


# --- as a user runs it


@pytest.fixture
def served(scene: Scene) -> Iterator[SandboxServer]:
    """The scene behind HTTP."""
    with SandboxServer(scene.kubernetes, scene.openai) as server:
        yield server


def logged(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_run_py_rotates_and_ends_with_0(scene: Scene, served: SandboxServer, tmp_path: Path) -> None:
    """The documented objects over HTTP, with log lines of JSON."""
    for obj in documented(scene.admin_key, served.openai_url):
        scene.apply(obj)
    kubeconfig = served.write_kubeconfig(tmp_path / "kubeconfig")
    done = run_py(kubeconfig, "--allow-host", served.openai_url, "--max-wait", "0s")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = logged(done)
    assert [line["event"] for line in lines] == ["run.discovered", "target.rotated", "run.finished"]
    assert (lines[1]["namespace"], lines[1]["secret"], lines[1]["reason"]) == ("default", TARGET.name, "First")
    assert scene.live_key()


def test_the_summary_goes_to_a_file_as_well(scene: Scene, served: SandboxServer, tmp_path: Path) -> None:
    """As a kubelet wants it for the pod's termination message: of a run, and of one that could not even begin."""
    file, kubeconfig = tmp_path / "summary", served.write_kubeconfig(tmp_path / "kubeconfig")
    done = run_py(kubeconfig, "--summary-file", str(file))
    assert done.returncode == 0
    summary = json.loads(file.read_text())
    assert {"rotated": 0, "exit_code": 0}.items() <= summary.items()
    assert summary.items() - {"exit_code": 0}.items() <= logged(done)[-1].items()
    failed = run_py(tmp_path / "none", ROTATOR_SUMMARY_FILE=str(file))
    assert failed.returncode == 3
    told = json.loads(file.read_text())
    assert (told["reason"], told["exit_code"]) == ("NoKubeconfig", 3)


def test_a_summary_that_cannot_be_written_ends_no_run(served: SandboxServer, tmp_path: Path) -> None:
    """It is said, by the kind of error."""
    kubeconfig = served.write_kubeconfig(tmp_path / "kubeconfig")
    done = run_py(kubeconfig, "--summary-file", str(tmp_path / "nowhere" / "summary"))
    assert done.returncode == 0
    assert "--summary-file was not written: FileNotFoundError" in done.stderr


def test_run_py_ends_with_1_where_a_target_failed(scene: Scene, served: SandboxServer, tmp_path: Path) -> None:
    """And with --strict also where one is blocked, as here by a host that is not allowed."""
    for obj in documented("sk-admin-CANARY-but-wrong", served.openai_url):
        scene.apply(obj)
    kubeconfig = served.write_kubeconfig(tmp_path / "kubeconfig")
    failed = run_py(kubeconfig, ROTATOR_ALLOW_HOST=served.openai_url)
    assert failed.returncode == 1
    assert [line["reason"] for line in logged(failed) if line["event"] == "target.failed"] == ["OpenAIUnauthorized"]
    assert run_py(kubeconfig).returncode == 0
    strict = run_py(kubeconfig, "--strict")
    assert strict.returncode == 1
    assert [line["reason"] for line in logged(strict) if line["event"] == "target.blocked"] == ["HostNotAllowed"]


@pytest.mark.parametrize("what", ["namespaces", "openais"])
def test_run_py_ends_with_3_without_a_permission_to_look(
    scene: Scene, served: SandboxServer, tmp_path: Path, what: str
) -> None:
    """One line says which."""
    scene.kubernetes.forbid("get" if what == "namespaces" else "list", what)
    done = run_py(served.write_kubeconfig(tmp_path / "kubeconfig"))
    assert done.returncode == 3
    (line,) = logged(done)
    assert (line["event"], line["level"], line["reason"]) == ("run.failed", "error", "Forbidden")
    assert what in line["message"]


def test_run_py_ends_with_3_without_a_crd(scene: Scene, served: SandboxServer, tmp_path: Path) -> None:
    """One line says which `kubectl apply` is missing."""
    name = "openais.generators.external-secrets.io"
    scene.delete(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
    done = run_py(served.write_kubeconfig(tmp_path / "kubeconfig"))
    assert done.returncode == 3
    assert "kubectl apply" in logged(done)[0]["message"]


def test_run_py_ends_with_3_where_the_credentials_are_wrong(
    scene: Scene, served: SandboxServer, tmp_path: Path
) -> None:
    """401, in words; the token is not repeated."""
    scene.kubernetes.token = "the-right-one"
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", served.kubernetes_url, "token-CANARY")
    done = run_py(kubeconfig)
    assert done.returncode == 3
    assert "credentials" in logged(done)[0]["message"]
    scene.kubernetes.token = None


def test_run_py_ends_with_3_where_the_cluster_is_away(tmp_path: Path) -> None:
    """Nothing listens there."""
    done = run_py(write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1"))
    assert done.returncode == 3
    assert "no connection to the cluster" in logged(done)[0]["message"]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "apiVersion: [CANARY",
        "\t\tCANARY: :",
        "[]",
        "just CANARY",
        "apiVersion: v1\nkind: Config\nclusters: CANARY\n",
        "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: []\nusers: []\ncontexts: []\n",
        json.dumps(
            {
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "clusters": [
                    {"name": "x", "cluster": {"server": "https://127.0.0.1:1", "certificate-authority-data": "CANARY!"}}
                ],
                "users": [{"name": "x", "user": {"token": "CANARY"}}],
            }
        ),
        json.dumps(
            {
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "clusters": [
                    {
                        "name": "x",
                        "cluster": {"server": "https://127.0.0.1:1", "certificate-authority-data": "Q0FOQVJZ"},
                    }
                ],
                "users": [{"name": "x", "user": {"token": "CANARY"}}],
            }
        ),
    ],
    ids=["absent", "empty", "broken", "tabs", "list", "text", "wrong", "no-context", "base64", "certificate"],
)
def test_run_py_ends_with_3_without_a_usable_kubeconfig(tmp_path: Path, text: str | None) -> None:
    """One line says so, and which file or how to name one; its content, which has credentials, is not repeated."""
    kubeconfig = tmp_path / "kubeconfig"
    if text is not None:
        kubeconfig.write_text(text)
    done = run_py(kubeconfig)
    assert done.returncode == 3, done.stdout + done.stderr
    line = logged(done)[-1]
    assert (line["event"], line["reason"]) == ("run.failed", "NoKubeconfig")
    assert ("KUBECONFIG" if text is None else str(kubeconfig)) in line["message"]


def test_run_py_ends_with_3_without_any_kubeconfig() -> None:
    """Neither variable nor file."""
    done = run_py(None)
    assert done.returncode == 3
    assert "KUBECONFIG" in logged(done)[-1]["message"]


def test_run_py_ends_with_2_where_it_is_asked_for_nonsense() -> None:
    """All mistakes are told at once."""
    done = run_py(
        None, "--max-wait", "soon", "--concurrency", "0", ROTATOR_ALLOW_HOST="http://evil.example", ROTATOR_X="1"
    )
    assert done.returncode == 2
    for word in ("--max-wait", "--concurrency", "ROTATOR_ALLOW_HOST", "ROTATOR_X"):
        assert word in done.stderr


def test_a_status_without_a_ledger_says_so(scene: Scene, served: SandboxServer, tmp_path: Path) -> None:
    """`status` needs the CRD as well."""
    scene.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/keyrotations.openai-key-rotator.io")
    done = run_py(served.write_kubeconfig(tmp_path / "kubeconfig"), "status")
    assert done.returncode == 3
    assert "kubectl apply" in done.stderr
