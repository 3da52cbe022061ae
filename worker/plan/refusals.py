"""Why a run does not write a target's Secret: one function per rule, in order of precedence. Pure.

Guarantee: a run writes a Secret only where it is absent, ours, or requested with Merge.
"""

from __future__ import annotations

from collections.abc import Callable

from worker.kubernetes.secret import MANAGED, OPERATOR_LABELS
from worker.model.sightings import NamedAccount, SecretView
from worker.model.targets import CreationPolicy, Target
from worker.model.templates import KEY_ROOM, size_of
from worker.observe.observation import Observation
from worker.plan.decisions import Blocked
from worker.plan.marks import key_in_place

LARGEST_SECRET = 1024 * 1024
"""Bytes of all data values, by the API server (`MaxSecretSize`)."""
ADOPT = "`openai-key-rotator adopt"
"""How messages name the command; the target and a closing quote follow."""


def refusal(target: Target, seen: Observation) -> Blocked | None:
    """Why a run may not write the Secret, None where it may."""
    if seen.secret is None:
        return _nothing_to_merge_into(target) or _too_large(target, None)
    rules = (_type, _immutable, _foreign_owner, _too_large)
    found = next((found for rule in rules if (found := rule(target, seen.secret)) is not None), None)
    if found is not None:
        return found
    if seen.secret.named is None:
        return _unmanaged(target, seen, seen.secret)
    named = seen.secret.named
    return next((found for check in _ANNOTATION_RULES if (found := check(target, seen, named)) is not None), None)


def _nothing_to_merge_into(target: Target) -> Blocked | None:
    if target.creation is not CreationPolicy.MERGE:
        return None
    return Blocked("SecretMissing", f"creationPolicy Merge needs the Secret {target.ref}, which does not exist")


def _type(target: Target, secret: SecretView) -> Blocked | None:
    if secret.type == "Opaque":
        return None
    return Blocked("SecretType", f"Secret {secret.ref} is of type {secret.type[:80]}: only Opaque Secrets are written")


def _immutable(target: Target, secret: SecretView) -> Blocked | None:
    if not secret.immutable:
        return None
    return Blocked(
        "SecretImmutable",
        f"Secret {secret.ref} is immutable: give the target another name. Do not delete it to have it made again: "
        "kubelets that have seen it give its old value to new pods, as long as an earlier pod is on the node",
    )


def _too_large(target: Target, secret: SecretView | None) -> Blocked | None:
    """Only a template comes near the limit: a key alone has some hundred bytes."""
    sizes = secret.sizes if secret is not None else {}
    others = sum(size for data_key, size in sizes.items() if data_key not in target.values)
    size = others + sum(size_of(pieces) for pieces in target.values.values())
    if target.template is None or size <= LARGEST_SECRET:
        return None
    return Blocked(
        "SecretTooLarge",
        f"Secret {target.ref} would have {size} bytes, {others} of them not from spec.target.template.data: "
        f"a Secret has {LARGEST_SECRET} at most ({KEY_ROOM} are reckoned for each place of the key)",
    )


def _foreign_owner(target: Target, secret: SecretView) -> Blocked | None:
    operated = any(label in secret.labels for label in OPERATOR_LABELS)
    if not operated and not _owned_by_another(target, secret):
        return None
    return Blocked(
        "ForeignSecret",
        f"Secret {secret.ref} belongs to another controller: remove its ExternalSecret there, or use another name; "
        f"where that was an operator that is stopped now, {ADOPT} {secret.ref}` says how to take it over",
    )


def _owned_by_another(target: Target, secret: SecretView) -> bool:
    """Does an ExternalSecret other than the source own the Secret? One of the source's name may be its earlier self."""
    return any(
        owner.get("kind") == "ExternalSecret"
        and str(owner.get("apiVersion", "")).startswith("external-secrets.io/")
        and (target.source.kind, target.source.ref.name) != ("ExternalSecret", owner.get("name"))
        for owner in secret.owners
    )


def _unmanaged(target: Target, seen: Observation, secret: SecretView) -> Blocked | None:
    merging = target.creation in (CreationPolicy.MERGE, CreationPolicy.CREATE_OR_MERGE)
    ours = secret.labels.get(MANAGED) == "true" and seen.entry.history
    owned = any(owner.get("uid") == target.source.uid for owner in secret.owners)
    # Label, annotation and owner may be stripped: the key itself tells whose Secret it is.
    if merging or ours or owned or key_in_place(target, seen) is not None:
        return None
    return Blocked(
        "ForeignSecret",
        f"Secret {secret.ref} exists and is not managed by the rotator: "
        "delete it, use another name, or set creationPolicy Merge",
    )


# --- the annotation names an account -----------------------------------------------------------------------------


def _copied(target: Target, seen: Observation, named: NamedAccount) -> Blocked | None:
    if named.target == str(target.ref):
        return None
    return Blocked(
        "CopiedSecret",
        f"the annotation of Secret {target.ref} names the target {named.target[:120]!r}: it is a copy; "
        "delete it or its annotations",
    )


def _of_another_installation(target: Target, seen: Observation, named: NamedAccount) -> Blocked | None:
    if named.ledger == seen.entry.ledger or not _is_somebodys(seen, named):
        return None
    return Blocked(
        "ForeignLedger",
        f"the annotation of Secret {target.ref} was written by another installation "
        f"(ledger {named.ledger[:40]!r}): {ADOPT} {target.ref}` records its account {named.name[:64]!r} where "
        "that one is gone; where it lives on, delete the Secret here to start afresh",
    )


def _unknown_account(target: Target, seen: Observation, named: NamedAccount) -> Blocked | None:
    if not _is_somebodys(seen, named):
        return None
    return Blocked(
        "UnknownAccount",
        f"the annotation of Secret {target.ref} names account {named.name[:64]!r}, which the ledger does not "
        f"record: {ADOPT} {target.ref}` records it if it is ours; otherwise delete the Secret here to start "
        "afresh",
    )


def _is_somebodys(seen: Observation, named: NamedAccount) -> bool:
    """Does the annotation name an account that exists, as far as is known, and that this target's entry lacks?"""
    foreign = named.ledger != seen.entry.ledger
    if any((p.account.name, p.account.id) == (named.name, named.id) for p in seen.entry.history):
        # The entry records it, whichever ledger the annotation names: `adopt` leaves the annotation as it was.
        return False
    if not foreign and any(intent.account.name == named.name for intent in seen.entry.unpublished):
        return False
    if seen.trouble is not None:
        # Nobody knows whether it exists: an account of another installation is left alone.
        return foreign
    if not seen.asked and not foreign and _let_go_before(seen, named):
        return False
    # An account that OpenAI does not have any more is nobody's, and its key is dead.
    return seen.named_at_openai is not None or not seen.asked


def _let_go_before(seen: Observation, named: NamedAccount) -> bool:
    """Has this entry, which is older than the account's publication, let the account go?

    No account leaves an entry before OpenAI has confirmed its end (I4). A backup may have put its annotation back.
    """
    since, published = seen.entry.since, named.published_at
    return bool(seen.entry.history) and since is not None and published is not None and since <= published


_ANNOTATION_RULES: tuple[Callable[[Target, Observation, NamedAccount], Blocked | None], ...] = (
    _copied,
    _of_another_installation,
    _unknown_account,
)
