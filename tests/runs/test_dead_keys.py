"""Keys are looked at, not only accounts: one that is gone is replaced, a second one that is used holds its account."""

from datetime import timedelta

import pytest

from sandbox.transport.faults import Fate, NoFaults, Rule, answered
from sandbox.transport.wire import Request, Response
from tests.support.ledgers import rule
from tests.support.paths import ENTRY, EXTERNAL_SECRET, GENERATOR, NO_WAIT, SECRET
from tests.support.scene import PROJECT, TARGET, Meanwhile, Scene, checked_scene
from worker.model.outcomes import Result
from worker.model.values import JSON, Ref

scene = pytest.fixture(checked_scene)
KEYS = f"/v1/organization/projects/{PROJECT}/api_keys"


@pytest.fixture
def once(scene: Scene) -> Scene:
    """A target that is rotated once, and then for a reason only; its key is an hour old."""
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "0"}})
    scene.run()
    scene.advance(hours=1)
    return scene


def test_a_key_that_was_deleted_at_openai_is_replaced_in_the_next_run(once: Scene) -> None:
    once.openai.delete_key(PROJECT, once.named()["keyId"])
    once.run()
    assert (once.outcome().result, once.outcome().reason) == (Result.ROTATED, "KeyGone")
    assert once.live_key()
    once.advance(minutes=10)
    once.run()
    assert len(once.accounts()) == 1


def test_a_key_that_ended_by_itself_is_replaced_though_its_end_was_not_known(once: Scene) -> None:
    """Its end was changed at OpenAI: it is noted where it is seen, and the key renewed before."""
    once.openai.expire_key(PROJECT, once.named()["keyId"], once.now() + timedelta(hours=3))
    once.run()
    expires = once.stored_entry().history[0].account.expires_at
    assert expires == once.now().replace(microsecond=0) + timedelta(hours=3) or once.outcome().reason == "NotDue"
    once.advance(hours=4)
    once.run()
    assert once.outcome().reason in ("KeyGone", "Expiring")
    assert once.live_key()


def test_the_end_of_a_key_is_noted_where_it_is_seen(once: Scene) -> None:
    once.openai.expire_key(PROJECT, once.named()["keyId"], once.now() + timedelta(days=9))
    once.run()
    (publication,) = once.stored_entry().history
    assert publication.account.expires_at is not None
    assert publication.account.expires_at > once.now() + timedelta(days=8)
    assert once.stored_entry().next_rotation_at is not None


def test_a_list_that_lacks_the_key_is_no_proof(once: Scene) -> None:
    """The key itself is asked about: where it answers, it is there."""
    empty: JSON = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    once.run(openai_faults=rule(once, Rule(answered(Response.of_json(200, empty)), "GET", KEYS)))
    assert once.outcome().reason == "NotDue"


@pytest.mark.parametrize("dead", [False, True])
def test_a_404_about_the_key_alone_needs_the_key_s_own_word(once: Scene, dead: bool) -> None:
    """The list cannot be read, and one replica denies the key: it is gone if OpenAI refuses it, too (seed 685)."""
    if dead:
        once.openai.delete_key(PROJECT, once.named()["keyId"])
    page = answered(Response.of_text(200, "<html>busy</html>", content_type="text/html"))
    gone = answered(Response.of_json(404, {"error": {"message": "No such API key.", "code": None}}))
    once.run(openai_faults=rule(once, Rule(page, "GET", KEYS), Rule(gone, "GET", KEYS + "/.*")))
    assert once.outcome().reason == ("KeyGone" if dead else "NotDue")


def test_keys_that_may_not_be_read_stop_no_rotation(scene: Scene) -> None:
    refusal = Response.of_json(403, {"error": {"message": "Missing scopes", "code": None}})
    scene.apply_documented()
    scene.run(openai_faults=rule(scene, Rule(answered(refusal), "GET", KEYS)))
    assert scene.outcome().reason == "First"
    scene.advance(minutes=10)
    scene.run(openai_faults=rule(scene, Rule(answered(refusal), "GET", KEYS)))
    assert scene.outcome().reason == "NotDue"


def test_keys_are_listed_once_a_project_and_run(scene: Scene) -> None:
    """A hundred accounts: one more request than before."""
    for number in range(4):
        scene.namespace(f"n{number}")
        scene.apply_documented(f"n{number}")
    scene.run()
    scene.advance(minutes=10)
    queries = []

    class Listener:
        def fate(self, request: Request) -> Fate:
            queries.append((request.path, request.query.get("owner_project_access")))
            return NoFaults().fate(request)

    scene.run(openai_faults=Listener())
    assert scene.openai_session is not None
    paths = [exchange.path for exchange in scene.openai_session.log]
    # Two pages' worth of nothing: one list of accounts and one of keys for each of the four admin keys.
    assert len([path for path in paths if path.startswith(KEYS)]) == 4
    # And one of admin keys, for the four Secrets hold the same one.
    assert len(paths) == 9
    assert {wanted for path, wanted in queries if path == KEYS} == {"any"}


