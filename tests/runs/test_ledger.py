"""Whole runs against invariants I1-I5: recorded before requested, one mint per due date, nothing lost or orphaned."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from sandbox.kubernetes.call import Denial
from sandbox.openai.state import KeyStatus
from sandbox.transport.faults import (
    Fate,
    Rule,
    answered,
    bad_gateway,
    committed_late,
    delivered,
    request_lost,
    response_lost,
)
from sandbox.transport.wire import Request, Response
from tests.support.ledgers import an_hour_later, annotation, rule, settle
from tests.support.paths import ACCOUNTS, ENTRIES, ENTRY, EXTERNAL_SECRET, GENERATOR, NO_WAIT, SECRET, SECRETS
from tests.support.scene import HOST, LEDGER, PROJECT, TARGET, Meanwhile, Scene, checked_scene, run_command
from tests.support.virtual_time import VirtualTimeLoop, run_virtually
from worker.commands.session import World
from worker.kubernetes.secret import CURRENT
from worker.ledger.store import Ledger
from worker.model.entries import Entry, Unreadable
from worker.model.outcomes import Result
from worker.model.values import Ref
from worker.report.summary import exit_code

scene = pytest.fixture(checked_scene)


@pytest.fixture
def due(scene: Scene) -> Scene:
    return an_hour_later(scene)


def others_meanwhile(scene: Scene, *runs: tuple[float, dict[str, Any]]) -> Callable[[], None]:
    """For `Meanwhile`: the run that makes the request is stopped as by SIGSTOP, right before it is sent. Others run,
    each so many seconds after the one before, and when the stopped one goes on, it is as late as they were.
    """

    def stopped() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        for seconds, options in runs:
            loop.moment += seconds
            with ThreadPoolExecutor(1) as pool:
                _, loop.moment = pool.submit(run_virtually, scene.whole(run_command, **options), loop.moment).result()

    return stopped


# --- I1: recorded before requested


@pytest.mark.parametrize("first", [True, False])
def test_the_intent_is_stored_before_the_create_is_sent(scene: Scene, first: bool) -> None:
    """When OpenAI hears of the create, the ledger names the account to be made, and claims the target."""
    scene.apply_documented()
    if not first:
        scene.run()
        scene.advance(hours=1)
    seen = []

    def look() -> None:
        (intent,) = scene.stored_entry().unpublished
        seen.append(intent.account.name)
        assert intent.claimed_until > scene.now()

    scene.run(openai_faults=Meanwhile(look, "POST", ACCOUNTS))
    assert seen == [scene.named()["name"]]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("status", [400, 403, 409, 422, 500, 503])
def test_without_an_intent_nothing_is_requested(scene: Scene, first: bool, status: int) -> None:
    """Whatever the API server answers to the intent, other than success: no account is made."""
    scene.apply_documented()
    if not first:
        scene.run()
        scene.advance(hours=1)
    mints = scene.openai.mints
    refusal = answered(Response.of_json(status, {"kind": "Status", "code": status}))
    faults = rule(scene, Rule(refusal, "POST|PATCH", ".*keyrotations.*"))
    scene.run(cluster_faults=faults)
    assert scene.openai.mints == mints
    settle(scene)


def test_an_intent_whose_answer_was_lost_makes_no_account(due: Scene) -> None:
    """Nobody knows whether it was stored: the run stops there, and a later one goes on after the claim."""
    mints = due.openai.mints
    faults = rule(due, Rule(response_lost(), "PATCH", ".*keyrotations.*", count=1))
    report = due.run(cluster_faults=faults, max_wait=NO_WAIT)
    assert due.openai.mints == mints
    assert exit_code(report, strict=False) == 1
    due.run(max_wait=NO_WAIT)
    assert due.outcome().reason == "InProgress"
    due.advance(minutes=4)
    due.run()
    assert due.outcome().result is Result.ROTATED
    settle(due)


def test_an_intent_that_took_long_is_written_again(due: Scene) -> None:
    """A create is sent within seconds of its intent, so that the claim covers it."""
    slow = rule(due, Rule(delivered(after=10), "PATCH", ".*keyrotations.*", count=1))
    moments: list[float] = []
    due.run(cluster_faults=slow, openai_faults=Meanwhile(lambda: moments.append(due.moment()), "POST", ACCOUNTS))
    assert due.outcome().result is Result.ROTATED
    assert due.cluster_session is not None
    patches = [e for e in due.cluster_session.log if e.kind == "PATCH keyrotations"]
    assert len(patches) >= 3
    assert isinstance(patches[1].at, float)
    assert moments[0] - patches[1].at <= 5


def test_a_name_is_requested_once(due: Scene) -> None:
    """A create whose answer is an error is never sent again under its name, in this run or another."""
    names: list[str] = []

    class Recording:
        def fate(self, request: Request) -> Fate:
            if request.method == "POST":
                names.append(request.json()["name"])
                return answered(Response.of_json(503, {}))
            return delivered()

    for _ in range(4):
        due.run(openai_faults=Recording())
        due.advance(hours=2)
    assert len(names) >= 4
    assert len(set(names)) == len(names)


# --- I2: key and name together


def test_a_lost_answer_to_the_publishing_patch_is_noticed(due: Scene) -> None:
    """The Secret tells that the key is in place: the rotation has succeeded, and nothing is minted again."""
    faults = rule(due, Rule(response_lost(), "PATCH", SECRET, count=1))
    due.run(cluster_faults=faults)
    assert due.outcome().result is Result.ROTATED
    assert due.openai.mints == 2
    settle(due, hours=0.5)
    assert due.openai.mints == 2


def test_a_lost_answer_to_the_first_create_is_noticed(scene: Scene) -> None:
    """As with a PATCH."""
    scene.apply_documented()
    scene.run(cluster_faults=rule(scene, Rule(response_lost(), "POST", SECRETS, count=1)))
    assert scene.outcome().result is Result.ROTATED
    assert scene.openai.mints == 1


def test_a_publishing_patch_that_was_lost_leaves_the_account_to_retirement(due: Scene) -> None:
    """The key is not in the Secret; the old one stays, and the new account goes after the claim."""
    before = due.named()
    faults = rule(due, Rule(request_lost(), "PATCH", SECRET))
    report = due.run(cluster_faults=faults)
    assert due.outcome().result is Result.FAILED
    assert exit_code(report, strict=False) == 1
    assert due.named() == before
    assert due.live_key()
    assert before["name"] in due.accounts()
    settle(due)


@pytest.mark.parametrize("seconds", [16, 40, 60, 120, 200])
def test_a_publishing_patch_that_commits_late_harms_nothing(due: Scene, seconds: float) -> None:
    """Whenever the API server gets to it: the Secret never holds a dead key."""
    faults = rule(due, Rule(committed_late(seconds), "PATCH", SECRET, count=1))
    due.run(cluster_faults=faults)
    assert due.live_key()
    for _ in range(30):
        due.advance(seconds=20)
        due.run(max_wait=NO_WAIT)
        assert due.live_key()
    settle(due)


def test_a_conflict_on_the_secret_leads_to_a_new_plan(due: Scene) -> None:
    """Somebody edits the Secret while the key is made: it is read again, the edit stays, the key goes in."""
    label = Meanwhile(lambda: due.merge(SECRET, {"metadata": {"labels": {"team": "a"}}}), "POST", ACCOUNTS)
    due.run(openai_faults=label)
    assert due.outcome().result is Result.ROTATED
    secret = due.secret()
    assert secret is not None
    assert secret["metadata"]["labels"]["team"] == "a"
    assert due.openai.mints == 2
    settle(due, hours=0.5)


@pytest.mark.parametrize(
    "edit",
    [
        {"immutable": True},
        {"metadata": {"labels": {"reconcile.external-secrets.io/created-by": "x"}}},
        {"metadata": {"annotations": {CURRENT: "{}"}, "labels": {"openai-key-rotator.io/managed": None}}},
    ],
)
def test_a_key_does_not_go_where_it_would_not_be_planned(due: Scene, edit: dict[str, Any]) -> None:
    """The key at hand is not simply applied again after a conflict."""
    secret = due.key()
    due.run(openai_faults=Meanwhile(lambda: due.merge(SECRET, edit), "POST", ACCOUNTS), max_wait=NO_WAIT)
    if due.key() == secret:
        assert due.outcome().result is Result.FAILED
        assert due.named()["id"] in due.account_ids() if "annotations" not in edit.get("metadata", {}) else True
    else:
        assert due.live_key()


def test_a_secret_deleted_meanwhile_is_made_again(due: Scene) -> None:
    """The key that was made for it goes into the new one."""
    due.run(openai_faults=Meanwhile(lambda: due.delete(SECRET), "POST", ACCOUNTS))
    assert due.outcome().result is Result.ROTATED
    assert due.live_key()
    assert due.openai.mints == 2
    settle(due)


def test_a_secret_that_somebody_else_makes_meanwhile_is_not_touched(scene: Scene) -> None:
    """A Secret appears where none was: it is not ours, and the account that was made goes again."""
    scene.apply_documented()
    stranger = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": TARGET.name, "namespace": "default"},
        "data": {"api_key": "bWluZQ=="},
    }
    scene.run(openai_faults=Meanwhile(lambda: scene.apply(stranger), "POST", ACCOUNTS))
    assert scene.outcome().result is Result.FAILED
    secret = scene.secret()
    assert secret is not None
    assert secret["data"] == {"api_key": "bWluZQ=="}
    assert scene.accounts() == []
    scene.run()
    assert (scene.outcome().result, scene.outcome().reason) == (Result.BLOCKED, "ForeignSecret")
    assert scene.openai.mints == 1


def test_nothing_is_published_once_the_claim_is_lost(due: Scene) -> None:
    """The ledger does not hold the intent any more: the key stays out of the Secret."""
    due.openai.acceptance_delay = 20
    before = due.named()
    due.run(openai_faults=Meanwhile(lambda: due.delete(ENTRY), "GET", "/v1/models", skip=2), max_wait=NO_WAIT)
    assert due.outcome().result is Result.FAILED
    assert due.named() == before


def test_a_failing_webhook_costs_one_account_at_most(due: Scene) -> None:
    """After a failure the PATCH is first tried without effect: a webhook that refuses it costs no second account."""
    before = due.named()
    lift = due.kubernetes.admission(lambda asked: Denial("no: CANARY") if asked.resource == "secrets" else None)
    for _ in range(12):
        due.run()
        assert due.outcome().result is Result.FAILED
        due.advance(minutes=30)
    assert due.openai.mints == 2
    assert due.named() == before
    lift()
    settle(due)


# --- I3: only what is ours and unused


@pytest.mark.parametrize("field", ["name", "id", "both", "project", "none"])
def test_a_forged_annotation_deletes_nobody_elses_account(due: Scene, field: str) -> None:
    """A tenant names an account of somebody else: it stays, is never recorded, and the target says what is wrong."""
    victim, _ = due.openai.add_account(PROJECT, "victim")
    forgeries: dict[str, dict[str, Any]] = {
        "name": {"name": victim.name},
        "id": {"id": victim.id},
        "both": {"id": victim.id, "name": victim.name},
        "project": {"id": victim.id, "name": victim.name, "projectId": "other"},
        "none": {"id": victim.id, "name": victim.name, "projectId": None, "host": None},
    }
    due.merge(SECRET, annotation(due, **forgeries[field]))
    for _ in range(12):
        due.run()
        due.advance(minutes=30)
        assert victim.id in due.account_ids()
        ids = {publication.account.id for publication in due.stored_entry().history}
        assert victim.id not in ids


def test_an_annotation_without_a_ledger_is_reported_never_adopted(due: Scene) -> None:
    """The ledger is lost: the accounts that annotations name are left alone, and the way out is told."""
    due.delete(ENTRY)
    before = due.named()
    for _ in range(4):
        due.run()
        due.advance(minutes=30)
    assert (due.outcome().result, due.outcome().reason) == (Result.BLOCKED, "UnknownAccount")
    assert due.accounts() == [before["name"]]
    assert due.condition()["status"] == "False"
    assert due.openai.mints == 1


def test_another_installations_annotation_blocks(due: Scene) -> None:
    """A restored or cloned cluster: nothing is rotated, nothing deleted."""
    due.merge(SECRET, annotation(due, ledger="another-uid"))
    due.delete(ENTRY)
    due.run()
    assert (due.outcome().result, due.outcome().reason) == (Result.BLOCKED, "ForeignLedger")
    assert len(due.accounts()) == 1


def test_a_copied_secret_blocks(due: Scene) -> None:
    """Its annotation names another target."""
    due.merge(SECRET, annotation(due, target="default/other"))
    due.run()
    assert (due.outcome().result, due.outcome().reason) == (Result.BLOCKED, "CopiedSecret")
    assert len(due.accounts()) == 1


def test_another_installations_entry_blocks(due: Scene) -> None:
    """A ledger that was restored elsewhere deletes nothing and rotates nothing, and is not written."""
    due.merge(ENTRY, {"spec": {"ledger": "another-uid"}})
    stored = due.kubernetes.find("keyrotations", LEDGER, "default.openai-credentials")
    due.delete(SECRET)
    for _ in range(3):
        report = due.run()
        due.advance(hours=1)
    assert (due.outcome().result, due.outcome().reason) == (Result.BLOCKED, "ForeignLedger")
    assert exit_code(report, strict=False) == 0
    assert len(due.accounts()) == 1
    assert due.kubernetes.find("keyrotations", LEDGER, "default.openai-credentials") == stored


def test_a_secret_put_back_makes_its_account_current_again(due: Scene) -> None:
    """A backup within the grace: the account that the Secret names stays, the other goes."""
    old = due.secret()
    assert old is not None
    due.run(max_wait=NO_WAIT)
    new = due.named()["id"]
    metadata = {"annotations": old["metadata"]["annotations"]}
    due.merge(SECRET, {"metadata": metadata, "data": old["data"]})
    due.run()
    due.advance(minutes=10)
    due.run()
    assert due.live_key()
    assert due.account_ids() == {due.named()["id"]}
    assert new not in due.account_ids()
    settle(due)


def test_a_secret_put_back_after_its_account_is_gone_gets_a_new_key(due: Scene) -> None:
    """A backup from before the last rotation: the key in it is dead, and a new one is made at once."""
    old = due.secret()
    assert old is not None
    due.run()
    due.merge(SECRET, {"metadata": {"annotations": old["metadata"]["annotations"]}, "data": old["data"]})
    due.run()
    assert due.outcome().result is Result.ROTATED
    assert due.live_key()
    settle(due)


def test_the_secret_is_looked_at_again_before_a_delete(due: Scene) -> None:
    """Put back between two looks: what it names then is not deleted."""
    old = due.secret()
    assert old is not None
    due.run(max_wait=NO_WAIT)
    due.advance(minutes=10)

    def put_back() -> None:
        due.merge(SECRET, {"metadata": {"annotations": old["metadata"]["annotations"]}, "data": old["data"]})

    # In the list of the second stage: after all that the run knows of this Secret but the last look.
    due.run(cluster_faults=Meanwhile(put_back, "GET", ENTRIES, skip=1), max_wait=NO_WAIT)
    assert due.live_key()


# --- I4: recorded until gone


def test_a_lost_create_is_found_by_its_name(due: Scene) -> None:
    """OpenAI made the account, the answer was lost: nothing is published, and after the claim the account goes."""
    before = due.named()
    report = due.run(openai_faults=rule(due, Rule(response_lost(), "POST", ACCOUNTS, count=1)), max_wait=NO_WAIT)
    assert exit_code(report, strict=False) == 1
    assert len(due.accounts()) == 2
    assert due.named() == before
    due.run(max_wait=NO_WAIT)
    assert len(due.accounts()) == 2, "the claim runs"
    due.advance(minutes=4)
    due.run()
    assert due.outcome().result is Result.ROTATED
    settle(due)


def test_a_lost_create_is_found_in_the_same_run_where_the_claim_fits_into_the_wait(due: Scene) -> None:
    """The run waits for the end of the claim as it does for a grace."""
    before = due.named()
    due.run(openai_faults=rule(due, Rule(response_lost(), "POST", ACCOUNTS, count=1)))
    assert due.account_ids() == {before["id"]}


def test_a_create_that_happens_late_is_found_all_the_same(due: Scene) -> None:
    """The request lay about for minutes before OpenAI served it."""
    due.run(openai_faults=rule(due, Rule(committed_late(120), "POST", ACCOUNTS, count=1)))
    settle(due)


def test_an_intent_without_an_account_leaves_after_two_lists(due: Scene) -> None:
    """The create never reached OpenAI: one complete list without the name is not enough."""
    due.run(openai_faults=rule(due, Rule(request_lost(), "POST", ACCOUNTS, count=1)), max_wait=NO_WAIT)
    lost = due.stored_entry().unpublished[0].account.name
    due.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/suspend": None}}})
    due.advance(minutes=4)
    due.run(max_wait=NO_WAIT)
    assert lost in [intent.account.name for intent in due.stored_entry().unpublished]
    due.advance(seconds=30)
    due.run(max_wait=NO_WAIT)
    assert lost in [intent.account.name for intent in due.stored_entry().unpublished], "the lists are too close"
    due.advance(minutes=1)
    due.run(max_wait=NO_WAIT)
    assert lost not in [intent.account.name for intent in due.stored_entry().unpublished]


def test_an_account_that_lists_show_late_is_found(due: Scene) -> None:
    """OpenAI's list lags behind: the intent is still there when it shows the account."""
    due.openai.listing_delay = 240
    due.run(openai_faults=rule(due, Rule(response_lost(), "POST", ACCOUNTS, count=1)), max_wait=NO_WAIT)
    due.advance(minutes=3, seconds=31)
    due.run(max_wait=NO_WAIT)
    settle(due)


