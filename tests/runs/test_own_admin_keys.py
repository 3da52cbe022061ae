"""The operator's own admin keys rotate: the Secrets beside the ledger that an annotation asks it for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import ANY

import pytest

from sandbox.openai.state import AdminKey
from sandbox.transport.faults import (
    Fate,
    Latency,
    Rule,
    Rules,
    answered,
    committed_late,
    delivered,
    request_lost,
    response_lost,
    too_many_requests,
)
from sandbox.transport.wire import Request, Response
from tests.support.ledger_secrets import fallback_key, granted_central_key
from tests.support.scene import LEDGER, Killer, Meanwhile, Scene, checked_scene, run_command
from worker.ledger.admin_codec import decode_admin_entry
from worker.model.admin_keys import AdminEntry
from worker.model.hidden import Hidden
from worker.model.outcomes import AdminKeyOutcome, Result
from worker.model.shard import Shard
from worker.model.values import Ref
from worker.report.summary import exit_code
from worker.settings.central_keys import CentralKeys

scene = pytest.fixture(checked_scene)
CENTRAL = Ref(LEDGER, "central")
SECRET = f"/api/v1/namespaces/{LEDGER}/secrets/central"
ENTRY = f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/adminkeyrotations/central"
INTERVAL = "openai-key-rotator.io/admin-key-interval"
GRACE = "openai-key-rotator.io/admin-key-grace"
KEYS = ".*/admin_api_keys"


@pytest.fixture
def granted(scene: Scene) -> CentralKeys:
    """A central key of 2000 hours, whose Secret is annotated."""
    granted = granted_central_key(scene)
    scene.openai.date_admin_key(scene.admin_key, scene.now() - timedelta(hours=2000))
    annotate(scene, "720h")
    return granted


def annotate(scene: Scene, interval: str | None) -> None:
    scene.merge(SECRET, {"metadata": {"annotations": {INTERVAL: interval}}})


def live(scene: Scene) -> list[AdminKey]:
    return list(scene.openai.admin_keys("acme"))


def held(scene: Scene) -> str:
    """The key in the Secret."""
    return scene.key(CENTRAL, "api-key")


def entry(scene: Scene) -> AdminEntry:
    found = scene.kubernetes.find("adminkeyrotations", LEDGER, "central")
    assert found is not None
    return decode_admin_entry(dict(found), scene.now())


def stored_keys(scene: Scene) -> list[dict[str, Any]]:
    found = scene.kubernetes.find("adminkeyrotations", LEDGER, "central")
    assert found is not None
    return [dict(key) for key in found["status"]["keys"]]


def outcome(scene: Scene) -> AdminKeyOutcome:
    (found,) = scene.watcher.admin_keys
    return found


def events(scene: Scene) -> list[str]:
    return sorted(
        event["reason"]
        for event in scene.kubernetes.objects("events", LEDGER)
        if event["involvedObject"]["name"] == "central"
    )


def pass_days(scene: Scene, granted: CentralKeys, days: int = 1, **options: Any) -> None:
    """A run each twelve hours, so many days long."""
    for _ in range(2 * days):
        scene.advance(hours=12)
        scene.run(central_keys=granted, **options)


def test_a_key_older_than_its_interval_is_replaced_and_goes_after_a_day(scene: Scene, granted: CentralKeys) -> None:
    scene.apply_documented(openAiAdminKey={})
    scene.run(central_keys=granted)
    assert outcome(scene).result is Result.ROTATED
    assert held(scene) != scene.admin_key
    assert len(live(scene)) == 2
    assert scene.run(central_keys=granted).outcomes[0].result is Result.KEPT
    assert len(live(scene)) == 2
    pass_days(scene, granted)
    assert [key.value for key in live(scene)] == [held(scene)]
    assert [key.made for key in entry(scene).history] == [True]
    assert outcome(scene).deleted == ("Admin key",)
    assert events(scene) == ["AdminKeyRotated"]


def test_it_goes_on_in_its_interval(scene: Scene, granted: CentralKeys) -> None:
    seen = []
    for _ in range(100):
        scene.run(central_keys=granted)
        seen.append(held(scene))
        scene.advance(days=1)
    assert len(set(seen)) == 4
    assert len(live(scene)) <= 2


def test_without_the_annotation_nothing_is_asked_of_openai(scene: Scene, granted: CentralKeys) -> None:
    annotate(scene, None)
    scene.run(central_keys=granted)
    assert held(scene) == scene.admin_key
    assert scene.watcher.admin_keys == []
    assert "GET admin_api_keys" not in scene.requests()
    assert scene.kubernetes.find("adminkeyrotations", LEDGER, "central") is None


def test_a_key_that_is_younger_is_recorded_and_stays(scene: Scene, granted: CentralKeys) -> None:
    scene.openai.date_admin_key(scene.admin_key, scene.now() - timedelta(hours=700))
    scene.run(central_keys=granted)
    assert (outcome(scene).result, outcome(scene).reason) == (Result.KEPT, "Rotated")
    assert held(scene) == scene.admin_key
    (key,) = entry(scene).history
    assert (key.made, key.superseded_at) == (False, None)
    scene.advance(hours=21)
    scene.run(central_keys=granted)
    assert outcome(scene).result is Result.ROTATED


def test_an_idle_run_asks_openai_nothing_and_writes_nothing(scene: Scene, granted: CentralKeys) -> None:
    scene.run(central_keys=granted)
    pass_days(scene, granted, 2)
    scene.run(central_keys=granted)
    kinds = scene.requests()
    assert not [kind for kind in kinds if "admin_api_keys" in kind or kind.startswith(("PATCH", "POST", "DELETE"))]


# --- somebody else has it


def test_a_former_key_that_somebody_else_uses_stays_and_is_told(scene: Scene, granted: CentralKeys) -> None:
    """A human's script: nobody but OpenAI knows of it."""
    scene.run(central_keys=granted)
    for _ in range(10):
        scene.advance(hours=12)
        assert scene.openai.use_admin_key(scene.admin_key)
        scene.run(central_keys=granted)
    assert "somebody else uses it" in outcome(scene).held[0]
    assert "AdminKeyInUse" in events(scene)
    assert entry(scene).superseded[0].held_since is not None
    pass_days(scene, granted, 40)  # also when the script has ended, and the next key is due
    assert scene.openai.admin_key(scene.admin_key) is not None


