"""Which proxy a URL goes through, as the environment's `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say. Pure.

aiohttp would look itself (`trust_env`), anew for each request and in a thread, and read ~/.netrc too: over a quarter of
the worker's CPU, and an entry there for a host makes every request to it fail.
"""

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
        """The proxy for it; None: it is reached directly."""
        if not self.by_scheme:
            return None
        parts = urlsplit(url)
        proxy, host = self.by_scheme.get(parts.scheme), parts.hostname or ""
        direct = (part.strip().lower() for part in self.by_scheme.get("no", "").split(","))
        return None if proxy is None or any(_covers(part, host) for part in direct) else proxy


def _covers(part: str, host: str) -> bool:
    """Is the host one of this part of `NO_PROXY`: a name, with all names under it, or a network, as clusters have it
    for their own API server, which is known by its address?
    """
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
    """As curl reads them: the spelling in small letters goes first. `HTTP_PROXY` in a CGI script is not our case."""
    found: dict[str, str] = {}
    for name in sorted(environ):  # capital letters sort first, so that the others overwrite them
        if name.lower().endswith("_proxy") and environ[name]:
            found[name.lower().removesuffix("_proxy")] = environ[name]
    return Proxies(found)
