"""The proxy of a URL, as `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say, read as curl and Go read them. Pure.

Guarantee: a proxy that cannot be used is a mistake that names the variable, never its value: it may hold a password.
"""

# aiohttp's own look-up (`trust_env`) runs anew for each request and in a thread, and reads ~/.netrc, too.
# It takes over a quarter of the worker's CPU. An entry in ~/.netrc for a host makes every request to it fail.

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_LABEL = re.compile(r"[\w-]{1,63}\Z")


@dataclass(frozen=True, slots=True)
class Proxies:
    """`by_scheme`: the proxy's URL, for `http` and `https`, and for `no` the hosts that need none."""

    by_scheme: Mapping[str, str] = field(default_factory=dict, hash=False)

    def for_url(self, url: str) -> str | None:
        """The proxy for it; None: the client connects directly."""
        if not self.by_scheme:
            return None
        parts = urlsplit(url)
        proxy, host = self.by_scheme.get(parts.scheme), (parts.hostname or "").rstrip(".")
        if proxy is None:
            return None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        # Commas separate the parts, and for curl blanks as well.
        excepted = re.split(r"[,\s]+", self.by_scheme.get("no", "").strip().lower())
        return None if any(_covers(part, host, port) for part in excepted if part) else proxy


def _covers(part: str, host: str, port: int) -> bool:
    """Does this part of `NO_PROXY` cover the host? It is `*`, a name, an address or a network, perhaps with a port."""
    if part == "*":
        return True
    if part.startswith("[") or part.count(":") == 1:
        name, _, number = part.rpartition(":")
        if number.isascii() and number.isdigit():
            if int(number) != port:
                return False
            part = name
    part = part.removeprefix("[").removesuffix("]")
    try:
        # Clusters list a network for their own API server, because clients know that server by its address.
        return ipaddress.ip_address(host) in ipaddress.ip_network(part, strict=False)
    except ValueError:
        # A name covers all names under it; with a dot before it, for curl itself as well.
        name = part.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith("." + name))


def is_proxy(host: object, proxy: object) -> bool:
    """Is this the host of the proxy? So a failure to connect to it, or its certificate, is the proxy's."""
    return bool(proxy) and host == urlsplit(str(proxy)).hostname


DIRECT = Proxies()
"""No proxy for anything."""


_VARIABLES = {spelt for name in ("http_proxy", "https_proxy", "no_proxy") for spelt in (name, name.upper())}
"""Not ALL_PROXY: curl reads it, Go and kubectl do not."""


def proxies(environ: Mapping[str, str]) -> Proxies:
    """The proxies as curl reads them: the lower-case name goes first. The worker is no CGI script (`HTTP_PROXY`).

    Raises ValueError, with a text that names the variable, for a proxy that cannot be used.
    """
    found: dict[str, str] = {}
    for name in sorted(environ):  # capital letters sort first, so that the others overwrite them
        kind = name.lower().removesuffix("_proxy")
        if name not in _VARIABLES or not environ[name]:
            continue
        found[kind] = environ[name] if kind == "no" else _proxy(name, environ[name].strip())
    return Proxies(found)


def _proxy(variable: str, value: str) -> str:
    """The proxy's URL. Without a scheme it is http, as for curl, Go and kubectl."""
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        usable = _is_host(parts.hostname or "") and (parts.port is None or parts.port > 0)
        usable = usable and not any(character.isspace() for character in url)
    except ValueError:
        usable = False
    if not usable or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{variable}: is not the URL of a proxy; escape special characters of a password (%23 for #)")
    if parts.scheme.lower() not in ("http", "https"):
        raise ValueError(f"{variable}: only http:// and https:// proxies can be used")
    return url


def _is_host(name: str) -> bool:
    """Is it an address, or can it be a name? A placeholder that nobody filled in is neither."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        labels = name.removesuffix(".").split(".")
        return all(_LABEL.match(label) for label in labels) and not labels[-1].isdigit()
    return True
