"""Create, replace, patch and delete, with the order of checks that the API server has.

Guarantees:
- A request takes effect in full or not at all.
- A stale resourceVersion or a failed precondition changes nothing (409).
- A write without a change keeps the resourceVersion.
- `dryRun=All` checks all and stores nothing.
"""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes import crds
from sandbox.kubernetes import schema as schemas
from sandbox.kubernetes.bodies import delete_options, json_body, merged, patch_body
from sandbox.kubernetes.call import Admission, Call, Denial, Hook, dry_run_of
from sandbox.kubernetes.errors import (
    ApiError,
    Cause,
    already_exists,
    bad_request,
    conflict,
    failure,
    forbidden,
    invalid,
    modified,
    not_found,
    not_served,
    required,
    too_large,
    unusable_patch,
    wrong,
)
from sandbox.kubernetes.metadata import check_change, keep_server_fields
from sandbox.kubernetes.objects import check, read, unknown_fields
from sandbox.kubernetes.resources import CRDS, NAMESPACES, PODS, Object, Resource
from sandbox.kubernetes.store import Store
from sandbox.transport.wire import dump

_OBJECT_LIMIT = 1_572_864  # the limit of etcd
_KEPT_NAMESPACES = ("default", "kube-system", "kube-public")


class Writer:
    """The writing half of the API server."""

    def __init__(self, store: Store) -> None:
        self.hooks: list[Hook] = []
        self._store = store

    def create(self, call: Call) -> Object:
        """POST."""
        resource, store = call.resource, self._store
        body = json_body(call)
        item = read(resource, body)
        metadata = item["metadata"]
        self._place(call, metadata)
        unknown = self._shape(resource, item, body)
        if unknown and call.strict:
            raise bad_request(unknown)
        if metadata.get("resourceVersion"):
            raise failure(500, "", "resourceVersion should not be set on objects to be created")
        self._check_namespace(call, metadata)
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                cause = required("metadata.name", "name or generateName is required")
                raise invalid(resource, "", [cause])
            metadata["name"] = metadata["generateName"][:58] + store.new_suffix()
        keep_server_fields(item, None)
        metadata |= {"uid": store.new_uid(), "creationTimestamp": store.timestamp()}
        if resource.counts_generations:
            metadata["generation"] = 1
        if resource.has_status:
            item.pop("status", None)
        self._begin(resource, item)
        self._refuse(resource, item, self._problems(resource, item, None))
        self._admit(call, "CREATE", item, old=None)
        if store.get(resource.key, call.namespace, metadata["name"]) is not None:
            raise already_exists(resource, metadata["name"])
        return self._commit(call, item)

    def replace(self, call: Call) -> Object:
        """PUT."""
        old = self._existing(call)
        body = json_body(call)
        new = read(call.resource, body)
        unknown = self._shape(call.resource, new, body)
        if unknown and call.strict:
            raise bad_request(unknown)
        if new["metadata"].get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            raise conflict(call.resource, call.name, "Precondition failed: UID in precondition")
        return self._update(call, old, new)

    def patch(self, call: Call) -> Object:
        """PATCH: a JSON merge patch, or a strategic one where that says the same."""
        old = self._existing(call)
        outcome = schemas.copied(merged({**old, "apiVersion": call.resource.api_version}, patch_body(call)))
        try:
            new = read(call.resource, outcome)
        except ApiError as error:
            raise unusable_patch(outcome, error.message) from None
        unknown = self._shape(call.resource, new, outcome)
        if unknown and call.strict:
            raise unusable_patch(outcome, unknown)
        return self._update(call, old, new)

    def delete(self, call: Call) -> tuple[Object, bool]:
        """DELETE; returns the object as it was or is now, and whether it is gone."""
        options = delete_options(call)
        old = self._existing(call)
        self._check_preconditions(call, old, options.get("preconditions") or {})
        self._admit(call, "DELETE", None, old=old)
        dry_run = call.dry_run or dry_run_of(call.request, options)
        return self.remove(call.resource, old, grace=options.get("gracePeriodSeconds"), dry_run=dry_run)

    def remove(
        self, resource: Resource, old: Object, *, grace: int | None = None, dry_run: bool = False
    ) -> tuple[Object, bool]:
        """Delete an object, or mark it as being deleted if another step must come first."""
        if resource.key == NAMESPACES.key:
            if old["metadata"]["name"] in _KEPT_NAMESPACES:
                raise forbidden(resource, old["metadata"]["name"], "this namespace may not be deleted")
            marked = self._marked(old, None) | {"status": {"phase": "Terminating"}}
        elif resource.key == PODS.key and grace != 0 and old.get("spec", {}).get("nodeName"):
            # Its kubelet ends the containers and then deletes it with a grace of 0.
            default = old["spec"].get("terminationGracePeriodSeconds", 30)
            marked = self._marked(old, default if grace is None else grace)
        elif old["metadata"].get("finalizers"):
            marked = self._marked(old, 0)
        else:
            if not dry_run:
                self._forget(resource, old)
            return old, True
        if dry_run or marked == old:
            return marked, False
        return self._store.put(resource.key, marked), False

    def _forget(self, resource: Resource, old: Object) -> None:
        if resource.key == CRDS.key:
            group, plural = old["spec"]["group"], old["spec"]["names"]["plural"]
            if any(item["metadata"].get("finalizers") for item in self._store.listed((group, plural))):
                raise not_served("deleting a CRD whose objects have finalizers")
            self._store.clear(group, plural)
            self._store.withdraw(group, plural)
        self._store.remove(resource.key, old)

    def _marked(self, old: Object, grace: int | None) -> Object:
        metadata = dict(old["metadata"])
        metadata.setdefault("deletionTimestamp", self._store.timestamp())
        if grace is not None:
            metadata.setdefault("deletionGracePeriodSeconds", grace)
        return {**old, "metadata": metadata}

    def _update(self, call: Call, old: Object, new: Object) -> Object:
        resource, metadata = call.resource, new["metadata"]
        self._place(call, metadata)
        self._check_version(resource, metadata, old)
        changes = check_change(metadata, old["metadata"])
        keep_server_fields(new, old)
        if call.place.subresource == "status":
            new = {**old, "apiVersion": resource.api_version, "status": new.get("status")}
            if new["status"] is None:
                del new["status"]
        elif resource.has_status:
            new.pop("status", None)
            new |= {"status": old["status"]} if "status" in old else {}
        if resource.key == NAMESPACES.key:
            new["spec"] = old["spec"]  # its finalizers are a subresource
        if resource.counts_generations and self._counts(resource, old) != self._counts(resource, new):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        self._refuse(resource, new, changes + self._problems(resource, new, old))
        self._admit(call, "UPDATE", new, old=old)
        if {**new, "apiVersion": old["apiVersion"]} == old:
            return new
        ending = new["metadata"].get("deletionTimestamp") and resource.key not in (NAMESPACES.key, PODS.key)
        if ending and not new["metadata"].get("finalizers") and not call.dry_run:
            self._forget(resource, old)
            return new
        return self._commit(call, new)

    def _counts(self, resource: Resource, item: Object) -> Object:
        ignored = {"apiVersion", "metadata", "status"} if resource.has_status else {"apiVersion", "metadata"}
        return {name: value for name, value in item.items() if name not in ignored}

    def _existing(self, call: Call) -> Object:
        old = self._store.get(call.resource.key, call.namespace, call.name)
        if old is None:
            raise not_found(call.resource, call.name)
        return old

    def _place(self, call: Call, metadata: Object) -> None:
        given = metadata.get("namespace")
        if given and given != call.namespace:
            text = "the namespace of the provided object does not match the namespace sent on the request"
            raise bad_request(text)
        if call.namespace:
            metadata["namespace"] = call.namespace
        if call.name and not metadata.get("name"):
            raise bad_request(f"the name of the object ({call.name} based on URL) was undeterminable")
        if call.name and metadata["name"] != call.name:
            text = f"the name of the object ({metadata['name']}) does not match the name on the URL ({call.name})"
            raise bad_request(text)

    def _check_namespace(self, call: Call, metadata: Object) -> None:
        if not call.namespace:
            return
        namespace = self._store.get(NAMESPACES.key, "", call.namespace)
        if namespace is None:
            raise not_found(NAMESPACES, call.namespace)
        if namespace["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {call.namespace} because it is being terminated"
            text = f"namespace {call.namespace} is being terminated"
            cause = Cause("metadata.namespace", "NamespaceTerminating", text)
            raise forbidden(call.resource, metadata.get("name", ""), why, causes=[cause])

    def _check_preconditions(self, call: Call, old: Object, wanted: dict[str, Any]) -> None:
        for name, title in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            value, actual = wanted.get(name), old["metadata"][name]
            if value is not None and value != actual:
                why = f"the {title} in the precondition ({value}) does not match the {title} in record ({actual})"
                raise conflict(call.resource, call.name, why, kind=call.resource.kind)

    def _check_version(self, resource: Resource, metadata: Object, old: Object) -> None:
        version, name = metadata.get("resourceVersion"), old["metadata"]["name"]
        if version is None and resource.custom:
            cause = wrong("metadata.resourceVersion", 0, "must be specified for an update")
            raise failure(422, "Invalid", cause.message, resource=resource, name=name, causes=[cause])
        if version is not None and not version.isdigit():
            raise failure(500, "", f'invalid resource version "{version}"')
        if version not in (None, old["metadata"]["resourceVersion"]):
            raise modified(resource, name)

    def _shape(self, resource: Resource, item: Object, body: Object) -> str:
        """Prune the object and fill in defaults; returns the findings of strict validation."""
        unknown = unknown_fields(resource, body)
        if resource.schema is not None:
            unknown += schemas.prune(item, resource.schema)
            schemas.apply_defaults(item, resource.schema)
        return "strict decoding error: " + ", ".join(f'unknown field "{path}"' for path in unknown) if unknown else ""

    def _begin(self, resource: Resource, item: Object) -> None:
        """Fill in the fields that the API server itself writes into a new object of some kinds."""
        if resource.key == NAMESPACES.key:
            labels = item["metadata"].get("labels", {})
            item["metadata"]["labels"] = {**labels, "kubernetes.io/metadata.name": item["metadata"]["name"]}
            item |= {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
        elif resource.key == PODS.key:
            item["status"] = {"phase": "Pending"}
        elif resource.key == CRDS.key:
            crds.establish(item, self._store.timestamp())

    def _problems(self, resource: Resource, item: Object, old: Object | None) -> list[Cause]:
        causes = check(resource, item, old)
        if resource.key == CRDS.key:
            return causes + crds.check(item)
        if resource.schema is not None:
            causes += schemas.validate(item, resource.schema)
        return causes

    def _refuse(self, resource: Resource, item: Object, causes: list[Cause]) -> None:
        if causes:
            raise invalid(resource, item["metadata"]["name"], causes)

    def _admit(self, call: Call, operation: str, item: Object | None, *, old: Object | None) -> None:
        name = (item or old or {})["metadata"]["name"]
        admission = Admission(operation, call.resource.plural, call.namespace, name, item, old, call.dry_run)
        for hook in self.hooks:
            answer = hook(admission)
            if isinstance(answer, str):
                answer = Denial(answer)
            if answer is not None:
                raise answer.error()

    def _commit(self, call: Call, item: Object) -> Object:
        if len(dump(item)) > _OBJECT_LIMIT:
            raise too_large("etcdserver: request is too large")
        if call.dry_run:
            return item
        item = self._store.put(call.resource.key, item)
        if call.resource.key == CRDS.key:
            self._store.withdraw(item["spec"]["group"], item["spec"]["names"]["plural"])
            for served in crds.resources(item):
                self._store.serve(served)
        return item
