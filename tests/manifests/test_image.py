"""The image: what the Dockerfile makes of this checkout, built by its own commands in a clean directory.

The dependencies are installed for real, by the lock file. The base image is a stand-in with what the Dockerfile takes
away from it; the interpreter is the one that runs the tests.
"""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dockerfile import Instruction, Stage, Unreadable, build, clean_environment, commands, read
from tests.support.programs import required_program

pytestmark = pytest.mark.xdist_group("image")

HERE = Path(__file__).parents[2]
INSTRUCTIONS = read((HERE / "Dockerfile").read_text())
LET_IN = [line for line in (HERE / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
UNCHECKED_HASH = (1).to_bytes(4, "little")
COMPILERS = re.compile(r"(gcc|g\+\+|cc|clang.*|make|cmake|ld|uv|pip[\d.]*)(\.exe)?")
REQUIRED = os.environ.get("REQUIRE_CLUSTER") == "1"
"""In CI no test may be skipped."""
OUT_OF_REACH = re.compile(r"connection|name resolution|timed out|No matching distribution", re.IGNORECASE)
"""What pip says where it has no network."""


def these(keyword: str) -> list[Instruction]:
    return [instruction for instruction in INSTRUCTIONS if instruction.keyword == keyword]


def base_image(root: Path) -> None:
    """As python:3.13-slim: pip, and a standard library without bytecode (one module stands for it)."""
    library = root / "usr/local/lib/python3.13"
    for path in ("abc.py", "ensurepip/__init__.py", "site-packages/pip/__init__.py", "site-packages/README.txt"):
        (library / path).parent.mkdir(parents=True, exist_ok=True)
        (library / path).touch()
    (root / "usr/local/bin").mkdir()
    for name in ("python", "pip", "pip3", "pip3.13"):
        (root / "usr/local/bin" / name).touch()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The last stage, built from what .dockerignore lets in, and alone: read-only, the stages before it gone."""
    scratch = tmp_path_factory.mktemp("image")
    context = scratch / "context"
    for path in (line[1:] for line in LET_IN if line.startswith("!")):
        if (HERE / path).is_dir():
            shutil.copytree(HERE / path, context / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (context / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE / path, context / path)
    try:
        stage = build(INSTRUCTIONS, context, scratch, base_image)
    except AssertionError as error:
        if REQUIRED or not OUT_OF_REACH.search(str(error)):
            raise
        pytest.skip("the dependencies cannot be installed: the package index is out of reach")
    for other in scratch.iterdir():
        if other != stage.root:
            shutil.rmtree(other)
    subprocess.run(["chmod", "-R", "a-w", stage.root], check=True)
    yield stage
    subprocess.run(["chmod", "-R", "u+w", stage.root], check=True)
    shutil.rmtree(stage.root)


def unprivileged() -> list[str]:
    """What a command begins with: for root, modes forbid nothing until it has no capabilities left."""
    return [required_program("setpriv"), "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []


def start(image: Stage, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A container's process: the entry point with the image's environment, without leave to write."""
    command = [str(image.inside(word)) if word.startswith("/") else word for word in image.entrypoint]
    return subprocess.run(
        [*unprivileged(), *command, *arguments],
        cwd=image.inside("."),
        env=clean_environment({"HOME": "/nonexistent"} | image.env | env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def listing(image: Stage) -> dict[str, tuple[int, int]]:
    files = [path for path in image.root.rglob("*") if not path.is_symlink()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_the_worker_starts_read_only_and_writes_nothing(image: Stage) -> None:
    assert subprocess.run([*unprivileged(), "touch", image.inside("/app/x")], check=False).returncode != 0
    before = listing(image)

    shown = start(image, "--help")

    assert (shown.returncode, shown.stderr) == (0, "")
    assert "usage:" in shown.stdout
    assert listing(image) == before


def test_a_run_without_a_cluster_says_so(image: Stage) -> None:
    before = listing(image)

    run = start(image, "run")

    assert run.returncode == 3, run.stdout + run.stderr
    assert json.loads(run.stdout.splitlines()[-1])["reason"] == "NoKubeconfig"
    assert listing(image) == before


def test_nothing_is_compiled_at_run_time(image: Stage) -> None:
    told = start(image, "run", PYTHONVERBOSE="1").stderr
    loaded = set(re.findall(r"^# code object from '(.*)'$", told, re.MULTILINE))
    from_image = {path for path in loaded if path.startswith(str(image.root))}

    assert [path for path in from_image if not path.endswith(".pyc")] == []
    for package in ("app/worker", "/kubernetes", "/aiohttp", "/structlog"):
        assert any(package in path for path in from_image), package


def test_all_bytecode_is_valid_whatever_becomes_of_the_times_of_files(image: Stage) -> None:
    sources = [path for path in image.root.rglob("*.py") if not path.is_symlink()]
    places = {"/app/run.py", "/app/worker/cli.py", "/usr/local/lib/python3.13/abc.py"}
    assert places <= {f"/{path.relative_to(image.root)}" for path in sources}

    for source in sources:
        bytecode = Path(importlib.util.cache_from_source(str(source))).read_bytes()
        expected = importlib.util.MAGIC_NUMBER + UNCHECKED_HASH + importlib.util.source_hash(source.read_bytes())
        assert bytecode[:16] == expected, source


def test_nothing_is_in_it_but_the_worker_and_what_it_imports(image: Stage) -> None:
    assert sorted(path.name for path in image.root.iterdir()) == ["app", "licenses", "usr", "venv"]
    assert [path.name for path in image.inside("/licenses").iterdir()] == ["LICENSE"]
    assert sorted(path.name for path in image.inside("/app").iterdir()) == ["__pycache__", "run.py", "worker"]
    inside, source = image.inside("/app/worker"), HERE / "worker"
    modules = {path.relative_to(source) for path in source.rglob("*.py")}
    files = {path.relative_to(inside) for path in inside.rglob("*") if path.is_file()}
    assert {path for path in files if path.suffix != ".pyc"} == modules
    assert {path.parent.parent / f"{path.name.partition('.')[0]}.py" for path in files - modules} == modules

    locked = re.findall(r"^([\w.-]+)==", (HERE / "requirements/runtime.txt").read_text(), re.MULTILINE)
    installed = {path.name.partition("-")[0] for path in image.inside("/venv").rglob("*.dist-info")}
    assert {name.lower().replace("_", "-") for name in installed} <= {name.lower() for name in locked}
    assert {"kubernetes", "aiohttp", "structlog"} <= installed


def test_neither_generated_classes_nor_commands_of_libraries_are_in_it(image: Stage) -> None:
    (client,) = image.inside("/venv").glob("lib/python3*/site-packages/kubernetes")
    assert not list(client.rglob("models"))
    assert not list(client.rglob("*_api.py*"))
    assert not [path.name for path in image.inside("/venv/bin").iterdir() if not path.name.startswith("python")]


def test_neither_build_tools_nor_the_projects_tests_are_in_it(image: Stage) -> None:
    folders = {path.name for path in image.root.rglob("*") if path.is_dir()}
    assert folders.isdisjoint({"pip", "setuptools", "wheel", "ensurepip", "sandbox", "benchmarks"})
    assert not [path for path in image.root.rglob("*") if "bin" in path.parts and COMPILERS.fullmatch(path.name)]
    assert not list(image.inside("/app").rglob("test*"))


def test_it_is_described_by_the_metadata_of_the_project(image: Stage) -> None:
    setup = configparser.ConfigParser()
    setup.read(HERE / "setup.cfg")
    metadata = setup["metadata"]

    expected = {"title": metadata["name"], "description": metadata["description"], "version": metadata["version"]}
    expected["licenses"] = metadata["license"]
    # Given by who builds it (--build-arg), as tests/node/test_image.py does.
    expected |= {"source": "unknown", "revision": "unknown"}
    assert image.labels == {f"org.opencontainers.image.{name}": value for name, value in expected.items()}


def test_it_is_a_one_shot_of_a_user_without_rights(image: Stage) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.user)
    assert [instruction.text for instruction in these("ENTRYPOINT")] == ['["/venv/bin/python", "/app/run.py"]']
    assert these("HEALTHCHECK") == these("CMD") == these("EXPOSE") == these("VOLUME") == []
    assert INSTRUCTIONS[-2:] == [*these("USER"), *these("ENTRYPOINT")]


def test_the_base_is_pinned_by_minor_version() -> None:
    bases = {instruction.words[0] for instruction in these("FROM")}

    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim", bases.pop())


def test_dependencies_come_from_the_lock_file_with_hashes_and_without_building() -> None:
    (install,) = [instruction.words for instruction in these("RUN") if "install" in instruction.words]

    for option in ("--require-hashes", "--no-deps", "--no-cache-dir", "--no-compile"):
        assert option in install
    assert install[install.index("--only-binary") + 1] == ":all:"
    assert install[install.index("--requirement") + 1] == "/requirements.txt"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_dependency_has_a_wheel_for_each_architecture(machine: str, tmp_path: Path) -> None:
    """So that the same Dockerfile builds both: nothing in it, and no copied file, is of one alone."""
    minor = these("FROM")[0].words[0].removeprefix("python:").removesuffix("-slim")
    platforms = [f"--platform={kind}_{machine}" for kind in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    wanted = ["--only-binary=:all:", "--implementation=cp", f"--python-version={minor}", *platforms]
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--quiet", f"--dest={tmp_path}"]
    done = subprocess.run(
        [*pip, *wanted, f"--requirement={HERE / 'requirements/runtime.txt'}"],
        env=clean_environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and not REQUIRED and OUT_OF_REACH.search(done.stderr):
        pytest.skip("the dependencies cannot be looked at: the package index is out of reach")
    assert done.returncode == 0, done.stderr
    assert {path.suffix for path in tmp_path.iterdir()} == {".whl"}


def test_nothing_in_the_dockerfile_is_of_one_architecture() -> None:
    assert not re.search(r"x86_64|amd64|aarch64|arm64", (HERE / "Dockerfile").read_text())


def test_hadolint_finds_nothing_and_is_not_told_to_look_away() -> None:
    assert "hadolint" not in (HERE / "Dockerfile").read_text()
    found = subprocess.run(
        [required_program("hadolint"), "Dockerfile"], cwd=HERE, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_the_dockerfile_has_only_what_its_steps_are_run_by() -> None:
    keywords = {instruction.keyword for instruction in INSTRUCTIONS}
    assert keywords == {"ARG", "FROM", "COPY", "RUN", "LABEL", "ENV", "WORKDIR", "USER", "ENTRYPOINT"}


def test_the_context_is_what_is_copied() -> None:
    copied = [f"!{instruction.words[0]}" for instruction in these("COPY") if "--from" not in instruction.text]

    assert ["*", *copied, "**/__pycache__"] == LET_IN


@pytest.mark.parametrize(
    "command",
    ["curl x", "rm -rf /a/../../b", "rm $HOME", "rm a/../b", "rm --x=/etc", "rm '/etc'", "rm ~/x", "python -c `x`"],
)
def test_a_command_that_could_reach_outside_is_refused(command: str, tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        commands(command, Stage(tmp_path))


def test_a_pattern_stands_for_what_is_inside(tmp_path: Path) -> None:
    for name in ("pip", "pip3", "python", "idna"):
        (tmp_path / name).touch()

    assert commands("rm -rf /pip* && rm /[!p]* && rm /no*", Stage(tmp_path)) == [
        ["rm", "-rf", f"{tmp_path}/pip", f"{tmp_path}/pip3"],
        ["rm", f"{tmp_path}/idna"],
        ["rm", f"{tmp_path}/no*"],
    ]
