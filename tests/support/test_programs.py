"""A test whose program is missing is skipped with the reason, and fails where nothing may be skipped."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.programs import required_program
from tests.support.scene import ROOT

POSIX = {"sh", "chmod", "touch"}
"""What every machine with a shell has."""


def test_a_missing_program_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUIRE_CLUSTER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs the program no-such-program, which is not on PATH"):
        required_program("no-such-program")


def test_a_missing_program_is_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUIRE_CLUSTER", "1")
    with pytest.raises(pytest.fail.Exception, match="needs the program no-such-program"):
        required_program("no-such-program")


def test_a_program_on_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "some-program"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert required_program("some-program") == str(program)


def test_the_locked_kubectl_comes_before_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kubectl").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert required_program("kubectl") != str(tmp_path / "kubectl")


def named(call: ast.Call) -> str | None:
    """The program of a call like `subprocess.run(["git", …])`, where it stands there by its name."""
    match call:
        case ast.Call(
            func=ast.Attribute(value=ast.Name("subprocess")), args=[ast.List(elts=[ast.Constant(str(name)), *_]), *_]
        ):
            return name
    return None


def test_no_test_calls_a_program_by_its_bare_name() -> None:
    """But by `required_program`; tests/cluster/build.py and tests/node say themselves what they lack."""
    calls = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "tests").rglob("*.py")
        if "node" not in path.relative_to(ROOT).parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and (name := named(node)) is not None
    }
    assert {call for call in calls if call[1] not in POSIX} == {("tests/cluster/build.py", "go")}
