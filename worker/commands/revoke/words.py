"""The plan and the result of `revoke`, for people and for scripts. Pure."""

from __future__ import annotations

from worker.commands.revoke.plan import DoomedAccount, Forgotten, Plan, Revoked
from worker.model.values import JSON


def plan_text(plan: Plan) -> str:
    """The steps of the revocation, and the containers that lose a key."""
    accounts = [
        f"  {doomed.name} ({doomed.id or 'id unknown'}){', current' * doomed.current}" for doomed in plan.doomed
    ]
    if plan.obstacle is None:
        first = "a new key is made; then these accounts are deleted at once, whoever holds their keys:"
        if plan.without_successor:
            first = "a new key is made, if one can be; then, in any case, these accounts are deleted at once:"
    elif plan.without_successor:
        first = f"no new key can be made ({plan.obstacle}); these accounts are deleted all the same:"
    else:
        first = f"no new key can be made ({plan.obstacle}), so nothing would be deleted of:"
    lines = [f"revoke {plan.target}: {first}", *accounts]
    if plan.obstacle is not None and not plan.without_successor:
        return "\n".join([*lines, _advice(plan)])
    lines.append("what breaks, as far as it can be seen:")
    broken = [f"  {message}" for doomed in plan.doomed for message in _broken(doomed)]
    if plan.following:
        follow = "follows within two minutes of a new key" if plan.obstacle is None else "gets no new key"
        broken.append(f"  {', '.join(plan.following)}: sees the Secret through a volume, which {follow}")
    if plan.blind:
        broken.append("  pods may not be listed (RBAC: list pods), so it cannot be seen who has one of these keys")
    lines += broken or ["  no container of its namespace is seen to have one of these keys"]
    lines.append("  whoever else has one of them loses it; that is the purpose")
    return "\n".join(lines)


def result_text(revoked: Revoked) -> str:
    """The finished steps, the failed ones, and the remedies."""
    plan, lines = revoked.plan, []
    if revoked.successor is not None:
        lines.append(f"{plan.target} has a new key: account {revoked.successor}")
    elif not plan.without_successor:
        lines += [f"nothing was deleted, for no new key could be made: {revoked.why_none}", _advice(plan)]
    elif revoked.kept is not None:
        lines.append(f"no new key could be made ({revoked.why_none}); NOT deleted, and current: {revoked.kept}")
    else:
        lines.append(f"{plan.target} has no working key now, for no new one could be made: {revoked.why_none}")
    if revoked.deleted:
        lines.append(f"deleted: {', '.join(revoked.deleted)}")
    if revoked.affected and revoked.successor is not None:
        lines.append(f"restart now: {', '.join(revoked.affected)}")
    elif revoked.affected or (revoked.deleted and plan.following and revoked.kept is None):
        names = ", ".join(sorted({*revoked.affected, *plan.following}))
        lines.append(f"without a working key until there is a new one, and then to be restarted: {names}")
    lines += [f"not deleted: {name}: {why}" for name, why in revoked.left]
    lines += [f"could not be told to the cluster: {problem}" for problem in revoked.notes]
    return "\n".join(lines)


def as_json(revoked: Revoked) -> JSON:
    """The same as values."""
    plan = revoked.plan
    return {
        "namespace": plan.target.namespace,
        "secret": plan.target.name,
        "complete": revoked.complete,
        "successor": revoked.successor,
        "whyNone": revoked.why_none,
        "kept": revoked.kept,
        "deleted": list(revoked.deleted),
        "hit": list(revoked.affected),
        "left": [{"name": name, "why": why} for name, why in revoked.left],
        "accounts": [
            {
                "name": doomed.name,
                "id": doomed.id,
                "keyId": doomed.key_id,
                "projectId": doomed.project_id,
                "current": doomed.current,
                "holders": list(doomed.certain),
                "possibleHolders": list(doomed.possible),
            }
            for doomed in plan.doomed
        ],
        "following": list(plan.following),
        "blind": plan.blind,
        "notes": list(revoked.notes),
    }


def forgotten_text(forgotten: Forgotten, *, done: bool) -> str:
    """What the ledger forgets, or has forgotten; what stays, and why."""
    lines = [f"revoke --forget {forgotten.target}: " + ("forgotten:" if done else "the ledger would forget:")]
    lines += [
        f"  {account.name} ({account.id or 'id unknown'}): OpenAI denies project {account.access.project}, "
        f"asked with {account.access.admin_key}"
        for account in forgotten.gone
    ]
    if not forgotten.gone:
        lines.append("  nothing: no account here is of a project that OpenAI denies, or it stays for now")
    lines += [f"stays: {name}: {why}" for name, why in forgotten.left]
    lines += [f"stays: {name}: its project exists" for name in forgotten.answering]
    if forgotten.gone and not done:
        lines.append(
            "OpenAI says the same to an admin key of another organisation. Be sure that the project was deleted: the "
            "accounts of one that lives on would keep working keys that nobody knows."
        )
    lines += [f"could not be told to the cluster: {problem}" for problem in forgotten.notes]
    return "\n".join(lines)


def forgotten_as_json(forgotten: Forgotten) -> JSON:
    """The same as values."""
    return {
        "namespace": forgotten.target.namespace,
        "secret": forgotten.target.name,
        "complete": forgotten.complete,
        "forgotten": [
            {
                "name": account.name,
                "id": account.id,
                "projectId": account.access.project.id,
                "host": account.access.project.host,
            }
            for account in forgotten.gone
        ],
        "left": [{"name": name, "why": why} for name, why in forgotten.left],
        "projectExists": list(forgotten.answering),
        "notes": list(forgotten.notes),
    }


def _broken(doomed: DoomedAccount) -> list[str]:
    what = f"has the key of {doomed.name} from its start: it fails until it is restarted"
    perhaps = f"may have the key of {doomed.name}: it is about to start, or started about when that was superseded"
    return [f"{name}: {what}" for name in doomed.certain] + [f"{name}: {perhaps}" for name in doomed.possible]


def _advice(plan: Plan) -> str:
    ids = ", ".join(doomed.id for doomed in plan.doomed if doomed.id is not None)
    return (
        "mend that and revoke again; or --without-successor deletes the accounts all the same, and whoever needs the "
        f"Secret has no working key until a run can make one; or delete them at OpenAI by hand: {ids or 'none known'}"
    )
