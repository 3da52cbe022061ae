"""What is wrong with a server's certificate, in words that this machine's OpenSSL has: no text of a server's. Pure."""

from __future__ import annotations

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
