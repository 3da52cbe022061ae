"""Our own format: the KeyRotation object. Pure.

Guarantees: an entry equals itself after encoding and decoding (times to the second).
A value in another format raises `Malformed`, which names the field.
No function returns or raises a data value of a Secret.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from worker.kubernetes.reading import Malformed, mapping, present, text, time, version_of
from worker.kubernetes.rendered import read_rendered, rendered_object
from worker.ledger.conditions import condition_objects, read_condition
from worker.ledger.holds import hold_reason
from worker.model.entries import (
    Account,
    Entry,
    Failures,
    GeneratorNote,
    Healings,
    Hold,
    Intent,
    Look,
    NodeThen,
    Publication,
    RefusedScopes,
    Restart,
    RestartState,
    Throttle,
    current,
)
from worker.model.names import ID
from worker.model.scopes import Scopes, canonical, is_scope
from worker.model.targets import AdminKeyRef, CleanupKind, CleanupPolicy, Project, ProjectAccess
from worker.model.times import format_duration, format_time, parse_duration
from worker.model.values import JSON, Ref, Resource

KEY_ROTATIONS = Resource("openai-key-rotator.io", "v1alpha1", "keyrotations")


def entry_object(entry: Entry) -> JSON:
    """The KeyRotation's `spec` and `status`; absent values are left out."""
    accounts: JSON = {}
    for publication in entry.history:
        accounts[publication.account.name] = _account_object(publication.account, entry.target) | present(
            publishedAt=publication.at,
            supersededAt=publication.superseded_at,
            requestedAt=publication.requested_at,
            secretGone=publication.secret_gone or None,
            secretBackAt=publication.secret_back_at,
            missedAt=publication.missed_at,
            nodesThen=_nodes_object(publication.nodes_then),
            immutable=publication.immutable or None,
            restart=_restart_object(publication.restart),
            lookedAt=publication.look.at if publication.look is not None else None,
            lookedFor=publication.look.wish if publication.look is not None else None,
            **_hold_object(publication.held),
        )
    for intent in entry.unpublished:
        accounts[intent.account.name] = _account_object(intent.account, entry.target) | present(
            requestedAt=intent.requested_at,
            claimedUntil=intent.claimed_until,
            missedAt=intent.missed_at,
            refused=intent.refused or None,
            absentAt=intent.absent_at,
            restart=_restart_object(Restart() if intent.restart else None),
        )
    condition = entry.condition
    oldest = min((publication.at for publication in entry.history), default=None)
    held = min((publication.held.since for publication in entry.history if publication.held is not None), default=None)
    ends = [publication.account.expires_at for publication in entry.history]
    cleanup = entry.generator.cleanup
    now_current = current(entry)
    restart = now_current.restart if now_current is not None else None
    return {
        "spec": {
            "target": {"namespace": entry.target.namespace, "secret": entry.target.name},
            "generator": {
                "name": entry.generator.name,
                **({"source": entry.generator.source} if entry.generator.source else {}),
                "cleanupPolicy": {
                    "type": cleanup.kind.value,
                    "gracePeriod": format_duration(cleanup.grace),
                    "idleTimeout": format_duration(cleanup.idle),
                },
            },
            "ledger": entry.ledger,
        },
        "status": present(
            accountCount=len(accounts),
            since=entry.since,
            oldestKeyAt=oldest,
            heldSince=held,
            nextExpiryAt=min((at for at in ends if at is not None), default=None),
            lastRotatedAt=entry.last_rotated_at,
            nextRotationAt=entry.next_rotation_at,
            adminKeyExpiresAt=entry.admin_key_ends_at,
            restart=restart.state.value if restart is not None else None,
            restartedAt=restart.at if restart is not None else None,
        )
        | ({"accounts": accounts} if accounts else {})
        | ({"honoured": dict(entry.honoured)} if entry.honoured else {})
        | (
            {"failures": present(count=entry.failures.count, nextAttemptAt=entry.failures.next_attempt_at)}
            if entry.failures.count
            else {}
        )
        | ({"healings": present(count=entry.healings.count, at=entry.healings.at)} if entry.healings.count else {})
        | ({"throttle": _throttle_object(entry.throttle)} if entry.throttle is not None else {})
        | ({"forgotten": list(entry.forgotten)} if entry.forgotten else {})
        | ({"refusedScopes": _refused_object(entry.refused_scopes)} if entry.refused_scopes is not None else {})
        | ({"conditions": condition_objects(condition)} if condition is not None else {}),
    }