def test_where_openai_tells_no_use_a_former_key_stays(scene: Scene, granted: CentralKeys) -> None:
    scene.openai.shows_uses = False
    scene.run(central_keys=granted)
    pass_days(scene, granted, 3)
    assert scene.openai.admin_key(scene.admin_key) is not None
    assert "not known" in outcome(scene).held[0]


def test_former_keys_do_not_pile_up(scene: Scene, granted: CentralKeys) -> None:
    """Where none may go, three live: then a human is asked."""
    scene.openai.shows_uses = False
    for _ in range(200):
        scene.run(central_keys=granted)
        scene.advance(days=1)
    assert len(live(scene)) == 3
    assert (outcome(scene).result, outcome(scene).reason) == (Result.BLOCKED, "AdminKeysPileUp")
    assert "revoke --admin-secret central" in outcome(scene).message


def test_a_key_that_another_secret_has_too_stays(scene: Scene, granted: CentralKeys) -> None:
    """A tenant's, which this run reads: named, for it has to be changed there."""
    scene.apply_documented()
    scene.run(central_keys=granted)
    pass_days(scene, granted, 2)
    assert outcome(scene).held == ("Admin key: Secret default/openai-admin-secret has it too: put the new key there",)
    assert scene.outcome().result is not Result.FAILED


def test_the_fallback_secret_with_the_same_key_keeps_it_alive(scene: Scene, granted: CentralKeys) -> None:
    """Unused for months, and needed once: no use would tell."""
    fallback = fallback_key(scene, scene.admin_key)
    for _ in range(2):
        scene.run(central_keys=granted, fallback_admin_key=fallback)
        scene.advance(days=2)
    scene.run(central_keys=granted, fallback_admin_key=fallback)
    assert outcome(scene).held == (f"Admin key: Secret {LEDGER}/fallback has it too: put the new key there",)
    assert scene.openai.admin_key(scene.admin_key) is not None


def test_a_key_that_the_secret_has_under_another_data_key_too_stays(scene: Scene, granted: CentralKeys) -> None:
    """A script mounts it under a name of its own."""
    scene.merge(SECRET, {"stringData": {"OPENAI_ADMIN_KEY": scene.admin_key}})
    scene.run(central_keys=granted)
    pass_days(scene, granted, 2)
    place = f"Secret {LEDGER}/central, data key 'OPENAI_ADMIN_KEY'"
    assert outcome(scene).held == (f"Admin key: {place} has it too: put the new key there",)
    assert scene.openai.admin_key(scene.admin_key) is not None
    scene.merge(SECRET, {"stringData": {"OPENAI_ADMIN_KEY": held(scene)}})
    pass_days(scene, granted)
    assert [key.value for key in live(scene)] == [held(scene)]


