"""The errors, sorted by the caller's next step.

    RotatorError
    ├── ConfigurationError      the run tried nothing: somebody must mend an option, a file or an object first
    │   └── AdminKeyUnusable    the Secret with the admin key is absent or holds no usable key
    ├── OutOfReach              the run cannot use the cluster or the ledger at all, and ends (exit code 3)
    ├── Refused                 a definite answer: the server changed nothing
    │   ├── NotFound
    │   ├── Conflict            stale resourceVersion, or the object exists already
    │   ├── ScopesRefused       OpenAI does not give a key these scopes: another try costs another account
    │   ├── Forbidden           the credentials are known and lack the permission
    │   │   └── ConsumersUnseen  the run may not list pods
    │   └── Throttled           the server asks to come back later
    ├── Deferred                the run pauses requests to OpenAI and changed nothing; a later run goes on
    └── Unanswered              nobody knows whether it happened: never repeat it blindly
        ├── NotSent             the connection never came up, so nothing happened: the caller may repeat it
        ├── NotShown            OpenAI does not show what it must have: by itself that proves nothing
        └── Unintelligible      an answer of success with an unexpected content

Guarantees:
- No error carries text that a server sent (it may quote keys or whole objects).
- Each error has a `reason` in CamelCase, fit for a Kubernetes condition.
- Each message consists of our text, a status, a code and a request id.
"""

from __future__ import annotations

import re
from datetime import datetime

from worker.model.entries import Throttle
from worker.model.targets import ProjectAccess


class RotatorError(Exception):
    """Base of all errors that the stages expect. Callers may match the stable `reason`; people read `message`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class ConfigurationError(RotatorError):
    """Somebody must change an option, a file or an object before a retry makes sense."""


class AdminKeyUnusable(ConfigurationError):
    """The Secret holds no usable admin key; `absent` tells that the Secret does not exist."""

    def __init__(self, message: str, *, absent: bool = False) -> None:
        super().__init__("AdminKeyMissing" if absent else "AdminKeyInvalid", message)
        self.absent = absent


class OutOfReach(RotatorError):
    """The run cannot use the cluster or the ledger, and cannot serve any target."""


class Refused(RotatorError):
    """The server refused, and changed nothing. `status` is the HTTP status.

    `own`: the answer has the server's own form, so nothing in between has written it.
    """

    def __init__(self, reason: str, message: str, *, status: int = 0, own: bool = False) -> None:
        super().__init__(reason, message)
        self.status = status
        self.own = own


class NotFound(Refused):
    """The object, account, project or API does not exist."""


EXISTS = "AlreadyExists"
"""The reason of a Conflict where a create met an object of that name."""


class Conflict(Refused):
    """The object changed since it was read, or exists already."""


class ScopesRefused(Refused):
    """OpenAI did not narrow a new key to the scopes asked for, so nobody gets it. Waiting does not mend that."""


class Forbidden(Refused):
    """Authenticated, but not allowed."""


class ConsumersUnseen(Forbidden):
    """The run may not list pods, so it cannot see the users of a key."""


class Throttled(Refused):
    """Too many requests. `retry_after` is in seconds, None if the server named none."""

    def __init__(self, reason: str, message: str, *, status: int = 429, retry_after: float | None = None) -> None:
        super().__init__(reason, message, status=status)
        self.retry_after = retry_after


class Deferred(RotatorError):
    """The run sends OpenAI nothing before `until`, or (None) in this run.

    `throttle`: OpenAI's latest request to slow down, None if the run sent nothing.
    """

    def __init__(
        self, reason: str, message: str, *, until: datetime | None = None, throttle: Throttle | None = None
    ) -> None:
        super().__init__(reason, message)
        self.until = until
        self.throttle = throttle


class Unanswered(RotatorError):
    """No answer, or an answer that does not tell whether the request took effect.

    `retry_after`: seconds that the server asks for, None if it names none. `final`: the server wants no repetition.
    """

    def __init__(self, reason: str, message: str, *, retry_after: float | None = None, final: bool = False) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after
        self.final = final


class NotSent(Unanswered):
    """No connection: the request cannot have taken effect."""


class NotShown(Unanswered):
    """OpenAI lacks every account that the ledger records for a project, or one that is minutes old.

    Somebody may have deleted them, or a replica without data has answered.
    """


class Unintelligible(Unanswered):
    """An answer of success with an unexpected content."""


_REQUEST = re.compile(r", request [A-Za-z0-9_.-]{1,64}(?=[,)])")
"""How `worker.openai.client` tells the id that OpenAI gave to a request."""


def without_request_id(message: str) -> str:
    """The message as it is in every run: request ids differ, so the same failure would be news."""
    return _REQUEST.sub("", message)


def about(access: ProjectAccess, error: RotatorError) -> str:
    """An error's message; one of OpenAI's also names its key, project or host."""
    project = access.project
    if error.reason in ("OpenAIUnauthorized", "OpenAIForbidden"):
        return f"{error.message}; asked with {access.admin_key} about project {project}"
    if error.reason in ("OpenAINotFound", "OpenAIRefused"):
        return f"{error.message}; asked about project {project}"
    if error.reason in _ABOUT_THE_HOST and project.host not in error.message:
        return f"{error.message}; the host is {project.host}"
    return error.message


_ABOUT_THE_HOST = ("OpenAIUnreachable", "OpenAIUnanswered", "OpenAIUnintelligible", "OpenAIRedirect")
