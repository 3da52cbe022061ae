"""How many accounts a target may have, and when no new one is made on schedule. Pure.

Guarantees: what heals a broken Secret is hindered only by the bound that keeps the ledger entry writable.
"""

from __future__ import annotations

from worker.model.entries import Entry, HoldKind, Publication
from worker.model.outcomes import RunInfo
from worker.model.targets import Project, Target
from worker.plan.decisions import Blocked, Rotate
from worker.plan.reasons import HEALING

MOST_ACCOUNTS = 1000
"""An entry of so many accounts has half the size that the API server takes."""
UNDELETABLE = 3
"""So many superseded accounts that cannot be deleted, and no more, are made on schedule."""


def crowded(target: Target, entry: Entry, rotate: Rotate, *, run: RunInfo) -> Blocked | None:
    """Why the target gets no further account, None where it does."""
    count = len(entry.history) + len(entry.unpublished)
    healing = rotate.reason in HEALING
    if count >= MOST_ACCOUNTS or (not healing and count >= run.max_accounts):
        limit = MOST_ACCOUNTS if healing else run.max_accounts
        return Blocked(
            "TooManyAccounts",
            f"it has {limit} accounts or more, and none of them may go yet: it gets a new key only where its Secret is "
            "broken. Use a longer interval, or a shorter grace period; --max-accounts is the limit",
        )
    stuck = _undeletable(entry, target.generator.access.project)
    if rotate.reason in ("Due", "Retry") and len(stuck) >= UNDELETABLE:
        why = stuck[0].held.why if stuck[0].held is not None else ""
        return Blocked(
            "DeletesRefused",
            f"{UNDELETABLE} superseded accounts or more stay, so no new one is made on schedule; the first {why}",
        )
    return None


def _undeletable(entry: Entry, project: Project) -> list[Publication]:
    """Superseded accounts of the project that stay until a human acts."""
    return [
        publication
        for publication in entry.history
        if publication.held is not None
        and publication.held.kind is HoldKind.STUCK
        and publication.account.access.project == project
    ]
