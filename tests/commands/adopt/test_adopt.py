"""Whole runs after the ledger was lost, copied or is old: nothing unproven goes, adopt records it, runs clean up."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.http_server import SandboxServer
from sandbox.kubernetes.setup import install_crds
from sandbox.openai.state import KeyStatus
from sandbox.transport.faults import Rule, Rules, answered, response_lost
from sandbox.transport.wire import Request, Response
from tests.support.command_line import run_py
from tests.support.paths import ACCOUNTS, ENTRIES, ENTRY, EXTERNAL_SECRET, GENERATOR, NO_WAIT, SECRET
from tests.support.pods import start_pod, stop_pod
from tests.support.scene import LEDGER, PROJECT, TARGET, Meanwhile, Scene, checked_scene, documented
from worker.commands.adopt.judge import Verdict
from worker.kubernetes.secret import CURRENT, PREVIOUS
from worker.model.outcomes import Result
from worker.model.values import Ref
from worker.report.summary import exit_code

scene = pytest.fixture(checked_scene)
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/keyrotations.openai-key-rotator.io"


@pytest.fixture
def rotated(scene: Scene) -> Scene:
    """The documented objects after two rotations: a current account, and a previous one that may not go yet."""
    scene.apply_documented()
    scene.run()
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    assert len(scene.accounts()) == 2
    scene.advance(minutes=10)
    return scene


def namespace_deleted(scene: Scene) -> None:
    """And made again, as `kubectl apply -k` does: its uid is another one."""
    scene.delete(f"/api/v1/namespaces/{LEDGER}")
    scene.kubernetes.finish_termination()
    scene.namespace(LEDGER)


def crd_reinstalled(scene: Scene) -> None:
    """The entries are gone, the namespace is the same."""
    scene.delete(CRD)
    install_crds(scene.kubernetes)


def entry_deleted(scene: Scene) -> None:
    scene.delete(ENTRY)


LOST = pytest.mark.parametrize("lose", [namespace_deleted, crd_reinstalled, entry_deleted])


def verdicts(adopted: Any) -> dict[str | None, Verdict]:
    return {finding.name: finding.verdict for finding in adopted.findings}


def everything(scene: Scene) -> Any:
    """All that a command could have changed: the cluster's objects, and the accounts."""
    objects = {kind: scene.kubernetes.objects(kind) for kind in ("keyrotations", "secrets", "externalsecrets")}
    return copy.deepcopy((objects, scene.account_ids(), scene.openai.mints))


def settle(scene: Scene, *, target: Ref = TARGET, hours: float = 2) -> None:
    """Runs as a CronJob makes them; at the end one account per target, and a ledger that says so."""
    for _ in range(int(hours * 6)):
        scene.advance(minutes=10)
        scene.run()
        assert scene.live_key(target)
    scene.advance(minutes=10)
    scene.run(max_wait=timedelta(minutes=10))
    entry = scene.stored_entry(target)
    assert {publication.account.id for publication in entry.history} == scene.account_ids()
    assert len(entry.history) == 1
    assert entry.unpublished == ()


# --- the ledger is lost


@LOST
def test_after_a_lost_ledger_adopt_leads_back(rotated: Scene, lose: Any) -> None:
    """Reported and untouched; shown; recorded; then the next runs go on as if nothing had been."""
    accounts, key = rotated.account_ids(), rotated.key()
    lose(rotated)

    report = rotated.run()
    assert (rotated.outcome().result, exit_code(report, strict=True)) == (Result.BLOCKED, 1)
    assert rotated.outcome().reason in ("ForeignLedger", "UnknownAccount")
    assert "`openai-key-rotator adopt default/openai-credentials`" in rotated.outcome().message
    assert "adopt" in rotated.condition()["message"]
    assert (rotated.account_ids(), rotated.key(), rotated.openai.mints) == (accounts, key, 2)

    before = everything(rotated)
    shown = rotated.adopt()
    assert set(verdicts(shown).values()) == {Verdict.RECORD}
    assert {finding.id for finding in shown.findings} == accounts
    assert not shown.refused
    assert everything(rotated) == before, "shown, not recorded"

    recorded = rotated.adopt(yes=True)
    assert verdicts(recorded) == verdicts(shown)
    entry = rotated.stored_entry()
    assert {publication.account.id for publication in entry.history} == accounts
    assert rotated.adopt(yes=True).findings == [], "the second time there is nothing to do"

    rotated.run(max_wait=NO_WAIT)
    assert (rotated.outcome().result, rotated.outcome().reason) == (Result.KEPT, "NotDue")
    assert (rotated.openai.mints, rotated.key()) == (2, key)
    rotated.advance(minutes=10)
    rotated.run()
    assert rotated.account_ids() == {rotated.named()["id"]}, "the previous one was cleaned up"
    assert rotated.openai.mints == 2
    settle(rotated)
    assert rotated.openai.mints <= 5


