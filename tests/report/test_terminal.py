"""A run on a terminal."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import threading

import pytest

from tests.support.builders import KEY, NOW, RUN, SECRET
from tests.support.clocks import StoppedClock
from worker.model.outcomes import Outcome, Report, Result, RetireOutcome
from worker.model.values import Ref
from worker.report.terminal import TerminalWatcher, agreed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(progress: io.StringIO, *outcomes: Outcome, problem: str = "", unused: tuple[Ref, ...] = ()) -> str:
    """What a run writes to standard output."""
    out = Terminal()
    watcher = TerminalWatcher(StoppedClock(), out, progress)
    watcher.found(2, unused)
    for outcome in outcomes:
        watcher.served(outcome)
    watcher.waiting(1, NOW)
    watcher.retired(RetireOutcome(SECRET))
    if problem:
        watcher.not_announced(SECRET, problem)
    watcher.finished(Report(RUN, outcomes, (), unused, 1.26))
    return out.getvalue()


WELL = Outcome(SECRET, Result.ROTATED, "First", "words")
BAD = Outcome(Ref("default", "other"), Result.FAILED, "Broken", "other words")


def test_progress_goes_to_a_terminal() -> None:
    """One line that is written over, and wiped at the end."""
    progress = Terminal()
    shown(progress, WELL, BAD)
    lines = progress.getvalue().split("\r\x1b[K")
    assert lines[1:] == [
        "2 targets",
        "1 of 2 targets: 1 rotated",
        "2 of 2 targets: 1 rotated, 1 failed",
        "waiting until 2026-11-24T10:00:00Z for the grace period of 1 targets' earlier accounts",
        "",
    ]


def test_progress_does_not_go_to_a_file() -> None:
    """Standard error of a CronJob, say; the table comes all the same."""
    progress = io.StringIO()
    text = shown(progress, WELL)
    assert progress.getvalue() == ""
    assert text == shown(Terminal(), WELL)


def test_the_table_is_followed_by_what_needs_attention_and_the_sum() -> None:
    """In this order."""
    lines = shown(io.StringIO(), WELL, BAD, problem="no right", unused=(Ref("default", "idle"),)).splitlines()
    assert lines[0].split()[:3] == ["NAMESPACE", "SECRET", "DONE"]
    assert [line.split()[1:3] for line in lines[1:3]] == [["creds", "rotated"], ["other", "failed"]]
    assert lines[3].startswith("generator default/idle feeds nothing")
    assert lines[4] == "default/creds: could not be told to the cluster: no right"
    assert lines[5] == "1 rotated, 1 failed, 1 unused generators in 1.3 s"


def test_a_run_without_targets_says_so() -> None:
    """And shows no empty table."""
    assert shown(io.StringIO()) == "nothing to do in 1.3 s\n"


@pytest.mark.parametrize("text", [f"it was {KEY}", "line\nbreak \x1b[2J"], ids=["key", "control"])
def test_neither_keys_nor_control_characters_are_shown(text: str) -> None:
    """Whatever put them into a message."""
    output = shown(io.StringIO(), Outcome(SECRET, Result.FAILED, "Broken", text))
    assert "CANARY" not in output
    assert "\x1b" not in output
    assert len(output.splitlines()) == 3


@pytest.mark.parametrize(
    ("typed", "answer"),
    [(b"y\n", True), (b"Yes\n", True), (b"n\n", False), (b"\n", False), (b"yo\n", False), (b"\x04", False)],
)
def test_only_yes_is_yes(monkeypatch: pytest.MonkeyPatch, typed: bytes, answer: bool) -> None:
    """Nothing typed, the end of the input, and all else is no."""
    master, slave = os.openpty()
    with os.fdopen(slave, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        os.write(master, typed)
        assert agreed("Sure?") is answer
    os.close(master)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_the_question_is_no(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Although the event loop has taken it; afterwards it has it again."""
    heard: list[bool] = []

    async def ask() -> bool:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(number, lambda: heard.append(True))
        threading.Timer(0.2, lambda: os.kill(os.getpid(), number)).start()
        said = agreed("Sure?")
        os.kill(os.getpid(), number)
        await asyncio.sleep(0.1)
        return said

    master, slave = os.openpty()
    with os.fdopen(slave, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert asyncio.run(ask()) is False
    os.close(master)
    assert heard


def test_without_a_terminal_nobody_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    assert agreed("Sure?") is False


def test_with_a_closed_standard_input_nobody_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has none at all then."""
    monkeypatch.setattr(sys, "stdin", None)
    assert agreed("Sure?") is False
