"""Outcomes, told to the cluster."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.builders import NOW, SECRET, source
from tests.support.clocks import StoppedClock
from tests.support.virtual_time import run_virtually
from worker.errors import Conflict, Forbidden, NotFound, RotatorError, Unanswered
from worker.kubernetes.generator import GENERATORS
from worker.model.outcomes import Outcome, Result
from worker.model.targets import Source
from worker.model.values import JSON, Answer, Ref, Resource
from worker.report.announce import Announcer, outcome_event, status_patch

AT = "2026-11-24T10:00:00Z"
EARLIER = "2026-11-24T09:00:00Z"
SYNCED = {
    "type": "Ready",
    "status": "True",
    "reason": "SecretSynced",
    "message": "secret synced",
    "lastTransitionTime": EARLIER,
}
BROKEN = SYNCED | {"status": "False", "reason": "SecretSyncedError", "message": "words"}
OTHER = {"type": "Deleted", "status": "False"}


def outcome(result: Result, message: str = "words", reason: str = "Why") -> Outcome:
    return Outcome(SECRET, result, reason, message, source=source())


def patched(result: Result, **status: Any) -> JSON | None:
    """The status that an ExternalSecret with this one would get."""
    patch = status_patch(source(status=status), SECRET, outcome(result), now=NOW)
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


def test_a_standalone_generator_has_no_such_status() -> None:
    """Events only."""
    assert status_patch(source(kind="OpenAI", resource=GENERATORS), SECRET, outcome(Result.ROTATED), now=NOW) is None


@pytest.mark.parametrize("conditions", [None, "x", {}, 5, ["x", None, {}], [{"type": "Ready"}], [{"type": 5}]])
def test_a_status_of_another_shape_is_replaced(conditions: object) -> None:
    """Whoever wrote it."""
    status = patched(Result.KEPT, conditions=conditions)
    assert status is not None
    assert [c for c in status["conditions"] if isinstance(c, dict) and c.get("type") == "Ready"] == [
        SYNCED | {"lastTransitionTime": AT}
    ]


@pytest.mark.parametrize(
    ("result", "created", "kind", "reason"),
    [
        (Result.ROTATED, True, "Normal", "Created"),
        (Result.ROTATED, False, "Normal", "Updated"),
        (Result.FAILED, False, "Warning", "UpdateFailed"),
        (Result.BLOCKED, True, "Warning", "UpdateFailed"),
    ],
)
def test_an_event_is_about_the_source(result: Result, created: bool, kind: str, reason: str) -> None:
    """So that `kubectl describe` shows it there."""
    event = outcome_event(source(), outcome(result), created=created, now=NOW)
    assert event is not None
    assert (event["type"], event["reason"], event["message"]) == (kind, reason, "words")
    assert event["involvedObject"] == {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "namespace": "default",
        "name": "creds",
        "uid": "source-uid",
    }
    assert (event["firstTimestamp"], event["count"]) == (AT, 1)


def test_nothing_happened_is_no_event() -> None:
    """Every run would make one."""
    assert outcome_event(source(), outcome(Result.KEPT), created=False, now=NOW) is None


def names(*outcomes: Outcome, of: Source | None = None) -> list[str]:
    events = [outcome_event(of or source(), item, created=False, now=NOW) for item in outcomes]
    return [event["metadata"]["name"] for event in events if event is not None]


def test_the_same_words_have_the_same_name() -> None:
    """The API server refuses the second, so a failure is one Event an hour and not one a run."""
    one, same, other = names(*(outcome(Result.FAILED, words) for words in ("a", "a", "b")))
    assert one == same != other
    assert one not in names(outcome(Result.FAILED, "a"), of=source(uid="another"))


@pytest.mark.parametrize("name", ["creds", "x" * 253, "x" * 229 + "-y" * 12, "x" * 229 + ".y" * 12])
def test_an_events_name_is_one_that_kubernetes_allows(name: str) -> None:
    """However long the source's is."""
    (found,) = names(outcome(Result.FAILED), of=source(ref=Ref("default", name)))
    assert len(found) <= 253
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", found)


def test_a_long_message_is_cut_for_an_event() -> None:
    """The API server would refuse it."""
    event = outcome_event(source(), outcome(Result.FAILED, "x" * 5000), created=False, now=NOW)
    assert event is not None
    assert len(event["message"]) <= 1024


class Refusing:
    """A cluster that raises what it was told to, and keeps what it was asked."""

    def __init__(self, patch: RotatorError | None = None, create: RotatorError | None = None) -> None:
        self.errors = {"patch": patch, "create": create}
        self.asked: list[tuple[str, str]] = []

    async def patch(
        self, resource: Resource, ref: Ref, patch: JSON, *, subresource: str = "", dry_run: bool = False
    ) -> Answer:
        return self._answer("patch", f"{resource}/{subresource} {ref}")

    async def create(self, resource: Resource, namespace: str, body: JSON, *, dry_run: bool = False) -> Answer:
        return self._answer("create", f"{resource} {namespace}")

    def _answer(self, what: str, subject: str) -> Answer:
        self.asked.append((what, subject))
        error = self.errors[what]
        if error is not None:
            raise error
        return Answer({})


FORBIDDEN, LOST = Forbidden("No", "no right"), Unanswered("Lost", "no answer")


@pytest.mark.parametrize(
    ("patch", "create", "problems"),
    [
        (None, None, []),
        (NotFound("Gone", "gone"), Conflict("Said", "said"), []),
        (FORBIDDEN, None, ["no right"]),
        (None, LOST, ["no answer"]),
        (FORBIDDEN, LOST, ["no right", "no answer"]),
    ],
)
def test_what_could_not_be_told_is_returned_and_never_raised(
    patch: RotatorError | None, create: RotatorError | None, problems: list[str]
) -> None:
    """The rotation has happened; both are tried, each once."""
    cluster = Refusing(patch, create)
    announcer = Announcer(cluster, StoppedClock())  # type: ignore[arg-type]
    told, _ = run_virtually(announcer.announce(source(), SECRET, outcome(Result.ROTATED)), 0.0)
    assert told == problems
    assert cluster.asked == [
        ("patch", "externalsecrets.external-secrets.io/status default/creds"),
        ("create", "events default"),
    ]


def test_the_id_of_a_request_is_left_to_the_log() -> None:
    """Each run has another: the condition would be written, and an Event made, although nothing has changed."""
    one, other = (
        outcome(Result.FAILED, f"refused (status 401, code invalid_api_key, request {id}); the key is 'a'")
        for id in ("req_1", "req_2.b-c")
    )
    assert len(set(names(one, other))) == 1
    said = "refused (status 401, code invalid_api_key); the key is 'a'"
    event = outcome_event(source(), one, created=False, now=NOW)
    assert event is not None
    assert event["message"] == said
    told = source(status={"conditions": [BROKEN | {"message": said}]})
    assert status_patch(told, SECRET, other, now=NOW) is None


def test_what_speaks_of_a_request_in_other_words_is_told_whole() -> None:
    """Only the id in brackets goes."""
    event = outcome_event(source(), outcome(Result.FAILED, "failed, request it again"), created=False, now=NOW)
    assert event is not None
    assert event["message"] == "failed, request it again"
