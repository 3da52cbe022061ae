"""`revoke`: a target's keys are compromised. A new key first, then all its other accounts at once, whoever holds them.

Guarantees: `plan` writes nothing; only accounts are deleted that the ledger records for this target; without a new key
nothing is deleted, unless that was asked for; an account on which another run may be working is left to the next run. A
revocation that was interrupted is simply done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from worker.commands.revoke.dialogue import Untold, refusal, say
from worker.commands.revoke.plan import DoomedAccount, Plan, Revoked, doomed_account, notice_of
from worker.commands.revoke.words import as_json, plan_text, result_text
from worker.commands.session import RunWorld, Session, Stages, World, open_ledger, wire_stages
from worker.discover.listing import discover
from worker.errors import ConfigurationError, ConsumersUnseen, Refused, RotatorError, Unanswered
from worker.ledger import transitions
from worker.ledger.store import Ledger
from worker.model.entries import Entry, Intent, Publication, current
from worker.model.hidden import redacted
from worker.model.outcomes import RunInfo
from worker.model.sightings import Consumer
from worker.model.targets import Rejected, Source, Target
from worker.model.times import format_time
from worker.model.values import Ref
from worker.observe.consumers import Pods
from worker.plan.bounds import MOST_ACCOUNTS
from worker.plan.retirement import reachable
from worker.report.announce import Announcer, secret_source
from worker.retire.deletion import AccountDeleter, SecretSnapshot
from worker.runtime.stop import Stop
from worker.settings.options import Options

_PAUSE = 2.0
"""Seconds between two looks at whether another run has ended its work on the target."""
_ATTEMPTS = 3


async def execute(session: Session) -> int:
    """Show the plan, ask, and revoke. Raises as `revoke` does."""
    settings = session.settings
    (target,) = settings.wanted.targets
    options, without = settings.options, settings.without_successor
    stop = session.stop()
    async with session.world(stop) as world:
        say(plan_text(await plan(options, target, world, stop=stop, without_successor=without)))
    refused = refusal(dry_run=options.dry_run, yes=settings.wanted.yes)
    if refused is not None:
        return refused
    # A new deadline, for the answer may have taken long.
    stop = session.stop()
    async with session.world(stop) as world:
        revoked = await revoke(options, target, world, stop=stop, say=say, without_successor=without)
    print(redacted(result_text(revoked) if settings.as_table else json.dumps(as_json(revoked), indent=2)))
    return 0 if revoked.complete else 1


async def plan(options: Options, target: Ref, world: World, *, stop: Stop, without_successor: bool = False) -> Plan:
    """What `revoke` would do now; nothing is written.

    Raises OutOfReach where cluster or ledger cannot be used, ConfigurationError where the ledger has nothing to revoke.
    """
    revocation = await _revocation(
        options, target, world, stop=stop, without_successor=without_successor, say=lambda _: None
    )
    entry = await revocation.entry()
    _, _, obstacle = await revocation.target_of()
    return await revocation.plan(entry, obstacle)


async def revoke(
    options: Options,
    target: Ref,
    world: World,
    *,
    stop: Stop,
    say: Callable[[str], None],
    without_successor: bool = False,
) -> Revoked:
    """Revoke a target's keys. `say` hears what is waited for. Raises as `plan` does."""
    return await (
        await _revocation(options, target, world, stop=stop, without_successor=without_successor, say=say)
    ).revoke()


async def _revocation(
    options: Options, target: Ref, world: World, *, stop: Stop, without_successor: bool, say: Callable[[str], None]
) -> _Revocation:
    ledger, running = await open_ledger(options, world)
    options = replace(options, force=True, dry_run=False, namespaces=(target.namespace,))
    return _Revocation(options, target, without_successor, running, ledger, stop, say)


