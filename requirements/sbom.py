"""`make sbom`: what the image adds to its base, as a CycloneDX document, from the lock file.

Guarantees: the same lock file and project give the same document, byte for byte: no time, no random number.
A line of the lock file that is not understood ends it. Standard library only.
tests/node/test_image.py compares the document with what is installed in the image.
"""

from __future__ import annotations

import configparser
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)==(\S+) \\")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}( \\)?")
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "openai-key-rotator.io/sbom")


class NotUnderstood(ValueError):
    """The lock file or the Dockerfile says what this does not know."""


def document(lock: str, metadata: dict[str, str], dockerfile: str) -> dict[str, Any]:
    """The document, from the texts of the lock file and the Dockerfile and the project's name and version."""
    found = re.search(r"^ARG PYTHON=(\S+)$", dockerfile, re.MULTILINE)
    if found is None:
        raise NotUnderstood("the Dockerfile does not name its base image")
    python = f"pkg:docker/python@{found[1]}"
    base = {"type": "container", "bom-ref": python, "name": "python", "version": found[1], "purl": python}
    components = [base, *_components(lock)]
    own: dict[str, Any] = {"type": "container", "bom-ref": metadata["name"]}
    own |= {"name": metadata["name"], "version": metadata["version"]}
    if "license" in metadata:
        own["licenses"] = [{"license": {"id": metadata["license"]}}]
    made = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own},
        "components": components,
        "dependencies": [{"ref": own["bom-ref"], "dependsOn": [item["bom-ref"] for item in components]}],
    }
    return {**made, "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, json.dumps(made, sort_keys=True))}"}


def _components(lock: str) -> list[dict[str, Any]]:
    """One for each pinned package."""
    components: list[dict[str, Any]] = []
    for line in (line.strip() for line in lock.splitlines()):
        if pinned := PINNED.fullmatch(line):
            name, version = pinned.groups()
            purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
            components.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
        elif line and not line.startswith("#") and not HASH.fullmatch(line):
            raise NotUnderstood(f"the lock file: {line}")
    return components


def main() -> None:
    """Print the document of this checkout."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    texts = (HERE / "runtime.txt").read_text(), (ROOT / "Dockerfile").read_text()
    sys.stdout.write(json.dumps(document(texts[0], dict(setup["metadata"]), texts[1]), indent=2) + "\n")


if __name__ == "__main__":
    main()
