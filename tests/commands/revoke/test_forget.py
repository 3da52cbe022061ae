"""`revoke --forget`: the project was deleted at OpenAI, and its accounts with it."""

from __future__ import annotations

import json

import pytest

from sandbox.transport.faults import Rule, Rules, answered
from sandbox.transport.wire import Response
from tests.support.paths import ADMIN_SECRET, EXTERNAL_SECRET, GENERATOR, NO_WAIT
from tests.support.pods import hold_the_first_key
from tests.support.scene import PROJECT, TARGET, Scene, checked_scene
from worker.commands.revoke.forget import forget
from worker.commands.revoke.plan import Forgotten
from worker.commands.revoke.words import forgotten_as_json, forgotten_text
from worker.errors import ConfigurationError
from worker.model.outcomes import Result

scene = pytest.fixture(checked_scene)
COMMAND = f"`openai-key-rotator revoke --forget {TARGET}`"
OTHER = "proj_other"


def forgetting(scene: Scene, *, write: bool = True, **options: object) -> Forgotten:
    return scene.play(lambda asked, world, stop, _: forget(asked, TARGET, world, stop=stop, write=write), **options)


def moved(scene: Scene) -> Scene:
    """The project was deleted; the generator names another one, and a run has made a key there."""
    scene.openai.add_project("acme", OTHER)
    scene.apply_documented()
    scene.run()
    scene.openai.delete_project(PROJECT)
    scene.merge(GENERATOR, {"spec": {"projectId": OTHER}})
    scene.advance(minutes=10)
    scene.run()
    assert scene.live_key()
    scene.advance(minutes=10)
    return scene


def test_a_deleted_project_ends_each_run_until_a_human_has_it_forgotten(scene: Scene) -> None:
    moved(scene)
    for _ in range(3):
        scene.run()
        retired = scene.retired()
        assert retired is not None
        assert retired.result is Result.FAILED
        assert COMMAND in retired.message
        scene.advance(minutes=10)
    condition = scene.stored_entry().condition
    assert condition is not None
    assert COMMAND in condition.message
    (old,) = [p.account for p in scene.stored_entry().history if p.account.access.project.id == PROJECT]
    forgotten = forgetting(scene)
    assert forgotten.complete
    assert forgotten.names == (old.name,)
    entry = scene.stored_entry()
    assert [p.account.name for p in entry.history] == [scene.named()["name"]]
    scene.run()
    retired = scene.retired()
    assert retired is None or retired.result is Result.KEPT
    assert scene.live_key()


def test_what_was_forgotten_stands_in_the_entry_and_in_an_event(scene: Scene) -> None:
    moved(scene)
    old = next(p.account for p in scene.stored_entry().history if p.account.access.project.id == PROJECT)
    forgetting(scene)
    scene.run()
    (line,) = scene.stored_entry().forgotten
    assert old.name in line
    assert str(old.id) in line
    assert PROJECT in line
    (event,) = [e for e in scene.kubernetes.objects("events", "default") if e["reason"] == "Forgotten"]
    assert old.name in event["message"]
    assert str(old.id) in event["message"]


def test_a_project_that_answers_forgets_nothing(scene: Scene) -> None:
    hold_the_first_key(scene)
    before = scene.stored_entry()
    forgotten = forgetting(scene)
    assert not forgotten.gone
    assert not forgotten.complete
    assert sorted(forgotten.answering) == sorted(scene.accounts())
    assert scene.stored_entry().history == before.history
    assert "its project exists" in forgotten_text(forgotten, done=True)