@dataclass(frozen=True, slots=True)
class _Revocation:
    options: Options
    target: Ref
    without_successor: bool
    world: RunWorld
    ledger: Ledger
    stop: Stop
    say: Callable[[str], None]
    untold: Untold = field(default_factory=Untold)

    async def revoke(self) -> Revoked:
        entry = await self.entry()
        target, source, obstacle = await self.target_of()
        successor, why_none = (await self._successor(target)) if target is not None else (None, obstacle)
        if successor is None and not self.without_successor:
            return Revoked(await self.plan(entry, obstacle), why_none=why_none)
        stored = await self.entry()
        plan = await self.plan(stored, obstacle if successor is not None else why_none, spared=successor)
        revoked = replace(
            await self._delete(stored, plan, successor, why_none=why_none), successor=successor, why_none=why_none
        )
        if revoked.deleted:
            announcer = Announcer(self.world.cluster, self.world.clock)
            self.untold.problems += await announcer.warn(source or secret_source(self.target), [notice_of(revoked)])
        return replace(revoked, notes=tuple(self.untold.problems))

    # --- what there is

    async def entry(self) -> Entry:
        ref = self.target
        entry = await self.ledger.read(ref)
        if entry is None:
            message = f"the ledger has no entry for {ref}, and so no account: see `openai-key-rotator adopt`"
            raise ConfigurationError("NoEntry", message)
        if entry.ledger != self.ledger.uid:
            message = f"the entry of {ref} is another installation's: see `openai-key-rotator adopt {ref}`"
            raise ConfigurationError("ForeignLedger", message)
        return entry

    async def target_of(self) -> tuple[Target | None, Source | None, str | None]:
        """Who asks for the Secret; where no key can be made for it, why. That it is suspended is no reason not to."""
        ref = self.target
        found = await discover(self.world.cluster, self.options, partly=True)
        if found.unlisted is not None and (await self.entry()).generator.source != "OpenAI":
            return None, None, f"ExternalSecrets cannot be listed: {found.unlisted.message}"
        target = next((target for target in found.targets if target.ref == ref), None)
        if target is not None:
            return replace(target, suspended=False), target.source, None
        rejected: Rejected | None = next((item for item in found.rejected if item.secret == ref), None)
        if rejected is not None:
            return None, rejected.source, f"{rejected.reason}: {rejected.message}"
        return None, None, "nothing asks for this Secret any more"

    async def plan(self, entry: Entry, obstacle: str | None, *, spared: str | None = None) -> Plan:
        """What goes, and who has it. `spared`: the new account, which stays."""
        ref, now = self.target, self.world.clock.now()
        entry, secret = await self._stages(entry).context.observer.caught_up(entry)
        consumers: tuple[Consumer, ...] = ()
        blind = False
        try:
            pods = Pods(self.world.cluster, self.world.clock, {ref.namespace: frozenset({ref.name})})
            consumers = await pods.consumers(ref)
        except ConsumersUnseen:
            blind = True
        stays = secret is not None and obstacle is None
        history = [publication for publication in entry.history if publication.account.name != spared]
        doomed = [doomed_account(publication, consumers, now, stays=stays) for publication in history]
        asked = [intent.account for intent in entry.unpublished]
        doomed += [DoomedAccount(a.name, a.id, False, (), (), a.key_id, a.access.project.id) for a in asked]
        following = sorted({consumer.name for consumer in consumers if consumer.follows})
        return Plan(ref, tuple(doomed), tuple(following), blind, obstacle, self.without_successor)

    # --- a new key

    async def _successor(self, target: Target) -> tuple[str | None, str | None]:
        """Rotate; the name of the new account, or why there is none."""
        for _ in range(_ATTEMPTS):
            before = await self._unclaimed()
            stages = self._stages(before)
            (outcome,) = await stages.reconciler.reconcile([target])
            if outcome.reason != "InProgress":
                break
        if outcome.reason == "LedgerNotWritten":
            await self._unclaimed()  # the key is in the Secret; what notes it there respects the claim
        names = {p.account.name for p in before.history} | {i.account.name for i in before.unpublished}
        after, _ = await stages.context.observer.caught_up(await self.entry())
        publication = current(after)
        if publication is not None and publication.account.name not in names:
            return publication.account.name, None
        return None, f"{outcome.reason}: {outcome.message}"

    async def _unclaimed(self) -> Entry:
        """The entry, once no other run works on the target: that takes seconds, or, where it has died, minutes."""
        said = False
        while True:
            entry = await self.entry()
            claim = entry.claimed_until(self.world.clock.now())
            if claim is None:
                return entry
            if not said:
                self.say(
                    f"a run is working on it, or has died of it, until {format_time(claim)} at the latest: waiting"
                )
                said = True
            await self.stop.sleep(_PAUSE)
            if self.stop.reason is not None:
                raise Unanswered(
                    self.stop.reason, "another run was working on the target until time ran out; try again"
                )

    # --- the others go

    async def _delete(self, stored: Entry, plan: Plan, successor: str | None, *, why_none: str | None) -> Revoked:
        """Delete all accounts but the new one, and say so in the ledger: those that are gone, those that are not."""
        stages = self._stages(stored)
        deletion = AccountDeleter(stages.context.projects, stages.context.observer, self.world.clock)
        entry, snapshot = await deletion.look(stored)
        deleted: list[Publication | Intent] = []
        left: list[tuple[str, str]] = []
        items: tuple[Publication | Intent, ...] = (*entry.history, *entry.unpublished)
        for item in (item for item in items if item.account.name != successor):
            name = item.account.name
            if isinstance(item, Intent) and item.claimed_until > self.world.clock.now():
                until = format_time(item.claimed_until)
                left.append((name, f"a run may be working on it until {until}; the run after that deletes it"))
                continue
            item = replace(item, account=reachable(entry, item.account))
            try:
                gone = await self._gone(item, stages, deletion, snapshot=snapshot, spared=successor is not None)
            except RotatorError as error:
                left.append((name, error.message))
                continue
            if gone:
                deleted.append(item)
            elif gone is False:
                left.append(
                    (name, "it is in the Secret again, or OpenAI does not confirm that it is gone: revoke again")
                )
        if left:
            # What was seen last counts: somebody may have put an account back into the Secret meanwhile.
            entry, _ = await stages.context.observer.caught_up(entry)
        await self.ledger.update(entry, lambda entry: self._without(entry, deleted, successor, why_none=why_none))
        names = [item.account.name for item in deleted]
        before = current(entry)
        kept = before.account.name if before is not None and before.account.name not in names else None
        return Revoked(plan, kept=kept if successor is None else None, deleted=tuple(names), left=tuple(left))

    async def _gone(
        self,
        item: Publication | Intent,
        stages: Stages,
        deletion: AccountDeleter,
        *,
        snapshot: SecretSnapshot,
        spared: bool,
    ) -> bool | None:
        """Delete what an item's request made: is all of it gone? None: it made nothing that OpenAI knows of."""
        try:
            ids = await deletion.ids(item)
            return await deletion.all_of(item, ids, snapshot, spared=spared, early=True) if ids else None
        except Refused as error:
            if await stages.context.projects.archived(item.account.access, error):
                return True
            raise

    def _without(
        self, entry: Entry, deleted: list[Publication | Intent], successor: str | None, *, why_none: str | None
    ) -> Entry:
        """The entry without what is gone. Until all has appeared that a request may have made it stays recorded."""
        now = self.world.clock.now()
        settled = [item for item in deleted if (item.requested_at or now) + transitions.CLAIM <= now]
        entry = transitions.released(entry, [item.account.name for item in settled])
        if successor is not None:
            return transitions.healthy(transitions.restart_urgently(entry), now)
        before = current(entry)
        if before is not None and all(item.account.name != before.account.name for item in deleted):
            return entry  # its key works
        return entry.with_condition(
            False, "Revoked", f"its keys were revoked; there is no new one: {why_none}", now=now
        )

    def _stages(self, entry: Entry) -> Stages:
        world = self.world
        info = RunInfo(world.clock.now(), self.ledger.uid, force=True, repeat=True, max_accounts=MOST_ACCOUNTS)
        return wire_stages(
            self.options,
            world,
            run=info,
            ledger=self.ledger,
            entries={entry.target: entry},
            stop=self.stop,
            watcher=self.untold,
        )
