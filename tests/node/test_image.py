"""The built image: what it adds to its base, and that nothing which a command needs was taken out of it.

It is the image that the node runs, by the project's own Dockerfile; programs run in containers of the CronJob's kind.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import tarfile
from typing import Any

import pytest

from requirements.sbom import document
from tests.node.build import SOURCE, labels_of_another_revision
from tests.node.installation import SECRET, WORKER, Finished, Installation
from tests.node.world import World
from tests.support.scene import ROOT

MB = 1_000_000
MOST = 60 * MB
"""Bytes that the project may add to its base, unpacked."""
OPERATOR = "operator"
"""A service account that may do what `adopt` needs: people run it."""

IMPORTS = """
import importlib, json, pkgutil, sys
import worker
for module in pkgutil.walk_packages(worker.__path__, "worker."):
    importlib.import_module(module.name)
from worker.kubernetes.library import kubeconfig_loader
kubeconfig_loader()
print(json.dumps(sorted(sys.modules)))
"""
PACKAGES = """
import importlib.metadata, json
print(json.dumps({found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}))
"""
PROGRAMS = """
import json, os
print(json.dumps({place: sorted(os.listdir(place)) for place in ("/venv/bin", "/app")}))
"""
# As on a laptop: by a kubeconfig and not by the pod's own account. /dev/shm is all that can be written.
BY_KUBECONFIG = """
import json, os, sys
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
host, port = os.environ.pop("KUBERNETES_SERVICE_HOST"), os.environ.pop("KUBERNETES_SERVICE_PORT")
cluster = {"server": f"https://{host}:{port}", "certificate-authority": account + "ca.crt"}
config = {"apiVersion": "v1", "kind": "Config", "current-context": "c",
    "clusters": [{"name": "c", "cluster": cluster}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "users": [{"name": "u", "user": {"tokenFile": account + "token"}}]}
with open("/dev/shm/config", "w") as file:
    json.dump(config, file)
from worker.cli import main
sys.exit(main(["status", "--kubeconfig", "/dev/shm/config", "--output", "json"]))
"""


@functools.cache
def unpacked(world: World) -> tuple[dict[str, Any], list[int]]:
    """The image's configuration, and the size of the files in each of its layers."""
    with tarfile.open(world.project) as archive:

        def blob(digest: str) -> bytes:
            member = archive.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")
            assert member is not None
            return member.read()

        index = archive.extractfile("index.json")
        assert index is not None
        manifest = json.loads(blob(json.load(index)["manifests"][0]["digest"]))
        sizes = []
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob(layer["digest"])))) as files:
                sizes.append(sum(file.size for file in files))
        return json.loads(blob(manifest["config"]["digest"])), sizes


@pytest.fixture(scope="module")
def operator(installation: Installation) -> str:
    installation.kubectl("-n", WORKER, "create", "serviceaccount", OPERATOR)
    bind = ("create", "clusterrolebinding", OPERATOR, "--clusterrole=cluster-admin")
    installation.kubectl(*bind, f"--serviceaccount={WORKER}:{OPERATOR}")
    return OPERATOR


def test_at_most_60_mb_are_added_to_the_base(world: World) -> None:
    """Unpacked; what a layer takes away of the base makes it no smaller."""
    _, sizes = unpacked(world)
    added = sum(sizes[world.base_layers :])
    print(f"base {sum(sizes[: world.base_layers]) / MB:.1f} MB, added {added / MB:.1f} MB")
    assert len(sizes) > world.base_layers
    assert 0 < added <= MOST


def test_its_labels_say_where_it_comes_from(world: World) -> None:
    labels = unpacked(world)[0]["config"]["Labels"]
    expected = {"source": SOURCE, "revision": world.revision, "licenses": "Apache-2.0"}
    assert {f"org.opencontainers.image.{name}": value for name, value in expected.items()}.items() <= labels.items()


def test_a_commit_that_changes_no_file_of_the_image_has_its_own_label(world: World) -> None:
    """buildah finds every layer among those of the build before."""
    another = "0" * 40
    assert world.revision != another
    assert labels_of_another_revision(another)["org.opencontainers.image.revision"] == another


def test_every_module_of_the_worker_can_be_imported(installation: Installation) -> None:
    """And none of them imports one of the classes that were taken out."""
    modules = installation.python(IMPORTS)
    inside = {path.relative_to(ROOT).with_suffix("") for path in (ROOT / "worker").rglob("*.py")}
    assert {".".join(path.parts).removesuffix(".__init__") for path in inside} <= set(modules)
    assert "kubernetes.aio.client.rest" in modules
    assert not [name for name in modules if name.startswith("kubernetes") and {"models", "api"} & set(name.split("."))]


def test_the_list_of_packages_is_what_is_installed(installation: Installation) -> None:
    texts = [(ROOT / name).read_text() for name in ("requirements/runtime.txt", "Dockerfile")]
    listed = document(texts[0], {"name": "it", "version": "0"}, texts[1])["components"]
    expected = {item["name"]: item["version"] for item in listed if item["type"] == "library"}
    installed = installation.python(PACKAGES)
    assert {name.lower().replace("_", "-"): version for name, version in installed.items()} == {
        name.lower().replace("_", "-"): version for name, version in expected.items()
    }


def test_no_programs_are_there_but_python_and_the_worker(installation: Installation) -> None:
    found = installation.python(PROGRAMS)
    assert found["/app"] == ["__pycache__", "run.py", "worker"]
    assert [name for name in found["/venv/bin"] if not name.startswith("python")] == []


def went_well(ended: Finished) -> str:
    assert ended.run.code == 0, ended.run.output
    return ended.run.output


@pytest.mark.parametrize("output", ["json", "table"])
def test_status_runs(installation: Installation, output: str) -> None:
    assert SECRET in went_well(installation.job("status", "--output", output))


def test_run_runs_dry(installation: Installation) -> None:
    assert "run.finished" in went_well(installation.job("run", "--dry-run"))


def test_adopt_runs(installation: Installation, operator: str) -> None:
    went_well(installation.job("adopt", account=operator))


def test_revoke_runs(installation: Installation) -> None:
    before = installation.current()
    said = went_well(installation.job("revoke", f"{installation.namespace}/{SECRET}", "--yes", "--output", "json"))
    assert before in said
    assert installation.current() != before


def test_it_can_go_by_a_kubeconfig(installation: Installation) -> None:
    assert SECRET in went_well(installation.job(command=("/venv/bin/python", "-c", BY_KUBECONFIG)))


def test_help_needs_no_cluster(installation: Installation) -> None:
    assert "usage:" in went_well(installation.job("--help"))