def test_a_key_that_an_unnamed_secret_beside_the_ledger_has_too_stays(scene: Scene, granted: CentralKeys) -> None:
    """One of a generator there."""
    scene.apply_documented(LEDGER)
    scene.run(central_keys=granted)
    pass_days(scene, granted, 2)
    place = f"Secret {LEDGER}/openai-admin-secret"
    assert outcome(scene).held == (f"Admin key: {place} has it too: put the new key there",)


def test_the_fallback_key_rotates_as_well(scene: Scene) -> None:
    fallback = fallback_key(scene, scene.admin_key)
    path = f"/api/v1/namespaces/{LEDGER}/secrets/fallback"
    scene.merge(path, {"metadata": {"annotations": {INTERVAL: "720h"}}})
    scene.advance(days=31)
    for _ in range(3):
        scene.run(fallback_admin_key=fallback)
        scene.advance(days=1)
    new = scene.key(Ref(LEDGER, "fallback"), "api-key")
    assert [key.value for key in live(scene)] == [new]
    assert new != scene.admin_key


# --- what is told and left alone


def test_a_restricted_key_is_told_and_left_alone(scene: Scene, granted: CentralKeys) -> None:
    scene.openai.restrict(scene.admin_key, "read", "write", "admin_keys")
    scene.run(central_keys=granted)
    assert (outcome(scene).result, outcome(scene).reason) == (Result.BLOCKED, "AdminKeyRestricted")
    assert "api.management.write" in outcome(scene).message
    assert len(live(scene)) == 1
    assert events(scene) == ["AdminKeyNotRotated"]


def test_a_key_that_may_not_list_admin_keys_is_told(scene: Scene, granted: CentralKeys) -> None:
    scene.openai.restrict(scene.admin_key, "read", "write")
    scene.run(central_keys=granted)
    assert (outcome(scene).result, outcome(scene).reason) == (Result.BLOCKED, "AdminKeyNotListed")
    assert len(live(scene)) == 1


def test_a_key_that_openai_does_not_list_is_told(scene: Scene, granted: CentralKeys) -> None:
    """Its id is not known, so nobody could delete it later."""
    page = Response.of_json(200, {"object": "list", "data": [], "has_more": False})
    scene.run(central_keys=granted, openai_faults=Rules((Rule(answered(page), "GET", KEYS),), scene.random))
    assert (outcome(scene).result, outcome(scene).reason) == (Result.BLOCKED, "AdminKeyUnknown")
    assert len(live(scene)) == 1


@pytest.mark.parametrize("written", ["30d", "-1h", "10m", ""])
def test_an_interval_that_is_none_is_told(scene: Scene, granted: CentralKeys, written: str) -> None:
    annotate(scene, written)
    scene.run(central_keys=granted)
    assert (outcome(scene).result, outcome(scene).reason) == (Result.BLOCKED, "AdminKeyInterval")
    assert len(live(scene)) == 1


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ({"immutable": True}, "SecretImmutable"),
        (
            {
                "metadata": {
                    "ownerReferences": [
                        {
                            "apiVersion": "bitnami.com/v1alpha1",
                            "kind": "SealedSecret",
                            "name": "central",
                            "uid": "1",
                            "controller": True,
                        }
                    ]
                }
            },
            "AdminSecretOwned",
        ),
    ],
)
def test_a_secret_that_keeps_no_new_key_is_told(scene: Scene, granted: CentralKeys, patch: Any, reason: str) -> None:
    scene.merge(SECRET, patch)
    scene.run(central_keys=granted)
    assert (outcome(scene).result, outcome(scene).reason) == (Result.BLOCKED, reason)
    assert len(live(scene)) == 1


def test_without_the_right_to_write_the_secret_no_key_is_made(scene: Scene, granted: CentralKeys) -> None:
    scene.kubernetes.forbid("patch", "secrets", LEDGER)
    report = scene.run(central_keys=granted)
    assert (outcome(scene).result, outcome(scene).reason) == (Result.BLOCKED, "AdminSecretForbidden")
    assert "rotate-admin-keys" in outcome(scene).message
    assert exit_code(report, strict=False) == 0
    assert len(live(scene)) == 1


