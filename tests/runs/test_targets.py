"""Whole runs over everything that feeds a target, and over what becomes of targets that are changed or deleted."""

from __future__ import annotations

import base64
import copy
import json
from datetime import timedelta
from typing import Any

import pytest

from sandbox.openai.state import KeyStatus
from sandbox.transport.wire import Request
from tests.support.paths import (
    ACCOUNTS,
    ADMIN_SECRET,
    EXTERNAL_SECRET,
    EXTERNAL_SECRETS,
    GENERATOR,
    NO_WAIT,
    SECRET,
    SECRETS,
)
from tests.support.scene import HOST, LEDGER, PROJECT, TARGET, Meanwhile, Scene, checked_scene, documented
from worker.kubernetes.secret import CURRENT, TEMPLATE
from worker.model.hosts import named_origin
from worker.model.outcomes import Result
from worker.model.targets import AdminKeyRef
from worker.model.times import format_time
from worker.model.values import Ref
from worker.report.summary import exit_code

scene = pytest.fixture(checked_scene)
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ANNOTATION = "openai-key-rotator.io/"
REFERENCE = {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI", "name": "openai-generator"}
SOURCE = {"sourceRef": {"generatorRef": REFERENCE}}


def external_secret(name: str = "creds", namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """An ExternalSecret of the documented generator."""
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"refreshInterval": "1h", "dataFrom": [SOURCE]} | spec,
    }


def apply_generator(scene: Scene, annotations: dict[str, str] | None = None, **spec: Any) -> None:
    """The documented admin Secret and generator alone."""
    for obj in documented(scene.admin_key, HOST)[:2]:
        if obj["kind"] == "OpenAI":
            obj["metadata"]["annotations"] = annotations or {}
            obj["spec"] |= spec
        scene.apply(obj)


def standalone(scene: Scene, **annotations: str) -> None:
    """A generator that says itself which Secret it feeds."""
    values = {"secret": "creds"} | annotations
    apply_generator(scene, {ANNOTATION + key.replace("_", "-"): value for key, value in values.items()})


CREDS = Ref("default", "creds")


# --- ExternalSecrets


def test_a_cluster_that_serves_v1beta1_only(scene: Scene) -> None:
    """Older clusters have no v1: the same happens there, status included."""
    crd = copy.deepcopy(
        dict(scene.kubernetes.find("customresourcedefinitions", "", "externalsecrets.external-secrets.io") or {})
    )
    for version in crd["spec"]["versions"]:
        version["served"] = version["name"] == "v1beta1"
    scene.merge(f"{CRDS}/externalsecrets.external-secrets.io", {"spec": {"versions": crd["spec"]["versions"]}})
    apply_generator(scene)
    scene.apply(external_secret() | {"apiVersion": "external-secrets.io/v1beta1"})
    scene.run()
    assert scene.live_key(CREDS)
    assert scene.condition(CREDS)["reason"] == "SecretSynced"
    secret = scene.secret(CREDS)
    assert secret is not None
    assert secret["metadata"]["ownerReferences"][0]["apiVersion"] == "external-secrets.io/v1beta1"
    scene.advance(hours=1)
    scene.run()
    assert scene.outcome(CREDS).result is Result.ROTATED


def test_a_cluster_that_begins_to_serve_v1_rotates_nothing(scene: Scene) -> None:
    """An upgrade of the operator's CRDs is no reason for a new key; the owner reference stays one."""
    path = f"{CRDS}/externalsecrets.external-secrets.io"
    crd = copy.deepcopy(
        dict(scene.kubernetes.find("customresourcedefinitions", "", "externalsecrets.external-secrets.io") or {})
    )
    versions = crd["spec"]["versions"]
    only_old = [version | {"served": version["name"] == "v1beta1"} for version in versions]
    scene.merge(path, {"spec": {"versions": only_old}})
    apply_generator(scene)
    scene.apply(external_secret() | {"apiVersion": "external-secrets.io/v1beta1"})
    scene.run()
    scene.merge(path, {"spec": {"versions": versions}})
    scene.advance(minutes=10)
    scene.run()
    assert scene.outcome(CREDS).result is Result.KEPT
    scene.advance(hours=1)
    scene.run()
    secret = scene.secret(CREDS)
    assert secret is not None
    assert [owner["apiVersion"] for owner in secret["metadata"]["ownerReferences"]] == ["external-secrets.io/v1"]


def test_a_cluster_without_external_secrets_has_standalone_targets(scene: Scene) -> None:
    """No CRD of ExternalSecrets is no error."""
    scene.delete(f"{CRDS}/externalsecrets.external-secrets.io")
    standalone(scene)
    report = scene.run()
    assert scene.live_key(CREDS)
    assert exit_code(report, strict=True) == 0


@pytest.mark.parametrize(
    ("interval", "early", "late"),
    [("10m", 8, 10), ("1h", 54, 55), ("1h30m", 84, 85), ("24h", 24 * 60 - 6, 24 * 60 - 5), ("90s", 1.2, 1.5)],
)
def test_intervals(scene: Scene, interval: str, early: float, late: float) -> None:
    """Due from the interval on, less a tenth of it, five minutes at most."""
    apply_generator(scene)
    scene.apply(external_secret(refreshInterval=interval))
    scene.run()
    scene.seconds = early * 60
    scene.run(max_wait=NO_WAIT)
    assert scene.outcome(CREDS).result is Result.KEPT
    scene.seconds = late * 60
    scene.run(max_wait=NO_WAIT)
    assert scene.outcome(CREDS).result is Result.ROTATED


