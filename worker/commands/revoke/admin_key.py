"""`revoke --admin-secret`: an admin key beside the ledger leaked. A new one first, then the former ones at once.

Guarantees: without a new key, published and working, nothing is deleted; only keys are deleted that the ledger records
for this Secret. What another run is replacing is left until its claim has ended. A revocation that was interrupted is
simply done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from worker.commands.revoke.dialogue import Untold, refusal, say
from worker.commands.session import Session, Stages, World, open_ledger, wire_stages
from worker.discover.admin_keys import named_admin_keys
from worker.errors import ConfigurationError, RotatorError, Unanswered
from worker.kubernetes.secret import SECRETS
from worker.ledger.admin_transitions import caught_up
from worker.ledger.transitions import LISTS_APART
from worker.model.admin_keys import AdminEntry, AdminSecretView
from worker.model.hidden import redacted
from worker.model.outcomes import Notice, Result, RunInfo
from worker.model.targets import Source
from worker.model.times import format_time
from worker.model.values import JSON
from worker.observe.admin_keys import SeenAdminKey
from worker.plan.admin_rotation import LATE_WRITES, unsettled
from worker.retire.admin_retirement import AdminRetired
from worker.runtime.stop import Stop
from worker.settings.options import Options

_PAUSE = 2.0
"""Seconds between two looks at whether another run has ended its work on the key."""


@dataclass(frozen=True, slots=True)
class AdminKeyPlan:
    """What goes: names and ids of the recorded keys, the current one last. `unrecorded`: nobody knows that one yet.

    `elsewhere`: the places beside the ledger that have one of them too.
    """

    secret: str
    keys: tuple[tuple[str, str], ...]
    unrecorded: bool
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AdminKeyRevoked:
    """The result. `successor`: the new key's name; None: there is none, and `why_none` says why."""

    secret: str
    successor: str | None
    why_none: str | None = None
    deleted: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return self.successor is not None and not self.left


async def execute(session: Session, secret: str) -> int:
    """Show what goes, ask, and revoke. Raises as `revoke_admin_key` does."""
    settings = session.settings
    stop = session.stop()
    async with session.world(stop) as world:
        say(plan_text(await plan_admin_key(settings.options, secret, world, stop=stop)))
    refused = refusal(dry_run=settings.options.dry_run, yes=settings.wanted.yes)
    if refused is not None:
        return refused
    # A new deadline, for the answer may have taken long.
    stop = session.stop()
    async with session.world(stop) as world:
        done = await revoke_admin_key(settings.options, secret, world, stop=stop, say=say)
    print(redacted(result_text(done) if settings.as_table else json.dumps(as_json(done), indent=2)))
    return 0 if done.complete else 1


async def plan_admin_key(options: Options, secret: str, world: World, *, stop: Stop) -> AdminKeyPlan:
    """What would go. Raises ConfigurationError where no option names the Secret, RotatorError where it is not read."""
    revocation = await _revocation(options, secret, world, stop, lambda _: None)
    seen = await revocation.seen()
    entry = seen.entry if isinstance(seen.entry, AdminEntry) else None
    digest = seen.view.value.digest() if isinstance(seen.view, AdminSecretView) else ""
    keys = sorted(entry.history, key=lambda key: key.superseded_at is None) if entry is not None else []
    known = any(key.digest == digest for key in keys)
    places = revocation.stages.admin_rotation.observer.digests
    having = {place for doomed in (digest, *(key.digest for key in keys)) for place in places.get(doomed, ())}
    elsewhere = tuple(sorted(having - {f"Secret {seen.named.ref.secret}"}))
    return AdminKeyPlan(secret, tuple((key.name, key.id) for key in keys), not known, elsewhere)


async def revoke_admin_key(
    options: Options, secret: str, world: World, *, stop: Stop, say: Callable[[str], None]
) -> AdminKeyRevoked:
    """Replace the key, and delete the former ones. `say` hears what is waited for. Raises as the plan does."""
    return await (await _revocation(options, secret, world, stop, say)).revoke()


async def _revocation(
    options: Options, secret: str, world: World, stop: Stop, say: Callable[[str], None]
) -> _Revocation:
    ledger, running = await open_ledger(options, world)
    untold = Untold()
    info = RunInfo(running.clock.now(), ledger.uid, force=True, repeat=True)
    options = replace(options, force=True, dry_run=False)
    stages = wire_stages(options, running, run=info, ledger=ledger, entries={}, stop=stop, watcher=untold)
    return _Revocation(options, secret, stages, say, untold)


