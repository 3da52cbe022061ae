"""A real control plane on this machine, for as long as a test session: etcd, kube-apiserver, the controllers, and where
pods are to run a scheduler and a node whose kubelet is played by kwok.

Guarantees: it listens on loopback only, unless a network of its own is given to it; all its files are below the given
directory; no process of it outlives the context or this process, however they end; tokens are made anew each time and
are never printed. Its data is thrown away. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import guard
from tests.cluster.endpoint import Endpoint, call, kubeconfig_for, write_private
from tests.support.authority import bare_authority

__all__ = ["MODULE", "Endpoint", "StartFailed", "cache_directory", "control_plane", "find_binaries", "kubeconfig_for"]

MODULE = Path(__file__).parent
"""Where go.mod pins what is built."""
KWOK_MODULE = MODULE / "kwok"
"""The same for kwok, which needs other versions of the same libraries."""
PROMTOOL_MODULE = MODULE / "promtool"
"""The same for promtool, which is no part of a cluster: it checks and tests the alert rules."""
STAGES = "kwok-stages.yaml"
"""Next to the programs: what kwok does to nodes and pods."""
STARTS = 3
"""A port that was free may be taken by the time it is used: then everything starts again on others."""
NODE = "node"
"""The one that pods are scheduled to, where there are nodes."""
SERVICE_ADDRESS = "10.0.0.1"
"""Of the API server, as pods are told: the first of the range for Services."""
START_TIMEOUT = 120.0
"""Seconds. It takes 3 on an idle machine."""
LOG_TAIL = 4000


AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, userGroups: ["system:serviceaccounts"]}
  - {level: None}
"""


class StartFailed(Exception):
    """The control plane did not start; the end of the log of the part at fault is in the message."""


def cache_directory() -> Path:
    """Where `make control-plane` puts the programs: a folder of its own for each state of what pins them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    pinned = hashlib.sha256()
    for module in (MODULE, KWOK_MODULE, PROMTOOL_MODULE):
        pinned.update((module / "go.mod").read_bytes() + (module / "go.sum").read_bytes())
    return cache / "openai-key-rotator" / "control-plane" / pinned.hexdigest()[:16]


def find_binaries(*, controllers: bool = False, nodes: bool = False) -> Path | None:
    """The folder with the programs, complete: the one named by KUBEBUILDER_ASSETS, else the project's cache."""
    programs = ["kube-apiserver", "etcd"]
    if controllers or nodes:
        programs.append("kube-controller-manager")
    if nodes:
        programs += ["kube-scheduler", "kwok"]
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    for directory in [*([Path(assets)] if assets else []), cache_directory()]:
        complete = all(os.access(directory / name, os.X_OK) for name in programs)
        if complete and (not nodes or (directory / STAGES).is_file()):
            return directory
    return None


def find_promtool() -> Path | None:
    """The program, if it is in the project's cache."""
    program = cache_directory() / "promtool"
    return program if os.access(program, os.X_OK) else None


@contextmanager
def control_plane(
    directory: Path,
    *,
    controllers: bool = False,
    nodes: bool = False,
    audited: bool = False,
    bare: bool = False,
    address: str | None = None,
) -> Iterator[Endpoint]:
    """Run etcd and kube-apiserver, and with `controllers` the controller manager, and wait until they are ready.

    With controllers, deleted namespaces go, and owner references count: those of and to a CRD's objects from half a
    minute after it was installed, for the garbage collector looks for new kinds that often.

    With `nodes` it is a whole cluster, controllers included: pods are scheduled to the one node there is, and run, by
    what their status says. No process runs: kwok writes what a kubelet would write, and leaves alone what a test has
    written to the status of a pod that runs.

    With `audited` the API server writes down what every service account asks for, in `Endpoint.audit_log`, and pods get
    their service account's token, for which the namespace must have that account first.

    With `bare` its certificate is of an authority that says no more of itself than that it is one.

    Every one guards owner references, as OpenShift's does.
    """
    binaries = find_binaries(controllers=controllers, nodes=nodes)
    if binaries is None:
        raise StartFailed("no control plane here: `make control-plane` builds it")
    for attempt in range(1, STARTS + 1):
        with ExitStack() as processes:
            try:
                place = directory / f"start-{attempt}"
                endpoint = _start(
                    processes,
                    binaries,
                    place,
                    controllers=controllers or nodes,
                    nodes=nodes,
                    audited=audited,
                    bare=bare,
                    address=address,
                )
            except _PortTaken as error:
                if attempt == STARTS:
                    raise StartFailed(str(error)) from None
                continue
            yield endpoint
            return


