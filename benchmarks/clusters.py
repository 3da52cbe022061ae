"""The API server of a benchmark: the real one where it is built, else the sandbox's in a process of its own.

Guarantee: requests are counted by the server itself, by method and resource; what it does for itself is not among them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.servers import Server, server
from benchmarks.targets import LEDGER
from sandbox.http_server import write_kubeconfig
from tests.cluster.control_plane import control_plane, find_binaries
from tests.cluster.endpoint import Endpoint, call
from tests.cluster.rig import CRDS, install_crds

OURS = ("secrets", "keyrotations", "externalsecrets", "openais", "events", "pods", "namespaces")
"""What the worker asks for. The API server asks itself for namespaces now and then: a few a minute."""
_METHODS = {"LIST": "GET", "APPLY": "PATCH"}
_SAMPLE = re.compile(r"apiserver_request_total\{([^}]*)\} (\S+)")
_CPU = re.compile(r"^process_cpu_seconds_total (\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Cluster(Protocol):
    """An API server that counts."""

    kind: str
    url: str
    token: str
    ca_file: Path | None
    kubeconfig: Path

    def count(self) -> Counter[str]:
        """Requests by kind, since this was last asked."""

    def cpu(self) -> float:
        """Seconds of CPU that the server itself has used so far, without its store."""


def kind(*, real: bool | None = None) -> str:
    """Which API server `cluster` runs. `real`: None takes the real one where it is built."""
    return _Real.kind if real or (real is None and find_binaries() is not None) else _Sandbox.kind


@contextmanager
def cluster(directory: Path, *, real: bool | None = None, crds: Path = CRDS) -> Iterator[Cluster]:
    """Run an API server with the CRDs and the ledger's namespace; see `kind` for `real`.

    `crds`: the manifests of another build, where there is a real API server.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if kind(real=real) == _Real.kind:
        with control_plane(directory) as endpoint:
            install_crds(endpoint, crds)
            call(endpoint, "POST", "/api/v1/namespaces", {"metadata": {"name": LEDGER}})
            yield _Real(endpoint)
    else:
        with server("kubernetes") as one:
            yield _Sandbox(one, write_kubeconfig(directory / "kubeconfig", one.url, one.key))


@dataclass
class _Real:
    endpoint: Endpoint
    kind: str = "kube-apiserver"
    _seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.url, self.token = self.endpoint.url, self.endpoint.token
        self.ca_file: Path | None = self.endpoint.ca_file
        self.kubeconfig = self.endpoint.kubeconfig
        self.count()

    def count(self) -> Counter[str]:
        before, self._seen = self._seen, requests_in(call(self.endpoint, "GET", "/metrics")[1])
        return self._seen - before

    def cpu(self) -> float:
        return cpu_in(call(self.endpoint, "GET", "/metrics")[1])


@dataclass
class _Sandbox:
    server: Server
    kubeconfig: Path
    kind: str = "sandbox"
    ca_file: Path | None = None
    _used: float = 0.0

    def __post_init__(self) -> None:
        self.url, self.token = self.server.url, self.server.key

    def count(self) -> Counter[str]:
        served = self.server.served()
        self._used += served.cpu
        return served.requests

    def cpu(self) -> float:
        self.count()
        return self._used


def requests_in(metrics: str) -> Counter[str]:
    """The requests of an API server's metrics, by method and resource."""
    found: Counter[str] = Counter()
    for labels, value in _SAMPLE.findall(metrics):
        label = dict(_LABEL.findall(labels))
        if label.get("resource") in OURS and label["verb"] != "WATCH":
            what = "/".join(filter(None, (label["resource"], label.get("subresource"))))
            found[f"{_METHODS.get(label['verb'], label['verb'])} {what}"] += int(float(value))
    return found


def cpu_in(metrics: str) -> float:
    """The seconds of CPU of an API server's metrics."""
    found = _CPU.search(metrics)
    assert found is not None
    return float(found[1])