@pytest.mark.parametrize(
    "spec", [{"refreshInterval": "0"}, {"refreshInterval": "0s"}, {"refreshPolicy": "CreatedOnce"}]
)
def test_what_is_made_once_rotates_on_request_only(scene: Scene, spec: dict[str, Any]) -> None:
    """An interval of nothing, or the policy CreatedOnce."""
    apply_generator(scene)
    scene.apply(external_secret(**spec))
    scene.run()
    scene.advance(days=400)
    scene.run()
    assert (scene.outcome(CREDS).result, scene.outcome(CREDS).next_at) == (Result.KEPT, None)
    scene.merge(f"{EXTERNAL_SECRETS}/creds", {"metadata": {"annotations": {"force-sync": "1"}}})
    scene.run()
    assert scene.outcome(CREDS).result is Result.ROTATED


def test_on_change_rotates_when_the_spec_changes(scene: Scene) -> None:
    """And not when time passes or a label changes."""
    apply_generator(scene)
    scene.apply(external_secret(refreshPolicy="OnChange"))
    scene.run()
    scene.advance(days=400)
    scene.merge(f"{EXTERNAL_SECRETS}/creds", {"metadata": {"labels": {"a": "b"}}})
    scene.run()
    assert scene.outcome(CREDS).result is Result.KEPT
    scene.merge(f"{EXTERNAL_SECRETS}/creds", {"spec": {"refreshInterval": "2h"}})
    results = []
    for _ in range(2):
        scene.run()
        results.append(scene.outcome(CREDS).result)
    assert results == [Result.ROTATED, Result.KEPT]


@pytest.mark.parametrize(
    ("policy", "owned", "stays"), [("Owner", True, False), ("Orphan", False, True), (None, True, False)]
)
def test_creation_policy(scene: Scene, policy: str | None, owned: bool, stays: bool) -> None:
    """Owner: the Secret goes with its ExternalSecret, and then its account. Orphan: both stay, and it is said why."""
    apply_generator(scene)
    scene.apply(external_secret(target={"creationPolicy": policy} if policy else {}))
    scene.run()
    secret = scene.secret(CREDS)
    assert secret is not None
    assert bool(secret["metadata"].get("ownerReferences")) is owned
    scene.delete(f"{EXTERNAL_SECRETS}/creds")
    scene.run()
    scene.advance(hours=1)
    scene.run()
    if stays:
        assert scene.live_key(CREDS)
        entry = scene.stored_entry(CREDS)
        assert entry.condition is not None
        assert (entry.condition.ready, entry.condition.reason) == (False, "SourceGone")
        scene.delete(f"{SECRETS}/creds")
        scene.run()
        scene.advance(minutes=10)
        scene.run()
    assert scene.secret(CREDS) is None
    assert scene.accounts() == []
    assert scene.entry(CREDS) is None


def test_merge_writes_into_a_secret_that_exists(scene: Scene) -> None:
    """Other data stays, nothing owns it, and it is blocked with words while it does not exist."""
    apply_generator(scene)
    scene.apply(external_secret(target={"name": "mine", "creationPolicy": "Merge"}))
    mine = Ref("default", "mine")
    report = scene.run()
    assert (scene.outcome(mine).result, scene.outcome(mine).reason) == (Result.BLOCKED, "SecretMissing")
    assert exit_code(report, strict=False) == 0
    assert exit_code(report, strict=True) == 1
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "default"}}
    scene.apply(secret | {"stringData": {"other": "value"}})
    for _ in range(2):
        scene.run()
        stored = scene.secret(mine)
        assert stored is not None
        assert set(stored["data"]) == {"other", "api_key"}
        assert "ownerReferences" not in stored["metadata"]
        assert scene.live_key(mine)
        scene.advance(hours=1)
    scene.delete(f"{SECRETS}/mine")
    scene.run()
    assert scene.outcome(mine).result is Result.BLOCKED
    scene.advance(minutes=10)
    scene.run()
    assert scene.accounts() == []


def with_template(scene: Scene, *, labels: dict[str, str], annotations: dict[str, str]) -> None:
    """The ExternalSecret's template from now on, and a rotation."""
    metadata = {"labels": labels, "annotations": annotations}
    scene.merge(EXTERNAL_SECRET, {"spec": {"target": {"template": None}}})
    scene.merge(EXTERNAL_SECRET, {"spec": {"target": {"template": {"metadata": metadata}}}})
    scene.advance(hours=1)
    scene.run()
    assert scene.outcome().result is Result.ROTATED


def metadata_of(scene: Scene) -> tuple[dict[str, str], dict[str, str]]:
    """The Secret's labels and annotations without ours."""
    secret = scene.secret()
    assert secret is not None
    parts = [dict(secret["metadata"].get(field, {})) for field in ("labels", "annotations")]
    return tuple({k: v for k, v in part.items() if not k.startswith(ANNOTATION)} for part in parts)  # type: ignore[return-value]


