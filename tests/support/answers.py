"""The table of answers in docs/openai.md, and the bodies that play its rows."""

from __future__ import annotations

from tests.support.builders import KEY
from tests.support.scene import ROOT

PAGE = f"<html>{KEY}</html>"
GATEWAY = {"message": f"no: {KEY}", "code": "invalid_api_key"}
"""A gateway's own error, as many write it."""
GOOD = {
    "create": {"id": "user-1", "name": "app_1", "api_key": {"id": "key_1", "value": KEY}},
    "read": {"data": [], "has_more": False},
    "narrow": {"id": "key_1"},
    "delete": {"id": "user-1", "deleted": True},
    "verify": {"data": []},
}


def rows() -> list[dict[str, str]]:
    """The table, row by row."""
    text = (ROOT / "docs" / "openai.md").read_text()
    lines = text[text.index("| status | code | body |") :].splitlines()
    head = [cell.strip() for cell in lines[0].strip("|").split("|")]
    found = []
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        found.append(dict(zip(head, (cell.strip() for cell in line.strip("|").split("|")), strict=True)))
    return found