def test_without_the_kind_it_is_told(scene: Scene, granted: CentralKeys) -> None:
    """An upgrade without the CRDs."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/adminkeyrotations.openai-key-rotator.io"
    scene.delete(path)
    scene.run(central_keys=granted)
    assert outcome(scene).reason == "CRDMissing"
    annotate(scene, None)
    scene.run(central_keys=granted)
    assert scene.watcher.admin_keys == []


def test_a_dry_run_says_it_and_makes_nothing(scene: Scene, granted: CentralKeys) -> None:
    scene.run(central_keys=granted, dry_run=True)
    assert outcome(scene).reason == "WouldRotate"
    assert len(live(scene)) == 1
    assert scene.kubernetes.find("adminkeyrotations", LEDGER, "central") is None
    assert events(scene) == []


def test_another_ledgers_entry_is_left_as_it_is(scene: Scene, granted: CentralKeys) -> None:
    scene.run(central_keys=granted)
    scene.merge(ENTRY, {"spec": {"ledger": "another"}})
    scene.advance(days=60)
    scene.run(central_keys=granted)
    assert (outcome(scene).result, outcome(scene).reason) == (Result.BLOCKED, "ForeignLedger")
    assert len(live(scene)) == 2


def test_an_entry_that_was_edited_is_told(scene: Scene, granted: CentralKeys) -> None:
    scene.run(central_keys=granted)
    scene.merge(ENTRY, {"status": {"keys": [{"id": "../x", "digest": "a", "at": "2026-11-24T10:00:00Z"}]}})
    scene.run(central_keys=granted)
    assert outcome(scene).reason == "LedgerUnreadable"


@pytest.mark.parametrize("written", ["30d", "10m", ""])
def test_a_grace_that_is_none_lets_nothing_go(scene: Scene, granted: CentralKeys, written: str) -> None:
    """Its human wanted another one than a day."""
    scene.run(central_keys=granted)
    scene.merge(SECRET, {"metadata": {"annotations": {GRACE: written}}})
    pass_days(scene, granted, 3)
    assert (outcome(scene).result, outcome(scene).reason) == (Result.BLOCKED, "AdminKeyInterval")
    assert GRACE in outcome(scene).held[0]
    assert len(live(scene)) == 2
    scene.merge(SECRET, {"metadata": {"annotations": {GRACE: "96h"}}})
    pass_days(scene, granted, 2)
    assert [key.value for key in live(scene)] == [held(scene)]


# --- a publication that nobody noted


def publish_unnoted(scene: Scene, granted: CentralKeys) -> str:
    """A run publishes a key, and cannot note it. Returns the key."""
    unnoted = Rules((Rule(request_lost(), "PATCH", ".*/adminkeyrotations/central", skip=1),), scene.random)
    scene.run(central_keys=granted, cluster_faults=unnoted)
    assert outcome(scene).reason == "LedgerNotWritten"
    assert held(scene) != scene.admin_key
    return held(scene)


def test_who_uses_the_former_key_before_its_replacement_is_noted_keeps_it(scene: Scene, granted: CentralKeys) -> None:
    """The claim tells when it was replaced at the latest, however late the next run notes it."""
    publish_unnoted(scene, granted)
    scene.advance(hours=2)
    assert scene.openai.use_admin_key(scene.admin_key)
    scene.advance(hours=1)
    pass_days(scene, granted, 3)
    assert scene.openai.admin_key(scene.admin_key) is not None
    assert "somebody else uses it" in outcome(scene).held[0]


def test_a_key_put_back_and_replaced_unseen_stays_for_its_grace(scene: Scene, granted: CentralKeys) -> None:
    """It left the Secret long after the claim: a run may have read it right before."""
    ours = publish_unnoted(scene, granted)
    scene.merge(SECRET, {"stringData": {"api-key": scene.admin_key}})
    scene.advance(days=2)
    scene.merge(SECRET, {"stringData": {"api-key": ours}})
    scene.run(central_keys=granted)
    assert scene.openai.admin_key(scene.admin_key) is not None


@pytest.mark.parametrize("used", [False, True])
def test_a_published_key_that_a_human_replaces_unseen_stays_if_it_was_used(
    scene: Scene, granted: CentralKeys, used: bool
) -> None:
    """No run has seen it in the Secret: only its use tells that somebody has it."""
    ours, own = publish_unnoted(scene, granted), scene.openai.add_admin_key("acme")
    scene.advance(minutes=30)
    if used:
        assert scene.openai.use_admin_key(ours)
    scene.merge(SECRET, {"stringData": {"api-key": own}})
    scene.advance(hours=1)
    scene.run(central_keys=granted)
    assert (scene.openai.admin_key(ours) is not None) == used
    scene.advance(hours=2)
    if used:
        assert scene.openai.use_admin_key(ours)
    pass_days(scene, granted, 3)
    assert (scene.openai.admin_key(ours) is not None) == used
    assert [key.held for key in entry(scene).superseded if "somebody else" in key.held] == ([ANY] if used else [])


def test_a_published_key_that_nobody_uses_any_more_goes_after_its_grace(scene: Scene, granted: CentralKeys) -> None:
    ours, own = publish_unnoted(scene, granted), scene.openai.add_admin_key("acme")
    scene.advance(minutes=30)
    assert scene.openai.use_admin_key(ours)
    scene.merge(SECRET, {"stringData": {"api-key": own}})
    pass_days(scene, granted, 3)
    assert scene.openai.admin_key(ours) is None
    assert held(scene) == own


# --- people change the Secret


def test_a_key_that_a_human_put_in_is_recorded_and_ours_goes(scene: Scene, granted: CentralKeys) -> None:
    scene.run(central_keys=granted)
    ours, own = held(scene), scene.openai.add_admin_key("acme")
    scene.merge(SECRET, {"stringData": {"api-key": own}})
    pass_days(scene, granted, 3)
    assert [key.value for key in live(scene)] == [own]
    assert ours != own
    assert [key.made for key in entry(scene).history] == [False]


def test_a_key_that_a_human_takes_out_while_the_worker_backs_off_is_noted_at_once(
    scene: Scene, granted: CentralKeys
) -> None:
    """Its grace counts from the next run, not from the next attempt to make a key."""
    scene.run(central_keys=granted)
    ours, own = held(scene), scene.openai.add_admin_key("acme")
    refused = Rules((Rule(FATES["400"], "POST", KEYS),), scene.random)
    scene.advance(hours=720)
    for _ in range(5 * 24):
        scene.advance(hours=1)
        scene.run(central_keys=granted, openai_faults=refused)
        if outcome(scene).reason == "BackingOff" and entry(scene).failures.count > 4:
            break
    scene.merge(SECRET, {"stringData": {"api-key": own}})
    scene.advance(minutes=10)
    scene.run(central_keys=granted, openai_faults=refused)
    assert outcome(scene).reason == "BackingOff"
    (former,) = entry(scene).superseded
    assert former.digest == Hidden(ours).digest()
    assert former.superseded_at is not None
    assert scene.now() - former.superseded_at < timedelta(minutes=1)


def test_a_humans_key_that_a_human_replaced_is_not_deleted(scene: Scene, granted: CentralKeys) -> None:
    """It was never the worker's to delete."""
    scene.openai.date_admin_key(scene.admin_key, scene.now())
    scene.run(central_keys=granted)
    own = scene.openai.add_admin_key("acme")
    scene.merge(SECRET, {"stringData": {"api-key": own}})
    pass_days(scene, granted, 3)
    assert scene.openai.admin_key(scene.admin_key) is not None
    assert [key.name for key in entry(scene).history] == ["Admin key"]
    assert entry(scene).history[0].digest == Hidden(own).digest()