def test_an_account_stays_while_somebody_uses_another_key_of_it(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    _, second = scene.openai.add_key(PROJECT, scene.named()["id"], "by hand")
    scene.advance(hours=1)
    for _ in range(20):
        assert scene.openai.use(second)
        scene.advance(minutes=1)
    scene.run()
    for _ in range(3):
        scene.openai.use(second)
        scene.advance(minutes=10)
        scene.run()
    assert scene.openai.use(second)
    for _ in range(30):
        scene.advance(hours=1)
        scene.run(max_wait=NO_WAIT)
    assert not scene.openai.use(second)


def test_a_key_that_a_later_list_of_the_run_shows_counts(scene: Scene) -> None:
    """The run lists keys again, for one that is gone; meanwhile somebody has made another of the next account."""
    scene.apply_documented()
    scene.merge(GENERATOR, {"spec": {"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "3h"}}})
    scene.run()
    gone = scene.named()["keyId"]
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    second = scene.named()["id"]
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    assert len(scene.accounts()) == 3
    scene.openai.delete_key(PROJECT, gone)
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "0"}})
    scene.advance(hours=5)
    made: list[str] = []

    def make_and_use() -> None:
        made.append(scene.openai.add_key(PROJECT, second, "by hand")[1])
        assert scene.openai.use(made[0])

    scene.run(openai_faults=Meanwhile(make_and_use, "GET", f"{KEYS}/{gone}"))
    assert scene.openai.use(made[0])
    assert len(scene.accounts()) == 2


def test_a_key_that_somebody_makes_while_the_run_waits_for_the_grace_counts(scene: Scene) -> None:
    """The run lists keys when it begins, and deletes five minutes later (seed 9150)."""
    scene.apply_documented()
    scene.run()
    first = scene.named()["id"]
    scene.advance(hours=1)
    made: list[str] = []

    def make_and_use() -> None:
        made.append(scene.openai.add_key(PROJECT, first, "by hand")[1])
        assert scene.openai.use(made[0])

    scene.run(cluster_faults=Meanwhile(make_and_use, "PATCH", SECRET))
    assert scene.openai.use(made[0])


def test_a_404_about_a_key_that_the_list_has_is_no_answer(scene: Scene) -> None:
    """The old key is in use and OpenAI says 404 when asked about it: that is not "never used"."""
    scene.apply_documented()
    scene.run()
    key = scene.key()
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    scene.advance(minutes=5)
    assert scene.openai.use(key)
    gone = answered(Response.of_json(404, {"error": {"message": "No such API key.", "code": None}}))
    scene.advance(minutes=5)
    scene.run(openai_faults=rule(scene, Rule(gone, "GET", KEYS + "/.*")))
    assert scene.openai.use(key)


def test_a_key_that_is_gone_lets_its_account_go(scene: Scene) -> None:
    """Both the list and the key itself say so: nobody can use it any more."""
    scene.apply_documented()
    scene.run()
    first = scene.named()["keyId"]
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    scene.openai.delete_key(PROJECT, first)
    scene.advance(minutes=10)
    scene.run()
    assert len(scene.accounts()) == 1


def test_another_target_s_dead_key_is_its_own_matter(scene: Scene) -> None:
    other = Ref("other", TARGET.name)
    scene.namespace("other")
    scene.apply_documented()
    scene.apply_documented("other")
    scene.run()
    scene.advance(minutes=10)
    scene.openai.delete_key(PROJECT, scene.named(other)["keyId"])
    scene.run()
    assert scene.outcome().reason == "NotDue"
    assert scene.outcome(other).reason == "KeyGone"


def test_an_adopted_account_without_a_key_is_found_dead(scene: Scene) -> None:
    """Its ledger entry is lost and its key deleted before `adopt`: OpenAI lists no key, and refuses the Secret's."""
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "0"}})
    scene.run()
    scene.openai.delete_key(PROJECT, scene.named()["keyId"])
    scene.delete(ENTRY)
    scene.adopt(yes=True)
    scene.advance(minutes=20)
    scene.run()
    assert scene.outcome().reason == "KeyGone"
    assert scene.live_key()


def test_a_page_that_is_not_openais_says_nothing_about_a_key(scene: Scene) -> None:
    """A firewall answers 401 in place of OpenAI, while the list does not show the account yet: nothing is minted."""
    page = answered(Response.of_text(401, "<html>sign in</html>", content_type="text/html"))
    gone = answered(Response.of_json(404, {"error": {"message": "No such service account.", "code": None}}))
    empty: JSON = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    scene.apply_documented()
    scene.run()
    mints = scene.openai.mints
    scene.advance(minutes=2)
    accounts = f"/v1/organization/projects/{PROJECT}/service_accounts"
    lists = [Rule(answered(Response.of_json(200, empty)), "GET", accounts), Rule(gone, "GET", accounts + "/.*")]
    scene.run(openai_faults=rule(scene, *lists, Rule(page, "GET", "/v1/models")))
    assert scene.openai.mints == mints
    assert scene.outcome().reason == "AccountNotShown"
