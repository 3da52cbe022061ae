"""A Secret of which somebody puts back half: the data or the annotation, not both."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.paths import SECRET
from tests.support.scene import Scene


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
