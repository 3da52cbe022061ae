"""Give one target a new key: intent, mint, narrow, verify, publish, record.

Guarantees: I1 a run records an account before it requests it, and requests it within seconds.
I2 one PATCH writes key and name, under the Secret's resourceVersion and within the claim.
A run requests a name once.
A run publishes no key that OpenAI does not accept, and none that may do more than its target asks for.
Rotation undoes nothing: the ledger records unpublished accounts, and retirement retires them.
"""

from __future__ import annotations

import asyncio
import string
from dataclasses import dataclass, replace
from datetime import datetime

from worker.context import RunContext
from worker.errors import (
    EXISTS,
    Conflict,
    Deferred,
    Forbidden,
    NotFound,
    NotSent,
    Refused,
    RotatorError,
    ScopesRefused,
    Throttled,
    Unanswered,
    about,
)
from worker.kubernetes.denials import OWNERS_FORBIDDEN
from worker.kubernetes.secret import MANAGED, SECRETS, key_patch
from worker.ledger import transitions
from worker.model.entries import Account, Entry, Failures, Intent, NodeThen, current
from worker.model.hidden import Hidden
from worker.model.outcomes import Outcome, Result
from worker.model.sightings import MintedKey, SecretView
from worker.model.targets import Target
from worker.model.times import next_attempt
from worker.model.values import JSON, Ref
from worker.observe.consumers import FreshPods
from worker.observe.observation import Observation
from worker.plan.decisions import Rotate
from worker.plan.holders import nodes_then
from worker.plan.reasons import DEAD, is_repeated
from worker.plan.rotation import decide
from worker.ports import OpenAIAdmin, Randomness
from worker.runtime.clocks import Instant

