"""The commands of a guide in docs/, executed as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.canary import leaks
from tests.support.programs import required_program
from tests.support.scene import ROOT


def follow(guide: Path, directory: Path, kubeconfig: Path, openai_url: str) -> None:
    """Execute each line of the guide's blocks of shell; all must work, and none may show a key.

    In there `openai-key-rotator` is this checkout's, and `kubectl` the one of this environment.
    """
    blocks = re.findall(r"```sh\n(.*?)```", guide.read_text(), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.strip()]
    assert commands
    bash = required_program("bash")
    for command in commands:
        done = subprocess.run(
            [bash, "-euo", "pipefail", "-c", command],
            cwd=ROOT,
            env=_environment(directory, kubeconfig, openai_url),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said = done.stdout + done.stderr
        assert not leaks(said)
        assert done.returncode == 0, f"{command}\n{said}"
        assert "Traceback" not in said


def _environment(directory: Path, kubeconfig: Path, openai_url: str) -> dict[str, str]:
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "openai-key-rotator"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "run.py"}" "$@"\n')
    program.chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if key in ("LANG", "COVERAGE_PROCESS_START")}
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return kept | {
        "PATH": path,
        "HOME": str(directory),
        "KUBECONFIG": str(kubeconfig),
        "ROTATOR_ALLOW_HOST": openai_url,
        "ROTATOR_MAX_WAIT": "0s",
    }
