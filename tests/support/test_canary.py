"""The canary sings: a test that shows a secret fails, however it shows it."""

from __future__ import annotations

import base64
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox.openai.server import OpenAI
from sandbox.openai.state import CANARY
from tests.support.canary import leaks

SUITE = """
import base64, logging, subprocess, sys

def test_prints_it():
    print("sk-MARKER1")

def test_logs_it_at_the_lowest_level():
    logging.getLogger("any").debug("with %s", "sk-MARKER1")

def test_prints_it_in_a_subprocess():
    subprocess.run([sys.executable, "-c", "print('sk-MARKER1')"], check=True)

def test_prints_it_as_base64():
    print(base64.b64encode(b"sk-MARKER1").decode())

def test_prints_and_reads_it(capsys):
    print("sk-MARKER1")
    assert capsys.readouterr().out

def test_prints_and_reads_it_below_python(capfd):
    print("sk-MARKER1")
    assert capfd.readouterr().out

def test_prints_something_else(capsys):
    print("canary")
    assert capsys.readouterr().out
    print("another canary")

def test_is_silent():
    pass
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each test of a suite of its own: PASSED, or why it failed.

    The suite runs in a process of its own, for what it prints must not be taken for this test's output.
    """
    directory = tmp_path_factory.mktemp("suite")
    (directory / "pytest.ini").write_text("[pytest]\nlog_level = DEBUG\n")
    (directory / "test_suite.py").write_text(SUITE.replace("MARKER", CANARY))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.support.canary", "-rA", f"--rootdir={directory}", directory],
        cwd=Path(__file__).parents[2],  # where `tests` can be imported
        env={"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    words = [line.split(" ", 2) for line in done.stdout.splitlines() if line.startswith(("PASSED ", "FAILED "))]
    return {name.partition("::")[2]: (*reason, outcome)[0] for outcome, name, *reason in words}


@pytest.mark.parametrize(
    ("test", "where"),
    [
        ("test_prints_it", "Captured stdout call"),
        ("test_logs_it_at_the_lowest_level", "Captured log call"),
        ("test_prints_it_in_a_subprocess", "Captured stdout call"),
        ("test_prints_it_as_base64", "Captured stdout call"),
        ("test_prints_and_reads_it", "output read by the test"),
        ("test_prints_and_reads_it_below_python", "output read by the test"),
    ],
)
def test_a_test_that_leaks_fails(results: dict[str, str], test: str, where: str) -> None:
    """Whatever it tests, and although nothing in it fails; the report says where, and not what."""
    assert results[test] == f"- a secret is in: {where}"


@pytest.mark.parametrize("test", ["test_prints_something_else", "test_is_silent"])
def test_other_tests_are_left_alone(results: dict[str, str], test: str) -> None:
    """Output without a secret does no harm."""
    assert results[test] == "PASSED"


@pytest.mark.parametrize("seed", range(20))
def test_every_fake_key_is_recognised(seed: int) -> None:
    """As it is, and as a Secret carries it, wherever it begins."""
    key = OpenAI(lambda: datetime(2026, 11, 24, tzinfo=UTC), random.Random(seed)).add_organization("acme")
    assert leaks(f"Bearer {key}")
    assert all(leaks(base64.b64encode(b" " * shift + key.encode()).decode()) for shift in range(3))
    assert not leaks(base64.b64encode(random.Random(seed).randbytes(300)).decode())