INTENT_FRESH_FOR = 5.0
"""Seconds for which a run relies on an intent that it has just written, without asking again."""
WORK = 135.0
"""Seconds after the intent within which the key must be on its way into the Secret: create (30), narrow (30 where
scopes are asked for), verify (60), and conflicts on the way."""
WRITING = 30.0
"""Seconds for one write of the Secret with its retries. Work and writing end well within `transitions.CLAIM`."""
VERIFYING = 60.0
"""Seconds until a run gives up a key that OpenAI does not accept."""
NARROWING = 30.0
"""Seconds until a run gives up a key whose scopes OpenAI does not confirm."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
LOOKING_AT_PODS = 10.0
"""Seconds for the list of pods right after a change: without it the old account is held for longer."""
_ATTEMPTS = 3
_REFUSALS = 9
"""How often a target that OpenAI asks to slow down tries again, while others are served: else the key is left alone."""
_ALPHABET = string.ascii_letters + string.digits


class Abandoned(RotatorError):
    """The target changed while a run made its key: the plan does not hold any more."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """An intent, the monotonic time of its write, and the answer to the request for its account."""

    entry: Entry
    account: Account
    written_at: Instant
    answer: MintedKey | RotatorError


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotates one target at a time. A waiting rotation lends its slot to others."""

    context: RunContext
    openai: OpenAIAdmin
    random: Randomness
    pods: FreshPods

    async def rotate(self, target: Target, seen: Observation, why: Rotate) -> Outcome:
        """Rotate a target. Raises the errors of writing the intent, and Deferred while OpenAI's pause runs."""
        # A policy may keep us from a Secret that is not ours, so there even the first attempt rehearses.
        if seen.entry.failures.count or not labelled(seen.secret):
            refused = await self._rehearse(target, seen)
            if refused is not None:
                entry = transitions.postponed(seen.entry, refused.reason, refused.message, now=self.context.now())
                return self._failure(target, refused, await self.context.ledger.save(entry))
        try:
            asked = await self._begin(target, seen.entry)
        except Conflict:
            return Outcome(target.ref, Result.KEPT, "InProgress", "another run has just begun to work on it")
        entry, minted = asked.entry, asked.answer
        if isinstance(minted, RotatorError):
            return await self._give_up(target, entry, asked.account.name, known=None, error=minted)
        known = minted.account
        try:
            _must_fit(target, minted.value)
            await self._narrow(known)
            await self._verify(target, minted, asked.written_at)
            at = await self._publish(target, seen, entry, minted=minted, written_at=asked.written_at)
        except RotatorError as error:
            return await self._give_up(target, entry, known.name, known=known, error=error)
        return await self._record(target, entry, known, why=why, at=at, nodes=await self._nodes(target, entry))

    # --- the steps

    async def _begin(self, target: Target, entry: Entry) -> _Asked:
        """Write the intent and ask for its account."""
        admin_key = await self.context.projects.admin_key(target.generator.access.admin_key)
        asked = await self._ask(target, entry, admin_key)
        for _ in range(_REFUSALS):
            if not isinstance(asked.answer, Deferred):
                break
            # OpenAI made nothing: after the pause the run writes another intent, with another name.
            entry = transitions.given_up(
                asked.entry, _intent(asked.entry, asked.account.name), None, now=self.context.now()
            )
            try:
                asked = await self._ask(target, entry, admin_key)
            except Deferred:
                break
        return asked

    async def _ask(self, target: Target, entry: Entry, admin_key: Hidden) -> _Asked:
        """Intent and request in one turn: all waiting comes first (I1). Raises Deferred where there is no turn."""
        account = Account(
            self._name(target),
            target.generator.access,
            data_key=target.data_key if target.template is None else None,
            scopes=target.key_scopes,
            rendered=target.template.rendered(None) if target.template is not None else None,
        )
        async with self.context.limiter.turn(account.access, admin_key, kind="create"):
            entry, written_at = await self._intend(target, entry, account)
            try:
                return _Asked(entry, account, written_at, await self._mint(target, account, admin_key))
            except RotatorError as error:
                return _Asked(entry, account, written_at, error)

    async def _intend(self, target: Target, entry: Entry, account: Account) -> tuple[Entry, Instant]:
        """Write the intent, again while that takes too long (I1). Returns the entry and the monotonic time."""
        for _ in range(_ATTEMPTS):
            begun, now = self.context.clock.instant(), self.context.now()
            intended = transitions.intended(
                entry, target, account, run=self.context.run, requested_at=now, claimed_until=now + transitions.CLAIM
            )
            before, entry = entry.version, await self.context.ledger.save(intended)
            # A write that would change nothing is not sent: the intent is as old as the one before then.
            if self.context.clock.elapsed(begun) <= INTENT_FRESH_FOR and entry.version != before:
                return entry, begun
            # The machine may have slept: hear the API server's time before the intent gets another one.
            await self.context.ledger.read(target.ref)
        raise Unanswered(
            "TooSlow", f"nothing is asked for while writing the ledger takes over {INTENT_FRESH_FOR:.0f} s"
        )

    async def _mint(self, target: Target, account: Account, admin_key: Hidden) -> MintedKey:
        access, lifetime = account.access, target.key_lifetime
        asked_at = self.context.now()
        made = await self.context.limiter.send(
            access,
            admin_key,
            lambda: self.openai.create_account(access.project, admin_key, account.name, lifetime=lifetime),
            kind="create",
        )
        # Without a time from OpenAI: too early is safe, too late is not.
        # A new key cannot have ended: such a time is none, and renewing it would go on for ever.
        told = made.expires_at if made.expires_at is not None and made.expires_at > asked_at else None
        expires = told or (asked_at + lifetime if lifetime is not None else None)
        known = replace(account, id=made.id, key_id=made.key_id, expires_at=expires, key_digest=made.value.digest())
        if target.template is not None:
            known = replace(known, rendered=target.template.rendered(made.value))
        return MintedKey(known, made.value)

    async def _narrow(self, account: Account) -> None:
        """Have OpenAI restrict the key to the scopes asked for, before anybody but this run has it.

        A run that dies before, in between or right after leaves an unpublished account: retirement deletes it by the
        ledger, whatever its key may do. A change whose fate is unknown is made again, for it is the same change.
        """
        if not account.scopes:
            return
        begun, pause = self.context.clock.instant(), _FIRST_PAUSE
        while True:
            failure: RotatorError
            try:
                if await self.context.projects.narrow_key(account):
                    return
                # A replica that is behind may tell the scopes of before.
                message = f"OpenAI tells other scopes of the key than it was asked for: {', '.join(account.scopes)}"
                failure = ScopesRefused("ScopesRefused", message)
            except (NotFound, Unanswered) as error:
                # One that is behind may not know so new a key. Definite, although the answer is missing: this run
                # does not publish the key.
                message = f"OpenAI did not confirm the new key's scopes within {NARROWING:.0f} s: {error.message}"
                failure = Refused("KeyNotNarrowed", message)
            except Refused as error:
                if isinstance(error, Throttled) or error.reason == "OpenAIUnauthorized":
                    raise  # without that admin key no account is made next time either
                raise ScopesRefused(error.reason, error.message, status=error.status) from None
            if self.context.clock.elapsed(begun) + pause > NARROWING:
                raise failure
            await self.context.slots.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _verify(self, target: Target, minted: MintedKey, written_at: Instant) -> None:
        """Wait until OpenAI accepts the key, and lend the slot to others between the attempts."""
        host, pause = minted.account.access.project.host, _FIRST_PAUSE
        begun = self.context.clock.instant()
        last = "answered 401"
        while True:
            try:
                if await self.openai.key_accepted(host, minted.value):
                    return
            except (Unanswered, Throttled) as error:
                last = error.message
                if isinstance(error, Throttled):
                    pause = max(pause, error.retry_after or 0.0)
            clock = self.context.clock
            if clock.elapsed(begun) + pause > VERIFYING or clock.elapsed(written_at) + pause > WORK:
                raise Refused("KeyNotAccepted", f"OpenAI did not accept the new key within {VERIFYING:.0f} s: {last}")
            await self.context.slots.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _publish(
        self, target: Target, seen: Observation, entry: Entry, *, minted: MintedKey, written_at: Instant
    ) -> datetime:
        """Write key and annotation in one PATCH. Returns the time of the API server's answer.

        After a conflict it reads and plans the target again before it writes this key.
        """
        secret, name = seen.secret, minted.account.name
        for _ in range(_ATTEMPTS):
            await self._still_ours(target, name, written_at)
            try:
                return await self._write(target, secret, entry, minted=minted)
            except (Conflict, NotFound):
                if await self._is_in_place(target, minted.account):
                    # Something on the way has sent the write twice: the conflict was with itself.
                    return self.context.now()
                again = await self._plan_again(target, entry, name)
                if secret is None and again is None:
                    message = f"Secret {target.ref} cannot be read, and exists: something hides it from the worker"
                    raise Abandoned("SecretHidden", message) from None
                secret = again
            except NotSent:
                raise
            except Unanswered:
                if await self._is_in_place(target, minted.account):
                    return self.context.now()
                raise
        raise Abandoned("Conflict", f"Secret {target.ref} is being changed by others: the next run tries again")

    async def _nodes(self, target: Target, entry: Entry) -> tuple[NodeThen, ...] | None:
        """The nodes whose pods refer to the Secret now, right after it changed; None: unknown, or nobody asks."""
        if current(entry) is None:
            return None
        try:
            async with asyncio.timeout(LOOKING_AT_PODS):
                consumers = await self.pods.consumers(target.ref)
        except TimeoutError:
            return None
        return nodes_then(consumers) if consumers is not None else None

    async def _record(
        self,
        target: Target,
        entry: Entry,
        account: Account,
        *,
        why: Rotate,
        at: datetime,
        nodes: tuple[NodeThen, ...] | None,
    ) -> Outcome:
        """Note the Secret's new account in the ledger. Where that fails the next run reads it from the Secret."""

        def recorded(entry: Entry) -> Entry:
            published = transitions.published(entry, account, self.context.run.started_at, at=at, nodes_then=nodes)
            if is_repeated(why):
                published = transitions.healed(published, at)
            if why.reason in DEAD:
                published = transitions.restart_urgently(published)
            return transitions.healthy(transitions.scheduled(published, target), at)

        try:
            entry = await self.context.ledger.update(entry, recorded)
        except RotatorError as error:
            message = f"the key was published, but not yet noted in the ledger ({error.message}): the next run does"
            failed = Outcome(target.ref, Result.FAILED, "LedgerNotWritten", message, source=target.source)
            return _about_key(failed, account)
        rotated = Outcome(
            target.ref,
            Result.ROTATED,
            why.reason,
            f"{why.message}: account {account.name} published",
            entry.next_rotation_at,
            source=target.source,
        )
        return _about_key(rotated, account)

    # --- what the steps need

    def _name(self, target: Target) -> str:
        random = "".join(self.random.choices(_ALPHABET, k=target.generator.name_size))
        prefix = target.generator.name_prefix
        return f"{prefix}_{random}" if prefix else random

    async def _still_ours(self, target: Target, name: str, written_at: Instant) -> None:
        """The claim must have time left for a PATCH, and the ledger must hold the intent (I2).

        Shortly after its write the intent is certain. Later this asks the ledger, and again after a slow answer.
        """
        known_at = written_at
        while True:
            if self.context.clock.elapsed(written_at) > WORK:
                raise Abandoned(
                    "TooSlow", "the claim ended before the key could be published: the next run tries again"
                )
            if self.context.clock.elapsed(known_at) <= INTENT_FRESH_FOR:
                return
            known_at = self.context.clock.instant()
            entry = await self.context.ledger.read(target.ref)
            if entry is None or not transitions.holds_intent(entry, name):
                raise Abandoned("LostClaim", "the ledger does not hold this run's claim any more")

    async def _write(
        self, target: Target, secret: SecretView | None, entry: Entry, *, minted: MintedKey, dry_run: bool = False
    ) -> datetime:
        """Write the Secret; without owners where the cluster guards those: a key matters more."""

        def body(*, owned: bool) -> JSON:
            now = self.context.now()
            return key_patch(target, secret, entry, key=minted.account, value=minted.value, at=now, owned=owned)

        try:
            async with asyncio.timeout(WRITING):
                try:
                    return await self._send(target, secret, body(owned=True), dry_run=dry_run)
                except Forbidden as error:
                    if error.reason != OWNERS_FORBIDDEN:
                        raise
                    if not dry_run:
                        self.context.watcher.not_announced(target.ref, f"written without its owner: {error.message}")
                    return await self._send(target, secret, body(owned=False), dry_run=dry_run)
        except TimeoutError:
            raise Unanswered("SecretNotWritten", f"writing Secret {target.ref} took over {WRITING:.0f} s") from None
        except Refused as error:
            if error.status != 422 or labelled(secret):
                raise
            raise Refused(error.reason, error.message + label_advice(target.ref), status=error.status) from None

    async def _send(self, target: Target, secret: SecretView | None, body: JSON, *, dry_run: bool) -> datetime:
        cluster, begun = self.context.cluster, self.context.now()
        if secret is None:
            answer = await cluster.create(SECRETS, target.ref.namespace, body, dry_run=dry_run)
        else:
            answer = await cluster.patch(SECRETS, target.ref, body, dry_run=dry_run)
        # Too late is safe, too early is not: whoever started before the key was there cannot hold it.
        return max(answer.at or self.context.now(), begun)

    async def _is_in_place(self, target: Target, account: Account) -> bool:
        """Did a PATCH without an answer take effect? False also where the Secret is unreadable, and nobody knows."""
        try:
            secret = await self.context.observer.secret(target.ref)
        except RotatorError:
            return False
        return secret is not None and secret.named is not None and secret.named.id == account.id

    async def _plan_again(self, target: Target, entry: Entry, name: str) -> SecretView | None:
        """Decide anew, as if there were no claim of this run. Returns the Secret; raises Abandoned if unwanted."""
        others = tuple(intent for intent in entry.unpublished if intent.account.name != name)
        unclaimed = replace(entry, unpublished=others, failures=Failures())
        seen = await self.context.observer.observe(target, unclaimed)
        # The intent honoured the requests, so they are not open any more: that must not end this rotation.
        decision = decide(target, seen, replace(self.context.run, force=True, repeat=True), now=self.context.now())
        taken = seen.secret is not None and current(seen.entry) != current(unclaimed)
        if taken or not isinstance(decision, Rotate):
            raise Abandoned(
                "Changed", f"Secret {target.ref} was changed while its key was made: the next run decides anew"
            )
        return seen.secret

    async def _rehearse(self, target: Target, seen: Observation) -> Refused | None:
        """Try the PATCH without effect, so that a webhook or a quota that refuses it costs no account."""
        blank = MintedKey(
            Account(self._name(target), target.generator.access, "user-rehearsal", "key_rehearsal"), Hidden("-")
        )
        try:
            await self._write(target, seen.secret, seen.entry, minted=blank, dry_run=True)
        except Conflict as error:
            if seen.secret is None and error.reason == EXISTS:
                # It exists: another run has just made it, or something hides it (then this raises).
                await self.context.observer.secret(target.ref)
            return None
        except (NotFound, Throttled):
            return None
        except Refused as error:
            return error
        return None

    async def _give_up(
        self, target: Target, entry: Entry, name: str, *, known: Account | None, error: RotatorError
    ) -> Outcome:
        """Note a failed attempt. After a definite answer the claim ends at once; otherwise it runs out by itself."""
        intent, message = _intent(entry, name), about(target.generator.access, error)
        definite = isinstance(error, Refused | Abandoned | NotSent | Deferred)

        def noted(entry: Entry) -> Entry:
            now = self.context.now()
            entry = transitions.with_throttle(entry, error)
            if isinstance(error, ScopesRefused) and known is not None:
                return transitions.scopes_refused(entry, intent, known, reason=error.reason, message=message, now=now)
            return transitions.failed(
                entry, intent, known, reason=error.reason, message=message, now=now, definite=definite
            )

        try:
            entry = await self.context.ledger.update(entry, noted)
        except RotatorError as second:
            message += f"; and the ledger could not be written ({second.message})"
            return Outcome(target.ref, Result.FAILED, error.reason, message, source=target.source)
        return self._failure(target, error, entry)

    def _failure(self, target: Target, error: RotatorError, entry: Entry) -> Outcome:
        later = entry.failures.next_attempt_at
        message = about(target.generator.access, error) + next_attempt(later)
        return Outcome(target.ref, Result.FAILED, error.reason, message, later, source=target.source)


def _about_key(outcome: Outcome, account: Account) -> Outcome:
    """The outcome with the published key's names: the ledger forgets them once the account is gone."""
    return replace(outcome, account=account.name, key_id=account.key_id, project_id=account.access.project.id)


def _intent(entry: Entry, name: str) -> Intent:
    """The intent that this run has just written."""
    return next(intent for intent in entry.unpublished if intent.account.name == name)


def _must_fit(target: Target, key: Hidden) -> None:
    """No key goes into a template that could change the meaning of the text around it. Raises Refused."""
    if target.template is None or key.is_plain():
        return
    message = (
        "the new key has other characters than letters, digits, - and _: spec.target.template.data is not filled "
        "with it, for it could break the text around it; without a template the key is written as it is"
    )
    raise Refused("KeyNotPlain", message)


def labelled(secret: SecretView | None) -> bool:
    """Does the Secret, if there is one, say that it is ours to write?"""
    return secret is None or secret.labels.get(MANAGED) == "true"


def label_advice(secret: Ref) -> str:
    """The advice of the policy that asks for the label, in our words, for messages quote no server's text."""
    command = f"kubectl label secret {secret.name} -n {secret.namespace} {MANAGED}=true"
    return f"; with the component admission-policy it needs the label once: `{command}`"
