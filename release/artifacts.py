"""What a release hands out, from one commit: sdist, wheel, chart, SBOM, image, and checksums of all.

Guarantees: everything is made from the commit's files in a folder of their own, never from the working tree.
Whoever makes them again with the locked requirements and the same Python gets the same, byte for byte; the image only
on the same base, and by buildah.
Nothing is fetched but by the builder of the image.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from release.archives import extract, repack, write_tar
from release.version import Refused, current

NAME = "openai-key-rotator"
CHART = Path("charts") / NAME
SUMS = "SHA256SUMS"
_HOOK = "import sys; from setuptools import build_meta as hooks; getattr(hooks, 'build_' + sys.argv[1])(sys.argv[2])"
Say = Callable[[str], None]


def make(root: Path, out: Path, *, say: Say) -> None:
    """Make everything of HEAD in the folder `out`, which is made anew. Raises Refused."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    commit, epoch = git(root, "log", "-1", "--format=%H %ct").split()
    with tempfile.TemporaryDirectory(prefix="release-") as temporary:
        source, archive = Path(temporary) / "source", Path(temporary) / "source.tar"
        git(root, "archive", f"--output={archive}", commit)
        extract(archive, source)
        version = current(source)
        _python_packages(source, Path(temporary) / "sdist", out, epoch=int(epoch))
        _chart(source, out, version, epoch=int(epoch))
        _sbom(source, out, version)
        _image(source, out, version, commit=commit, epoch=epoch, say=say)
    made = sorted(path for path in out.iterdir())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made]
    (out / SUMS).write_text("".join(lines))
    for path in made:
        say(str(path))


def git(root: Path, *arguments: str) -> str:
    """What git says. Raises Refused with its words."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"git {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def _run(what: str, command: list[str], directory: Path, **variables: str) -> None:
    # The modes of generated files are in a wheel: the umask must not be anybody's own.
    done = subprocess.run(
        command, cwd=directory, env=os.environ | variables, umask=0o022, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Refused(f"{what}: {' '.join(command[:2])} failed:\n{(done.stdout + done.stderr)[-2000:]}")


def _python_packages(source: Path, unpacked: Path, out: Path, *, epoch: int) -> None:
    """The sdist, and the wheel from it: so it holds all that a wheel needs."""
    building = {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONPATH": ""}
    _run("sdist", [sys.executable, "-c", _HOOK, "sdist", str(out)], source, **building)
    (sdist,) = out.glob("*.tar.gz")
    repack(sdist, epoch=epoch)
    extract(sdist, unpacked)
    (project,) = unpacked.iterdir()
    _run("wheel", [sys.executable, "-c", _HOOK, "wheel", str(out)], project, **building)


def _chart(source: Path, out: Path, version: str, *, epoch: int) -> None:
    """The chart as helm packs it, which need not be there: a folder of its name, Chart.yaml first."""
    left_out = ignored(source / CHART)
    files = [path for path in (source / CHART).rglob("*") if path.is_file() and path not in left_out]
    files.sort(key=lambda path: (path.name != "Chart.yaml" or path.parent != source / CHART, str(path)))
    content = [(str(path.relative_to(source / CHART.parent)), path.read_bytes(), False) for path in files]
    write_tar(out / f"{NAME}-{version}.tgz", content, epoch=epoch)


def ignored(chart: Path) -> set[Path]:
    """What .helmignore leaves out: names, perhaps with `*`, and folders of the chart's own (`/ci/`)."""
    file = chart / ".helmignore"
    found: set[Path] = set()
    for line in (line.strip() for line in (file.read_text() if file.exists() else "").splitlines()):
        if folder := re.fullmatch(r"/([\w.-]+)/", line):
            found |= set((chart / folder[1]).rglob("*"))
        elif re.fullmatch(r"[\w.*-]+", line):
            found |= set(chart.rglob(line))
        elif line and not line.startswith("#"):
            raise Refused(f"chart: .helmignore: {line!r} is not understood")
    return found


def _sbom(source: Path, out: Path, version: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "requirements.sbom"], cwd=source, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Refused(f"sbom: {done.stderr.strip()[-2000:]}")
    (out / f"{NAME}-{version}.cdx.json").write_text(done.stdout)


def _image(source: Path, out: Path, version: str, *, commit: str, epoch: str, say: Say) -> None:
    """The image as an archive, by the first builder that is there."""
    if os.environ.get("IMAGE") == "no":
        say("no image: IMAGE=no")
        return
    name = f"{NAME}:{version}"
    about = [f"--build-arg=SOURCE={os.environ.get('SOURCE') or 'unknown'}", f"--build-arg=REVISION={commit}"]
    about += [*shlex.split(os.environ.get("IMAGE_ARGS", "")), f"--tag={name}", str(source)]
    hint = "image (IMAGE=no leaves it out)"
    if shutil.which("buildah"):
        _run(hint, ["buildah", "build", f"--timestamp={epoch}", *about], source)
        archive = out / f"{NAME}-{version}.oci.tar"
        _run(hint, ["buildah", "push", name, f"oci-archive:{archive}:{name}"], source)
        # The image itself has the commit's time; the archive around it has that of the push.
        repack(archive, epoch=int(epoch))
    elif shutil.which("docker") and _answers(["docker", "info"]):
        _run(hint, ["docker", "build", *about], source, SOURCE_DATE_EPOCH=epoch)
        _run(hint, ["docker", "save", f"--output={out / f'{NAME}-{version}.docker.tar'}", name], source)
    else:
        say("no image: neither buildah nor a Docker that answers is here")


def _answers(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
