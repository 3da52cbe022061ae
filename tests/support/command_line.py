"""`python run.py` as a user calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.canary import leaks
from tests.support.scene import ROOT


def run_py(kubeconfig: Path | str | None, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python run.py` in an environment of its own; nothing that it says shows a key or a traceback."""
    environment = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "COVERAGE_PROCESS_START")}
    environment |= {"HOME": "/nonexistent", **variables}
    if kubeconfig is not None:
        environment["KUBECONFIG"] = str(kubeconfig)
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    for text in (done.stdout, done.stderr):
        assert not leaks(text)
        assert "Traceback" not in text
        assert "internal error" not in text
    return done
