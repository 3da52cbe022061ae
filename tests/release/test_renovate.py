"""renovate.json agrees with what it is about: the lock files, and the bounds that requirements/*.in set.

It was held against the schema of Renovate 44.121.2 when it was written (`renovate-schema.json` of its package).
"""

from __future__ import annotations

import json
import re

import pytest

from tests.support.scene import ROOT

CONFIG = json.loads((ROOT / "renovate.json").read_text())


def test_every_lock_file_is_updated_and_nothing_else_is_taken_for_one() -> None:
    patterns = [re.compile(one.strip("/")) for one in CONFIG["pip_requirements"]["managerFilePatterns"]]
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "requirements").iterdir()]
    matched = {name for name in files if any(pattern.search(name) for pattern in patterns)}
    assert matched == {"requirements/runtime.txt", "requirements/dev.txt"}


@pytest.mark.parametrize(("file", "package"), [("runtime.in", "kubernetes"), ("dev.in", "pytest")])
def test_an_upper_bound_of_the_requirements_is_renovates_too(file: str, package: str) -> None:
    """It sees only the lock files."""
    (bound,) = re.findall(rf"(?m)^{package}\S*(<[\d.]+)", (ROOT / "requirements" / file).read_text())
    (rule,) = [rule for rule in CONFIG["packageRules"] if rule.get("matchPackageNames") == [package]]
    assert rule["allowedVersions"] == bound


def test_no_other_requirement_has_an_upper_bound() -> None:
    bounded = {
        found
        for path in (ROOT / "requirements").glob("*.in")
        for found in re.findall(r"(?m)^([a-z-]+)[^#\n]*<", path.read_text())
    }
    assert bounded == {name for rule in CONFIG["packageRules"] for name in rule.get("matchPackageNames", [])}