def test_a_create_that_was_repeated_on_its_way_leaves_one_account(due: Scene) -> None:
    """A proxy sent it twice: two accounts of one name, of which the Secret names one. The other goes."""

    def twice() -> None:
        (intent,) = due.stored_entry().unpublished
        due.openai.add_account(PROJECT, intent.account.name)

    due.run(openai_faults=Meanwhile(twice, "POST", ACCOUNTS))
    assert due.live_key()
    settle(due)


def test_both_accounts_of_a_repeated_create_go_where_none_was_published(due: Scene) -> None:
    """The answer was lost, and the request was served twice."""

    class Twice:
        def fate(self, request: Request) -> Fate:
            if request.method == "POST":
                due.openai.handle(request)
                return response_lost()
            return delivered()

    before = due.named()["id"]
    due.run(openai_faults=Twice())
    assert due.account_ids() == {before}
    settle(due)


@pytest.mark.parametrize("fate", [request_lost(), response_lost()])
def test_a_delete_whose_fate_is_unknown_is_asked_again(due: Scene, fate: Fate) -> None:
    """The account leaves the ledger only once OpenAI has confirmed that it is gone; a 404 is no error then."""
    due.run(openai_faults=rule(due, Rule(fate, "DELETE", ACCOUNTS + "/.*")))
    assert len(due.stored_entry().history) == 2
    report = due.run()
    assert exit_code(report, strict=False) == 0
    assert len(due.stored_entry().history) == 1
    settle(due)


