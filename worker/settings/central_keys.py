"""Central admin keys: Secrets beside the ledger, each with the projects and the namespaces that may use it. Pure.

Guarantees:
- The operator's file alone decides who may use a key, never a tenant's text.
- No namespace uses a key without an entry.
- No entry wins over another by its place in the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.model.hosts import DEFAULT_HOST, Origin, allowed, normalise
from worker.model.names import DATA_KEY, ID, is_name, is_namespace
from worker.model.targets import AdminKeyRef, Project
from worker.model.values import Ref

ANY = "*"
"""In place of a namespace: all of them. A named namespace goes before it."""
DEFAULT_KEY = "api-key"
_FIELDS = ("secret", "key", "host", "projects")


@dataclass(frozen=True, slots=True)
class CentralKeys:
    """The admin key of a project for a namespace. `secrets`: names of Secrets in the ledger's namespace."""

    granted: Mapping[tuple[Project, str], AdminKeyRef] = field(default_factory=dict, hash=False)

    def key_for(self, project: Project, namespace: str) -> AdminKeyRef | None:
        return self.granted.get((project, namespace)) or self.granted.get((project, ANY))

    @property
    def secrets(self) -> frozenset[Ref]:
        return frozenset(ref.secret for ref in self.granted.values())


def central_keys(document: object, ledger_namespace: str, allowed_hosts: Collection[Origin] = ()) -> CentralKeys:
    """The content of the parsed file. Raises ValueError with all its mistakes.

    A list of `{secret, key: api-key, host: https://api.openai.com/v1, projects: {PROJECT: [NAMESPACE, …]}}`.
    `[]` grants nothing to anybody.
    """
    mistakes: list[str] = []
    granted: dict[tuple[Project, str], AdminKeyRef] = {}
    if not isinstance(document, list):
        raise ValueError("must be a list of {secret, key, host, projects: {PROJECT: [NAMESPACE, …]}}")
    for number, entry in enumerate(document, start=1):
        try:
            for project, namespace, key in _grants(entry, ledger_namespace, allowed_hosts):
                if granted.setdefault((project, namespace), key) != key:
                    mistakes.append(f"entry {number}: project {project} has another key for {namespace} already")
        except ValueError as error:
            mistakes.append(f"entry {number}: {error}")
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return CentralKeys(granted)


def _grants(
    entry: object, ledger_namespace: str, allowed_hosts: Collection[Origin]
) -> Iterator[tuple[Project, str, AdminKeyRef]]:
    if not isinstance(entry, Mapping) or not set(entry) <= set(_FIELDS):
        raise ValueError(f"must have the fields {', '.join(_FIELDS)} and no others")
    secret, key = entry.get("secret"), entry.get("key", DEFAULT_KEY)
    if not is_name(secret):
        raise ValueError("secret must be the name of a Secret")
    if not isinstance(key, str) or not DATA_KEY.match(key):
        raise ValueError("key must be a key of that Secret")
    try:
        host, origin = normalise(entry.get("host", DEFAULT_HOST))
    except ValueError as error:
        raise ValueError(f"host {error}") from None
    if not allowed(origin, allowed_hosts):
        raise ValueError("host is not OpenAI's own over https, and not named with --allow-host")
    projects = entry.get("projects")
    if not isinstance(projects, Mapping) or not projects:
        raise ValueError("projects must say which namespaces may use the key for which projects")
    ref = AdminKeyRef(Ref(ledger_namespace, str(secret)), key)
    for id, namespaces in projects.items():
        if not isinstance(id, str) or not ID.match(id):
            raise ValueError("projects must be named by their ids at OpenAI")
        for namespace in _namespaces(id, namespaces):
            yield Project(host, id), namespace, ref


def _namespaces(project: str, namespaces: Any) -> Collection[str]:
    if not isinstance(namespaces, list) or not namespaces:
        raise ValueError(f'projects.{project} must be a list of namespaces, or ["{ANY}"]')
    for number, namespace in enumerate(namespaces, start=1):
        if namespace != ANY and not is_namespace(namespace):
            raise ValueError(
                f'projects.{project}: number {number} is not the name of a namespace, nor "{ANY}" (in quotes?)'
            )
    return namespaces
