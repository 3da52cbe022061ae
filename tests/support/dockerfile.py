"""A Dockerfile read, and built in a directory, where no Docker daemon is at hand.

Guarantees: each stage is a directory of its own, in which nothing lies but what a base image is said to have and what
the stage's instructions made. Commands are those of the Dockerfile, with absolute paths moved below that directory.
What is not known here, be it an instruction, a program or a word, is refused (Unreadable), so that no command gets to
see a path outside. Copied files lose their times, as with builders that make images reproducible.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = {"python", "/venv/bin/python", "rm"}
WORD = re.compile(r"/(?:[\w.*/-]|\[!\w\])+|[\w.:=-]+")
"""A word of a command: an absolute path, perhaps with a pattern (`*`, `[!x]`), or one without a slash; no other shell
syntax."""


class Unreadable(ValueError):
    """The Dockerfile says what this reader does not know."""


@dataclass(frozen=True)
class Instruction:
    keyword: str
    text: str

    @property
    def words(self) -> list[str]:
        """The text's words, or its list if it is in JSON form."""
        return list(map(str, json.loads(self.text))) if self.text.startswith("[") else shlex.split(self.text)

    @property
    def pairs(self) -> dict[str, str]:
        """The `name=value` words, as of LABEL and ENV."""
        return dict(word.split("=", 1) for word in self.words)


@dataclass
class Stage:
    """What a stage's instructions made: files below `root`, and how a container of it is started."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0"
    entrypoint: list[str] = field(default_factory=list)

    def inside(self, path: str) -> Path:
        """Where a path of the image is."""
        if ".." in path:
            raise Unreadable(path)
        return self.root / str(Path(self.workdir, path)).lstrip("/")


def read(text: str) -> list[Instruction]:
    """A Dockerfile's instructions: joined lines, no comments, the defaults of ARGs put in."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    instructions: list[Instruction] = []
    arguments: dict[str, str] = {}
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        keyword, _, rest = line.partition(" ")
        for name, value in arguments.items():
            rest = rest.replace(f"${{{name}}}", value)
        instructions.append(Instruction(keyword, rest.strip()))
        if keyword == "ARG":
            arguments |= instructions[-1].pairs
    return instructions


def build(instructions: list[Instruction], context: Path, scratch: Path, base: Callable[[Path], None]) -> Stage:
    """Build all stages below `scratch`, each on what `base` puts there first; the last one."""
    stages: dict[str, Stage] = {}
    stage = Stage(scratch)
    for instruction in instructions:
        match instruction.keyword, instruction.words:
            case "ARG", _:
                pass
            case "FROM", [_] | [_, "AS", _]:
                stage = Stage(scratch / f"stage-{len(stages)}")
                stages[instruction.words[-1]] = stage
                base(stage.root)
            case "COPY", [option, source, target] if option.startswith("--from="):
                _copy(stages[option.removeprefix("--from=")].inside(source), stage, target)
            case "COPY", [source, target]:
                _copy(context / source, stage, target)
            case "RUN", _:
                _run(instruction.text, stage)
            case "ENV", _:
                stage.env |= instruction.pairs
            case "LABEL", _:
                stage.labels |= instruction.pairs
            case "WORKDIR", [path]:
                stage.workdir = path
                stage.inside(path).mkdir(parents=True, exist_ok=True)
            case "USER", [user]:
                stage.user = user
            case "ENTRYPOINT", words:
                stage.entrypoint = words
            case _:
                raise Unreadable(f"{instruction.keyword} {instruction.text}")
    return stage


def commands(text: str, stage: Stage) -> list[list[str]]:
    """The commands that RUN joins with `&&`: absolute paths moved below the stage's root, patterns resolved."""
    result = []
    for command in text.split("&&"):
        program, *words = command.split()
        if program == ":":
            # It does nothing; a builder's cache goes by it.
            continue
        if program not in PROGRAMS:
            raise Unreadable(command)
        result.append([sys.executable if program == "python" else str(stage.inside(program))])
        if program == "rm":
            result[-1] = [program]
        for word in words:
            if not WORD.fullmatch(word) or ".." in word:
                raise Unreadable(word)
            path = str(stage.inside(word))
            found = sorted(glob.glob(path)) if "*" in word else []  # noqa: PTH207 - a pattern below a root of any name
            result[-1] += found or [path if word.startswith("/") else word]
    return result


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what changes Python's ways or shows a cluster, and `extra`."""
    own = ("PYTHON", "KUBE", "COVERAGE", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)} | dict(extra)


def _run(text: str, stage: Stage) -> None:
    for command in commands(text, stage):
        done = subprocess.run(
            command,
            cwd=stage.inside("."),
            env=clean_environment(stage.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"


def _copy(source: Path, stage: Stage, target: str) -> None:
    """As COPY does: a folder's content, or a file, into a folder if the target ends like one."""
    destination = stage.inside(target)
    if source.is_dir():
        shutil.copytree(source, destination, symlinks=True, dirs_exist_ok=True, copy_function=_copy_file)
        return
    if target.endswith("/"):
        destination /= source.name
    destination.parent.mkdir(parents=True, exist_ok=True)
    _copy_file(source, destination)


def _copy_file(source: str | Path, target: str | Path) -> None:
    shutil.copy(source, target)
    os.utime(target, (0, 0))