def test_a_delete_answered_404_by_a_stranger_releases_nothing(due: Scene) -> None:
    """A 404 counts only where the same key lists the project without the account; here the list still has it."""
    not_found = answered(Response.of_json(404, {"error": {"message": "no"}}))
    due.run(openai_faults=rule(due, Rule(not_found, "DELETE", ACCOUNTS + "/.*")))
    assert len(due.stored_entry().history) == 2
    assert len(due.accounts()) == 2
    settle(due)


def test_another_organisations_admin_key_releases_nothing(due: Scene) -> None:
    """It answers 404 to everything: accounts that it cannot see stay recorded until the key is right."""
    due.run(max_wait=NO_WAIT)
    due.advance(minutes=10)
    right, wrong = due.admin_key, due.openai.add_organization("globex")
    put_admin_key(due, wrong)
    report = due.run()
    assert exit_code(report, strict=False) == 1
    assert len(due.stored_entry().history) == 2
    assert len(due.accounts()) == 2
    put_admin_key(due, right)
    due.run()
    assert len(due.accounts()) == len(due.stored_entry().history) == 1


def put_admin_key(scene: Scene, value: str) -> None:
    encoded = base64.b64encode(value.encode()).decode()
    scene.merge("/api/v1/namespaces/default/secrets/openai-admin-secret", {"data": {"api-key": encoded}})


