"""Moving from the closed enterprise operator: its GeneratorStates are evidence, and after that all goes as usual."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.http_server import SandboxServer
from sandbox.kubernetes.setup import apply
from sandbox.openai.state import Account, KeyStatus
from tests.support import operator
from tests.support.guide import follow
from tests.support.operator import GUIDE, OPERATOR
from tests.support.paths import EXTERNAL_SECRET, GENERATOR, NO_WAIT, SECRET
from tests.support.pods import start_pod, stop_pod
from tests.support.scene import PROJECT, Scene, checked_scene, documented
from worker.commands.adopt.judge import Verdict
from worker.kubernetes.secret import CURRENT, MANAGED, OPERATOR_LABELS
from worker.model.outcomes import Result

scene = pytest.fixture(checked_scene)
STATES = "/apis/generators.external-secrets.io/v1alpha1/namespaces/default/generatorstates"


@dataclass
class Left:
    """The accounts that the operator left, and their keys: of the one before, and of the one in the Secret."""

    old: Account
    old_key: str
    latest: Account
    latest_key: str


@pytest.fixture
def left(scene: Scene) -> Left:
    """An operator has rotated once, an hour ago, and has been stopped before it deleted the account before."""
    apply(scene.kubernetes, operator.CRD)
    scene.apply_documented()
    return leave(scene)


def leave(scene: Scene, *, owned: bool = True) -> Left:
    old, old_key = scene.openai.add_account(PROJECT, "app_old0000000")
    scene.advance(hours=1)
    latest, latest_key = scene.openai.add_account(PROJECT, "app_new0000000")
    scene.apply(
        state(scene, "gen-externalsecret-x-1", old.id, deadline="2026-11-24T11:02:00Z"),
        state(scene, "gen-externalsecret-x-2", latest.id),
        operator.secret(latest_key, scene.external_secret(), owned=owned),
    )
    scene.advance(hours=1)
    return Left(old, old_key, latest, latest_key)


def state(scene: Scene, name: str, account: object, **changes: Any) -> dict[str, Any]:
    generator = scene.kubernetes.find("openais", "default", "openai-generator")
    assert generator is not None
    return operator.generator_state(name, account, scene.external_secret(), dict(generator), **changes)


def unlabel(scene: Scene) -> None:
    labels: dict[str, str | None] = dict.fromkeys(OPERATOR_LABELS)
    scene.merge(SECRET, {"metadata": {"labels": {**labels, MANAGED: "true"}}})


@pytest.mark.parametrize("owned", [True, False])
def test_the_operators_users_can_move(scene: Scene, owned: bool) -> None:
    """Shown, recorded, labels removed: the next run rotates, and the operator's accounts go."""
    apply(scene.kubernetes, operator.CRD)
    scene.apply_documented()
    leave(scene, owned=owned)
    ids = scene.account_ids()
    scene.run()
    assert (scene.outcome().result, scene.outcome().reason) == (Result.BLOCKED, "ForeignSecret")
    assert "openai-key-rotator adopt" in scene.outcome().message

    shown = scene.adopt()
    assert [(f.name, f.verdict) for f in shown.findings] == [
        ("app_old0000000", Verdict.RECORD),
        ("app_new0000000", Verdict.RECORD),
    ]
    (advice,) = {adoption.advice for adoption in shown.adoptions}
    assert "kubectl label secret openai-credentials -n default reconcile.external-secrets.io/created-by-" in advice
    assert scene.stored_entry().history == ()

    assert not scene.adopt(yes=True).refused
    for _ in range(3):  # the labels are still there: nothing is rotated, and nothing is deleted
        scene.run()
        scene.advance(minutes=10)
    assert scene.account_ids() == ids
    assert (scene.outcome().result, scene.outcome().reason) == (Result.BLOCKED, "ForeignSecret")

    unlabel(scene)
    scene.run(max_wait=NO_WAIT)
    assert (scene.outcome().result, scene.outcome().reason) == (Result.ROTATED, "KeyMissing")
    assert scene.live_key()
    for _ in range(3):
        scene.advance(minutes=10)
        scene.run()
    assert scene.account_ids() == {scene.named()["id"]}
    assert scene.openai.mints == 3
    assert not scene.adopt().findings


