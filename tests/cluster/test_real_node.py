"""`make node` where it cannot do its work: it says what is missing, in one line, and fails only where it must not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scene import ROOT

GO_MODS = [(ROOT / "tests" / folder / "go.mod").read_text() for folder in ("cluster", "node")]
OURS = ("NODE_WORLD", "REQUIRE_NODE", "REQUIRE_CLUSTER")


def start(program: str, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "HOME": str(path), **variables}
    command = [sys.executable, "-m", program]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("required", "code", "what"),
    [("", 0, "not used, its tests are skipped"), ("1", 1, "required by REQUIRE_NODE=1, and cannot be used")],
)
def test_without_its_programs_it_says_so(tmp_path: Path, required: str, code: int, what: str) -> None:
    done = start("tests.node", tmp_path, REQUIRE_NODE=required)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert done.returncode == code
    assert line.startswith(f"real node: {what}. Missing here: ")
    assert ("go; buildah" if os.geteuid() == 0 else "root") in line


def test_its_kubelet_is_of_the_control_planes_version() -> None:
    """And so are the libraries of both, so that most of it is compiled once."""
    pinned = [dict(re.findall(r"^(?:\t|require )(\S+) (v\S+)", text, re.MULTILINE)) for text in GO_MODS]
    both = set(pinned[0]) & set(pinned[1])
    assert "k8s.io/kubernetes" in both
    assert {name: pinned[0][name] for name in both} == {name: pinned[1][name] for name in both}


def test_nothing_is_built_then(tmp_path: Path) -> None:
    done = start("tests.node.build", tmp_path)
    (line,) = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 1
    assert line.startswith("real node: nothing is built. Missing here: ")
    assert list(tmp_path.iterdir()) == []


def test_its_tests_do_not_run_outside_of_it(tmp_path: Path) -> None:
    """Neither by `make test`, which does not look into their folder, nor by their path."""
    pytest_of = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", f"--basetemp={tmp_path}", "-rs"]
    environment = {key: value for key, value in os.environ.items() if key not in OURS}
    found = subprocess.run(
        [*pytest_of, "--collect-only", "--ignore-glob=*/test_[!i]*.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "tests/cluster/test_installed.py" in found.stdout
    assert "tests/node/" not in found.stdout
    named = [*pytest_of, "tests/node/test_installed.py"]
    done = subprocess.run(named, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "no real node: `make node` starts one" in done.stdout
    assert "passed" not in done.stdout
