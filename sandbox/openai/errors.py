"""OpenAI's error responses, in its own shape.

Guarantee: a 401 quotes part of the sent key, marker included, as the real one does.
A client that passes the text on leaks that part.
"""

from __future__ import annotations

from sandbox.transport.wire import Response


class OpenAIError(Exception):
    """An error answer to a request."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(status)
        error = {"message": message, "type": kind, "param": param, "code": code}
        self.response = Response.of_json(status, {"error": error})


def invalid(message: str, param: str | None = None) -> OpenAIError:
    """400: the server cannot serve the request as it is."""
    return OpenAIError(400, message, param=param)


def missing(what: str, identifier: str) -> OpenAIError:
    """404: there is no such object."""
    return OpenAIError(404, f"No {what} found with id '{identifier}'.")


def unauthorized(key: str | None) -> OpenAIError:
    """401: no key, or a key that OpenAI does not accept."""
    if not key:
        return OpenAIError(401, "You didn't provide an API key. You need to provide it in an Authorization header.")
    quoted = f"{key[:20]}{'*' * 20}{key[-4:]}"
    help_text = "You can find your API key at https://platform.openai.com/account/api-keys."
    return OpenAIError(401, f"Incorrect API key provided: {quoted}. {help_text}", code="invalid_api_key")


def forbidden(scope: str) -> OpenAIError:
    """403: the key is good, but not for this."""
    return OpenAIError(403, f"You have insufficient permissions for this operation. Missing scopes: {scope}.")


def lacking(scope: str) -> OpenAIError:
    """401: the key is good, and its scopes are too narrow for this."""
    text = f"You have insufficient permissions for this operation. Missing scopes: {scope}."
    return OpenAIError(401, f"{text} If you're using a restricted API key, check that it has the necessary scopes.")


def not_served(what: str) -> OpenAIError:
    """501: the sandbox does not do this."""
    return OpenAIError(501, f"The sandbox does not do this: {what}.", kind="not_implemented")
