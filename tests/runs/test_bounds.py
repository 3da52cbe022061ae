"""How many accounts a target may have, and how often it may ask for another."""

import json

import pytest

from sandbox.transport.faults import Rule, answered
from sandbox.transport.wire import Response
from tests.support.ledgers import rule, settle
from tests.support.paths import ACCOUNTS, EXTERNAL_SECRET, GENERATOR, NO_WAIT, SECRET
from tests.support.scene import PROJECT, TARGET, Scene, checked_scene
from worker.model.outcomes import Result
from worker.model.values import Ref

scene = pytest.fixture(checked_scene)
NO_PERMISSION = {"error": {"message": "You have insufficient permissions", "code": None}}


def patiently(scene: Scene, **spec: object) -> Scene:
    """A target whose old accounts stay for a year."""
    scene.apply_documented()
    scene.merge(GENERATOR, {"spec": {"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "8760h"}}})
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "5m", **spec}})
    return scene


def test_a_target_has_so_many_accounts_and_no_more(scene: Scene) -> None:
    patiently(scene)
    for _ in range(20):
        scene.run(max_wait=NO_WAIT, max_accounts=8)
        scene.advance(minutes=6)
    assert len(scene.accounts()) == 8
    assert (scene.outcome().result, scene.outcome().reason) == (Result.BLOCKED, "TooManyAccounts")
    condition = scene.stored_entry().condition
    assert condition is not None
    assert (condition.ready, condition.reason) == (False, "TooManyAccounts")
    assert scene.live_key()


def test_beyond_the_bound_a_secret_is_healed_all_the_same(scene: Scene) -> None:
    patiently(scene)
    for _ in range(6):
        scene.run(max_wait=NO_WAIT, max_accounts=4)
        scene.advance(minutes=6)
    scene.delete(SECRET)
    scene.run(max_wait=NO_WAIT, max_accounts=4)
    assert scene.outcome().reason == "SecretMissing"
    assert scene.live_key()
    assert len(scene.accounts()) == 5


def test_it_is_told_once(scene: Scene) -> None:
    patiently(scene)
    for _ in range(12):
        scene.run(max_wait=NO_WAIT, max_accounts=4)
        scene.advance(minutes=6)
    told = [
        event
        for event in scene.kubernetes.objects("events", "default")
        if "accounts" in event["message"] and event["type"] == "Warning"
    ]
    assert len(told) == 1


def test_a_smaller_interval_than_the_floor_counts_as_the_floor(scene: Scene) -> None:
    """A run each ten seconds for five minutes: an account a minute, not one a run."""
    patiently(scene, refreshInterval="1s")
    for _ in range(30):
        scene.run(max_wait=NO_WAIT)
        scene.advance(seconds=10)
    assert 4 <= len(scene.accounts()) <= 7


def test_no_account_is_made_on_schedule_while_none_can_be_deleted(scene: Scene) -> None:
    """Pods may not be listed: after a few accounts that have to stay there are no more."""
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "5m"}})
    scene.kubernetes.forbid("list", "pods")
    for _ in range(200):
        scene.advance(minutes=5)
        scene.run(max_wait=NO_WAIT)
    assert len(scene.accounts()) <= 5
    secret = scene.secret()
    assert secret is not None
    assert len(json.dumps(secret["metadata"]["annotations"])) < 3000
    assert scene.outcome().reason == "DeletesRefused"
    assert scene.stored_entry().condition.ready is False  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [403, 405])
def test_an_admin_key_that_may_not_delete_stops_scheduled_rotation_after_a_few(scene: Scene, status: int) -> None:
    refusal = answered(Response.of_json(status, NO_PERMISSION))
    scene.apply_documented()
    for _ in range(24):
        scene.run(openai_faults=rule(scene, Rule(refusal, "DELETE", ACCOUNTS + "/.*")), max_wait=NO_WAIT)
        scene.advance(hours=1)
    assert len(scene.accounts()) <= 5
    assert scene.outcome().reason == "DeletesRefused"
    assert PROJECT in scene.outcome().message
    assert status != 403 or "openai-admin-secret" in scene.outcome().message
    assert scene.live_key()
    scene.advance(minutes=10)
    settle(scene)
    assert len(scene.accounts()) == 1