@LOST
def test_what_was_requested_before_is_not_served_again(scene: Scene, lose: Any) -> None:
    """A `force-sync` that stands at the object since it was served does not rotate a second time."""
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"force-sync": "1"}}})
    scene.run()
    lose(scene)
    scene.adopt(yes=True)
    scene.run()
    assert (scene.outcome().reason, scene.openai.mints) == ("NotDue", 1)
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"force-sync": "2"}}})
    scene.run()
    assert (scene.outcome().reason, scene.openai.mints) == ("Requested", 2)


@LOST
def test_a_previous_account_that_a_container_holds_stays(scene: Scene, lose: Any) -> None:
    """A container started long before the ledger was lost: it has the key until it ends."""
    scene.apply_documented()
    scene.run()
    start_pod(scene)
    held = scene.key()
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    lose(scene)
    scene.adopt(yes=True)
    for _ in range(4):
        scene.advance(minutes=20)
        scene.run()
    assert scene.openai.key_status(held) is KeyStatus.ACTIVE
    retired = scene.retired()
    assert retired is not None
    assert any("my-app" in words for words in retired.held)
    stop_pod(scene)
    settle(scene)
    assert scene.openai.key_status(held) is KeyStatus.DELETED


@LOST
def test_a_lost_ledger_whose_account_is_gone_heals_by_itself(rotated: Scene, lose: Any) -> None:
    """There is nothing left that could be somebody's; the previous account is found by adopt all the same."""
    rotated.openai.delete_account(PROJECT, rotated.named()["id"])
    lose(rotated)
    shown = rotated.adopt(yes=True)
    assert sorted(verdicts(shown).values()) == [Verdict.GONE, Verdict.RECORD]
    rotated.run()
    assert (rotated.outcome().result, rotated.outcome().reason) == (Result.ROTATED, "AccountGone")
    settle(rotated)


@LOST
def test_openai_away_nothing_is_recorded(rotated: Scene, lose: Any) -> None:
    """It cannot be confirmed then, and it is said why; once OpenAI answers it can."""
    lose(rotated)
    before = everything(rotated)
    away = answered(Response.of_json(503, {"error": {"message": "CANARY"}}))
    adopted = rotated.adopt(yes=True, openai_faults=Rules([Rule(away)], rotated.random))
    assert set(verdicts(adopted).values()) == {Verdict.REFUSED}
    assert all("cannot be confirmed" in finding.message for finding in adopted.findings)
    assert adopted.refused
    assert "not looked for" in adopted.notes[0]
    assert everything(rotated) == before
    rotated.adopt(yes=True)
    settle(rotated)


# --- a ledger of another uid


def another_ledger(scene: Scene) -> None:
    """The worker's namespace with its entries, restored from a backup: the entries are an earlier namespace's."""
    entries = scene.kubernetes.objects("keyrotations", LEDGER)
    namespace_deleted(scene)
    for entry in copy.deepcopy(entries):
        metadata = {"name": entry["metadata"]["name"], "namespace": LEDGER}
        scene.apply({**entry, "metadata": metadata})


def test_a_restored_ledger_is_taken_over(rotated: Scene) -> None:
    """Its entries block, are shown, are taken over as they are, and the runs go on."""
    before_loss = rotated.stored_entry()
    another_ledger(rotated)
    rotated.run()
    assert (rotated.outcome().result, rotated.outcome().reason) == (Result.BLOCKED, "ForeignLedger")
    assert len(rotated.accounts()) == 2
    before = everything(rotated)
    assert set(verdicts(rotated.adopt()).values()) == {Verdict.RECORD, Verdict.KNOWN}
    assert everything(rotated) == before
    assert not rotated.adopt(yes=True).refused
    entry = rotated.stored_entry()
    assert entry.history == before_loss.history
    assert entry.last_rotated_at == before_loss.last_rotated_at
    rotated.run()
    assert rotated.outcome().reason == "NotDue"
    settle(rotated)


