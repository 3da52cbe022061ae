"""Clocks that are wrong, stepped or asleep, and times that a wrong clock has written."""

from datetime import timedelta
from typing import Any

import pytest

from sandbox.transport.faults import Fate, Rule, answered, delivered
from sandbox.transport.wire import Request, Response
from tests.support.asleep import SleepyScene, asleep
from tests.support.ledgers import rule
from tests.support.paths import ACCOUNTS, ENTRY, NO_WAIT, SECRET, SECRETS
from tests.support.pods import start_pod
from tests.support.scene import PROJECT, TARGET, Meanwhile, Scene, SceneClock, checked_scene
from worker.model.values import Ref

scene = pytest.fixture(checked_scene)
RUNS: list[Any] = [600, {}] * 9


@pytest.fixture
def sleepy() -> SleepyScene:
    scene = SleepyScene()
    scene.apply_documented()
    return scene


def due(scene: SleepyScene) -> SleepyScene:
    scene.run()
    scene.advance(hours=1)
    return scene


def test_a_note_that_comes_after_another_rotation_undoes_nothing(sleepy: SleepyScene) -> None:
    """Asleep between the Secret's PATCH and the ledger's; others rotate meanwhile."""
    scene = due(sleepy)
    scene.run(cluster_faults=Meanwhile(asleep(scene, *RUNS), "PATCH", ENTRY, skip=1), max_wait=NO_WAIT)
    entry = scene.stored_entry()
    assert [p.account.name for p in entry.history if p.superseded_at is None] == [scene.named()["name"]]
    assert all(p.superseded_at is None or p.superseded_at >= p.at for p in entry.history)
    mints = scene.openai.mints
    scene.advance(minutes=1)
    scene.run()
    assert scene.openai.mints == mints


def test_a_late_note_does_not_hide_who_holds_the_later_key(sleepy: SleepyScene) -> None:
    scene = due(sleepy)
    taken = []

    def container() -> None:
        start_pod(scene)
        taken.append(scene.key())

    steps: list[Any] = [*RUNS, 300, container, 60, lambda: scene.delete(SECRET), 5]
    scene.run(cluster_faults=Meanwhile(asleep(scene, *steps), "PATCH", ENTRY, skip=1), max_wait=NO_WAIT)
    for _ in range(3):
        scene.advance(hours=12)
        scene.run()
    assert scene.openai.use(taken[0])


def test_a_key_that_was_let_go_while_the_worker_slept_does_not_stay_in_the_secret(sleepy: SleepyScene) -> None:
    """Asleep right before the first publication; meanwhile the key's account goes, and the Secret too."""
    scene = sleepy
    steps: list[Any] = [*RUNS, lambda: scene.delete(SECRET)]
    scene.run(cluster_faults=Meanwhile(asleep(scene, *steps), "POST", SECRETS, skip=1), max_wait=NO_WAIT)
    assert scene.openai.use(scene.key())


def test_a_look_at_the_secret_is_not_right_before_when_the_machine_slept_since(sleepy: SleepyScene) -> None:
    """Asleep between the last look at the Secret and the DELETE; meanwhile a backup is restored."""
    scene = sleepy
    scene.run()
    backup = scene.secret()
    assert backup is not None
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    scene.advance(minutes=10)

    def restore() -> None:
        scene.delete(SECRET)
        for field in ("uid", "resourceVersion", "creationTimestamp"):
            backup["metadata"].pop(field, None)
        scene.apply(backup)

    scene.run(
        openai_faults=Meanwhile(asleep(scene, 1200, restore, 60), "GET", ".*/api_keys/.*"),
        max_wait=NO_WAIT,
    )
    assert scene.openai.use(scene.key())


def test_a_key_that_somebody_makes_while_the_worker_sleeps_counts(sleepy: SleepyScene) -> None:
    """Asleep while it asks for the use of the account's own key; it has listed the keys before (seed 9150)."""
    scene = due(sleepy)
    old, made = scene.named(), list[str]()
    scene.run(max_wait=NO_WAIT)
    scene.advance(minutes=10)

    def make_and_use() -> None:
        made.append(scene.openai.add_key(PROJECT, old["id"], "by hand")[1])
        assert scene.openai.use(made[0])

    scene.run(openai_faults=Meanwhile(asleep(scene, 600, make_and_use, 60), "GET", f".*/api_keys/{old['keyId']}"))
    assert scene.openai.use(made[0])


