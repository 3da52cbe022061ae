"""Are the label and the annotation of a Secret lost, while its key is in place? Then nobody needs a new key. Pure.

Guarantees: only a key that the ledger knows by its digest counts as in place.
A key that somebody put back from an earlier time does not.
"""

from __future__ import annotations

from collections.abc import Mapping

from worker.kubernetes.secret import MANAGED
from worker.model.entries import Account, Publication, current
from worker.model.sightings import NamedAccount, SecretView
from worker.model.targets import Target
from worker.model.templates import Placed
from worker.observe.observation import Observation
from worker.plan.decisions import Restore


def key_in_place(target: Target, seen: Observation) -> Publication | None:
    """The current publication, if its key is where the target wants it, and no later one was published."""
    publication = current(seen.entry)
    if seen.secret is None or publication is None:
        return None
    account = publication.account
    if account.id is None or account.key_digest is None:
        return None
    latest = all(other.at <= publication.at for other in seen.entry.history)
    there = not made_otherwise(target, account) and not changed_values(target, account, seen.secret)
    return publication if latest and there else None


def made_otherwise(target: Target, account: Account) -> bool:
    """Does the target's template make other data values than the one with which the account was published?"""
    wanted = target.template.digest if target.template is not None else None
    return wanted != (account.rendered.template if account.rendered is not None else None)


def expected_values(target: Target, account: Account) -> Mapping[str, Placed]:
    """What the Secret has, if all is well: what was published, and a key that stands alone where it is wanted now."""
    if account.rendered is None and target.template is None:
        return {target.data_key: Placed(0, account.key_digest)}
    return account.values()


def changed_values(target: Target, account: Account, secret: SecretView) -> list[str]:
    """The data keys whose value is not the one that was published, as far as that is known."""
    return [
        data_key
        for data_key, placed in expected_values(target, account).items()
        if placed.digest is not None and not secret.has(data_key, placed)
    ]


def names(named: NamedAccount | None, publication: Publication) -> bool:
    """Does the annotation name this publication's account?"""
    return named is not None and (named.name, named.id) == (publication.account.name, publication.account.id)


def marks_lost(target: Target, seen: Observation) -> Restore | None:
    """What to write again on a Secret whose key needs nothing; None: it is as it should be, or nobody knows."""
    publication, secret = key_in_place(target, seen), seen.secret
    if publication is None or secret is None:
        return None
    if not names(secret.named, publication):
        if secret.named is not None and seen.trouble is not None:
            # It may name an account that exists and that no ledger records: that is for `adopt` to see.
            return None
        lost = "the annotation that names the account of its key"
    elif secret.labels.get(MANAGED) != "true":
        lost = f"the label {MANAGED}"
    else:
        return None
    message = f"Secret {target.ref} has lost {lost}: it is written again, and the key stays"
    return Restore("AnnotationLost", message + last_writer(secret), seen.entry.next_rotation_at)


def last_writer(secret: SecretView | None) -> str:
    """For messages: who wrote the Secret after the worker, as far as the API server's notes tell."""
    return f"; {secret.last_writer!r} wrote it last" if secret is not None and secret.last_writer else ""
