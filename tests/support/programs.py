"""Programs that tests call and that a machine may not have.

Guarantees: where one is missing, the test that calls it is skipped with the reason; with REQUIRE_CLUSTER=1 (CI) it
fails instead.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def required_program(name: str) -> str:
    """Where it is: the locked one beside this Python, else the first on PATH."""
    place = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=place)
    if found is not None:
        return found
    if os.environ.get("REQUIRE_CLUSTER") == "1":
        pytest.fail(f"needs the program {name}, which is not on PATH, but REQUIRE_CLUSTER=1", pytrace=False)
    pytest.skip(f"needs the program {name}, which is not on PATH")


def without_make() -> dict[str, str]:
    """This process's environment without what `make test` tells its own children: for a test that calls make itself."""
    told = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VENV", "ARGS", "PYTHON")
    return {name: value for name, value in os.environ.items() if name not in told}