def decode_entry(obj: Mapping[str, Any]) -> Entry:
    """Read a KeyRotation. Raises Malformed naming the field that is not as we write it."""
    spec, status = mapping(obj, "spec"), mapping(obj, "status")
    target, generator = mapping(spec, "target"), mapping(spec, "generator")
    # What thousands of entries say alike, and their targets as well, is kept once.
    ref = Ref(sys.intern(text(target, "namespace")), sys.intern(text(target, "secret")))
    history, unpublished = [], []
    for name, stored in mapping(status, "accounts").items():
        if not isinstance(stored, Mapping):
            raise Malformed("status.accounts holds something that is not an object")
        account = _account(name, stored, ref.namespace, ledger_namespace=mapping(obj, "metadata").get("namespace"))
        published, requested = time(stored, "publishedAt"), time(stored, "requestedAt")
        if published is not None:
            superseded = time(stored, "supersededAt")
            held = _hold(stored, since=superseded or published)
            gone, back = stored.get("secretGone") is True, time(stored, "secretBackAt")
            missed, nodes = time(stored, "missedAt"), _nodes(stored)
            frozen, restart, look = stored.get("immutable") is True, _restart(stored), _look(stored)
            history.append(
                Publication(
                    account, published, superseded, requested, held, gone, back, missed, nodes, frozen, restart, look
                )
            )
        else:
            claimed = time(stored, "claimedUntil")
            if requested is None or claimed is None:
                raise Malformed("status.accounts holds an account without publishedAt, requestedAt or claimedUntil")
            unpublished.append(
                Intent(
                    account,
                    requested,
                    claimed,
                    time(stored, "missedAt"),
                    stored.get("refused") is True,
                    time(stored, "absentAt"),
                    _restart(stored) is not None,
                )
            )
    failures = mapping(status, "failures")
    count = failures.get("count", 0)
    honoured = mapping(status, "honoured")
    if not isinstance(count, int) or not all(isinstance(value, str) for value in honoured.values()):
        raise Malformed("status.failures.count or status.honoured is not as written by the rotator")
    read = Entry(
        target=ref,
        ledger=sys.intern(text(spec, "ledger")),
        generator=GeneratorNote(
            sys.intern(str(generator.get("name", ""))),
            _cleanup(mapping(generator, "cleanupPolicy")),
            sys.intern(str(generator.get("source", ""))),
        ),
        history=tuple(sorted(history, key=lambda p: (p.at, p.account.name))),
        unpublished=tuple(sorted(unpublished, key=lambda i: (i.requested_at, i.account.name))),
        since=time(status, "since"),
        last_rotated_at=time(status, "lastRotatedAt"),
        next_rotation_at=time(status, "nextRotationAt"),
        honoured=dict(honoured),
        failures=Failures(count, time(failures, "nextAttemptAt")),
        healings=_healings(mapping(status, "healings")),
        throttle=_throttle(mapping(status, "throttle")),
        admin_key_ends_at=time(status, "adminKeyExpiresAt"),
        refused_scopes=_refused(mapping(status, "refusedScopes")),
        condition=read_condition(status.get("conditions")),
        forgotten=_forgotten(status.get("forgotten")),
        version=version_of(obj),
    )
    stored = {"spec": spec, "status": status}
    # An entry that encodes to what is stored is its own base: the text would take a kilobyte, thousands of times.
    return replace(read, base=read if entry_object(read) == stored else json.dumps(stored).encode())


