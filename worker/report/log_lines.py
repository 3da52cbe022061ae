"""Log lines: JSON, one per target and one per run, constant dotted names, facts as keys.

Guarantees: the log never contains text that looks like an OpenAI key, whatever its origin.
The log contains neither foreign error texts nor values of tracebacks.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Mapping, MutableMapping
from datetime import datetime
from typing import Any, TextIO

import structlog

from worker.model.hidden import redacted
from worker.model.outcomes import (
    UNUSED,
    WOULD_RESTART,
    WOULD_ROTATE,
    AdminKeyOutcome,
    Outcome,
    Report,
    RestartOutcome,
    Result,
    RetireOutcome,
)
from worker.model.times import format_time
from worker.model.values import Ref
from worker.report.summary import admin_key_fields, is_news, outcome_fields, restart_fields, retired_fields, run_fields

Log = structlog.typing.FilteringBoundLogger


def _redact(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: _clean(value) for key, value in event.items()}


def _clean(value: object) -> object:
    """The value without OpenAI keys, at any depth."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return redacted(value)
        case Mapping():
            return {redacted(str(key)): _clean(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean(inner) for inner in value]
        case _:
            return redacted(repr(value))


def _ordered(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Time, level and event come first: people read the lines too."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


class _LibraryHandler(logging.Handler):
    """Warnings of libraries, without their text: it may quote a request."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.warning("library.warning", logger=record.name, place=f"{record.filename}:{record.lineno}")


def configure(stream: TextIO | None = None) -> Log:
    """A logger that writes JSON lines to `stream` (default: standard output); libraries write through it too."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            _ordered,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stdout),
    )
    log = logger()
    logging.root.handlers[:] = [_LibraryHandler(log)]
    return log


def logger() -> Log:
    """The logger as it is configured."""
    log: Log = structlog.get_logger()
    return log


class LogWatcher:
    """Writes a line for each step as it happens."""

    def __init__(self, log: Log) -> None:
        # Bound once: a lazy logger makes itself anew for each line.
        self._log: Log = log.bind()

    def found(self, targets: int, unused: Collection[Ref]) -> None:
        self._log.info("run.discovered", targets=targets)
        for ref in unused:
            self._log.warning("generator.unused", namespace=ref.namespace, generator=ref.name, message=UNUSED)

    def served(self, outcome: Outcome) -> None:
        level = {Result.FAILED: self._log.error, Result.BLOCKED: self._log.warning}.get(outcome.result, self._log.info)
        done = "would_rotate" if outcome.reason == WOULD_ROTATE else outcome.result.value
        level(f"target.{done}", **outcome_fields(outcome))

    def waiting(self, targets: int, until: datetime) -> None:
        self._log.info("run.waiting", targets=targets, until=format_time(until))

    def retired(self, retired: RetireOutcome) -> None:
        if is_news(retired):
            level = {Result.FAILED: self._log.error, Result.BLOCKED: self._log.warning}.get(
                retired.result, self._log.info
            )
            level("target.retired", **retired_fields(retired))

    def restarted(self, restarted: RestartOutcome) -> None:
        level = {Result.FAILED: self._log.error, Result.BLOCKED: self._log.warning}.get(
            restarted.result, self._log.info
        )
        done = "would_restart" if restarted.reason == WOULD_RESTART else "restarted"
        level(f"target.{done}", **restart_fields(restarted))

    def admin_key(self, outcome: AdminKeyOutcome) -> None:
        level = {Result.FAILED: self._log.error, Result.BLOCKED: self._log.warning}.get(outcome.result, self._log.info)
        done = "would_rotate" if outcome.reason == WOULD_ROTATE else outcome.result.value
        level(f"admin_key.{done}", **admin_key_fields(outcome))

    def not_announced(self, target: Ref, problem: str) -> None:
        self._log.warning("target.not_announced", namespace=target.namespace, secret=target.name, message=problem)

    def finished(self, report: Report) -> None:
        self._log.info("run.finished", **run_fields(report))
