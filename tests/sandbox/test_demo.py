"""The demo tells the truth: its headings say what the worker's output and the two APIs show."""

from __future__ import annotations

import re
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
    run = last.partition("\n━━ ")[0]
    (row,) = [line for line in run.splitlines() if "search-openai" in line]
    assert "1 deleted" in row
    assert "stays" not in run
    (marks,) = [line for line in last.partition("what became of every account")[2].splitlines() if name in line]
    assert marks.removesuffix("team-b/search-openai").rstrip().endswith("·····")


def test_the_whole_circle_is_shown(told: str) -> None:
    """Rotated, restarted, and the old account gone with the next run."""
    _, _, story = told.partition("Nobody wants to do that each time")
    rotated, heading, over = story.partition("the rollout is over; the account that it let go is gone")
    assert heading
    (row,) = [line for line in rotated.splitlines() if "search-openai" in line]
    assert " rotated " in row
    assert "; restarted deployment/search" in row
    assert "search-3 takes the place of search-2" in rotated
    run, _, rest = over.partition("\n$ openai-key-rotator status\n")
    status, _, timeline = rest.partition("━━ what became of every account")
    (row,) = [line for line in run.splitlines() if "search-openai" in line]
    assert "1 deleted" in row
    assert "held" not in status
    assert ": deployment/search done" in status
    (*earlier, last) = [line for line in timeline.splitlines() if line.endswith("team-b/search-openai")]
    assert [line.removesuffix("team-b/search-openai").rstrip()[-5:] for line in earlier] == ["·····"] * len(earlier)
    assert last.removesuffix("team-b/search-openai").rstrip().endswith("█████")


def test_the_key_of_whoever_asks_for_less_may_do_less(told: str) -> None:
    """As OpenAI has it; the heading says so before."""
    _, _, shown = told.partition("What each key may do, asked at OpenAI:\n")
    lines = [line.strip() for line in shown.splitlines()[:3]]
    assert "team-b/search-openai: model.request" in lines
    assert "default/openai-credentials: everything" in lines


def test_the_audit_finds_what_was_said_before_it(told: str) -> None:
    """The colleague's account and the admin key's end; the worker's own two keys are no finding."""
    story, command, audit = told.partition("\n$ openai-key-rotator audit\n")
    assert command
    assert "A colleague makes an account by hand" in story.splitlines()[-1]
    rows = [line for line in audit.partition("ADMIN KEY IN")[0].splitlines() if line.startswith("my-openai-project-id")]
    found = {row.split()[2]: row.split()[-1] for row in rows}
    assert found.pop("notebook") == "NoEnd"
    assert list(found.values()) == ["-", "-"]
    (scoped,) = [row for row in rows if "team-b/search-openai" in row]
    assert " model.request " in scoped
    assert "AdminKeyExpiring" in audit
    assert audit.strip().splitlines()[-1].endswith("in 3 accounts and 3 keys of 1 project")


def test_the_beginning_names_the_options_that_no_command_line_shows(told: str) -> None:
    first = told.strip().splitlines()[1]
    assert "\n$ openai-key-rotator run --max-wait 0s\n" in told
    for option in ("--allow-host", "--output table", "--concurrency 1"):
        assert option in first


def test_the_timeline_has_the_accounts_in_the_order_in_which_they_were_made(told: str) -> None:
    """Also the one that was never published."""
    _, _, timeline = told.partition("━━ what became of every account")
    rows = [line for line in timeline.splitlines() if line.endswith(("key", "openai", "credentials", "published)"))]
    begins = [re.search("[█░]", row).start() for row in rows]  # type: ignore[union-attr]
    assert len(begins) == 9
    assert begins == sorted(begins)
