"""A release's version, and every place that names it. Pure but for reading and writing the places.

Guarantees: `setup.cfg` says which version it is; every other place follows it.
A place that names another version than `setup.cfg` fails `tests/release/test_version.py`.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

_NUMBER = r"(?:0|[1-9][0-9]*)"
_VERSION = rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-(?:alpha|beta|rc)\.{_NUMBER})?"
_NAMED = re.compile(
    rf"""(?mx)
    (?P<before>
        ^version\ =\               # setup.cfg
      | ^(?:app)?[vV]ersion:\ "?   # the chart
      | image\.version="           # the image's label
      | app\.kubernetes\.io/version:\   # the objects' label
      | openai-key-rotator[:-]     # an image, or an archive of the chart
      | app\.kubernetes\.io/version:\ "?
      | newTag:\ | `newTag`\ is\ ` # kustomize
      | --version[ =]              # helm
    )
    (?P<version>{_VERSION})(?![0-9A-Za-z-]|\.[0-9])"""
)
_PLACES = ("setup.cfg", "Dockerfile", "README.md", "docs/**/*.md", "manifests/**/*.yaml", "charts/**/*.*")
_UNRELEASED = re.compile(r"## (?:\S+ \(unreleased\)|Unreleased)", re.IGNORECASE)


class Refused(Exception):
    """Why there is no release."""


def checked(text: str) -> str:
    """The version, if it is one. Raises Refused.

    SemVer 2.0.0, as tags and charts have it, as far as wheels and image tags can say it too: a wheel knows no other
    pre-releases than these three, and a tag of an image no `+`.
    """
    if not re.fullmatch(_VERSION, text):
        raise Refused(
            f"{text!r} is not a version: MAJOR.MINOR.PATCH as in SemVer, perhaps with -alpha.N, -beta.N or -rc.N"
        )
    return text


def current(root: Path) -> str:
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    return setup["metadata"]["version"]


def places(root: Path) -> Iterator[Path]:
    """Every file that may name the version."""
    for pattern in _PLACES:
        yield from sorted(path for path in root.glob(pattern) if path.is_file())


def named(text: str) -> list[str]:
    """Every version of ours that a text names."""
    return [found["version"] for found in _NAMED.finditer(text)]


def renamed(text: str, old: str, new: str) -> str:
    """The text with the new version wherever it names the old one as ours."""
    return _NAMED.sub(lambda found: found["before"] + new if found["version"] == old else found[0], text)


def set_everywhere(root: Path, new: str) -> None:
    old = current(root)
    for path in places(root):
        before = path.read_text()
        after = renamed(before, old, new)
        if after != before:
            path.write_text(after)


def dated(changelog: str, version: str, date: str) -> tuple[str, str]:
    """The changelog with its unreleased section as this version's, and that section's text. Raises Refused."""
    head, *sections = re.split(r"(?m)^(?=## )", changelog)
    if not sections or not _UNRELEASED.fullmatch(sections[0].partition("\n")[0]):
        raise Refused("CHANGELOG.md must begin with a section `## Unreleased` or `## VERSION (unreleased)`")
    if any(section.startswith(f"## {version} - ") for section in sections):
        raise Refused(f"CHANGELOG.md has a section for {version} already")
    body = sections[0].partition("\n")[2].strip()
    if "\n- " not in f"\n{body}":
        raise Refused("CHANGELOG.md: the unreleased section has no entry")
    sections[0] = f"## {version} - {date}\n" + sections[0].partition("\n")[2]
    return head + "".join(sections), body