def test_what_is_taken_from_a_template_goes_from_the_secret(scene: Scene) -> None:
    """What the worker wrote goes with the next rotation; what others wrote, or have changed since, stays."""
    scene.apply_documented()
    scene.run()
    scene.merge(SECRET, {"metadata": {"labels": {"theirs": "x", "same": "a"}, "annotations": {"note": "y"}}})
    with_template(
        scene,
        labels={"team": "a", "tier": "b", "same": "a", "edited": "a"},
        annotations={"owner": "me", "kept": "z"},
    )
    scene.merge(SECRET, {"metadata": {"labels": {"edited": "by-hand"}}})
    assert metadata_of(scene) == (
        {"theirs": "x", "same": "a", "team": "a", "tier": "b", "edited": "by-hand"},
        {"note": "y", "owner": "me", "kept": "z"},
    )
    with_template(scene, labels={"tier": "c"}, annotations={"kept": "z"})
    assert metadata_of(scene) == (
        {"theirs": "x", "same": "a", "tier": "c", "edited": "by-hand"},
        {"note": "y", "kept": "z"},
    )
    with_template(scene, labels={}, annotations={})
    assert metadata_of(scene) == ({"theirs": "x", "same": "a", "edited": "by-hand"}, {"note": "y"})
    secret = scene.secret()
    assert secret is not None
    assert TEMPLATE not in secret["metadata"]["annotations"]


@pytest.mark.parametrize(
    "note",
    [
        "{",
        "5",
        "[" * 5000,
        '{"labels": 5}',
        '{"labels": {"theirs": 5}}',
        '{"labels": {"theirs": "another"}}',
        '{"labels": {"openai-key-rotator.io/managed": "true", "reconcile.external-secrets.io/managed": "true"}}',
        '{"annotations": {"openai-key-rotator.io/service-account": "x"}}',
    ],
    ids=lambda note: note[:30],
)
def test_a_forged_note_of_a_template_takes_nothing_away(scene: Scene, note: str) -> None:
    scene.apply_documented()
    scene.run()
    scene.merge(SECRET, {"metadata": {"labels": {"theirs": "x"}, "annotations": {TEMPLATE: note}}})
    scene.advance(hours=1)
    scene.run()
    secret = scene.secret()
    assert secret is not None
    assert secret["metadata"]["labels"] == {"theirs": "x", ANNOTATION + "managed": "true"}
    assert scene.live_key()


def test_template_metadata_goes_onto_the_secret(scene: Scene) -> None:
    """Labels and annotations, beside our own."""
    apply_generator(scene)
    template = {"type": "Opaque", "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}}
    scene.apply(external_secret(target={"template": template}))
    scene.run()
    secret = scene.secret(CREDS)
    assert secret is not None
    assert secret["metadata"]["labels"]["team"] == "a"
    assert secret["metadata"]["annotations"]["note"] == "b"
    assert CURRENT in secret["metadata"]["annotations"]


def test_the_data_key_may_be_renamed(scene: Scene) -> None:
    """By the one rewrite that is honoured; a change of it is a rotation that leaves no key under the old name."""
    apply_generator(scene)
    rename = {"rewrite": [{"regexp": {"source": "api_key", "target": "OPENAI_API_KEY"}}]}
    scene.apply(external_secret(dataFrom=[SOURCE | rename]))
    scene.run()
    assert scene.live_key(CREDS, "OPENAI_API_KEY")
    scene.merge(f"{EXTERNAL_SECRETS}/creds", {"spec": {"dataFrom": [SOURCE]}})
    scene.run()
    assert scene.live_key(CREDS)
    secret = scene.secret(CREDS)
    assert secret is not None
    assert set(secret["data"]) == {"api_key"}


@pytest.mark.parametrize("policy", ["Retain", "Delete", "Merge"])
def test_deletion_policy_changes_nothing(scene: Scene, policy: str) -> None:
    """It is about sources without data, which a generator never is."""
    apply_generator(scene)
    scene.apply(external_secret(target={"deletionPolicy": policy}))
    scene.run()
    assert scene.live_key(CREDS)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"target": {"creationPolicy": "None"}}, "creationPolicy"),
        ({"target": {"immutable": True}}, "immutable"),
        ({"target": {"template": {"data": {"a": "{{ .api_key | quote }}"}}}}, "template.data"),
        ({"target": {"template": {"type": "kubernetes.io/basic-auth"}}}, "template.type"),
        ({"target": {"template": {"templateFrom": [{"target": "Data", "literal": "x"}]}}}, "templateFrom"),
        ({"target": {"template": {"metadata": {"labels": {ANNOTATION + "managed": "false"}}}}}, "labels"),
        ({"target": {"template": {"metadata": {"annotations": {"a": "{{ .x }}"}}}}}, "annotations"),
        ({"dataFrom": [SOURCE, SOURCE]}, "dataFrom"),
        ({"dataFrom": [SOURCE, {"extract": {"key": "x"}}]}, "dataFrom"),
        ({"dataFrom": [SOURCE | {"rewrite": [{"regexp": {"source": ".*", "target": "a$1"}}]}]}, "rewrite"),
        ({"dataFrom": [SOURCE | {"rewrite": [{"transform": {"template": "x"}}]}]}, "rewrite"),
        ({"data": [{"secretKey": "a", "remoteRef": {"key": "b"}}]}, "spec.data"),
        ({"refreshInterval": "-1h"}, "refreshInterval"),
        ({"refreshInterval": "1d"}, "refreshInterval"),
        ({"refreshInterval": "99999999h"}, "refreshInterval"),
    ],
)
def test_what_is_not_honoured_blocks_its_target_by_the_name_of_the_field(
    scene: Scene, spec: dict[str, Any], field: str
) -> None:
    """It is said in the outcome, the condition, the Event and the ledger; a neighbour is served."""
    apply_generator(scene)
    scene.apply(external_secret(**spec), external_secret("good"))
    report = scene.run()
    outcome = scene.outcome(CREDS)
    assert outcome.result is Result.BLOCKED
    assert field in outcome.message
    condition = scene.condition(CREDS)
    assert (condition["status"], condition["reason"]) == ("False", "SecretSyncedError")
    assert field in condition["message"]
    assert ("Warning", "UpdateFailed") in scene.events()
    stored = scene.stored_entry(CREDS).condition
    assert stored is not None
    assert field in stored.message
    assert exit_code(report, strict=False) == 0
    assert scene.live_key(Ref("default", "good"))
    assert scene.openai.mints == 1