def test_the_project_itself_is_asked_about_too(scene: Scene) -> None:
    """A 404 of the list alone is not enough."""
    hold_the_first_key(scene)
    no = answered(Response.of_json(404, {"error": {"message": "no", "code": None}}))
    lists = Rules([Rule(no, "GET", r".*/service_accounts")], scene.random)
    forgotten = forgetting(scene, openai_faults=lists)
    assert not forgotten.gone
    assert len(forgotten.answering) == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, "<html>not found</html>"),
        (401, json.dumps({"error": {"message": "no", "code": "invalid_api_key"}})),
        (403, json.dumps({"error": {"message": "no", "code": None}})),
        (400, json.dumps({"error": {"message": "no", "code": None}})),
        (500, "{}"),
        (429, "{}"),
    ],
)
def test_any_other_answer_forgets_nothing(scene: Scene, status: int, body: str) -> None:
    moved(scene)
    before = scene.stored_entry().history
    other = answered(Response(status, {"Content-Type": "application/json"}, body.encode()))
    rules = Rules([Rule(other, "GET", rf".*/projects/{PROJECT}(/.*)?")], scene.random)
    forgotten = forgetting(scene, openai_faults=rules)
    assert not forgotten.gone
    assert forgotten.left
    assert scene.stored_entry().history == before


def test_an_archived_project_forgets_nothing(scene: Scene) -> None:
    """A run lets its accounts go by itself."""
    hold_the_first_key(scene)
    scene.openai.archive(PROJECT)
    assert not forgetting(scene).gone


def test_the_key_in_the_secret_stays_known(scene: Scene) -> None:
    """Else the next run would find the account of a stranger in the Secret, and be blocked."""
    scene.apply_documented()
    scene.run()
    scene.openai.delete_project(PROJECT)
    scene.advance(minutes=10)
    forgotten = forgetting(scene)
    assert not forgotten.gone
    ((_, why),) = forgotten.left
    assert "name a project that exists in the generator, or delete the Secret" in why
    scene.openai.add_project("acme", OTHER)
    scene.merge(GENERATOR, {"spec": {"projectId": OTHER}})
    scene.run()
    assert scene.outcome().reason == "ProjectChanged"
    assert scene.live_key()
    assert forgetting(scene).complete


def test_a_target_that_is_gone_empties_its_entry(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    scene.openai.delete_project(PROJECT)
    scene.delete(EXTERNAL_SECRET)  # and the Secret that it owns
    assert scene.secret() is None
    scene.advance(hours=1)
    scene.run()
    assert scene.entry() is not None
    condition = scene.stored_entry().condition
    assert condition is not None
    assert COMMAND in condition.message
    assert forgetting(scene).complete
    condition = scene.stored_entry().condition
    assert condition is not None
    assert condition.reason == "Forgotten"
    scene.run()
    assert scene.entry() is None


def test_showing_writes_nothing(scene: Scene) -> None:
    moved(scene)
    before = scene.stored_entry()
    shown = forgetting(scene, write=False)
    assert shown.gone
    assert scene.stored_entry() == before
    assert {kind.split()[0] for kind in scene.requests()} == {"GET"}
    text = forgotten_text(shown, done=False)
    assert "the ledger would forget" in text
    assert "another organisation" in text
    assert forgotten_as_json(shown)["forgotten"] == [
        {"name": account.name, "id": account.id, "projectId": PROJECT, "host": account.access.project.host}
        for account in shown.gone
    ]


def test_without_an_admin_key_nobody_can_be_asked(scene: Scene) -> None:
    moved(scene)
    scene.delete(ADMIN_SECRET)
    forgotten = forgetting(scene)
    assert not forgotten.gone
    assert len(forgotten.left) == 2


def test_a_claim_is_respected(scene: Scene) -> None:
    """A run may be working on it: it knows more."""
    scene.apply_documented()
    lost = Rules([Rule(answered(Response.of_json(500, {})), "POST", r".*/service_accounts")], scene.random)
    scene.run(openai_faults=lost, max_wait=NO_WAIT)
    (intent,) = scene.stored_entry().unpublished
    scene.openai.delete_project(PROJECT)
    forgotten = forgetting(scene)
    assert [name for name, _ in forgotten.left] == [intent.account.name]
    scene.advance(minutes=10)
    assert forgetting(scene).names == (intent.account.name,)


def test_there_has_to_be_an_entry(scene: Scene) -> None:
    with pytest.raises(ConfigurationError, match="no entry"):
        forgetting(scene)
