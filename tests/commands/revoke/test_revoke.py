"""`revoke`: a new key first, then all others at once; what it says, what it leaves, what it does where it cannot."""

from __future__ import annotations

import pytest

from sandbox.transport.faults import Fate, Rule, Rules, answered, request_lost, response_lost
from sandbox.transport.wire import Response
from tests.support.ledgers import settle
from tests.support.paths import ADMIN_SECRET, EXTERNAL_SECRET, NO_WAIT
from tests.support.pods import hold_the_first_key, start_pod, stop_pod
from tests.support.scene import LEDGER, PROJECT, TARGET, Killer, Scene, checked_scene
from worker.commands.revoke.words import as_json, plan_text, result_text
from worker.errors import ConfigurationError
from worker.model.outcomes import Result
from worker.report.announce import EVENTS

scene = pytest.fixture(checked_scene)
ACCOUNTS = r"/v1/organization/projects/[^/]+/service_accounts"
SUSPEND = {"metadata": {"annotations": {"openai-key-rotator.io/suspend": "true"}}}


def answer(code: int) -> Fate:
    return answered(Response.of_json(code, {"error": {"message": "no", "code": None}}))


def faults(scene: Scene, *rules: Rule) -> Rules:
    return Rules(rules, scene.random)


@pytest.fixture
def held(scene: Scene) -> Scene:
    return revocable(scene)


def revocable(scene: Scene | None = None) -> Scene:
    """Two rotations, and a pod that carries the first one's key."""
    scene = hold_the_first_key(scene or Scene())
    scene.advance(minutes=20)
    return scene


def test_all_but_a_new_key_are_deleted_at_once(held: Scene) -> None:
    """The current one and the one that a pod holds: no grace, no holder, no use counts."""
    before, dead = held.accounts(), held.key()
    assert len(before) == 2
    revoked = held.revoke()
    assert revoked.complete
    assert held.accounts() == [revoked.successor] == [held.named()["name"]]
    assert held.live_key()
    assert not held.openai.use(dead)
    assert sorted(revoked.deleted) == sorted(before)
    entry = held.stored_entry()
    assert [p.account.name for p in entry.history] == [revoked.successor]
    assert entry.condition is not None
    assert entry.condition.ready


def test_the_new_key_is_in_place_before_anything_goes(held: Scene) -> None:
    """And the accounts go in the same second."""
    held.revoke()
    assert held.cluster_session is not None
    assert held.openai_session is not None
    log = [(str(e.at), e.kind) for session in (held.cluster_session, held.openai_session) for e in session.log]
    kinds = [kind for _, kind in sorted(log, key=lambda item: item[0])]
    assert kinds.count("DELETE service_accounts") == 2
    assert kinds.index("PATCH secrets") < kinds.index("DELETE service_accounts")
    assert min(at for at, kind in log if kind == "PATCH secrets") <= min(at for at, kind in log if "DELETE" in kind)


def test_it_says_exactly_what_it_will_break(held: Scene) -> None:
    """Containers by name, with the account whose key they have; and those that follow by themselves."""
    first = next(p.account.name for p in held.stored_entry().history if p.superseded_at is not None)
    start_pod(held, "newer")
    text = plan_text(held.plan())
    assert f"my-app/app: has the key of {first} from its start" in text
    assert f"newer/app: has the key of {held.named()['name']} from its start" in text
    assert f"{held.named()['name']} ({held.named()['id']}), current" in text
    assert "no container" not in text


def test_a_plan_writes_nothing(held: Scene) -> None:
    """Not one request but reads, whatever it shows."""
    held.plan()
    assert {kind.split()[0] for kind in held.requests()} == {"GET"}


def test_who_came_while_it_was_asked_is_hit_and_named(held: Scene) -> None:
    """A run has rotated since the plan was shown, and a pod has taken that key."""
    shown = held.plan()
    held.advance(hours=1)
    held.run()
    held.advance(minutes=10)
    start_pod(held, "second")
    held.advance(minutes=10)
    revoked = held.revoke()
    assert "second/app" not in plan_text(shown)
    assert revoked.affected == ("my-app/app", "second/app")
    assert "restart now: my-app/app, second/app" in result_text(revoked)
    (event,) = [e for e in held.kubernetes.objects("events", "default") if e["reason"] == "Revoked"]
    assert "second/app" in event["message"]


def test_a_possible_holder_is_to_be_restarted_as_well(held: Scene) -> None:
    """It started right after the rotation."""
    held.advance(hours=1)
    held.run(max_wait=NO_WAIT)
    held.advance(minutes=1)
    start_pod(held, "perhaps")
    held.advance(minutes=10)
    assert "perhaps/app" in held.revoke().affected


