"""What the search in tests/simulation has found: each of these was a violation of an invariant once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sandbox.transport.faults import Rule, answered, bad_gateway, delivered
from sandbox.transport.wire import Response
from tests.support.ledgers import an_hour_later, annotation, rule
from tests.support.paths import ENTRY, GENERATOR, NO_WAIT, SECRET
from tests.support.pods import start_pod
from tests.support.scene import PROJECT, TARGET, Meanwhile, Scene, checked_scene
from worker.model.outcomes import Result

scene = pytest.fixture(checked_scene)


@pytest.fixture
def due(scene: Scene) -> Scene:
    return an_hour_later(scene)


OTHER = "another-project"
KEYS = f"/v1/organization/projects/{PROJECT}/api_keys/.*"


def publish_and_die(scene: Scene) -> str:
    """A run whose key is in the Secret, and of which the ledger heard no more than the intent; the account's name."""
    scene.run(cluster_faults=rule(scene, Rule(bad_gateway(), "PATCH", ENTRY, skip=1)), max_wait=NO_WAIT)
    assert scene.outcome().reason == "LedgerNotWritten"
    name: str = scene.named()["name"]
    return name


def test_the_time_is_asked_again_where_the_answer_was_slow(due: Scene) -> None:
    """A process that stood still after the first answer took its own clock for fast, and claimed in the past."""
    slow = rule(due, Rule(delivered(after=10), "GET", "/api/v1/namespaces/openai-key-rotator", count=1))
    due.run(cluster_faults=slow, max_wait=NO_WAIT)
    assert due.requests().count("GET namespaces") == 2


def test_a_superseded_accounts_twin_goes_with_it(due: Scene) -> None:
    """It was made by a repeated create, and no list of the other project was read before its account was released."""
    due.openai.add_project("acme", OTHER)
    name, made = due.named()["name"], due.openai.accounts(PROJECT)[0].created_at
    due.merge(GENERATOR, {"spec": {"projectId": OTHER}})
    due.run(max_wait=NO_WAIT)
    due.openai.add_account(PROJECT, name, created_at=made)  # that is: no list has shown it until now
    assert len(due.account_ids()) == 2
    due.advance(minutes=10)
    due.run(max_wait=NO_WAIT)
    assert due.account_ids() == set()


def test_a_key_that_the_ledger_does_not_know_is_not_deleted_on_an_annotations_word(due: Scene) -> None:
    """The run died after it had published, and then the annotation was forged: the Secret still carries its key."""
    name = publish_and_die(due)
    stranger, _ = due.openai.add_account(PROJECT, "app_stranger")
    due.merge(SECRET, annotation(due, id=stranger.id, name="app_stranger"))
    for _ in range(4):
        due.advance(minutes=10)
        due.run()
        assert due.outcome().reason == "UnknownAccount"
        assert due.openai.use(due.key())
        assert name in due.accounts()
    due.delete(SECRET)
    for _ in range(3):
        due.advance(minutes=10)
        due.run()
    assert sorted(due.accounts()) == sorted(["app_stranger", due.named()["name"]])


def test_what_was_perhaps_published_keeps_its_grace(due: Scene) -> None:
    """The run died after it had published, and the Secret was deleted: somebody may have taken the key just before."""
    name = publish_and_die(due)
    due.delete(SECRET)
    due.advance(minutes=5)
    due.run(max_wait=NO_WAIT)
    assert name in due.accounts()
    due.advance(minutes=3)
    due.run(max_wait=NO_WAIT)
    assert name not in due.accounts()


def test_what_was_perhaps_published_is_held_for_as_long_as_a_possible_holder_uses_it(due: Scene) -> None:
    """The ledger does not know its key's id, for its run died; OpenAI does, and when it was last used."""
    name, key = publish_and_die(due), due.key()
    due.delete(SECRET)
    due.advance(minutes=10)
    due.run(max_wait=NO_WAIT)
    start_pod(due)
    for _ in range(4):
        due.advance(hours=12)
        assert due.openai.use(key)
        due.run(max_wait=NO_WAIT)
        held = next(p.held for p in due.stored_entry().history if p.account.name == name)
        assert held is not None
        assert held.why == "possibly 1: my-app/app (started 0s after the change on node node-1)"
    due.advance(hours=25)
    due.run(max_wait=NO_WAIT)
    assert name not in due.accounts()


def test_a_look_at_the_secret_that_failed_is_none(due: Scene) -> None:
    """The account that comes next in the same entry has been put back into the Secret meanwhile."""
    due.kubernetes.forbid("list", "pods")  # so two superseded accounts wait
    due.run(max_wait=NO_WAIT)
    second = due.secret()
    assert second is not None
    due.advance(hours=1)
    due.run(max_wait=NO_WAIT)
    due.kubernetes.permit("list", "pods")
    due.advance(minutes=10)
    body = {"data": second["data"], "metadata": {"annotations": second["metadata"]["annotations"]}}

    # The first account's last use takes long to tell, and the look at the Secret that is due then fails.
    html = answered(Response(200, {"Content-Type": "text/html"}, b"<html>busy</html>"))
    failing = rule(due, Rule(html, "GET", SECRET, skip=2, count=1))
    slow = rule(due, Rule(delivered(after=8), "GET", KEYS, count=1))
    slow.otherwise = Meanwhile(lambda: due.merge(SECRET, body), "GET", KEYS)
    due.run(cluster_faults=failing, openai_faults=slow, max_wait=NO_WAIT)
    assert failing.rules[0].count == 0
    assert due.openai.use(due.key())


def test_a_project_that_was_archived_wedges_nothing(due: Scene) -> None:
    """The run died after it had published in a project that was archived then, and the generator has another now."""
    publish_and_die(due)
    due.openai.add_project("acme", OTHER)
    due.openai.archive(PROJECT)
    due.merge(GENERATOR, {"spec": {"projectId": OTHER}})
    due.advance(minutes=10)
    due.run(max_wait=NO_WAIT)
    assert due.outcome().result is Result.ROTATED
    for _ in range(3):
        due.advance(minutes=10)
        due.run(max_wait=NO_WAIT)
    assert [publication.account.access.project.id for publication in due.stored_entry().history] == [OTHER]


def test_a_project_out_of_reach_that_was_left_behind_wedges_nothing(due: Scene) -> None:
    """The same, where nobody has a key for the old project any more: its account stays in the ledger."""
    name = publish_and_die(due)
    due.openai.add_organization("rival")
    due.openai.add_project("rival", OTHER)
    rival = due.openai.add_admin_key("rival")
    due.merge("/api/v1/namespaces/default/secrets/openai-admin-secret", {"stringData": {"api-key": rival}})
    due.merge(GENERATOR, {"spec": {"projectId": OTHER}})
    due.advance(minutes=10)
    due.run(max_wait=NO_WAIT)
    assert due.outcome().result is Result.ROTATED
    assert due.named()["projectId"] == OTHER
    entry = due.stored_entry()
    assert name in {p.account.name for p in entry.history} | {i.account.name for i in entry.unpublished}


def test_an_intent_says_under_which_data_key_it_is_published(due: Scene) -> None:
    """That is how the key of a run that died is told from the rest of the Secret."""
    publish_and_die(due)
    (intent,) = due.stored_entry(TARGET).unpublished
    assert intent.account.data_key == "api_key"
    assert intent.claimed_until - intent.requested_at == timedelta(seconds=210)
