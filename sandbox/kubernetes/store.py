"""The objects of the embedded API server, with one counter of versions for all of them.

Guarantee: the store never changes an object in place, so a reader's copy stays as read.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime

from sandbox.kubernetes.resources import BUILT_IN, Object, Resource

Key = tuple[str, str]
Place = tuple[Key, str, str]  # resource, namespace, name


class Store:
    """The stored objects, and the served resources."""

    def __init__(self, now: Callable[[], datetime], source: random.Random) -> None:
        self.now = now
        self.version = 0
        self.suspects: set[Place] = set()  # objects whose owners the collector must look for
        self.deleted_uids: set[str] = set()
        self.resources: dict[tuple[str, str, str], Resource] = {}
        self._random = source
        self._dependents: dict[str, set[Place]] = {}  # by their owners' uids; may hold some that are gone
        self._keys: dict[str, set[Key]] = {}  # by the resource's plural
        self._objects: dict[Key, dict[str, dict[str, Object]]] = {}
        for resource in BUILT_IN:
            self.serve(resource)

    def serve(self, resource: Resource) -> None:
        """Begin to serve the resource."""
        self.resources[resource.group, resource.version, resource.plural] = resource
        self._keys.setdefault(resource.plural, set()).add(resource.key)

    def withdraw(self, group: str, plural: str) -> None:
        """Serve no version of the resource any more."""
        for place in [one for one in self.resources if (one[0], one[2]) == (group, plural)]:
            del self.resources[place]
        self._keys.get(plural, set()).discard((group, plural))

    def keys(self, plural: str) -> list[Key]:
        """Every group's resource of this name, in the order of the groups."""
        return sorted(self._keys.get(plural, ()))

    def clear(self, group: str, plural: str) -> None:
        """Forget all objects of the resource."""
        for item in list(self.listed((group, plural))):
            self.remove((group, plural), item)

    def get(self, key: Key, namespace: str, name: str) -> Object | None:
        """The object, if there is one."""
        return self._objects.get(key, {}).get(namespace, {}).get(name)

    def listed(self, key: Key, namespace: str = "") -> Iterator[Object]:
        """The objects of one namespace, or of all, in the order of their names."""
        spaces = self._objects.get(key, {})
        for space in (namespace,) if namespace else sorted(spaces):
            objects = spaces.get(space, {})
            for name in sorted(objects):
                yield objects[name]

    def put(self, key: Key, item: Object) -> Object:
        """Store the object under the next version; the answer is the object as stored."""
        self.version += 1
        metadata = {**item["metadata"], "resourceVersion": str(self.version)}
        item = {**item, "metadata": metadata}
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        self._objects.setdefault(key, {}).setdefault(namespace, {})[name] = item
        for owner in metadata.get("ownerReferences", ()):
            self.suspects.add((key, namespace, name))
            self._dependents.setdefault(owner["uid"], set()).add((key, namespace, name))
        return item

    def remove(self, key: Key, item: Object) -> None:
        """Forget the object."""
        metadata = item["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        self.version += 1
        del self._objects[key][namespace][name]
        self.deleted_uids.add(metadata["uid"])
        self.suspects |= self._dependents.pop(metadata["uid"], set())

    def suspect_all(self) -> None:
        """Let the collector look for the owners of everything that has any."""
        self.suspects.update(*self._dependents.values())

    def new_uid(self) -> str:
        """A uid that no other object has."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def new_suffix(self) -> str:
        """The random part of a generated name."""
        return "".join(self._random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))

    def timestamp(self) -> str:
        """Now, as objects carry it."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