def test_a_second_revocation_at_once_is_complete_too(held: Scene) -> None:
    """What the first has deleted minutes ago is still recorded, and gone."""
    for _ in range(3):
        revoked = held.revoke()
        assert revoked.complete, revoked.left
    assert held.accounts() == [held.named()["name"]]


def test_without_a_new_key_nothing_is_deleted(held: Scene) -> None:
    """What stands in the way is said, with all that can be done."""
    accounts = held.accounts()
    revoked = held.revoke(openai_faults=faults(held, Rule(answer(403), "POST", ACCOUNTS)))
    assert (revoked.complete, revoked.successor, revoked.deleted) == (False, None, ())
    assert held.accounts() == accounts
    text = result_text(revoked)
    assert "nothing was deleted, for no new key could be made: OpenAIForbidden: " in text
    assert "--without-successor" in text
    assert held.named()["id"] in text
    assert held.live_key()


def test_without_successor_deletes_all_the_same(held: Scene) -> None:
    """The target is not ready and says why; the run that can make a key again heals it."""
    revoked = held.revoke(openai_faults=faults(held, Rule(answer(403), "POST", ACCOUNTS)), without_successor=True)
    assert revoked.complete
    assert held.accounts() == []
    condition = held.stored_entry().condition
    assert condition is not None
    assert (condition.ready, condition.reason) == (False, "Revoked")
    assert "OpenAIForbidden" in condition.message
    held.advance(minutes=10)
    held.run()
    assert held.outcome().result is Result.ROTATED
    assert held.live_key()


def test_without_successor_still_makes_one_where_it_can(held: Scene) -> None:
    """It is no wish to be without a key."""
    assert held.revoke(without_successor=True).successor is not None
    assert held.live_key()


def test_a_target_that_nothing_asks_for_can_only_lose_its_accounts(held: Scene) -> None:
    """Its pods are told of on the way."""
    held.merge(EXTERNAL_SECRET, {"spec": {"target": {"name": "another"}}})
    revoked = held.revoke()
    assert not revoked.complete
    assert "nothing asks for this Secret any more" in result_text(revoked)
    shown = plan_text(held.plan())
    assert "so nothing would be deleted" in shown
    assert "--without-successor" in shown
    assert len(held.accounts()) == 2
    assert "these accounts are deleted all the same" in plan_text(held.plan(without_successor=True))
    assert held.revoke(without_successor=True).complete
    assert held.accounts() == []


def test_a_suspended_target_is_revoked_too(held: Scene) -> None:
    """Suspended means left alone by runs, not by a human who says otherwise."""
    held.merge(EXTERNAL_SECRET, SUSPEND)
    assert held.revoke().complete
    assert held.accounts() == [held.named()["name"]]


def test_a_pause_after_failures_does_not_put_it_off(held: Scene) -> None:
    """Nor does what OpenAI told an earlier run."""
    held.advance(hours=1)
    held.run(openai_faults=faults(held, Rule(answer(500), "POST", ACCOUNTS)), max_wait=NO_WAIT)
    assert held.stored_entry().failures.count == 1
    held.advance(minutes=4)
    assert held.revoke().complete


def test_another_runs_work_is_waited_for(held: Scene) -> None:
    """What that one made goes as well, for nobody knows what it saw."""
    held.advance(hours=1)
    held.run(openai_faults=faults(held, Rule(response_lost(), "POST", ACCOUNTS)), max_wait=NO_WAIT)
    (intent,) = held.stored_entry().unpublished
    assert intent.claimed_until > held.now()
    revoked = held.revoke()
    assert any("a run is working on it" in words for words in held.said)
    assert held.now() >= intent.claimed_until
    assert revoked.complete
    assert intent.account.name in revoked.deleted
    assert held.accounts() == [held.named()["name"]]


@pytest.mark.parametrize("fate", [request_lost(), response_lost(), answer(500)])
def test_what_is_not_gone_is_said_and_done_again(held: Scene, fate: Fate) -> None:
    """The accounts stay in the ledger until OpenAI has confirmed that they do not exist."""
    revoked = held.revoke(openai_faults=faults(held, Rule(fate, "DELETE")))
    assert not revoked.complete
    assert {name for name, _ in revoked.left} <= {p.account.name for p in held.stored_entry().history}
    assert "not deleted: " in result_text(revoked)
    assert held.live_key()
    assert held.revoke().complete
    assert held.accounts() == [held.named()["name"]]
    held.advance(minutes=10)
    held.run()
    assert [p.account.name for p in held.stored_entry().history] == [held.named()["name"]]


