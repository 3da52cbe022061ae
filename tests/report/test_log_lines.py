"""Log lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from tests.support.builders import KEY, NOW, RUN, SECRET, source
from worker.model.hidden import Hidden, redacted
from worker.model.outcomes import Outcome, Report, Result, RetireOutcome
from worker.model.values import Ref
from worker.report.log_lines import LogWatcher, configure


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers
    structlog.reset_defaults()


def lines(write: Callable[[structlog.typing.FilteringBoundLogger], object]) -> list[dict[str, Any]]:
    """What is written, line by line, and nothing that looks like a key among it."""
    stream = io.StringIO()
    write(configure(stream))
    assert "CANARY" not in stream.getvalue()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def watched(tell: Callable[[LogWatcher], None]) -> list[dict[str, Any]]:
    """Without the time of day."""
    found = lines(lambda log: tell(LogWatcher(log)))
    return [{key: value for key, value in line.items() if key != "timestamp"} for line in found]


def test_a_line_is_json_and_begins_with_when_how_bad_and_what() -> None:
    """For people and for machines."""
    (line,) = lines(lambda log: log.info("a.b", zebra=1, apple="x"))
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (line["level"], line["event"], line["zebra"], line["apple"]) == ("info", "a.b", 1, "x")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "fact",
    [KEY, f"it was {KEY}.", [KEY], {"a": {"b": [KEY]}}, {KEY: 1}, (KEY,), {KEY}, Hidden(KEY), OSError(KEY), f"\n{KEY}"],
    ids=range(10),
)
def test_nothing_that_looks_like_a_key_is_written(fact: object) -> None:
    """Whatever put it there, however deep."""
    assert lines(lambda log: log.error("a.b", fact=fact))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sk-proj-abcDEF_123", "sk-***"),
        ("key=sk-admin-abcdef, more", "key=sk-***, more"),
        ("app_sk-abcdef", "app_sk-***"),
        ("Bearer sk-svcacct-abcdef", "Bearer sk-***"),
        ("sk-ab", "sk-ab"),
        ("task-runner", "task-runner"),
        ("namespace disk-cleanup/risk-engine", "namespace disk-cleanup/risk-engine"),
        ("", ""),
    ],
)
def test_redaction_takes_keys_and_leaves_names(text: str, expected: str) -> None:
    """A namespace may end in sk."""
    assert redacted(text) == expected


def test_a_librarys_warning_is_told_without_its_text() -> None:
    """It may quote a request; its place is enough to look it up."""

    def warn(_: object) -> None:
        logger = logging.getLogger("some.library")
        logger.warning("header %s", "Bearer CANARY")
        logger.info("not even this")
        try:
            raise RuntimeError("CANARY")
        except RuntimeError:
            logger.exception("CANARY")

    # The test's own capture of log records would see what is kept from the log.
    logging.root.handlers[:], handlers = [], logging.root.handlers[:]
    level = logging.root.level
    logging.root.setLevel(logging.WARNING)
    try:
        first, second = lines(warn)
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    assert (first["event"], first["logger"], first["level"]) == ("library.warning", "some.library", "warning")
    assert first["place"].startswith("test_log_lines.py:")
    assert second["event"] == "library.warning"


@pytest.mark.parametrize(
    ("result", "level"),
    [(Result.ROTATED, "info"), (Result.KEPT, "info"), (Result.BLOCKED, "warning"), (Result.FAILED, "error")],
)
def test_an_outcome_is_one_line_as_bad_as_it_is(result: Result, level: str) -> None:
    """With its reason and its words."""
    outcome = Outcome(SECRET, result, "Why", "words", NOW, "app_1", source())
    assert watched(lambda watcher: watcher.served(outcome)) == [
        {
            "level": level,
            "event": f"target.{result.value}",
            "namespace": "default",
            "secret": "creds",
            "reason": "Why",
            "message": "words",
            "source": "ExternalSecret default/creds",
            "account": "app_1",
            "next": "2026-11-24T10:00:00Z",
        }
    ]


@pytest.mark.parametrize(
    ("retired", "level"),
    [
        (RetireOutcome(SECRET), None),
        (RetireOutcome(SECRET, deleted=("app_1",)), "info"),
        (RetireOutcome(SECRET, waiting=1), "info"),
        (RetireOutcome(SECRET, message="app_1 stays: used"), "info"),
        (RetireOutcome(SECRET, Result.BLOCKED, "Why", "words"), "warning"),
        (RetireOutcome(SECRET, Result.FAILED, "Why", "words"), "error"),
    ],
)
def test_a_retirement_is_a_line_where_there_is_news(retired: RetireOutcome, level: str | None) -> None:
    """Hundreds of targets with nothing to delete are silent."""
    found = watched(lambda watcher: watcher.retired(retired))
    assert [line["level"] for line in found] == ([level] if level else [])


def test_the_rest_of_a_run_is_told_too() -> None:
    """What was found, what waits, what could not be announced, what it came to."""

    def tell(watcher: LogWatcher) -> None:
        watcher.found(3, [Ref("default", "idle")])
        watcher.waiting(2, NOW)
        watcher.not_announced(SECRET, "words")
        watcher.finished(Report(RUN, (), (), (), 1.26))

    found, unused, waiting, silent, finished = watched(tell)
    assert (found["event"], found["targets"]) == ("run.discovered", 3)
    assert (unused["event"], unused["generator"]) == ("generator.unused", "idle")
    assert (waiting["event"], waiting["until"]) == ("run.waiting", "2026-11-24T10:00:00Z")
    assert (silent["event"], silent["message"]) == ("target.not_announced", "words")
    assert (finished["event"], finished["seconds"]) == ("run.finished", 1.3)
