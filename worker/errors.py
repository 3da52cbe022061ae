"""What can go wrong, sorted by what the caller may do next.

    RotatorError
    ├── ConfigurationError      nothing was tried: an option, a file or an object must be mended first
    │   └── AdminKeyUnusable    the Secret with the admin key is absent or holds no usable key
    ├── OutOfReach              the cluster or the ledger cannot be used at all: the run ends (exit code 3)
    ├── Refused                 a definite answer: nothing was changed
    │   ├── NotFound
    │   ├── Conflict            stale resourceVersion, or the object exists already
    │   ├── Forbidden           the credentials are known and lack the permission
    │   │   └── ConsumersUnseen  pods may not be listed
    │   └── Throttled           asked to come back later
    ├── Deferred                OpenAI is left alone for a while: nothing was changed, a later run goes on
    └── Unanswered              nobody knows whether it happened: never repeat it blindly
        ├── NotSent             the connection never came up, so nothing happened: may be repeated
        └── Unintelligible      answered with success, but not with what was asked for

Guarantee: no error carries text that a server sent (it may quote keys or whole objects). Each has a `reason` in
CamelCase, fit for a Kubernetes condition, and a message made of our words, a status, a code and a request id.
"""

from __future__ import annotations

from datetime import datetime

from worker.model.entries import Throttle
from worker.model.targets import ProjectAccess


class RotatorError(Exception):
    """Base of all errors that the stages expect. `reason` is stable and may be matched; the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class ConfigurationError(RotatorError):
    """Somebody must change an option, a file or an object before a retry makes sense."""


class AdminKeyUnusable(ConfigurationError):
    """The admin key cannot be read; `absent` tells that its Secret does not exist."""

    def __init__(self, message: str, *, absent: bool = False) -> None:
        super().__init__("AdminKeyMissing" if absent else "AdminKeyInvalid", message)
        self.absent = absent


class OutOfReach(RotatorError):
    """The cluster or the ledger cannot be used; no target can be served."""


class Refused(RotatorError):
    """The server answered that it will not; nothing was changed. `status` is the HTTP status."""

    def __init__(self, reason: str, message: str, *, status: int = 0) -> None:
        super().__init__(reason, message)
        self.status = status


class NotFound(Refused):
    """The object, account, project or API does not exist."""


class Conflict(Refused):
    """The object changed since it was read, or exists already."""


class Forbidden(Refused):
    """Authenticated, but not allowed."""


class ConsumersUnseen(Forbidden):
    """Pods may not be listed: it cannot be seen who uses a key."""


class Throttled(Refused):
    """Too many requests. `retry_after` is in seconds, None where the server named none."""

    def __init__(self, reason: str, message: str, *, status: int = 429, retry_after: float | None = None) -> None:
        super().__init__(reason, message, status=status)
        self.retry_after = retry_after


class Deferred(RotatorError):
    """OpenAI is left alone: until then at least, or (None) for this run. `throttle`: what it has just
    asked for, None where nothing was sent.
    """

    def __init__(
        self, reason: str, message: str, *, until: datetime | None = None, throttle: Throttle | None = None
    ) -> None:
        super().__init__(reason, message)
        self.until = until
        self.throttle = throttle


class Unanswered(RotatorError):
    """No answer, or none that tells whether the request took effect."""


class NotSent(Unanswered):
    """No connection: the request cannot have taken effect."""


class Unintelligible(Unanswered):
    """An answer of success whose content is not what was asked for."""


def about(access: ProjectAccess, error: RotatorError) -> str:
    """An error's message; one of OpenAI's says which key, project or host it is about, where it does not yet."""
    project = access.project
    if error.reason in ("OpenAIUnauthorized", "OpenAIForbidden"):
        return f"{error.message}; asked with {access.admin_key} about project {project}"
    if error.reason in ("OpenAINotFound", "OpenAIRefused"):
        return f"{error.message}; asked about project {project}"
    if error.reason in _ABOUT_THE_HOST and project.host not in error.message:
        return f"{error.message}; the host is {project.host}"
    return error.message


_ABOUT_THE_HOST = ("OpenAIUnreachable", "OpenAIUnanswered", "OpenAIUnintelligible", "OpenAIRedirect")