def test_a_blocked_target_that_is_put_right_is_served(scene: Scene) -> None:
    """By the next run, and its condition says so."""
    apply_generator(scene)
    scene.apply(external_secret(target={"immutable": True}))
    scene.run()
    scene.merge(f"{EXTERNAL_SECRETS}/creds", {"spec": {"target": {"immutable": None}}})
    scene.run()
    assert scene.live_key(CREDS)
    assert scene.condition(CREDS)["status"] == "True"


def test_a_target_that_becomes_blocked_keeps_its_key(scene: Scene) -> None:
    """A mistake in the spec deletes nothing."""
    scene.apply_documented()
    scene.run()
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "-1h"}})
    for _ in range(3):
        scene.advance(hours=1)
        scene.run()
    assert scene.live_key()
    assert scene.openai.mints == 1


def test_several_external_secrets_on_one_generator(scene: Scene) -> None:
    """Each has its own account."""
    apply_generator(scene)
    scene.apply(*[external_secret(f"creds-{i}") for i in range(5)])
    scene.run()
    assert len({scene.named(Ref("default", f"creds-{i}"))["id"] for i in range(5)}) == 5
    assert len(scene.accounts()) == 5


def test_two_sources_of_one_secret_block_each_other(scene: Scene) -> None:
    """Each is told of the other, and nothing is minted."""
    apply_generator(scene)
    scene.apply(external_secret("a", target={"name": "creds"}), external_secret("b", target={"name": "creds"}))
    scene.run()
    outcomes = {str(o.source): o for o in scene.watcher.outcomes}
    assert {o.reason for o in outcomes.values()} == {"SharedTarget"}
    assert "default/b" in outcomes["ExternalSecret default/a"].message
    assert scene.openai.mints == 0


def test_a_rival_does_not_cost_the_key_in_use(scene: Scene) -> None:
    """A second source for a Secret that is served blocks both; the key in it stays."""
    scene.apply_documented()
    scene.run()
    scene.apply(external_secret("rival", target={"name": TARGET.name}))
    for _ in range(3):
        scene.advance(hours=1)
        scene.run()
    assert scene.live_key()
    assert scene.openai.mints == 1


def test_many_namespaces(scene: Scene) -> None:
    """Each with its own generator, admin key and Secret, of one name."""
    for i in range(4):
        scene.namespace(f"team-{i}")
        scene.apply_documented(f"team-{i}")
    scene.run()
    assert all(scene.live_key(Ref(f"team-{i}", TARGET.name)) for i in range(4))
    assert len(scene.accounts()) == 4


def test_a_run_for_one_namespace_leaves_the_others_alone(scene: Scene) -> None:
    """`--namespace` serves only it; what it does not look at is not taken for gone."""
    for name in ("one", "two"):
        scene.namespace(name)
        scene.apply_documented(name)
    scene.run(namespaces=("one",))
    assert scene.secret(Ref("two", TARGET.name)) is None
    scene.run()
    scene.advance(hours=1)
    scene.run(namespaces=("one",))
    assert [outcome.target.namespace for outcome in scene.watcher.outcomes] == ["one"]
    assert scene.live_key(Ref("two", TARGET.name))


def test_a_run_for_selected_generators_leaves_the_others_alone(scene: Scene) -> None:
    """`--selector` serves the generators with these labels, and deletes nothing of others."""
    scene.namespace("two")
    scene.apply_documented()
    scene.apply_documented("two")
    scene.merge(GENERATOR, {"metadata": {"labels": {"team": "a"}}})
    scene.run()
    scene.advance(hours=1)
    scene.run(selector="team=a")
    assert [outcome.target.namespace for outcome in scene.watcher.outcomes] == ["default"]
    assert scene.live_key(Ref("two", TARGET.name))


@pytest.mark.parametrize("selector", ["team=b", "!team", "team in (b)"])
def test_a_secret_of_a_deselected_generator_is_not_taken_for_a_free_one(scene: Scene, selector: str) -> None:
    """Two sources of one Secret block each other also where a run selects one of them."""
    scene.apply_documented()
    scene.merge(GENERATOR, {"metadata": {"labels": {"team": "a"}}})
    for obj in documented(scene.admin_key, HOST):
        if obj["kind"] == "OpenAI":
            labels = {} if selector == "!team" else {"team": "b"}
            obj["metadata"] = {"name": "second", "namespace": "default", "labels": labels}
            scene.apply(obj)
    reference = {"sourceRef": {"generatorRef": REFERENCE | {"name": "second"}}}
    scene.apply(external_secret("rival", target={"name": TARGET.name}, dataFrom=[reference]))
    scene.run(selector=selector)
    assert {outcome.reason for outcome in scene.watcher.outcomes} == {"SharedTarget"}
    assert scene.openai.mints == 0


