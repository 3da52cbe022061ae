"""The content of a request's body: an object, a patch, or the options of a deletion.

Guarantee: this module refuses a body with an unknown type or unknown options as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sandbox.kubernetes.call import Call, options_of
from sandbox.kubernetes.errors import bad_request, invalid_option, not_served, unsupported, unsupported_media_type
from sandbox.kubernetes.resources import Object
from sandbox.transport.wire import JSON

_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"
_POLICIES = ("Foreground", "Background", "Orphan")


def json_body(call: Call, accepted: Sequence[str] = (JSON,)) -> Any:
    """The body as JSON; 415 for another type, 400 for invalid JSON."""
    if _content_type(call) not in accepted:
        raise unsupported_media_type(accepted)
    try:
        return call.request.json()
    except ValueError:
        raise bad_request("the body of the request is not JSON") from None


def patch_body(call: Call) -> Object:
    """A merge patch; a strategic one, which built-in kinds take, only if it means the same."""
    kind = _content_type(call)
    if kind in (_JSON_PATCH, _APPLY_PATCH):
        raise not_served(f"patches of type {kind}")
    accepted = [_JSON_PATCH, _MERGE_PATCH, _APPLY_PATCH]
    patch = json_body(call, accepted if call.resource.custom else [*accepted, _STRATEGIC_PATCH])
    if not isinstance(patch, dict):
        raise bad_request("a merge patch must be an object")
    if kind == _STRATEGIC_PATCH and not _plain(patch):
        raise not_served("a strategic merge patch that is not also a plain merge patch")
    return patch


def delete_options(call: Call) -> Object:
    """The options of a deletion, from the body and the query."""
    options = json_body(call) if call.request.body else {}
    if not isinstance(options, dict):
        raise bad_request("the body of the request is not an object")
    query = call.request.query
    if "propagationPolicy" in query:
        options.setdefault("propagationPolicy", query["propagationPolicy"])
    if query.get("gracePeriodSeconds", "").isdigit():
        options.setdefault("gracePeriodSeconds", int(query["gracePeriodSeconds"]))
    for name, kind in (("gracePeriodSeconds", int), ("preconditions", dict), ("dryRun", list)):
        if not isinstance(options.get(name), kind | None):
            raise bad_request(f"{name} is of a wrong type")
    policy = options.get("propagationPolicy")
    if policy not in (None, "", *_POLICIES):
        cause = unsupported("propagationPolicy", policy, [*_POLICIES, "nil"])
        raise invalid_option(options_of(call.request), cause)
    if policy == "Orphan" or options.get("orphanDependents"):
        raise not_served("propagationPolicy Orphan")
    return options


def merged(value: Any, patch: Any) -> Any:
    """The value with a JSON merge patch applied; both arguments stay unchanged.

    As in RFC 7386, except that objects in lists lose their nulls, too: the API server's library does the same.
    """
    if isinstance(patch, list):
        return [merged({}, item) if isinstance(item, dict) else item for item in patch]
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), change)
    return result


def _plain(patch: Any) -> bool:
    if isinstance(patch, dict):
        return all(not name.startswith("$") and _plain(value) for name, value in patch.items())
    return not isinstance(patch, list)


def _content_type(call: Call) -> str:
    return call.request.headers.get("Content-Type", JSON).partition(";")[0].strip().lower()
