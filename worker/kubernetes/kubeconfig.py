"""A kubeconfig as kubectl reads it: files merged, one context chosen, paths made absolute, fields checked. Pure.

Guarantees:
- The first file that names a context, cluster, user or current context decides, as kubectl has it.
- The worker refuses a field by name that it cannot honour: it could mean fewer rights, or another server.
- No credential goes to a server over plain http.
- No error quotes a value but the names of contexts, clusters, users and plugins.

Source: client-go 0.37 (`tools/clientcmd`), and a comparison with kubectl, field by field
(`tests/kubernetes/test_kubectl_agrees.py`, `test_kubectl_agrees_over_tls.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
_MODES = ("Never", "IfAvailable", "Always")
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_EITHER = ("certificate-authority", "client-certificate", "client-key")
"""Fields that name a file, or hold its content as `-data`."""
_FLAGS = ("insecure-skip-tls-verify", "disable-compression")
_OTHERS = ("extensions", "as-groups", "as-user-extra", "auth-provider", "exec")
"""Fields that are no text."""
_PLUGIN_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_HEADER = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*\Z")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\Z")


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

    def described(self) -> str:
        """Where it leads and as whom, for people: before anything is done there."""
        acting = self.headers.get("Impersonate-User")
        known = self.plugin is not None or any(self.user.get(name) for name in _CREDENTIALS)
        words = [f"context {self.context}", f"server {self.server}"]
        words += [f"acting for {acting}"] if acting is not None else []
        words += [] if known else ["without credentials"]
        return ", ".join(words)

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
    for place, document in documents:
        _check_document(document, place)
    current = (document.get("current-context") for _, document in documents)
    name = context or next((str(one) for one in current if one), "")
    if not name:
        raise Unusable("no context is named, and there is no current-context")
    _, chosen = _named(documents, "contexts", name)
    wanted = mapping_or_empty(chosen.get("context"))
    place, found = _named(documents, "clusters", str(wanted.get("cluster", "")))
    cluster = _checked(mapping_or_empty(found.get("cluster")), _CLUSTER, place, f"cluster {wanted.get('cluster')!r}")
    user: JSON = {}
    if wanted.get("user"):
        place, found = _named(documents, "users", str(wanted["user"]))
        user = _checked(mapping_or_empty(found.get("user")), _USER, place, f"user {wanted['user']!r}")
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
    if provider is not None and user.get("exec"):
        raise Unusable("auth-provider and exec are both given: kubectl takes one of them alone")
    for name in ("client-certificate", "client-certificate-data"):
        if user.get(name) and not (user.get("client-key") or user.get("client-key-data")):
            raise Unusable(f"{name} has no client-key or client-key-data beside it")
    if user.get("password") and not user.get("username"):
        raise Unusable("a password without a username")
    header_value(str(user.get("token") or ""), "the token")
    by_token, by_name = any(user.get(name) for name in ("token", "tokenFile")), bool(user.get("username"))
    if by_token and (by_name or user.get("password")):
        raise Unusable("a token, and a username or password: kubectl takes one of them alone")
    if by_name:
        user["password"] = user.get("password") or ""
    by_certificate = all(
        any(user.get(name) for name in (file, f"{file}-data")) for file in ("client-certificate", "client-key")
    )
    plugin = user.pop("exec", None)
    if plugin is not None:
        plugin = _plugin(mapping_or_empty(plugin), place)
    if by_token or by_name or by_certificate:
        # What the file says goes before the plugin, which is not even run.
        plugin = None
    if by_token or by_name:
        user.pop("auth-provider", None)
    return Chosen(context, str(cluster["server"]), cluster, user, headers, plugin)


def _plugin(section: Mapping[str, Any], place: Path) -> JSON:
    """The `exec` section, checked as kubectl checks it. Raises Unusable."""
    plugin = dict(section)
    command, mode = plugin.get("command"), plugin.get("interactiveMode")
    if not isinstance(command, str) or not command:
        raise Unusable("exec: no command is named")
    if plugin.get("apiVersion") not in _PLUGIN_VERSIONS:
        raise Unusable(f"exec.apiVersion must be one of {', '.join(_PLUGIN_VERSIONS)}")
    if not isinstance(plugin.get("provideClusterInfo", False), bool):
        raise Unusable("exec.provideClusterInfo must be true or false")
    for name, kind in (("args", str), ("env", Mapping)):
        listed = plugin.get(name) or []
        if not isinstance(listed, list) or not all(isinstance(one, kind) for one in listed):
            raise Unusable(f"exec.{name} is malformed")
    if not all(isinstance(one.get(part), str) for one in plugin.get("env") or [] for part in ("name", "value")):
        raise Unusable("exec.env must have names and values that are texts")
    if mode not in _MODES and (mode or str(plugin.get("apiVersion")).endswith("/v1")):
        raise Unusable(f"exec.interactiveMode must be one of {', '.join(_MODES)}")
    if "/" in command and not Path(command).is_absolute():
        plugin["command"] = str(place.parent / command)
    return plugin


def _named(documents: Sequence[Document], kind: str, name: str) -> tuple[Path, Mapping[str, Any]]:
    for place, document in documents:
        for item in mappings(document.get(kind)):
            if item.get("name") == name:
                return place, item
    raise Unusable(f"{kind.removesuffix('s')} {name[:80]!r} does not exist")


def _check_document(document: Mapping[str, Any], place: Path) -> None:
    """Is it a kubeconfig, in which each name stands once? Raises Unusable."""
    if document.get("apiVersion", "v1") != "v1" or document.get("kind", "Config") != "Config":
        raise Unusable(f"{place} is no kubeconfig: its apiVersion is not v1, or its kind not Config")
    for kind in ("contexts", "clusters", "users"):
        names = [str(item.get("name")) for item in mappings(document.get(kind))]
        for name in names:
            if names.count(name) > 1:
                raise Unusable(f"{kind.removesuffix('s')} {name[:80]!r} is there twice in {place}")


def _checked(section: Mapping[str, Any], honoured: frozenset[str], place: Path, where: str) -> JSON:
    """The section with absolute paths: relative ones are relative to the file that names them. Raises Unusable."""
    _only(section, honoured, where)
    checked = {name: value for name, value in section.items() if value is not None}
    for name in checked.keys() & honoured - set(_OTHERS):
        wanted = bool if name in _FLAGS else str
        if not isinstance(checked[name], wanted):
            raise Unusable(
                f"{where}: {name} must be {'true or false' if wanted is bool else 'a text'}, without quotes"
                if wanted is bool
                else f"{where}: {name} must be a text: put it into quotes"
            )
    for name in _FILES:
        if checked.get(name):
            checked[name] = str(place.parent / checked[name])
    for name in _EITHER:
        data = checked.get(f"{name}-data")
        if data and checked.get(name):
            raise Unusable(f"{name} and {name}-data are both given: kubectl takes one of them alone")
        if data and not _BASE64.match(re.sub(r"[\r\n]", "", data)):
            raise Unusable(f"{where}: {name}-data is not base64")
    authority = checked.get("certificate-authority") or checked.get("certificate-authority-data")
    if checked.get("insecure-skip-tls-verify") and authority:
        raise Unusable("insecure-skip-tls-verify contradicts certificate-authority")
    _check_proxy(checked.get("proxy-url"), where)
    return checked


def _only(section: Mapping[str, Any], honoured: frozenset[str], where: str) -> None:
    unknown = sorted(str(name) for name in section if name not in honoured and section[name] not in (None, "", [], {}))
    if unknown:
        raise Unusable(f"{where}: {unknown[0][:80]!r} is not honoured")


def _check_proxy(url: str | None, where: str) -> None:
    """Raises Unusable for a `proxy-url` that cannot be used. Unlike a variable it needs its scheme, as in kubectl."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "https"):
        raise Unusable(f"{where}: proxy-url must be an http:// or https:// URL; other proxies are not honoured")


