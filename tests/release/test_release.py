"""`make release` in a repository of its own: what it makes, what it refuses, and that a failure leaves no trace."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path

import pytest
import yaml

from release.artifacts import ignored
from release.version import Refused, current, named, places
from tests.support.chart import helm, templated
from tests.support.programs import required_program, without_make
from tests.support.scene import ROOT

pytestmark = pytest.mark.xdist_group("image")

CHART = Path("charts/openai-key-rotator")


@dataclass(frozen=True)
class Repository:
    """A copy of this checkout as it stands, committed, and a PATH with git and nothing else."""

    root: Path
    programs: Path

    def git(self, *arguments: str) -> str:
        command = [str(self.programs / "git"), *arguments]
        done = subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def environment(self, **variables: str) -> dict[str, str]:
        people = {f"GIT_{who}_{what}": "somebody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        kept = {key: value for key, value in os.environ.items() if key == "COVERAGE_PROCESS_START"}
        alone = {
            "HOME": str(self.root.parent),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PATH": str(self.programs),
        }
        return kept | alone | people | variables

    def release(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "release", *arguments],
            cwd=self.root,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def state(self) -> tuple[str, ...]:
        """All that a refusal must leave as it is."""
        told = [("rev-parse", "HEAD"), ("tag", "--list"), ("status", "--porcelain", "--ignored"), ("diff", "HEAD")]
        return tuple(self.git(*arguments) for arguments in told)

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!{sys.executable}\nimport os, sys\n{script}\n")
        path.chmod(0o755)


def a_repository(directory: Path) -> Repository:
    git = required_program("git")
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git: nothing tells which files are the project's")
    listing = [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    root, programs = directory / "repository", directory / "bin"
    programs.mkdir()
    (programs / "git").symlink_to(git)
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    made = Repository(root, programs)
    # The version is that of the next release, whatever the state of this checkout.
    log = root / "CHANGELOG.md"
    head, _, rest = log.read_text().partition("\n## ")
    log.write_text(f"{head}\n## Unreleased\n\n### Added\n\n- A thing of this test.\n\n## {rest}")
    made.git("init", "--quiet", "--initial-branch=main")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "All")
    return made


@pytest.fixture(scope="module")
def unreleased(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Of which nothing is released: only refusals may use it."""
    return a_repository(tmp_path_factory.mktemp("unreleased"))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, str]:
    """After a release of a pre-release; and what it said."""
    repository = a_repository(tmp_path_factory.mktemp("released"))
    done = repository.release("7.8.9-rc.1")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return repository, done.stdout


def artifacts(repository: Repository, version: str = "7.8.9-rc.1") -> Path:
    return repository.root / "dist" / version


def test_all_that_can_be_made_is_made_and_what_cannot_is_said(released: tuple[Repository, str]) -> None:
    repository, said = released
    names = {path.name for path in artifacts(repository).iterdir()}
    assert names == {
        "SHA256SUMS",
        "openai-key-rotator-7.8.9-rc.1.cdx.json",
        "openai-key-rotator-7.8.9-rc.1.tgz",
        "openai_key_rotator-7.8.9rc1-py3-none-any.whl",
        "openai_key_rotator-7.8.9rc1.tar.gz",
    }
    assert "no image: neither buildah nor a Docker that answers is here" in said.splitlines()
    assert "nothing is pushed" in said