def test_a_restored_entry_that_nothing_asks_for_is_taken_over_and_ends(rotated: Scene) -> None:
    """Its Secret is gone: its accounts go, and then the entry."""
    rotated.delete(EXTERNAL_SECRET)
    another_ledger(rotated)
    rotated.run()
    assert len(rotated.accounts()) == 2
    assert not rotated.adopt(yes=True).refused
    for _ in range(4):
        rotated.run()
        rotated.advance(minutes=10)
    assert rotated.accounts() == []
    assert rotated.entry() is None


def test_an_entry_is_taken_over_only_with_accounts_that_openai_confirms(rotated: Scene) -> None:
    """Another name at OpenAI: somebody edited the entry, or it is about another account."""
    (victim, _) = rotated.openai.add_account(PROJECT, "victim")
    another_ledger(rotated)
    name = rotated.named()["name"]
    rotated.merge(ENTRY, {"status": {"accounts": {name: {"id": victim.id}}}})
    before = everything(rotated)
    adopted = rotated.adopt(yes=True)
    assert adopted.refused
    assert everything(rotated) == before


def test_a_claim_that_runs_is_respected(rotated: Scene) -> None:
    """A restored entry says that a run is at it: nothing is taken over until the claim has ended."""
    rotated.advance(hours=1)
    lost = Rules([Rule(response_lost(), "POST", ACCOUNTS, count=1)], rotated.random)
    rotated.run(openai_faults=lost, max_wait=NO_WAIT)
    another_ledger(rotated)
    before = everything(rotated)
    adopted = rotated.adopt(yes=True)
    assert [finding.reason for finding in adopted.findings if finding.verdict is Verdict.REFUSED] == ["InProgress"]
    assert everything(rotated) == before
    rotated.advance(minutes=5)
    assert not rotated.adopt(yes=True).refused
    settle(rotated)


def test_a_run_that_rotates_meanwhile_wins(rotated: Scene) -> None:
    """Between what adopt has read and what it writes the entry is made by somebody else: adopt steps back."""
    entry_deleted(rotated)
    rival = {
        "apiVersion": "openai-key-rotator.io/v1alpha1",
        "kind": "KeyRotation",
        "metadata": {"name": "default.openai-credentials", "namespace": LEDGER},
        "spec": {"target": {"namespace": "default", "secret": "openai-credentials"}, "ledger": "x"},
    }
    for path, method in ((SECRET, "GET"), (ENTRIES, "POST")):
        entry_made = Meanwhile(lambda: rotated.apply(rival), method, path)
        adopted = rotated.adopt(yes=True, cluster_faults=entry_made)
        assert {finding.reason for finding in adopted.findings} == {"Changed"}
        assert rotated.stored_entry().history == ()
        entry_deleted(rotated)
    rotated.adopt(yes=True)
    settle(rotated)


# --- two installations at once


def test_a_second_ledger_beside_the_first_touches_nothing(rotated: Scene) -> None:
    """A laptop with another --ledger-namespace: it says what it sees, and the first one goes on."""
    rotated.namespace("laptop")
    accounts, key = rotated.account_ids(), rotated.key()
    rotated.run(ledger_namespace="laptop", force=True)
    assert (rotated.outcome().result, rotated.outcome().reason) == (Result.BLOCKED, "ForeignLedger")
    assert (rotated.account_ids(), rotated.key()) == (accounts, key)
    settle(rotated)


def test_two_ledgers_that_record_one_account_stay_safe(rotated: Scene) -> None:
    """The second one adopted while the first lives on: whoever rotates first goes on, the other one is blocked."""
    rotated.namespace("laptop")
    rotated.adopt(yes=True, ledger_namespace="laptop")
    for i in range(24):
        rotated.advance(minutes=20)
        rotated.run(ledger_namespace=(LEDGER, "laptop")[i % 2])
        assert rotated.live_key()
        assert len(rotated.accounts()) <= 3


