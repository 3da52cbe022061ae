"""What is said of superseded accounts that are held: since when, by whom, and when it starts to matter."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.builders import NOW, entry, publication
from tests.support.paths import EXTERNAL_SECRET
from tests.support.pods import hold_the_first_key, start_pod, stop_pod
from tests.support.scene import TARGET, Scene, checked_scene
from worker.commands.status import as_text
from worker.ledger import holds
from worker.ledger.holds import hold_reason
from worker.ledger.transitions import healthy
from worker.model.entries import Entry, Hold
from worker.model.outcomes import Result

scene = pytest.fixture(checked_scene)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LIFETIME = {"metadata": {"annotations": {"openai-key-rotator.io/key-lifetime": "72h"}}}


@pytest.fixture
def held(scene: Scene) -> Scene:
    return hold_the_first_key(scene)


def hold(scene: Scene) -> Hold | None:
    """Of the oldest account in the ledger."""
    return scene.stored_entry().history[0].held


def notices(scene: Scene, *reasons: str) -> list[dict[str, Any]]:
    return [event for event in scene.kubernetes.objects("events", "default") if event["reason"] in reasons]


def daily(scene: Scene, days: int) -> None:
    for _ in range(days):
        scene.advance(days=1)
        scene.run()


# --- in whole runs


def test_a_hold_has_a_beginning_that_stays(held: Scene) -> None:
    """Whoever holds; the ledger, the condition and `status` say since when."""
    first = hold(held)
    assert first is not None
    assert (first.why, first.since) == ("1: my-app/app", held.now())
    start_pod(held, "canary")  # of the second account: nothing to the first
    held.advance(hours=3)
    held.run()
    later = hold(held)
    assert later == first
    stored = held.kubernetes.find("keyrotations", "openai-key-rotator", "default.openai-credentials")
    assert stored is not None
    assert stored["status"]["heldSince"] == stored["status"]["accounts"][_oldest(held)]["heldSince"]
    condition = held.stored_entry().condition
    assert condition is not None
    assert condition.ready
    assert f"; 2 earlier held: {_oldest(held)} since " in condition.message
    assert "(1: my-app/app)" in condition.message
    assert "superseded, held since " in as_text({TARGET: held.stored_entry()}, held.now(), None)


def _oldest(scene: Scene) -> str:
    return scene.stored_entry().history[0].account.name


def test_nothing_is_said_once_nobody_holds(held: Scene) -> None:
    """The condition is as it was."""
    stop_pod(held)
    held.advance(hours=1)
    held.run()
    condition = held.stored_entry().condition
    assert condition is not None
    assert "held" not in condition.message
    stored = held.kubernetes.find("keyrotations", "openai-key-rotator", "default.openai-credentials")
    assert stored is not None
    assert "heldSince" not in stored["status"]


def test_a_hold_is_told_once_when_it_lasts_a_day(held: Scene) -> None:
    """By an Event on whatever asked for the target, with who holds and what to do."""
    held.advance(hours=23)
    held.run()
    assert notices(held, "KeyHeld") == []
    first = _oldest(held)
    daily(held, 4)
    about = [event for event in notices(held, "KeyHeld") if first in event["message"]]
    assert len(about) == 1
    (event,) = about
    assert (event["type"], event["involvedObject"]["kind"]) == ("Warning", "ExternalSecret")
    assert "1: my-app/app" in event["message"]
    assert "kubectl rollout restart" in event["message"]


def test_a_hold_of_a_target_that_nothing_asks_for_is_told_at_its_secret(held: Scene) -> None:
    """In its own namespace: nothing is written elsewhere."""
    held.merge(EXTERNAL_SECRET, {"spec": {"target": {"name": "another"}}})
    daily(held, 2)
    (event,) = notices(held, "KeyHeld")
    assert (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == ("Secret", "openai-credentials")


def test_what_cannot_be_deleted_for_a_day_is_told_too(held: Scene) -> None:
    """The permission to list pods is missing: nobody looks at the log for a month."""
    held.kubernetes.forbid("list", "pods")
    daily(held, 2)
    events = notices(held, "KeyHeld")
    assert events
    assert "PodsForbidden" in events[0]["message"]
    assert "restart" not in events[0]["message"]
    condition = held.stored_entry().condition
    assert condition is not None
    assert "PodsForbidden" in condition.message


def test_a_trouble_that_passes_is_not_called_a_hold_in_the_condition(held: Scene) -> None:
    """It would come and go with every run."""
    account = publication(
        "old", NOW - DAY, superseded_at=NOW - HOUR, held=Hold(hold_reason("cannot be deleted for the moment: X"), NOW)
    )
    condition = healthy(entry(account, publication("now", NOW - HOUR)), NOW).condition
    assert condition is not None
    assert "held" not in condition.message


def test_a_key_that_ends_while_it_is_held_is_told_before(scene: Scene) -> None:
    """At once where that is within a day, for the container's key dies however long it is held."""
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, LIFETIME)
    scene.run()
    start_pod(scene)
    scene.advance(hours=1)
    scene.run()
    assert notices(scene, "KeyExpiring") == []
    scene.advance(hours=47)
    scene.run()
    (event,) = notices(scene, "KeyExpiring")
    expires = scene.stored_entry().history[0].account.expires_at
    assert expires is not None
    assert f"its key ends by itself at {expires:%Y-%m-%dT%H:%M:%SZ}" in event["message"]
    assert "its key lives until" in as_text({TARGET: scene.stored_entry()}, scene.now(), None)
    stored = scene.kubernetes.find("keyrotations", "openai-key-rotator", "default.openai-credentials")
    assert stored is not None
    assert stored["status"]["nextExpiryAt"] == f"{expires:%Y-%m-%dT%H:%M:%SZ}"
    scene.advance(hours=1)
    scene.run()
    assert len(notices(scene, "KeyExpiring")) == 1