def test_a_former_key_that_is_put_back_stays_and_no_further_one_is_made(scene: Scene, granted: CentralKeys) -> None:
    """A tool applies the Secret from elsewhere, over and over."""
    scene.run(central_keys=granted)
    for _ in range(100):
        scene.merge(SECRET, {"stringData": {"api-key": scene.admin_key}})
        scene.advance(hours=12)
        scene.run(central_keys=granted)
        assert scene.openai.admin_key(scene.admin_key) is not None
    assert (outcome(scene).result, outcome(scene).reason) == (Result.BLOCKED, "PutBack")
    assert [key.value for key in live(scene)] == [scene.admin_key]
    annotate(scene, None)
    scene.run(central_keys=granted)
    annotate(scene, "720h")
    scene.run(central_keys=granted)
    assert outcome(scene).result is Result.ROTATED


def test_a_humans_key_that_gives_way_to_the_former_one_is_not_deleted(scene: Scene, granted: CentralKeys) -> None:
    """The first key, the worker's, one of a human's own, and the first again: a human took the third one out."""
    scene.run(central_keys=granted)
    own = scene.openai.add_admin_key("acme")
    for value in (own, scene.admin_key):
        scene.merge(SECRET, {"stringData": {"api-key": value}})
        scene.run(central_keys=granted)
    pass_days(scene, granted, 4)
    assert {key.value for key in live(scene)} == {own, scene.admin_key}


