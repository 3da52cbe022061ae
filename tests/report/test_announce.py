"""Outcomes, told to the cluster."""

from __future__ import annotations

import re

import pytest

from tests.support.builders import NOW, SECRET, source
from tests.support.clocks import StoppedClock
from tests.support.virtual_time import run_virtually
from worker.errors import Conflict, Forbidden, NotFound, RotatorError, Unanswered
from worker.model.outcomes import Outcome, Result
from worker.model.targets import Source
from worker.model.values import JSON, Answer, Ref, Resource
from worker.report.announce import Announcer, outcome_event
from worker.report.health import status_patch

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


def outcome(result: Result, message: str = "words", reason: str = "Why") -> Outcome:
    return Outcome(SECRET, result, reason, message, source=source())


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
