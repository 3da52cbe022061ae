"""A Secret of which somebody puts back half: the data or the annotation, not both."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.asleep import SleepyScene, asleep
from tests.support.paths import ENTRY, EXTERNAL_SECRET, NO_WAIT, SECRET
from tests.support.scene import Meanwhile, Scene


@pytest.mark.parametrize("half", ["annotation", "data"])
def test_half_a_secret_put_back_never_costs_a_live_key(half: str) -> None:
    """The key that is in the data stays alive as long as it is there, and the halves are brought together again."""
    scene = Scene()
    scene.apply_documented()
    scene.run()
    old = scene.secret()
    assert old is not None
    scene.advance(hours=1)
    scene.run(max_wait=timedelta(0))
    patch = {"data": old["data"]} if half == "data" else {"metadata": {"annotations": old["metadata"]["annotations"]}}
    scene.merge(SECRET, patch)
    in_use = scene.key()
    for _ in range(4):
        scene.advance(minutes=3)
        if scene.key() == in_use:
            assert scene.openai.use(in_use)
        scene.run()
        assert scene.openai.use(scene.key())
    named = scene.named()["name"]
    assert [named] == scene.accounts()


def test_a_key_replaced_by_hand_is_replaced_again() -> None:
    """A value that is not the account's is no key of ours: the target gets a new one."""
    scene = Scene()
    scene.apply_documented()
    scene.run()
    scene.merge(SECRET, {"data": {"api_key": "bm90IGEga2V5"}})
    scene.run()
    assert scene.outcome().reason == "KeyMissing"
    assert scene.openai.use(scene.key())


@pytest.mark.parametrize("late", [False, True])
def test_a_key_that_is_put_back_beside_two_runs_is_noted(late: bool) -> None:
    """The one that sees it has listed the ledger before the other replaced the key (seed 2844).

    `late`: it is not due any more, and has a decision to note.
    """
    scene = SleepyScene()
    scene.apply_documented()
    scene.run()
    old, name = scene.secret(), scene.named()["name"]
    assert old is not None
    scene.advance(hours=1)
    if late:
        scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "0"}})

    def put_back() -> None:
        scene.merge(SECRET, {"data": old["data"], "metadata": {"annotations": old["metadata"]["annotations"]}})

    other = {"max_wait": NO_WAIT, "force": late}
    scene.run(cluster_faults=Meanwhile(asleep(scene, 1, other, put_back), "PATCH", ENTRY), max_wait=NO_WAIT)
    assert scene.named()["name"] == name
    assert [p.account.name for p in scene.stored_entry().history if p.superseded_at is None] == [name]