def header_value(text: str, what: str) -> str:
    """The text, which goes into a header. Raises Unusable where it cannot."""
    if not _HEADER.match(text):
        raise Unusable(f"{what} has characters that a header may not have")
    return text


def _server(cluster: Mapping[str, Any], user: Mapping[str, Any], name: str) -> str:
    """The server's URL; without a scheme it is http, as in kubectl. Raises Unusable where TLS is configured then."""
    server = cluster.get("server")
    if not isinstance(server, str) or not server:
        raise Unusable(f"cluster {name[:80]!r} names no server")
    if "://" in server:
        scheme, _, rest = server.partition("://")
        if scheme.lower() not in ("http", "https") or "@" in rest.partition("/")[0]:
            # kubectl makes a name and password of the latter.
            raise Unusable(f"the server of cluster {name[:80]!r} must be an https:// URL without a name or password")
        return f"{scheme.lower()}://{rest.rstrip('/')}"
    secured = ("certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify")
    tls = any(cluster.get(field) for field in secured) or any(
        user.get(field) for field in ("client-certificate", "client-certificate-data")
    )
    if tls:
        # kubectl speaks http to it all the same, and is cut off.
        raise Unusable(f"the server of cluster {name[:80]!r} has no scheme: write https://")
    return f"http://{server.rstrip('/')}"


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
    for text in (name, uid or "", *groups):
        header_value(str(text), "as, as-uid or as-groups")
    headers = {"Impersonate-User": str(name)}
    headers |= {"Impersonate-Uid": str(uid)} if uid else {}
    return headers | ({"Impersonate-Group": str(groups[0])} if groups else {})
