"""The demo tells the truth: its headings say what the worker's output and the two APIs show."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.scene import ROOT


@pytest.fixture(scope="module")
def told() -> str:
    """The whole output of `make demo`."""
    command = [sys.executable, "-m", "sandbox.demo"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout


def test_the_account_of_the_replaced_container_is_gone_as_the_last_heading_says(told: str) -> None:
    """The new container starts more than five minutes after the rotation: it cannot hold the old key."""
    before, heading, last = told.partition("the old container is gone; so is the account that it held")
    assert heading
    (held,) = [line for line in before.splitlines() if "1: search-1/app" in line]
    name = held.partition(" stays (")[0].split()[-1]
    run, _, rest = last.partition("\n$ openai-key-rotator status\n")
    status, _, timeline = rest.partition("━━ what became of every account")
    (row,) = [line for line in run.splitlines() if "search-openai" in line]
    assert "1 deleted" in row
    assert "stays" not in run
    assert "held" not in status
    (marks,) = [line for line in timeline.splitlines() if line.startswith(name)]
    assert marks.removesuffix("team-b/search-openai").rstrip().endswith("·····")


def test_the_first_line_names_the_options_that_no_command_line_shows(told: str) -> None:
    first = told.strip().splitlines()[0]
    assert "\n$ openai-key-rotator run --max-wait 0s\n" in told
    for option in ("--allow-host", "--output table", "--concurrency 1"):
        assert option in first