# --- starting


class _PortTaken(Exception):
    """Another process was faster."""


def _start(
    processes: ExitStack,
    binaries: Path,
    directory: Path,
    *,
    controllers: bool,
    nodes: bool,
    audited: bool,
    bare: bool,
    address: str | None,
) -> Endpoint:
    directory.mkdir(parents=True)
    # The API server makes its certificate and key itself when it starts, unless they are there.
    ca_file = bare_authority(directory / "tls", "apiserver") if bare else directory / "tls" / "apiserver.crt"
    etcd_port, peer_port, api_port = _free_ports(3)
    if address is not None:
        api_port = 443  # where pods look for it
    etcd = Part(processes, binaries / "etcd", directory, _etcd_flags(directory, etcd_port, peer_port))
    endpoint = Endpoint(
        url=f"https://{address or '127.0.0.1'}:{api_port}",
        token=secrets.token_urlsafe(32),
        restricted_token=secrets.token_urlsafe(32),
        ca_file=ca_file,
        kubeconfig=directory / "kubeconfig",
        audit_log=directory / "audit.log",
    )
    kubeconfig_for(endpoint, endpoint.kubeconfig)
    flags = dict(_api_server_flags(endpoint, directory, api_port, etcd_port))
    if audited:
        del flags["disable-admission-plugins"]
        flags |= {
            "audit-policy-file": write_private(directory / "audit-policy.yaml", AUDIT_POLICY),
            "audit-log-path": endpoint.audit_log,
            "audit-log-mode": "blocking",
        }
    if address is not None:
        flags |= {
            "bind-address": "0.0.0.0",  # noqa: S104 - its network is its own
            "advertise-address": address,
            "kubelet-preferred-address-types": "InternalIP",  # logs: nobody knows the node's name
        }
    api_server = Part(processes, binaries / "kube-apiserver", directory, flags)
    # The API server waits for etcd.
    wait_for(lambda: endpoint.ca_file.exists() and call(endpoint, "GET", "/readyz")[0] == 200, etcd, api_server)

    if controllers:
        manager = Part(
            processes, binaries / "kube-controller-manager", directory, _controller_flags(directory, ca_file)
        )
        # Their first visible work: every namespace gets a service account.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_for(lambda: call(endpoint, "GET", account)[0] == 200, etcd, api_server, manager)
    if nodes:
        scheduler = Part(processes, binaries / "kube-scheduler", directory, _scheduler_flags(directory))
    if nodes and address is None:
        kwok = Part(processes, binaries / "kwok", directory, _kwok_flags(directory, binaries))
        # kwok's own node has no disk, and pods ask for some.
        resources = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "256Gi", "pods": "1000"}
        node = {"metadata": {"name": NODE}, "status": {"capacity": resources, "allocatable": resources}}
        call(endpoint, "POST", "/api/v1/nodes", node)
        wait_for(
            lambda: takes_pods(call(endpoint, "GET", f"/api/v1/nodes/{NODE}")[1]), etcd, api_server, scheduler, kwok
        )
    return endpoint


def takes_pods(node: Mapping[str, Any]) -> bool:
    """Its kubelet, as it were, has said that it is ready, and the controllers have heard it."""
    return "pods" in node["status"].get("allocatable", {}) and not node["spec"].get("taints")


