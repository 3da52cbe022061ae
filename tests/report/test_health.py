"""The status that an ExternalSecret or a generator gets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.builders import NOW, SECRET, source
from worker.kubernetes.generator import GENERATORS
from worker.model.outcomes import Outcome, Result
from worker.model.targets import Source
from worker.model.values import JSON
from worker.report.health import IN_USE, Health, generator_patch, status_patch, target_health, without_stalled

AT = "2026-11-24T10:00:00Z"
EARLIER = "2026-11-24T09:00:00Z"
LATER = "2026-11-24T09:30:00Z"
SYNCED = {
    "type": "Ready",
    "status": "True",
    "reason": "SecretSynced",
    "message": "secret synced",
    "lastTransitionTime": EARLIER,
}
BROKEN = SYNCED | {"status": "False", "reason": "SecretSyncedError", "message": "words"}
STALLED = {"type": "Stalled", "status": "True", "reason": "InvalidSpec", "message": "words", "lastTransitionTime": AT}
OTHER = {"type": "Deleted", "status": "False"}


def outcome(result: Result, reason: str = "Why") -> Outcome:
    return Outcome(SECRET, result, reason, "words", source=source())


def patched(result: Result, **status: Any) -> JSON | None:
    """The status that an ExternalSecret with this one would get."""
    return told(result, "Conflict", **status)


def told(result: Result, reason: str, *, on_change: bool = False, **status: Any) -> JSON | None:
    patch = status_patch(source(status=status, on_change=on_change), SECRET, outcome(result, reason), now=NOW)
    return None if patch is None else patch["status"]


def test_a_rotation_is_told_as_the_operator_would() -> None:
    """What readers of an ExternalSecret expect to find."""
    assert patched(Result.ROTATED) == {
        "conditions": [SYNCED | {"lastTransitionTime": AT}],
        "refreshTime": AT,
        "syncedResourceVersion": "3-abc",
        "binding": {"name": "creds"},
    }


def test_a_second_rotation_moves_the_refresh_time_alone() -> None:
    """A condition's time is that of its last change; others' conditions stay."""
    status = patched(Result.ROTATED, conditions=[OTHER, SYNCED], refreshTime=EARLIER)
    assert status is not None
    assert (status["conditions"], status["refreshTime"]) == ([OTHER, SYNCED], AT)


@pytest.mark.parametrize("result", [Result.FAILED, Result.BLOCKED])
def test_a_failure_is_told_in_its_words(result: Result) -> None:
    """The refresh time stays what it was."""
    status = patched(result, conditions=[SYNCED], refreshTime=EARLIER)
    assert status == {"conditions": [BROKEN | {"lastTransitionTime": AT}]}


def test_a_recovery_is_told_without_a_new_refresh_time() -> None:
    """The key is still the one of then."""
    status = patched(Result.KEPT, conditions=[BROKEN], refreshTime=EARLIER)
    assert status is not None
    assert status["conditions"] == [SYNCED | {"lastTransitionTime": AT}]
    assert "refreshTime" not in status


@pytest.mark.parametrize(
    ("result", "condition"), [(Result.KEPT, SYNCED), (Result.FAILED, BROKEN), (Result.BLOCKED, BROKEN)]
)
def test_what_is_true_already_is_not_written_again(result: Result, condition: JSON) -> None:
    """A run over a thousand healthy targets writes nothing."""
    assert patched(result, conditions=[OTHER, condition], refreshTime=EARLIER) is None


@pytest.mark.parametrize("reason", ["InProgress", "Suspended"])
def test_what_says_nothing_about_the_secret_changes_no_status(reason: str) -> None:
    """Another run tells, or nobody."""
    assert status_patch(source(), SECRET, outcome(Result.KEPT, reason=reason), now=NOW) is None


@pytest.mark.parametrize("conditions", [None, "x", {}, 5, ["x", None, {}], [{"type": "Ready"}], [{"type": 5}]])
def test_a_status_of_another_shape_is_replaced(conditions: object) -> None:
    """Whoever wrote it."""
    status = patched(Result.KEPT, conditions=conditions)
    assert status is not None
    assert [c for c in status["conditions"] if isinstance(c, dict) and c.get("type") == "Ready"] == [
        SYNCED | {"lastTransitionTime": AT}
    ]


@pytest.mark.parametrize("result", [Result.FAILED, Result.BLOCKED])
def test_what_waits_for_a_human_is_stalled(result: Result) -> None:
    """Flux stops waiting then. What passes by itself is not."""
    status = told(result, "InvalidSpec", conditions=[OTHER, SYNCED])
    assert status is not None
    assert status["conditions"] == [OTHER, BROKEN | {"lastTransitionTime": AT}, STALLED]
    assert without_stalled({"status": status})["status"]["conditions"] == status["conditions"][:2]


def test_a_status_that_lacks_stalled_is_not_asked_for_it_again() -> None:
    """The operator's own CRD refuses that type of condition, in each run."""
    assert told(Result.BLOCKED, "InvalidSpec", conditions=[BROKEN]) is None