# --- standalone generators


def test_a_standalone_generator_feeds_the_secret_that_it_names(scene: Scene) -> None:
    """It owns it, and an Event on it tells of each rotation."""
    standalone(scene)
    scene.run()
    secret = scene.secret(CREDS)
    assert secret is not None
    assert scene.live_key(CREDS)
    assert [(o["kind"], o["name"]) for o in secret["metadata"]["ownerReferences"]] == [("OpenAI", "openai-generator")]
    (event,) = scene.kubernetes.objects("events", "default")
    assert event["involvedObject"]["kind"] == "OpenAI"
    scene.advance(hours=1)
    scene.run()
    assert scene.outcome(CREDS).result is Result.ROTATED


def test_a_standalone_generators_options(scene: Scene) -> None:
    """Data key, interval and lifetime."""
    standalone(scene, secret_key="OPENAI_API_KEY", refresh_interval="6h", key_lifetime="24h")
    scene.run()
    assert scene.live_key(CREDS, "OPENAI_API_KEY")
    key = scene.openai.key(scene.key(CREDS, "OPENAI_API_KEY"))
    assert key is not None
    assert key.expires_at == scene.now() + timedelta(hours=24)
    results = []
    for hours in (2, 3.8, 5.95):
        scene.seconds = hours * 3600
        scene.run()
        results.append(scene.outcome(CREDS).result)
    assert results == [Result.KEPT, Result.KEPT, Result.ROTATED]


@pytest.mark.parametrize(
    "annotations",
    [
        {"secret": "Not A Name"},
        {"secret": "../x"},
        {"secret": ""},
        {"secret_key": "a/b"},
        {"refresh_interval": "soon"},
        {"refresh_interval": "-1h"},
        {"key_lifetime": "0s"},
        {"key_lifetime": "9999h"},
        {"suspend": "perhaps"},
    ],
)
def test_a_malformed_annotation_is_named(scene: Scene, annotations: dict[str, str]) -> None:
    """The generator is blocked, and its Event says by which annotation."""
    standalone(scene, **annotations)
    scene.run()
    (outcome,) = scene.watcher.outcomes
    (name,) = annotations
    assert outcome.result is Result.BLOCKED
    assert ANNOTATION + name.replace("_", "-") in outcome.message
    (event,) = scene.kubernetes.objects("events", "default")
    assert event["message"] == outcome.message
    assert scene.openai.mints == 0


def test_a_generator_that_feeds_nothing_is_reported(scene: Scene) -> None:
    """It is no failure, and no request is made for it."""
    apply_generator(scene)
    report = scene.run()
    assert report.unused == (Ref("default", "openai-generator"),)
    assert scene.watcher.unused == [Ref("default", "openai-generator")]
    assert exit_code(report, strict=True) == 0
    assert scene.openai.log == []


def test_a_key_that_expires_is_replaced_before_it_does(scene: Scene) -> None:
    """Whatever the interval is, with runs every hour the Secret always holds a live key."""
    standalone(scene, refresh_interval="0", key_lifetime="12h")
    for hour in range(48):
        scene.seconds = hour * 3600.0
        scene.run()
        assert scene.live_key(CREDS), hour
    assert 4 <= scene.openai.mints <= 8


@pytest.mark.parametrize(
    "spec", [{"refreshInterval": "0"}, {"refreshPolicy": "CreatedOnce"}, {"refreshPolicy": "OnChange"}]
)
def test_a_key_that_expires_is_replaced_whatever_the_source_says(scene: Scene, spec: dict[str, str]) -> None:
    """Once, or only on change, is said of the interval. Ledger and Secret tell when the key ends."""
    scene.apply_documented()
    annotations = {"openai-key-rotator.io/key-lifetime": "72h"}
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": annotations}, "spec": spec})
    scene.run()
    key = scene.openai.key(scene.key())
    assert key is not None
    assert key.expires_at is not None
    (publication,) = scene.stored_entry().history
    assert publication.account.expires_at == key.expires_at
    assert scene.named()["expiresAt"] == format_time(key.expires_at)
    scene.advance(hours=47)
    scene.run()
    assert scene.outcome().result is Result.KEPT
    scene.advance(hours=2)
    scene.run()
    assert (scene.outcome().result, scene.outcome().reason) == (Result.ROTATED, "Expiring")


def test_suspended_targets_are_left_alone(scene: Scene) -> None:
    """No rotation and no deletion, whatever is due or forced; afterwards all goes on."""
    scene.apply_documented()
    scene.run()
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {ANNOTATION + "suspend": "true"}}})
    scene.advance(hours=5)
    scene.run(force=True)
    assert (scene.outcome().result, scene.outcome().reason) == (Result.KEPT, "Suspended")
    assert len(scene.accounts()) == 2
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {ANNOTATION + "suspend": "false"}}})
    scene.run()
    assert scene.outcome().result is Result.ROTATED
    assert len(scene.accounts()) == 1


# --- what is deleted or changed


