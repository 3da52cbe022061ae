"""`python -m tests.node.build`: build the programs and the images of a real node.

Guarantees: programs come from pinned Go modules and go to a cache outside the checkout, as those of the control plane
do (`tests.cluster.build`); the project's image is built by the project's Dockerfile, as it stands, from this checkout,
and from layers that an earlier build has made. No image is fetched unless `PULL=1` asks for the real base image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster.build import Recipe, build_program, make_missing
from tests.cluster.control_plane import cache_directory as control_plane_cache
from tests.node import base_image, needs
from tests.support.version import VERSION

ROOT = Path(__file__).parents[2]
MODULE = Path(__file__).parent
"""Where go.mod pins the kubelet: at the control plane's versions, so that most of it is compiled once."""
CONTAINERD_MODULE = MODULE / "containerd"
CONTAINERD = "github.com/containerd/containerd/v2/cmd"
WITHOUT = "no_btrfs,no_devmapper,no_zfs"
"""Snapshotters of containerd that nothing here uses."""
PROGRAMS: dict[str, Recipe] = {
    "probe": partial(build_program, module=MODULE, package="./probe", static=True),
    **{
        name: partial(
            build_program, module=CONTAINERD_MODULE, package=f"{CONTAINERD}/{name}", tags=WITHOUT, static=True
        )
        for name in ("ctr", "containerd-shim-runc-v2", "containerd")
    },
    "kubelet": partial(build_program, module=MODULE, package="k8s.io/kubernetes/cmd/kubelet"),
}
PINS = ("go.mod", "go.sum", "containerd/go.mod", "containerd/go.sum", "probe/main.go", "base_image.py")

IMAGE = "localhost/openai-key-rotator"
TAG = VERSION
PROBE = "localhost/probe:1"
PAUSE = "localhost/pause:1"
SOURCE = "https://git.example.com/openai-key-rotator"
PIP_SETTINGS = (Path("/etc/pip.conf"), Path("/etc/ssl/certs"))
"""How this machine reaches its package index: the build reads it, and the image has none of it."""


@dataclass(frozen=True, slots=True)
class Images:
    """The archives that a node imports, and what of the project's image is its base."""

    archives: tuple[Path, ...]
    project: Path
    base_layers: int
    revision: str


def cache_directory() -> Path:
    """A folder of its own for each state of what pins the programs, beside the control plane's."""
    # The stand-in for the base image is kept there, too.
    pinned = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in PINS))
    return control_plane_cache().parent.parent / "node" / pinned.hexdigest()[:16]


def build_programs() -> Path:
    """Make what is missing of the programs; the folder."""
    directory = cache_directory()
    make_missing(directory, PROGRAMS)
    return directory


def build_images(directory: Path) -> Images:
    """Build all images, as archives in this folder."""
    programs, store = build_programs(), cache_directory() / "buildah"
    archives = []
    for name, command in ((PROBE, '["/probe"]'), (PAUSE, '["/probe", "pause"]')):
        recipe = f"FROM scratch\nCOPY probe /probe\nENTRYPOINT {command}\n"
        archives.append(_archive(store, _built(store, recipe, programs, name), name, directory))
    base, minor = _base(store)
    revision = _git("rev-parse", "HEAD")
    made = _project(store, minor, f"{IMAGE}:{TAG}", revision)
    project = _archive(store, made, f"{IMAGE}:{TAG}", directory)
    return Images((*archives, project), project, len(_layers(store, base)), revision)


def labels_of_another_revision(revision: str) -> dict[str, str]:
    """What the project's image says of itself where only the commit is another: every layer is there already."""
    store = cache_directory() / "buildah"
    made = _project(store, _base(store)[1], f"{IMAGE}:another", revision)
    labels: dict[str, str] = _inspected(store, made)["config"]["Labels"]
    return labels


def _project(store: Path, minor: str, name: str, revision: str) -> str:
    """The id of the project's image, by its own Dockerfile on the base with this Python."""
    return _built(
        store,
        (ROOT / "Dockerfile").read_text(),
        ROOT,
        name,
        f"--build-arg=PYTHON={minor}-slim",
        f"--build-arg=SOURCE={SOURCE}",
        f"--build-arg=REVISION={revision}",
        *(f"--volume={path}:{path}:ro" for path in PIP_SETTINGS if path.exists()),
    )


def _base(store: Path) -> tuple[str, str]:
    """The id of the image that the Dockerfile builds on, and its Python; made here unless it is to be fetched."""
    found = re.search(r"^ARG PYTHON=(3\.\d+)-slim$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("the Dockerfile names no base image of the form that is known here")
    minor = found[1]
    name = f"python:{minor}-slim"
    if os.environ.get("PULL") == "1":
        return _buildah(store, "pull", "--quiet", name), minor
    there = _buildah(store, "images", "--quiet", "--no-trunc", "--filter", f"reference=localhost/{name}")
    if there:
        return there.splitlines()[0], minor
    with tempfile.TemporaryDirectory(prefix="base-") as temporary:
        base_image.make(Path(temporary) / "root", minor)
        recipe = 'FROM scratch\nCOPY root /\nENV PATH=/usr/local/bin:/bin LANG=C.UTF-8\nCMD ["python3"]\n'
        # A short name is looked for among local images before any registry.
        return _built(store, recipe, Path(temporary), f"localhost/{name}"), minor


def _built(store: Path, recipe: str, context: Path, name: str, *options: str) -> str:
    """The id of the image that this Dockerfile makes."""
    with tempfile.TemporaryDirectory(prefix="image-") as temporary:
        (Path(temporary) / "Dockerfile").write_text(recipe)
        told = Path(temporary) / "id"
        _buildah(
            store,
            "build",
            *("--isolation=chroot", "--network=host", "--pull-never", "--layers", "--quiet"),
            *(f"--file={temporary}/Dockerfile", f"--iidfile={told}", f"--tag={name}"),
            *options,
            str(context),
        )
        return told.read_text().strip().removeprefix("sha256:")


def _archive(store: Path, image: str, name: str, directory: Path) -> Path:
    archive = directory / f"{re.sub(r'[^a-z0-9]+', '-', name)}.oci.tar"
    _buildah(store, "push", "--quiet", image, f"oci-archive:{archive}:{name}")
    return archive


def _layers(store: Path, image: str) -> list[str]:
    """The digests of an image's layers, from the base on."""
    found: list[str] = _inspected(store, image)["rootfs"]["diff_ids"]
    return found


def _inspected(store: Path, image: str) -> dict[str, Any]:
    """An image's configuration, in OCI's form."""
    found: dict[str, Any] = json.loads(_buildah(store, "inspect", "--type=image", image))["OCIv1"]
    return found


def _buildah(store: Path, *arguments: str) -> str:
    """What it printed. Its mounts are its own: none is left when it was killed."""
    places = [f"--root={store}", f"--runroot={store}-run", "--storage-driver=overlay"]
    command = ["unshare", "--mount", "buildah", *places, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"buildah {arguments[0]} failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Tell how long it took."""
    begun = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def main() -> None:
    """Build all that is missing, and print where the programs are."""
    lacking = needs.missing()
    if lacking:
        raise SystemExit(f"real node: nothing is built. Missing here: {'; '.join(lacking)}")
    try:
        programs = build_programs()
        with timed("images"), tempfile.TemporaryDirectory() as temporary:
            build_images(Path(temporary))
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{' '.join(map(str, error.cmd[:2]))} failed with exit code {error.returncode}") from None
    except base_image.NoPython as error:
        raise SystemExit(str(error)) from None
    print(programs)


if __name__ == "__main__":
    main()
