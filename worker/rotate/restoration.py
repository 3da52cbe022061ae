"""Write a Secret's label and annotation again, for the key that is in place. No key is made here.

Guarantee: the PATCH carries the resourceVersion of the Secret that was judged.
"""

from __future__ import annotations

from worker.context import RunContext
from worker.errors import Conflict, NotFound, Refused
from worker.kubernetes.secret import SECRETS, marks_patch, secret_view
from worker.model.outcomes import Notice
from worker.model.sightings import SecretView
from worker.model.targets import Target
from worker.observe.observation import Observation
from worker.plan.decisions import Restore
from worker.plan.marks import key_in_place
from worker.rotate.rotation import label_advice, labelled


async def restore(context: RunContext, target: Target, seen: Observation, decision: Restore) -> SecretView | None:
    """Write them, and tell by an Event that somebody takes them away. Raises the errors of writing the Secret.

    Returns the Secret as it is then; None where somebody has changed it since.
    """
    publication, secret = key_in_place(target, seen), seen.secret
    if publication is None or secret is None:
        raise ValueError("only a Secret whose key is in place is restored")
    try:
        answer = await context.cluster.patch(SECRETS, target.ref, marks_patch(target, secret, seen.entry, publication))
    except (Conflict, NotFound):
        # Somebody has changed the Secret since: the next run decides anew.
        return None
    except Refused as error:
        if error.status != 422 or labelled(secret):
            raise
        raise Refused(error.reason, error.message + label_advice(target.ref), status=error.status) from None
    for problem in await context.announcer.warn(target.source, [Notice(decision.reason, decision.message)]):
        context.watcher.not_announced(target.ref, problem)
    return secret_view(answer.body)