def test_a_mistake_in_the_secret_that_is_mended_is_no_putting_back(scene: Scene, granted: CentralKeys) -> None:
    scene.run(central_keys=granted)
    ours = held(scene)
    scene.merge(SECRET, {"stringData": {"api-key": "sk-admin-CANARYnonsense"}})
    scene.run(central_keys=granted)
    assert outcome(scene).result is Result.FAILED
    scene.merge(SECRET, {"stringData": {"api-key": ours}})
    pass_days(scene, granted, 31)
    assert outcome(scene).result is not Result.BLOCKED
    assert scene.openai.admin_key(held(scene)) is not None


def test_what_was_replaced_goes_also_when_the_annotation_has_gone(scene: Scene, granted: CentralKeys) -> None:
    scene.run(central_keys=granted)
    annotate(scene, None)
    pass_days(scene, granted, 2)
    assert [key.value for key in live(scene)] == [held(scene)]


def test_a_key_of_ours_stays_recorded_while_the_secret_has_it(scene: Scene, granted: CentralKeys) -> None:
    """The annotation has gone. Later a human puts a key of their own in: then ours is nobody's, and goes."""
    scene.run(central_keys=granted)
    annotate(scene, None)
    pass_days(scene, granted, 2)
    condition = entry(scene).condition
    assert condition is not None
    assert (condition.ready, condition.reason) == (True, "Unasked")
    assert entry(scene).next_rotation_at is None
    own = scene.openai.add_admin_key("acme")
    scene.merge(SECRET, {"stringData": {"api-key": own}})
    pass_days(scene, granted, 2)
    assert [key.value for key in live(scene)] == [own]
    assert scene.kubernetes.find("adminkeyrotations", LEDGER, "central") is None


def test_a_key_that_was_put_back_counts_as_any_other_after_a_run_without_the_annotation(
    scene: Scene, granted: CentralKeys
) -> None:
    """On the same day too, while the worker's own key is in its grace."""
    scene.run(central_keys=granted)
    scene.merge(SECRET, {"stringData": {"api-key": scene.admin_key}})
    for interval in ("720h", None, "720h"):
        annotate(scene, interval)
        scene.run(central_keys=granted)
    assert (outcome(scene).result, outcome(scene).reason) == (Result.KEPT, "Rotated")
    pass_days(scene, granted, 31)
    assert held(scene) != scene.admin_key


# --- the new key


def test_a_key_with_an_end_has_a_successor_with_the_same_lifetime(scene: Scene, granted: CentralKeys) -> None:
    """And is replaced when a third of its life is left, whatever the interval is."""
    annotate(scene, "7200h")
    scene.openai.expire_admin_key(scene.admin_key, scene.now() + timedelta(hours=999))
    scene.run(central_keys=granted)
    assert outcome(scene).result is Result.ROTATED
    new = scene.openai.admin_key(held(scene))
    assert new is not None
    assert new.expires_at is not None
    assert new.expires_at - new.created_at == timedelta(hours=2999)
    for _ in range(300):
        scene.advance(days=1)
        scene.run(central_keys=granted)
        assert scene.openai.use_admin_key(held(scene))


@pytest.mark.parametrize("hours", [6, 12, 24, 36, 72])
def test_a_key_with_a_short_life_is_replaced_in_time(scene: Scene, granted: CentralKeys, hours: int) -> None:
    """Also where several end within the grace."""
    scene.openai.date_admin_key(scene.admin_key, scene.now())
    scene.openai.expire_admin_key(scene.admin_key, scene.now() + timedelta(hours=hours))
    for _ in range(10 * 24):
        scene.run(central_keys=granted)
        scene.advance(hours=1)
        assert scene.openai.use_admin_key(held(scene)), outcome(scene).message
    assert len(entry(scene).history) <= 8


def test_a_key_whose_end_is_told_wrongly_makes_no_keys_in_a_loop(scene: Scene, granted: CentralKeys) -> None:
    """As if each new one had ended before it was made."""
    scene.run(central_keys=granted)
    for _ in range(50):
        keys = [key | {"expiresAt": "2026-11-01T00:00:00Z"} for key in stored_keys(scene)]
        scene.merge(ENTRY, {"status": {"keys": keys}})
        scene.advance(hours=1)
        scene.run(central_keys=granted)
        assert scene.requests().count("POST admin_api_keys") == 0


