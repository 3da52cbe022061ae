"""The wheel: it holds the whole worker and nothing else, and runs where it is installed alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.canary import leaks
from tests.support.programs import required_program
from tests.support.scene import ROOT

pytestmark = pytest.mark.xdist_group("image")

DOCUMENTED = ROOT / "manifests" / "examples" / "documented.yaml"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for a build leaves folders behind. Nothing is fetched: the lock has what builds it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "run.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("worker", "sandbox", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(target), str(source)]
    subprocess.run(command, cwd=target, check=True, capture_output=True, text=True)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, in an environment of its own that shares no more than the locked libraries with this one."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel)]
    subprocess.run(command, cwd=environment, check=True, capture_output=True, text=True)
    paths = sysconfig.get_paths(vars={"base": str(environment), "platbase": str(environment)})
    (Path(paths["purelib"]) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin" / "openai-key-rotator"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Both APIs over HTTP, with the documented objects; where they are."""
    documented = list(yaml.safe_load_all(DOCUMENTED.read_text()))
    for item in documented:
        if item["kind"] == "Secret":
            item["stringData"] = {"api-key": "${OPENAI_ADMIN_KEY}"}
        if item["kind"] == "OpenAI":
            item["spec"]["host"] = "${OPENAI_URL}"
    objects = [item for item in documented if item["kind"] in ("Secret", "OpenAI", "ExternalSecret")]
    seed = tmp_path / "seed.yaml"
    seed.write_text(yaml.safe_dump_all(objects))
    command = [sys.executable, "-m", "sandbox", "--apply", str(seed), "--directory", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield dict(process.stdout.readline().strip().split("=", 1) for _ in range(4))
        process.terminate()


def run(command: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """An installed command, from a folder without the checkout and without a PYTHONPATH to it."""
    environment = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")} | variables
    return subprocess.run(
        [str(command), *arguments],
        cwd=command.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_holds_every_module_of_the_worker_and_no_other(wheel: Path) -> None:
    """Subpackages are found by setuptools only if setup.cfg says so."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not archive.getinfo(name).is_dir()}
        (metadata,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        commands = archive.read(f"{metadata}/entry_points.txt").decode().split("\n")
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "worker").rglob("*.py")}
    facts = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE")
    about = {f"{metadata}/{name}" for name in facts}
    assert names == modules | about
    assert [line for line in commands if line] == [
        "[console_scripts]",
        "kubectl-openai_keys = worker.cli:kubectl",
        "kubectl_complete-openai_keys = worker.cli:kubectl_complete",
        "openai-key-rotator = worker.cli:main",
    ]


def test_the_command_is_the_installed_one(installed: Path) -> None:
    """A wheel that is tried in its checkout may import what it lacks."""
    where = "import worker.commands.revoke.plan as plan; print(plan.__file__)"
    done = run(installed.with_name("python"), "-c", where)
    assert Path(done.stdout.strip()).is_relative_to(installed.parent.parent)
    helped = run(installed, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "revoke" in helped.stdout


def test_it_rotates_from_where_it_is_installed(installed: Path, sandbox: dict[str, str]) -> None:
    """Run, then each of the other commands: all of their modules are there."""
    hosts, variables = ("--allow-host", sandbox["OPENAI_URL"]), {"KUBECONFIG": sandbox["KUBECONFIG"], "HOME": "/"}
    done = run(installed, "run", "--max-wait", "0s", *hosts, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert "target.rotated" in events
    for arguments in (("status",), ("adopt", *hosts), ("revoke", "default/openai-credentials", "--yes", *hosts)):
        other = run(installed, *arguments, "--output", "json", **variables)
        assert other.returncode == 0, other.stdout + other.stderr
        assert not leaks(other.stdout + other.stderr)
        json.loads(other.stdout)
    assert not leaks(done.stdout + done.stderr)


# --- as a plugin of the real kubectl, which finds it on PATH


def kubectl(installed: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{installed.parent}{os.pathsep}{os.environ['PATH']}"
    return run(Path(required_program("kubectl")), *arguments, PATH=path, HOME="/", **variables)


def test_kubectl_has_its_commands(installed: Path, sandbox: dict[str, str]) -> None:
    """With kubectl's own flags behind the name; what is shown is in kubectl's words."""
    hosts, variables = ("--allow-host", sandbox["OPENAI_URL"]), {"KUBECONFIG": sandbox["KUBECONFIG"]}
    assert kubectl(installed, "openai-keys", "run", "--max-wait=0s", *hosts, **variables).returncode == 0
    shown = kubectl(installed, "openai-keys", "status", "-n", "default", "-o", "json", "--context=sandbox", **variables)
    assert shown.returncode == 0, shown.stderr
    (target,) = json.loads(shown.stdout)
    assert (target["namespace"], target["secret"]) == ("default", "openai-credentials")
    none = kubectl(installed, "openai-keys", "status", "-n", "another", "-o", "json", **variables)
    assert json.loads(none.stdout) == []
    for arguments in (("audit", *hosts), ("revoke", "default/openai-credentials", "--yes", *hosts)):
        done = kubectl(installed, "openai-keys", *arguments, "-o", "json", **variables)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
        assert not leaks(done.stdout + done.stderr)
    wrong = kubectl(installed, "openai-keys", "status", "--context=another", **variables)
    assert wrong.returncode == 3
    assert "another" in wrong.stderr


@pytest.mark.parametrize("arguments", [[], ["--force"], ["--context", "sandbox"]])
def test_kubectl_rotates_nothing_that_was_not_asked_for(
    installed: Path, sandbox: dict[str, str], arguments: list[str]
) -> None:
    """`run` is the default of a job, not of somebody at a laptop."""
    done = kubectl(installed, "openai-keys", *arguments, KUBECONFIG=sandbox["KUBECONFIG"])
    assert done.returncode == 2
    assert "usage: kubectl openai-keys" in done.stderr
    assert "the command is missing" in done.stderr


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["st"], ["status"]),
        (["audit", "--stri"], ["--strict"]),
        (["audit", "-o", "h"], ["html"]),
        (["revoke", "default/x", "--with"], ["--without-successor"]),
    ],
)
def test_kubectl_completes_them(installed: Path, typed: list[str], found: list[str]) -> None:
    """kubectl's own script asks so at the tab key, in every shell that it serves."""
    done = kubectl(installed, "__complete", "openai-keys", *typed)
    assert done.returncode == 0, done.stderr
    *lines, directive = done.stdout.splitlines()
    assert [line.partition("\t")[0] for line in lines] == found
    assert directive == ":4"


def test_help_is_in_the_words_of_whoever_called(installed: Path) -> None:
    for command in ("status", "audit", "revoke"):
        helped = kubectl(installed, "openai-keys", command, "--help")
        assert (helped.returncode, helped.stderr) == (0, "")
        assert helped.stdout.startswith(f"usage: kubectl openai-keys {command} ")
        assert f"\n  kubectl openai-keys {command}" in helped.stdout.partition("examples:")[2]
