"""What `revoke` is going to break, and what came of it, for people and for scripts. Pure."""

from __future__ import annotations

from worker.model import JSON
from worker.revoking import Doomed, Plan, Revoked


def plan_text(plan: Plan) -> str:
    """What will be done, and who loses what."""
    first = "a new key is made first; then" if plan.obstacle is None else f"no new key can be made ({plan.obstacle});"
    lines = [f"revoke {plan.target}: {first} these accounts are deleted at once, whoever holds their keys:"]
    lines += [f"  {doomed.name} ({doomed.id or 'id unknown'}){', current' * doomed.current}" for doomed in plan.doomed]
    lines += ["what breaks, as far as it can be seen:"]
    broken = [f"  {words}" for doomed in plan.doomed for words in _broken(doomed)]
    if plan.following:
        names = ", ".join(plan.following)
        broken.append(f"  {names}: sees the Secret through a volume, which follows within two minutes")
    lines += broken or ["  no container of its namespace is seen to hold one of these keys"]
    if plan.blind is not None:
        lines.append(f"  it cannot be seen who holds them: {plan.blind}")
    lines.append("  whoever else has one of these keys loses it; that is the purpose")
    if plan.obstacle is not None and not plan.without_successor:
        lines.append(_advice(plan))
    return "\n".join(lines)


def result_text(revoked: Revoked) -> str:
    """What was done, what was not, and what can be done about it."""
    plan, lines = revoked.plan, []
    if not revoked.agreed:
        return "nothing was done"
    if revoked.successor is not None:
        lines.append(f"{plan.target} has a new key: account {revoked.successor}")
    elif plan.without_successor:
        lines.append(f"{plan.target} has no working key now: {revoked.why_none}; a run makes one as soon as it can")
    else:
        lines += [f"nothing was deleted, for no new key could be made: {revoked.why_none}", _advice(plan)]
    if revoked.deleted:
        lines.append(f"deleted: {', '.join(revoked.deleted)}")
        restart = sorted({name for doomed in plan.doomed for name in doomed.certain if doomed.name in revoked.deleted})
        if restart:
            lines.append(f"restart now: {', '.join(restart)}")
    lines += [f"not deleted: {name}: {why}" for name, why in revoked.left]
    lines += [f"could not be told to the cluster: {problem}" for problem in revoked.notes]
    return "\n".join(lines)


def as_json(revoked: Revoked) -> JSON:
    """The same as values."""
    plan = revoked.plan
    return {
        "namespace": plan.target.namespace,
        "secret": plan.target.name,
        "agreed": revoked.agreed,
        "complete": revoked.complete,
        "successor": revoked.successor,
        "whyNone": revoked.why_none,
        "deleted": list(revoked.deleted),
        "left": [{"name": name, "why": why} for name, why in revoked.left],
        "accounts": [
            {
                "name": doomed.name,
                "id": doomed.id,
                "current": doomed.current,
                "holders": list(doomed.certain),
                "possibleHolders": list(doomed.possible),
            }
            for doomed in plan.doomed
        ],
        "following": list(plan.following),
        "unseen": plan.blind,
        "notes": list(revoked.notes),
    }


def _broken(doomed: Doomed) -> list[str]:
    what = f"has the key of {doomed.name} from its start: it fails until it is restarted"
    perhaps = f"may have the key of {doomed.name}: it was started about when that was superseded"
    return [f"{name}: {what}" for name in doomed.certain] + [f"{name}: {perhaps}" for name in doomed.possible]


def _advice(plan: Plan) -> str:
    ids = ", ".join(doomed.id for doomed in plan.doomed if doomed.id is not None)
    return (
        "mend that and revoke again; or --without-successor deletes the accounts all the same, and whoever needs the "
        f"Secret has no working key until a run can make one; or delete them at OpenAI by hand: {ids or 'none known'}"
    )
