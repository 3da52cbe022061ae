"""`--look-every`: Secrets that were found well are read again only after a while. All else is seen by every run."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from sandbox.openai.state import ADMIN_SCOPES
from sandbox.transport.faults import Fate, Rule, answered, request_lost
from sandbox.transport.wire import Response
from tests.support.ledgers import rule
from tests.support.paths import ENTRY, EXTERNAL_SECRET, GENERATOR, NO_WAIT, SECRET
from tests.support.pods import start_pod
from tests.support.scene import LEDGER, PROJECT, Scene, checked_scene
from worker.kubernetes.secret import CURRENT
from worker.model.outcomes import Result

scene = pytest.fixture(checked_scene)
HOUR = timedelta(hours=1)


def run(scene: Scene, **options: Any) -> str:
    """A run that looks once an hour; the reason of its outcome."""
    scene.run(**({"look_every": HOUR, "max_wait": NO_WAIT} | options))
    return scene.outcome().reason


def looked(scene: Scene) -> bool:
    """Did the last run read the target's Secret?"""
    assert scene.cluster_session is not None
    return any((exchange.method, exchange.path) == ("GET", SECRET) for exchange in scene.cluster_session.log)


def noted(scene: Scene) -> bool:
    """Did the last run write the target's entry?"""
    assert scene.cluster_session is not None
    return any((exchange.method, exchange.path) == ("PATCH", ENTRY) for exchange in scene.cluster_session.log)


def looked_at(scene: Scene) -> Scene:
    """A target with a daily interval that a run has found well at 10:10."""
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "24h"}})
    run(scene)
    scene.advance(minutes=10)
    assert run(scene) == "NotDue"
    assert looked(scene)
    assert noted(scene)
    return scene


def test_a_secret_that_was_found_well_is_read_once_per_period_and_noted_as_often(scene: Scene) -> None:
    looked_at(scene)
    looks = []
    for _ in range(18):
        scene.advance(minutes=10)
        assert run(scene) == "NotDue"
        assert scene.outcome().result is Result.KEPT
        assert looked(scene) == noted(scene)
        looks.append(looked(scene))
    assert looks == [*([False] * 5), True] * 3


def test_a_run_says_when_the_secret_was_read_that_it_has_not_read(scene: Scene) -> None:
    looked_at(scene)
    assert scene.outcome().message == "next rotation at 2026-11-25T10:00:00Z"
    scene.advance(minutes=10)
    run(scene)
    assert (
        scene.outcome().message == "next rotation at 2026-11-25T10:00:00Z; its Secret was read at 2026-11-24T10:10:00Z"
    )


def test_without_the_option_every_run_reads_it_and_writes_nothing(scene: Scene) -> None:
    looked_at(scene)
    for _ in range(3):
        scene.advance(minutes=10)
        assert run(scene, look_every=timedelta(0)) == "NotDue"
        assert looked(scene)
        assert not noted(scene)


@pytest.mark.parametrize("broken", ["deleted", "emptied", "annotation lost"])
def test_what_happens_to_the_secret_is_mended_with_the_next_look(scene: Scene, broken: str) -> None:
    looked_at(scene)
    if broken == "deleted":
        scene.delete(SECRET)
    elif broken == "emptied":
        scene.merge(SECRET, {"data": None})
    else:
        scene.merge(SECRET, {"metadata": {"annotations": {CURRENT: None}}})
    scene.advance(minutes=50)
    assert run(scene) == "NotDue"
    scene.advance(minutes=10)
    expected = {"deleted": "SecretMissing", "emptied": "KeyMissing", "annotation lost": "AnnotationLost"}
    assert run(scene) == expected[broken]
    assert scene.live_key()


@pytest.mark.parametrize(
    ("path", "patch", "reason"),
    [
        (EXTERNAL_SECRET, {"metadata": {"annotations": {"force-sync": "1"}}}, "Requested"),
        (EXTERNAL_SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/key-scopes": "a.b"}}}, "ScopesChanged"),
        (EXTERNAL_SECRET, {"spec": {"refreshInterval": "10m"}}, "Due"),
        (EXTERNAL_SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/suspend": "true"}}}, "Suspended"),
        (GENERATOR, {"metadata": {"annotations": {"openai-key-rotator.io/rotate": "1"}}}, "Requested"),
    ],
)
def test_what_the_objects_ask_for_is_seen_at_once(scene: Scene, path: str, patch: dict[str, Any], reason: str) -> None:
    looked_at(scene)
    scene.merge(path, patch)
    scene.advance(minutes=10)
    assert run(scene) == reason


def test_a_changed_owner_reaches_the_secret_at_once(scene: Scene) -> None:
    """With creationPolicy Orphan the Secret outlives its ExternalSecret: its owner reference goes at once."""
    looked_at(scene)
    assert (scene.secret() or {})["metadata"]["ownerReferences"]
    scene.merge(EXTERNAL_SECRET, {"spec": {"target": {"creationPolicy": "Orphan"}}})
    scene.advance(minutes=10)
    run(scene)
    assert not (scene.secret() or {})["metadata"].get("ownerReferences")


def test_a_key_that_is_gone_at_openai_is_replaced_by_the_next_run(scene: Scene) -> None:
    looked_at(scene)
    scene.openai.delete_key(PROJECT, scene.named()["keyId"])
    scene.advance(minutes=10)
    assert run(scene) == "KeyGone"
    assert scene.live_key()


def test_an_account_that_is_gone_at_openai_is_replaced_by_the_next_run(scene: Scene) -> None:
    looked_at(scene)
    scene.openai.delete_account(PROJECT, scene.named()["id"])
    scene.advance(minutes=10)
    assert run(scene) == "AccountGone"
    assert scene.live_key()


def test_a_rotation_that_is_due_comes_on_time_and_is_followed_by_a_look(scene: Scene) -> None:
    looked_at(scene)
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "40m"}})
    reasons = []
    for _ in range(8):
        scene.advance(minutes=10)
        reasons.append((run(scene), looked(scene)))
    assert reasons == [
        ("NotDue", True),  # the object has changed
        ("NotDue", False),
        ("Due", True),
        ("NotDue", True),  # the account before waits to go, and goes
        ("NotDue", True),  # the key is another
        ("NotDue", False),
        ("Due", True),
        ("NotDue", True),
    ]


