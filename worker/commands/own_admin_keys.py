"""The operator's own admin keys, at the end of a run: replace those that are due, delete their predecessors, tell it.

Guarantees: one Secret's failure stays its own. Of several shards one works on a Secret.
Where no Secret beside the ledger is named, or none is annotated, nothing is asked of OpenAI.
"""

from __future__ import annotations

from dataclasses import replace

from worker.commands.session import Stages
from worker.discover.admin_keys import named_admin_keys
from worker.errors import RotatorError
from worker.kubernetes.secret import SECRETS
from worker.ledger.admin_transitions import UNASKED
from worker.model.admin_keys import AdminEntry, AdminSecretView
from worker.model.outcomes import AdminKeyOutcome, Notice, Result
from worker.model.targets import Source
from worker.model.values import Ref
from worker.observe.admin_keys import SeenAdminKey
from worker.retire.admin_retirement import AdminRetired
from worker.runtime.for_each import Crash, for_each
from worker.settings.options import Options

IN_USE = "AdminKeyInUse"
ROTATED = "AdminKeyRotated"
FAILED = "AdminKeyNotRotated"


async def replace_own_admin_keys(options: Options, stages: Stages) -> list[AdminKeyOutcome]:
    """Do so for each Secret whose admin key is to rotate, or has. Raises nothing."""
    context = stages.context
    if context.stop.reason is not None:
        return []
    named = named_admin_keys(options)
    seen = await stages.admin_rotation.observer.all_of(named)
    ours = [one for one in seen if options.shard.owns(one.named.ref.secret)]

    async def one(item: SeenAdminKey) -> AdminKeyOutcome | None:
        outcome = await _one(stages, item)
        if outcome is not None:
            await _announce(stages, item, outcome)
        return outcome

    outcomes: list[AdminKeyOutcome] = []
    done = await for_each(
        ours, one, slots=context.slots, stop=context.stop, tenant=lambda item: item.named.ref.secret.namespace
    )
    for item in done:
        value = item.value
        if isinstance(value, Crash):
            value = AdminKeyOutcome(item.item.named.ref.secret, Result.FAILED, value.reason, value.message)
        if value is not None:
            outcomes.append(value)
            context.watcher.admin_key(value)
    return outcomes


async def _one(stages: Stages, seen: SeenAdminKey) -> AdminKeyOutcome | None:
    secret = seen.named.ref.secret
    try:
        outcome = await stages.admin_rotation.rotate(seen)
    except RotatorError as error:
        outcome = AdminKeyOutcome(secret, Result.FAILED, error.reason, error.message)
    if stages.context.run.dry_run or not _has_former(seen):
        return outcome
    try:
        retired = await stages.admin_retirement.retire(seen.named)
    except RotatorError as error:
        retired = AdminRetired(problems=[error])
    return _joined(secret, outcome, retired)


def _has_former(seen: SeenAdminKey) -> bool:
    """Had the ledger keys before this run that are to go?"""
    entry = seen.entry
    if not isinstance(entry, AdminEntry):
        return False
    # A current key that the Secret does not carry any more counts: somebody has replaced it.
    moved = isinstance(seen.view, AdminSecretView) and any(
        key.superseded_at is None and key.digest != seen.view.value.digest() for key in entry.history
    )
    return bool(entry.superseded) or entry.intent is not None or moved


def _joined(secret: Ref, outcome: AdminKeyOutcome | None, retired: AdminRetired) -> AdminKeyOutcome | None:
    """One outcome of both. A key that is replaced well and whose predecessor cannot go has failed."""
    if outcome is None:
        if not (retired.deleted or retired.held or retired.problems):
            return None
        outcome = AdminKeyOutcome(secret, Result.KEPT, UNASKED, "no annotation asks for a rotation")
    outcome = replace(
        outcome,
        deleted=tuple(retired.deleted),
        held=tuple(retired.held),
        waiting=max(retired.waiting, outcome.waiting),
    )
    if not retired.problems or outcome.result is Result.FAILED:
        return outcome
    problem = retired.problems[0]
    message = f"{outcome.message}; a former key cannot be deleted: {problem.message}"
    return replace(outcome, result=Result.FAILED, reason=problem.reason, message=message)


async def _announce(stages: Stages, seen: SeenAdminKey, outcome: AdminKeyOutcome) -> None:
    """Events on the Secret: what `kubectl describe secret` shows."""
    context, secret = stages.context, seen.named.ref.secret
    if context.run.dry_run:
        return
    view = seen.view
    uid = view.version.uid if isinstance(view, AdminSecretView) else ""
    source = Source(SECRETS, "Secret", secret, uid)
    problems: list[str] = []
    if outcome.result is Result.ROTATED:
        problems += await context.announcer.warn(source, [Notice(ROTATED, outcome.message)], kind="Normal")
    elif outcome.result is not Result.KEPT:
        problems += await context.announcer.warn(source, [Notice(FAILED, f"{outcome.reason}: {outcome.message}")])
    problems += await context.announcer.warn(
        source, [Notice(IN_USE, f"a former key stays: {why}") for why in outcome.held]
    )
    for problem in problems:
        context.watcher.not_announced(secret, problem)
