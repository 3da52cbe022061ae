"""A Secret that somebody made immutable, deleted, and that was made again under its name.

A kubelet that has seen it immutable gives its old value to new pods, as long as one of the earlier is on the node.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.paths import SECRET
from tests.support.pods import start_pod, stop_pod
from tests.support.scene import Scene, checked_scene
from worker.model.outcomes import Result

scene = pytest.fixture(checked_scene)


@pytest.fixture
def made_again(scene: Scene) -> Scene:
    """The old key is in a pod; its Secret was immutable when a run looked, and is made anew since."""
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=10)
    start_pod(scene)
    scene.merge(SECRET, {"immutable": True})
    scene.run()
    assert scene.outcome().reason == "SecretImmutable"
    scene.advance(minutes=10)
    scene.delete(SECRET)
    scene.run()
    assert scene.outcome().reason == "SecretMissing"
    return scene


def test_the_advice_is_another_name(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    scene.merge(SECRET, {"immutable": True})
    scene.run()
    assert "give the target another name. Do not delete it" in scene.outcome().message


def test_a_pod_that_starts_long_after_holds_the_old_account_all_the_same(made_again: Scene) -> None:
    old = next(p.account for p in made_again.stored_entry().history if p.superseded_at is not None)
    made_again.advance(hours=1)
    start_pod(made_again, "new")
    stop_pod(made_again)
    for _ in range(3):
        made_again.advance(days=2)
        made_again.run(max_wait=timedelta(0))
    assert old.id in made_again.account_ids()
    held = next(p.held for p in made_again.stored_entry().history if p.account.id == old.id)
    assert held is not None
    assert held.why == "by pods of a Secret that was immutable: 1: new/app"
    told = [e["message"] for e in made_again.kubernetes.objects("events", "default") if e["reason"] == "KeyHeld"]
    assert any("a restart does not help" in message for message in told)
    stop_pod(made_again, "new")
    made_again.run()
    assert old.id not in made_again.account_ids()


def test_what_comes_after_it_goes_by_the_usual_rules(made_again: Scene) -> None:
    """No kubelet has seen the Secret's later keys immutable."""
    made_again.advance(hours=1)
    made_again.run()
    made_again.advance(minutes=10)
    made_again.run()
    second = [p for p in made_again.stored_entry().history if not p.immutable]
    assert [p.superseded_at for p in second] == [None]


def test_the_longest_hold_ends_this_one_too(made_again: Scene) -> None:
    old = next(p.account for p in made_again.stored_entry().history if p.superseded_at is not None)
    made_again.advance(days=3)
    made_again.run(max_hold=timedelta(days=1))
    assert old.id not in made_again.account_ids()
    assert ("Warning", "HoldEnded") in made_again.events()


def test_an_immutable_secret_with_somebody_elses_key_marks_no_account_of_ours(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    scene.merge(SECRET, {"data": {"api_key": "bm90IGEga2V5"}, "immutable": True})
    scene.run()
    assert scene.outcome().result is Result.BLOCKED
    assert not any(p.immutable for p in scene.stored_entry().history)
