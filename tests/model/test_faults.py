"""Whose a failure is: the lists and what the documentation says of them."""

from __future__ import annotations

import re

import pytest

from tests.support.scene import ROOT
from worker.model import faults

REFERENCE = (ROOT / "docs" / "reference.md").read_text()
SECTION = REFERENCE.partition("## Whose failure it is\n")[2].partition("\n## ")[0]
GROUPS = {
    "The tenant's, who has to act": faults.TENANTS,
    "The tenant's, and it passes": faults.TENANTS_PASSING,
    "The platform's or OpenAI's, and it passes": faults.PASSING,
    "The platform's where it keeps the admin key": faults.OF_THE_ADMIN_KEY,
}


def reasons(text: str) -> set[str]:
    return set(re.findall(r"`([A-Z][A-Za-z]+)`", text))


@pytest.mark.parametrize("title", GROUPS)
def test_the_documentation_has_the_same_list(title: str) -> None:
    (row,) = [line for line in SECTION.splitlines() if line.startswith(f"| {title} |")]
    assert reasons(row) == GROUPS[title]


def test_each_reason_is_one_that_is_explained() -> None:
    """And stands in one list; whose an admin key is, is another question."""
    explained = reasons(REFERENCE.partition("## What each reason means\n")[2])
    lists = (faults.TENANTS, faults.TENANTS_PASSING, faults.PASSING)
    assert sum(map(len, lists)) == len(frozenset().union(*lists))
    assert frozenset().union(*lists) <= explained
    assert faults.OF_THE_ADMIN_KEY <= faults.TENANTS | faults.TENANTS_PASSING


@pytest.mark.parametrize(
    ("reason", "tenants", "central", "human"),
    [
        ("AdminKeyMissing", True, False, True),
        ("OpenAIThrottled", True, False, False),
        ("InvalidSpec", True, True, True),
        ("Conflict", True, True, False),
        ("OpenAIUnreachable", False, False, False),
        ("Forbidden", False, False, True),
        ("OfTomorrow", False, False, True),
    ],
)
def test_whose_it_is_and_whether_it_passes(reason: str, tenants: bool, central: bool, human: bool) -> None:
    assert faults.is_tenants(reason, central=False) == tenants
    assert faults.is_tenants(reason, central=True) == central
    assert faults.needs_a_human(reason) == human
