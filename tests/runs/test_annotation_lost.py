"""A Secret whose key is as the ledger knows it, and whose label or annotation somebody takes away or edits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from tests.support.paths import SECRET
from tests.support.scene import EPOCH, LEDGER, Scene, checked_scene
from worker.kubernetes.secret import CURRENT, MANAGED, PREVIOUS
from worker.model.outcomes import Result
from worker.model.times import format_time

scene = pytest.fixture(checked_scene)

STRIPPED = {"labels": {MANAGED: None}, "annotations": {CURRENT: None, PREVIOUS: None}}
EDITS: list[tuple[str, Mapping[str, Any]]] = [
    ("label and annotations stripped", STRIPPED),
    ("annotations stripped", {"annotations": STRIPPED["annotations"]}),
    ("annotation stripped", {"annotations": {CURRENT: None}}),
    ("annotation emptied", {"annotations": {CURRENT: ""}}),
    ("annotation malformed", {"annotations": {CURRENT: "{"}}),
    ("annotation without an id", {"annotations": {CURRENT: json.dumps({"name": "app"})}}),
    ("label stripped", {"labels": STRIPPED["labels"]}),
    ("label edited", {"labels": {MANAGED: "false"}}),
]


@pytest.mark.parametrize("metadata", [edit for _, edit in EDITS], ids=[name for name, _ in EDITS])
def test_what_is_stripped_each_run_is_written_again_and_nothing_is_made(
    scene: Scene, metadata: Mapping[str, Any]
) -> None:
    """A day's worth would be 144 accounts: the key is in place, so only its name is put back."""
    scene.apply_documented()
    scene.run()
    key, named, accounts = scene.key(), scene.named(), scene.account_ids()
    for _ in range(4):
        scene.advance(minutes=10)
        scene.merge(SECRET, {"metadata": metadata})
        scene.run(max_wait=timedelta(0))
        assert scene.outcome().result is Result.KEPT
        assert scene.outcome().reason == "AnnotationLost"
        assert scene.key() == key
        assert scene.named() == named
        secret = scene.secret()
        assert secret is not None
        assert secret["metadata"]["labels"][MANAGED] == "true"
        assert json.loads(secret["metadata"]["annotations"][PREVIOUS]) == []
    assert scene.account_ids() == accounts
    assert scene.events().count(("Warning", "AnnotationLost")) == 1
    assert scene.condition()["status"] == "True"
    scene.advance(minutes=10)
    scene.run(max_wait=timedelta(0))
    assert scene.outcome().reason == "NotDue"


def test_an_annotation_that_names_an_account_which_never_was_is_put_right(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    named, accounts = scene.named(), scene.account_ids()
    scene.advance(minutes=10)
    forged = json.dumps(named | {"id": "user-forged", "name": "app_forged"})
    scene.merge(SECRET, {"metadata": {"annotations": {CURRENT: forged}}})
    scene.run(max_wait=timedelta(0))
    assert scene.outcome().reason == "AnnotationLost"
    assert scene.named() == named
    assert scene.account_ids() == accounts


def test_the_annotation_alone_put_back_to_an_earlier_account_makes_no_key(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    earlier = scene.named()
    scene.advance(hours=1)
    scene.run(max_wait=timedelta(0))
    named, accounts = scene.named(), scene.account_ids()
    scene.advance(minutes=1)
    scene.merge(SECRET, {"metadata": {"annotations": {CURRENT: json.dumps(earlier)}}})
    scene.run(max_wait=timedelta(0))
    assert scene.outcome().reason == "AnnotationLost"
    assert scene.named() == named
    assert scene.account_ids() == accounts


def test_a_due_rotation_writes_both(scene: Scene) -> None:
    """What is due is not put off by somebody who strips the annotation each run."""
    scene.apply_documented()
    scene.run()
    key = scene.key()
    scene.advance(hours=1)
    scene.merge(SECRET, {"metadata": STRIPPED})
    scene.run()
    assert scene.outcome().reason == "Due"
    assert scene.key() != key
    assert scene.live_key()


def test_a_key_that_is_not_the_ledgers_is_replaced_although_the_annotation_went_with_it(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=10)
    scene.merge(SECRET, {"metadata": STRIPPED, "data": {"api_key": "bm90IGEga2V5"}})
    scene.run(max_wait=timedelta(0))
    assert scene.outcome().reason == "KeyMissing"
    assert scene.live_key()


def test_a_stripped_secret_without_an_owner_stays_ours(scene: Scene) -> None:
    """Orphan has no owner reference: without the label nothing but the key tells whose it is."""
    scene.apply_documented()
    scene.merge("/apis/external-secrets.io/v1/namespaces/default/externalsecrets/openai-credentials",
                {"spec": {"target": {"creationPolicy": "Orphan"}}})  # fmt: skip
    scene.run()
    named = scene.named()
    scene.advance(minutes=10)
    scene.merge(SECRET, {"metadata": STRIPPED})
    scene.run(max_wait=timedelta(0))
    assert scene.outcome().reason == "AnnotationLost"
    assert scene.named() == named


def test_a_dry_run_says_so_and_writes_nothing(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=10)
    scene.merge(SECRET, {"metadata": STRIPPED})
    before = scene.secret()
    scene.run(dry_run=True)
    assert scene.outcome().reason == "AnnotationLost"
    assert scene.secret() == before


def test_a_suspended_target_is_left_as_it_is(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    scene.merge("/apis/external-secrets.io/v1/namespaces/default/externalsecrets/openai-credentials",
                {"metadata": {"annotations": {"openai-key-rotator.io/suspend": "true"}}})  # fmt: skip
    scene.merge(SECRET, {"metadata": STRIPPED})
    before = scene.secret()
    scene.run()
    assert scene.outcome().reason == "Suspended"
    assert scene.secret() == before


def test_the_annotation_says_when_its_key_was_published_not_when_it_was_written_again(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=30)
    scene.merge(SECRET, {"metadata": STRIPPED})
    scene.run(max_wait=timedelta(0))
    assert scene.named()["publishedAt"] == format_time(EPOCH)
    assert scene.named()["ledger"] == scene.kubernetes.find("namespaces", "", LEDGER)["metadata"]["uid"]  # type: ignore[index]
