"""What stands in the way is said where people look: the ledger, `status`, the plan of a dry run, a pause's message."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sandbox.kubernetes.call import Admission, Denial
from sandbox.transport.faults import Rule, Rules, answered
from sandbox.transport.wire import Response
from tests.support.paths import ADMIN_SECRET, GENERATOR
from tests.support.scene import Scene
from worker.commands.status import as_text
from worker.errors import ConfigurationError
from worker.kubernetes.secret import MANAGED
from worker.model.outcomes import UNUSED, Result
from worker.model.values import Ref
from worker.report.summary import exit_code

ADMIN = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "renamed", "namespace": "default"}}


@pytest.fixture
def rotated() -> Scene:
    """The documented objects, a rotation ago; the account before it is past its grace."""
    scene = Scene()
    scene.apply_documented()
    scene.run()
    scene.advance(hours=1)
    scene.run(max_wait=timedelta(0))
    scene.advance(minutes=5)
    return scene


def test_the_ledger_says_why_an_old_account_stays(rotated: Scene) -> None:
    """Not the log alone: `status` names the reason, in the same words in every run."""
    rotated.kubernetes.forbid("list", "pods")
    rotated.run()
    first = rotated.stored_entry()
    held = [publication.held for publication in first.history if publication.held is not None]
    assert len(held) == 1
    assert held[0].why.startswith("cannot be deleted: PodsForbidden: ")
    assert "cannot be deleted: PodsForbidden" in as_text({first.target: first}, rotated.now(), None)
    rotated.run()
    assert rotated.stored_entry().version == first.version
    rotated.kubernetes.permit("list", "pods")
    rotated.run()
    assert len(rotated.accounts()) == 1


def test_a_renamed_admin_secret_serves_the_accounts_made_before(rotated: Scene) -> None:
    """The project's accounts go with the admin key that the target's latest account was made with."""
    rotated.apply(ADMIN | {"stringData": {"key": rotated.admin_key}})
    rotated.merge(GENERATOR, {"spec": {"openAiAdminKey": {"name": "renamed", "key": "key"}}})
    rotated.delete("/api/v1/namespaces/default/secrets/openai-admin-secret")
    rotated.run(force=True)
    assert rotated.accounts() == [rotated.named()["name"]]


def test_a_pause_says_when_the_next_attempt_is_made() -> None:
    """The condition stays that of the failure; the outcome says that nothing was tried, until when, and the way out."""
    scene = Scene()
    scene.apply_documented()
    refused = answered(Response.of_json(403, {"error": {"code": None, "message": "no", "type": "x", "param": None}}))
    scene.run(openai_faults=Rules([Rule(refused, method="POST")], scene.random), max_wait=timedelta(0))
    told = scene.condition()["message"]
    scene.run(max_wait=timedelta(0))
    outcome = scene.outcome()
    assert outcome.result is Result.FAILED
    assert "next attempt at 2026-11-24T10:01:00Z, or now with --force" in outcome.message
    condition = scene.stored_entry().condition
    assert condition is not None
    assert condition.message in told
    scene.run(force=True)
    assert scene.outcome().result is Result.ROTATED


def test_a_dry_run_tells_its_plan_and_writes_nothing(rotated: Scene) -> None:
    """What would rotate, and which accounts would be looked at for deletion."""
    before = str(rotated.stored_entry())
    report = rotated.run(dry_run=True, force=True)
    assert [outcome.reason for outcome in report.outcomes] == ["WouldRotate"]
    assert [item.message.partition(":")[0] for item in report.retired] == ["would delete, unless somebody holds it"]
    assert str(rotated.stored_entry()) == before
    assert {request.partition(" ")[0] for request in rotated.requests()} == {"GET"}
    assert len(rotated.accounts()) == 2


def test_a_selector_that_is_none_is_a_mistake_of_usage() -> None:
    """Named by its option, not as a cluster out of reach."""
    with pytest.raises(ConfigurationError, match="--selector"):
        Scene().run(selector="!!=x,,")


def test_a_failure_that_lasts_is_told_once() -> None:
    """OpenAI gives each request another id: the log lines tell it, the ExternalSecret and its Events do not."""
    scene = Scene()
    scene.apply_documented()
    scene.merge(ADMIN_SECRET, {"stringData": {"api-key": "sk-admin-wrong"}})
    messages = []
    for _ in range(2):
        scene.run(max_wait=timedelta(0))
        messages.append(scene.outcome().message)
        scene.advance(minutes=5)
    assert messages[0] != messages[1]
    assert all("request req_" in message for message in messages)
    assert not [kind for kind in scene.requests() if kind.startswith("PATCH externalsecret")]
    assert scene.events() == [("Warning", "UpdateFailed")]
    assert "req_" not in scene.condition()["message"]


def events_at_generators(scene: Scene) -> list[tuple[str, str, str]]:
    return [
        (event["type"], event["reason"], event["message"])
        for event in scene.kubernetes.objects("events", "default")
        if event["involvedObject"]["kind"] == "OpenAI"
    ]


def test_a_malformed_generator_is_told_where_it_is() -> None:
    """Who describes the generator need not know which ExternalSecret uses it. It stays one outcome."""
    scene = Scene()
    scene.apply_documented(host="https://elsewhere.test/v1")
    report = scene.run()
    assert [outcome.reason for outcome in report.outcomes] == ["HostNotAllowed"]
    ((kind, reason, message),) = events_at_generators(scene)
    assert (kind, reason) == ("Warning", "UpdateFailed")
    assert scene.condition()["message"] == f"generator default/openai-generator: {message}"
    scene.advance(minutes=5)
    scene.run()
    assert len(events_at_generators(scene)) == 1


def test_a_generator_that_feeds_nothing_is_told_how_it_would() -> None:
    """Once, and by an Event that is no warning: it may be about to be used."""
    scene = Scene()
    scene.apply_documented()
    scene.delete("/apis/external-secrets.io/v1/namespaces/default/externalsecrets/openai-credentials")
    for _ in range(2):
        scene.run()
        scene.advance(minutes=5)
    assert events_at_generators(scene) == [("Normal", "FeedsNothing", UNUSED)]


def test_a_dry_run_tells_generators_nothing() -> None:
    """It writes nothing."""
    scene = Scene()
    scene.apply_documented(host="https://elsewhere.test/v1")
    scene.delete("/apis/external-secrets.io/v1/namespaces/default/externalsecrets/openai-credentials")
    scene.run(dry_run=True)
    assert scene.events() == []


def test_generators_that_cannot_be_told_fail_nothing() -> None:
    """It is in the log, and the run is well."""
    scene = Scene()
    scene.apply_documented()
    scene.delete("/apis/external-secrets.io/v1/namespaces/default/externalsecrets/openai-credentials")
    scene.kubernetes.forbid("create", "events")
    report = scene.run()
    assert (report.outcomes, exit_code(report, strict=True)) == ((), 0)
    assert ["not allowed to create events" in problem for problem in scene.watcher.problems] == [True]


MINE = Ref("default", "mine")


def labelled_only(asked: Admission) -> Denial | None:
    """The component admission-policy, as far as a Secret that exists is concerned."""
    if asked.resource != "secrets" or asked.old is None:
        return None
    labels = asked.old["metadata"].get("labels") or {}
    return None if labels.get(MANAGED) == "true" else Denial("CANARY", 422, "Invalid")


def merging(**labels: str) -> Scene:
    """A Secret of the user's that an ExternalSecret wants filled."""
    scene = Scene()
    scene.apply_documented()
    metadata = {"name": "mine", "namespace": "default", "labels": labels}
    scene.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    path = "/apis/external-secrets.io/v1/namespaces/default/externalsecrets/openai-credentials"
    scene.merge(path, {"spec": {"target": {"name": "mine", "creationPolicy": "Merge"}}})
    return scene


