"""`adopt`: gather evidence for accounts, ask OpenAI about each, show the recordable ones, and with `yes` record them.

Guarantees: without `yes`, `adopt` writes nothing.
`adopt` reads Secrets by name and never lists them.
`adopt` asks OpenAI with the target's own admin key, at the host of its own generator.
`adopt` reads the ledger again after it has all evidence, so it sees accounts that a run has made meanwhile.
`adopt` leaves an entry that has changed meanwhile to the next time.
Every write is conditional on the version that `adopt` judged.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from worker.commands.adopt.evidence import Case, Census, Claim, Facts, annotated, claims_of
from worker.commands.adopt.generator_state import GENERATOR_STATES, GeneratorState, generator_state
from worker.commands.adopt.judge import Adopted, Adoption, Verdict, judge, unrecorded
from worker.commands.adopt.words import as_json, as_text
from worker.commands.session import RunWorld, Session, World, open_ledger
from worker.discover.listing import discover, list_in
from worker.discover.targets import Discovered
from worker.errors import Conflict, Forbidden, NotFound, RotatorError
from worker.ledger.store import Ledger
from worker.model.entries import Entry, Unreadable, accounts_of
from worker.model.hidden import redacted
from worker.model.sightings import ListedAccount, Listing
from worker.model.targets import AdminKeyRef, ProjectAccess, Target
from worker.model.values import Ref
from worker.observe.observer import Observer
from worker.openai.limiter import Limiter
from worker.openai.projects import Projects
from worker.runtime.for_each import Crash, for_each
from worker.runtime.slots import Slots
from worker.runtime.stop import Stop
from worker.settings.options import AdoptRequest, Options


async def execute(session: Session) -> int:
    """Adopt and show the result. Raises OutOfReach as `adopt` does."""
    settings, stop = session.settings, session.stop()
    async with session.world(stop) as world:
        adopted = await adopt(settings.options, settings.wanted, world, stop=stop)
    print(redacted(as_text(adopted) if settings.as_table else json.dumps(as_json(adopted), indent=2)))
    return 1 if adopted.refused else 0


async def adopt(options: Options, wanted: AdoptRequest, world: World, *, stop: Stop) -> Adopted:
    """Show, or with `wanted.yes` record. Raises OutOfReach where the cluster or the ledger cannot be used at all."""
    ledger, running = await open_ledger(options, world)
    clock = running.clock
    slots = Slots(options.concurrency)
    limiter = Limiter(clock, slots, stop)  # a human does not wait out the pauses of runs

    def projects(fallback: AdminKeyRef | None) -> Projects:
        return Projects(
            running.cluster,
            running.openai,
            limiter,
            slots=slots,
            clock=clock,
            allowed_hosts=options.allowed_hosts,
            fallback=fallback,
            fallback_host=options.fallback_host,
        )

    # A tenant's generator may name any project: only accounts that a ledger records are asked about with the fallback.
    own, records = projects(None), projects(options.fallback_admin_key)
    observer = Observer(running.cluster, own, clock)
    gathering = _Gathering(options, wanted, running, ledger, own, records, observer, slots, stop)
    return await gathering.adopt()


@dataclass(frozen=True, slots=True)
class _Gathering:
    options: Options
    wanted: AdoptRequest
    world: RunWorld
    ledger: Ledger
    projects: Projects
    records: Projects
    """For accounts that a ledger records: with the fallback admin key."""
    observer: Observer
    slots: Slots
    stop: Stop

    async def adopt(self) -> Adopted:
        before = await self.ledger.read_all()
        discovered = await discover(self.world.cluster, self.options)
        states, notes = await self._states()
        cases = await self._each(self._bare(before, discovered), lambda case: self._evidence(case, states))
        cases = await self._each(cases, self._confirmed)
        # A run records an account before it makes it: this ledger has each account of ours in the lists above.
        entries = await self.ledger.read_all()
        cases = [self._still(case, entries.get(case.ref)) for case in cases]
        owned = {case.target.source.uid for case in cases if case.target is not None}
        stray = [state for state in states if not state.owners & owned]
        notes += [f"GeneratorState {state.ref} belongs to no target" for state in stray]
        census = Census.of(
            cases,
            [entry for entry in entries.values() if isinstance(entry, Entry)],
            [state.account_id for state in stray if state.account_id is not None],
        )
        cases = self._by_hand_only_with_all_in_view(cases, entries)
        now = self.world.clock.now()
        asked = [case for case in cases if self._is_asked(case.ref) and self._matters(case)]
        adoptions = [judge(case, census, self.ledger.uid, now=now) for case in asked]
        if self.wanted.yes:
            adoptions = [await self._record(adoption) for adoption in adoptions]
        troubles = {case.facts.message for case in asked if isinstance(case.facts, RotatorError)}
        notes += [f"accounts that nothing names were not looked for: {message}" for message in sorted(troubles)]
        lost = unrecorded(asked, census, cases)
        adoptions += [Adoption(finding.target, (finding,)) for finding in lost]
        shown = [adoption for adoption in adoptions if self._is_news(adoption)]
        return Adopted(self.wanted.yes, tuple(sorted(shown, key=lambda a: a.target)), tuple(notes))

    # --- evidence

    def _is_asked(self, ref: Ref) -> bool:
        return not self.wanted.targets or ref in self.wanted.targets

    def _matters(self, case: Case) -> bool:
        """Is the case worth showing? A rejected target is if it has something to adopt, or the human named it."""
        if case.trouble is None or case.asked or case.target is not None:
            return True
        recorded = accounts_of(case.entry) if isinstance(case.entry, Entry) else []
        claimed = {claim.id for claim in case.claims} - {account.id for account in recorded}
        ours = case.entry is None or (isinstance(case.entry, Entry) and case.entry.ledger == self.ledger.uid)
        return bool(claimed) or not ours or case.hidden

    def _is_news(self, adoption: Adoption) -> bool:
        """Is there a problem or something to record, or has the human named the target?"""
        well = all(finding.verdict in (Verdict.KNOWN, Verdict.GONE) for finding in adoption.findings)
        return not well or adoption.target in self.wanted.targets

    def _bare(self, entries: Mapping[Ref, Entry | Unreadable], discovered: Discovered) -> list[Case]:
        """A case for every target, also a rejected one, every other ledger's entry, and all that the human named."""
        targets = {target.ref: target for target in discovered.targets}
        rejected = {item.secret: item for item in discovered.rejected if item.secret is not None}
        others = {
            ref
            for ref, entry in entries.items()
            if (isinstance(entry, Unreadable) or entry.ledger != self.ledger.uid) and self._in_scope(ref)
        }
        cases = []
        for ref in sorted({*targets, *rejected, *others, *self.wanted.targets}):
            asked = ref in self.wanted.targets
            case = Case(ref, asked, targets.get(ref), entries.get(ref))
            if ref in rejected and ref not in targets:
                item = rejected[ref]
                case = replace(case, trouble=(item.reason, f"{item.source}: {item.message}"))
            elif case.target is None and case.entry is None:
                message = "nothing asks for this Secret, and the ledger has no entry for it"
                case = replace(case, trouble=("NoTarget", message))
            cases.append(case)
        return cases

    def _in_scope(self, ref: Ref) -> bool:
        return not self.options.namespaces or ref.namespace in self.options.namespaces

    async def _each(self, cases: Iterable[Case], work: Callable[[Case], Awaitable[Case]]) -> list[Case]:
        """Work on each case; an exception becomes the trouble of its own case."""
        done = await for_each(cases, work, slots=self.slots, stop=self.stop, tenant=lambda case: case.ref.namespace)
        return [
            replace(item.item, trouble=(item.value.reason, item.value.message), hidden=True)
            if isinstance(item.value, Crash)
            else item.value
            for item in done
        ]

    async def _states(self) -> tuple[list[GeneratorState], list[str]]:
        """The GeneratorStates, where the cluster has them and shows them."""
        cluster, places = self.world.cluster, self.options.namespaces
        try:
            found = await list_in(cluster, places, GENERATOR_STATES, keep=generator_state)
        except NotFound:
            return [], []  # most clusters have never had that operator
        except Forbidden as error:
            return [], [f"GeneratorStates were not looked at: {error.message}"]
        return [state for state in found if state is not None], []

    async def _evidence(self, case: Case, states: Iterable[GeneratorState]) -> Case:
        secret = await self.observer.secret(case.ref)
        if case.target is None or case.trouble is not None:
            return replace(case, secret=secret, claims=tuple(annotated(secret)))  # not adoptable, but its claims count
        by_hand = self.wanted.accounts if case.asked else ()
        return replace(case, secret=secret, claims=claims_of(case.target, secret, states, by_hand=by_hand))

    async def _confirmed(self, case: Case) -> Case:
        """The case with OpenAI's facts, where the human asks for its target."""
        if not self._is_asked(case.ref) or case.trouble is not None:
            return case
        if case.target is not None:
            case = replace(case, facts=await self._facts(case, case.target))
        if isinstance(case.entry, Entry) and case.entry.ledger != self.ledger.uid:
            case = replace(case, recorded=await self._recorded(case.entry))
        return case

    async def _facts(self, case: Case, target: Target) -> Facts | RotatorError:
        access = target.generator.access
        try:
            listing = await self.projects.listing(access)
            keys = dict(await self.projects.account_keys(access))
            names: dict[str, str | None] = {}
            elsewhere: dict[str, tuple[ProjectAccess, Listing]] = {}
            for claim in (claim for claim in case.claims if claim.id is not None):
                id = str(claim.id)
                names[id] = _name(await self.projects.account(access, id))
                other = self._other_project(target, claim) if names[id] is None else None
                if other is not None:
                    names[id] = _name(await self.projects.account(other, id))
                    elsewhere[id] = (other, await self.projects.listing(other))
                    keys |= await self.projects.account_keys(other)
            return Facts(names, listing, keys, elsewhere)
        except RotatorError as error:
            return error

    def _other_project(self, target: Target, claim: Claim) -> ProjectAccess | None:
        """The project that the annotation names, if the target's own admin key may be asked about it."""
        own = target.generator.access
        project = claim.named.project if claim.named is not None else None
        # Any tenant may write an annotation: it chooses no host, and a central key sees others' projects.
        if project is None or project == own.project or project.host != own.project.host or target.central:
            return None
        return ProjectAccess(project, own.admin_key)

    async def _recorded(self, entry: Entry) -> Mapping[str, str | None] | RotatorError:
        """What OpenAI calls the accounts of an entry, each asked for where the entry says that it is."""
        try:
            return {
                account.id: _name(await self.records.account(account.access, account.id))
                for account in accounts_of(entry)
                if account.id is not None
            }
        except RotatorError as error:
            return error

    def _still(self, case: Case, entry: Entry | Unreadable | None) -> Case:
        """The case with its present entry; a change since the evidence was gathered is trouble."""
        if entry == case.entry:
            return replace(case, entry=entry)
        message = "a run has changed its ledger entry meanwhile: adopt again"
        return replace(case, entry=entry, trouble=("Changed", message))

    def _by_hand_only_with_all_in_view(
        self, cases: list[Case], entries: Mapping[Ref, Entry | Unreadable]
    ) -> list[Case]:
        """Refuse accounts that a human names while a hidden object might name them as well."""
        hidden = [entry.name for entry in entries.values() if isinstance(entry, Unreadable)]
        unreadable = {case.ref for case in cases for claim in case.claims if claim.problem and claim.id is None}
        hidden += [str(case.ref) for case in cases if case.hidden or case.ref in unreadable]
        if not self.wanted.accounts or not hidden:
            return cases
        message = f"whose account it is cannot be told while {', '.join(sorted(hidden)[:3])} cannot be read"
        return [
            replace(case, trouble=("InvalidEvidence", message)) if case.asked and case.trouble is None else case
            for case in cases
        ]

    # --- recording

    async def _record(self, adoption: Adoption) -> Adoption:
        if adoption.after is None:
            return adoption
        try:
            await self.ledger.save(adoption.after)
        except Conflict:
            problem: tuple[str, str] | None = ("Changed", "a run has changed its ledger entry meanwhile: adopt again")
        except RotatorError as error:
            problem = (error.reason, f"the ledger was not written: {error.message}")
        else:
            problem = None
        if problem is None:
            return adoption
        reason, message = problem
        findings = tuple(
            replace(finding, verdict=Verdict.REFUSED, reason=reason, message=message)
            if finding.verdict is Verdict.RECORD
            else finding
            for finding in adoption.findings
        )
        return replace(adoption, findings=findings, after=None)


def _name(account: ListedAccount | None) -> str | None:
    return account.name if account is not None else None
