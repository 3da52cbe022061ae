"""Decide which accounts the ledger may record, by the evidence for them. Pure; no clock of its own.

The evidence: annotations of Secrets, GeneratorStates of the closed enterprise operator, ids that a human names, and
entries of another ledger. A tenant can forge all but the last.
Guarantees: `judge` records an account only if OpenAI has it in the project of the target's own generator.
The account is the only one of its name, and the name fits the evidence and the generator.
The account has one key at most.
No other target's entry or evidence names the account.
`judge` takes over another ledger's entry only if OpenAI has its accounts under these names.
`judge` respects a claim that runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from worker.commands.adopt.evidence import Case, Census, Claim, Facts
from worker.errors import RotatorError
from worker.kubernetes.secret import MANAGED, OPERATOR_LABELS
from worker.ledger import account_keys, transitions
from worker.model.entries import Account, Entry, Publication, Unreadable, accounts_of
from worker.model.sightings import AccountKey
from worker.model.times import format_time
from worker.model.values import Ref


class Verdict(StrEnum):
    RECORD = "record"
    """`adopt` would record it, or did."""
    KNOWN = "known"
    """The target's entry records it already."""
    GONE = "gone"
    """OpenAI does not have it: there is nothing to record."""
    UNRECORDED = "unrecorded"
    """Nothing names it, but it looks like ours: for a human to decide."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one account, or with `name` None on a whole target."""

    target: Ref
    verdict: Verdict
    message: str
    reason: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Adoption:
    """The findings for a target. `after`: the entry to store, None where there is nothing to store."""

    target: Ref
    findings: tuple[Finding, ...]
    after: Entry | None = None
    advice: str = ""
    """The human's remaining steps."""


# --- judgement ---------------------------------------------------------------------------------------------------


def judge(case: Case, census: Census, ledger: str, *, now: datetime) -> Adoption:
    """Judge each claim for a target: recordable, or not and why. `ledger`: the uid of this ledger."""
    if isinstance(case.entry, Unreadable):
        message = f"ledger entry {case.entry.name} was edited: {case.entry.message}; put it right, or delete it"
        return Adoption(case.ref, (Finding(case.ref, Verdict.REFUSED, message, "LedgerUnreadable"),))
    if case.trouble is not None:
        reason, message = case.trouble
        return Adoption(case.ref, (Finding(case.ref, Verdict.REFUSED, message, reason),))
    entry = case.entry or Entry(case.ref, ledger)
    foreign = _foreign(case, entry, census) if entry.ledger != ledger else ()
    findings = (*foreign, *(_judged(case, claim, entry, census=census) for claim in case.claims))
    after = None
    if any(finding.verdict is Verdict.RECORD for finding in findings):
        obstacle = _obstacle(foreign, entry, now)
        if obstacle is None:
            after = _recorded(case, findings[len(foreign) :], entry, ledger=ledger, now=now)
        else:
            findings = tuple(_refused(finding, obstacle) for finding in findings)
    return Adoption(case.ref, findings, after, _advice(case))


def _foreign(case: Case, entry: Entry, census: Census) -> tuple[Finding, ...]:
    """The finding for another ledger's entry: `adopt` takes over the whole entry, or none of it."""

    def finding(verdict: Verdict, message: str, reason: str = "") -> Finding:
        return Finding(case.ref, verdict, message, reason)

    if isinstance(case.recorded, RotatorError):
        return (
            finding(
                Verdict.REFUSED, f"its accounts cannot be confirmed: {case.recorded.message}", case.recorded.reason
            ),
        )
    for account in accounts_of(entry):
        known = case.recorded.get(account.id) if account.id is not None else None
        if known is not None and known != account.name:
            return (finding(Verdict.REFUSED, f"OpenAI knows account {account.name} by another name", "UnknownAccount"),)
        others = census.others(account.id, account.name, case.ref)
        if others:
            return (finding(Verdict.REFUSED, _elsewhere(others), "NamedTwice"),)
    names = ", ".join(account.name for account in accounts_of(entry)) or "no account"
    return (finding(Verdict.RECORD, f"entry of another ledger ({entry.ledger[:40]}), with {names}"),)


