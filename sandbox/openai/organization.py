"""What OpenAI lists of a whole organisation: its admin keys, its audit log, and its costs.

Guarantee: none shows a key's value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sandbox.openai.errors import invalid, not_served
from sandbox.openai.objects import unix
from sandbox.openai.state import ADMIN_SCOPES, AdminKey, AuditRecord, CostRecord
from sandbox.transport.wire import Request, Response

OWNER = {"id": "user-owner", "object": "organization.user", "name": "Owner", "created_at": 0}
_DAY = 86400
_COSTS_QUERY = {"start_time", "end_time", "bucket_width", "limit", "page", "group_by[]"}
_COST_GROUPS = ("project_id", "api_key_id")
_AUDIT_QUERY = {"limit", "after", "event_types[]", "project_ids[]", "resource_ids[]", "effective_at[gte]"}


def admin_keys(request: Request, keys: Iterable[AdminKey], uses_until: datetime) -> Response:
    """A page of the organisation's admin keys, the oldest first unless asked otherwise."""
    _only(request, {"limit", "after", "order"})
    order = request.query.get("order", "asc")
    if order not in ("asc", "desc"):
        raise invalid("order must be one of asc, desc.", "order")
    found = sorted(keys, key=lambda key: (key.created_at, key.id), reverse=order == "desc")
    return _page(request, [admin_key_json(key, uses_until) for key in found])


def audit_log(request: Request, records: Iterable[AuditRecord]) -> Response:
    """A page of the audit log, the newest first."""
    _only(request, _AUDIT_QUERY)
    types, projects = request.values("event_types[]"), request.values("project_ids[]")
    resources = request.values("resource_ids[]")
    since = request.query.get("effective_at[gte]", "0")
    if not since.isascii() or not since.isdigit():
        raise invalid("effective_at[gte] must be an integer.", "effective_at")
    found = [
        _event(record)
        for record in records
        if (not types or record.type in types)
        and (not projects or record.project in projects)
        and (not resources or record.resource in resources)
        and record.at.timestamp() >= int(since)
    ]
    return _page(request, found[::-1])


def costs(request: Request, records: Iterable[CostRecord], now: datetime) -> Response:
    """A page of days, the oldest first, each with its costs by the groups asked for; a deleted key's too.

    Source: `client.admin.organization.usage.costs` of the official SDK, 3.57.0.
    """
    _only(request, _COSTS_QUERY)
    groups = request.values("group_by[]")
    for group in set(groups) - set(_COST_GROUPS):
        raise not_served(f"group_by {group}")
    if request.query.get("bucket_width", "1d") != "1d":
        raise invalid("bucket_width must be 1d.", "bucket_width")
    start = _number(request, "start_time", None, 0, 2**40)
    end = _number(request, "end_time", int(now.timestamp()) + 1, 0, 2**40)
    limit = _number(request, "limit", 7, 1, 180)
    # A cursor is opaque to clients; this one is the beginning of the next day.
    page = request.query.get("page", f"page_{start - start % _DAY}").removeprefix("page_")
    if not page.isascii() or not page.isdigit():
        raise invalid("page must be the next_page of an answer.", "page")
    days = range(int(page), end, _DAY)
    found = list(records)
    buckets = [_day(day, max(day, start), min(day + _DAY, end), found, groups) for day in days[:limit]]
    following = f"page_{days[limit]}" if len(days) > limit else None
    return Response.of_json(
        200, {"object": "page", "data": buckets, "has_more": following is not None, "next_page": following}
    )


def _day(day: int, start: int, end: int, records: Iterable[CostRecord], groups: list[str]) -> dict[str, Any]:
    sums: dict[tuple[str | None, ...], float] = defaultdict(float)
    for record in records:
        if start <= record.at.timestamp() < end:
            of_record = {"project_id": record.project, "api_key_id": record.key}
            sums[tuple(of_record[group] if group in groups else None for group in _COST_GROUPS)] += record.amount
    results = [
        {
            "object": "organization.costs.result",
            "amount": {"value": amount, "currency": "usd"},
            "line_item": None,
            **dict(zip(_COST_GROUPS, group, strict=True)),
        }
        for group, amount in sums.items()
    ]
    return {"object": "bucket", "start_time": day, "end_time": day + _DAY, "results": results}


def _number(request: Request, name: str, default: int | None, least: int, most: int) -> int:
    text = request.query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise invalid(f"{name} must be an integer between {least} and {most}.", name)
    return int(text)


def admin_key_json(key: AdminKey, uses_until: datetime) -> dict[str, Any]:
    """An admin key as lists show it, redacted, with its last use until then.

    `scopes`: the real API's description knows none. A restricted key shows them, in case that it does tell.
    """
    head = {"object": "organization.admin_api_key", "id": key.id, "name": key.name, "redacted_value": key.redacted}
    times = {"created_at": key.created_at, "last_used_at": key.last_used(uses_until), "expires_at": key.expires_at}
    shown = head | {name: unix(at) for name, at in times.items()} | {"owner": OWNER | {"type": "user", "role": "owner"}}
    scopes = sorted(f"api.management.{scope}" for scope in key.scopes)
    return shown if key.scopes == ADMIN_SCOPES else shown | {"scopes": scopes}


def _event(record: AuditRecord) -> dict[str, Any]:
    return {
        "object": "organization.audit_log",
        "id": record.id,
        "type": record.type,
        "effective_at": unix(record.at),
        "project": {"id": record.project, "name": record.project},
        "actor": _actor(record.by),
        record.type: {"id": record.resource, **record.details},
    }


def _actor(admin_key: str | None) -> Mapping[str, Any]:
    if admin_key is not None:
        user = {"id": OWNER["id"], "email": "owner@example.com"}
        return {"type": "api_key", "api_key": {"id": admin_key, "type": "user", "user": user}}
    user = {"id": "user-human", "email": "human@example.com"}
    return {"type": "session", "session": {"user": user, "ip_address": "192.0.2.1"}}


def _only(request: Request, known: set[str]) -> None:
    for name in set(request.query) - known:
        raise not_served(f"the query parameter {name}")


def _page(request: Request, items: list[dict[str, Any]]) -> Response:
    text = request.query.get("limit", "20")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100:
        raise invalid("limit must be an integer between 1 and 100.", "limit")
    after = request.query.get("after")
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise invalid("after must be the id of an object of this list.", "after")
        items = items[ids.index(after) + 1 :]
    shown = items[: int(text)]
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    more = len(items) > len(shown)
    return Response.of_json(
        200, {"object": "list", "data": shown, "first_id": first, "last_id": last, "has_more": more}
    )
