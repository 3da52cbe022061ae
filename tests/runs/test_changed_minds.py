"""Users who change what they asked for: policy, data key, who asks, who owns the Secret."""

import pytest

from tests.support.paths import ENTRY, EXTERNAL_SECRET, NO_WAIT, SECRET
from tests.support.scene import Scene, checked_scene
from worker.kubernetes.secret import CURRENT, MANAGED, PREVIOUS

scene = pytest.fixture(checked_scene)
DAILY = {"spec": {"refreshInterval": "720h"}}


@pytest.fixture
def rotated(scene: Scene) -> Scene:
    scene.apply_documented()
    scene.run()
    scene.advance(minutes=10)
    return scene


@pytest.mark.parametrize("policy", ["Orphan", "Merge", "CreateOrMerge"])
def test_a_secret_outlives_its_external_secret_once_the_policy_says_so(rotated: Scene, policy: str) -> None:
    """In the next run, not only with the next rotation."""
    rotated.merge(EXTERNAL_SECRET, DAILY)
    rotated.merge(EXTERNAL_SECRET, {"spec": {"target": {"creationPolicy": policy}}})
    mints = rotated.openai.mints
    rotated.run()
    assert rotated.openai.mints == mints
    rotated.delete(EXTERNAL_SECRET)
    assert rotated.secret() is not None


@pytest.mark.parametrize("policy", ["Orphan", "Merge", "CreateOrMerge"])
def test_it_outlives_it_too_where_the_same_run_writes_the_annotation_again(rotated: Scene, policy: str) -> None:
    """Somebody stripped the annotation, and the user changed the policy: one run puts both right."""
    rotated.merge(EXTERNAL_SECRET, DAILY)
    rotated.merge(EXTERNAL_SECRET, {"spec": {"target": {"creationPolicy": policy}}})
    rotated.merge(SECRET, {"metadata": {"annotations": {CURRENT: None}}})
    mints = rotated.openai.mints
    rotated.run()
    assert rotated.outcome().reason == "AnnotationLost"
    assert rotated.openai.mints == mints
    assert rotated.live_key()
    secret = rotated.secret()
    assert secret is not None
    assert not secret["metadata"].get("ownerReferences")
    rotated.delete(EXTERNAL_SECRET)
    assert rotated.secret() is not None


def test_others_owner_references_stay(rotated: Scene) -> None:
    owner = rotated.kubernetes.find("secrets", "default", "openai-admin-secret")
    assert owner is not None
    other = {"apiVersion": "v1", "kind": "Secret", "name": "openai-admin-secret", "uid": owner["metadata"]["uid"]}
    secret = rotated.secret()
    assert secret is not None
    owners = [*secret["metadata"]["ownerReferences"], other]
    rotated.merge(SECRET, {"metadata": {"ownerReferences": owners}})
    rotated.merge(EXTERNAL_SECRET, {"spec": {"target": {"creationPolicy": "Orphan"}}})
    rotated.run()
    secret = rotated.secret()
    assert secret is not None
    assert secret["metadata"]["ownerReferences"] == [other]


def test_a_dry_run_leaves_the_owner_reference(rotated: Scene) -> None:
    rotated.merge(EXTERNAL_SECRET, {"spec": {"target": {"creationPolicy": "Orphan"}}})
    rotated.run(dry_run=True)
    secret = rotated.secret()
    assert secret is not None
    assert secret["metadata"]["ownerReferences"]


def test_an_account_goes_once_its_secret_lives_on_with_somebody_elses_key(scene: Scene) -> None:
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, {"spec": {"target": {"creationPolicy": "Orphan"}}})
    scene.run()
    scene.delete(EXTERNAL_SECRET)
    gone = {"annotations": {CURRENT: None, PREVIOUS: None}, "labels": {MANAGED: None}}
    scene.merge(SECRET, {"data": {"api_key": "c2stZnJvbS12YXVsdA=="}, "metadata": gone})
    for _ in range(3):
        scene.advance(hours=1)
        scene.run()
    assert scene.accounts() == []
    assert scene.entry() is None


def test_a_secret_that_still_carries_the_key_keeps_its_account(scene: Scene) -> None:
    """Nothing asks for it and the annotation is gone; the key is there."""
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, {"spec": {"target": {"creationPolicy": "Orphan"}}})
    scene.run()
    scene.delete(EXTERNAL_SECRET)
    scene.merge(SECRET, {"metadata": {"annotations": {CURRENT: None, PREVIOUS: None}}})
    for _ in range(3):
        scene.advance(hours=1)
        scene.run()
    assert scene.openai.use(scene.key())


def test_an_old_data_key_goes_although_the_annotation_that_named_it_is_lost(rotated: Scene) -> None:
    rename = {"rewrite": [{"regexp": {"source": "api_key", "target": "OPENAI_API_KEY"}}]}
    item = rotated.external_secret()["spec"]["dataFrom"][0] | rename
    rotated.merge(EXTERNAL_SECRET, {"spec": {"dataFrom": [item]}})
    rotated.merge(SECRET, {"metadata": {"annotations": {CURRENT: None}}})
    rotated.merge(SECRET, {"data": {"mine": "c29tZXRoaW5nIGVsc2U="}})
    rotated.run()
    secret = rotated.secret()
    assert secret is not None
    assert sorted(secret["data"]) == ["OPENAI_API_KEY", "mine"]
    rotated.advance(minutes=10)
    rotated.run()
    assert rotated.live_key(data_key="OPENAI_API_KEY")
    assert len(rotated.accounts()) == 1


def test_an_external_secret_made_anew_counts_as_a_change(scene: Scene) -> None:
    """OnChange: the same generation of another object."""
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshPolicy": "OnChange", "target": {"creationPolicy": "Orphan"}}})
    scene.run()
    scene.advance(minutes=10)
    scene.run()
    assert scene.outcome().reason == "NotDue"
    before = scene.external_secret()
    scene.delete(EXTERNAL_SECRET)
    anew = {
        "apiVersion": before["apiVersion"],
        "kind": before["kind"],
        "metadata": {"name": before["metadata"]["name"], "namespace": "default"},
        "spec": before["spec"] | {"refreshInterval": "9h"},
    }
    scene.apply(anew)
    while scene.external_secret()["metadata"]["generation"] < before["metadata"]["generation"]:
        generation = scene.external_secret()["metadata"]["generation"]
        scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": f"{generation + 20}h"}})
    assert scene.external_secret()["metadata"]["generation"] == before["metadata"]["generation"]
    scene.run(max_wait=NO_WAIT)
    assert scene.outcome().reason == "Requested"
    scene.advance(minutes=10)
    scene.run()
    assert scene.outcome().reason == "NotDue"


def test_an_entry_of_an_earlier_version_is_not_taken_for_another_object(scene: Scene) -> None:
    """The ledger has no uid yet: no rotation is asked for by the upgrade, and the uid is noted."""
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshPolicy": "OnChange"}})
    scene.run()
    scene.merge(ENTRY, {"status": {"honoured": {"source": None}}})
    scene.advance(minutes=10)
    scene.run()
    assert scene.outcome().reason == "NotDue"
    assert scene.stored_entry().honoured["source"] == scene.external_secret()["metadata"]["uid"]
