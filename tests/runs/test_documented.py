"""The documented objects, run by run: made, kept, rotated, and the account before deleted after its grace."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from sandbox.openai.state import KeyStatus
from tests.support.paths import EXTERNAL_SECRET, GENERATOR, SECRET
from tests.support.scene import EPOCH, HOST, LEDGER, PROJECT, TARGET, Scene, checked_scene
from worker.kubernetes.secret import CURRENT, MANAGED, PREVIOUS
from worker.model.outcomes import Result
from worker.model.times import format_time
from worker.report.summary import exit_code

scene = pytest.fixture(checked_scene)


@pytest.fixture
def running(scene: Scene) -> Scene:
    """The documented objects, after a first run."""
    scene.apply_documented()
    scene.run()
    return scene


def annotate(scene: Scene, path: str, **values: str | None) -> None:
    names = {"rotate": "openai-key-rotator.io/rotate", "force_sync": "force-sync"}
    scene.merge(path, {"metadata": {"annotations": {names.get(key, key): value for key, value in values.items()}}})


# --- the first run


def test_the_first_run_makes_account_and_secret(running: Scene) -> None:
    """The account has the documented name, and its key, which OpenAI accepts, is in the Secret under `api_key`."""
    assert running.outcome().result is Result.ROTATED
    (name,) = running.accounts()
    prefix, _, random_part = name.partition("_")
    assert (prefix, len(random_part)) == ("app", 10)
    assert running.live_key()
    secret = running.secret()
    assert secret is not None
    assert secret["type"] == "Opaque"
    assert set(secret["data"]) == {"api_key"}


def test_the_annotation_names_the_account(running: Scene) -> None:
    """With all that tells which account it is, where, since when, for which target and by which installation."""
    (account,) = running.openai.accounts(PROJECT)
    ledger = running.kubernetes.find("namespaces", "", LEDGER)
    assert ledger is not None
    assert running.named() == {
        "id": account.id,
        "name": account.name,
        "keyId": account.keys[0],
        "projectId": PROJECT,
        "host": HOST,
        "publishedAt": format_time(EPOCH),
        "target": "default/openai-credentials",
        "ledger": ledger["metadata"]["uid"],
        "dataKey": "api_key",
    }
    secret = running.secret()
    assert secret is not None
    assert secret["metadata"]["labels"] == {MANAGED: "true"}
    assert secret["metadata"]["annotations"][PREVIOUS] == "[]"


def test_the_secret_is_owned_by_its_external_secret(running: Scene) -> None:
    """So that it goes with it; without blockOwnerDeletion, which would need more permissions."""
    source = running.external_secret()
    secret = running.secret()
    assert secret is not None
    assert secret["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "external-secrets.io/v1",
            "kind": "ExternalSecret",
            "name": "openai-credentials",
            "uid": source["metadata"]["uid"],
            "controller": True,
        }
    ]


def test_the_external_secret_reads_as_its_users_expect(running: Scene) -> None:
    """Condition, refresh time, synced version and binding, as External Secrets Operator writes them."""
    status = running.external_secret()["status"]
    assert status["conditions"] == [
        {
            "type": "Ready",
            "status": "True",
            "reason": "SecretSynced",
            "message": "secret synced",
            "lastTransitionTime": format_time(EPOCH),
        }
    ]
    assert status["refreshTime"] == format_time(EPOCH)
    assert status["binding"] == {"name": "openai-credentials"}
    assert status["syncedResourceVersion"].startswith("1-")
    assert running.events() == [("Normal", "Created")]


def test_the_ledger_tells_the_state(running: Scene) -> None:
    """One KeyRotation per target, with what its printer columns show."""
    (stored,) = running.kubernetes.objects("keyrotations")
    (name,) = running.accounts()
    assert stored["metadata"]["name"] == "default.openai-credentials"
    assert stored["metadata"]["namespace"] == LEDGER
    status = stored["status"]
    assert list(status["accounts"]) == [name]
    assert status["accountCount"] == 1
    assert status["lastRotatedAt"] == status["since"] == status["oldestKeyAt"] == format_time(EPOCH)
    assert status["nextRotationAt"] == format_time(EPOCH + timedelta(hours=1))
    assert [(c["type"], c["status"], c["reason"]) for c in status["conditions"]] == [("Ready", "True", "Rotated")]
    assert "observedGeneration" not in status


def test_a_first_run_that_does_nothing_else_ends_well(scene: Scene) -> None:
    """A cluster without generators is nothing to complain about."""
    report = scene.run()
    assert report.outcomes == ()
    assert exit_code(report, strict=True) == 0


# --- the next runs


@pytest.mark.parametrize("minutes", [0, 1, 30, 54])
def test_a_run_before_the_interval_keeps_the_key(running: Scene, minutes: float) -> None:
    """Nothing is written, neither at OpenAI nor in the cluster."""
    version, key = running.kubernetes.find("secrets", "default", TARGET.name), running.key()
    running.advance(minutes=minutes)
    running.run()
    assert running.outcome().result is Result.KEPT
    assert running.key() == key
    assert running.kubernetes.find("secrets", "default", TARGET.name) == version
    assert {kind.split()[0] for kind in running.requests()} == {"GET"}


@pytest.mark.parametrize("minutes", [55, 60, 61, 60 * 24 * 30])
def test_a_run_after_the_interval_rotates(running: Scene, minutes: float) -> None:
    """A new account is published; a schedule that comes up to five minutes early is no reason to wait for more."""
    before = running.named()
    running.advance(minutes=minutes)
    running.run(max_wait=timedelta(0))
    assert (running.outcome().result, running.outcome().reason) == (Result.ROTATED, "Due")
    assert running.named()["id"] != before["id"]
    assert running.live_key()
    assert running.events() == [("Normal", "Created"), ("Normal", "Updated")]


def test_intervals_are_measured_from_run_to_run(running: Scene) -> None:
    """However long each run takes: a CronJob of the same interval rotates with every one of its runs."""
    running.openai.acceptance_delay = 20
    for hour in range(1, 5):
        running.seconds = hour * 3600
        running.run()
        assert running.outcome().result is Result.ROTATED, hour


def test_force_rotates_at_once(running: Scene) -> None:
    """`--force` needs no due date, and mints once per run."""
    running.advance(minutes=1)
    running.run(force=True, max_wait=timedelta(0))
    assert (running.outcome().result, running.outcome().reason) == (Result.ROTATED, "Forced")
    assert len(running.accounts()) == 2
    running.run(max_wait=timedelta(0))
    assert running.outcome().result is Result.KEPT


@pytest.mark.parametrize(
    ("path", "annotation"),
    [(EXTERNAL_SECRET, "rotate"), (EXTERNAL_SECRET, "force_sync"), (GENERATOR, "rotate")],
)
def test_a_new_value_of_an_annotation_rotates_once(running: Scene, path: str, annotation: str) -> None:
    """Each new value is one request: neither a second run nor taking it away asks again."""
    results = []
    for value in ("1", "1", "2", None, "2"):
        annotate(running, path, **{annotation: value})
        running.advance(minutes=1)
        running.run(max_wait=timedelta(0))
        results.append(running.outcome().result)
    assert results == [Result.ROTATED, Result.KEPT, Result.ROTATED, Result.KEPT, Result.KEPT]
    assert running.outcome().reason == "NotDue"


def test_a_value_that_was_there_from_the_start_is_served_by_the_first_rotation(scene: Scene) -> None:
    """It asks for a key, and the first run has made one."""
    scene.apply_documented()
    annotate(scene, EXTERNAL_SECRET, force_sync="1762000000")
    scene.run()
    scene.run()
    assert scene.openai.mints == 1


@pytest.mark.parametrize("path", [EXTERNAL_SECRET, GENERATOR, SECRET])
def test_other_labels_and_annotations_rotate_nothing(running: Scene, path: str) -> None:
    """A label edit is no request for a key."""
    running.merge(path, {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}})
    running.run()
    assert (running.outcome().result, running.openai.mints) == (Result.KEPT, 1)


# --- the account before


def test_the_account_before_is_deleted_after_its_grace_in_the_same_run(running: Scene) -> None:
    """The run waits for a grace period that fits into `--max-wait`, and then deletes what the annotation recorded."""
    before, key = running.named(), running.key()
    running.advance(hours=1)
    began = running.now()
    running.run()
    secret = running.secret()
    assert secret is not None
    assert before["id"] in secret["metadata"]["annotations"][PREVIOUS]
    assert running.account_ids() == {running.named()["id"]}
    assert running.openai.key_status(key) is KeyStatus.DELETED
    assert running.now() - began >= timedelta(minutes=2)
    assert running.stored_entry().history[0].account.name == running.named()["name"]
    retired = running.retired()
    assert retired is not None
    assert retired.deleted == (before["name"],)


def test_without_waiting_the_next_run_deletes_it(running: Scene) -> None:
    """`--max-wait 0` leaves the grace period to the next run, which finds the account in the ledger."""
    before = running.named()["id"]
    running.advance(hours=1)
    running.run(max_wait=timedelta(0))
    assert running.watcher.waits == []
    assert before in running.account_ids()
    assert len(running.stored_entry().history) == 2
    running.advance(minutes=1)
    running.run(max_wait=timedelta(0))
    assert before in running.account_ids(), "the grace of two minutes has not passed"
    running.advance(minutes=1, seconds=1)
    running.run(max_wait=timedelta(0))
    assert before not in running.account_ids()
    assert len(running.stored_entry().history) == 1


def test_a_grace_longer_than_the_wait_is_left_to_the_next_run(scene: Scene) -> None:
    """Nothing is waited for that will not happen within `--max-wait`."""
    scene.apply_documented(cleanupPolicy={"type": "retainLatest", "gracePeriod": "30m"})
    scene.run()
    scene.advance(hours=1)
    began = scene.now()
    scene.run(max_wait=timedelta(minutes=29))
    assert (scene.watcher.waits, scene.now()) == ([], began)
    scene.advance(minutes=30)
    scene.run()
    assert len(scene.accounts()) == 1


def test_idle_waits_for_the_key_to_go_unused(scene: Scene) -> None:
    """With `cleanupPolicy` idle an account stays while its key is used, and a never used one as long as the timeout."""
    scene.apply_documented(cleanupPolicy={"type": "idle", "idleTimeout": "2h"})
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "0"}})
    scene.run()
    old = scene.key()
    scene.run(force=True)
    counts = []
    for use in (True, True, False, False):
        scene.advance(minutes=61)
        if use:
            assert scene.openai.use(old)
        scene.run()
        counts.append(len(scene.accounts()))
    assert counts == [2, 2, 2, 1]


def test_an_account_whose_key_is_used_after_it_was_superseded_is_held(running: Scene) -> None:
    """Somebody unseen has the key: it is kept and reported, at most for `--unseen-hold`."""
    old, name = running.key(), running.named()["name"]
    running.advance(hours=1)
    running.run(max_wait=timedelta(0))
    running.advance(minutes=10)
    assert running.openai.use(old)
    running.run()
    assert name in running.accounts()
    retired = running.retired()
    assert retired is not None
    assert "was used" in retired.message
    (stored,) = running.kubernetes.objects("keyrotations")
    assert "was used" in stored["status"]["accounts"][name]["held"]
    running.advance(hours=24)
    running.run(max_wait=timedelta(0))
    assert name not in running.accounts()


def test_only_two_accounts_at_a_time_over_a_week(running: Scene) -> None:
    """Always a live key in the Secret, never more accounts than the current one and the one before."""
    for hour in range(24 * 7):
        running.seconds = (hour + 1) * 3600.0
        running.run(max_wait=timedelta(minutes=3))
        assert running.live_key()
        assert len(running.accounts()) == 1
    assert running.openai.mints == 1 + 24 * 7


# --- what it costs


def kinds(requests: list[str]) -> Counter[str]:
    """Without what is read once a run, whatever the number of targets."""
    once = {
        "GET namespaces",
        "GET openais",
        "GET externalsecrets",
        "GET keyrotations",
    }
    return Counter(kind for kind in requests if kind not in once)


def many(scene: Scene, count: int) -> None:
    """So many targets in one namespace, fed by one generator."""
    scene.apply_documented()
    source: dict[str, Any] = dict(scene.external_secret())
    for i in range(1, count):
        scene.apply(
            {
                "apiVersion": source["apiVersion"],
                "kind": "ExternalSecret",
                "metadata": {"name": f"creds-{i}", "namespace": "default"},
                "spec": source["spec"],
            }
        )


def test_what_a_rotation_costs(scene: Scene) -> None:
    """At most 7 requests to Kubernetes plus an Event, and 4 to OpenAI, from due to the deletion of the one before."""
    many(scene, 20)
    scene.run()
    scene.advance(hours=1)
    report = scene.run()
    assert Counter(outcome.result for outcome in report.outcomes) == {Result.ROTATED: 20}
    assert len(scene.accounts()) == 20
    assert scene.cluster_session is not None
    assert scene.openai_session is not None
    cluster = kinds([exchange.kind for exchange in scene.cluster_session.log])
    once = 1  # the admin key
    assert cluster.pop("GET pods") <= 6  # of one namespace: before deletions, and after changes that share a list
    assert cluster.pop("POST events") == 20
    assert cluster.total() - once <= 7 * 20, cluster
    openai = kinds([exchange.kind for exchange in scene.openai_session.log])
    lists = 3  # of keys when the run begins and after the grace, and of admin keys
    assert sum(n for kind, n in openai.items() if kind != "GET service_accounts") - lists <= 4 * 20, openai
    assert openai["GET service_accounts"] == 1


def test_what_a_target_costs_that_is_not_due(scene: Scene) -> None:
    """At most 2 requests, and nothing at OpenAI but a list of accounts, one of keys and one of admin keys for all."""
    many(scene, 20)
    scene.run()
    scene.run()
    assert scene.cluster_session is not None
    assert scene.openai_session is not None
    assert kinds([exchange.kind for exchange in scene.cluster_session.log]).total() - 1 <= 2 * 20
    lists = ["GET service_accounts", "GET admin_api_keys"]
    assert [exchange.kind for exchange in scene.openai_session.log] == lists
    scene.advance(minutes=11)
    scene.run()
    # Once keys are old enough to be looked at, one list of them for all.
    lists.insert(1, "GET api_keys")
    assert [exchange.kind for exchange in scene.openai_session.log] == lists


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(scene: Scene) -> None:
    """Not in the cluster, not at OpenAI."""
    scene.apply_documented()
    scene.run(dry_run=True)
    assert (scene.outcome().reason, scene.secret(), scene.entry()) == ("WouldRotate", None, None)
    assert {kind.split()[0] for kind in scene.requests()} == {"GET"}
    scene.run()
    scene.advance(hours=1)
    scene.run(dry_run=True)
    assert scene.outcome().reason == "WouldRotate"
    assert {kind.split()[0] for kind in scene.requests()} == {"GET"}


def test_a_new_key_is_published_only_once_openai_accepts_it(running: Scene) -> None:
    """A key answers 401 for a while after it was made; the Secret keeps the one before for so long."""
    running.openai.acceptance_delay = 20
    running.advance(hours=1)
    began = running.now()
    running.run(max_wait=timedelta(0))
    assert running.live_key()
    assert running.now() - began >= timedelta(seconds=20)


def test_a_key_that_is_never_accepted_is_not_published(running: Scene) -> None:
    """The Secret keeps its key, the target has failed, and the useless account is deleted."""
    before = running.named()
    running.openai.acceptance_delay = 3600
    running.advance(hours=1)
    report = running.run()
    assert (running.outcome().result, running.outcome().reason) == (Result.FAILED, "KeyNotAccepted")
    assert exit_code(report, strict=False) == 1
    assert running.named() == before
    assert running.account_ids() == {before["id"]}
    assert running.condition()["status"] == "False"
    assert ("Warning", "UpdateFailed") in running.events()


def test_a_skewed_clock_changes_nothing(scene: Scene) -> None:
    """Times come from the API server: two machines a quarter of an hour apart agree on what is due."""
    scene.apply_documented()
    scene.run(skew=timedelta(minutes=15))
    assert scene.named()["publishedAt"] == format_time(EPOCH)
    scene.advance(minutes=50)
    scene.run(skew=timedelta(minutes=-15))
    scene.run(skew=timedelta(minutes=15))
    assert scene.openai.mints == 1
    scene.advance(minutes=10)
    scene.run(skew=timedelta(minutes=-15))
    assert scene.openai.mints == 2


def test_the_annotation_is_ours_alone(running: Scene) -> None:
    """Other annotations, labels and data of the Secret outlive a rotation."""
    running.merge(
        SECRET,
        {
            "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
            "data": {"other": "b3RoZXI="},
        },
    )
    running.advance(hours=1)
    running.run()
    secret = running.secret()
    assert secret is not None
    assert secret["metadata"]["labels"] == {MANAGED: "true", "team": "a"}
    assert secret["metadata"]["annotations"]["note"] == "b"
    assert CURRENT in secret["metadata"]["annotations"]
    assert secret["data"]["other"] == "b3RoZXI="
