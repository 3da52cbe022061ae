"""The version: what is one, where it stands, and that all places agree."""

from __future__ import annotations

import re

import pytest
import yaml

from release.version import Refused, checked, current, dated, named, places, renamed
from tests.support.scene import ROOT

LOG = (
    "# Changelog\n\n## 0.2.0 (unreleased)\n\n### Added\n\n- A thing.\n\n## 0.1.0 - 2026-01-01\n\n### Added\n\n- All.\n"
)


def test_every_place_names_the_version_of_setup_cfg() -> None:
    """Docs, manifests, the image's label, the chart."""
    version = current(ROOT)
    assert checked(version) == version
    found = {path.relative_to(ROOT): named(path.read_text()) for path in places(ROOT)}
    assert {path: set(versions) for path, versions in found.items() if set(versions) - {version}} == {}
    naming = {str(path) for path, versions in found.items() if versions}
    assert naming >= {
        "setup.cfg",
        "Dockerfile",
        "README.md",
        "docs/operations.md",
        "manifests/base/cronjob.yaml",
        "manifests/components/audit/cronjob.yaml",
        "manifests/job/job.yaml",
        "manifests/overlays/production/kustomization.yaml",
        "manifests/overlays/single-namespace/kustomization.yaml",
        "manifests/overlays/staging/kustomization.yaml",
    }


def test_no_place_is_left_behind_by_a_release() -> None:
    """The old version stands nowhere else in these files, in a form that nobody knows."""
    version = current(ROOT)
    for path in places(ROOT):
        left = renamed(path.read_text(), version, "9.8.7")
        assert not re.search(rf"(?<![\w.]){re.escape(version)}(?![\w.])", left), path


def test_every_image_tag_and_label_of_the_manifests_is_known_as_a_place() -> None:
    """A reader of YAML finds as many as the patterns do."""
    for path in places(ROOT):
        if path.suffix != ".yaml" or "charts" in path.parts:
            continue
        found = [pair for item in yaml.safe_load_all(path.read_text()) for pair in texts(item)]
        images = [text for _, text in found if re.fullmatch(r"openai-key-rotator:\S+", text)]
        others = [key for key, _ in found if key in ("newTag", "app.kubernetes.io/version")]
        assert len(named(path.read_text())) == len(images) + len(others), path


def texts(item: object, key: str = "") -> list[tuple[str, str]]:
    """All texts in it, each with the key that it stands at."""
    match item:
        case str():
            return [(key, item)]
        case dict():
            return [pair for name, value in item.items() for pair in texts(value, str(name))]
        case list():
            return [pair for value in item for pair in texts(value, key)]
    return []


@pytest.mark.parametrize("text", ["0.1.0", "1.0.0", "10.20.30", "1.0.0-alpha.0", "1.0.0-beta.2", "2.0.0-rc.11"])
def test_a_version(text: str) -> None:
    assert checked(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.0",
        "v1.0.0",
        "01.0.0",
        "1.0.0.0",
        "1.0.0-rc1",
        "1.0.0-rc.01",
        "1.0.0-x.1",
        "1.0.0+5",
        "1.0.0 ",
        "١.0.0",
    ],
)
def test_what_is_no_version(text: str) -> None:
    """A pre-release that no wheel knows, or a `+` that no image's tag may have, among others."""
    with pytest.raises(Refused, match="is not a version"):
        checked(text)


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("image: openai-key-rotator:0.1.0", "image: openai-key-rotator:0.2.0"),
        ("docker push REGISTRY/openai-key-rotator:0.1.0", "docker push REGISTRY/openai-key-rotator:0.2.0"),
        ("newTag: 0.1.0}`", "newTag: 0.2.0}`"),
        ('version: "0.1.0"', 'version: "0.2.0"'),
        ("    app.kubernetes.io/version: 0.1.0", "    app.kubernetes.io/version: 0.2.0"),
        ("appVersion: 0.1.0", "appVersion: 0.2.0"),
        ("helm install … --version 0.1.0", "helm install … --version 0.2.0"),
        ("openai-key-rotator-0.1.0.tgz", "openai-key-rotator-0.2.0.tgz"),
        ("openai-key-rotator:0.1.0@sha256:ab", "openai-key-rotator:0.2.0@sha256:ab"),
        # Somebody else's, or another version.
        ("another:0.1.0", "another:0.1.0"),
        ("openai-key-rotator:0.1.01", "openai-key-rotator:0.1.01"),
        ("openai-key-rotator:0.1.0-debug", "openai-key-rotator:0.1.0-debug"),
        ("openai-key-rotator:0.0.9", "openai-key-rotator:0.0.9"),
    ],
)
def test_what_a_release_changes_in_a_line(line: str, after: str) -> None:
    assert renamed(line, "0.1.0", "0.2.0") == after


def test_the_unreleased_section_becomes_the_versions() -> None:
    changelog, notes = dated(LOG, "0.2.0", "2026-11-30")
    assert changelog == LOG.replace("## 0.2.0 (unreleased)", "## 0.2.0 - 2026-11-30")
    assert notes == "### Added\n\n- A thing."
    plain = LOG.replace("0.2.0 (unreleased)", "Unreleased")
    assert dated(plain, "0.2.0", "2026-11-30") == (changelog, notes)


@pytest.mark.parametrize(
    ("log", "version", "why"),
    [
        (LOG.replace(" (unreleased)", " - 2026-02-02"), "0.2.0", "must begin"),
        ("# Changelog\n", "0.2.0", "must begin"),
        (LOG.replace("- A thing.\n", ""), "0.2.0", "no entry"),
        (LOG, "0.1.0", "has a section for 0.1.0 already"),
    ],
)
def test_a_changelog_that_cannot_be_released(log: str, version: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        dated(log, version, "2026-11-30")


def test_this_changelog_can_be_released_or_has_been() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"\n## {current(ROOT)} " in changelog or "\n## Unreleased\n" in changelog
