"""A pytest plugin: a test in which a secret shows up fails, whatever it tests.

Every fake key carries `CANARY`. Guarantee: a test fails if the marker, plain or as base64 (the form in which Secrets
carry it), is in its log records of any level or in what it or its subprocesses printed, also if the test itself read
that through `capsys` or `capfd`. For everything else, such as objects, errors and reports, there is `leaks`.
"""

from __future__ import annotations

import base64
from collections.abc import Generator

import pytest

from sandbox.openai.state import CANARY

READ = pytest.StashKey[list[str]]()
"""What a test took out of the captured output."""


def leaks(text: str) -> bool:
    """Does the text carry (a part of) a fake key?"""
    return any(form in text for form in FORMS)


def _base64_forms(marker: bytes) -> list[str]:
    """The characters that base64 makes of the marker, at each of its three places in a group of three bytes."""
    forms = []
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + marker).decode()
        first, end = -(-offset * 8 // 6), (offset + len(marker)) * 8 // 6
        forms.append(encoded[first:end])
    return forms


FORMS = [CANARY, *_base64_forms(CANARY.encode())]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the report of a test that leaks into a failure that says where, and not what."""
    report = yield
    # Sections gather: those of earlier phases have been looked at.
    places = [title for title, text in report.sections if title.endswith(f" {report.when}") and leaks(text)]
    places += ["output read by the test"] if any(leaks(text) for text in item.stash.get(READ, [])) else []
    item.stash[READ] = []
    if places and not report.failed:
        report.outcome = "failed"
        report.longrepr = f"a secret is in: {', '.join(places)}"
    return report


@pytest.fixture
def capsys(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> pytest.CaptureFixture[str]:
    """Pytest's, and what is read from it is looked at."""
    _watch(capsys, request.node, monkeypatch)
    return capsys


@pytest.fixture
def capfd(
    capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> pytest.CaptureFixture[str]:
    """Pytest's, and what is read from it is looked at."""
    _watch(capfd, request.node, monkeypatch)
    return capfd


def _watch(capture: pytest.CaptureFixture[str], item: pytest.Item, monkeypatch: pytest.MonkeyPatch) -> None:
    read = capture.readouterr

    def readouterr() -> object:
        captured = read()
        item.stash.setdefault(READ, []).extend(captured)
        return captured

    monkeypatch.setattr(capture, "readouterr", readouterr)