def test_a_time_that_lies_ahead_in_the_ledger_makes_nothing_wait_longer(scene: Scene, granted: CentralKeys) -> None:
    scene.run(central_keys=granted)
    made = held(scene)
    ahead = dict.fromkeys(("createdAt", "at"), "2099-01-01T00:00:00Z")
    scene.merge(ENTRY, {"status": {"keys": [key | ahead for key in stored_keys(scene)], "lastRotatedAt": ahead["at"]}})
    pass_days(scene, granted, 31)
    assert held(scene) != made


def test_a_key_that_is_never_accepted_is_not_published(scene: Scene, granted: CentralKeys) -> None:
    scene.openai.acceptance_delay = 10**6
    scene.run(central_keys=granted)
    assert (outcome(scene).result, outcome(scene).reason) == (Result.FAILED, "KeyNotAccepted")
    assert held(scene) == scene.admin_key
    for _ in range(10):
        scene.advance(minutes=2)
        scene.run(central_keys=granted)
    assert [key.value for key in live(scene)] == [scene.admin_key]
    scene.openai.acceptance_delay = 20
    pass_days(scene, granted, 3)
    assert [key.value for key in live(scene)] == [held(scene)]
    assert held(scene) != scene.admin_key


def test_new_keys_that_lists_show_late_are_waited_for(scene: Scene, granted: CentralKeys) -> None:
    scene.openai.listing_delay = 30
    scene.run(central_keys=granted)
    assert outcome(scene).result is Result.ROTATED


# --- faults


FATES = {
    "lost": response_lost(),
    "broken": response_lost(disconnected=True),
    "409": answered(Response.of_json(409, {"error": {"message": "busy"}})),
    "500": answered(Response.of_json(500, {"error": {}})),
    "429": too_many_requests(),
    "page": answered(Response.of_text(200, "<p>", "text/html")),
    "400": answered(Response.of_json(400, {"error": {"message": "no"}})),
}


@pytest.mark.parametrize("fate", FATES.values(), ids=FATES)
def test_creates_that_always_fail_make_no_keys_in_a_loop(scene: Scene, granted: CentralKeys, fate: Any) -> None:
    """Five days of hourly runs."""
    always = Rules((Rule(fate, "POST", KEYS),), scene.random)
    most, creates = 0, 0
    for _ in range(5 * 24):
        scene.run(central_keys=granted, openai_faults=always)
        creates += scene.requests().count("POST admin_api_keys")
        most = max(most, len(live(scene)))
        scene.advance(hours=1)
    assert most <= 2
    assert creates <= 12  # from ten minutes to a day between two
    assert held(scene) == scene.admin_key
    for _ in range(8):
        scene.advance(hours=12)
        scene.run(central_keys=granted)
    assert [key.value for key in live(scene)] == [held(scene)]
    assert held(scene) != scene.admin_key


@pytest.mark.parametrize("late", [0, 20, 100])
def test_a_publication_without_an_answer_is_told_by_the_secret(scene: Scene, granted: CentralKeys, late: int) -> None:
    """It arrives, whenever that is."""
    fate = committed_late(late) if late else response_lost()
    lost = Rules((Rule(fate, "PATCH", ".*/secrets/central", skip=1),), scene.random)
    scene.run(central_keys=granted, cluster_faults=lost)
    for _ in range(12):
        scene.advance(minutes=3)
        scene.run(central_keys=granted)
        assert scene.openai.use_admin_key(held(scene))
    pass_days(scene, granted, 3)
    assert held(scene) != scene.admin_key
    assert [key.value for key in live(scene)] == [held(scene)]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_run_that_dies_at_any_request_leaves_a_working_key_and_none_behind(after: bool) -> None:
    """Killed before it sends each of its requests, and after each was served."""
    number = 0
    while True:
        scene = Scene()
        granted = granted_central_key(scene)
        annotate(scene, "720h")
        scene.advance(hours=2000)
        killer = Killer(number, after)

        killed = scene.killed(killer, run_command, central_keys=granted)
        for _ in range(4):
            assert scene.openai.admin_key(held(scene)) is not None
            scene.advance(minutes=10)
            scene.run(central_keys=granted)
        pass_days(scene, granted, 4)
        assert [key.value for key in live(scene)] == [held(scene)], (number, after)
        assert held(scene) != scene.admin_key
        scene.assert_nothing_shown()
        if not killed:
            break
        number += 1
    assert number >= 12


