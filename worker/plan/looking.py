"""Is a target's Secret still as it was when a run looked at it last? For operators who ask for fewer looks. Pure.

Guarantees: what is presumed is only what the ledger has noted of a look, for the very key and wishes of then.
A presumption serves to find that nothing is due. Whatever else follows from it is decided anew by a look.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime

from worker.kubernetes.secret import MANAGED
from worker.ledger.transitions import with_look
from worker.model.entries import Entry, Look, Publication, current, is_at_rest
from worker.model.outcomes import RunInfo
from worker.model.sightings import NamedAccount, SecretView
from worker.model.targets import Target
from worker.model.times import format_time
from worker.model.values import Version
from worker.observe.observation import Observation
from worker.plan.decisions import NOT_DUE, Decision
from worker.plan.marks import expected_values

_UNREAD = Version("", "")


def presumed_secret(target: Target, entry: Entry, run: RunInfo, *, now: datetime) -> SecretView | None:
    """The Secret as the last look found it; None: a run has to look."""
    publication = current(entry)
    # While an account waits to go, who may hold its key depends on what the Secret has had: every run looks.
    if publication is None or not is_at_rest(entry) or not _is_recent(publication.look, target, entry, run, now=now):
        return None
    return _as_published(target, entry, publication)


def with_this_look(target: Target, seen: Observation, decision: Decision, entry: Entry, run: RunInfo) -> Entry:
    """The entry with the look that a run has just had: it counts for later runs, or ends an earlier one that did.

    A look that is noted already is not noted again while it counts: that would be a write in every run.
    """
    publication = current(entry)
    if seen.presumed or seen.at is None or publication is None or decision.reason == "InProgress":
        return entry
    if decision.reason != NOT_DUE:
        # Also without the option: another run must not presume to be well what this one has seen.
        return with_look(entry, None) if publication.look is not None else entry
    if not run.look_every or seen.trouble is not None or not is_at_rest(entry):
        return entry
    known = _as_published(target, entry, publication) is not None
    if not known or _is_recent(publication.look, target, entry, run, now=seen.at):
        return entry
    return with_look(entry, Look(seen.at, wish(target, entry)))


def _is_recent(look: Look | None, target: Target, entry: Entry, run: RunInfo, *, now: datetime) -> bool:
    # A look in the future was made by a clock that was wrong, then or now.
    return look is not None and look.at <= now < look.at + run.look_every and look.wish == wish(target, entry)


def without_a_look(decision: Decision, entry: Entry) -> Decision:
    """The decision, with a word on how old the look is that it goes by: whoever broke the Secret wonders."""
    publication = current(entry)
    if publication is None or publication.look is None:
        return decision
    return replace(decision, message=f"{decision.message}; its Secret was read at {format_time(publication.look.at)}")


def wish(target: Target, entry: Entry) -> str:
    """A digest of all that the users ask for, and of which object is the entry: one from a backup knows nothing of now.

    The status of the users' object is the worker's own.
    """
    asked = replace(target, source=replace(target.source, status={}))
    uid = entry.version.uid if entry.version is not None else ""
    return hashlib.sha256(f"{uid} {asked!r}".encode()).hexdigest()[:16]


def _as_published(target: Target, entry: Entry, publication: Publication) -> SecretView | None:
    """The Secret with this key in its place, and the annotation that names its account; None: too little is known."""
    account = publication.account
    values = expected_values(target, account)
    digests = {data_key: placed.digest for data_key, placed in values.items() if placed.digest is not None}
    if account.id is None or account.key_digest is None or digests.keys() != values.keys():
        return None
    named = NamedAccount(
        account.id,
        account.name,
        account.key_id,
        account.access.project,
        str(entry.target),
        entry.ledger,
        rendered=account.rendered,
    )
    return SecretView(
        ref=target.ref,
        version=_UNREAD,
        type="Opaque",
        immutable=False,
        filled=frozenset(digests),
        labels={MANAGED: "true"},
        annotations={},
        digests=digests,
        named=named,
    )
