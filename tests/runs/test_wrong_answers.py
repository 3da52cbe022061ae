"""Answers that are not what they seem: pages of something in between, lists without what they had, other accounts."""

import copy

import pytest

from sandbox.transport.faults import Rule, Rules, answered
from sandbox.transport.wire import Response
from tests.support.ledgers import rule, settle
from tests.support.paths import ACCOUNTS, EXTERNAL_SECRETS, NO_WAIT, SECRET
from tests.support.pods import start_pod
from tests.support.scene import LEDGER, PROJECT, Scene, checked_scene
from worker.errors import OutOfReach
from worker.model.values import Ref
from worker.report.summary import exit_code

scene = pytest.fixture(checked_scene)
PAGE = answered(Response.of_text(404, "<html>default backend - 404</html>", content_type="text/html"))
EMPTY = answered(
    Response.of_json(200, {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False})
)
GONE = answered(Response.of_json(404, {"error": {"message": "No such service account.", "code": None}}))
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/externalsecrets.external-secrets.io"


def hidden(name: str, kind: str = "secrets") -> Response:
    """A Status as an API server would write it, of something that hides what it forbids."""
    details = {"name": name, "kind": kind}
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
    return Response.of_json(404, status | {"message": f'{kind} "{name}" not found', "details": details})


@pytest.fixture
def rotated(scene: Scene) -> Scene:
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=20)
    return scene


def test_a_404_page_about_the_secret_is_no_answer(rotated: Scene) -> None:
    mints, key = rotated.openai.mints, rotated.key()
    rotated.run(cluster_faults=rule(rotated, Rule(PAGE, "GET", SECRET)))
    assert rotated.openai.use(key)
    assert rotated.openai.mints == mints
    assert rotated.outcome().reason == "ClusterUnanswered"


def test_a_404_about_another_object_is_no_answer(rotated: Scene) -> None:
    other = answered(hidden("another"))
    rotated.run(cluster_faults=rule(rotated, Rule(other, "GET", SECRET)))
    assert rotated.outcome().reason == "ClusterUnanswered"
    assert rotated.stored_entry().history[0].superseded_at is None


def test_a_secret_that_can_be_made_again_is_gone_and_one_that_exists_is_not(rotated: Scene) -> None:
    """Something hides it from reads, with a Status as an API server writes it: a create tells that it is there."""
    key, mints = rotated.key(), rotated.openai.mints
    for _ in range(3):
        rotated.run(cluster_faults=rule(rotated, Rule(answered(hidden("openai-credentials")), "GET", SECRET)))
        rotated.advance(minutes=10)
    assert rotated.openai.use(key)
    assert rotated.openai.mints == mints
    assert rotated.outcome().reason == "SecretHidden"


def test_a_secret_that_is_gone_is_made_again(rotated: Scene) -> None:
    rotated.delete(SECRET)
    rotated.run()
    assert rotated.outcome().reason == "SecretMissing"
    assert rotated.live_key()


def test_a_page_in_place_of_a_list_is_a_failure_and_nothing_is_taken_for_gone(rotated: Scene) -> None:
    with pytest.raises(OutOfReach) as raised:
        rotated.run(cluster_faults=rule(rotated, Rule(PAGE, "GET", "/apis/openai-key-rotator.io/.*")))
    assert raised.value.reason == "ClusterUnanswered"
    listed = EXTERNAL_SECRETS.replace("/namespaces/default", "")
    report = rotated.run(cluster_faults=rule(rotated, Rule(PAGE, "GET", listed)))
    assert exit_code(report, strict=False) == 1
    assert rotated.stored_entry().condition is not None
    assert rotated.stored_entry().condition.ready  # type: ignore[union-attr]


def test_external_secrets_that_are_not_served_any_more_are_a_failure(rotated: Scene) -> None:
    """The accounts stay, and the exit code says that something is wrong; once they are served all is as before."""
    stored = copy.deepcopy(dict(rotated.kubernetes.find("customresourcedefinitions", "", CRD.rpartition("/")[2]) or {}))
    versions = stored["spec"]["versions"]
    rotated.merge(CRD, {"spec": {"versions": [version | {"served": False} for version in versions]}})
    key = rotated.key()
    for _ in range(3):
        report = rotated.run()
        rotated.advance(hours=1)
        assert exit_code(report, strict=False) == 1
    assert rotated.openai.use(key)
    assert rotated.stored_entry().condition.reason != "SourceGone"  # type: ignore[union-attr]
    rotated.merge(CRD, {"spec": {"versions": versions}})
    assert exit_code(rotated.run(), strict=False) == 0
    assert rotated.live_key()


@pytest.fixture
def five(scene: Scene) -> Scene:
    """Five targets of one project."""
    for name in NAMES:
        scene.namespace(name)
        scene.apply_documented(name)
    scene.run()
    scene.advance(minutes=20)
    return scene


NAMES = [f"n{number}" for number in range(5)]


