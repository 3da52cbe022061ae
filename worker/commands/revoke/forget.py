"""`revoke --forget`: OpenAI does not know an account's project any more, so nobody can delete the account or see it.

Guarantees: nothing is deleted or made.
An account goes from the ledger only if OpenAI denies the project twice: asked for its accounts, and asked for itself.
The account that the Secret names, or whose key it carries, stays: else nobody would know whose key that is.
An account on which a run may be working stays.
The entry and an Event keep what was forgotten, with ids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from worker.commands.revoke.dialogue import Untold, refusal, say
from worker.commands.revoke.plan import Forgotten, forgotten_notice
from worker.commands.revoke.words import forgotten_as_json, forgotten_text
from worker.commands.session import RunWorld, Session, Stages, World, open_ledger, wire_stages
from worker.errors import ConfigurationError, RotatorError, about
from worker.ledger import transitions
from worker.ledger.store import Ledger
from worker.model.entries import Account, Entry, Intent, Publication, accounts_of
from worker.model.hidden import redacted
from worker.model.outcomes import RunInfo
from worker.model.sightings import SecretView
from worker.model.times import format_time
from worker.model.values import Ref
from worker.plan.retirement import reachable
from worker.report.announce import Announcer, secret_source
from worker.runtime.stop import Stop
from worker.settings.options import Options


async def execute(session: Session) -> int:
    """Show what would be forgotten, ask, and forget it. Raises as `forget` does."""
    settings = session.settings
    (target,) = settings.wanted.targets
    stop = session.stop()
    async with session.world(stop) as world:
        shown = await forget(settings.options, target, world, stop=stop, write=False)
    say(forgotten_text(shown, done=False))
    if not shown.names and not settings.options.dry_run:
        if not settings.as_table:
            print(json.dumps(forgotten_as_json(shown)))
        return 1
    refused = refusal(dry_run=settings.options.dry_run, yes=settings.wanted.yes)
    if refused is not None:
        return refused
    # A new deadline, for the answer may have taken long.
    stop = session.stop()
    async with session.world(stop) as world:
        done = await forget(settings.options, target, world, stop=stop, write=True)
    print(redacted(forgotten_text(done, done=True) if settings.as_table else json.dumps(forgotten_as_json(done))))
    return 0 if done.complete else 1


async def forget(options: Options, target: Ref, world: World, *, stop: Stop, write: bool) -> Forgotten:
    """What can be forgotten; with `write` it is.

    Raises OutOfReach where cluster or ledger cannot be used, ConfigurationError where the ledger has no such entry.
    """
    ledger, running = await open_ledger(options, world)
    return await _Forgetting(replace(options, dry_run=False), target, running, ledger, stop).forget(write=write)


@dataclass(frozen=True, slots=True)
class _Forgetting:
    options: Options
    target: Ref
    world: RunWorld
    ledger: Ledger
    stop: Stop
    watcher: Untold = field(default_factory=Untold)

    async def forget(self, *, write: bool) -> Forgotten:
        stored = await self._entry()
        stages = self._stages(stored)
        entry, secret = await stages.context.observer.caught_up(stored)
        gone: list[Account] = []
        left: list[tuple[str, str]] = []
        answering: list[str] = []
        items: tuple[Publication | Intent, ...] = (*entry.history, *entry.unpublished)
        for item in items:
            account = reachable(entry, item.account)
            try:
                missing = await stages.context.projects.missing(account.access)
            except RotatorError as error:
                left.append((account.name, about(account.access, error)))
                continue
            obstacle = self._obstacle(item, secret) if missing else None
            if not missing:
                answering.append(account.name)
            elif obstacle is not None:
                left.append((account.name, obstacle))
            else:
                gone.append(account)
        result = Forgotten(self.target, tuple(gone), tuple(left), tuple(answering))
        if not write or not gone:
            return result
        names, now = set(result.names), self.world.clock.now()
        known = {account.name: account for account in gone}

        def without(entry: Entry) -> Entry:
            # Only what is recorded still: a run may have let it go meanwhile.
            present = [known[account.name] for account in accounts_of(entry) if account.name in names]
            return transitions.forgotten(entry, present, now)

        await self.ledger.update(entry, without)
        announcer = Announcer(self.world.cluster, self.world.clock)
        notes = await announcer.warn(secret_source(self.target), [forgotten_notice(result)])
        return replace(result, notes=tuple(notes))

    def _obstacle(self, item: Publication | Intent, secret: SecretView | None) -> str | None:
        """Why an account of a project that does not exist stays all the same."""
        account = item.account
        if isinstance(item, Intent) and item.claimed_until > self.world.clock.now():
            return f"a run may be working on it until {format_time(item.claimed_until)}"
        named = secret.named if secret is not None else None
        if secret is not None and (secret.carries(account) or (named is not None and named.name == account.name)):
            return (
                f"Secret {self.target} has its key still, which is dead: name a project that exists in the generator, "
                "or delete the Secret; the next run replaces or drops the key, and then it can be forgotten"
            )
        return None

    async def _entry(self) -> Entry:
        entry = await self.ledger.read(self.target)
        if entry is None:
            raise ConfigurationError("NoEntry", f"the ledger has no entry for {self.target}, and so no account")
        if entry.ledger != self.ledger.uid:
            message = f"the entry of {self.target} is another installation's: see `openai-key-rotator adopt`"
            raise ConfigurationError("ForeignLedger", message)
        return entry

    def _stages(self, entry: Entry) -> Stages:
        info = RunInfo(self.world.clock.now(), self.ledger.uid)
        return wire_stages(
            # A human asks: OpenAI is asked now, also where it asked earlier runs to wait.
            replace(self.options, force=True),
            self.world,
            run=info,
            ledger=self.ledger,
            entries={entry.target: entry},
            stop=self.stop,
            watcher=self.watcher,
        )