def _nodes_object(nodes: tuple[NodeThen, ...] | None) -> dict[str, str] | None:
    """By node; empty where a volume had the Secret, or a container was about to start."""
    if nodes is None:
        return None
    return {node.name: format_time(node.read_at) if node.read_at is not None else "" for node in nodes}


def _nodes(stored: Mapping[str, Any]) -> tuple[NodeThen, ...] | None:
    if "nodesThen" not in stored:
        return None
    nodes = mapping(stored, "nodesThen")
    return tuple(NodeThen(name, time(nodes, name) if nodes[name] != "" else None) for name in sorted(nodes))


def _hold_object(hold: Hold | None) -> JSON:
    return {} if hold is None else {"held": hold.why, "heldSince": hold.since, "heldTold": hold.event_reason}


def _hold(stored: Mapping[str, Any], *, since: datetime) -> Hold | None:
    """`since`: the start of a hold whose object has none, as in the first version."""
    begun = time(stored, "heldSince") or since
    told = text(stored, "heldTold") if stored.get("heldTold") is not None else None
    return Hold(hold_reason(text(stored, "held")), begun, told) if stored.get("held") is not None else None


def _restart_object(restart: Restart | None) -> JSON | None:
    if restart is None:
        return None
    done = {"done": list(restart.done)} if restart.done else {}
    facts = present(at=restart.at, why=restart.why or None, urgent=restart.urgent or None)
    return {"state": restart.state.value, **done, **facts}


def _restart(stored: Mapping[str, Any]) -> Restart | None:
    if "restart" not in stored:
        return None
    restart = mapping(stored, "restart")
    done = restart.get("done", [])
    try:
        state = RestartState(text(restart, "state"))
    except ValueError:
        raise Malformed("status.accounts: restart.state is not as written by the rotator") from None
    if not isinstance(done, list) or not all(isinstance(item, str) for item in done):
        raise Malformed("status.accounts: restart.done is not as written by the rotator")
    why = text(restart, "why") if "why" in restart else ""
    return Restart(state, tuple(done), time(restart, "at"), why, restart.get("urgent") is True)


def _look(stored: Mapping[str, Any]) -> Look | None:
    at = time(stored, "lookedAt")
    return Look(at, text(stored, "lookedFor")) if at is not None else None


def _healings(stored: Mapping[str, Any]) -> Healings:
    count = stored.get("count", 0)
    if not isinstance(count, int):
        raise Malformed("status.healings.count is not as written by the rotator")
    return Healings(count, time(stored, "at"))


def _forgotten(stored: object) -> tuple[str, ...]:
    if stored is None:
        return ()
    if not isinstance(stored, list) or not all(isinstance(line, str) for line in stored):
        raise Malformed("status.forgotten is not as written by the rotator")
    return tuple(stored)


def _throttle_object(throttle: Throttle) -> JSON:
    return {
        "host": throttle.host,
        "adminKeyDigest": throttle.key,
        "until": format_time(throttle.until),
        "times": throttle.times,
    }


def _throttle(stored: Mapping[str, Any]) -> Throttle | None:
    if not stored:
        return None
    until, times = time(stored, "until"), stored.get("times")
    if until is None or not isinstance(times, int):
        raise Malformed("status.throttle is not as written by the rotator")
    return Throttle(text(stored, "host"), text(stored, "adminKeyDigest"), until, times)


