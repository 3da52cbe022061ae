"""A kubeconfig as kubectl reads it: files merged, one context chosen, paths made absolute, fields checked. Pure.

Guarantees:
- The first file that names a context, cluster, user or current context decides, as kubectl has it.
- The worker refuses a field by name that it cannot honour: it could mean fewer rights, or another server.
- No credential goes to a server over plain http.
- No error quotes a value but the names of contexts, clusters, users and plugins.

Source: client-go 0.37 (`tools/clientcmd`), and a comparison with kubectl (`tests/kubernetes/test_kubectl_agrees.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.kubernetes.reading import mapping_or_empty, mappings
from worker.model.values import JSON

Document = tuple[Path, Mapping[str, Any]]
"""A kubeconfig file and its content."""

_CLUSTER = frozenset(
    {
        "server",
        "tls-server-name",
        "insecure-skip-tls-verify",
        "certificate-authority",
        "certificate-authority-data",
        "proxy-url",
        "disable-compression",
        "extensions",
    }
)
_USER = frozenset(
    {
        "client-certificate",
        "client-certificate-data",
        "client-key",
        "client-key-data",
        "token",
        "tokenFile",
        "as",
        "as-uid",
        "as-groups",
        "as-user-extra",
        "username",
        "password",
        "auth-provider",
        "exec",
        "extensions",
    }
)
_IMPERSONATION = frozenset({"as", "as-uid", "as-groups", "as-user-extra"})
_CREDENTIALS = _USER - _IMPERSONATION - {"extensions"}
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


class Unusable(ValueError):
    """The kubeconfig cannot be used as it is; the text says which field of which object, without values."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One context of a kubeconfig. `headers`: of impersonation. `plugin`: the `exec` section, None without one."""

    context: str
    server: str
    cluster: JSON = field(repr=False)
    user: JSON = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    plugin: JSON | None = field(default=None, repr=False)

    def as_document(self) -> JSON:
        """A kubeconfig with this context alone."""
        return {
            "current-context": "chosen",
            "contexts": [{"name": "chosen", "context": {"cluster": "chosen", "user": "chosen"}}],
            "clusters": [{"name": "chosen", "cluster": self.cluster}],
            "users": [{"name": "chosen", "user": self.user}],
        }


def choose(documents: Sequence[Document], context: str | None) -> Chosen:
    """The named context, or the current one. Raises Unusable."""
    current = (document.get("current-context") for _, document in documents)
    name = context or next((str(one) for one in current if one), "")
    if not name:
        raise Unusable("no context is named, and there is no current-context")
    _, chosen = _named(documents, "contexts", name)
    wanted = mapping_or_empty(chosen.get("context"))
    place, found = _named(documents, "clusters", str(wanted.get("cluster", "")))
    cluster = _with_absolute_paths(mapping_or_empty(found.get("cluster")), place)
    _only(cluster, _CLUSTER, f"cluster {wanted.get('cluster')!r}")
    user: JSON = {}
    if wanted.get("user"):
        place, found = _named(documents, "users", str(wanted["user"]))
        user = _with_absolute_paths(mapping_or_empty(found.get("user")), place)
        _only(user, _USER, f"user {wanted['user']!r}")
    server = _server(cluster, user, str(wanted.get("cluster")))
    cluster["server"] = server
    if not server.startswith("https:"):
        # kubectl sends no credentials then, either: they would go in clear.
        user = {key: value for key, value in user.items() if key not in _CREDENTIALS}
    return _authenticated(name, cluster, user, place=place)


def _authenticated(context: str, cluster: JSON, user: JSON, *, place: Path) -> Chosen:
    headers = _impersonation(user)
    provider = mapping_or_empty(user.get("auth-provider")).get("name")
    if provider is not None and provider != "oidc":
        raise Unusable("auth-provider: only oidc is honoured, as in kubectl; use an exec plugin")
    if user.get("tokenFile") and "token" in user:
        # The file is fresher: client-go reads it, too.
        del user["token"]
    plugin = user.pop("exec", None)
    if plugin is None:
        return Chosen(context, str(cluster["server"]), cluster, user, headers)
    plugin = dict(mapping_or_empty(plugin))
    command = plugin.get("command")
    if not isinstance(command, str) or not command:
        raise Unusable("exec: no command is named")
    if plugin.get("provideClusterInfo"):
        raise Unusable("exec.provideClusterInfo is not honoured")
    if "/" in command and not Path(command).is_absolute():
        plugin["command"] = str(place.parent / command)
    # The plugin's credentials count alone, as in kubectl.
    user = {key: value for key, value in user.items() if key in ("client-certificate", "client-key")}
    return Chosen(context, str(cluster["server"]), cluster, user, headers, plugin)


def _named(documents: Sequence[Document], kind: str, name: str) -> tuple[Path, Mapping[str, Any]]:
    for place, document in documents:
        for item in mappings(document.get(kind)):
            if item.get("name") == name:
                return place, item
    raise Unusable(f"{kind.removesuffix('s')} {name[:80]!r} does not exist")


def _with_absolute_paths(section: Mapping[str, Any], place: Path) -> JSON:
    """Relative paths are relative to the file that names them."""
    absolute = dict(section)
    for name in _FILES:
        if isinstance(absolute.get(name), str) and absolute[name]:
            absolute[name] = str(place.parent / absolute[name])
    for name in ("certificate-authority", "client-certificate", "client-key"):
        if absolute.get(f"{name}-data"):
            absolute.pop(name, None)  # inline data goes before a file
    return absolute


def _only(section: Mapping[str, Any], honoured: frozenset[str], where: str) -> None:
    unknown = sorted(str(name) for name in section if name not in honoured and section[name] not in (None, "", [], {}))
    if unknown:
        raise Unusable(f"{where}: {unknown[0][:80]!r} is not honoured")


def _server(cluster: Mapping[str, Any], user: Mapping[str, Any], name: str) -> str:
    """The server's URL; without a scheme https if TLS is configured, as in kubectl, else http."""
    server = cluster.get("server")
    if not isinstance(server, str) or not server:
        raise Unusable(f"cluster {name[:80]!r} names no server")
    if "://" in server:
        return server.rstrip("/")
    secured = ("certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify")
    tls = any(cluster.get(field) for field in secured) or any(
        user.get(field) for field in ("client-certificate", "client-certificate-data")
    )
    return f"{'https' if tls else 'http'}://{server.rstrip('/')}"


def _impersonation(user: JSON) -> dict[str, str]:
    """The headers of `as` and its kin, which are taken out of the user."""
    name, uid = user.pop("as", None), user.pop("as-uid", None)
    groups, extra = user.pop("as-groups", None) or [], user.pop("as-user-extra", None)
    if not name and (uid or groups or extra):
        raise Unusable("as-uid, as-groups and as-user-extra need as")
    if not name:
        return {}
    if extra or not isinstance(groups, list) or len(groups) > 1:
        raise Unusable("as-user-extra, and more than one of as-groups, are not honoured")
    headers = {"Impersonate-User": str(name)}
    headers |= {"Impersonate-Uid": str(uid)} if uid else {}
    return headers | ({"Impersonate-Group": str(groups[0])} if groups else {})
