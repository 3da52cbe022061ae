"""A request to the API server, taken apart: which verb on which object of which resource."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sandbox.kubernetes.errors import (
    ApiError,
    failure,
    invalid_option,
    method_not_allowed,
    no_such_resource,
    not_served,
    page_not_found,
    unsupported,
)
from sandbox.kubernetes.resources import Object, Resource
from sandbox.transport.wire import Request


@dataclass(frozen=True, slots=True)
class Place:
    """The parts that a path names; a part is empty if the path has none."""

    group: str
    version: str
    plural: str
    namespace: str
    name: str
    subresource: str


@dataclass(frozen=True, slots=True)
class Call:
    """A request about objects of a served resource."""

    request: Request
    verb: str
    place: Place
    resource: Resource
    dry_run: bool = False
    strict: bool = False

    @property
    def namespace(self) -> str:
        """The namespace in the path."""
        return self.place.namespace

    @property
    def name(self) -> str:
        """The object's name in the path."""
        return self.place.name


@dataclass(frozen=True, slots=True)
class Admission:
    """The request for an admission hook; `object` is the object to store, None for a deletion."""

    operation: str
    resource: str
    namespace: str
    name: str
    object: Object | None
    old: Object | None
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Denial:
    """An admission hook's answer that also sets the status of the refusal, in place of a mere message."""

    message: str
    code: int = 403
    reason: str = "Forbidden"

    def error(self) -> ApiError:
        """The refusal as sent, with the API server's prefix before a webhook's message."""
        text = f'admission webhook "hook.sandbox" denied the request: {self.message}'
        return failure(self.code, self.reason, text)


Hook = Callable[[Admission], Denial | str | None]


def place_of(segments: tuple[str, ...]) -> Place | None:
    """The place that the path names, or None if it is not about objects."""
    match segments:
        case ("api", version, *rest) if rest:
            group = ""
        case ("apis", group, version, *rest) if rest:
            pass
        case _:
            return None
    if len(rest) > 5 or not all(rest):
        raise page_not_found()
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and (group or rest[2] not in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        raise no_such_resource()
    plural, name, subresource = (*rest, "", "")[:3]
    return Place(group, version, plural, namespace, name, subresource)


def verb_of(request: Request, place: Place) -> str:
    """The verb as permissions name it."""
    if request.method == "GET":
        if request.query.get("watch") in ("true", "1"):
            return "watch"
        return "get" if place.name else "list"
    if request.method == "DELETE":
        return "delete" if place.name else "deletecollection"
    verbs = {"POST": "create", "PUT": "update", "PATCH": "patch"}
    try:
        return verbs[request.method]
    except KeyError:
        raise method_not_allowed() from None


def dry_run_of(request: Request, options: object = None) -> bool:
    """Is the request a dry run, by the query or by a deletion's options?"""
    asked = request.query.get("dryRun")
    if isinstance(options, dict) and options.get("dryRun"):
        asked = ",".join(options["dryRun"])
    if asked in (None, ""):
        return False
    if asked != "All":
        raise invalid_option(options_of(request), unsupported("dryRun", [asked], ["All"]))
    return True


def options_of(request: Request) -> str:
    """The API server's name for the request's options."""
    return {"POST": "Create", "PUT": "Update", "PATCH": "Patch", "DELETE": "Delete"}.get(request.method, "") + "Options"


def strict_of(request: Request) -> bool:
    """Must the server refuse unknown fields?"""
    asked = request.query.get("fieldValidation", "")
    if asked not in ("", "Ignore", "Strict", "Warn"):
        known = ["", "Ignore", "Strict", "Warn"]
        raise invalid_option(options_of(request), unsupported("fieldValidation", asked, known))
    return asked == "Strict"


def refuse_unserved(call: Call) -> None:
    """Raise 405 or 501 for a verb that this resource, or the sandbox, does not support."""
    subresource = call.place.subresource
    if subresource and not (subresource == "status" and call.resource.has_status):
        if call.resource.custom or subresource == "status":
            raise no_such_resource(call.resource, call.name)
        raise not_served(f"the subresource {call.resource.plural}/{subresource}")
    if call.verb in ("watch", "deletecollection"):
        raise not_served(f"{call.verb} of {call.resource.plural}")
    needs_namespace = call.resource.namespaced and not call.namespace and call.verb != "list"
    if needs_namespace or (call.namespace and not call.resource.namespaced):
        raise method_not_allowed() if call.verb == "create" else no_such_resource()
    if bool(call.name) is (call.verb in ("create", "list")):
        raise method_not_allowed()
    if subresource and call.verb not in ("get", "update", "patch"):
        raise method_not_allowed()