def entry_patch(entry: Entry) -> JSON:
    """The patch from the stored entry to its present state."""
    base = entry.base
    if isinstance(base, Entry):
        return {} if entry == base else merge_patch(entry_object(base), entry_object(entry))
    return merge_patch(json.loads(base) if base is not None else {}, entry_object(entry))


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> JSON:
    """The smallest JSON merge patch (RFC 7396) that turns `before` into `after`."""
    patch: JSON = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if key in before and old == value:
            continue  # nearly always: one comparison is faster than a walk through both
        patch[key] = merge_patch(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return patch


def _account_object(account: Account, target: Ref) -> JSON:
    access, admin = account.access, account.access.admin_key
    central = admin.is_central(target.namespace)
    return present(
        id=account.id,
        keyId=account.key_id,
        host=access.project.host,
        projectId=access.project.id,
        adminKey=present(name=admin.secret.name, key=admin.key, namespace=admin.secret.namespace if central else None),
        expiresAt=account.expires_at,
        keyDigest=account.key_digest,
        dataKey=account.data_key,
        rendered=rendered_object(account.rendered),
        scopes=list(account.scopes) or None,
        # By a tenant's word alone: the fallback admin key does not serve it.
        adopted=None if access.fallback else True,
    )


def _account(name: str, stored: Mapping[str, Any], namespace: str, *, ledger_namespace: object) -> Account:
    admin = mapping(stored, "adminKey")
    where = admin.get("namespace", namespace)
    if where not in (namespace, ledger_namespace):
        if not isinstance(ledger_namespace, str):
            raise Malformed("status.accounts: adminKey.namespace is neither the target's nor the ledger's")
        # The entry was moved here with its ledger, and the operator's keys with it.
        where = ledger_namespace
    for field in ("id", "keyId", "projectId", "keyDigest"):
        if field in stored and not (isinstance(stored[field], str) and ID.match(stored[field])):
            raise Malformed(f"status.accounts: {field} is not an id")
    return Account(
        name=name,
        access=_access(
            text(stored, "host"),
            text(stored, "projectId"),
            where,
            secret=text(admin, "name"),
            key=text(admin, "key"),
            fallback=stored.get("adopted") is not True,
        ),
        id=stored.get("id"),
        key_id=stored.get("keyId"),
        expires_at=time(stored, "expiresAt"),
        key_digest=stored.get("keyDigest"),
        data_key=sys.intern(text(stored, "dataKey")) if "dataKey" in stored else None,
        scopes=_scopes(stored, "status.accounts: scopes") if "scopes" in stored else (),
        rendered=read_rendered(stored),
    )


def _scopes(stored: Mapping[str, Any], field: str) -> Scopes:
    found = stored.get("scopes")
    # An empty list would be taken for a key without restriction.
    if not isinstance(found, list) or not found or not all(is_scope(scope) for scope in found):
        raise Malformed(f"{field} is not a list of scopes")
    return canonical(found)


def _refused_object(refused: RefusedScopes) -> JSON:
    return {
        "scopes": list(refused.scopes),
        "host": refused.project.host,
        "projectId": refused.project.id,
        "at": format_time(refused.at),
        "reason": refused.reason,
        "message": refused.message,
    }


def _refused(stored: Mapping[str, Any]) -> RefusedScopes | None:
    if not stored:
        return None
    project = Project(text(stored, "host"), text(stored, "projectId"))
    scopes, at = _scopes(stored, "status.refusedScopes.scopes"), time(stored, "at")
    if at is None:
        raise Malformed("status.refusedScopes has no time")
    return RefusedScopes(scopes, project, at, text(stored, "reason"), text(stored, "message"))


@functools.lru_cache(maxsize=1024)
def _access(host: str, project: str, namespace: str, *, secret: str, key: str, fallback: bool) -> ProjectAccess:
    """One shared object per distinct access: thousands of accounts share a few."""
    return ProjectAccess(Project(host, project), AdminKeyRef(Ref(namespace, secret), key), fallback)


def _cleanup(stored: Mapping[str, Any]) -> CleanupPolicy:
    default = CleanupPolicy()
    try:
        return CleanupPolicy(
            CleanupKind(stored.get("type", default.kind)),
            parse_duration(stored["gracePeriod"]) if "gracePeriod" in stored else default.grace,
            parse_duration(stored["idleTimeout"]) if "idleTimeout" in stored else default.idle,
        )
    except ValueError as error:
        raise Malformed(f"spec.generator.cleanupPolicy: {error}") from None
