"""One real node of the cluster: containerd, runc, a kubelet, and the network of its pods.

Guarantees: it is started inside the namespaces of `inside`; its files are in the world's folder and in folders that are
private there; its control groups are below one of its own, for kubelets remove those of pods that they do not know.
The kubelet reaches the API server by a way of its own, which can be cut.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.http_server import ServerThread
from tests.cluster.control_plane import Part, control_plane, takes_pods, wait_for
from tests.cluster.endpoint import Endpoint, call, kubeconfig_for, write_private
from tests.node import needs
from tests.node.build import PAUSE
from tests.node.inside import BRIDGE, GATEWAY
from tests.node.way import Way

NODE = "real"
SOCKET = "/run/containerd/containerd.sock"
NAMESPACE = "k8s.io"
"""In which containerd keeps what the kubelet asks of it."""
KUBELETS_WAY = 6443
PEAKS = ("memory.max_usage_in_bytes", "memory.peak")
"""What the two versions of control groups call it."""

# `restrict_oom_score_adj`: without the capability SYS_RESOURCE runc could not start a sandbox as kubelets ask for it.
CONTAINERD = """
version = 3
root = "{place}/containerd"
state = "/run/containerd"
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{plugins}"]
  conf_dir = "{place}/cni"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
"""


@dataclass(frozen=True, slots=True)
class World:
    """What the tests were given: where things are, and what the project's image is."""

    place: Path
    archives: tuple[Path, ...]
    project: Path
    base_layers: int
    revision: str
    control_group: str
    programs: Path

    @classmethod
    def given(cls) -> World | None:
        """By `python -m tests.node`; None outside of it."""
        place = os.environ.get("NODE_WORLD")
        if place is None:
            return None
        told: dict[str, Any] = json.loads((Path(place) / "world.json").read_text())
        return cls(
            place=Path(place),
            archives=tuple(map(Path, told["archives"])),
            project=Path(told["project"]),
            base_layers=told["base_layers"],
            revision=told["revision"],
            control_group=told["control_group"],
            programs=Path(told["programs"]),
        )


@dataclass(frozen=True, slots=True)
class Node:
    """The node, and the cluster that it is in."""

    world: World
    endpoint: Endpoint
    way: Way
    """Cut it, and the kubelet is cut off from the API server, alone."""

    @property
    def logs(self) -> Path:
        """Where the kubelet keeps what containers print: readable also while the node is cut off."""
        return self.world.place / "logs"

    def kill(self, container: str) -> None:
        """End the first process of this container (`containerd://…` in a pod's status)."""
        _ctr(self.world, "tasks", "kill", "--signal=SIGKILL", container.partition("://")[2])

    def peak(self, pod: str) -> int | None:
        """The most memory in bytes that this pod (its uid) has had; None while, and once, it has no control group."""
        for root in needs.cgroup_roots() or []:
            pods = root / self.world.control_group / "kubepods"
            for quality, name in itertools.product(("burstable", "besteffort", "."), PEAKS):
                try:
                    return int((pods / quality / f"pod{pod}" / name).read_text())
                except OSError:
                    continue
        return None


@contextmanager
def real_node(world: World) -> Iterator[Node]:
    """A whole cluster with this node, while the context lasts; ready for pods."""
    place = world.place
    _make_control_groups(world.control_group)
    with ExitStack() as stack:
        endpoint = stack.enter_context(control_plane(place / "cluster", nodes=True, audited=True, address=GATEWAY))
        way = Way()
        stack.enter_context(ServerThread(way.leading(GATEWAY, KUBELETS_WAY, (GATEWAY, 443))))
        containerd = Part(stack, world.programs / "containerd", place, {"config": _containerd_config(place)})
        wait_for(lambda: Path(SOCKET).is_socket() and _answers(world), containerd)
        for archive in world.archives:
            _ctr(world, "images", "import", str(archive))
        flags = {
            "config": _kubelet_config(world),
            "kubeconfig": _kubelets_kubeconfig(endpoint, place / "kubelet.kubeconfig"),
            "root-dir": place / "kubelet",
            "cert-dir": place / "kubelet-certificates",
            "hostname-override": NODE,
            "node-ip": GATEWAY,
        }
        kubelet = Part(stack, world.programs / "kubelet", place, flags)
        path = f"/api/v1/nodes/{NODE}"

        def ready() -> bool:
            status, node = call(endpoint, "GET", path)
            return status == 200 and is_ready(node) and takes_pods(node)

        wait_for(ready, containerd, kubelet)
        yield Node(world, endpoint, way)


def is_ready(node: dict[str, Any]) -> bool:
    """Has its kubelet said so, and has nobody taken it back?"""
    conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def _ctr(world: World, *arguments: str) -> None:
    command = [str(world.programs / "ctr"), "--address", SOCKET, "--namespace", NAMESPACE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _answers(world: World) -> bool:
    command = [str(world.programs / "ctr"), "--address", SOCKET, "version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _make_control_groups(name: str) -> None:
    for root in needs.cgroup_roots() or []:
        group = root / name
        group.mkdir(exist_ok=True)
        if root.name == "cpuset":
            for file in ("cpuset.cpus", "cpuset.mems"):
                (group / file).write_text((root / file).read_text())
        if root == needs.CGROUPS:  # version 2: the kubelet wants all of these below its root
            (root / "cgroup.subtree_control").write_text("+cpuset +cpu +memory +pids")


def _containerd_config(place: Path) -> Path:
    network = {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni",
                    "ranges": [[{"subnet": "10.88.0.0/16", "rangeStart": "10.88.1.1", "gateway": GATEWAY}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    (place / "cni").mkdir()
    (place / "cni" / "pods.conflist").write_text(json.dumps(network))
    config = place / "containerd.toml"
    config.write_text(CONTAINERD.format(place=place, socket=SOCKET, pause=PAUSE, plugins=needs.plugin_folder()))
    return config


def _kubelet_config(world: World) -> Path:
    """As kubelets are by default, but for what this place asks for, and for short pauses of restarted containers."""
    config = world.place / "kubelet.json"
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{world.control_group}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "podLogsDir": str(world.place / "logs"),
        "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
    }
    config.write_text(json.dumps(settings))
    return config


def _kubelets_kubeconfig(endpoint: Endpoint, path: Path) -> Path:
    """Of one who may do everything, by the kubelet's own way."""
    config = json.loads(kubeconfig_for(endpoint, path).read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://{GATEWAY}:{KUBELETS_WAY}"
    return write_private(path, json.dumps(config))
