"""Why no connection came up, in this machine's words (OpenSSL's, the system's): no text of a server's. Pure."""

from __future__ import annotations

import os
import re

_WORDS = re.compile(r"[A-Za-z0-9 ,.'()/-]{1,120}\Z")


def certificate_problem(error: object) -> str:
    """The verification's result, such as "self-signed certificate in certificate chain".

    `error`: aiohttp.ClientConnectorCertificateError, or what stands in for it.
    """
    cause = getattr(error, "certificate_error", None)
    message, code = getattr(cause, "verify_message", None), getattr(cause, "verify_code", None)
    if not isinstance(message, str) or not _WORDS.match(message):
        return type(cause).__name__
    return f"{message}, verify code {code}"


def connection_problem(error: object) -> str:
    """Such as "Connection refused, errno 111"; without a number the kind of error alone.

    `error`: aiohttp.ClientConnectorError, or another of its kind.
    """
    kind, number = type(error).__name__, getattr(getattr(error, "os_error", None), "errno", None)
    if kind == "ClientConnectorDNSError":
        return f"its name cannot be resolved, {kind}"
    if isinstance(number, int) and number > 0:
        return f"{os.strerror(number)}, errno {number}"
    return kind
