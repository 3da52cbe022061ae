"""`--look-every`: Secrets that were found well are read again only after a while. All else is seen by every run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.support.paths import ENTRY, EXTERNAL_SECRET, GENERATOR, NO_WAIT, SECRET
from tests.support.scene import PROJECT, Scene, checked_scene
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
        ("NotDue", True),  # the key is another
        *([("NotDue", False)] * 2),
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