def test_an_archived_project_lets_its_accounts_go(due: Scene) -> None:
    """Nothing is left of it at OpenAI, so nothing stays in the ledger but the current account."""
    due.run(max_wait=NO_WAIT)
    due.advance(minutes=10)
    due.openai.archive(PROJECT)
    report = due.run()
    assert exit_code(report, strict=False) == 1
    assert "archived" in due.outcome().message
    assert len(due.stored_entry().history) == 1


def test_an_archived_project_lets_unpublished_accounts_go(due: Scene) -> None:
    """There is no list to look for them in, and none is needed."""
    due.run(openai_faults=rule(due, Rule(response_lost(), "POST", ACCOUNTS, count=1)), max_wait=NO_WAIT)
    due.openai.archive(PROJECT)
    due.advance(minutes=10)
    due.run()
    due.advance(minutes=10)
    due.run()
    assert due.stored_entry().unpublished == ()


@pytest.mark.parametrize("fate", [request_lost(), response_lost()])
def test_a_publication_that_could_not_be_noted_is_noted_later(due: Scene, fate: Fate) -> None:
    """The key is in the Secret, the ledger's PATCH got lost: that counts as failed, and the next run finds it done."""
    faults = rule(due, Rule(fate, "PATCH", ENTRY, skip=1, count=1))
    report = due.run(cluster_faults=faults, max_wait=NO_WAIT)
    assert (due.outcome().result, due.outcome().reason) == (Result.FAILED, "LedgerNotWritten")
    assert exit_code(report, strict=False) == 1
    assert due.live_key()
    published = due.named()["id"]
    due.advance(minutes=4)
    due.run()
    assert due.outcome().result is Result.KEPT
    assert due.named()["id"] == published
    assert due.openai.mints == 2
    settle(due, hours=0.5)
    assert due.openai.mints == 2


