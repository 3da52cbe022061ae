"""Reconcile every target: observe, plan, rotate, and tell the cluster the outcome.

Guarantees: one target's failure stays its own.
The reconciler notes every decision in the ledger.
The reconciler never writes another installation's entry.
A dry run writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from worker.context import RunContext
from worker.discover.targets import Discovered
from worker.errors import Conflict, Deferred, RotatorError, about
from worker.kubernetes.secret import SECRETS, release_patch
from worker.ledger import holds, transitions
from worker.model.entries import Entry, Unreadable, current
from worker.model.outcomes import WOULD_ROTATE, Notice, Outcome, Result
from worker.model.sightings import SecretView
from worker.model.targets import ProjectAccess, Rejected, Source, Target
from worker.model.times import next_attempt
from worker.model.values import Ref
from worker.observe.observation import Observation
from worker.plan.decisions import NOT_DUE, Blocked, Decision, Keep, Restore, Rotate, Unable
from worker.plan.looking import presumed_secret, with_this_look, without_a_look
from worker.plan.reasons import HEALING
from worker.plan.rotation import decide
from worker.report.announce import FAILED, WIDENED, EventKind
from worker.report.health import IDLE, IN_USE, Health, mistaken
from worker.rotate.admin_keys import AdminKeys
from worker.rotate.restoration import restore
from worker.rotate.rotation import Rotation
from worker.runtime.for_each import Crash, Done, for_each

RECONCILE_SHARE = 2 / 3
"""The share of the run's time for reconciling: a slow tenant must not keep the others' accounts from going."""

LATE = transitions.CLAIM.total_seconds()
"""Seconds. Until then others leave a target alone whose key is being made."""

_LEFT_ALONE = ("InProgress", "ForeignLedger", "ForeignSecret", "SecretType", "SecretImmutable", "CopiedSecret")
"""Reasons for which the Secret itself is not touched."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class _Remark:
    """What a run says to an object that stands for no target: by its status, and by an Event where it has a reason."""

    source: Source
    health: Health | None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Reconciler:
    """`entries`: the ledger as it was before discovery. The reconciler drops each one it begins, to free memory."""

    context: RunContext
    entries: dict[Ref, Entry | Unreadable]
    rotation: Rotation
    admin_keys: AdminKeys
    under_way: set[Ref] = field(default_factory=set)
    """Targets that are being reconciled at the moment."""
    planned: set[Ref] = field(default_factory=set)
    """Targets that a dry run would rotate."""
    blind: set[ProjectAccess] = field(default_factory=set)
    """Admin keys and projects of which the run has said that they show no keys."""

    async def refuse(self, rejected: Collection[Rejected]) -> list[Outcome]:
        """Say why each of these sources has no target."""
        noted = {item.secret: item for item in reversed(tuple(rejected)) if item.secret is not None}

        async def one(item: Rejected) -> Outcome:
            outcome = Outcome(item.subject, Result.BLOCKED, item.reason, item.message, source=item.source)
            if item.secret is not None and noted[item.secret] is item:
                entry = self._entry(item.secret)
                if isinstance(entry, Entry) and not (transitions.was_suspended(entry) and item.reason == "NoGenerator"):
                    await self._note(
                        entry, entry.with_condition(False, item.reason, item.message, now=self.context.now())
                    )
            await self._announce(item.secret, outcome)
            return outcome

        return await self._for_each(rejected, one, lambda item: item.subject)

    async def remark(self, discovered: Discovered) -> None:
        """Tell generators that stand for no target: malformed ones their mistake, idle ones that they feed nothing.

        None of it is an outcome. Every run does so, for a repeated Event has the same name.
        """
        remarks = [
            *(
                # Near misses are ExternalSecrets, perhaps another controller's: their status is left alone.
                _Remark(item.source, mistaken(item) if item.source.kind == "OpenAI" else None, FAILED, item.message)
                for item in discovered.malformed
            ),
            *(_Remark(source, IDLE, IDLE.reason, IDLE.message) for source in discovered.idle),
            *(_Remark(source, IN_USE) for source in discovered.in_use),
        ]

        async def one(remark: _Remark) -> list[str]:
            announcer = self.context.announcer
            problems = await announcer.tell_health(remark.source, remark.health) if remark.health is not None else []
            kind: EventKind = "Warning" if remark.reason == FAILED else "Normal"
            notices = [Notice(remark.reason, remark.message)] if remark.reason else []
            return problems + await announcer.warn(remark.source, notices, kind=kind)

        for done in await for_each(
            [] if self.context.run.dry_run else remarks,
            one,
            slots=self.context.slots,
            stop=self.context.stop,
            tenant=lambda remark: remark.source.ref.namespace,
        ):
            for problem in [done.value.message] if isinstance(done.value, Crash) else done.value:
                self.context.watcher.not_announced(done.item.source.ref, problem)

    async def reconcile(self, targets: Collection[Target]) -> list[Outcome]:
        """Observe, plan and rotate each target.

        A tenant's projects take turns. In each project the target with the oldest attempt goes first.
        """

        def waited(target: Target) -> datetime:
            entry = self._entry(target.ref)
            return transitions.last_tried(entry) if isinstance(entry, Entry) else self.context.run.started_at

        return await self._for_each(_in_turn(sorted(targets, key=waited)), self._reconcile, lambda target: target.ref)

    async def _for_each(
        self, items: Collection[Item], work: Callable[[Item], Awaitable[Outcome]], subject: Callable[[Item], Ref]
    ) -> list[Outcome]:
        """Work on each; the watcher hears of each outcome at once."""

        def outcome(done: Done[Item, Outcome]) -> Outcome:
            if isinstance(done.value, Crash):
                return Outcome(subject(done.item), Result.FAILED, done.value.reason, done.value.message)
            return done.value

        finished = await for_each(
            items,
            work,
            slots=self.context.slots,
            stop=self.context.stop.for_stage(RECONCILE_SHARE),
            tenant=lambda item: subject(item).namespace,
            ended=lambda done: self.context.watcher.served(outcome(done)),
        )
        return [outcome(done) for done in finished]

    async def _reconcile(self, target: Target) -> Outcome:
        """Reconcile a target, and tell the cluster every outcome."""
        self.under_way.add(target.ref)
        try:
            return await self._announced(target)
        finally:
            self.under_way.discard(target.ref)

    async def _announced(self, target: Target) -> Outcome:
        entry, created = self._entry(target.ref), False
        self.entries.pop(target.ref, None)
        try:
            if isinstance(entry, Unreadable):
                message = f"ledger entry {entry.name} was edited: {entry.message}; put it right, or ask for help"
                outcome = Outcome(target.ref, Result.BLOCKED, "LedgerUnreadable", message, source=target.source)
            else:
                outcome, created = await self._rotate(target, entry)
        except Deferred as error:
            message = error.message + next_attempt(error.until)
            outcome = Outcome(target.ref, Result.FAILED, error.reason, message, error.until, source=target.source)
        except RotatorError as error:
            outcome = Outcome(target.ref, Result.FAILED, error.reason, error.message, source=target.source)
            if isinstance(entry, Entry):
                with suppress(RotatorError):
                    await self._note(
                        entry, entry.with_condition(False, error.reason, error.message, now=self.context.now())
                    )
        if isinstance(entry, Entry) and outcome.result in (Result.FAILED, Result.BLOCKED):
            outcome = replace(outcome, message=outcome.message + holds.soon_dead(entry, self.context.now()))
        await self._announce(target.ref, outcome, created=created)
        return outcome

    async def _rotate(self, target: Target, entry: Entry) -> tuple[Outcome, bool]:
        """Rotate a target, or note why not. Returns the outcome, and whether there was no Secret before."""
        seen, decision = await self._presume(target, entry)
        if seen is None:
            entry, seen = await self._observe(target, entry)
        self.admin_keys.used(target, entry.admin_key_ends_at)
        self._tell_blindness(target, seen)
        await self._narrow_again(target, seen)
        decision = decision or decide(target, seen, self.context.run, now=self.context.now())
        if isinstance(decision, Rotate) and not self.context.run.dry_run:
            begun = self.context.clock.instant()
            outcome = await self.rotation.rotate(target, seen, decision)
            if outcome.result is Result.KEPT:
                await self._note_what_is_there(target)
            if outcome.result is Result.ROTATED and self.context.clock.elapsed(begun) > LATE:
                outcome = await self._look_again(target) or outcome
        else:
            if isinstance(decision, Rotate):
                self.planned.add(target.ref)
            outcome, secret = _outcome(target, decision), seen.secret
            if isinstance(decision, Restore) and not self.context.run.dry_run:
                # The write has changed the resourceVersion: what follows goes by the Secret as it is then.
                secret = await restore(self.context, target, seen, decision)
            lives = seen.presumed or decision.reason in _LEFT_ALONE or await self._let_secret_live(target, secret)
            after = _with_decision(target, seen, decision, now=self.context.now())
            # A look counts only where nothing is left to do to the Secret.
            after = with_this_look(target, seen, decision, after, self.context.run) if lives else after
            if not await self._note(entry, after):
                await self._note_what_is_there(target)
        return outcome, seen.secret is None

    def _tell_blindness(self, target: Target, seen: Observation) -> None:
        """Say once for each admin key that dead keys cannot be seen with it."""
        access = target.generator.access
        if seen.blind is None or access in self.blind:
            return
        self.blind.add(access)
        problem = f"whether its key still works is not seen: {about(access, seen.blind)}"
        self.context.watcher.not_announced(target.ref, problem)

    async def _narrow_again(self, target: Target, seen: Observation) -> None:
        """Narrow keys again that somebody widened at OpenAI, and tell it."""
        if self.context.run.dry_run or target.suspended or seen.entry.ledger != self.context.ledger.uid:
            return
        for account in seen.widened:
            what = f"the key of account {account.name} could do more at OpenAI than {', '.join(account.scopes)}"
            try:
                narrowed, why = await self.context.projects.narrow_key(account), "OpenAI tells other scopes still"
            except RotatorError as error:
                narrowed, why = False, about(account.access, error)
            notice = Notice(WIDENED, f"{what}: somebody changed its scopes. It is narrowed to them again")
            if not narrowed:
                # It is in the Secret already, so nothing stops here: the next run tries again.
                notice = Notice(WIDENED, f"{what}, and is not narrowed again: {why}")
                self.context.watcher.not_announced(target.ref, notice.message)
            for problem in await self.context.announcer.warn(target.source, [notice]):
                self.context.watcher.not_announced(target.ref, problem)

    async def _look_again(self, target: Target) -> Outcome | None:
        """Heal a Secret that was written late: the machine slept, and others may have deleted the account meanwhile."""
        entry = await self.context.ledger.read(target.ref)
        if entry is None:
            return None
        seen = await self.context.observer.observe(target, entry)
        decision = decide(target, seen, self.context.run, now=self.context.now())
        if not isinstance(decision, Rotate) or decision.reason not in HEALING:
            return None
        return await self.rotation.rotate(target, seen, decision)

    async def _let_secret_live(self, target: Target, secret: SecretView | None) -> bool:
        """Take our owner reference from a Secret that is to outlive its source. False: it was changed meanwhile."""
        patch = release_patch(target, secret) if secret is not None else None
        if patch is None or self.context.run.dry_run:
            return True
        try:
            await self.context.cluster.patch(SECRETS, target.ref, patch)
        except Conflict:
            return False  # the next run looks again
        return True

    async def _presume(self, target: Target, entry: Entry) -> tuple[Observation | None, Decision | None]:
        """What is decided without a look at the Secret: that it is not due. None: it takes a look."""
        presumed = presumed_secret(target, entry, self.context.run, now=self.context.now())
        if presumed is None:
            return None, None
        seen = await self.context.observer.observe_presuming(target, entry, presumed)
        decision = decide(target, seen, self.context.run, now=self.context.now())
        return (seen, without_a_look(decision, entry)) if decision.reason == NOT_DUE else (None, None)

    async def _observe(self, target: Target, entry: Entry) -> tuple[Entry, Observation]:
        """Observe a target. Reads the entry again where the Secret names an account that the entry lacks."""
        seen = await self.context.observer.observe(target, entry)
        named = seen.secret.named if seen.secret is not None else None
        accounts = [publication.account.name for publication in seen.entry.history]
        if named is None or named.name in accounts or transitions.holds_intent(entry, named.name):
            return entry, seen
        # The entry is as old as this run, and another run may have rotated meanwhile.
        newer = await self.context.ledger.read(target.ref)
        if newer is None or newer.version == entry.version:
            return entry, seen
        return newer, await self.context.observer.observe(target, newer)

    def _entry(self, ref: Ref) -> Entry | Unreadable:
        return self.entries.get(ref) or Entry(ref, self.context.ledger.uid)

    async def _note(self, before: Entry, after: Entry) -> bool:
        """Store this run's decision, never in another installation's entry. False: another run has written it."""
        if self.context.run.dry_run or before.ledger != self.context.ledger.uid:
            return True
        try:
            await self.context.ledger.save(after)
        except Conflict:
            return False
        return True

    async def _note_what_is_there(self, target: Target) -> None:
        """Note what the Secret carries in the entry that another run has just written.

        Somebody may have put back the key that the other run replaced: this run has seen it there, and nobody else.
        """
        entry = await self.context.ledger.read(target.ref)
        if entry is None or entry.ledger != self.context.ledger.uid:
            return
        if entry.claimed_until(self.context.now()) is not None:
            return  # the other run is at work, and looks itself
        seen, _ = await self.context.observer.caught_up(entry)
        with suppress(Conflict):
            await self.context.ledger.save(seen)

    async def _announce(self, secret: Ref | None, outcome: Outcome, *, created: bool = False) -> None:
        if self.context.run.dry_run or outcome.source is None:
            return
        for problem in await self.context.announcer.announce(outcome.source, secret, outcome, created=created):
            self.context.watcher.not_announced(outcome.target, problem)