def _judged(case: Case, claim: Claim, entry: Entry, *, census: Census) -> Finding:
    facts = case.facts
    recorded = {p.account.id: p.account.name for p in entry.history}
    name = (
        claim.name or recorded.get(claim.id) or (facts.names.get(claim.id or "") if isinstance(facts, Facts) else None)
    )

    def finding(verdict: Verdict, message: str, reason: str = "") -> Finding:
        return Finding(case.ref, verdict, message, reason, claim.id, name)

    if claim.problem is not None or claim.id is None:
        reason, message = claim.problem or ("InvalidEvidence", "no account is named")
        return finding(Verdict.REFUSED, message, reason)
    if recorded.get(claim.id) is not None and recorded[claim.id] == name:
        return finding(Verdict.KNOWN, "recorded already")
    if not isinstance(facts, Facts):
        cause = f"{facts.message}" if facts is not None else "OpenAI was not asked"
        return finding(Verdict.REFUSED, f"cannot be confirmed: {cause}", facts.reason if facts is not None else "")
    found = facts.names.get(claim.id)
    if found is None:
        return finding(Verdict.GONE, f"does not exist at OpenAI (any more); {claim.evidence}")
    if found != name:
        return finding(
            Verdict.REFUSED, f"OpenAI knows this account by another name; {claim.evidence}", "UnknownAccount"
        )
    problem = _problem(case, claim, found, entry=entry, census=census, facts=facts)
    if problem is not None:
        return finding(Verdict.REFUSED, f"{problem[1]}; {claim.evidence}", problem[0])
    place = "in the Secret now" if claim.current else "superseded"
    return finding(Verdict.RECORD, f"{place}; {claim.evidence}")


def _problem(
    case: Case, claim: Claim, name: str, *, entry: Entry, census: Census, facts: Facts
) -> tuple[str, str] | None:
    """Why `adopt` does not record an existing account for this target, None where it does."""
    if case.target is not None and case.target.central and not claim.by_hand:
        message = "the admin key is central, and that the account is this target's is said by its own namespace alone"
        return "CentralAdminKey", f"{message}: if you know it, adopt {case.ref} --account {claim.id}"
    if name in {p.account.name for p in entry.history}:
        return "UnknownAccount", "the ledger records this name with another id"
    carried = [p.account.name for p in entry.history if case.secret is not None and case.secret.carries(p.account)]
    if claim.current and carried:
        return "UnknownAccount", f"the Secret holds the key of {carried[-1]}, so its annotation was changed alone"
    others = census.others(claim.id, name, case.ref)
    if others:
        return "NamedTwice", _elsewhere(others)
    if set(facts.listing_of(claim.id).ids_of(name)) - {claim.id}:
        return "NamedTwice", "OpenAI has several accounts of this name"
    if case.target is None or not case.target.generator.gives(name):
        message = "its name does not match the generator's serviceAccountNamePrefix and serviceAccountNameSize"
        return "AnotherName", message
    if len(facts.keys.get(claim.id or "", ())) > 1:
        return "SeveralKeys", "it has several keys, and ours have one: somebody else uses it"
    return None


def _elsewhere(others: Collection[Ref]) -> str:
    names = ", ".join(str(ref) for ref in list(others)[:3])
    return f"recorded for, or named by, {names} as well"


def _obstacle(foreign: Collection[Finding], entry: Entry, now: datetime) -> tuple[str, str] | None:
    """Why `adopt` may not write this entry, None where it may."""
    claim = entry.claimed_until(now)
    if claim is not None:
        return "InProgress", f"a run may be working on this target until {format_time(claim)}"
    refused = next((finding for finding in foreign if finding.verdict is Verdict.REFUSED), None)
    return ("ForeignLedger", "the target's entry is another ledger's and stays so") if refused is not None else None


def _refused(finding: Finding, obstacle: tuple[str, str]) -> Finding:
    if finding.verdict is not Verdict.RECORD:
        return finding
    reason, message = obstacle
    return Finding(finding.target, Verdict.REFUSED, message, reason, finding.id, finding.name)


def _recorded(case: Case, judged: Collection[Finding], entry: Entry, *, ledger: str, now: datetime) -> Entry:
    """The entry with every recordable account."""
    in_secret, previous = None, []
    for claim, finding in zip(case.claims, judged, strict=True):
        if finding.verdict is Verdict.RECORD:
            publication = _publication(case, claim, finding, entry=entry, now=now)
            if claim.current:
                in_secret = publication
            else:
                previous.append(publication)
    return transitions.adopted(entry, ledger, in_secret, previous=previous, target=case.target, now=now)


