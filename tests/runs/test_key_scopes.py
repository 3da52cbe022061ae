"""Keys with restricted scopes: no Secret ever sees a wide one, and a scope that OpenAI refuses costs one account."""

from __future__ import annotations

import pytest

from sandbox.transport.faults import Fate, NoFaults, Rule, answered, request_lost, response_lost
from sandbox.transport.wire import Request, Response
from tests.support.ledgers import rule, settle
from tests.support.paths import ENTRY, EXTERNAL_SECRET, GENERATOR, NO_WAIT
from tests.support.scene import LEDGER, PROJECT, TARGET, Killer, Meanwhile, Scene, checked_scene
from worker.model.names import entry_name
from worker.model.outcomes import Result
from worker.model.scopes import ScopePolicy

scene = pytest.fixture(checked_scene)
KEYS = f"/v1/organization/projects/{PROJECT}/api_keys"
ONE_KEY = KEYS + "/.*"
ASKED = ("api.responses.write", "model.request")
ANNOTATION = "openai-key-rotator.io/key-scopes"


def ask_for(scene: Scene, scopes: str | None, path: str = EXTERNAL_SECRET) -> None:
    scene.merge(path, {"metadata": {"annotations": {ANNOTATION: scopes}}})


def scopes_of(scene: Scene) -> tuple[str, ...]:
    """What the key in the Secret may do at OpenAI; nothing: everything."""
    key = scene.openai.key(scene.key())
    assert key is not None
    return key.scopes


def result(scene: Scene) -> tuple[Result, str]:
    return scene.outcome().result, scene.outcome().reason


@pytest.fixture
def asked(scene: Scene) -> Scene:
    """A target whose user asks for two scopes; nothing has run yet."""
    scene.apply_documented()
    ask_for(scene, "model.request, api.responses.write")
    return scene


@pytest.fixture
def scoped(asked: Scene) -> Scene:
    """The same, rotated, and then for a reason only; its key is an hour old."""
    asked.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "0"}})
    asked.run()
    asked.advance(hours=1)
    return asked


class NoWideKey:
    """Faults: lets all through, and fails the test where a Secret is written while its key could do more."""

    def __init__(self, scene: Scene, asked: tuple[str, ...] = ASKED) -> None:
        self.scene, self.asked, self.written = scene, asked, 0

    def fate(self, request: Request) -> Fate:
        if request.method in ("POST", "PATCH") and "/secrets" in request.path and "dryRun" not in request.query:
            self.written += 1
            scopes = [key.scopes for key in self.scene.openai._projects[PROJECT].keys.values()]
            assert scopes == [self.asked]
        return NoFaults().fate(request)


# --- what is asked for -------------------------------------------------------------------------------------------


def test_a_key_is_narrowed_before_any_secret_sees_it(asked: Scene) -> None:
    witness = NoWideKey(asked)
    asked.run(cluster_faults=witness)
    assert witness.written == 1
    assert result(asked) == (Result.ROTATED, "First")
    assert scopes_of(asked) == ASKED
    assert asked.live_key()


def test_ledger_and_annotation_name_the_scopes(asked: Scene) -> None:
    asked.run()
    (publication,) = asked.stored_entry().history
    assert publication.account.scopes == ASKED
    assert asked.named()["scopes"] == list(ASKED)
    stored = asked.kubernetes.find("keyrotations", LEDGER, entry_name(TARGET))
    assert stored is not None
    assert stored["status"]["accounts"][publication.account.name]["scopes"] == list(ASKED)


def test_the_external_secret_s_scopes_win_over_the_generator_s(scene: Scene) -> None:
    scene.apply_documented()
    ask_for(scene, "api.all.read", GENERATOR)
    scene.run()
    assert scopes_of(scene) == ("api.all.read",)
    ask_for(scene, "model.request")
    scene.run()
    assert scopes_of(scene) == ("model.request",)