def test_a_deleted_secret_heals(scene: Scene) -> None:
    """A new account's key is published at once, and the lost key's account goes after its grace."""
    scene.apply_documented()
    scene.run()
    lost = scene.key()
    scene.delete(SECRET)
    scene.advance(minutes=1)
    scene.run()
    assert (scene.outcome().result, scene.outcome().reason) == (Result.ROTATED, "SecretMissing")
    assert scene.live_key()
    assert scene.openai.key_status(lost) is KeyStatus.DELETED


@pytest.mark.parametrize(
    "patch",
    [
        {"data": {"api_key": None}},
        {"data": {"api_key": ""}},
        {"data": {"api_key": None}, "metadata": {"annotations": {CURRENT: None}}},
        {"data": {"api_key": None}, "metadata": {"annotations": {CURRENT: "not json"}}},
    ],
)
def test_a_secret_that_lost_its_key_heals(scene: Scene, patch: dict[str, Any]) -> None:
    """With the annotation or without: it gets a new key."""
    scene.apply_documented()
    scene.run()
    scene.merge(SECRET, patch)
    scene.run()
    assert scene.outcome().result is Result.ROTATED
    assert scene.live_key()
    scene.advance(minutes=10)
    scene.run()
    assert len(scene.accounts()) == 1


def test_a_deleted_external_secret_lets_its_accounts_go(scene: Scene) -> None:
    """Secret and account go, and in the end the ledger's entry too."""
    scene.apply_documented()
    scene.run()
    scene.delete(EXTERNAL_SECRET)
    assert scene.secret() is None
    report = scene.run()
    assert exit_code(report, strict=True) == 0
    assert (scene.accounts(), scene.entry()) == ([], None)


@pytest.mark.parametrize("with_admin_key", [True, False])
def test_a_deleted_standalone_generator_lets_its_accounts_go(scene: Scene, with_admin_key: bool) -> None:
    """Its Secret is collected; where the admin key went too, the fallback serves."""
    standalone(scene)
    scene.run()
    scene.delete(GENERATOR)
    if not with_admin_key:
        scene.delete(ADMIN_SECRET)
    fallback = put_fallback(scene)
    for _ in range(2):
        scene.run(fallback_admin_key=fallback)
        scene.advance(minutes=10)
    assert (scene.accounts(), scene.entry(CREDS)) == ([], None)


def put_fallback(scene: Scene) -> AdminKeyRef:
    scene.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "fallback", "namespace": LEDGER},
            "stringData": {"api-key": scene.openai.add_admin_key("acme")},
        }
    )
    return AdminKeyRef(Ref(LEDGER, "fallback"), "api-key")


def test_a_deleted_generator_keeps_the_key_in_use(scene: Scene) -> None:
    """The ExternalSecret is still there: it is blocked with words, and its Secret keeps a live key."""
    scene.apply_documented()
    scene.run()
    scene.delete(GENERATOR)
    for _ in range(3):
        scene.advance(hours=1)
        scene.run()
    assert (scene.outcome().result, scene.outcome().reason) == (Result.BLOCKED, "NoGenerator")
    assert scene.live_key()
    scene.delete(EXTERNAL_SECRET)
    scene.run()
    assert (scene.accounts(), scene.entry()) == ([], None)


def delete_namespace(scene: Scene, name: str) -> None:
    scene.delete(f"/api/v1/namespaces/{name}")
    scene.kubernetes.finish_termination()
    assert scene.kubernetes.find("namespaces", "", name) is None


def test_a_deleted_namespace_lets_its_accounts_go_by_the_fallback(scene: Scene) -> None:
    """The admin key went with it."""
    scene.namespace("team")
    scene.apply_documented("team")
    scene.run()
    fallback = put_fallback(scene)
    delete_namespace(scene, "team")
    for _ in range(2):
        report = scene.run(fallback_admin_key=fallback)
        scene.advance(minutes=10)
    assert exit_code(report, strict=True) == 0
    assert (scene.accounts(), scene.entry(Ref("team", TARGET.name))) == ([], None)


def test_the_fallbacks_secret_is_no_target(scene: Scene) -> None:
    """Not even for a generator beside it, whose own admin Secret is another one."""
    fallback = put_fallback(scene)
    scene.apply_documented(namespace=LEDGER)
    path = f"/apis/external-secrets.io/v1/namespaces/{LEDGER}/externalsecrets/openai-credentials"
    scene.merge(path, {"spec": {"target": {"name": "fallback", "creationPolicy": "Merge"}}})
    before = scene.secret(fallback.secret)
    scene.run(fallback_admin_key=fallback)
    assert scene.outcome(fallback.secret).reason == "AdminKeySecret"
    assert scene.secret(fallback.secret) == before


def test_without_a_fallback_the_entry_stays_and_says_so_in_every_run(scene: Scene) -> None:
    """Nobody can delete the account: the ledger remembers it, and its condition says what is missing."""
    target = Ref("team", TARGET.name)
    scene.namespace("team")
    scene.apply_documented("team")
    scene.run()
    delete_namespace(scene, "team")
    scene.run(max_wait=NO_WAIT)
    for _ in range(4):
        scene.advance(minutes=10)
        report = scene.run(max_wait=NO_WAIT)
        assert exit_code(report, strict=False) == 0
        retired = scene.retired(target)
        assert retired is not None
        assert (retired.result, retired.reason) == (Result.BLOCKED, "AdminKeyMissing")
        assert "--fallback-admin-key" in retired.message
        condition = scene.stored_entry(target).condition
        assert condition is not None
        assert (condition.ready, condition.reason) == (False, "AdminKeyMissing")
    assert len(scene.accounts()) == 1
    fallback = put_fallback(scene)
    for _ in range(2):
        scene.run(fallback_admin_key=fallback)
        scene.advance(minutes=10)
    assert (scene.accounts(), scene.entry(target)) == ([], None)


