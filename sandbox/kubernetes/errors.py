"""The API server's refusals, as the `Status` objects that it sends.

Guarantees:
- A `Status` has the fields that a client may rely on (code, reason, details) as the real server fills them.
- Messages quote the object, secret values included, as the real server's do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes.resources import Resource
from sandbox.transport.wire import Response, dump


@dataclass(frozen=True, slots=True)
class Cause:
    """The fault of one field."""

    field: str
    reason: str
    message: str


class ApiError(Exception):
    """The refusal of a request."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response

    @property
    def message(self) -> str:
        """The message of the refusal."""
        return str(self.response.json()["message"])


def failure(
    code: int,
    reason: str,
    message: str,
    *,
    resource: Resource | None = None,
    name: str = "",
    kind: str = "",
    causes: Iterable[Cause] = (),
) -> ApiError:
    """A refusal about an object (its resource and name) or about none."""
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if resource is not None:
        if resource.group:
            details["group"] = resource.group
        details["kind"] = kind or resource.plural
    listed = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    if listed:
        details["causes"] = listed
    status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    status |= {"message": message, "reason": reason} if reason else {"message": message}
    if details:
        status["details"] = details
    return ApiError(Response.of_json(code, status | {"code": code}))


def not_found(resource: Resource, name: str) -> ApiError:
    """404: no such object."""
    return failure(404, "NotFound", f'{resource.qualified} "{name}" not found', resource=resource, name=name)


def page_not_found() -> ApiError:
    """404: no such API; the real one answers with text, too."""
    return ApiError(Response.of_text(404, "404 page not found\n"))


def no_such_resource(resource: Resource | None = None, name: str = "") -> ApiError:
    """404: the API exists, and has no such resource or subresource."""
    message = "the server could not find the requested resource"
    return failure(404, "NotFound", message, resource=resource, name=name)


def already_exists(resource: Resource, name: str) -> ApiError:
    """409: another object has the name."""
    message = f'{resource.qualified} "{name}" already exists'
    return failure(409, "AlreadyExists", message, resource=resource, name=name)


def conflict(resource: Resource, name: str, why: str, *, kind: str = "") -> ApiError:
    """409: the object does not meet the request's precondition."""
    message = f'Operation cannot be fulfilled on {kind or resource.qualified} "{name}": {why}'
    return failure(409, "Conflict", message, resource=resource, name=name, kind=kind)


def modified(resource: Resource, name: str) -> ApiError:
    """409: the request's resourceVersion is stale."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(resource, name, why)


def invalid(resource: Resource, name: str, causes: list[Cause]) -> ApiError:
    """422: fields have wrong values."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    what = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    head = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    message = f'{head} "{name}" is invalid: {what}'
    return failure(422, "Invalid", message, resource=resource, name=name, kind=resource.kind, causes=causes)


def unusable_patch(outcome: object, why: str) -> ApiError:
    """422: the server cannot read the patched object. The message quotes all of it, as the real server's does."""
    cause = wrong("patch", dump(outcome).decode(), why)
    return failure(422, "Invalid", f' "" is invalid: patch: {cause.message}', causes=[cause])


def invalid_option(options: str, cause: Cause) -> ApiError:
    """422: an option of the request has an invalid value."""
    about = Resource("meta.k8s.io", "v1", "", options)
    return failure(
        422,
        "Invalid",
        f'{options}.meta.k8s.io "" is invalid: {cause.field}: {cause.message}',
        resource=about,
        kind=options,
        causes=[cause],
    )


def bad_request(message: str) -> ApiError:
    """400: the request makes no sense."""
    return failure(400, "BadRequest", message)


def forbidden(resource: Resource, name: str, why: str, *, causes: Iterable[Cause] = ()) -> ApiError:
    """403: an admission plugin refuses."""
    head = f'{resource.qualified} "{name}"' if name else resource.qualified
    return failure(403, "Forbidden", f"{head} is forbidden: {why}", resource=resource, name=name, causes=causes)


def method_not_allowed() -> ApiError:
    """405: this resource knows no such verb."""
    return failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def not_acceptable(message: str) -> ApiError:
    """406: the Accept header asks for an unsupported form."""
    return failure(406, "NotAcceptable", message)


def too_large(message: str) -> ApiError:
    """413: the request's body is too large."""
    return failure(413, "RequestEntityTooLarge", message)


def unsupported_media_type(accepted: Iterable[str]) -> ApiError:
    """415: the body has an unsupported type."""
    text = "the body of the request was in an unknown format - accepted media types include: "
    return failure(415, "UnsupportedMediaType", text + ", ".join(accepted))


def expired() -> ApiError:
    """410: the list's continue token is too old."""
    message = (
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter."
    )
    return failure(410, "Expired", message)


def unauthorized() -> ApiError:
    """401: no token, or a wrong one."""
    return failure(401, "Unauthorized", "Unauthorized")


def not_served(what: str) -> ApiError:
    """501: the sandbox does not do this."""
    return failure(501, "NotImplemented", f"The sandbox does not do this: {what}.")


def required(field: str, detail: str = "") -> Cause:
    """A field is missing."""
    return Cause(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def wrong(field: str, value: object, detail: str) -> Cause:
    """A field has a wrong value."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {dump(value).decode()}: {detail}")


def unsupported(field: str, value: object, supported: Iterable[object]) -> Cause:
    """A field has none of the values that it may have."""
    known = ", ".join(dump(one).decode() for one in supported)
    return Cause(
        field, "FieldValueNotSupported", f"Unsupported value: {dump(value).decode()}: supported values: {known}"
    )


def too_long(field: str, limit: int) -> Cause:
    """A field's value is too long."""
    return Cause(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def too_many(field: str, count: int, limit: int) -> Cause:
    """A list has too many items."""
    return Cause(field, "FieldValueTooMany", f"Too many: {count}: must have at most {limit} items")


def field_forbidden(field: str, detail: str) -> Cause:
    """A field may not be set."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")
