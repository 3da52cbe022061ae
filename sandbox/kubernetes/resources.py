"""The built-in resources that the embedded API server serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of one API version.

    `fields`: the top-level fields of a built-in kind, or empty if all are kept.
    `schema`: a custom resource's structural schema.
    `selectable`: paths that a fieldSelector may name, besides the object's name and namespace.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    list_kind: str = ""
    has_status: bool = False
    counts_generations: bool = False
    fields: tuple[str, ...] = ()
    selectable: tuple[str, ...] = ()
    returns_deleted: bool = False
    schema: Object | None = field(default=None, repr=False)
    columns: tuple[Object, ...] = field(default=(), repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """The key of its objects in the store, the same for each version."""
        return (self.group, self.plural)

    @property
    def custom(self) -> bool:
        """Does a CRD define it?"""
        return self.schema is not None

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The path of its API version."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str, name: str) -> str:
        """The path of an object of this resource."""
        base = f"{self.root}/namespaces/{namespace}" if self.namespaced else self.root
        return f"{base}/{self.plural}/{name}"

    @property
    def qualified(self) -> str:
        """`secrets`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


NAMESPACES = Resource(
    "",
    "v1",
    "namespaces",
    "Namespace",
    False,
    ("ns",),
    has_status=True,
    fields=("spec", "status"),
    returns_deleted=True,
)
NODES = Resource("", "v1", "nodes", "Node", False, ("no",), has_status=True, fields=("spec", "status"))
SECRETS = Resource("", "v1", "secrets", "Secret", fields=("data", "type", "immutable"), selectable=("type",))
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True, ("cm",), fields=("data", "binaryData", "immutable"))
PODS = Resource(
    "",
    "v1",
    "pods",
    "Pod",
    True,
    ("po",),
    ("all",),
    has_status=True,
    counts_generations=True,
    fields=("spec", "status"),
    selectable=("spec.nodeName", "status.phase"),
    returns_deleted=True,
)
EVENTS = Resource(
    "",
    "v1",
    "events",
    "Event",
    True,
    ("ev",),
    fields=(
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "type",
        "eventTime",
        "series",
        "action",
        "related",
        "reportingComponent",
        "reportingInstance",
    ),
    selectable=(
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "reason",
        "type",
    ),
)
SERVICE_ACCOUNTS = Resource(
    "",
    "v1",
    "serviceaccounts",
    "ServiceAccount",
    True,
    ("sa",),
    fields=("secrets", "imagePullSecrets", "automountServiceAccountToken"),
    returns_deleted=True,
)
DEPLOYMENTS = Resource(
    "apps",
    "v1",
    "deployments",
    "Deployment",
    True,
    ("deploy",),
    ("all",),
    has_status=True,
    counts_generations=True,
    fields=("spec", "status"),
)
STATEFUL_SETS = Resource(
    "apps",
    "v1",
    "statefulsets",
    "StatefulSet",
    True,
    ("sts",),
    ("all",),
    has_status=True,
    counts_generations=True,
    fields=("spec", "status"),
)
DAEMON_SETS = Resource(
    "apps",
    "v1",
    "daemonsets",
    "DaemonSet",
    True,
    ("ds",),
    ("all",),
    has_status=True,
    counts_generations=True,
    fields=("spec", "status"),
)
CRDS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    False,
    ("crd", "crds"),
    has_status=True,
    counts_generations=True,
    fields=("spec", "status"),
)

BUILT_IN = (
    NAMESPACES,
    NODES,
    SECRETS,
    CONFIG_MAPS,
    PODS,
    EVENTS,
    SERVICE_ACCOUNTS,
    DEPLOYMENTS,
    STATEFUL_SETS,
    DAEMON_SETS,
    CRDS,
)