def test_retirement_needs_nothing_but_the_ledger(due: Scene) -> None:
    """The run that rotated is gone; the Secret's list of previous accounts, too."""
    before = due.named()["id"]
    due.run(max_wait=NO_WAIT)
    due.merge(SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/previous-service-accounts": None}}})
    due.advance(minutes=10)
    due.run(max_wait=NO_WAIT)
    assert before not in due.account_ids()


def test_an_account_stays_recorded_while_openai_is_away(due: Scene) -> None:
    """Runs without OpenAI neither lose an account nor mint one."""
    due.run(max_wait=NO_WAIT)
    away = rule(due, Rule(answered(Response.of_text(502, "<html>CANARY</html>", "text/html"))))
    for _ in range(3):
        due.advance(hours=1)
        report = due.run(openai_faults=away)
        assert exit_code(report, strict=False) == 1
        assert len(due.stored_entry().history) == 2
    assert due.live_key()
    assert due.openai.mints == 2
    settle(due)


# --- I5: one mint per due date


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("apart", [0.0, 0.1, 1.0, 30.0, 130.0])
def test_two_runs_mint_once(scene: Scene, first: bool, apart: float) -> None:
    """A CronJob's run and one by hand: one rotates, the other finds it in progress or done, and nobody fails."""
    scene.apply_documented()
    if not first:
        scene.run()
        scene.advance(hours=1)
    mints = scene.openai.mints
    scene.openai.acceptance_delay = 10
    reports = scene.run_together({}, {}, {}, apart=apart)
    assert scene.openai.mints == mints + 1
    results = sorted(outcome.result for report in reports for outcome in report.outcomes)
    assert results == [Result.KEPT, Result.KEPT, Result.ROTATED]
    assert {exit_code(report, strict=True) for report in reports} == {0}
    assert scene.live_key()
    assert len(scene.accounts()) == 1


@pytest.mark.parametrize("stage", ["GET keyrotations", "GET openais", "GET externalsecrets", "GET secrets", "models"])
@pytest.mark.parametrize("first", [True, False])
def test_a_run_that_overtakes_another_is_no_failure(scene: Scene, stage: str, first: bool) -> None:
    """Wherever the slow one is: what it read is old, and it neither mints nor calls the target broken."""
    scene.apply_documented()
    if not first:
        scene.run()
        scene.advance(hours=1)
    mints = scene.openai.mints
    paths = {
        "GET keyrotations": ".*keyrotations",
        "GET openais": ".*openais",
        "GET externalsecrets": ".*externalsecrets",
        "GET secrets": SECRET,
    }
    slow = Rule(delivered(after=60), "GET", paths.get(stage, "/v1/models"), count=1)
    if stage in paths:
        reports = scene.run_together({"cluster_faults": rule(scene, slow)}, {}, apart=5)
    else:
        reports = scene.run_together({"openai_faults": rule(scene, slow)}, {}, apart=5)
    assert scene.openai.mints == mints + 1
    assert scene.live_key()
    assert len(scene.accounts()) == 1
    assert {exit_code(report, strict=True) for report in reports} == {0}
    assert scene.condition()["status"] == "True"
    assert [event for event in scene.events() if event[0] == "Warning"] == []


def test_a_run_that_is_late_does_not_serve_an_older_request(due: Scene) -> None:
    """A request was replaced, and a later run has served the new one: the slow one has nothing left to do."""
    due.run()
    mints = due.openai.mints
    due.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"force-sync": "1"}}})
    slow = Rule(delivered(after=60), "GET", SECRET, count=1)

    def again() -> None:
        due.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"force-sync": "2"}}})

    replaced = Meanwhile(again, "GET", f"/api/v1/namespaces/{LEDGER}")
    due.run_together({"cluster_faults": rule(due, slow)}, {"cluster_faults": replaced}, apart=5)
    due.run()
    assert due.openai.mints == mints + 1
    assert due.live_key()