def test_a_container_with_the_operators_key_keeps_it(scene: Scene) -> None:
    """It took it from its environment: that account stays until the container ends."""
    apply(scene.kubernetes, operator.CRD)
    scene.apply_documented()
    key = leave(scene).latest_key
    start_pod(scene)
    scene.advance(minutes=30)
    scene.adopt(yes=True)
    unlabel(scene)
    for _ in range(12):
        scene.run()
        scene.advance(minutes=20)
        assert scene.openai.key_status(key) is KeyStatus.ACTIVE
    stop_pod(scene)
    for _ in range(3):
        scene.run()
        scene.advance(minutes=10)
    assert scene.account_ids() == {scene.named()["id"]}


def test_while_the_secret_carries_a_key_that_nobody_knows_no_state_is_let_go(scene: Scene, left: Left) -> None:
    """The operator died between its state and its Secret: the key in there is the one that seems superseded."""
    scene.delete(SECRET)
    scene.apply(operator.secret(left.old_key, scene.external_secret()))
    scene.adopt(yes=True)
    for _ in range(12):
        scene.run()
        scene.advance(hours=3)
        assert scene.openai.key_status(left.old_key) is KeyStatus.ACTIVE
    retired = scene.retired()
    assert retired is not None
    assert "a key that the ledger does not know" in retired.held[0]


def with_template(scene: Scene, key: str) -> None:
    """The operator has put the key into a file, by the ExternalSecret's template."""
    template = {"data": {"config.yaml": "key: {{ .api_key }}"}}
    scene.merge(EXTERNAL_SECRET, {"spec": {"target": {"template": template}}})
    written = operator.secret(key, scene.external_secret())
    written["data"] = {"config.yaml": base64.b64encode(f"key: {key}".encode()).decode()}
    scene.delete(SECRET)
    scene.apply(written)


def test_the_operators_users_can_move_with_their_template(scene: Scene, left: Left) -> None:
    with_template(scene, left.latest_key)
    scene.adopt(yes=True)
    unlabel(scene)
    scene.run(max_wait=NO_WAIT)
    assert (scene.outcome().result, scene.outcome().reason) == (Result.ROTATED, "KeyMissing")
    for _ in range(3):
        scene.advance(minutes=10)
        scene.run()
    key = scene.key(data_key="config.yaml").removeprefix("key: ")
    assert scene.openai.key_status(key) is KeyStatus.ACTIVE
    assert scene.account_ids() == {scene.named()["id"]}


def test_a_key_that_nobody_knows_inside_a_file_holds_the_states_too(scene: Scene, left: Left) -> None:
    """Nothing is rotated while the operator's labels are there: the file's key stays, whichever it is."""
    with_template(scene, left.old_key)
    scene.adopt(yes=True)
    for _ in range(12):
        scene.run()
        scene.advance(hours=3)
        assert scene.openai.key_status(left.old_key) is KeyStatus.ACTIVE
    retired = scene.retired()
    assert retired is not None
    assert "a key that the ledger does not know" in retired.held[0]


def test_our_annotation_decides_what_is_in_the_secret(scene: Scene, left: Left) -> None:
    """The Secret was rotated by the worker already: the states are all of earlier accounts."""
    scene.delete(SECRET)
    scene.run()
    current = scene.named()
    assert not scene.adopt(yes=True).refused
    entry = scene.stored_entry()
    assert [p.account.name for p in entry.history if p.superseded_at is None] == [current["name"]]
    assert len(entry.history) == 3
    scene.advance(minutes=10)
    scene.run()
    assert scene.account_ids() == {current["id"]}


FORGED: list[tuple[str, dict[str, Any], str]] = [
    ("no state", {"state": {}}, "InvalidEvidence"),
    ("state of another type", {"state": "user-1"}, "InvalidEvidence"),
    ("an id that is none", {"account": "../../x"}, "InvalidEvidence"),
    ("an id of another type", {"account": 5}, "InvalidEvidence"),
    ("another project", {"spec": {"projectId": "other"}}, "InvalidEvidence"),
    ("another host", {"spec": {"host": "https://evil.example/v1"}}, "InvalidEvidence"),
    ("a host that is none", {"spec": {"host": "https://[x"}}, "InvalidEvidence"),
    ("an account of somebody else", {"account": "stranger"}, "AnotherName"),
]


