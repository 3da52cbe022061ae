"""The proxy of a URL, as the environment's `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say. Pure."""

# aiohttp's own look-up (`trust_env`) runs anew for each request and in a thread, and reads ~/.netrc, too.
# It takes over a quarter of the worker's CPU. An entry in ~/.netrc for a host makes every request to it fail.

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Proxies:
    """`by_scheme`: the proxy's URL, for `http` and `https`, and for `no` the hosts that need none."""

    by_scheme: Mapping[str, str] = field(default_factory=dict, hash=False)

    def for_url(self, url: str) -> str | None:
        """The proxy for it; None: the client connects directly."""
        if not self.by_scheme:
            return None
        parts = urlsplit(url)
        proxy, host = self.by_scheme.get(parts.scheme), parts.hostname or ""
        direct = (part.strip().lower() for part in self.by_scheme.get("no", "").split(","))
        return None if proxy is None or any(_covers(part, host) for part in direct) else proxy


def _covers(part: str, host: str) -> bool:
    """Does this part of `NO_PROXY` cover the host? It is a name, with all names under it, or a network."""
    # Clusters list a network for their own API server, because clients know that server by its address.
    if part == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(part, strict=False)
    except ValueError:
        name = part.lstrip(".")
        return bool(name) and (host == name or host.endswith("." + name))


DIRECT = Proxies()
"""No proxy for anything."""


def proxies(environ: Mapping[str, str]) -> Proxies:
    """The proxies as curl reads them: the lower-case name goes first. The worker is no CGI script (`HTTP_PROXY`)."""
    found: dict[str, str] = {}
    for name in sorted(environ):  # capital letters sort first, so that the others overwrite them
        if name.lower().endswith("_proxy") and environ[name]:
            found[name.lower().removesuffix("_proxy")] = environ[name]
    return Proxies(found)