def _publication(case: Case, claim: Claim, finding: Finding, *, entry: Entry, now: datetime) -> Publication:
    """The publication of a confirmed account. A superseded one ends now: too late is safe."""
    if case.target is None or not isinstance(case.facts, Facts) or finding.id is None or finding.name is None:
        raise ValueError("only an account that OpenAI has confirmed for a target is recorded")
    named, key = claim.named, _own_key(case.facts, finding.id, claim)
    created = key.created_at if key is not None else _created_at(case.facts, finding.id)
    made = min(created, now) if created is not None else now
    data_key: str | None = (named.data_key if named is not None else None) or case.target.data_key
    # Only our own annotation tells which key the Secret holds, for one PATCH wrote both.
    digest = case.secret.digests.get(data_key or "") if named is not None and case.secret is not None else None
    rendered = named.rendered if named is not None else None
    if named is not None and rendered is not None:
        data_key, digest = None, named.key_digest
    elif named is None and case.target.template is not None:
        # The operator's template may have put the key into any of these.
        data_key, rendered = None, case.target.template.rendered(None)
    account = Account(
        name=finding.name,
        # A human's word is worth the fallback admin key; a tenant's annotation is not.
        access=replace(case.facts.access_of(finding.id, case.target.generator.access), fallback=claim.by_hand),
        id=finding.id,
        key_id=key.id if key is not None else None,
        expires_at=named.expires_at if named is not None else None,
        key_digest=digest,
        data_key=data_key,
        rendered=rendered,
    )
    published = named.published_at if named is not None and named.published_at is not None else made
    # No container has the key from before OpenAI made it.
    at = min(max(published, made), now)
    requested = next((i.requested_at for i in entry.unpublished if i.account.name == account.name), made)
    return Publication(account, at, None if claim.current else now, min(requested, made))


def _own_key(facts: Facts, account_id: str, claim: Claim) -> AccountKey | None:
    """The account's own key: the one that the annotation names, else one that was made with the account.

    An annotation may be forged, and the key that it names may be deleted: what is left then may be a human's.
    """
    keys, wanted = facts.keys.get(account_id, ()), claim.named.key_id if claim.named is not None else None
    created = _created_at(facts, account_id)
    named = next((key for key in keys if key.id == wanted), None)
    if named is not None or created is None:
        return named or next(iter(keys), None)
    return next((key for key in keys if key.created_at <= created + account_keys.MADE_TOGETHER), None)


def _created_at(facts: Facts, account_id: str) -> datetime | None:
    listed = facts.listing_of(account_id).accounts.get(account_id)
    return listed.created_at if listed is not None else None


def _advice(case: Case) -> str:
    """How to remove the labels of a stopped operator, which keep everybody else away from the Secret."""
    labels = [label for label in OPERATOR_LABELS if case.secret is not None and label in case.secret.labels]
    if not labels:
        return ""
    away = " ".join(f"{label}-" for label in labels)
    return (
        f"Secret {case.ref} carries the labels of External Secrets Operator. Once that operator is stopped: "
        f"kubectl label secret {case.ref.name} -n {case.ref.namespace} {away} {MANAGED}=true"
    )


def unrecorded(cases: Iterable[Case], census: Census, known: Collection[Case] = ()) -> list[Finding]:
    """Accounts that look like a generator's, and that nothing here names: ours, or another cluster's.

    `known`: all targets, for an account may belong to a target outside `cases`.
    """
    cases = tuple(cases)
    lost = {
        (case.target.generator.access.project, account, name): case.ref
        for case in reversed(cases)
        if case.target is not None and isinstance(case.facts, Facts)
        for account, name in ((id, listed.name) for id, listed in case.facts.listing.accounts.items())
        if case.target.generator.gives(name) and not census.knows(account, name)
    }
    findings = []
    for (project, account, name), ref in sorted(lost.items()):
        fitting = {
            case.ref
            for case in (*cases, *known)
            if case.target is not None
            and case.target.generator.access.project == project
            and case.target.generator.gives(name)
        }
        message = _by_hand(sorted(fitting), account)
        findings.append(Finding(ref, Verdict.UNRECORDED, message, id=account, name=name))
    return findings


def _by_hand(fitting: list[Ref], account: str) -> str:
    """How a human can adopt an account that nothing names."""
    message = "named by nothing: made by a ledger that is lost, or in use by another cluster; "
    if len(fitting) == 1:
        return message + f"if you know that it is this target's, adopt {fitting[0]} --account {account}"
    # Only containers of the recorded target hold the account, so the message suggests none of several targets.
    shown = ", ".join(map(str, fitting[:5])) + (", …" if len(fitting) > 5 else "")
    return message + (
        f"it may be that of any of {len(fitting)} targets ({shown}), and only containers of the one that it is adopted "
        f"for are asked whether they hold its key: make sure whose it is, then adopt it there (--account {account})"
    )


@dataclass(frozen=True, slots=True)
class Adopted:
    """The result of `adopt`. `notes`: objects that `adopt` could not read, and GeneratorStates of no target."""

    recorded: bool
    adoptions: tuple[Adoption, ...]
    notes: tuple[str, ...]

    @property
    def findings(self) -> list[Finding]:
        return [finding for adoption in self.adoptions for finding in adoption.findings]

    @property
    def refused(self) -> bool:
        return any(finding.verdict is Verdict.REFUSED for finding in self.findings)