def test_a_run_that_is_late_does_not_overrule_a_later_one_that_died(due: Scene) -> None:
    """The later run has published in the generator's new project, and died before it noted that. The slow one has
    read the former project, and cannot ask about the account in the new one.
    """
    due.openai.add_project("acme", "former")
    due.merge(GENERATOR, {"spec": {"projectId": "former"}})
    mints = due.openai.mints
    unnoted = rule(due, Rule(bad_gateway(), "PATCH", ENTRY, skip=1))

    def published_and_died() -> None:
        due.merge(GENERATOR, {"spec": {"projectId": PROJECT}})
        others_meanwhile(due, (5, {"cluster_faults": unnoted, "max_wait": NO_WAIT}))()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.moment += 300

    out_of_reach = rule(due, Rule(bad_gateway(), "GET", f"{ACCOUNTS}.*"))
    stopped = Meanwhile(published_and_died, "GET", SECRET)
    due.run(cluster_faults=stopped, openai_faults=out_of_reach, max_wait=NO_WAIT)
    told = {outcome.reason for watcher in due.watchers for outcome in watcher.outcomes}
    assert "InProgress" in told
    due.advance(minutes=1)
    due.run()
    assert due.openai.mints == mints + 1
    assert due.named()["projectId"] == PROJECT
    assert due.live_key()


def test_a_create_that_was_sent_too_late_is_recorded_again(due: Scene) -> None:
    """Stopped between its last look at the clock and its create, for so long that the intent was let go meanwhile."""
    stopped = Meanwhile(others_meanwhile(due, (215, {"max_wait": NO_WAIT}), (70, {})), "POST", ACCOUNTS)
    due.run(openai_faults=stopped, max_wait=NO_WAIT)
    assert "InternalError" not in {outcome.reason for watcher in due.watchers for outcome in watcher.outcomes}
    entry = due.stored_entry()
    recorded = {i.account.name for i in entry.unpublished} | {p.account.name for p in entry.history}
    assert set(due.accounts()) <= recorded
    mints = due.openai.mints
    due.advance(minutes=2)
    due.run()
    assert due.openai.mints == mints  # what was due was served by the other run
    settle(due)


@pytest.mark.parametrize("first", [True, False])
def test_a_publication_that_was_sent_too_late_is_refused(scene: Scene, first: bool) -> None:
    """Stopped between its last look at the ledger and the Secret's PATCH, until another run has deleted its account."""
    scene.apply_documented()
    if not first:
        scene.run()
        scene.advance(minutes=20)
    # One finds the target claimed, and waits for the end of the claim; for the next one nothing is due.
    others = others_meanwhile(scene, (100, {}), (300, {}))
    stopped = Meanwhile(others, "POST" if first else "PATCH", SECRETS if first else SECRET)
    scene.run(cluster_faults=stopped, max_wait=NO_WAIT, force=True)
    assert "InternalError" not in {outcome.reason for watcher in scene.watchers for outcome in watcher.outcomes}
    assert scene.secret() is None or scene.live_key()
    settle(scene)