def test_the_checksums_are_those_of_all_files(released: tuple[Repository, str]) -> None:
    """In the form that `sha256sum --check` reads."""
    directory = artifacts(released[0])
    lines = [line.split("  ") for line in (directory / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == {path.name for path in directory.iterdir()} - {"SHA256SUMS"}
    for digest, name in lines:
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest


def test_the_version_is_everywhere_and_the_tree_is_clean(released: tuple[Repository, str]) -> None:
    repository, _ = released
    assert current(repository.root) == "7.8.9-rc.1"
    assert {version for path in places(repository.root) for version in named(path.read_text())} == {"7.8.9-rc.1"}
    assert repository.git("status", "--porcelain") == ""


def test_commit_tag_and_changelog_say_what_was_released(released: tuple[Repository, str]) -> None:
    repository, _ = released
    assert repository.git("log", "-1", "--format=%s") == "Release 7.8.9-rc.1"
    assert repository.git("rev-parse", "v7.8.9-rc.1^{commit}") == repository.git("rev-parse", "HEAD")
    assert repository.git("cat-file", "-t", "v7.8.9-rc.1") == "tag"
    assert "### Added\n\n- A thing of this test." in repository.git("tag", "--list", "--format=%(contents)")
    date = repository.git("log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%d")
    log = (repository.root / "CHANGELOG.md").read_text()
    assert f"\n## 7.8.9-rc.1 - {date}\n\n### Added\n\n- A thing of this test.\n" in log


def test_the_wheel_and_the_sdist_say_their_licence_and_hold_it(released: tuple[Repository, str]) -> None:
    directory = artifacts(released[0])
    licence = (ROOT / "LICENSE").read_bytes()
    (built,) = directory.glob("*.whl")
    with zipfile.ZipFile(built) as wheel:
        (metadata,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        facts = message_from_string(wheel.read(metadata).decode())
        assert wheel.read(metadata.replace("METADATA", "licenses/LICENSE")) == licence
    assert (facts["Name"], facts["Version"]) == ("openai-key-rotator", "7.8.9rc1")
    assert "Apache-2.0" in (facts["License-Expression"], facts["License"])
    (sdist,) = directory.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        file = archive.extractfile("openai_key_rotator-7.8.9rc1/LICENSE")
        assert file is not None
        assert file.read() == licence


def test_the_chart_is_packed_as_helm_reads_it(released: tuple[Repository, str]) -> None:
    repository, _ = released
    with tarfile.open(artifacts(repository) / "openai-key-rotator-7.8.9-rc.1.tgz") as archive:
        names = archive.getnames()
        file = archive.extractfile("openai-key-rotator/Chart.yaml")
        assert file is not None
        chart = yaml.safe_load(file.read())
    assert names[0] == "openai-key-rotator/Chart.yaml"
    assert (chart["version"], chart["appVersion"]) == ("7.8.9-rc.1", "7.8.9-rc.1")


def test_the_real_helm_takes_the_chart_for_its_own(released: tuple[Repository, str], tmp_path: Path) -> None:
    """The same files as `helm package` packs, and the same objects as from the folder."""
    repository, _ = released
    ours = artifacts(repository) / "openai-key-rotator-7.8.9-rc.1.tgz"
    helm(tmp_path, "package", repository.root / CHART, "--destination", tmp_path)
    with tarfile.open(ours) as one, tarfile.open(tmp_path / ours.name) as other:
        assert set(one.getnames()) == set(other.getnames())
    assert templated(tmp_path, chart=ours) == templated(tmp_path, chart=repository.root / CHART)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("# nothing", {"a.swp", "ci/x.yaml", "templates/ci/y.yaml"}),
        ("*.swp", {"ci/x.yaml", "templates/ci/y.yaml"}),
        ("/ci/", {"a.swp", "templates/ci/y.yaml"}),
    ],
)
def test_what_helm_would_ignore_is_left_out(tmp_path: Path, line: str, left: set[str]) -> None:
    for name in ("a.swp", "ci/x.yaml", "templates/ci/y.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".helmignore").write_text(f"{line}\n")
    files = {path for path in tmp_path.rglob("*") if path.is_file()} - ignored(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in files} == left | {".helmignore"}


def test_a_line_of_helmignore_that_is_not_understood_ends_the_release(tmp_path: Path) -> None:
    (tmp_path / ".helmignore").write_text("!kept\n")
    with pytest.raises(Refused, match="is not understood"):
        ignored(tmp_path)


def test_the_sbom_is_the_versions(released: tuple[Repository, str]) -> None:
    (path,) = artifacts(released[0]).glob("*.cdx.json")
    own = json.loads(path.read_text())["metadata"]["component"]
    assert (own["version"], own["licenses"]) == ("7.8.9-rc.1", [{"license": {"id": "Apache-2.0"}}])


def test_somebody_else_makes_the_same_from_the_tag(released: tuple[Repository, str], tmp_path: Path) -> None:
    """Elsewhere, later, under another umask, with files of their own beside: byte for byte."""
    repository, _ = released
    clone = Repository(tmp_path / "clone", repository.programs)
    repository.git("clone", "--quiet", "--branch=v7.8.9-rc.1", str(repository.root), str(clone.root))
    (clone.root / "dist").mkdir()
    before = os.umask(0o077)
    try:
        done = clone.release("--dist", TZ="Asia/Tokyo", LC_ALL="C")
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    sums = [(artifacts(one) / "SHA256SUMS").read_text() for one in (repository, clone)]
    assert sums[0] == sums[1]
    assert clone.git("status", "--porcelain") == ""


@pytest.mark.parametrize("version", ["", "1.0", "v1.0.0", "1.0.0+1", "1.0.0-x.1"])
def test_what_is_no_version_is_not_released(unreleased: Repository, version: str) -> None:
    before = unreleased.state()
    done = unreleased.release(version)
    assert done.returncode == 2
    assert "version" in done.stderr
    assert unreleased.state() == before


@pytest.mark.parametrize(
    ("path", "text"), [("a-new-file", "x"), ("README.md", "x"), ("worker/new.py", "x"), ("docs/release.md", None)]
)
def test_a_tree_with_changes_is_not_released(unreleased: Repository, path: str, text: str | None) -> None:
    """New, changed or deleted files. They stay as they are."""
    changed = unreleased.root / path
    content = changed.read_bytes() if changed.exists() else None
    try:
        changed.unlink() if text is None else changed.write_text(text)
        before = unreleased.state()
        done = unreleased.release("7.0.0")
        assert done.returncode == 2
        assert "the working tree has changes" in done.stderr
        assert path in done.stderr
        assert unreleased.state() == before
    finally:
        changed.unlink(missing_ok=True) if content is None else changed.write_bytes(content)


def test_a_version_is_released_once(unreleased: Repository) -> None:
    """Whatever the tag is on."""
    unreleased.git("tag", "v3.0.0")
    before = unreleased.state()
    done = unreleased.release("3.0.0")
    assert done.returncode == 2
    assert "the tag v3.0.0 exists" in done.stderr
    assert unreleased.state() == before


def test_without_news_there_is_no_release(released: tuple[Repository, str]) -> None:
    repository, _ = released
    before = repository.state()
    done = repository.release("7.8.9")
    assert done.returncode == 2
    assert "must begin with a section" in done.stderr
    assert repository.state() == before


def test_a_release_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    """Neither commit nor tag nor changed files: it can be tried again."""
    repository = a_repository(tmp_path)
    repository.program("buildah", "sys.exit('no space left')")
    before = repository.state()
    done = repository.release("7.0.0")
    assert done.returncode == 2
    assert "buildah build failed" in done.stderr
    assert "no space left" in done.stderr
    assert "IMAGE=no" in done.stderr
    assert repository.state()[:2] == before[:2]
    assert repository.git("status", "--porcelain") == ""
    assert "v7.0.0" not in repository.git("tag", "--list")
    again = repository.release("7.0.0", IMAGE="no")
    assert again.returncode == 0, again.stderr
    assert "no image: IMAGE=no" in again.stdout


ARCHIVE = """
import json
with open(os.environ["HOME"] + "/calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "push":
    import tarfile
    with tarfile.open(sys.argv[3].split(":")[1], "w") as archive:
        archive.add(__file__, "index.json")
if sys.argv[1] == "save":
    open(sys.argv[2].split("=")[1], "w").write("an image")
"""


@pytest.mark.parametrize(("builder", "archive"), [("buildah", "oci"), ("docker", "docker")])
def test_the_image_is_built_by_the_builder_that_is_there(tmp_path: Path, builder: str, archive: str) -> None:
    """From the commit, with its time, and with what labels say of it."""
    repository = a_repository(tmp_path)
    repository.program(builder, ARCHIVE)
    done = repository.release("7.0.0", SOURCE="https://git.example.com/x", IMAGE_ARGS="--build-arg=PYTHON=3.13-slim")
    assert done.returncode == 0, done.stderr
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    (build,) = [call for call in calls if call[0] == "build"]
    commit, epoch = repository.git("log", "-1", "--format=%H %ct").split()
    wanted = {"--build-arg=SOURCE=https://git.example.com/x", f"--build-arg=REVISION={commit}"}
    assert wanted | {"--build-arg=PYTHON=3.13-slim", "--tag=openai-key-rotator:7.0.0"} <= set(build)
    assert (f"--timestamp={epoch}" in build) == (builder == "buildah")
    assert Path(build[-1]) != repository.root
    sums = (artifacts(repository, "7.0.0") / "SHA256SUMS").read_text()
    assert f"  openai-key-rotator-7.0.0.{archive}.tar\n" in sums


def test_make_calls_it(unreleased: Repository) -> None:
    """`make release VERSION=…` and `make dist` are no more than these two commands."""
    make = required_program("make")
    for goal, command in (("release", "-m release '1.2.3'"), ("dist", "-m release --dist")):
        arguments = [make, "--dry-run", "--old-file=.venv/.installed", goal, "VERSION=1.2.3"]
        done = subprocess.run(
            arguments, cwd=unreleased.root, env=without_make(), capture_output=True, text=True, check=True
        )
        assert done.stdout.strip().splitlines()[-1].endswith(command)


def test_the_licence_is_said_wherever_a_licence_is_looked_for() -> None:
    """The full text, and its SPDX name."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    # The text as the Apache Software Foundation publishes it, without its first empty line.
    digest = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert hashlib.sha256(b"\n" + text.encode()).hexdigest() == digest
