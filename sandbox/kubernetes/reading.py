"""Get and list: selectors, pages, and the forms of an answer.

Guarantees:
- The pages of one list show the objects of one moment.
- The server answers 410 to an expired token.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from datetime import datetime
from typing import Any

from sandbox.kubernetes.call import Call
from sandbox.kubernetes.errors import bad_request, expired, not_acceptable, not_found, not_served
from sandbox.kubernetes.resources import Object, Resource
from sandbox.kubernetes.selectors import by_fields, by_labels
from sandbox.kubernetes.store import Store
from sandbox.kubernetes.tables import table

_REMEMBERED_LISTS = 1000  # the real API server forgets a token's list after some minutes


class Reader:
    """The reading half of the API server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rest: OrderedDict[str, tuple[str, list[Object]]] = (
            OrderedDict()
        )  # by token: version, the remaining objects
        self._tokens = 0

    def get(self, call: Call) -> Object:
        """One object."""
        item = self._store.get(call.resource.key, call.namespace, call.name)
        if item is None:
            raise not_found(call.resource, call.name)
        return versioned(call.resource, item)

    def page(self, call: Call) -> Object:
        """A list, or a page of one."""
        query = call.request.query
        if query.get("resourceVersion", "0") not in ("", "0"):
            raise not_served("lists at a resourceVersion")
        limit = _limit(query.get("limit", "0"))
        token = query.get("continue")
        if token:
            version, items = self._continued(token)
        else:
            version, items = str(self._store.version), self._selected(call)
        metadata: dict[str, Any] = {"resourceVersion": version}
        if limit and len(items) > limit:
            metadata["continue"] = self._remember(version, items[limit:])
            if not query.get("labelSelector") and not query.get("fieldSelector"):
                metadata["remainingItemCount"] = len(items) - limit
            items = items[:limit]
        shown = [versioned(call.resource, item) for item in items]
        if not call.resource.custom:  # the real API server leaves the kind out of the items of built-in lists
            shown = [{name: item[name] for name in item if name not in ("apiVersion", "kind")} for item in shown]
        kind = call.resource.list_kind or call.resource.kind + "List"
        return {"kind": kind, "apiVersion": call.resource.api_version, "metadata": metadata, "items": shown}

    def expire_tokens(self) -> None:
        """Let every continue token given so far answer 410."""
        self._rest.clear()

    def _selected(self, call: Call) -> list[Object]:
        labels = by_labels(call.request.query.get("labelSelector", ""))
        fields = by_fields(call.request.query.get("fieldSelector", ""), call.resource)
        return [item for item in self._store.listed(call.resource.key, call.namespace) if labels(item) and fields(item)]

    def _continued(self, token: str) -> tuple[str, list[Object]]:
        if not re.fullmatch(r"page-\d+", token):
            raise bad_request("continue key is not valid")
        if token not in self._rest:
            raise expired()
        return self._rest[token]

    def _remember(self, version: str, items: list[Object]) -> str:
        self._tokens += 1
        token = f"page-{self._tokens}"
        self._rest[token] = (version, items)
        if len(self._rest) > _REMEMBERED_LISTS:
            self._rest.popitem(last=False)
        return token


def versioned(resource: Resource, item: Object) -> Object:
    """The object as this version of its resource shows it."""
    return item if item["apiVersion"] == resource.api_version else {**item, "apiVersion": resource.api_version}


def represented(call: Call, item: Object, now: datetime) -> Object:
    """The object or list in the first supported form of the Accept header."""
    accept = call.request.headers.get("Accept", "")
    for wish in accept.split(","):
        parameters = dict(part.strip().partition("=")[::2] for part in wish.split(";")[1:])
        form = parameters.get("as")
        if form is None or parameters.get("g") != "meta.k8s.io":
            return item
        listed = "items" in item and item["kind"].endswith("List")
        if form in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            if listed != (form == "PartialObjectMetadataList"):
                article = "a" if listed else "not a"
                raise not_acceptable(f"you requested {form}, but the requested object is {article} list")
            return _partial_list(item) if listed else _partial(item)
        if form == "Table" and call.resource.custom:
            return table(call.resource, item, now)
    return item


def _partial(item: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}


def _partial_list(page: Object) -> Object:
    items = [_partial(item) for item in page["items"]]
    head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": page["metadata"]}
    return head | {"items": items}


def _limit(text: str) -> int:
    if not re.fullmatch(r"-?\d+", text):
        raise bad_request(f"limit {text!r} is not a number")
    return max(0, int(text))
