"""What a run sees of a target's account where the generator has moved to another project."""

from __future__ import annotations

import json

from tests.support.paths import GENERATOR, SECRET
from tests.support.scene import PROJECT, Scene
from worker.model.outcomes import Result


def test_a_project_left_behind_may_be_out_of_reach() -> None:
    """A generator that moves away from an archived project rotates into the new one."""
    scene = Scene()
    scene.apply_documented()
    scene.run()
    scene.openai.add_project("acme", "the-new-one")
    scene.openai.archive(PROJECT)
    scene.merge(GENERATOR, {"spec": {"projectId": "the-new-one"}})
    scene.run()
    assert scene.outcome().reason == "ProjectChanged"
    assert scene.accounts("the-new-one") == [scene.named()["name"]]


def test_an_old_copy_of_a_secret_from_another_project_heals() -> None:
    """A Secret restored from before a move names an account that is long gone: it gets a new key, not a block."""
    scene = Scene()
    scene.apply_documented()
    scene.run()
    old = scene.secret()
    assert old is not None
    scene.openai.add_project("acme", "the-new-one")
    scene.merge(GENERATOR, {"spec": {"projectId": "the-new-one"}})
    scene.run()
    assert scene.accounts() == []
    scene.merge(SECRET, {"data": old["data"], "metadata": {"annotations": old["metadata"]["annotations"]}})
    scene.run()
    assert (scene.outcome().result, scene.outcome().reason) == (Result.ROTATED, "AccountGone")
    assert scene.openai.use(scene.key())


def test_an_account_that_lives_unknown_in_another_project_blocks() -> None:
    """An annotation that names a living account which the ledger does not know is for a human to judge."""
    scene = Scene()
    scene.apply_documented()
    scene.run()
    scene.openai.add_project("acme", "elsewhere")
    stranger, _ = scene.openai.add_account("elsewhere", "stranger")
    forged = scene.named() | {"id": stranger.id, "name": "stranger", "projectId": "elsewhere"}
    annotation = {"openai-key-rotator.io/service-account": json.dumps(forged)}
    scene.merge(SECRET, {"metadata": {"annotations": annotation}})
    scene.run(force=True)
    assert (scene.outcome().result, scene.outcome().reason) == (Result.BLOCKED, "UnknownAccount")
    assert scene.accounts("elsewhere") == ["stranger"]