def test_a_slow_note_is_as_late_as_one_after_sleep(scene: Scene) -> None:
    """An API server that asks to slow down; the note gets through after the claim, and after a forced run."""
    scene.apply_documented()
    scene.run()
    scene.advance(hours=1)
    slow_down = answered(Response.of_json(429, {"kind": "Status", "code": 429}, {"Retry-After": "20"}))
    scene.openai.acceptance_delay = 80
    slow = {
        "cluster_faults": rule(
            scene,
            Rule(slow_down, "PATCH", ENTRY, skip=1, count=3),
            Rule(delivered(12, 0), "PATCH", ENTRY, skip=1, count=1),
            Rule(slow_down, "PATCH", SECRET, count=1),
            Rule(delivered(0, 7), "PATCH", SECRET, count=1),
            Rule(delivered(10, 0), "GET", ENTRY, count=3),
        ),
        "openai_faults": rule(
            scene, Rule(delivered(0, 28), "POST", ACCOUNTS, count=1), Rule(delivered(0, 5), "GET", "/v1/models")
        ),
        "max_wait": NO_WAIT,
    }

    class Accepting:
        """By the time of the second run OpenAI accepts new keys at once."""

        def fate(self, request: Request) -> Fate:
            scene.openai.acceptance_delay = 0
            return delivered()

    forced = {"force": True, "max_wait": NO_WAIT, "openai_faults": Accepting()}
    scene.run_together(slow, forced, apart=212)
    entry = scene.stored_entry()
    assert all(p.superseded_at is None or p.superseded_at >= p.at for p in entry.history)
    assert [p.account.name for p in entry.history if p.superseded_at is None] == [scene.named()["name"]]


def test_a_clock_that_is_stepped_in_the_middle_of_a_run_ends_no_grace(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node's clock is half an hour slow when the run begins, and is put right in the middle of it."""
    scene.apply_documented()
    scene.run()
    scene.advance(hours=1)
    error = timedelta(minutes=-30)
    gone = []

    class SteppingClock(SceneClock):
        def now(self):  # type: ignore[no-untyped-def]
            return scene.now() + error

    def stepped() -> None:
        nonlocal error
        error = timedelta(0)

    monkeypatch.setattr("tests.support.scene.SceneClock", SteppingClock)
    scene.run(
        cluster_faults=Meanwhile(stepped, "PATCH", SECRET),
        openai_faults=Meanwhile(lambda: gone.append(scene.now()), "DELETE", ".*"),
    )
    published = next(p.at for p in scene.stored_entry().history if p.superseded_at is None)
    assert gone[0] - published >= timedelta(minutes=2)


AHEAD = timedelta(days=30)


def later(scene: Scene) -> str:
    return (scene.now() + AHEAD).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    "status",
    [
        {"lastRotatedAt": "LATER"},
        {"failures": {"count": 3, "nextAttemptAt": "LATER"}},
        {"throttle": {"host": "https://openai.test/v1", "adminKeyDigest": "DIGEST", "until": "LATER", "times": 1}},
        {
            "accounts": {
                "left": {
                    "host": "https://openai.test/v1",
                    "projectId": "my-openai-project-id",
                    "adminKey": {"name": "openai-admin-secret", "key": "api-key"},
                    "requestedAt": "LATER",
                    "claimedUntil": "LATER",
                }
            }
        },
    ],
    ids=["lastRotatedAt", "nextAttemptAt", "throttle", "claim"],
)
def test_a_time_that_a_wrong_clock_wrote_is_not_waited_for(scene: Scene, status: dict[str, object]) -> None:
    """Thirty days ahead: the target is rotated within hours, and all that is left over goes."""
    import json

    scene.apply_documented()
    scene.run()
    digest = "x"
    text = json.dumps(status).replace("LATER", later(scene)).replace("DIGEST", digest)
    scene.merge(ENTRY, {"status": json.loads(text)})
    for _ in range(24 * 2):
        scene.advance(hours=1)
        scene.run()
    assert scene.stored_entry().last_rotated_at is not None
    assert scene.now() - scene.stored_entry().last_rotated_at <= timedelta(hours=2)  # type: ignore[operator]
    assert scene.live_key()
    assert len(scene.accounts()) == 1


def test_a_throttle_of_this_very_admin_key_is_believed_for_a_day_at_most(scene: Scene) -> None:
    from worker.model.hidden import Hidden

    scene.apply_documented()
    scene.run()
    throttle = {
        "host": "https://openai.test/v1",
        "adminKeyDigest": Hidden(scene.admin_key).digest(),
        "until": later(scene),
        "times": 1,
    }
    scene.merge(ENTRY, {"status": {"throttle": throttle}})
    for _ in range(26):
        scene.advance(hours=1)
        scene.run()
    assert scene.now() - scene.stored_entry().last_rotated_at <= timedelta(hours=2)  # type: ignore[operator]


def test_one_entry_with_a_time_that_cannot_be_added_to_is_that_target_s_alone(scene: Scene) -> None:
    other = Ref("b", TARGET.name)
    scene.namespace("b")
    scene.apply_documented()
    scene.apply_documented("b")
    scene.run()
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    scene.advance(minutes=10)
    old = next(p.account.name for p in scene.stored_entry().history if p.superseded_at is not None)
    scene.merge(ENTRY, {"status": {"accounts": {old: {"supersededAt": "9999-12-31T23:59:59Z"}}}})
    scene.run()
    retired = scene.retired(other)
    assert retired is not None
    assert len(retired.deleted) == 1
    assert scene.outcome().reason == "LedgerUnreadable"