@pytest.mark.parametrize("first_ledger_lives", [True, False])
def test_a_second_cluster_with_a_copied_namespace(rotated: Scene, first_ledger_lives: bool) -> None:
    """Same Secret, same project, another ledger: without a human's word nothing of the first is touched."""
    secret = rotated.secret()
    assert secret is not None
    other = Scene(seed=2)
    other.seconds = rotated.seconds
    other.openai, other.admin_key = rotated.openai, rotated.admin_key
    other.apply_documented()
    metadata = {key: secret["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    other.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": secret["data"]})
    for _ in range(3):
        other.run(force=True)
        assert (other.outcome().result, other.outcome().reason) == (Result.BLOCKED, "ForeignLedger")
        assert rotated.live_key()
    assert len(rotated.accounts()) == 2
    if first_ledger_lives:
        other.delete(SECRET)
        other.run()
        assert other.live_key()
        assert rotated.live_key()
    else:
        other.adopt(yes=True)
        settle(other)


# --- a cluster restored from yesterday


def restore(scene: Scene, secret: dict[str, Any], entry: dict[str, Any]) -> None:
    """Secret and entry as they were; uids too, but for the resourceVersion."""
    for path, old in ((SECRET, secret), (ENTRY, entry)):
        wanted = {key: value for key, value in old.items() if key not in ("metadata", "apiVersion", "kind")}
        current = scene.kubernetes.find("secrets" if path == SECRET else "keyrotations", *_place(path))
        assert current is not None
        status = dict.fromkeys(current.get("status", {}).get("accounts", {}))
        wanted = json.loads(json.dumps(wanted))
        if path == ENTRY:
            wanted["status"]["accounts"] = {**status, **wanted["status"]["accounts"]}
        annotations = dict(old["metadata"].get("annotations", {}))
        scene.merge(path, {"metadata": {"annotations": annotations}, **wanted})


def _place(path: str) -> tuple[str, str]:
    parts = path.split("/")
    return parts[-3], parts[-1]


def test_a_cluster_restored_from_yesterday_goes_on_by_itself(rotated: Scene) -> None:
    """The Secret's key is dead, so it rotates; accounts made since are reported, and go once a human has named them."""
    secret = rotated.secret()
    entry = rotated.kubernetes.find("keyrotations", LEDGER, "default.openai-credentials")
    assert secret is not None
    assert entry is not None
    old = copy.deepcopy((secret, dict(entry)))
    for _ in range(8):
        rotated.advance(minutes=30)
        rotated.run()
    since = rotated.named()["id"]
    restore(rotated, *old)
    assert rotated.openai.key_status(rotated.key()) is KeyStatus.DELETED

    rotated.run()
    assert (rotated.outcome().result, rotated.outcome().reason) == (Result.ROTATED, "AccountGone")
    for _ in range(3):
        rotated.advance(minutes=10)
        rotated.run()
    assert since in rotated.account_ids(), "nothing proves it ours"
    stranger, _ = rotated.openai.add_account(PROJECT, "not-one-of-ours")

    shown = rotated.adopt(yes=True)
    assert [(f.id, f.verdict) for f in shown.findings] == [(since, Verdict.UNRECORDED)]
    assert f"--account {since}" in shown.findings[0].message
    assert not shown.refused
    assert since in rotated.account_ids()

    assert not rotated.adopt(TARGET, yes=True, accounts=(since,)).refused
    mints = rotated.openai.mints
    rotated.run()
    rotated.advance(minutes=10)
    rotated.run()
    assert rotated.account_ids() == {rotated.named()["id"], stranger.id}
    assert rotated.live_key()
    assert rotated.openai.mints == mints


def test_an_account_named_by_hand_must_look_like_the_generators(rotated: Scene) -> None:
    """A human's slip: somebody else's account, another target's, none at all."""
    stranger, _ = rotated.openai.add_account(PROJECT, "production-backend")
    rotated.namespace("team")
    rotated.apply_documented("team")
    rotated.run(max_wait=NO_WAIT)
    others = rotated.named(Ref("team", TARGET.name))["id"]
    before = everything(rotated)
    for account, reason in ((stranger.id, "AnotherName"), (others, "NamedTwice")):
        adopted = rotated.adopt(TARGET, yes=True, accounts=(account,))
        assert [f.reason for f in adopted.findings if f.id == account] == [reason]
        assert adopted.refused
    adopted = rotated.adopt(TARGET, yes=True, accounts=("user-none",))
    assert [f.verdict for f in adopted.findings if f.id == "user-none"] == [Verdict.GONE]
    assert everything(rotated) == before


# --- forged evidence


