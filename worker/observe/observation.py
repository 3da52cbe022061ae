"""One target as a run found it: the plain value that deciding starts from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from worker.errors import RotatorError
from worker.model.entries import Account, Entry
from worker.model.sightings import SecretView


@dataclass(frozen=True, slots=True)
class Observation:
    """One target as a run found it. `entry` is already reconciled with the Secret."""

    secret: SecretView | None
    entry: Entry
    named_at_openai: str | None = None
    """The name OpenAI has for the account id that the Secret names; None: there is no such account, if asked."""
    trouble: RotatorError | None = None
    """Why OpenAI could not be asked about this project."""
    asked: bool = True
    """Whether OpenAI could be asked about the account that the Secret names."""
    key_problem: str | None = None
    """Why the current account's key cannot be used, in words; None: it can, or nobody knows."""
    blind: RotatorError | None = None
    """Why OpenAI could not be asked about its key."""
    widened: tuple[Account, ...] = ()
    """Accounts of the entry whose key may do more at OpenAI than it was narrowed to."""
    presumed: bool = False
    """The Secret was not read: `secret` is what the ledger has noted of an earlier look."""
    at: datetime | None = None
    """When the entry was reconciled with the Secret; None: just now."""