def test_accounts_of_a_project_that_was_left_do_not_stop_the_next_one(scene: Scene) -> None:
    """They cannot be deleted, for their admin key is gone: the target rotates in its new project."""
    scene.openai.add_project("acme", "proj_next")
    refusal = answered(Response.of_json(403, NO_PERMISSION))
    faults = rule(scene, Rule(refusal, "DELETE", ACCOUNTS + "/.*"))
    scene.apply_documented()
    for _ in range(8):
        scene.run(openai_faults=faults, max_wait=NO_WAIT)
        scene.advance(hours=1)
    scene.merge(GENERATOR, {"spec": {"projectId": "proj_next"}})
    for _ in range(3):
        scene.run(openai_faults=faults, max_wait=NO_WAIT)
        scene.advance(hours=1)
    assert scene.outcome().reason == "Due"


def test_a_secret_that_is_put_back_after_each_run_costs_less_and_less(scene: Scene) -> None:
    """Another controller writes its own value, run after run: healed each time at first, then once an hour; told."""
    scene.apply_documented()
    scene.run()
    mints = scene.openai.mints
    for _ in range(6 * 24):
        scene.advance(minutes=10)
        scene.merge(SECRET, {"data": {"api_key": "c2stZnJvbS1naXQ="}})
        scene.run(max_wait=NO_WAIT)
    assert scene.openai.mints - mints <= 24 + 12
    assert ("Warning", "PutBack") in scene.events()


@pytest.mark.parametrize("reason", ["Expiring", "ProjectChanged"])
def test_a_key_that_has_been_replaced_and_is_put_back_after_each_run_costs_less_and_less(
    scene: Scene, reason: str
) -> None:
    """GitOps holds the Secret to a key that nears its end, or of the former project: seed 319 of the search."""
    scene.openai.add_project("acme", "proj_next")
    scene.apply_documented()
    if reason == "Expiring":
        scene.merge(GENERATOR, {"metadata": {"annotations": {"openai-key-rotator.io/key-lifetime": "48h"}}})
    scene.run()
    then = scene.secret()
    assert then is not None
    back = {"data": then["data"], "metadata": {"annotations": then["metadata"]["annotations"]}}
    if reason == "Expiring":
        scene.advance(hours=33)
    else:
        scene.merge(GENERATOR, {"spec": {"projectId": "proj_next"}})
    mints = scene.openai.mints
    for _ in range(6 * 12):
        scene.run(max_wait=NO_WAIT)
        scene.merge(SECRET, back)
        scene.advance(minutes=10)
    assert scene.openai.mints - mints <= 12 + 12
    assert ("Warning", "PutBack") in scene.events()


def test_healing_that_has_worked_counts_anew(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    for _ in range(3):
        scene.advance(hours=5)
        scene.delete(SECRET)
        scene.run()
        assert scene.outcome().reason == "SecretMissing"
        assert scene.live_key()


def test_a_forced_rotation_is_not_repeated_by_the_retry_of_its_job(scene: Scene) -> None:
    for name in ("a", "b", "c"):
        scene.namespace(name)
        scene.apply_documented(name)
    scene.run()
    scene.advance(minutes=10)
    mints = scene.openai.mints
    for _ in range(3):
        scene.run(force=True, stop_after=2.0)
        scene.advance(seconds=30)
    assert scene.openai.mints - mints == 3
    assert scene.outcome(Ref("a", TARGET.name)).reason == "ForcedBefore"
    scene.advance(minutes=30)
    scene.run(force=True)
    assert scene.openai.mints - mints == 6


def test_two_jobs_that_force_rotate_twice(scene: Scene) -> None:
    """A try of the same Job is told by its id."""
    scene.apply_documented()
    scene.run()
    for job, reason in (("one", "Forced"), ("one", "ForcedBefore"), ("two", "Forced"), ("two", "ForcedBefore")):
        scene.advance(seconds=30)
        scene.run(force=True, job=job, max_wait=NO_WAIT)
        assert scene.outcome().reason == reason