def test_two_runs_at_once_make_one_key(scene: Scene, granted: CentralKeys) -> None:
    scene.run_together({"central_keys": granted}, {"central_keys": granted})
    assert len(live(scene)) == 2
    results = sorted(item.result for watcher in scene.watchers for item in watcher.admin_keys)
    assert results == [Result.KEPT, Result.ROTATED]


def test_runs_that_begin_shortly_after_one_another_make_one_key(scene: Scene, granted: CentralKeys) -> None:
    scene.openai.acceptance_delay = 30
    scene.run_together(*({"central_keys": granted} for _ in range(5)), apart=7)
    assert len(live(scene)) == 2


def test_of_several_shards_one_replaces_it(scene: Scene, granted: CentralKeys) -> None:
    scene.run_together(*({"central_keys": granted, "shard": Shard(index, 3)} for index in range(3)))
    assert len(live(scene)) == 2
    assert [item.result for watcher in scene.watchers for item in watcher.admin_keys] == [Result.ROTATED]


def test_a_create_that_was_sent_twice_leaves_no_twin(scene: Scene, granted: CentralKeys) -> None:
    """Something on the way repeats it: one answer gets through."""

    def again(name: str) -> None:
        scene.openai.add_admin_key("acme")
        live(scene)[-1].name = name

    scene.run(central_keys=granted)
    again(entry(scene).history[-1].name)
    assert len(live(scene)) == 3
    pass_days(scene, granted, 2)
    assert [key.value for key in live(scene)] == [held(scene)]


def test_a_key_that_somebody_deleted_leaves_the_ledger(scene: Scene, granted: CentralKeys) -> None:
    scene.run(central_keys=granted)
    scene.openai.revoke_admin_key(scene.admin_key)
    pass_days(scene, granted, 2)
    assert [key.made for key in entry(scene).history] == [True]


def test_a_secret_that_changes_right_before_the_delete_keeps_its_key(scene: Scene, granted: CentralKeys) -> None:
    """Somebody puts the former key back in that very second."""
    scene.run(central_keys=granted)
    scene.advance(days=2)
    back = Meanwhile(lambda: scene.merge(SECRET, {"stringData": {"api-key": scene.admin_key}}), "GET", KEYS)
    scene.run(central_keys=granted, openai_faults=back)
    assert scene.openai.admin_key(held(scene)) is not None
    pass_days(scene, granted, 3)
    assert scene.openai.admin_key(held(scene)) is not None


@pytest.mark.parametrize("count", [0, 9], ids=["deleted", "deleted later"])
def test_a_key_whose_claim_was_lost_while_openai_made_it_goes(scene: Scene, granted: CentralKeys, count: int) -> None:
    """Another run has settled the intent; this run cannot delete its key right away."""

    class Faults:
        settled = Meanwhile(lambda: scene.merge(ENTRY, {"status": {"intent": None}}), "POST", KEYS)
        refused = Rules((Rule(request_lost(), "DELETE", KEYS + ".*", count=count),), scene.random)

        def fate(self, request: Request) -> Fate:
            self.settled.fate(request)
            return self.refused.fate(request) if count else delivered()

    scene.run(central_keys=granted, openai_faults=Faults())
    assert (outcome(scene).result, held(scene)) == (Result.FAILED, scene.admin_key)
    pass_days(scene, granted, 3)
    assert [key.value for key in live(scene)] == [held(scene)]
    assert held(scene) != scene.admin_key


def test_it_comes_after_everything_that_the_run_does_with_the_former_key(scene: Scene, granted: CentralKeys) -> None:
    scene.apply_documented(openAiAdminKey={})
    scene.run(central_keys=granted)
    kinds = [kind for kind in scene.requests() if "service_accounts" in kind or kind == "POST admin_api_keys"]
    assert kinds[-1] == "POST admin_api_keys"
    assert scene.outcome().result is Result.ROTATED


def test_a_run_that_read_the_former_key_goes_on_with_it(scene: Scene, granted: CentralKeys) -> None:
    """Another run replaces it meanwhile; and its use is not taken for somebody else's."""
    scene.apply_documented(openAiAdminKey={})
    slow = Latency(20)
    scene.run_together({"central_keys": granted, "openai_faults": slow}, {"central_keys": granted})
    pass_days(scene, granted, 2)
    assert [key.value for key in live(scene)] == [held(scene)]
