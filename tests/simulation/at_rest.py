"""What must hold at rest, and at the end of some plots: the oracle's questions to what is really there."""

from __future__ import annotations

from sandbox.openai.state import KeyStatus
from tests.simulation.oracle import Oracle
from tests.simulation.stage import PROJECTS, TARGETS, named
from tests.support.scene import LEDGER
from worker.model.names import entry_name
from worker.model.values import Ref


def check_current(oracle: Oracle, target: Ref, after: str) -> None:
    """The ledger's current account is the one whose key the Secret carries, if looked at since it was put back."""
    if oracle.revoked.get(target, -1.0) <= oracle.put_back.get(target, -1.0):
        return
    carried = oracle.stage.carried(oracle.stage.secret(target))
    if carried not in {account.id for account in oracle.stage.accounts()}:
        return  # put back right after the look, and deleted: no worker can know
    current = [a.get("id") for a in oracle.stage.recorded(target).values() if "supersededAt" not in a]
    if carried not in current:
        oracle.violate(f"I2: {after} leaves {target} with another current account than its Secret carries")


def check_adopted(oracle: Oracle, target: Ref) -> None:
    """The ledger records the account whose key the Secret carries."""
    carried = oracle.stage.carried(oracle.stage.secret(target))
    if carried is not None and carried not in [a.get("id") for a in oracle.stage.recorded(target).values()]:
        oracle.violate(f"I4: adopt leaves {target} with an account that the ledger does not record")


def check_nothing_left(oracle: Oracle, target: Ref) -> None:
    """Nothing asks for the target, and its Secret has another's key: no account of ours is left."""
    left = [a.id for a in oracle.stage.accounts() if a.id in oracle.made and oracle.made[a.id].target == target]
    if left:
        oracle.violate(f"I4: {target} has no use for {len(left)} accounts any more, and they stay")


def unrecorded(oracle: Oracle) -> bool:
    """Does a Secret name an account that its entry lacks? Runs say so until a human adopts it."""
    for target in TARGETS:
        secret = oracle.stage.secret(target)
        name = named(secret).get("name") if secret is not None else None
        if name is not None and name not in oracle.stage.recorded(target):
            return True
    return False


def check_at_rest(oracle: Oracle) -> None:
    """After fault-free runs: one account per target, its key works, and the ledger says the same."""
    oracle.admin.check_at_rest()
    current = {}
    for target in TARGETS:
        secret = oracle.stage.secret(target)
        annotation = named(secret) if secret is not None else {}
        if secret is None or not annotation:
            oracle.violate(f"at rest: {target} has no key of ours")
            continue
        current[annotation["id"]] = annotation["name"]
        if oracle.stage.status_of(secret) is not KeyStatus.ACTIVE:
            oracle.violate(f"at rest: {target} carries a dead key")
        if oracle.stage.is_too_wide(target):
            oracle.violate(f"at rest: {target} carries a key that may do more than it asks for")
        if oracle.stage.carried(secret) != annotation["id"]:
            oracle.violate(f"at rest: {target} carries another account's key than its annotation says")
        places = sorted(oracle.stage.keys_in(secret))
        if places != oracle.stage.places(target) and target not in oracle.mixed:
            oracle.violate(f"at rest: {target} has keys of ours at {places}")
        _check_entry(oracle, target, annotation["name"])
    recorded = {name for target in TARGETS for name in oracle.stage.recorded(target)}
    alive = {}
    for account in oracle.stage.accounts():
        name = oracle.made[account.id].name if account.id in oracle.made else account.name
        if account.id not in oracle.lost or name in recorded:
            alive[account.id] = name
    if alive != current:
        oracle.violate(f"at rest: at OpenAI {sorted(alive.values())}, in Secrets {sorted(current.values())}")
    ours = {account.id for account in oracle.stage.accounts()}
    strangers = {a.id for project in PROJECTS for a in oracle.stage.openai.accounts(project)} - ours
    if strangers != oracle.stage.strangers:
        oracle.violate("at rest: a stranger's account is gone")


def _check_entry(oracle: Oracle, target: Ref, current: str) -> None:
    entry = oracle.stage.kubernetes.find("keyrotations", LEDGER, entry_name(target))
    status = entry["status"] if entry is not None else {}
    if list(status.get("accounts", {})) != [current] or status.get("accountCount") != 1:
        oracle.violate(f"at rest: the ledger has {sorted(status.get('accounts', {}))} for {target}, not {current}")
    ready = [c for c in status.get("conditions", []) if c["type"] == "Ready" and c["status"] == "True"]
    if not ready or "failures" in status:
        oracle.violate(f"at rest: the entry of {target} is not Ready")
