"""`make release VERSION=…`, and `make dist`: what a release of HEAD hands out, for whoever checks one.

Guarantees: nothing is pushed. A refusal or a failure leaves commit, tags and files as they were.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from release.artifacts import git, make
from release.version import Refused, checked, current, dated, set_everywhere

ROOT = Path(__file__).resolve().parents[1]
USAGE = "make release VERSION=1.2.3, or make dist"


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0, or 2 where nothing was released."""
    try:
        match arguments:
            case ["--dist"]:
                _clean(ROOT)
                make(ROOT, ROOT / "dist" / current(ROOT), say=print)
            case [version] if version:
                release(ROOT, checked(version), datetime.now(UTC))
            case _:
                raise Refused(f"no version: {USAGE}")
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 2
    return 0


def release(root: Path, version: str, now: datetime) -> None:
    """Set the version, commit, make everything, and tag. Raises Refused."""
    _clean(root)
    tag = f"v{version}"
    if git(root, "tag", "--list", tag):
        raise Refused(f"the tag {tag} exists: a released version is never released again")
    path = root / "CHANGELOG.md"
    changelog, notes = dated(path.read_text(), version, f"{now:%Y-%m-%d}")
    before, out = git(root, "rev-parse", "HEAD"), root / "dist" / version
    try:
        set_everywhere(root, version)
        path.write_text(changelog)
        git(root, "commit", "--quiet", "--all", "--message", f"Release {version}")
        make(root, out, say=print)
        # Last: whoever sees the tag finds that all of it could be made.
        signed = ["--sign"] if os.environ.get("SIGN") else []
        git(root, "tag", "--annotate", *signed, "--cleanup=verbatim", "--message", f"{version}\n\n{notes}", tag)
    except BaseException:
        # The tree was clean, so nothing of anybody's is lost.
        git(root, "reset", "--quiet", "--hard", before)
        raise
    print(f"{tag} is tagged, and nothing is pushed. Next: docs/release.md, Sign and publish")


def _clean(root: Path) -> None:
    changed = git(root, "status", "--porcelain")
    if changed:
        raise Refused(f"the working tree has changes:\n{changed}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
