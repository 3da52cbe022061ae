"""What a revocation deletes and breaks: plain values. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from worker.ledger.transitions import CLOCKS_APART
from worker.model.entries import Account, Publication
from worker.model.outcomes import Notice
from worker.model.sightings import Consumer
from worker.model.values import Ref
from worker.plan.holders import holders


@dataclass(frozen=True, slots=True)
class DoomedAccount:
    """An account to delete, and the containers that carry its key, for certain or perhaps."""

    name: str
    id: str | None
    current: bool
    certain: tuple[str, ...]
    possible: tuple[str, ...]
    key_id: str | None
    project_id: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The deletes and the breakage of a revocation, as far as `revoke` sees them.

    `following`: containers that read the Secret through a volume. `blind`: `revoke` could not list pods.
    `obstacle`: why there can be no new key.
    """

    target: Ref
    doomed: tuple[DoomedAccount, ...]
    following: tuple[str, ...]
    blind: bool
    obstacle: str | None
    without_successor: bool


@dataclass(frozen=True, slots=True)
class Revoked:
    """The result of a revocation. `plan`: the state right before the deletes, so it names the affected containers.

    `successor`: the new account, None where there is none (`why_none` says why).
    `kept`: the account that is still current, where there is no new one.
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
        """Are all accounts to delete gone, with a new key in place unless the human waived it?"""
        return not self.left and (self.successor is not None or self.plan.without_successor)

    @property
    def affected(self) -> tuple[str, ...]:
        """Containers that have, or may have, a key that is dead now."""
        gone = [doomed for doomed in self.plan.doomed if doomed.name in self.deleted]
        return tuple(sorted({name for doomed in gone for name in (*doomed.certain, *doomed.possible)}))


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The accounts that the ledger may forget, because OpenAI denies their project.

    `left`: accounts of such a project, or of one that could not be asked about, that stay; and why.
    `answering`: accounts whose project exists: the worker deletes them itself.
    """

    target: Ref
    gone: tuple[Account, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    answering: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(account.name for account in self.gone)

    @property
    def complete(self) -> bool:
        return bool(self.gone) and not self.left


def forgotten_notice(forgotten: Forgotten) -> Notice:
    return Notice("Forgotten", f"forgotten by hand, for OpenAI denies the project: {in_full(forgotten.gone)}")


def in_full(accounts: Iterable[Account]) -> str:
    """Names, ids and projects: all that leads back to the accounts."""
    return ", ".join(f"{one.name} ({one.id or 'id unknown'}) of {one.access.project}" for one in accounts)


def doomed_account(
    publication: Publication, consumers: tuple[Consumer, ...], now: datetime, *, stays: bool
) -> DoomedAccount:
    ended = publication
    if publication.superseded_at is None:
        ended = replace(publication, superseded_at=now + CLOCKS_APART, secret_gone=not stays)
    found = holders(ended, consumers)
    return DoomedAccount(
        publication.account.name,
        publication.account.id,
        publication.superseded_at is None,
        tuple(sorted({holder.name for holder in found.certain})),
        tuple(sorted({holder.name for holder in found.possible})),
        publication.account.key_id,
        publication.account.access.project.id,
    )


def notice_of(revoked: Revoked) -> Notice:
    message = f"revoked by hand: {', '.join(revoked.deleted)}; "
    message += f"{revoked.successor} is current" if revoked.successor is not None else "there is no new key"
    affected = ", ".join(revoked.affected)
    return Notice(
        "Revoked", f"{message}; containers whose key is now dead, or may be: {affected}" if affected else message
    )
