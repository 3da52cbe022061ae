"""The list of what is in the image, as it is made from the lock file. tests/node compares it with a real container."""

from __future__ import annotations

import pytest

from requirements.sbom import NotUnderstood, document

DIGEST = "0" * 64
LOCK = f"# a comment\nOne_Two==1.2.3 \\\n    --hash=sha256:{DIGEST} \\\n    --hash=sha256:{DIGEST}\n"
METADATA = {"name": "it", "version": "0.1.0"}
DOCKERFILE = "ARG PYTHON=3.13-slim\nFROM python:${PYTHON}\n"


def test_every_pinned_package_is_a_component_beside_the_base() -> None:
    made = document(LOCK, METADATA, DOCKERFILE)
    assert [item["purl"] for item in made["components"]] == ["pkg:docker/python@3.13-slim", "pkg:pypi/one-two@1.2.3"]
    assert made["metadata"]["component"] == {"type": "container", "bom-ref": "it", "name": "it", "version": "0.1.0"}
    (own,) = made["dependencies"]
    assert own["dependsOn"] == [item["bom-ref"] for item in made["components"]]


def test_the_projects_licence_is_in_it() -> None:
    made = document(LOCK, METADATA | {"license": "Apache-2.0"}, DOCKERFILE)
    assert made["metadata"]["component"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]


def test_the_same_lock_file_gives_the_same_document_and_another_one_another() -> None:
    assert document(LOCK, METADATA, DOCKERFILE) == document(LOCK, METADATA, DOCKERFILE)
    newer = document(LOCK.replace("1.2.3", "1.2.4"), METADATA, DOCKERFILE)
    assert newer["serialNumber"] != document(LOCK, METADATA, DOCKERFILE)["serialNumber"]


@pytest.mark.parametrize("line", ["one==1.0 ; sys_platform == 'win32' \\", "git+https://example.com/x", "-r other.txt"])
def test_a_line_that_is_not_understood_is_not_left_out_silently(line: str) -> None:
    with pytest.raises(NotUnderstood):
        document(LOCK + line + "\n", METADATA, DOCKERFILE)