def _etcd_flags(directory: Path, port: int, peer_port: int) -> Mapping[str, object]:
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    return {
        "name": "test",
        "data-dir": directory / "etcd",
        "unsafe-no-fsync": "true",  # nothing here outlives the process
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"test={peer}",
        "log-level": "warn",
    }


def _api_server_flags(endpoint: Endpoint, directory: Path, port: int, etcd_port: int) -> Mapping[str, object]:
    users = f"{endpoint.token},admin,admin,system:masters\n{endpoint.restricted_token},restricted,restricted\n"
    key = directory / "tls" / "apiserver.key"
    return {
        "etcd-servers": f"http://127.0.0.1:{etcd_port}",
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": port,
        "cert-dir": directory / "tls",
        "endpoint-reconciler-type": "none",  # a service cannot lead to loopback
        "token-auth-file": write_private(directory / "tokens.csv", users),
        "authorization-mode": "RBAC",
        "service-cluster-ip-range": "10.0.0.0/24",
        "service-account-issuer": "https://kubernetes.default.svc",
        # The key of its own certificate serves for service accounts too: saves making another one.
        "service-account-signing-key-file": key,
        "service-account-key-file": key,
        "disable-admission-plugins": "ServiceAccount",  # pods can be created before a namespace has its account
        "enable-admission-plugins": "OwnerReferencesPermissionEnforcement",
        "profiling": "false",
    }


def _controller_flags(directory: Path, ca_file: Path) -> Mapping[str, object]:
    return {
        "kubeconfig": directory / "kubeconfig",
        # All but the one that publishes the API server's CA, which the self-made certificate is not.
        "controllers": "*,-kube-apiserver-serving-clustertrustbundle-publisher-controller",
        "service-account-private-key-file": directory / "tls" / "apiserver.key",
        "root-ca-file": ca_file,
        "leader-elect": "false",
        "secure-port": 0,
        "profiling": "false",
    }


def _scheduler_flags(directory: Path) -> Mapping[str, object]:
    return {"kubeconfig": directory / "kubeconfig", "leader-elect": "false", "secure-port": 0, "profiling": "false"}


def _kwok_flags(directory: Path, binaries: Path) -> Mapping[str, object]:
    return {
        "kubeconfig": directory / "kubeconfig",
        "config": binaries / STAGES,
        "manage-all-nodes": "true",
        "node-lease-duration-seconds": 40,
    }


class Part:
    """One program of the control plane, running until the stack is closed."""

    def __init__(self, processes: ExitStack, program: Path, directory: Path, flags: Mapping[str, object]) -> None:
        self.name = program.name
        self._log = directory / f"{program.name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, guard.__file__, program, *(f"--{name}={value}" for name, value in flags.items())],
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        processes.callback(self._stop)

    def ended(self) -> int | None:
        """Its exit code, if it has ended."""
        return self._process.poll()

    def failure(self, what: str) -> Exception:
        """Why it cannot be used, with the end of its log."""
        log = self._log.read_text(errors="replace")[-LOG_TAIL:]
        kind = _PortTaken if "address already in use" in log else StartFailed
        return kind(f"{self.name} {what}. The end of {self._log}:\n{log}")

    def _stop(self) -> None:
        """End it at once: its data is thrown away. Closing the pipe makes the guard kill it."""
        self._process.communicate()


def wait_for(ready: Callable[[], bool], *parts: Part) -> None:
    """Wait until it is ready, as long as all of these run."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        for part in parts:
            code = part.ended()
            if code is not None:
                raise part.failure(f"ended with exit code {code}")
        try:
            if ready():
                return
        except OSError:  # nobody listens yet, or the certificate is half written
            pass
        time.sleep(0.05)
    raise parts[-1].failure(f"was not ready after {START_TIMEOUT:.0f} s")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
