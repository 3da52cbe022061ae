"""What `kubectl wait`, Flux and Argo CD see of the objects, and what telling it costs."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sandbox.kubernetes.setup import CRDS, without_conditions
from tests.support.paths import ADMIN_SECRET, EXTERNAL_SECRET, GENERATOR, NO_WAIT
from tests.support.scene import LEDGER, ROOT, Scene
from worker.model.outcomes import Result
from worker.model.values import JSON

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
ALONE = {"metadata": {"annotations": {"openai-key-rotator.io/secret": "openai-credentials"}}}
SUSPENDED = {"metadata": {"annotations": {"openai-key-rotator.io/suspend": "true"}}}


@pytest.fixture
def scene() -> Scene:
    """The documented objects."""
    scene = Scene()
    scene.apply_documented()
    return scene


@pytest.fixture
def alone(scene: Scene) -> Scene:
    """A generator that feeds a Secret by itself."""
    scene.delete(EXTERNAL_SECRET)
    scene.merge(GENERATOR, ALONE)
    return scene


def conditions(obj: JSON | None) -> dict[str, tuple[str, str]]:
    assert obj is not None
    found = obj.get("status", {}).get("conditions", [])
    return {condition["type"]: (condition["status"], condition["reason"]) for condition in found}


def generator(scene: Scene) -> JSON:
    found = scene.kubernetes.find("openais", "default", "openai-generator")
    assert found is not None
    return found


def entry(scene: Scene) -> JSON | None:
    return scene.kubernetes.find("keyrotations", LEDGER, "default.openai-credentials")


def statuses_written(scene: Scene) -> list[str]:
    return [request for request in scene.requests() if request.startswith("PATCH") and request.endswith("/status")]


def test_a_generator_that_stands_alone_is_ready_when_its_secret_has_a_key(alone: Scene) -> None:
    """Once written: no rotation after that costs a request more."""
    alone.run(max_wait=NO_WAIT)
    assert statuses_written(alone) == ["PATCH openais/status"]
    assert conditions(generator(alone)) == {"Ready": ("True", "Rotated")}
    assert generator(alone)["status"]["observedGeneration"] == generator(alone)["metadata"]["generation"]
    for _ in range(2):
        alone.advance(hours=1)
        alone.run(max_wait=NO_WAIT)
        assert alone.outcome().result is Result.ROTATED
        assert statuses_written(alone) == []


def test_a_generator_that_a_human_has_to_mend_is_stalled_and_recovers(alone: Scene) -> None:
    alone.merge(ADMIN_SECRET, {"stringData": {"api-key": "sk-admin-wrong"}})
    alone.run(max_wait=NO_WAIT)
    wrong = ("False", "OpenAIUnauthorized")
    assert conditions(generator(alone)) == {"Ready": wrong, "Stalled": ("True", "OpenAIUnauthorized")}
    assert conditions(entry(alone)) == conditions(generator(alone))
    alone.advance(minutes=10)
    alone.run(max_wait=NO_WAIT)
    assert statuses_written(alone) == []
    alone.merge(ADMIN_SECRET, {"stringData": {"api-key": alone.admin_key}})
    alone.advance(minutes=10)
    alone.run(max_wait=NO_WAIT)
    assert conditions(generator(alone)) == {"Ready": ("True", "Rotated")}
    assert conditions(entry(alone)) == {"Ready": ("True", "Rotated")}


def test_a_change_of_the_spec_is_seen_and_nothing_else_is_written(alone: Scene) -> None:
    alone.run(max_wait=NO_WAIT)
    alone.merge(GENERATOR, {"spec": {"serviceAccountNamePrefix": "other"}})
    alone.advance(minutes=10)
    alone.run(max_wait=NO_WAIT)
    assert [request for request in alone.requests() if not request.startswith("GET")] == ["PATCH openais/status"]
    assert generator(alone)["status"]["observedGeneration"] == generator(alone)["metadata"]["generation"] > 1


def test_a_generator_that_external_secrets_name_says_so_once(scene: Scene) -> None:
    scene.run(max_wait=NO_WAIT)
    assert sorted(statuses_written(scene)) == ["PATCH externalsecrets/status", "PATCH openais/status"]
    assert conditions(generator(scene)) == {"Ready": ("True", "InUse")}
    scene.advance(minutes=10)
    scene.run(max_wait=NO_WAIT)
    assert [request for request in scene.requests() if not request.startswith("GET")] == []


def test_a_generator_that_feeds_nothing_says_so(scene: Scene) -> None:
    scene.delete(EXTERNAL_SECRET)
    scene.run(max_wait=NO_WAIT)
    assert conditions(generator(scene)) == {"Ready": ("True", "FeedsNothing")}


@pytest.mark.parametrize("feeding", [True, False])
def test_a_malformed_generator_is_stalled_whether_it_feeds_something_or_not(scene: Scene, feeding: bool) -> None:
    scene.merge(GENERATOR, {"spec": {"host": "https://elsewhere.test/v1"}})
    if not feeding:
        scene.delete(EXTERNAL_SECRET)
    scene.run(max_wait=NO_WAIT)
    assert conditions(generator(scene)) == {"Ready": ("False", "HostNotAllowed"), "Stalled": ("True", "HostNotAllowed")}
    if feeding:
        both = {"Ready": ("False", "SecretSyncedError"), "Stalled": ("True", "HostNotAllowed")}
        assert conditions(scene.external_secret()) == both
        assert conditions(entry(scene)) == conditions(generator(scene))


def test_a_suspended_generator_keeps_what_it_said(alone: Scene) -> None:
    alone.run(max_wait=NO_WAIT)
    alone.merge(GENERATOR, SUSPENDED)
    alone.advance(hours=2)
    alone.run(max_wait=NO_WAIT)
    assert conditions(generator(alone)) == {"Ready": ("True", "Suspended")}


def test_one_that_was_never_served_is_unknown_while_it_is_suspended(alone: Scene) -> None:
    alone.merge(GENERATOR, SUSPENDED)
    alone.run(max_wait=NO_WAIT)
    assert conditions(generator(alone)) == {"Ready": ("Unknown", "Suspended")}


def test_a_dry_run_writes_no_status(alone: Scene) -> None:
    alone.run(dry_run=True)
    assert statuses_written(alone) == []


def test_on_change_argo_cd_does_not_wait_for_ever(scene: Scene) -> None:
    """It takes such an ExternalSecret for healthy when its condition is not older than its refresh."""
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshPolicy": "OnChange"}})
    for prefix in ("one", "two", "three"):
        scene.merge(EXTERNAL_SECRET, {"spec": {"target": {"template": {"metadata": {"labels": {"a": prefix}}}}}})
        scene.run(max_wait=NO_WAIT)
        assert scene.outcome().result is Result.ROTATED
        assert scene.condition()["lastTransitionTime"] >= scene.external_secret()["status"]["refreshTime"]
        scene.advance(hours=1)


# --- clusters with other CRDs


def changed_crd(scene: Scene, crd: Any) -> None:
    scene.merge(CRD + crd["metadata"]["name"], {"spec": crd["spec"]})


def generators_crd() -> Any:
    return yaml.safe_load((CRDS / "openai.yaml").read_text())


def test_with_the_enterprise_operators_crd_one_request_is_lost_and_nothing_fails(alone: Scene) -> None:
    """Its status drops conditions. A second generator is not even tried."""
    changed_crd(alone, without_conditions(generators_crd()))
    alone.apply(generator(alone) | {"metadata": {"name": "other", "namespace": "default"}})
    for _ in range(2):
        report = alone.run(max_wait=NO_WAIT)
        assert {outcome.result for outcome in report.outcomes} <= {Result.ROTATED, Result.KEPT}
        assert statuses_written(alone) == ["PATCH openais/status"]
        assert conditions(generator(alone)) == {}
        assert alone.watcher.problems == []
        alone.advance(minutes=10)


def test_with_a_crd_without_a_status_nothing_is_told_and_nothing_fails(alone: Scene) -> None:
    crd = without_conditions(generators_crd())
    for version in crd["spec"]["versions"]:
        del version["subresources"]
    changed_crd(alone, crd)
    report = alone.run(max_wait=NO_WAIT)
    assert [outcome.result for outcome in report.outcomes] == [Result.ROTATED]
    assert statuses_written(alone) == ["PATCH openais/status"]
    assert alone.watcher.problems == []


def test_where_external_secrets_may_not_be_stalled_the_rest_is_told_once(scene: Scene) -> None:
    """The operator's CRD has two types of conditions, and refuses every other."""
    crd = yaml.safe_load((ROOT / "manifests" / "crds" / "external-secret" / "externalsecret.yaml").read_text())
    for version in crd["spec"]["versions"]:
        status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
        status["conditions"]["items"]["properties"]["type"]["enum"] = ["Ready", "Deleted"]
    changed_crd(scene, crd)
    scene.merge(GENERATOR, {"spec": {"host": "https://elsewhere.test/v1"}})
    scene.run(max_wait=NO_WAIT)
    assert conditions(scene.external_secret()) == {"Ready": ("False", "SecretSyncedError")}
    assert statuses_written(scene).count("PATCH externalsecrets/status") == 2
    assert scene.watcher.problems == []
    scene.advance(minutes=10)
    scene.run(max_wait=NO_WAIT)
    assert statuses_written(scene) == []