def forged(scene: Scene, **changes: Any) -> None:
    scene.merge(SECRET, {"metadata": {"annotations": {CURRENT: json.dumps(scene.named() | changes)}}})


def test_a_forged_annotation_is_not_adopted(rotated: Scene) -> None:
    """A tenant names somebody else's account: for each kind of forgery nothing is recorded, and it is said why."""
    stranger, _ = rotated.openai.add_account(PROJECT, "production-backend")
    lookalike, _ = rotated.openai.add_account(PROJECT, "app_0123456789")
    genuine = rotated.named()
    for changes, reason in (
        ({"id": stranger.id, "name": stranger.name}, "UnknownAccount"),
        ({"id": lookalike.id, "name": lookalike.name}, "UnknownAccount"),
        ({"id": lookalike.id}, "UnknownAccount"),
        ({"target": "default/other"}, "CopiedSecret"),
    ):
        forged(rotated, **(genuine | {"ledger": "another"} | changes))
        adopted = rotated.adopt(yes=True)
        reasons = {f.reason for f in adopted.findings if f.verdict is Verdict.REFUSED}
        assert reasons & {reason, "AnotherName"}, (changes, adopted.findings)
        recorded = {publication.account.id for publication in rotated.stored_entry().history}
        assert not recorded & {stranger.id, lookalike.id}
    entry_deleted(rotated)
    forged(rotated, **(genuine | {"id": stranger.id, "name": stranger.name}))
    adopted = rotated.adopt(yes=True)
    assert "AnotherName" in {finding.reason for finding in adopted.findings}
    for _ in range(6):
        rotated.run()
        rotated.advance(minutes=30)
    assert {stranger.id, lookalike.id} <= rotated.account_ids()


def test_two_targets_that_name_one_account_are_both_refused(rotated: Scene) -> None:
    """The ledger is lost, and one of two Secrets claims the other's account: nobody can tell whose it is."""
    rotated.namespace("team")
    rotated.apply_documented("team")
    rotated.run(max_wait=NO_WAIT)
    victim = Ref("team", TARGET.name)
    namespace_deleted(rotated)
    theirs = rotated.named(victim)
    forged(rotated, id=theirs["id"], name=theirs["name"])
    adopted = rotated.adopt(TARGET, yes=True)
    claimed = [finding for finding in adopted.findings if finding.id == theirs["id"]]
    assert [finding.reason for finding in claimed] == ["NamedTwice"]
    assert "team/openai-credentials" in claimed[0].message
    adopted = rotated.adopt(victim, yes=True)
    assert [f.reason for f in adopted.findings if f.id == theirs["id"]] == ["NamedTwice"]
    entry = rotated.entry()
    assert entry is None or theirs["id"] not in {p.account.id for p in entry.history}


def test_a_target_that_is_rejected_counts_as_well(rotated: Scene) -> None:
    """The other's ExternalSecret is broken for the moment: its Secret names the account all the same."""
    rotated.namespace("team")
    rotated.apply_documented("team")
    rotated.run(max_wait=NO_WAIT)
    victim = Ref("team", TARGET.name)
    theirs = rotated.named(victim)
    namespace_deleted(rotated)
    broken = "/apis/external-secrets.io/v1/namespaces/team/externalsecrets/openai-credentials"
    rotated.merge(broken, {"spec": {"refreshInterval": "soon"}})
    forged(rotated, id=theirs["id"], name=theirs["name"])
    adopted = rotated.adopt(yes=True)
    assert [f.reason for f in adopted.findings if f.id == theirs["id"]] == ["NamedTwice"]
    assert [f.reason for f in adopted.findings if f.target == victim] == ["InvalidSpec"]
    rotated.kubernetes.forbid("get", "secrets", "team")
    adopted = rotated.adopt(TARGET, yes=True, accounts=(theirs["id"],))
    assert adopted.refused
    assert "cannot be read" in adopted.findings[0].message


def test_a_list_of_previous_accounts_that_is_not_ours_is_refused(rotated: Scene) -> None:
    """Of any shape: the current account is recorded all the same."""
    entry_deleted(rotated)
    for text in ("", "{}", "[1]", '[{"id": "a/b", "name": "x"}]', "[" * 20_000):
        rotated.merge(SECRET, {"metadata": {"annotations": {PREVIOUS: text}}})
        adopted = rotated.adopt()
        assert "InvalidEvidence" in {finding.reason for finding in adopted.findings}
        assert verdicts(adopted)[rotated.named()["name"]] is Verdict.RECORD