def test_a_key_without_scopes_is_not_touched_at_openai(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    assert scene.requests().count("POST api_keys") == 0
    assert "scopes" not in scene.named()


def test_a_scoped_rotation_costs_two_requests_more(asked: Scene) -> None:
    """To OpenAI, and none to Kubernetes; a run that rotates nothing costs none. docs/openai.md says so."""
    plain = Scene()
    plain.apply_documented()
    for minutes, more in ((60, 2), (5, 2), (5, 0)):
        spent = []
        for scene in (asked, plain):
            scene.run()
            assert scene.cluster_session is not None
            assert scene.openai_session is not None
            spent.append((len(scene.cluster_session.log), len(scene.openai_session.log)))
            scene.advance(minutes=minutes)
        assert spent[0] == (spent[1][0], spent[1][1] + more)


# --- a change of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", ["model.request", "model.request, api.all.read", None])
def test_another_value_rotates(scoped: Scene, changed: str | None) -> None:
    before = scoped.named()["id"]
    ask_for(scoped, changed)
    scoped.run()
    assert result(scoped) == (Result.ROTATED, "ScopesChanged")
    assert scoped.named()["id"] != before
    assert scopes_of(scoped) == tuple(sorted(changed.split(", ") if changed else ()))
    scoped.advance(minutes=10)
    scoped.run()
    assert result(scoped) == (Result.KEPT, "NotDue")
    assert len(scoped.accounts()) == 1


def test_another_order_is_no_change(scoped: Scene) -> None:
    ask_for(scoped, "api.responses.write,model.request , model.request")
    scoped.run()
    assert result(scoped) == (Result.KEPT, "NotDue")


@pytest.mark.parametrize("value", ["", " ", ",", "model.request,", "model.request api.x", "Model", "sk-1", "a" * 65])
def test_a_malformed_annotation_is_told_and_makes_no_key(scoped: Scene, value: str) -> None:
    """Above all an empty one: OpenAI takes no scopes for all of them."""
    before = scoped.key()
    ask_for(scoped, value)
    scoped.run()
    assert result(scoped) == (Result.BLOCKED, "InvalidSpec")
    assert ANNOTATION in scoped.condition()["message"]
    assert scoped.key() == before


# --- what OpenAI refuses -----------------------------------------------------------------------------------------


def refused(scene: Scene) -> None:
    scene.openai.refused_scopes = frozenset({"model.request"})


def test_a_refused_scope_is_told_by_name_and_costs_one_account(asked: Scene) -> None:
    refused(asked)
    for _ in range(4):
        asked.run()
        asked.advance(hours=2)
    assert result(asked) == (Result.BLOCKED, "ScopesRefused")
    message = asked.condition()["message"]
    assert "model.request" in message
    assert "api.responses.write" not in message
    assert asked.secret() is None
    assert asked.accounts() == []
    assert asked.openai.mints == 1


def test_a_refused_change_leaves_the_key_that_is_there(scoped: Scene) -> None:
    """And is told for as long as it is asked for."""
    refused(scoped)
    before = scoped.key()
    ask_for(scoped, "model.request")
    for _ in range(3):
        scoped.run()
        scoped.advance(minutes=30)
    assert result(scoped) == (Result.BLOCKED, "ScopesRefused")
    assert (scoped.key(), scopes_of(scoped)) == (before, ASKED)
    assert len(scoped.accounts()) == 1
    ask_for(scoped, ", ".join(ASKED))
    scoped.run()
    assert result(scoped) == (Result.KEPT, "NotDue")
    assert scoped.condition()["status"] == "True"


def test_another_value_is_tried_in_the_next_run(asked: Scene) -> None:
    """Without a pause: a human has acted."""
    refused(asked)
    asked.run()
    ask_for(asked, "api.responses.write")
    asked.run()
    assert result(asked) == (Result.ROTATED, "First")
    assert scopes_of(asked) == ("api.responses.write",)
    assert asked.stored_entry().refused_scopes is None


@pytest.mark.parametrize("how", ["force", "rotate"])
def test_a_human_has_the_same_scopes_tried_again(asked: Scene, how: str) -> None:
    refused(asked)
    asked.run()
    asked.advance(minutes=1)
    asked.openai.refused_scopes = frozenset()
    asked.run()
    assert result(asked) == (Result.BLOCKED, "ScopesRefused")
    if how == "rotate":
        asked.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/rotate": "now"}}})
    asked.run(force=how == "force")
    assert asked.outcome().result is Result.ROTATED
    assert scopes_of(asked) == ASKED


def test_the_next_try_of_a_forced_job_costs_no_second_account(asked: Scene) -> None:
    refused(asked)
    for _ in range(3):
        asked.run(force=True, job="job-1")
        asked.advance(minutes=1)
    assert asked.openai.mints == 1


def test_another_project_is_another_question(asked: Scene) -> None:
    refused(asked)
    asked.run()
    asked.openai.refused_scopes = frozenset()
    asked.openai.add_project("acme", "another-project")
    asked.merge(GENERATOR, {"spec": {"projectId": "another-project"}})
    asked.run()
    assert asked.outcome().result is Result.ROTATED


def test_scopes_of_openai_s_own_choice_are_not_published(asked: Scene) -> None:
    """It answers 200, and tells other scopes: the read afterwards counts."""
    change = Meanwhile(lambda: widen_last(asked), "GET", ONE_KEY, count=99)
    asked.run(openai_faults=change)
    assert result(asked) == (Result.FAILED, "ScopesRefused")
    assert asked.secret() is None
    asked.advance(minutes=5)
    asked.run()
    assert result(asked) == (Result.BLOCKED, "ScopesRefused")
    assert (asked.accounts(), asked.openai.mints) == ([], 1)


def test_a_read_that_is_behind_is_made_again(asked: Scene) -> None:
    asked.run(openai_faults=Meanwhile(lambda: widen_last(asked), "GET", ONE_KEY, count=2))
    assert asked.outcome().result is Result.ROTATED
    assert scopes_of(asked) == ASKED


def widen_last(scene: Scene) -> None:
    (account,) = scene.openai.accounts(PROJECT)
    scene.openai.narrow_key(PROJECT, account.keys[0])


def test_where_openai_tells_no_scopes_its_answer_to_the_change_has_to_do(asked: Scene) -> None:
    """Its API description has no such field."""
    asked.openai.shows_scopes = False
    asked.run()
    assert asked.outcome().result is Result.ROTATED
    assert scopes_of(asked) == ASKED
    asked.advance(minutes=10)
    asked.run()
    assert result(asked) == (Result.KEPT, "NotDue")
    assert asked.requests().count("POST api_keys") == 0


def test_an_admin_key_that_may_not_change_keys_costs_one_account(asked: Scene) -> None:
    refusal = Response.of_json(403, {"error": {"message": "Missing scopes: api.management.write.", "code": None}})
    for _ in range(3):
        asked.run(openai_faults=rule(asked, Rule(answered(refusal), "POST", ONE_KEY)))
        asked.advance(hours=2)
    assert result(asked) == (Result.BLOCKED, "OpenAIForbidden")
    assert "openai-admin-secret" in asked.condition()["message"]
    assert (asked.accounts(), asked.openai.mints) == ([], 1)
    asked.advance(days=1)
    asked.run()
    assert asked.outcome().result is Result.ROTATED


# --- what nobody answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [request_lost, response_lost])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_narrowing_whose_fate_is_unknown_is_made_again(asked: Scene, lost: object, method: str) -> None:
    """It changes nothing the second time."""
    witness = NoWideKey(asked)
    fate = lost(disconnected=True)  # type: ignore[operator]
    asked.run(cluster_faults=witness, openai_faults=rule(asked, Rule(fate, method, ONE_KEY, count=1)))
    assert result(asked) == (Result.ROTATED, "First")
    assert (scopes_of(asked), witness.written) == (ASKED, 1)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_key_whose_scopes_are_never_confirmed_is_not_published(asked: Scene, method: str) -> None:
    """Its account goes at once, and attempts pause as after any silence."""
    silent = rule(asked, Rule(response_lost(disconnected=True), method, ONE_KEY))
    asked.run(openai_faults=silent)
    assert result(asked) == (Result.FAILED, "KeyNotNarrowed")
    assert asked.secret() is None
    assert asked.accounts() == []
    assert asked.stored_entry().failures.count == 1
    asked.advance(hours=1)
    asked.run()
    assert asked.outcome().result is Result.ROTATED


def test_a_key_that_openai_does_not_know_yet_is_asked_for_again(asked: Scene) -> None:
    """A replica that is behind answers 404."""
    unknown = Response.of_json(404, {"error": {"message": "No API key found.", "code": None}})
    asked.run(openai_faults=rule(asked, Rule(answered(unknown), "POST", ONE_KEY, count=2)))
    assert asked.outcome().result is Result.ROTATED
    assert scopes_of(asked) == ASKED


def test_a_key_that_may_not_list_models_is_accepted_all_the_same(asked: Scene) -> None:
    """401 for missing scopes says that OpenAI knows the key."""
    asked.run()
    assert asked.openai_session is not None
    assert [e.status for e in asked.openai_session.log if e.path == "/v1/models"] == [401]
    assert asked.outcome().result is Result.ROTATED


# --- what is widened ---------------------------------------------------------------------------------------------


def test_a_key_that_was_widened_is_told_and_narrowed_again(scoped: Scene) -> None:
    key = scoped.key()
    scoped.openai.narrow_key(PROJECT, scoped.named()["keyId"])
    scoped.run()
    assert (scoped.key(), scopes_of(scoped)) == (key, ASKED)
    assert ("Warning", "KeyWidened") in scoped.events()
    assert result(scoped) == (Result.KEPT, "NotDue")
    scoped.advance(hours=2)
    scoped.run()
    assert scoped.events().count(("Warning", "KeyWidened")) == 1
    assert scoped.requests().count("POST api_keys") == 0


def test_one_scope_more_is_wider(scoped: Scene) -> None:
    scoped.openai.narrow_key(PROJECT, scoped.named()["keyId"], *ASKED, "api.all.read")
    scoped.run()
    assert scopes_of(scoped) == ASKED


def test_one_scope_less_is_a_human_s_business(scoped: Scene) -> None:
    scoped.openai.narrow_key(PROJECT, scoped.named()["keyId"], "model.request")
    scoped.run()
    assert scopes_of(scoped) == ("model.request",)
    assert ("Warning", "KeyWidened") not in scoped.events()


def test_a_superseded_key_is_narrowed_again_too(scoped: Scene) -> None:
    old = scoped.named()["keyId"]
    scoped.run(force=True, max_wait=NO_WAIT)
    scoped.openai.narrow_key(PROJECT, old)
    scoped.merge(GENERATOR, {"spec": {"cleanupPolicy": {"gracePeriod": "48h"}}})
    scoped.advance(minutes=10)
    scoped.run()
    widths = {key.id: key.scopes for key in scoped.openai._projects[PROJECT].keys.values()}
    assert set(widths.values()) == {ASKED}
    assert old in widths


def test_somebody_else_s_key_of_the_account_is_left_alone(scoped: Scene) -> None:
    id, _ = scoped.openai.add_key(PROJECT, scoped.named()["id"], "by hand")
    scoped.run()
    assert scoped.openai._projects[PROJECT].keys[id].scopes == ()
    assert scoped.requests().count("POST api_keys") == 0


@pytest.mark.parametrize("way", ["suspended", "dry run"])
def test_a_widened_key_is_left_alone_where_nothing_may_be_changed(scoped: Scene, way: str) -> None:
    scoped.openai.narrow_key(PROJECT, scoped.named()["keyId"])
    if way == "suspended":
        scoped.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/suspend": "true"}}})
    scoped.run(dry_run=way == "dry run")
    assert scopes_of(scoped) == ()
    assert scoped.requests().count("POST api_keys") == 0


def test_a_widened_key_that_cannot_be_narrowed_is_told(scoped: Scene) -> None:
    scoped.openai.narrow_key(PROJECT, scoped.named()["keyId"])
    refused(scoped)
    scoped.run()
    assert ("Warning", "KeyWidened") in scoped.events()
    assert any("is not narrowed again" in problem for problem in scoped.watcher.problems)
    assert result(scoped) == (Result.KEPT, "NotDue")


# --- the operator's options --------------------------------------------------------------------------------------


def test_the_operator_s_default_counts_where_nobody_names_scopes(scene: Scene) -> None:
    scene.apply_documented()
    scene.run(scopes=ScopePolicy(("model.request",), required=True))
    assert scopes_of(scene) == ("model.request",)


def test_a_target_without_scopes_is_refused_where_they_are_required(scene: Scene) -> None:
    scene.apply_documented()
    scene.run(scopes=ScopePolicy(required=True))
    assert result(scene) == (Result.BLOCKED, "KeyScopesRequired")
    assert ANNOTATION in scene.condition()["message"]
    assert scene.openai.mints == 0
    ask_for(scene, "model.request", GENERATOR)
    scene.run(scopes=ScopePolicy(required=True))
    assert scopes_of(scene) == ("model.request",)


def test_revoke_makes_a_key_as_narrow(scoped: Scene) -> None:
    scoped.revoke()
    assert scopes_of(scoped) == ASKED
    assert len(scoped.accounts()) == 1


def test_a_key_that_was_adopted_is_replaced_by_a_narrow_one(scoped: Scene) -> None:
    """The Secret's annotation says that it is narrow: a tenant's word."""
    scoped.delete(ENTRY)
    scoped.adopt(yes=True)
    scoped.run()
    assert result(scoped) == (Result.ROTATED, "ScopesChanged")
    assert scopes_of(scoped) == ASKED


def test_a_refusal_that_is_said_to_come_does_not_stand_for_longer(asked: Scene) -> None:
    """A wrong clock, or an editor, has written the ledger's time."""
    refusal = Response.of_json(403, {"error": {"message": "Missing scopes: api.management.write.", "code": None}})
    asked.run(openai_faults=rule(asked, Rule(answered(refusal), "POST", ONE_KEY)))
    asked.merge(ENTRY, {"status": {"refusedScopes": {"at": "2099-01-01T00:00:00Z"}}})
    asked.run()
    assert asked.outcome().result is Result.BLOCKED
    asked.advance(days=1, minutes=1)
    asked.run()
    assert asked.outcome().result is Result.ROTATED


# --- deaths on the way -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(1, 5))
def test_a_run_that_dies_around_the_narrowing_leaves_nothing(asked: Scene, number: int, after: bool) -> None:
    """The ledger has the account; it was never published, so it goes, and another key is made and narrowed."""
    assert asked.run_killed(Killer(number, after))
    died_at = asked.requests()[-1]
    assert died_at in ("POST service_accounts", "POST api_keys", "GET api_keys", "GET models")
    assert asked.secret() is None
    settle(asked, hours=0.5)
    assert len(asked.accounts()) == 1
    assert scopes_of(asked) == ASKED
