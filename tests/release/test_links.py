"""The documents' links: each leads to a file that is here, and to a heading that it has."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.support.scene import ROOT

FENCED = re.compile(r"^ *(`{3,})[^\n]*\n.*?^ *\1 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"(?<![\w/.-])docs/([\w/-]+\.md)(?:#([\w-]+))?")
"""As comments, messages and notes name a document."""


def files(*places: str, suffix: str = "") -> list[Path]:
    """All in these files and folders of the project."""
    found = [
        path for place in places for path in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*"))
    ]
    return [path for path in found if path.is_file() and path.name.endswith(suffix) and path.suffix != ".pyc"]


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them: of a name that comes again the second ends with -1."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#{1,6} +(.+)$", FENCED.sub("", document.read_text()), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def broken(document: Path) -> list[str]:
    """Its links that lead nowhere. Other sites are not asked, nor is code read."""
    prose = re.sub(r"`[^`\n]*`", "", FENCED.sub("", document.read_text()))
    found = []
    for link in LINK.findall(prose):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = document.parent / place if place else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def test_every_link_of_a_document_leads_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *files("docs", "charts", "manifests", "findings", suffix=".md")]
    assert len(documents) > 20
    lost = {str(document.relative_to(ROOT)): broken(document) for document in documents}
    assert {name: links for name, links in lost.items() if links} == {}


def test_what_code_and_manifests_name_is_there() -> None:
    """Comments, messages and the chart's notes: `docs/operations.md#uninstall`."""
    lost = []
    count = 0
    for file in files("worker", "sandbox", "manifests", "charts", "release", "Makefile", "Dockerfile", "setup.cfg"):
        for name, anchor in NAMED.findall(file.read_text()):
            count += 1
            document = ROOT / "docs" / name
            if not document.exists() or (anchor and anchor not in anchors(document)):
                lost.append((str(file.relative_to(ROOT)), name, anchor))
    assert count > 10
    assert lost == []


@pytest.mark.parametrize(
    ("link", "well"),
    [
        ("other.md", True),
        ("other.md#a-heading-with-code", True),
        ("#twice-1", True),
        ("https://example.com/nowhere", True),
        ("missing.md", False),
        ("other.md#twice", False),
        ("#twice-2", False),
        ("#in-code", False),
    ],
)
def test_a_link_that_leads_nowhere_is_found(link: str, well: bool, tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A heading, with `code`\n")
    document = tmp_path / "this.md"
    document.write_text(
        f"# Twice\n\n## Twice\n\n```sh\n# In code\n```\n\nSee [there]({link}), not `[here](gone.md)`.\n"
    )
    assert broken(document) == ([] if well else [link])
