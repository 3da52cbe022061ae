"""The admin keys beside the ledger that options name: central ones and the fallback key. Pure.

Guarantee: no tenant's text decides which Secrets these are, nor to which host their keys go.
"""

from __future__ import annotations

from worker.model.admin_keys import NamedAdminKey
from worker.model.hosts import DEFAULT_HOST, Origin
from worker.model.targets import AdminKeyRef
from worker.settings.options import Options


def named_admin_keys(options: Options) -> list[NamedAdminKey]:
    """One for each Secret, by name. A Secret with several keys, or for several hosts, has a problem."""
    hosts: dict[AdminKeyRef, set[str]] = {}
    for (project, _), ref in options.central_keys.granted.items():
        hosts.setdefault(ref, set()).add(project.host)
    fallback = options.fallback_admin_key
    if fallback is not None and fallback not in hosts:
        hosts[fallback] = {_base(options.fallback_host)}
    secrets: dict[str, list[AdminKeyRef]] = {}
    for ref in sorted(hosts):
        secrets.setdefault(ref.secret.name, []).append(ref)
    return [_named(refs, hosts[refs[0]]) for _, refs in sorted(secrets.items())]


def _named(refs: list[AdminKeyRef], hosts: set[str]) -> NamedAdminKey:
    problem = ""
    if len(refs) > 1:
        problem = "options name several keys of this Secret: put each into a Secret of its own"
    elif len(hosts) > 1:
        problem = (
            f"options name it for several hosts ({', '.join(sorted(hosts))}): put a key for each into its own Secret"
        )
    return NamedAdminKey(refs[0], min(hosts), problem)


def _base(origin: Origin | None) -> str:
    """The Admin API's base URL at the fallback key's host: an origin has no path."""
    if origin is None:
        return DEFAULT_HOST
    name = f"[{origin.name}]" if ":" in origin.name else origin.name
    usual = 443 if origin.scheme == "https" else 80
    port = "" if origin.port == usual else f":{origin.port}"
    return f"{origin.scheme}://{name}{port}/v1"
