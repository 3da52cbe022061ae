"""Collection of objects whose owners are gone, as the garbage collector does it.

Guarantees:
- An object goes when none of its owners exists under the uid that its references name.
- The collector looks for a namespaced owner in the object's own namespace only.
- So a reference across namespaces counts as one to a missing owner.
"""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.resources import Resource
from sandbox.kubernetes.store import Place, Store


def orphans(store: Store) -> list[Place]:
    """The suspects to delete now; each deletion makes suspects of the objects that the deleted one owned."""
    suspects = sorted(store.suspects)
    store.suspects.clear()
    return [place for place in suspects if _is_orphan(store, place)]


def _is_orphan(store: Store, place: Place) -> bool:
    key, namespace, name = place
    item = store.get(key, namespace, name)
    owners = item["metadata"].get("ownerReferences", []) if item is not None else []
    return bool(owners) and not any(_exists(store, namespace, owner) for owner in owners)


def _exists(store: Store, namespace: str, owner: dict[str, Any]) -> bool:
    resource = _resource(store, owner["apiVersion"], owner["kind"])
    if resource is None:
        # The real collector cannot look such an owner up and waits, unless it saw it being deleted.
        return owner["uid"] not in store.deleted_uids
    if resource.namespaced and not namespace:
        return True  # a cluster-wide object cannot have a namespaced owner: the real one leaves it alone
    found = store.get(resource.key, namespace if resource.namespaced else "", owner["name"])
    return found is not None and found["metadata"]["uid"] == owner["uid"]


def _resource(store: Store, api_version: str, kind: str) -> Resource | None:
    matching = (one for one in store.resources.values() if one.api_version == api_version and one.kind == kind)
    return next(matching, None)