@pytest.mark.parametrize("at", ["2026-11-24T11:20:00Z", "2026-11-24T09:20:00Z"])
def test_a_look_of_a_wrong_clock_does_not_count(scene: Scene, at: str) -> None:
    """In the future, or too long ago: it is 10:20."""
    looked_at(scene)
    scene.merge(ENTRY, {"status": {"accounts": {scene.named()["name"]: {"lookedAt": at}}}})
    scene.advance(minutes=10)
    run(scene)
    assert looked(scene)


def test_forcing_reads_the_secret_and_rotates(scene: Scene) -> None:
    looked_at(scene)
    scene.advance(minutes=10)
    assert run(scene, force=True) == "Forced"
    assert looked(scene)


def test_a_dry_run_notes_no_look(scene: Scene) -> None:
    looked_at(scene)
    scene.advance(minutes=70)
    run(scene, dry_run=True)
    assert looked(scene)
    assert not noted(scene)


CONFLICT = answered(Response.of_json(409, {"kind": "Status", "reason": "Conflict", "code": 409}))
FORBIDDEN = answered(Response.of_json(403, {"kind": "Status", "reason": "Forbidden", "code": 403}))
each = pytest.mark.parametrize("every", [timedelta(0), HOUR], ids=["each run looks", "few looks"])


def runs(scene: Scene, count: int, every: timedelta) -> None:
    for _ in range(count):
        scene.advance(minutes=10)
        run(scene, look_every=every)


@each
@pytest.mark.parametrize("answer", [CONFLICT, FORBIDDEN, request_lost()], ids=["409", "403", "lost"])
def test_a_secret_outlives_its_source_although_the_first_try_to_release_it_failed(
    scene: Scene, answer: Fate, every: timedelta
) -> None:
    looked_at(scene)
    scene.merge(EXTERNAL_SECRET, {"spec": {"target": {"creationPolicy": "Orphan"}}})
    scene.advance(minutes=10)
    run(scene, look_every=every, cluster_faults=rule(scene, Rule(answer, "PATCH", SECRET, count=1)))
    runs(scene, 3, every)
    scene.delete(EXTERNAL_SECRET)
    assert scene.secret() is not None


@each
@pytest.mark.parametrize(
    "policy", [{"type": "idle", "idleTimeout": "2h"}, {"type": "retainLatest", "gracePeriod": "2h"}]
)
def test_while_an_account_waits_to_go_a_key_that_is_put_back_for_a_while_is_seen(
    scene: Scene, policy: dict[str, str], every: timedelta
) -> None:
    """Who may hold it depends on that."""
    scene.apply_documented(cleanupPolicy=policy)
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "24h"}})
    run(scene, look_every=every)
    first = scene.secret() or {}
    scene.advance(hours=3)
    run(scene, look_every=every, force=True)
    runs(scene, 1, every)
    second = scene.secret() or {}

    def put(secret: dict[str, Any]) -> None:
        metadata = {"annotations": secret["metadata"]["annotations"]}
        scene.merge(SECRET, {"data": secret["data"], "metadata": metadata})

    put(first)
    runs(scene, 2, every)
    start_pod(scene)
    key = scene.key()
    runs(scene, 2, every)
    put(second)
    runs(scene, 30, every)
    assert scene.openai.use(key)


@each
def test_a_secret_that_was_seen_empty_is_healed_by_the_next_run_that_can(scene: Scene, every: timedelta) -> None:
    looked_at(scene)
    scene.merge(SECRET, {"data": None})
    scene.openai.restrict(scene.admin_key, "api.none")
    runs(scene, 1, every)
    scene.openai.restrict(scene.admin_key, *ADMIN_SCOPES)
    runs(scene, 1, every)
    assert scene.outcome().reason == "KeyMissing"


@each
def test_a_blocked_target_is_not_ready_again_by_an_earlier_look(scene: Scene, every: timedelta) -> None:
    looked_at(scene)
    scene.merge(SECRET, {"immutable": True})
    told = []
    for label in ("x", None, "x", None):
        scene.merge(EXTERNAL_SECRET, {"metadata": {"labels": {"a": label}}})
        runs(scene, 1, every)
        told.append(scene.condition()["status"])
    assert told == ["False"] * 4


@each
def test_an_entry_from_a_backup_is_not_believed_to_have_looked(scene: Scene, every: timedelta) -> None:
    looked_at(scene)
    backup = copy.deepcopy(scene.kubernetes.find("keyrotations", LEDGER, "default.openai-credentials")) or {}
    start_pod(scene)
    scene.advance(minutes=10)
    run(scene, look_every=every, force=True)
    scene.delete(ENTRY)
    kept = {field: backup[field] for field in ("apiVersion", "kind", "spec", "status")}
    scene.apply(kept | {"metadata": {"name": "default.openai-credentials", "namespace": LEDGER}})
    runs(scene, 1, every)
    assert scene.outcome().reason == "UnknownAccount"