def test_a_young_account_stays_recorded_until_nothing_more_can_appear(scene: Scene) -> None:
    """Its request may have been repeated on its way; the next run confirms that it is gone."""
    scene.apply_documented()
    scene.run()
    first = scene.named()["name"]
    revoked = scene.revoke()
    assert revoked.deleted == (first,)
    assert scene.accounts() == [revoked.successor]
    assert first in [p.account.name for p in scene.stored_entry().history]
    scene.advance(minutes=10)
    scene.run()
    assert [p.account.name for p in scene.stored_entry().history] == [revoked.successor]


@pytest.mark.parametrize("after", [False, True], ids=["before a request", "after a request"])
@pytest.mark.parametrize("again", [False, True], ids=["left to runs", "revoked again"])
def test_a_revocation_may_die_at_any_request(after: bool, again: bool) -> None:
    """The Secret holds a live key at each moment, nothing is orphaned, and done again it is complete."""
    for number in range(100):
        scene = revocable()
        killed = scene.revoke_killed(Killer(number, after))
        assert scene.live_key(), number
        if again:
            assert scene.revoke().complete, number
            assert scene.accounts() == [scene.named()["name"]], number
        stop_pod(scene)
        settle(scene, hours=1)
        if not killed:
            assert number > 10
            return
    raise AssertionError("a revocation that sends a hundred requests")


def test_a_publication_that_could_not_be_noted_is_noted_with_the_rest(held: Scene) -> None:
    """The key is in the Secret, so the revocation goes on."""
    patches = Rule(answer(500), "PATCH", r".*/keyrotations/.*", skip=1, count=1)
    revoked = held.revoke(cluster_faults=faults(held, patches))
    assert revoked.complete
    assert [p.account.name for p in held.stored_entry().history] == [revoked.successor]
    assert held.stored_entry().unpublished == ()


def test_only_what_the_ledger_records_is_deleted(held: Scene) -> None:
    """Whatever an annotation says, and whatever else is in the project."""
    stranger, _ = held.openai.add_account(PROJECT, "stranger")
    held.revoke()
    assert stranger.id in held.account_ids()


def test_a_target_without_an_entry_is_a_mistake(scene: Scene) -> None:
    """So is another ledger's; nothing is asked, and nothing is done."""
    scene.apply_documented()
    with pytest.raises(ConfigurationError, match="has no entry for default/openai-credentials"):
        scene.revoke()
    scene.run()
    path = f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations/default.openai-credentials"
    scene.merge(path, {"spec": {"ledger": "another"}})
    with pytest.raises(ConfigurationError, match="another installation's"):
        scene.revoke()
    with pytest.raises(ConfigurationError, match="another installation's"):
        scene.plan()
    assert scene.live_key()


def test_where_pods_may_not_be_listed_it_says_that_it_is_blind(held: Scene) -> None:
    """That does not stop it: the key is compromised."""
    held.kubernetes.forbid("list", "pods")
    text = plan_text(held.plan())
    assert "it cannot be seen who has one of these keys" in text
    assert "no container" not in text
    assert held.revoke().complete


def test_an_event_says_who_must_be_restarted(held: Scene) -> None:
    """On whatever asked for the target."""
    held.revoke()
    (event,) = [e for e in held.kubernetes.objects("events", "default") if e["reason"] == "Revoked"]
    assert (event["type"], event["involvedObject"]["kind"]) == ("Warning", "ExternalSecret")
    assert "containers whose key is now dead, or may be: my-app/app" in event["message"]


def test_an_event_that_is_refused_is_said(held: Scene) -> None:
    """The revocation itself has happened."""
    held.kubernetes.forbid("create", EVENTS.plural)
    revoked = held.revoke()
    assert revoked.complete
    assert "could not be told to the cluster: " in result_text(revoked)


def test_an_admin_secret_that_is_gone_is_named(held: Scene) -> None:
    """Neither a new key nor a delete is possible without it, and nothing else is claimed."""
    held.delete(ADMIN_SECRET)
    revoked = held.revoke(without_successor=True)
    text = result_text(revoked)
    assert not revoked.complete
    assert "AdminKeyMissing" in text
    assert f"NOT deleted, and current: {held.named()['name']}" in text
    assert "no working key" not in text
    assert len(held.accounts()) == 2
    assert held.live_key()
    condition = held.stored_entry().condition
    assert condition is not None
    assert condition.reason != "Revoked"


def test_scripts_get_the_same_as_values(held: Scene) -> None:
    """Who must be restarted, among others."""
    keys = {publication.account.key_id for publication in held.stored_entry().history}
    told = as_json(held.revoke())
    assert {account["keyId"] for account in told["accounts"]} == keys
    assert {account["projectId"] for account in told["accounts"]} == {PROJECT}
    assert told["complete"]
    assert told["successor"] == held.named()["name"]
    assert [account["holders"] for account in told["accounts"]] == [["my-app/app"], []]
    assert (told["namespace"], told["secret"]) == (TARGET.namespace, TARGET.name)