def test_a_namespace_that_is_being_deleted_harms_nobody(scene: Scene) -> None:
    """Creates are refused there: the target fails with words, its neighbours are served, nothing is left over."""
    scene.namespace("team")
    scene.apply_documented("team")
    scene.apply_documented()
    scene.delete("/api/v1/namespaces/team")
    scene.run()
    assert scene.outcome(Ref("team", TARGET.name)).result is Result.FAILED
    assert scene.live_key()
    scene.kubernetes.finish_termination()
    fallback = put_fallback(scene)
    for _ in range(3):
        scene.advance(minutes=10)
        scene.run(fallback_admin_key=fallback)
    assert scene.accounts() == [scene.named()["name"]]
    assert scene.entry(Ref("team", TARGET.name)) is None


def test_a_changed_project_rotates_and_deletes_in_the_old_one(scene: Scene) -> None:
    """At once, not when the interval has passed."""
    scene.openai.add_project("acme", "new-project")
    scene.apply_documented()
    scene.run()
    scene.merge(GENERATOR, {"spec": {"projectId": "new-project"}})
    scene.run()
    assert (scene.outcome().result, scene.outcome().reason) == (Result.ROTATED, "ProjectChanged")
    assert scene.accounts("new-project") == [scene.named()["name"]]
    assert scene.accounts() == []
    assert scene.named()["projectId"] == "new-project"
    scene.run()
    assert scene.outcome().result is Result.KEPT


def test_a_changed_host_rotates_and_deletes_at_the_old_one(scene: Scene) -> None:
    """One sandbox answers for both hosts; what matters is who is asked for what."""
    hosts = frozenset({named_origin(HOST), named_origin("https://eu.openai.test/v1")})
    scene.apply_documented()
    scene.run(allowed_hosts=hosts)
    scene.merge(GENERATOR, {"spec": {"host": "https://eu.openai.test/v1/"}})
    scene.run(allowed_hosts=hosts)
    assert scene.outcome().reason == "ProjectChanged"
    assert scene.named()["host"] == "https://eu.openai.test/v1"
    assert len(scene.accounts()) == 1


def test_a_trailing_slash_is_no_other_host(scene: Scene) -> None:
    """Nor is one that is taken away."""
    scene.apply_documented(host=HOST + "/")
    scene.run()
    scene.merge(GENERATOR, {"spec": {"host": HOST}})
    scene.run()
    assert (scene.outcome().result, scene.openai.mints) == (Result.KEPT, 1)


def test_another_organisation_with_its_own_admin_key(scene: Scene) -> None:
    """Project and admin key change together: the target gets its key, the old account stays recorded and says why."""
    other = scene.openai.add_organization("globex")
    scene.openai.add_project("globex", "globex-project")
    scene.apply_documented()
    scene.run()
    scene.merge(GENERATOR, {"spec": {"projectId": "globex-project"}})
    scene.merge(ADMIN_SECRET, {"data": {"api-key": base64.b64encode(other.encode()).decode()}})
    scene.run()
    assert scene.outcome().result is Result.ROTATED
    assert scene.live_key()
    assert len(scene.accounts()) == 1
    assert len(scene.stored_entry().history) == 2


def test_an_account_deleted_by_hand_is_replaced(scene: Scene) -> None:
    """The key in the Secret is dead: a new one is made at once, and the 404 of the old one is no error."""
    scene.apply_documented()
    scene.run()
    scene.openai.delete_account(PROJECT, scene.named()["id"])
    report = scene.run()
    assert (scene.outcome().result, scene.outcome().reason) == (Result.ROTATED, "AccountGone")
    assert exit_code(report, strict=True) == 0
    assert scene.live_key()
    assert len(scene.stored_entry().history) == 1


def test_an_account_that_is_not_listed_yet_is_not_taken_for_gone(scene: Scene) -> None:
    """A list may lag: the account itself is asked for before it counts as deleted."""
    scene.openai.listing_delay = 3600
    scene.apply_documented()
    for _ in range(5):
        scene.run()
        scene.advance(minutes=5)
    assert scene.openai.mints == 1


def test_a_renamed_account_is_still_ours(scene: Scene) -> None:
    """Somebody gave it another name in the console: it is the current one by its id, and goes by its id."""
    scene.apply_documented()
    scene.run()
    account = scene.named()["id"]
    headers = {"Authorization": f"Bearer {scene.admin_key}"}
    request = Request.of("POST", f"{ACCOUNTS}/{account}", json={"name": "renamed"}, headers=headers)
    assert scene.openai.handle(request).status == 200
    scene.run()
    assert scene.outcome().result is Result.KEPT
    scene.advance(hours=1)
    scene.run()
    assert scene.accounts() == [scene.named()["name"]]


# --- Secrets that are not ours