def _in_turn(targets: Iterable[Target]) -> list[Target]:
    """The same targets, but a namespace's projects take turns: the first of each, then the second of each, …"""
    seen: Counter[tuple[str, ProjectAccess]] = Counter()
    places: list[tuple[int, Target]] = []
    for target in targets:
        project = (target.ref.namespace, target.generator.access)
        places.append((seen[project], target))
        seen[project] += 1
    return [target for _, target in sorted(places, key=lambda place: place[0])]


def _outcome(target: Target, decision: Decision) -> Outcome:
    """The outcome of a decision that ends a target's part in this run."""
    results = {
        Rotate: Result.KEPT,
        Restore: Result.KEPT,
        Keep: Result.KEPT,
        Blocked: Result.BLOCKED,
        Unable: Result.FAILED,
    }
    next_at = None
    if isinstance(decision, Keep | Restore):
        next_at = decision.next_at
    elif isinstance(decision, Unable):
        next_at = decision.until
    reason = WOULD_ROTATE if isinstance(decision, Rotate) else decision.reason
    return Outcome(target.ref, results[type(decision)], reason, decision.message, next_at, source=target.source)


def _with_decision(target: Target, seen: Observation, decision: Decision, *, now: datetime) -> Entry:
    """The entry with the result of a decision other than to rotate."""
    entry = transitions.scheduled(transitions.with_throttle(seen.entry, seen.trouble), target)
    if isinstance(seen.trouble, Deferred) and isinstance(decision, Unable):
        asked = seen.trouble.throttle is not None
        return transitions.postponed(entry, decision.reason, decision.message, now=now) if asked else seen.entry
    if isinstance(decision, Unable) and decision.until is not None:
        return entry  # a pause: the condition is still that of the failure
    if isinstance(decision, Blocked | Unable):
        return entry.with_condition(False, decision.reason, decision.message, now=now)
    if decision.reason == "InProgress":
        return seen.entry
    if seen.trouble is None:
        entry = replace(entry, throttle=None)  # OpenAI has answered
    if decision.reason == "Suspended":
        ready = current(entry) is not None
        return replace(entry, next_rotation_at=None).with_condition(ready, decision.reason, decision.message, now=now)
    return transitions.healthy(entry, now)