def test_a_request_is_served_although_the_run_that_took_it_on_died(scene: Scene) -> None:
    """It was honoured with the intent; the run that lets the intent go does not forget what it was for."""
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=20)
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"force-sync": "1"}}})
    before = scene.named()

    def die() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.run(cluster_faults=Meanwhile(die, "PATCH", SECRET))
    scene.advance(minutes=1)
    scene.run()  # finds the target claimed, and waits for the end of the claim
    scene.advance(minutes=10)
    scene.run()
    assert scene.named() != before
    settle(scene)


def test_a_claim_is_respected_by_the_next_run(due: Scene) -> None:
    """While it runs, another run neither rotates, deletes nor fails, `--force` or not."""
    due.run(openai_faults=rule(due, Rule(response_lost(), "POST", ACCOUNTS, count=1)), max_wait=NO_WAIT)
    entry = due.stored_entry()
    (intent,) = entry.unpublished
    while due.now() + timedelta(seconds=20) < intent.claimed_until:
        report = due.run(force=True, max_wait=NO_WAIT)
        assert (due.outcome().result, due.outcome().reason) == (Result.KEPT, "InProgress")
        assert exit_code(report, strict=True) == 0
        assert len(due.accounts()) == 2
        due.advance(seconds=20)
    assert due.openai.mints == 2


def test_a_stale_resource_version_writes_nothing(due: Scene) -> None:
    """Somebody changes the entry between read and intent: no account is made by this run, the next one rotates."""
    edit = Meanwhile(lambda: due.merge(ENTRY, {"metadata": {"labels": {"a": "b"}}}), "GET", SECRET)
    due.run(cluster_faults=edit)
    assert due.openai.mints == 1
    due.run()
    assert due.openai.mints == 2
    settle(due, hours=0.5)


def test_a_retry_after_a_failure_backs_off_and_then_rotates(due: Scene) -> None:
    """A target that keeps failing is tried less and less often, at least once an hour."""
    refuse = answered(Response.of_json(400, {"error": {"code": "bad"}}))
    attempts = 0
    for _ in range(120):
        due.run(openai_faults=rule(due, Rule(refuse, "POST", ACCOUNTS)), max_wait=NO_WAIT)
        attempts += "POST service_accounts" in due.requests()
        due.advance(minutes=3)
    assert 8 <= attempts <= 14
    settle(due)


# --- the ledger, edited by hand


@pytest.mark.parametrize(
    "edit",
    [
        {"status": {"accounts": {"x": {"publishedAt": "2026-11-24T10:00:00Z"}}}},
        {"status": {"accounts": {"x": {}}}},
        {"spec": {"generator": {"cleanupPolicy": {"gracePeriod": "soon"}}}},
        {"spec": {"target": {"secret": "other"}}},
        {"spec": {"target": {"namespace": "other"}}},
    ],
)
def test_an_edited_entry_blocks_its_target_and_no_other(due: Scene, edit: dict[str, Any]) -> None:
    """It says which object is wrong; nothing is minted or deleted by it, and other targets are served."""
    source = due.external_secret()
    due.apply(
        {
            "apiVersion": source["apiVersion"],
            "kind": "ExternalSecret",
            "metadata": {"name": "other", "namespace": "default"},
            "spec": source["spec"],
        }
    )
    due.run()
    other = Ref("default", "other")
    assert due.outcome(other).result is Result.ROTATED
    due.merge(ENTRY, edit)
    mints, accounts = due.openai.mints, due.account_ids()
    due.advance(minutes=10)
    report = due.run()
    assert (due.outcome().result, due.outcome().reason) == (Result.BLOCKED, "LedgerUnreadable")
    assert "default.openai-credentials" in due.outcome().message
    assert exit_code(report, strict=False) == 0
    assert due.outcome(other).result is Result.KEPT
    assert (due.openai.mints, due.account_ids()) == (mints, accounts)


def test_an_entry_deleted_while_it_is_needed_loses_no_account(due: Scene) -> None:
    """Between publication and note: the account that was published is in the ledger afterwards."""
    due.run(cluster_faults=Meanwhile(lambda: due.delete(ENTRY), "PATCH", SECRET))
    entry = due.stored_entry()
    assert due.named()["id"] in {publication.account.id for publication in entry.history}


def test_a_dead_key_is_never_in_the_secret(due: Scene) -> None:
    """Through a day of runs in which every third request to OpenAI is lost, in one way or the other."""
    for i in range(72):
        faults = rule(
            due,
            Rule(response_lost(), probability=0.15),
            Rule(request_lost(), probability=0.15),
        )
        due.run(openai_faults=faults, max_wait=timedelta(minutes=(i % 3) * 3))
        assert due.openai.key_status(due.key()) is KeyStatus.ACTIVE
        recorded = due.stored_entry()
        known = {p.account.name for p in recorded.history} | {i.account.name for i in recorded.unpublished}
        assert set(due.accounts()) <= known
        due.advance(minutes=20)
    settle(due)