def own_secret(**changes: Any) -> dict[str, Any]:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": TARGET.name, "namespace": "default"}}
    return secret | {"data": {"api_key": "bWluZQ=="}} | changes


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        (own_secret(), "ForeignSecret"),
        (own_secret(type="kubernetes.io/basic-auth", data={"username": "bWU=", "password": "bWU="}), "SecretType"),
        (own_secret(immutable=True), "SecretImmutable"),
    ],
)
def test_a_secret_that_is_not_ours_is_not_written(scene: Scene, secret: dict[str, Any], reason: str) -> None:
    """It says why and what to do, and nothing is minted for it."""
    scene.apply_documented()
    scene.apply(secret)
    for _ in range(3):
        scene.run(force=True)
        scene.advance(hours=1)
    assert (scene.outcome().result, scene.outcome().reason) == (Result.BLOCKED, reason)
    stored = scene.secret()
    assert stored is not None
    assert stored["data"] == secret["data"]
    assert scene.openai.mints == 0


@pytest.mark.parametrize("creation", ["Owner", "Merge", "Orphan"])
def test_a_secret_with_an_admin_key_is_never_a_target(scene: Scene, creation: str) -> None:
    """Not even with Merge: a tenant's generator would otherwise overwrite the key that makes keys."""
    apply_generator(scene)
    scene.apply(external_secret(target={"name": "openai-admin-secret", "creationPolicy": creation}))
    before = scene.kubernetes.find("secrets", "default", "openai-admin-secret")
    scene.run()
    (outcome,) = scene.watcher.outcomes
    assert (outcome.result, outcome.reason) == (Result.BLOCKED, "AdminKeySecret")
    assert scene.kubernetes.find("secrets", "default", "openai-admin-secret") == before


def test_a_secret_of_another_controller_is_not_written(scene: Scene) -> None:
    """It carries the label of External Secrets Operator, which would delete it by it."""
    scene.apply_documented()
    scene.run()
    scene.merge(SECRET, {"metadata": {"labels": {"reconcile.external-secrets.io/created-by": "x"}}})
    scene.advance(hours=1)
    scene.run()
    assert (scene.outcome().result, scene.outcome().reason) == (Result.BLOCKED, "ForeignSecret")
    assert scene.live_key()


def test_an_external_secret_made_anew_takes_its_orphaned_secret_over(scene: Scene) -> None:
    """Deleted without its Secret and applied again: the Secret gets the new owner and is not collected."""
    scene.apply_documented()
    scene.kubernetes.automatic_collection = False
    scene.run()
    source = scene.external_secret()
    scene.delete(EXTERNAL_SECRET)
    scene.apply(
        {key: value for key, value in source.items() if key in ("apiVersion", "kind", "spec")}
        | {"metadata": {"name": TARGET.name, "namespace": "default"}}
    )
    scene.advance(hours=1)
    scene.run()
    scene.kubernetes.collect_garbage()
    assert scene.live_key()


def test_a_long_name_is_no_obstacle(scene: Scene) -> None:
    """Names may have 253 characters; those of ledger entries and Events are cut where they must be."""
    apply_generator(scene)
    names = ["a" * 229 + "-" + "b" * 23, "a" * 229 + "." + "b" * 23, "x" * 253]
    scene.apply(*[external_secret(name) for name in names])
    scene.run()
    for name in names:
        assert scene.live_key(Ref("default", name))
    assert scene.watcher.problems == []
    scene.advance(hours=1)
    scene.run()
    assert len(scene.accounts()) == 3


def test_account_names_follow_the_generator(scene: Scene) -> None:
    """Without a prefix the random part alone; sizes from 8 to 40."""
    apply_generator(scene, serviceAccountNamePrefix=None, serviceAccountNameSize=40)
    scene.apply(external_secret())
    scene.run()
    (name,) = scene.accounts()
    assert len(name) == 40
    assert name.isalnum()


def test_a_project_with_more_accounts_than_a_page(scene: Scene) -> None:
    """Every page is read: an account of ours on the last one is found."""
    strangers = [scene.openai.add_account(PROJECT, f"stranger-{i}")[0].id for i in range(250)]
    scene.apply_documented()
    for _ in range(3):
        scene.run()
        scene.advance(hours=1)
    assert scene.live_key()
    assert set(strangers) < scene.account_ids()
    assert len(scene.accounts()) == 251


def test_more_objects_than_a_page_and_a_list_that_expires(scene: Scene) -> None:
    """Lists are read page by page, and begun again where the API server has forgotten them."""
    apply_generator(scene)
    scene.apply(*[external_secret(f"creds-{i:04}", refreshInterval="0") for i in range(620)])
    expire = Meanwhile(scene.kubernetes.expire_continue_tokens, "GET", ".*externalsecrets", skip=1)
    report = scene.run(cluster_faults=expire, max_wait=NO_WAIT)
    assert {outcome.result for outcome in report.outcomes} == {Result.ROTATED}
    assert scene.openai.mints == 620


def test_the_annotation_of_a_restored_namespace_blocks(scene: Scene) -> None:
    """A backup of a namespace in another cluster: the ledger there does not know the account, and does not touch it."""
    scene.apply_documented()
    scene.run()
    secret = scene.secret()
    assert secret is not None
    other = Scene(seed=2)
    other.openai, other.admin_key = scene.openai, scene.admin_key
    other.apply_documented()
    metadata = {key: secret["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    other.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": secret["data"]})
    other.run()
    assert (other.outcome().result, other.outcome().reason) == (Result.BLOCKED, "ForeignLedger")
    assert json.loads(metadata["annotations"][CURRENT])["ledger"] in other.outcome().message
