"""When no further account may be made: bounds, refused deletes, Secrets that somebody breaks again and again.

Guarantees: each rule goes by what is really there, or by what the API answered, never by what the worker reports.
A rule that cannot tell whether a Secret was broken says nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from sandbox.openai.state import KeyStatus
from tests.simulation.stage import Stage, named
from worker.model.values import Ref
from worker.settings.options import Options

SETTLED = 700.0
"""Seconds after a change of a Secret within which a lagging list may make it look broken."""
REFUSED = 3
"""So many accounts that OpenAI refuses to delete, and no more, are made on schedule."""
OFTEN = 7200.0
"""Seconds within which ..."""
AT_MOST = 12
"""... a target gets no more keys than this, unless a human asks for them."""


@dataclass
class MintRules:
    stage: Stage
    refused: defaultdict[Ref, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By target, the accounts whose deletion OpenAI has refused for good."""
    _made: defaultdict[Ref, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When a key for each target was asked for, and no human had forced it."""

    def broken(
        self, target: Ref, name: str, options: Options, *, forced: bool, settled_since: float, asked_for: bool
    ) -> Collection[str]:
        """The rules that this request for an account breaks.

        `settled_since`: when anything last happened to the Secret. `asked_for`: may a human's request be open?
        """
        now, found = self.stage.moment(), []
        if not forced and not asked_for:
            self._made[target].append(now)
        recent = [moment for moment in self._made[target] if now - moment < OFTEN]
        if len(recent) > AT_MOST:
            found.append(f"{len(recent)} keys for {target} within {OFTEN / 3600:.0f} hours, and nobody asks for them")
        if now - settled_since < SETTLED or not self._is_whole(target):
            return found
        # A name that OpenAI refused to give an account stays in the ledger until a list has shown that there is none.
        names, alive = {account.name for account in self.stage.accounts()}, self._alive()
        recorded = self.stage.recorded(target).items()
        count = sum(other != name and (other in names or account.get("id") in alive) for other, account in recorded)
        if count >= options.max_accounts:
            found.append(f"another account for {target}, which has {count}, and {options.max_accounts} are allowed")
        if len(self.refused[target] & self._alive()) >= REFUSED and not forced and not asked_for:
            found.append(f"another account for {target} on schedule, while OpenAI refuses to delete its former ones")
        return found

    def _alive(self) -> set[str]:
        return {account.id for account in self.stage.accounts()}

    def _is_whole(self, target: Ref) -> bool:
        """Does the Secret carry what the ledger and its annotation say, and does that key work, without an end?"""
        secret = self.stage.secret(target)
        key = self.stage.key_in(secret) if self.stage.is_as_wanted(target) else None
        if secret is None or key is None or key.status is not KeyStatus.ACTIVE or key.expires_at is not None:
            return False
        annotation = named(secret)
        stored = self.stage.recorded(target).get(str(annotation.get("name")), {})
        current = "publishedAt" in stored and "supersededAt" not in stored
        return current and annotation.get("id") == stored.get("id") == key.account