def test_a_key_that_ends_and_cannot_be_replaced_is_told(scene: Scene) -> None:
    """The applications of a target whose admin key is wrong lose theirs at a known time."""
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/key-lifetime": "12h"}}})
    scene.run()
    expires = f"{scene.named()['expiresAt']}"
    scene.delete("/api/v1/namespaces/default/secrets/openai-admin-secret")
    for hours, word in ((9, "ends"), (4, "has ended")):
        scene.advance(hours=hours)
        scene.run()
        assert scene.outcome().result is Result.FAILED
        words = f"; the key in its Secret {word} by itself at {expires}"
        assert words in scene.outcome().message
        assert words in scene.condition()["message"]


# --- --max-hold


def test_the_longest_hold_ends_it_and_says_whom_it_hit(held: Scene) -> None:
    """Not a minute earlier."""
    first = _oldest(held)
    held.advance(hours=47)
    held.run(max_hold=2 * DAY)
    assert first in held.accounts()
    held.advance(hours=1)
    held.run(max_hold=2 * DAY)
    assert first not in held.accounts()
    (event,) = notices(held, "HoldEnded")
    assert f"account {first} was deleted, after --max-hold 48h, and was still held: 1: my-app/app" in event["message"]
    assert held.live_key()


def test_without_pods_in_sight_not_even_the_longest_hold_deletes(held: Scene) -> None:
    """It could not say whom it hits."""
    held.kubernetes.forbid("list", "pods")
    held.advance(days=9)
    held.run(max_hold=DAY)
    assert _oldest(held) in held.accounts()


def test_the_longest_hold_is_no_shorter_than_the_grace(held: Scene) -> None:
    """A second of hold is no reason to delete what volumes still have."""
    current = held.named()["name"]
    held.advance(hours=1)
    held.run(max_hold=timedelta(seconds=1), max_wait=timedelta(0))
    assert current in held.accounts()


# --- pods


def test_pods_are_listed_once_per_namespace_and_run(held: Scene) -> None:
    """Also where one account is held since long and another may go within the wait. Once more where one is rotated."""
    for _ in range(3):
        held.advance(hours=1)
        report = held.run()
        assert held.outcome().result is Result.ROTATED
        assert any(item.deleted or item.held for item in report.retired)
        assert held.requests().count("GET pods") == 2


# --- the words


def state(*, since: datetime = NOW, told: str | None = None, expires: datetime | None = None) -> Entry:
    old = publication("old", NOW - DAY, superseded_at=NOW - HOUR, held=Hold(hold_reason("1: a/b"), since, told))
    old = replace(old, account=replace(old.account, expires_at=expires))
    return entry(old, publication("now", NOW - HOUR))


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (state(since=NOW - DAY), "KeyHeld"),
        (state(since=NOW - DAY + timedelta(seconds=1)), None),
        (state(since=NOW - DAY, told="KeyHeld"), None),
        (state(expires=NOW + DAY), "KeyExpiring"),
        (state(expires=NOW + DAY + timedelta(seconds=1)), None),
        (state(since=NOW - DAY, told="KeyHeld", expires=NOW + DAY), "KeyExpiring"),
        (state(since=NOW - DAY, told="KeyExpiring", expires=NOW + DAY), None),
    ],
)
def test_each_thing_that_matters_is_told_once(before: Entry, expected: str | None) -> None:
    """Held for a day; about to end."""
    after, told = holds.with_reasons(before, {"old": hold_reason("1: a/b")}, NOW)
    assert [notice.reason for notice in told] == ([expected] if expected else [])
    assert holds.with_reasons(after, {"old": hold_reason("2: a/b, c/d")}, NOW)[1] == ()


def test_a_hold_that_ended_is_forgotten() -> None:
    """One that comes later begins anew."""
    ended, _ = holds.with_reasons(state(since=NOW - DAY), {"old": None}, NOW)
    assert ended.history[0].held is None
    again, told = holds.with_reasons(ended, {"old": hold_reason("1: a/b")}, NOW)
    assert again.history[0].held == Hold(hold_reason("1: a/b"), NOW)
    assert told == ()


def test_many_holds_are_summed_up() -> None:
    """A condition is read by people."""
    held = [
        publication(f"p{i}", NOW - DAY, superseded_at=NOW - HOUR, held=Hold(hold_reason("1: a/b"), NOW))
        for i in range(5)
    ]
    words = holds.in_words(entry(*held))
    assert words.startswith("; 5 earlier held: p0 since ")
    assert words.endswith(", and 2 more")