def test_a_project_that_looks_empty_is_not_believed(five: Scene) -> None:
    """Lists show nothing, each account answers 404, creates work: nothing is minted, and nothing is forgotten."""
    start_pod(five, namespace="n0")
    mints = five.openai.mints
    for _ in range(2):
        five.run(openai_faults=rule(five, Rule(EMPTY, "GET", ACCOUNTS), Rule(GONE, "GET|DELETE", ACCOUNTS + "/.*")))
        assert {outcome.reason for outcome in five.watcher.outcomes} == {"OpenAIProjectEmpty"}
        five.advance(minutes=10)
    assert five.openai.mints == mints
    for _ in range(12):
        five.run()
        five.advance(minutes=10)
    recorded = {
        publication.account.id
        for name in NAMES
        for publication in five.stored_entry(Ref(name, "openai-credentials")).history
    }
    assert five.account_ids() == recorded


def test_a_project_that_was_emptied_gets_new_keys(five: Scene) -> None:
    """Somebody has deleted all accounts: the keys in the Secrets are refused, so it is true, and all are healed."""
    for account in five.account_ids():
        five.openai.delete_account(PROJECT, account)
    five.run()
    assert {outcome.reason for outcome in five.watcher.outcomes} == {"AccountGone"}
    assert all(five.live_key(Ref(name, "openai-credentials")) for name in NAMES)
    five.advance(minutes=10)
    five.run()
    assert len(five.accounts()) == 5


def test_a_target_without_a_secret_gets_a_key_even_from_a_project_that_looks_empty(five: Scene) -> None:
    """Nobody has a key there: one is made, and no second one in the next run."""
    place = "/api/v1/namespaces/n1/secrets/openai-credentials"
    five.delete(place)
    mints = five.openai.mints
    for _ in range(2):
        five.run(openai_faults=rule(five, Rule(EMPTY, "GET", ACCOUNTS), Rule(GONE, "GET|DELETE", ACCOUNTS + "/.*")))
        five.advance(minutes=20)
    assert five.openai.mints == mints + 1
    assert five.live_key(Ref("n1", "openai-credentials"))


def test_an_account_made_minutes_ago_is_not_gone_because_openai_does_not_show_it_yet(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=3)
    mints = scene.openai.mints
    scene.run(openai_faults=rule(scene, Rule(EMPTY, "GET", ACCOUNTS), Rule(GONE, "GET", ACCOUNTS + "/.*")))
    assert scene.openai.mints == mints
    assert scene.stored_entry().history[0].superseded_at is None


def test_an_account_of_our_name_that_a_human_made_is_left_alone(scene: Scene) -> None:
    """Also when ours goes."""
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=30)
    _, key = scene.openai.add_account(PROJECT, scene.named()["name"])
    scene.advance(minutes=10)
    assert scene.openai.use(key)
    scene.run()
    assert scene.openai.use(key)
    for _ in range(3):
        scene.advance(hours=1)
        scene.run()
    assert scene.openai.use(key)
    assert len(scene.accounts()) == 2


def test_an_account_that_was_renamed_at_openai_is_recorded_by_its_id(scene: Scene) -> None:
    """The run died right after the PATCH, so the ledger knows the name alone; somebody renamed the account since."""
    scene.apply_documented()
    die_after_publishing(scene)
    scene.openai.rename_account(PROJECT, scene.named()["id"], "the backend's key")
    scene.advance(minutes=10)
    scene.run()
    assert scene.live_key()
    assert [publication.account.id for publication in scene.stored_entry().history][-1] == scene.named()["id"]
    scene.advance(hours=1)
    settle(scene)
    assert len(scene.accounts()) == 1


def test_a_digest_is_not_learnt_from_somebody_elses_key(scene: Scene) -> None:
    """The run died before its note, and a backup has put an old, dead key under the new annotation."""
    scene.apply_documented()
    scene.run()
    old = scene.secret()
    assert old is not None
    scene.openai.delete_account(PROJECT, scene.named()["id"])
    scene.delete(SECRET)
    scene.delete(f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations/default.openai-credentials")
    die_after_publishing(scene)
    scene.merge(SECRET, {"data": old["data"]})
    for _ in range(2):
        scene.advance(minutes=10)
        scene.run(max_wait=NO_WAIT)
    assert scene.live_key()


def die_after_publishing(scene: Scene) -> None:
    """A run that ends right after its Secret was written: nothing of it is noted in the ledger."""
    scene.run(
        cluster_faults=Rules(
            [Rule(answered(Response.of_json(503, {"kind": "Status"})), "PATCH", ".*/keyrotations/.*")], scene.random
        ),
        max_wait=NO_WAIT,
    )
    assert scene.secret() is not None


def test_revoke_notes_a_secret_that_it_saw_put_back(scene: Scene) -> None:
    """The Secret is put back to the old key while revoke works: the ledger says which account is current."""
    from tests.support.scene import Meanwhile

    scene.apply_documented()
    scene.run()
    backup = scene.secret()
    assert backup is not None
    old = scene.named()["name"]
    scene.advance(minutes=10)

    def put_back() -> None:
        current = scene.secret()
        assert current is not None
        scene.merge(SECRET, {"data": backup["data"], "metadata": {"annotations": backup["metadata"]["annotations"]}})

    revoked = scene.revoke(cluster_faults=Meanwhile(put_back, "GET", SECRET, skip=4))
    entry = scene.stored_entry()
    current = next((p.account.name for p in entry.history if p.superseded_at is None), None)
    assert current == scene.named()["name"], revoked
    assert old in {publication.account.name for publication in entry.history} or scene.named()["name"] != old