def test_an_account_with_a_second_key_is_somebody_elses_too(rotated: Scene) -> None:
    """Ours have one key each: a second one was made by somebody who uses the account."""
    named = rotated.named()
    entry_deleted(rotated)
    rotated.openai.handle(_second_key(rotated, named["id"]))
    adopted = rotated.adopt(yes=True)
    assert [f.reason for f in adopted.findings if f.id == named["id"]] == ["SeveralKeys"]


def _second_key(scene: Scene, account: str) -> Any:
    headers = {"Authorization": f"Bearer {scene.admin_key}"}
    return Request.of("POST", f"{ACCOUNTS}/{account}/api_keys", json={"name": "mine"}, headers=headers)


# --- what else may be asked


def test_targets_that_cannot_be_adopted_say_why(rotated: Scene) -> None:
    """Named on the command line: unknown, blocked, edited; and one where there is nothing to do."""
    unknown = Ref("default", "nothing")
    assert [f.reason for f in rotated.adopt(unknown).findings] == ["NoTarget"]
    assert {f.verdict for f in rotated.adopt(TARGET).findings} == {Verdict.KNOWN}
    rotated.merge(ENTRY, {"status": {"accounts": {"x": {}}}})
    assert [f.reason for f in rotated.adopt().findings if f.name is None] == ["LedgerUnreadable"]
    entry_deleted(rotated)
    rotated.merge(GENERATOR, {"spec": {"host": "https://evil.example/v1"}})
    assert [f.reason for f in rotated.adopt(TARGET).findings] == ["HostNotAllowed"]
    rotated.kubernetes.forbid("get", "secrets")
    assert rotated.adopt(TARGET).refused


def test_no_list_of_secrets_is_needed(rotated: Scene) -> None:
    """Least privilege: each target's Secret is read by name."""
    namespace_deleted(rotated)
    rotated.kubernetes.forbid("list", "secrets")
    assert not rotated.adopt(yes=True).refused
    settle(rotated)


# --- as a user runs it


@pytest.fixture
def served(scene: Scene) -> Iterator[SandboxServer]:
    """The documented objects behind HTTP."""
    with SandboxServer(scene.kubernetes, scene.openai) as server:
        for obj in documented(scene.admin_key, server.openai_url):
            scene.apply(obj)
        yield server


def test_run_py_adopts(scene: Scene, served: SandboxServer, tmp_path: Path) -> None:
    """Shown as a table or as JSON, recorded with --yes; `status` and the log tell that there is something."""
    kubeconfig = served.write_kubeconfig(tmp_path / "kubeconfig")
    allowed = {"ROTATOR_ALLOW_HOST": served.openai_url}
    assert run_py(kubeconfig, **allowed).returncode == 0
    another_ledger(scene)

    last = json.loads(run_py(kubeconfig, **allowed).stdout.splitlines()[-1])
    assert (last["event"], last["to_adopt"]) == ("run.finished", 1)
    assert "ForeignLedger" in run_py(kubeconfig, "status", "--output", "table").stdout
    scene.kubernetes.forbid("get", "namespaces")
    assert run_py(kubeconfig, "status").returncode == 0
    scene.kubernetes.permit("get", "namespaces")

    shown = run_py(kubeconfig, "adopt", "--output", "table", **allowed)
    assert shown.returncode == 0, shown.stderr
    assert "nothing was written: --yes records" in shown.stdout
    assert "entry of another ledger" in shown.stdout
    recorded = run_py(kubeconfig, "adopt", "--yes", str(TARGET), **allowed)
    assert recorded.returncode == 0, recorded.stderr
    found = json.loads(recorded.stdout)
    assert [(item["verdict"], item["account"]) for item in found["findings"]] == [
        ("recorded", None),
        ("known", scene.named()["name"]),
    ]
    assert run_py(kubeconfig, "adopt", "--output", "table", **allowed).stdout == "nothing to adopt\n"
    assert run_py(kubeconfig, "adopt", "default/none", **allowed).returncode == 1
    assert run_py(kubeconfig, "adopt", "none").returncode == 2
    scene.delete(CRD)
    lost = run_py(kubeconfig, "adopt")
    assert lost.returncode == 3
    assert "kubectl apply" in lost.stderr