def test_the_host_is_part_of_what_is_recorded(due: Scene) -> None:
    """Accounts are deleted where they were made."""
    assert {p.account.access.project.host for p in due.stored_entry().history} == {HOST}


def test_an_entry_that_is_as_it_was_is_not_kept_twice(due: Scene) -> None:
    """Read again, as ever, before anything is deleted: thousands of unchanged ones cost one list, and a changed one is
    seen.
    """

    async def listed(_: object, world: World, *__: object) -> list[Entry | Unreadable]:
        ledger = Ledger(world.cluster, LEDGER, "", clock=world.clock)
        found = [(await ledger.read_all())[TARGET] for _ in range(2)]
        due.merge(ENTRY, {"metadata": {"labels": {"touched": "yes"}}})
        return [*found, (await ledger.read_all())[TARGET]]

    first, again, changed = due.play(listed)
    assert due.requests().count("GET keyrotations") == 3
    assert again is first
    assert isinstance(first, Entry)
    assert isinstance(changed, Entry)
    assert changed.version != first.version
    assert changed.history == first.history


def ledger_reads(scene: Scene) -> list[str]:
    """What the last run has read of the ledger: lists, and single entries by name."""
    assert scene.cluster_session is not None
    paths = [e.path for e in scene.cluster_session.log if e.method == "GET" and e.path.startswith(ENTRIES)]
    return [path.removeprefix(ENTRIES).removeprefix("/") or "list" for path in paths]


def several(scene: Scene, count: int) -> None:
    """So many targets that have had their first run ten minutes ago."""
    for number in range(count):
        scene.namespace(f"n{number}")
        scene.apply_documented(f"n{number}")
    scene.run(max_wait=NO_WAIT)
    scene.advance(minutes=10)


def test_a_run_with_nothing_to_retire_lists_the_ledger_once(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=10)
    scene.run()
    assert ledger_reads(scene) == ["list"]


def test_before_retiring_few_of_many_entries_are_read_again_alone(scene: Scene) -> None:
    """A list of all would cost more; another run may have changed these meanwhile."""
    several(scene, 6)
    scene.delete("/api/v1/namespaces/n3/secrets/openai-credentials")
    scene.run(max_wait=NO_WAIT)
    assert ledger_reads(scene) == ["list", "n3.openai-credentials"]
    scene.advance(minutes=10)
    scene.run(max_wait=NO_WAIT)
    assert ledger_reads(scene) == ["list", "n3.openai-credentials"]
    retired = scene.retired(Ref("n3", "openai-credentials"))
    assert retired is not None
    assert len(retired.deleted) == 1


def test_where_most_entries_may_have_something_to_retire_the_ledger_is_listed_again(scene: Scene) -> None:
    several(scene, 4)
    scene.advance(hours=2)
    scene.run(max_wait=NO_WAIT)
    assert ledger_reads(scene) == ["list", "list"]


def test_an_entry_whose_write_got_no_answer_is_read_again(scene: Scene) -> None:
    several(scene, 6)
    source = "/apis/external-secrets.io/v1/namespaces/n0/externalsecrets/openai-credentials"
    scene.merge(source, {"metadata": {"annotations": {"force-sync": "1"}}})
    lost = Rule(response_lost(disconnected=True), "PATCH", f"{ENTRIES}/n0.openai-credentials", count=1)
    scene.run(max_wait=NO_WAIT, cluster_faults=rule(scene, lost))
    ref = Ref("n0", "openai-credentials")
    assert scene.stored_entry(ref).unpublished
    retired = scene.retired(ref)
    assert retired is not None
    assert retired.waiting == 1


def test_entries_that_were_written_and_are_at_rest_are_not_read_again(scene: Scene) -> None:
    """A run that notes looks, say."""
    several(scene, 6)
    scene.run(max_wait=NO_WAIT, look_every=timedelta(hours=1))
    assert ledger_reads(scene) == ["list"]


def test_an_entry_that_is_said_not_to_be_there_although_it_was_listed_is_for_the_list_to_tell(scene: Scene) -> None:
    several(scene, 6)
    scene.delete("/api/v1/namespaces/n3/secrets/openai-credentials")
    scene.run(max_wait=NO_WAIT)
    scene.advance(minutes=10)
    details = {"name": "n3.openai-credentials", "kind": "keyrotations"}
    absent = answered(Response.of_json(404, {"kind": "Status", "reason": "NotFound", "code": 404, "details": details}))
    scene.run(max_wait=NO_WAIT, cluster_faults=rule(scene, Rule(absent, "GET", f"{ENTRIES}/n3.openai-credentials")))
    retired = scene.retired(Ref("n3", "openai-credentials"))
    assert retired is not None
    assert len(retired.deleted) == 1
