"""The hosts that may receive an admin key. Pure.

Guarantee: the parsed scheme, name and port decide about a host, never a prefix of its text
(`https://api.openai.com@evil.example` begins like OpenAI's own).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_HOST = "https://api.openai.com/v1"
_OPENAI = "api.openai.com"
_CHARACTERS = "has characters that a host and path may not have"
_PATH = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?\Z")
_PRINTABLE = re.compile(r"[!-~]*\Z")
"""urlsplit drops line ends anywhere, and lowercasing may turn a foreign capital letter into an ASCII one."""
_BRACKETS = re.compile(r"\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._~-]+)?\](:[0-9]*)?\Z")
"""An IPv6 address and a port. urlsplit ignores other text beside the brackets."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class Origin:
    scheme: str
    name: str
    port: int


def normalise(host: object) -> tuple[str, Origin]:
    """The base URL without trailing slash and its origin. Raises ValueError, whose message names the problem."""
    if not isinstance(host, str) or len(host) > 500:
        raise ValueError("is not a URL")
    if not _PRINTABLE.match(host):
        raise ValueError(_CHARACTERS)
    try:
        parts = urlsplit(host)
        port, name = parts.port, (parts.hostname or "").lower()
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("https", "http") or not name:
        raise ValueError("is not an https URL")
    if "@" in parts.netloc or "?" in host or "#" in host:
        raise ValueError("must not have user info, a query or a fragment")
    if not (_is_address(name) or _NAME.match(name)) or not _PATH.match(parts.path):
        raise ValueError(_CHARACTERS)
    if "[" in parts.netloc and not _BRACKETS.match(parts.netloc):
        raise ValueError(_CHARACTERS)
    origin = Origin(parts.scheme, name, port or (443 if parts.scheme == "https" else 80))
    shown = f"[{name}]" if ":" in name else name
    explicit = f":{port}" if port else ""
    return f"{parts.scheme}://{shown}{explicit}{parts.path.rstrip('/')}", origin


def allowed(origin: Origin, named: Iterable[Origin]) -> bool:
    """OpenAI's own hosts (regional ones are subdomains) over https, and those that the operator has named."""
    own = origin.name == _OPENAI or origin.name.endswith("." + _OPENAI)
    return (own and origin.scheme == "https" and origin.port == 443) or origin in set(named)


def is_allowed(host: str, named: Iterable[Origin]) -> bool:
    """The same for a base URL that nobody has checked yet."""
    try:
        return allowed(normalise(host)[1], named)
    except ValueError:
        return False


def has_origin(host: str, origin: Origin) -> bool:
    """Is this base URL, which may be anything, at that origin?"""
    try:
        return normalise(host)[1] == origin
    except ValueError:
        return False


def named_origin(host: str) -> Origin:
    """The origin of an `--allow-host`. Raises ValueError: plain http goes over loopback only."""
    _, origin = normalise(host)
    if origin.scheme == "http" and not is_loopback(origin.name):
        raise ValueError("plain http is only for loopback addresses")
    return origin


def is_loopback(name: str) -> bool:
    """An IPv4 address in IPv6 form counts as none: Python versions differ about it."""
    if not _is_address(name):
        return name == "localhost"
    address = ipaddress.ip_address(name)
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
