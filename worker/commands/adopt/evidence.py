"""Claims on accounts by annotations, GeneratorStates and a human; and a census of all targets' claims. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from worker.commands.adopt.generator_state import GeneratorState
from worker.errors import RotatorError
from worker.kubernetes.secret import CURRENT, previous_accounts
from worker.model.entries import Entry, Unreadable, accounts_of
from worker.model.sightings import AccountKey, Listing, NamedAccount, SecretView
from worker.model.targets import ProjectAccess, Target
from worker.model.values import Ref

BY_HAND = "named by --account"


@dataclass(frozen=True, slots=True)
class Claim:
    """Something names an account as a target's. `problem`: reason and message, where the claim itself is invalid."""

    evidence: str
    id: str | None = None
    name: str | None = None
    current: bool = False
    """It claims that this account's key is in the Secret now."""
    named: NamedAccount | None = None
    problem: tuple[str, str] | None = None
    by_hand: bool = False
    """The human has named it too."""


@dataclass(frozen=True, slots=True)
class Facts:
    """OpenAI's answers: `names` by requested id (None: there is no such account), and the project's lists."""

    names: Mapping[str, str | None]
    listing: Listing
    keys: Mapping[str, tuple[AccountKey, ...]]
    elsewhere: Mapping[str, tuple[ProjectAccess, Listing]] = field(default_factory=dict, hash=False)
    """Accounts that live in another project of the same admin key: how to reach them, and that project's list."""

    def listing_of(self, account_id: str | None) -> Listing:
        """The list of the project in which the account is."""
        place = self.elsewhere.get(account_id or "")
        return self.listing if place is None else place[1]

    def access_of(self, account_id: str, usual: ProjectAccess) -> ProjectAccess:
        """How the account is reached. `usual`: as the generator's project is."""
        place = self.elsewhere.get(account_id)
        return usual if place is None else place[0]


@dataclass(frozen=True, slots=True)
class Case:
    """One target, as it was found. `recorded`: OpenAI's names of the accounts of an entry that is not ours.

    `trouble`: reason and message, where nothing can be adopted here. `asked`: the human has named it.
    """

    ref: Ref
    asked: bool = False
    target: Target | None = None
    entry: Entry | Unreadable | None = None
    secret: SecretView | None = None
    claims: tuple[Claim, ...] = ()
    facts: Facts | RotatorError | None = None
    recorded: Mapping[str, str | None] | RotatorError = field(default_factory=dict, hash=False)
    trouble: tuple[str, str] | None = None
    hidden: bool = False
    """Its evidence could not be read."""


# --- evidence ----------------------------------------------------------------------------------------------------


def claims_of(
    target: Target, secret: SecretView | None, states: Iterable[GeneratorState], *, by_hand: Iterable[str]
) -> tuple[Claim, ...]:
    """Everything that names an account for this target."""
    by_hand = frozenset(by_hand)
    claims = annotated(secret)
    in_secret = any(claim.current for claim in claims)
    claims += _stated(target, states, in_secret=in_secret or secret is None)
    named = {claim.id for claim in claims if claim.problem is None}
    claims += [Claim(BY_HAND, account) for account in sorted(by_hand - named)]
    return tuple(replace(claim, by_hand=claim.id in by_hand) for claim in claims)


def annotated(secret: SecretView | None) -> list[Claim]:
    """The claims of a Secret's annotations."""
    return list(_annotated(secret)) if secret is not None else []


def _annotated(secret: SecretView) -> Iterable[Claim]:
    evidence, named = "named by the Secret's annotation", secret.named
    copied: tuple[str, str] | None = None
    if named is not None and named.target != str(secret.ref):
        message = f"the annotation names the target {named.target[:120]!r}: it is a copy; delete it or its annotations"
        copied = "CopiedSecret", message
        yield Claim(evidence, named.id, named.name[:64], problem=copied)
    elif named is not None:
        yield Claim(evidence, named.id, named.name, True, named)
    elif CURRENT in secret.annotations:
        message = "the annotation that names the Secret's account is not as the rotator writes it"
        yield Claim(evidence, problem=("InvalidEvidence", message))
    previous = previous_accounts(secret)
    if previous is None:
        message = "the annotation that lists the Secret's previous accounts is not as the rotator writes it"
        yield Claim(evidence, problem=("InvalidEvidence", message))
    for account, name in previous or ():
        yield Claim("named by the Secret's annotation as a previous account", account, name, problem=copied)


def _stated(target: Target, states: Iterable[GeneratorState], *, in_secret: bool) -> Iterable[Claim]:
    """`in_secret`: the Secret names its account or does not exist, so it holds the key of none of these."""
    own = [
        state for state in states if state.ref.namespace == target.ref.namespace and target.source.uid in state.owners
    ]
    latest = max((state for state in own if state.latest), key=lambda state: (state.made_at, state.ref), default=None)
    for state in sorted(own, key=lambda state: (state.made_at, state.ref)):
        evidence = f"of GeneratorState {state.ref}"
        if state.account_id is None or state.project is None:
            message = f"GeneratorState {state.ref} does not name an account and a project as the operator wrote them"
            yield Claim(evidence, problem=("InvalidEvidence", message))
        elif state.project != target.generator.access.project:
            message = f"GeneratorState {state.ref} is about another project than generator {target.generator.ref}"
            yield Claim(evidence, state.account_id, problem=("InvalidEvidence", message))
        else:
            yield Claim(evidence, state.account_id, current=state is latest and not in_secret)


# --- who else names it -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Census:
    """By account id and by account name: the targets whose entry records it, or whose evidence names it."""

    ids: Mapping[str, frozenset[Ref]]
    names: Mapping[str, frozenset[Ref]]

    @classmethod
    def of(cls, cases: Iterable[Case], entries: Iterable[Entry], unclaimed: Collection[str] = ()) -> Census:
        """`unclaimed`: ids that evidence names for no target."""
        ids: defaultdict[str, set[Ref]] = defaultdict(set)
        names: defaultdict[str, set[Ref]] = defaultdict(set)
        for entry in entries:
            for account in accounts_of(entry):
                names[account.name].add(entry.target)
                if account.id is not None:
                    ids[account.id].add(entry.target)
        for case in cases:
            for claim in case.claims:
                if claim.id is not None:
                    # An invalid claim still names the account, so `unrecorded` leaves the account out.
                    ids[claim.id] |= {case.ref} if claim.problem is None else set()
        for account_id in unclaimed:
            ids[account_id] |= set()
        return cls(
            {key: frozenset(refs) for key, refs in ids.items()}, {key: frozenset(refs) for key, refs in names.items()}
        )

    def others(self, account_id: str | None, name: str, ref: Ref) -> list[Ref]:
        """Other targets whose entry or evidence names this account."""
        found = self.names.get(name, frozenset()) | self.ids.get(account_id or "", frozenset())
        return sorted(found - {ref})

    def knows(self, account_id: str, name: str) -> bool:
        return account_id in self.ids or name in self.names