@dataclass(frozen=True, slots=True)
class _Revocation:
    options: Options
    secret: str
    stages: Stages
    say: Callable[[str], None]
    untold: Untold = field(default_factory=Untold)

    async def seen(self) -> SeenAdminKey:
        """The Secret and its entry now. Raises the error of reading either."""
        named = named_admin_keys(self.options)
        for seen in await self.stages.admin_rotation.observer.all_of(named):
            if seen.named.secret == self.secret:
                if isinstance(seen.view, RotatorError):
                    raise seen.view
                if isinstance(seen.entry, RotatorError):
                    raise seen.entry
                return seen
        message = (
            f"no option names the Secret {self.secret!r} beside the ledger: repeat the overlay's --fallback-admin-key "
            "and --central-admin-keys"
        )
        raise ConfigurationError("AdminKeyNotNamed", message)

    async def revoke(self) -> AdminKeyRevoked:
        seen = await self._settled()
        try:
            outcome = await self.stages.admin_rotation.rotate(seen, forced=True)
        except RotatorError as error:
            return AdminKeyRevoked(self.secret, None, f"{error.reason}: {error.message}")
        if outcome is None or outcome.result is not Result.ROTATED:
            why = "nothing asks for it" if outcome is None else f"{outcome.reason}: {outcome.message}"
            return AdminKeyRevoked(self.secret, None, why)
        retired = AdminRetired()
        try:
            retired = await self.stages.admin_retirement.retire(seen.named, early=True)
        except RotatorError as error:
            retired.problems.append(error)
        left = [error.message for error in retired.problems]
        after = (await self.seen()).entry
        left += [
            f"{key.name or key.id} still lives" for key in (after.superseded if isinstance(after, AdminEntry) else ())
        ]
        deleted = ", ".join(retired.deleted) or "nothing"
        notice = Notice("Revoked", f"revoked by hand: {deleted} deleted; {outcome.key} is current")
        uid = seen.view.version.uid if isinstance(seen.view, AdminSecretView) else ""
        source = Source(SECRETS, "Secret", seen.named.ref.secret, uid)
        notes = await self.stages.context.announcer.warn(source, [notice])
        return AdminKeyRevoked(
            self.secret, outcome.key, None, tuple(retired.deleted), tuple(left), (*self.untold.problems, *notes)
        )

    async def _settled(self) -> SeenAdminKey:
        """The Secret once no other run works on it, and no earlier request's fate is open."""
        context, said = self.stages.context, False
        while True:
            seen = await self.seen()
            entry, now = seen.entry, context.now()
            if not isinstance(entry, AdminEntry) or not isinstance(seen.view, AdminSecretView):
                return seen
            if entry.claimed_until(now) is None:
                # Its run has died after the publication: the Secret carries the key, and nothing is open.
                entry = caught_up(entry, seen.view.value.digest(), now)
            intent = entry.intent
            if intent is None:
                return seen
            pause = _PAUSE
            if intent.claimed_until <= now:
                if unsettled(entry, now) is None:
                    until = format_time(intent.claimed_until + LATE_WRITES)
                    message = f"whether {intent.name} gets into the Secret is open until {until}: revoke again then"
                    raise Unanswered("Unsettled", message)
                await self.stages.admin_retirement.retire(seen.named)
                pause = LISTS_APART / timedelta(seconds=1) + 1
            if not said:
                self.say("an earlier run has not ended its work on it, or has died of it: waiting")
                said = True
            await context.stop.sleep(pause)
            if context.stop.reason is not None:
                raise Unanswered(context.stop.reason, "the key was not free until time ran out; try again")


def plan_text(plan: AdminKeyPlan) -> str:
    """What would be done, for people."""
    lines = [f"revoke the admin key in Secret {plan.secret}: a new one is made; then these are deleted at once:"]
    lines += [f"  {name or 'without a name'} ({id})" for name, id in plan.keys]
    if plan.unrecorded:
        lines.append("  the key that the Secret has now, which OpenAI's list has to tell first")
    lines += [f"{place} has one of them too: put the new key there afterwards" for place in plan.elsewhere]
    lines.append(
        "whoever else has one of them loses it, runs of the worker that are under way too; that is the purpose"
    )
    return "\n".join(lines)


def result_text(done: AdminKeyRevoked) -> str:
    """What was done, for people."""
    if done.successor is None:
        return (
            f"nothing was deleted, for there is no new key: {done.why_none}. Mend that and revoke again; or make a key "
            "in OpenAI's console, put it into the Secret, and delete the former one there"
        )
    lines = [f"Secret {done.secret} has a new admin key: {done.successor}"]
    if done.deleted:
        lines.append(f"deleted: {', '.join(done.deleted)}")
    lines += [f"not deleted: {why}; revoke again, or delete it in OpenAI's console" for why in done.left]
    lines += [f"could not be told to the cluster: {problem}" for problem in done.notes]
    return "\n".join(lines)


def as_json(done: AdminKeyRevoked) -> JSON:
    """The same as values."""
    return {
        "secret": done.secret,
        "complete": done.complete,
        "successor": done.successor,
        "whyNone": done.why_none,
        "deleted": list(done.deleted),
        "left": list(done.left),
        "notes": list(done.notes),
    }