@pytest.mark.parametrize(("result", "reason"), [(Result.KEPT, "NotDue"), (Result.FAILED, "OpenAIUnanswered")])
def test_stalled_goes_when_nobody_has_to_act_any_more(result: Result, reason: str) -> None:
    status = told(result, reason, conditions=[BROKEN, STALLED, OTHER])
    assert status is not None
    assert [condition["type"] for condition in status["conditions"]] == ["Deleted", "Ready"]


def argo_is_content(status: JSON) -> bool:
    """As Argo CD's script asks of an ExternalSecret with refreshPolicy OnChange."""
    (ready,) = [condition for condition in status["conditions"] if condition["type"] == "Ready"]
    return bool(ready["lastTransitionTime"] >= status["refreshTime"])


def test_on_change_the_transition_moves_with_the_refresh() -> None:
    """Otherwise Argo CD waits for ever. Elsewhere it stays, as Kubernetes has it."""
    before: JSON = {"conditions": [SYNCED], "refreshTime": EARLIER}
    after = told(Result.ROTATED, "Due", on_change=True, **before)
    assert after is not None
    assert argo_is_content(after)
    assert after["refreshTime"] == AT
    usual = told(Result.ROTATED, "Due", **before)
    assert usual is not None
    assert usual["conditions"][0]["lastTransitionTime"] == EARLIER


def test_a_transition_that_is_behind_is_put_right_once() -> None:
    """Somebody has changed the policy since the last rotation, say."""
    behind: JSON = {"conditions": [SYNCED], "refreshTime": LATER}
    after = told(Result.KEPT, "NotDue", on_change=True, **behind)
    assert after is not None
    assert after["conditions"][0]["lastTransitionTime"] == LATER
    assert "refreshTime" not in after
    assert told(Result.KEPT, "NotDue", on_change=True, **(behind | after)) is None
    assert told(Result.KEPT, "NotDue", **behind) is None


# --- generators


def generator(**status: Any) -> Source:
    return source(kind="OpenAI", resource=GENERATORS, status=status)


def test_a_generator_says_what_its_target_is_like() -> None:
    health = target_health(generator(), outcome(Result.ROTATED, "Due"))
    assert health == Health("True", "Rotated", "Secret creds has a current key")
    assert target_health(generator(), outcome(Result.BLOCKED, "InvalidSpec")) == Health(
        "False", "InvalidSpec", "words", stalled=True
    )
    assert target_health(generator(), outcome(Result.FAILED, "OpenAIUnreachable")) == Health(
        "False", "OpenAIUnreachable", "words"
    )
    assert target_health(generator(), outcome(Result.KEPT, "InProgress")) is None


@pytest.mark.parametrize(
    ("stored", "ready"), [("True", "True"), ("False", "False"), ("Unknown", "Unknown"), (None, "Unknown")]
)
def test_a_suspended_one_stays_as_it_was(stored: str | None, ready: str) -> None:
    conditions = [{"type": "Ready", "status": stored}] if stored else []
    health = target_health(generator(conditions=conditions), outcome(Result.KEPT, "Suspended"))
    assert health == Health(ready, "Suspended", "words")  # type: ignore[arg-type]


def test_a_generators_status_names_the_generation_that_was_looked_at() -> None:
    patch = generator_patch(generator(), Health("False", "InvalidSpec", "words", stalled=True), now=NOW)
    assert patch is not None
    seen = {"observedGeneration": 3, "lastTransitionTime": AT, "reason": "InvalidSpec", "message": "words"}
    assert patch["status"] == {
        "observedGeneration": 3,
        "conditions": [
            {"type": "Ready", "status": "False"} | seen,
            {"type": "Stalled", "status": "True"} | seen,
        ],
    }


def test_a_generator_that_says_so_already_is_left_alone_until_it_changes() -> None:
    patch = generator_patch(generator(), IN_USE, now=NOW)
    assert patch is not None
    told = generator(**patch["status"])
    assert generator_patch(told, IN_USE, now=NOW) is None
    changed = source(kind="OpenAI", resource=GENERATORS, status=patch["status"], generation=4)
    assert generator_patch(changed, IN_USE, now=NOW) is not None
