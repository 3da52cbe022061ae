"""The house: which folders there are, what each says of itself, and that the layers are held."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import required_program, without_make
from tests.support.scene import ROOT

STAGES = {"discover", "observe", "plan", "rotate", "restart", "retire", "report"}
FOLDERS = STAGES | {"commands", "kubernetes", "ledger", "model", "openai", "runtime", "settings"}
MODULES = {"__init__", "cli", "context", "errors", "ports"}
PLAYED_WHOLE = {"rotate", "restart", "retire"}
"""Their behaviour shows in whole runs: tests/runs."""


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    """The contracts of setup.cfg, as `make lint` holds them."""
    program = Path(sys.executable).with_name("lint-imports")
    command = [str(program), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_a_listing_of_the_worker_shows_a_run() -> None:
    entries = {path.stem for path in (ROOT / "worker").iterdir() if path.name != "__pycache__"}
    assert entries == FOLDERS | MODULES


def test_the_guide_has_a_row_for_each_of_them() -> None:
    """CONTRIBUTING.md explains the house: a folder that moves has to move there too."""
    _, _, house = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## The house\n")
    rows = [line.split(" | ")[0] for line in house.partition("\n`sandbox/`")[0].splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)(?:/|\.py)`", row)}
    assert named | {"__init__"} == FOLDERS | MODULES


def test_the_tests_mirror_the_worker() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert folders >= FOLDERS - PLAYED_WHOLE | {"runs"}


def test_no_test_imports_another_tests_file() -> None:
    """What two of them need stands in tests/support."""
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom | ast.Import):
                imported = {part for alias in node.names for part in alias.name.split(".")}
                if isinstance(node, ast.ImportFrom):
                    imported |= set((node.module or "").split("."))
                assert not imported & files, path


@pytest.mark.parametrize("package", ["worker", "sandbox"])
def test_every_folder_says_what_it_is(package: str) -> None:
    for path in (ROOT / package).rglob("__init__.py"):
        said = ast.get_docstring(ast.parse(path.read_text()))
        assert said is not None, path
        assert len(said.splitlines()) == 1, path


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("worker/model/values.py", "import worker.errors", "cli -> commands"),
        ("worker/plan/rotation.py", "import worker.runtime.slots", "what decides is pure"),
        ("worker/plan/reasons.py", "import worker.ports", "what decides is pure"),
        ("worker/plan/holders.py", "import asyncio", "what decides is pure"),
        ("worker/report/table.py", "import worker.openai.client", "only the wiring knows the adapters"),
        ("worker/commands/status.py", "import worker.commands.run", "a command knows no other command"),
        ("worker/retire/sweep.py", "import aiohttp", "only the adapters import aiohttp"),
        ("sandbox/transport/wire.py", "import sandbox.openai.state", "sandbox: entry points"),
    ],
)
def test_an_import_that_breaks_a_contract_is_found(tmp_path: Path, module: str, line: str, contract: str) -> None:
    """In a copy that is otherwise as it is here."""
    for name in ("worker", "sandbox", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "data"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    changed = tmp_path / module
    future = "from __future__ import annotations\n"
    changed.write_text(changed.read_text().replace(future, f"{future}\n{line}\n", 1))
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    broken = [row for row in done.stdout.splitlines() if "BROKEN" in row]
    assert any(row.startswith(contract) for row in broken), broken


def test_grouped_tests_run_in_one_process(tmp_path: Path) -> None:
    """As `make test` runs them. Otherwise each process starts an API server of its own, and nothing says so."""
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    options = ["--numprocesses", "2", "--dist", "loadgroup", "--verbose", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, "--config-file", "/dev/null", "--rootdir", str(tmp_path)]
    done = subprocess.run([*command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = re.findall(r"\[(gw\d)\].* PASSED .*test_(alone|together)", done.stdout)
    assert len(ran) == 12
    assert len({process for process, _ in ran}) == 2
    assert len({process for process, kind in ran if kind == "together"}) == 1


GROUPED = """
import pytest

@pytest.mark.xdist_group("name")
@pytest.mark.parametrize("number", range(6))
def test_together(number): pass

@pytest.mark.parametrize("number", range(6))
def test_alone(number): pass
"""
"""Each process gets one of the first two units of work: the group, or without groups two tests of it."""


def test_make_empties_nothing_behind_a_link(tmp_path: Path) -> None:
    """Several working trees may share one environment; `venv --clear` follows a link, and empties it for all."""
    make = required_program("make")
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("requirements", "shared"):
        (tmp_path / folder).mkdir()
    (tmp_path / "requirements" / "dev.txt").touch()
    kept = tmp_path / "shared" / "kept"
    kept.touch()
    (tmp_path / ".venv").symlink_to("shared")
    done = subprocess.run([make, "venv"], cwd=tmp_path, env=without_make(), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert ".venv is a link" in done.stderr
    assert kept.exists()


def test_the_contracts_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout
