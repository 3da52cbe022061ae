"""An embedded Kubernetes API server, as far as the rotator and its users need one.

Guarantees:
- `handle` is atomic and does no I/O.
- `handle` takes time and randomness only from the constructor's arguments.
- So the same requests in the same order give the same answers.
- The server answers 501 to an unsupported request.
- The server runs no controllers: `collect_garbage` and `finish_termination` do their work.
- A deleted pod on a node stays, marked, until its kubelet's stand-in deletes it with `gracePeriodSeconds=0`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sandbox.kubernetes import garbage
from sandbox.kubernetes.call import Call, Hook, Place, dry_run_of, place_of, refuse_unserved, strict_of, verb_of
from sandbox.kubernetes.discovery import discover
from sandbox.kubernetes.errors import ApiError, failure, no_such_resource, page_not_found, too_large, unauthorized
from sandbox.kubernetes.reading import Reader, represented, versioned
from sandbox.kubernetes.resources import BUILT_IN, NAMESPACES, Object, Resource
from sandbox.kubernetes.store import Store
from sandbox.kubernetes.writing import Writer
from sandbox.transport.wire import Exchange, Request, Response, headers_of, http_date

_BODY_LIMIT = 3 * 1024 * 1024


class Kubernetes:
    """The API server, with its storage.

    `token`: the bearer token to ask for, if any. `user`: the user that refusals name.
    `automatic_collection`: whether the garbage collector runs after every request that may have left it work.
    """

    def __init__(
        self,
        now: Callable[[], datetime],
        random: random.Random,
        *,
        token: str | None = None,
        automatic_collection: bool = True,
    ) -> None:
        self.user = "system:serviceaccount:openai-key-rotator:openai-key-rotator"
        self.automatic_collection = automatic_collection
        self.log: list[Exchange] = []
        self._now = now
        self.token = token
        self._store = Store(now, random)
        self._reader = Reader(self._store)
        self._writer = Writer(self._store)
        self._forbidden: set[tuple[str, str, str | None]] = set()
        for name in ("default", "kube-system"):
            self._bootstrap(name)

    def __repr__(self) -> str:
        return f"<Kubernetes: version {self._store.version}, {len(self.log)} requests>"

    # Setting up

    def forbid(self, verb: str, resource: str, namespace: str | None = None) -> None:
        """Refuse the verb on the resource (`pods`, `pods/status`).

        In one namespace; everywhere (None); or only for requests across all namespaces ("").
        """
        self._forbidden.add((verb, resource, namespace))

    def permit(self, verb: str, resource: str, namespace: str | None = None) -> None:
        """Undo `forbid`."""
        self._forbidden.discard((verb, resource, namespace))

    def admission(self, hook: Hook) -> Callable[[], None]:
        """Ask the hook about every write, dry runs included, as a webhook; the answer takes it away again."""
        self._writer.hooks.append(hook)
        return lambda: self._writer.hooks.remove(hook)

    def expire_continue_tokens(self) -> None:
        """Let every continue token given so far answer 410."""
        self._reader.expire_tokens()

    # The controllers' part

    def collect_garbage(self) -> int:
        """Delete the objects whose owners are gone, and then the objects that they owned; returns the count."""
        self._store.suspect_all()
        return self._collect()

    def finish_termination(self) -> None:
        """Empty the namespaces under deletion, and delete those that are empty then."""
        for namespace in list(self._store.listed(NAMESPACES.key)):
            if not namespace["metadata"].get("deletionTimestamp"):
                continue
            emptied = True
            for key in sorted({resource.key for resource in self._store.resources.values() if resource.namespaced}):
                for item in list(self._store.listed(key, namespace["metadata"]["name"])):
                    emptied &= self._writer.remove(self._resource(key), item, grace=0)[1]
            if emptied:
                self._store.remove(NAMESPACES.key, namespace)
        if self.automatic_collection:
            self._collect()

    # Looking in

    def objects(self, plural: str, namespace: str = "") -> Sequence[Object]:
        """The stored objects, to be read only."""
        return [item for key in self._store.keys(plural) for item in self._store.listed(key, namespace)]

    def find(self, plural: str, namespace: str, name: str) -> Object | None:
        """One stored object, to be read only. The namespace of an object outside of namespaces is empty."""
        found = (self._store.get(key, namespace, name) for key in self._store.keys(plural))
        return next((item for item in found if item is not None), None)

    def path_of(self, item: Mapping[str, Any]) -> str:
        """The path of the object, in the namespace `default` if it should name one and does not."""
        for resource in self._store.resources.values():
            if (resource.api_version, resource.kind) == (item["apiVersion"], item["kind"]):
                metadata = item["metadata"]
                return resource.path(metadata.get("namespace") or "default", metadata["name"])
        raise LookupError(f"no resource for {item['apiVersion']} {item['kind']}")

    # Reconciler

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        now = self._now()
        try:
            response = self._answer(request)
        except ApiError as error:
            response = error.response
        if self.automatic_collection and self._store.suspects:
            self._collect()
        self.log.append(Exchange(now, request.method, request.path, response.status))
        headers = {**response.headers, "Date": http_date(now), "Audit-Id": f"{len(self.log):08d}"}
        return Response(response.status, headers_of(headers), response.body)

    def _answer(self, request: Request) -> Response:
        if self.token is not None and request.bearer != self.token:
            raise unauthorized()
        if len(request.body) > _BODY_LIMIT:
            raise too_large(f"Request entity too large: limit is {_BODY_LIMIT}")
        place = place_of(request.segments)
        if place is None:
            return Response.of_json(200, discover(request, self._store.resources.values()))
        verb = verb_of(request, place)
        self._authorize(verb, place)
        resource = self._store.resources.get((place.group, place.version, place.plural))
        if resource is None:
            built_in = {(one.group, one.version) for one in BUILT_IN}
            raise no_such_resource() if (place.group, place.version) in built_in else page_not_found()
        writes = verb not in ("get", "list")
        call = Call(request, verb, place, resource, writes and dry_run_of(request), writes and strict_of(request))
        refuse_unserved(call)
        return self._serve(call)

    def _serve(self, call: Call) -> Response:
        status, result = 200, None
        if call.verb == "get":
            result = self._reader.get(call)
        elif call.verb == "list":
            result = self._reader.page(call)
        elif call.verb == "create":
            status, result = 201, self._writer.create(call)
        elif call.verb == "update":
            result = self._writer.replace(call)
        elif call.verb == "patch":
            result = self._writer.patch(call)
        else:
            item, gone = self._writer.delete(call)
            if gone and not call.resource.returns_deleted:
                return Response.of_json(200, _deleted(call, item))
            result = item
        shown = result if call.verb == "list" else versioned(call.resource, result)
        return Response.of_json(status, represented(call, shown, self._now()))

    def _collect(self) -> int:
        count = 0
        while found := garbage.orphans(self._store):
            for key, namespace, name in found:
                item = self._store.get(key, namespace, name)
                if item is not None:
                    count += self._writer.remove(self._resource(key), item)[1]
        return count

    def _authorize(self, verb: str, place: Place) -> None:
        resource = f"{place.plural}/{place.subresource}" if place.subresource else place.plural
        if not any((verb, resource, namespace) in self._forbidden for namespace in (None, place.namespace)):
            return
        where = f'in the namespace "{place.namespace}"' if place.namespace else "at the cluster scope"
        qualified = f"{place.plural}.{place.group}" if place.group else place.plural
        subject = f'{qualified} "{place.name}"' if place.name else qualified
        deed = f'User "{self.user}" cannot {verb} resource "{resource}" in API group "{place.group}" {where}'
        about = Resource(place.group, place.version, place.plural, "")
        raise failure(403, "Forbidden", f"{subject} is forbidden: {deed}", resource=about, name=place.name)

    def _resource(self, key: tuple[str, str]) -> Resource:
        return next(resource for resource in self._store.resources.values() if resource.key == key)

    def _bootstrap(self, namespace: str) -> None:
        body: dict[str, Any] = {"metadata": {"name": namespace}}
        request = Request.of("POST", "/api/v1/namespaces", json=body)
        place = Place("", "v1", "namespaces", "", "", "")
        self._writer.create(Call(request, "create", place, NAMESPACES))


def _deleted(call: Call, item: Object) -> dict[str, Any]:
    details = {"name": call.name, "group": call.resource.group, "kind": call.resource.plural}
    details = {name: value for name, value in details.items() if value} | {"uid": item["metadata"]["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