def test_a_policy_that_asks_for_the_label_is_met_with_the_command() -> None:
    """No text of a server is shown, so what the policy says must be said by us; and it costs no account."""
    scene = merging()
    lift = scene.kubernetes.admission(labelled_only)
    scene.run()
    outcome = scene.outcome(MINE)
    assert (outcome.result, outcome.reason) == (Result.FAILED, "ClusterRefused")
    assert "`kubectl label secret mine -n default openai-key-rotator.io/managed=true`" in outcome.message
    assert scene.openai.mints == 0
    scene.assert_nothing_shown()
    lift()  # it is about the worker alone
    scene.merge("/api/v1/namespaces/default/secrets/mine", {"metadata": {"labels": {MANAGED: "true"}}})
    scene.kubernetes.admission(labelled_only)
    scene.advance(minutes=5)
    scene.run()
    assert scene.live_key(MINE)
    assert scene.openai.mints == 1


def test_a_labelled_secret_that_is_refused_is_told_of_no_label() -> None:
    """Something else refuses it."""
    scene = merging(**{MANAGED: "true"})
    refused = Denial("CANARY", 422, "Invalid")
    scene.kubernetes.admission(lambda asked: refused if asked.resource == "secrets" and asked.old is not None else None)
    scene.run()
    assert scene.outcome(MINE).reason == "ClusterRefused"
    assert "label" not in scene.outcome(MINE).message


def test_a_secret_of_the_users_is_written_without_effect_first() -> None:
    """Once: from then on it has the label."""
    scene = merging()
    for patches in (2, 1):
        scene.run(force=True)
        assert scene.requests().count("PATCH secrets") == patches
        scene.advance(hours=1)
