"""What a revocation deletes and breaks: plain values. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from worker.model.entries import Publication
from worker.model.outcomes import Notice
from worker.model.sightings import Consumer
from worker.model.values import Ref
from worker.plan.holders import CLOCKS_APART, holders


@dataclass(frozen=True, slots=True)
class DoomedAccount:
    """An account that is to be deleted, and which containers carry its key, for certain or perhaps."""

    name: str
    id: str | None
    current: bool
    certain: tuple[str, ...]
    possible: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a revocation is going to do and to break, as far as it can be seen. `following`: containers that read the
    Secret through a volume. `blind`: whether pods could not be looked at. `obstacle`: why there can be no new key.
    """

    target: Ref
    doomed: tuple[DoomedAccount, ...]
    following: tuple[str, ...]
    blind: bool
    obstacle: str | None
    without_successor: bool


@dataclass(frozen=True, slots=True)
class Revoked:
    """What came of it. `plan`: as it was right before the deletes, so it names what they affect. `successor`: the new
    account; None: there is none, and `why_none`. `kept`: the account that is still current, where there is no new one.
    """

    plan: Plan
    successor: str | None = None
    why_none: str | None = None
    kept: str | None = None
    deleted: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    """Accounts that are not gone, and why."""
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Is everything gone that was to go, with a new key in place, unless none was demanded?"""
        return not self.left and (self.successor is not None or self.plan.without_successor)

    @property
    def affected(self) -> tuple[str, ...]:
        """Containers that have, or may have, a key that is dead now."""
        gone = [doomed for doomed in self.plan.doomed if doomed.name in self.deleted]
        return tuple(sorted({name for doomed in gone for name in (*doomed.certain, *doomed.possible)}))


def doomed_account(
    publication: Publication, consumers: tuple[Consumer, ...], now: datetime, *, stays: bool
) -> DoomedAccount:
    ended = publication
    if publication.superseded_at is None:
        ended = replace(publication, superseded_at=now + CLOCKS_APART, secret_gone=not stays)
    certain, possible = holders(ended, consumers)
    return DoomedAccount(
        publication.account.name,
        publication.account.id,
        publication.superseded_at is None,
        tuple(sorted({consumer.name for consumer in certain})),
        tuple(sorted({consumer.name for consumer in possible})),
    )


def notice_of(revoked: Revoked) -> Notice:
    words = f"revoked by hand: {', '.join(revoked.deleted)}; "
    words += f"{revoked.successor} is current" if revoked.successor is not None else "there is no new key"
    affected = ", ".join(revoked.affected)
    return Notice("Revoked", f"{words}; containers whose key is now dead, or may be: {affected}" if affected else words)
