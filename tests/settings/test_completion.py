"""Completion and examples: what is suggested, in real shells at the tab key, and that every example is one."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.programs import required_program
from tests.support.scene import ROOT
from worker.settings.arguments import COMMANDS, PLUGIN, PROG, UsageError, options_of, parse
from worker.settings.completion import answer, suggestions
from worker.settings.examples import examples


def words(*typed: str) -> list[str]:
    """What may come next, without what it means; at last the directive."""
    return [line.partition("\t")[0] for line in suggestions(typed).splitlines()]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("",), [*COMMANDS, "completion", ":4"]),
        (("a",), ["adopt", "audit", ":4"]),
        (("completion", ""), ["bash", "zsh", ":4"]),
        (("completion", "z"), ["zsh", ":4"]),
        (("completion", "bash", ""), [":4"]),
        (("audit", "-o", ""), ["json", "table", "html", ":4"]),
        (("status", "--output", "j"), ["json", ":4"]),
        (("status", "--output=t"), ["--output=table", ":4"]),
        # As bash splits it.
        (("status", "--output", "="), ["json", "table", ":4"]),
        (("status", "--output", "=", "t"), ["table", ":4"]),
        (("status", "--kubeconfig", ""), [":0"]),
        (("status", "--kubeconfig=x"), [":0"]),
        (("run", "--max-wait", ""), [":4"]),
        (("run", "--tenant-failures", "r"), ["report", ":4"]),
        (("run", "--forc"), ["--force", ":4"]),
        (("run", "--force", "--f"), ["--fallback-admin-key", "--fallback-host", ":4"]),
        (("run", "-n", "team-a", "--names"), ["--namespace", ":4"]),
        (("status", "-o", "json", "--out"), [":4"]),
        (("revoke", ""), [":4"]),
        (("revoke", "team-a/x", "--y"), ["--yes", ":4"]),
        (("revoke", "--output=h"), [":4"]),
        (("nonsense", ""), [":4"]),
        (("status", "--nonsense="), [":4"]),
        (("status", "--strict"), [":4"]),
    ],
)
def test_what_may_come_next(typed: tuple[str, ...], expected: list[str]) -> None:
    assert words(*typed) == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_suggested_and_no_other(command: str) -> None:
    found = words(command, "--")
    assert found == [*(f"--{option.name}" for option in options_of(command)), ":4"]


@pytest.mark.parametrize("arguments", [[], ["fish"], ["bash", "zsh"], ["--words"]])
def test_a_shell_has_to_be_named(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="needs the name of a shell"):
        answer(arguments)


# --- examples


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("prog", [PROG, PLUGIN])
def test_every_example_is_a_command_line_of_its_command(command: str, prog: str) -> None:
    lines = [line.strip() for line in examples(command, prog).splitlines() if line.startswith(f"  {prog} ")]
    assert len(lines) >= 2
    for line in lines:
        settings = parse(line.removeprefix(f"{prog} ").split(), {}, prog=prog)
        assert settings.command == command


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_them(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([command, "--help"], {}, prog=PLUGIN)
    assert ended.value.code == 0
    assert examples(command, PLUGIN) in capsys.readouterr().out


@pytest.mark.parametrize("prog", [PROG, PLUGIN])
def test_help_of_completion_names_the_shells_and_how_to_load_them(
    prog: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script completes openai-key-rotator, whatever name asked for it."""
    with pytest.raises(SystemExit) as ended:
        parse(["completion", "--help"], {}, prog=prog)
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert f"usage: {prog} completion [-h] bash|zsh" in said
    for shell in ("bash", "zsh"):
        assert f"source <({PROG} completion {shell})" in said


# --- real shells


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH with this checkout's command; a name of a file that a shell may complete lies beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / PROG
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "run.py"}" "$@"\n')
    program.chmod(0o755)
    (tmp_path / "a-kubeconfig").touch()
    return folder


class Terminal:
    """A shell at the other end of a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def until(self, pattern: str, seconds: float = 60) -> str:
        """All that it shows until it shows that."""
        shown, end = "", time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self._descriptor], [], [], 0.2)[0]:
                shown += os.read(self._descriptor, 4096).decode(errors="replace")
            if re.search(pattern, shown):
                return shown
        raise AssertionError(f"{pattern!r} is not in {shown!r}")


@contextmanager
def a_shell(command: list[str], folder: Path, programs: Path) -> Iterator[Terminal]:
    child, descriptor = pty.fork()
    if child == 0:
        os.chdir(folder)
        path = f"{programs}:{os.defpath}"
        environment = {"PATH": path, "HOME": str(folder), "TERM": "dumb", "PS1": "ready> ", "LC_ALL": "C.UTF-8"}
        environment |= {"INPUTRC": "/dev/null", "ZDOTDIR": str(folder)}
        os.execve(command[0], command, environment)
    try:
        yield Terminal(descriptor)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(descriptor)


def shell_of(name: str) -> list[str]:
    if name == "bash":
        return [required_program("bash"), "--norc", "--noprofile", "-i"]
    return [required_program("zsh"), "--no-globalrcs", "--no-rcs", "-i"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("aud", "audit "),
        ("audit --str", "audit --strict "),
        ("audit -o ht", "audit -o html "),
        ("status --output=ta", "status --output=table "),
        ("status --kubeconfig a-ku", "status --kubeconfig a-kubeconfig "),
    ],
)
def test_the_tab_key_completes(shell: str, typed: str, completed: str, tmp_path: Path, programs: Path) -> None:
    """In the shell itself, with the script that it was given as the guide says."""
    command = shell_of(shell)
    with a_shell(command, tmp_path, programs) as terminal:
        if shell == "zsh":
            terminal.type("PS1='ready> '; autoload -U compinit && compinit -D -u\n")
        terminal.type(f"source <({PROG} completion {shell}); echo load''ed\n")
        terminal.until("loaded")
        # What was typed is echoed as well, so only the shell itself can have put the rest there.
        terminal.type(f"{PROG} {typed}\t")
        terminal.until(re.escape(f"{PROG} {completed}".rstrip()))


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_scripts_have_no_mistake_that_the_shell_sees(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(answer([shell]))
    done = subprocess.run([required_program(shell), "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