@pytest.mark.parametrize(("changes", "reason"), [f[1:] for f in FORGED], ids=[f[0] for f in FORGED])
def test_a_forged_state_is_refused(scene: Scene, changes: dict[str, Any], reason: str) -> None:
    """All of its fields are a tenant's to write: nothing is recorded by it, and no other host hears of it."""
    apply(scene.kubernetes, operator.CRD)
    scene.apply_documented()
    stranger, _ = scene.openai.add_account(PROJECT, "stranger")
    account = changes.get("account", stranger.id)
    forged = state(scene, "x", stranger.id if account == "stranger" else account, state=changes.get("state"))
    forged["spec"]["resource"]["spec"] = forged["spec"]["resource"]["spec"] | changes.get("spec", {})
    scene.apply(forged)
    adopted = scene.adopt(yes=True)
    assert [finding.reason for finding in adopted.findings] == [reason]
    assert scene.entry() is None


def test_states_of_others_are_left_alone(scene: Scene, left: Left) -> None:
    """Of another generator, or of an ExternalSecret that is no target: said, and not recorded."""
    other = state(scene, "password", "user-1")
    other["spec"]["resource"]["kind"] = "Password"
    stray = state(scene, "stray", left.old.id)
    stray["metadata"]["ownerReferences"] = []
    scene.delete(f"{STATES}/gen-externalsecret-x-1")
    scene.merge(f"{STATES}/gen-externalsecret-x-1", {"metadata": {"finalizers": None}})
    scene.apply(other, stray)
    adopted = scene.adopt()
    assert adopted.notes == ("GeneratorState default/stray belongs to no target",)
    assert [f.name for f in adopted.findings if f.verdict is Verdict.RECORD] == ["app_new0000000"]
    assert left.old.id not in {f.id for f in adopted.findings}


def test_without_the_crd_or_the_right_to_list_it_there_is_no_failure(scene: Scene, left: Left) -> None:
    """It is said what was not looked at."""
    scene.kubernetes.forbid("list", "generatorstates")
    adopted = scene.adopt()
    assert not adopted.refused
    assert "GeneratorStates were not looked at" in adopted.notes[0]
    assert "list generatorstates" in adopted.notes[0]
    assert Scene().adopt().notes == ()


def test_the_generators_current_form_of_names_counts(scene: Scene, left: Left) -> None:
    """A prefix that was changed since: refused, with the fields that are to be put back for a moment."""
    scene.merge(GENERATOR, {"spec": {"serviceAccountNamePrefix": "new"}})
    adopted = scene.adopt(yes=True)
    assert {finding.reason for finding in adopted.findings} == {"AnotherName"}
    assert "serviceAccountNamePrefix" in adopted.findings[0].message
    scene.merge(GENERATOR, {"spec": {"serviceAccountNamePrefix": "app"}})
    assert not scene.adopt(yes=True).refused


# --- the guide, as a user follows it


def test_every_command_of_the_guide_works(scene: Scene, tmp_path: Path) -> None:
    """In its order, on a cluster as the operator left it; at the end one account is left, and no GeneratorState."""
    apply(scene.kubernetes, operator.CRD)
    scene.delete("/api/v1/namespaces/openai-key-rotator")
    scene.kubernetes.finish_termination()
    scene.namespace("external-secrets")
    scene.apply(OPERATOR)
    with SandboxServer(scene.kubernetes, scene.openai) as server:
        for obj in documented(scene.admin_key, server.openai_url):
            scene.apply(obj)
        leave(scene)
        kubeconfig = server.write_kubeconfig(tmp_path / "kubeconfig")
        follow(GUIDE, tmp_path, kubeconfig, server.openai_url)
        assert scene.live_key()
        assert [p.account.name for p in scene.stored_entry().history][:2] == ["app_old0000000", "app_new0000000"]
        assert scene.kubernetes.objects("generatorstates") == []
        assert CURRENT in (scene.secret() or {})["metadata"]["annotations"]
