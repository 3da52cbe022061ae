"""The first process of a node's namespaces: makes the place ready, runs the tests, and reaps what nobody else does.

Guarantee: with its end everything in there ends, for that is what the kernel does to a pid namespace.
`python -m tests.node.inside COMMAND…`. Standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster.control_plane import SERVICE_ADDRESS

GATEWAY = "10.88.0.1"
"""Of the bridge that pods hang on: the node's address, and that of the API server and of OpenAI."""
BRIDGE = "pods0"
PRIVATE = ("/run", "/var/log", "/var/lib/cni")
"""Folders in which a container runtime writes, whatever it is told."""
COMMANDS = (
    "mount --make-rprivate /",  # from the machine
    "mount --make-rshared /",  # among ourselves, as kubelets need it
    *(f"mount -t tmpfs tmpfs {folder}" for folder in PRIVATE),
    "ip link set lo up",
    # The address of the Service `kubernetes`: the API server listens on all addresses, so there is no kube-proxy.
    f"ip addr add {SERVICE_ADDRESS}/32 dev lo",
    f"ip link add {BRIDGE} type bridge",
    f"ip addr add {GATEWAY}/16 dev {BRIDGE}",
    f"ip link set {BRIDGE} up",
    # Kubelet and API server look for a default route. It leads nowhere.
    f"ip route add default via {GATEWAY}",
)


def prepare() -> None:
    """Mounts and network."""
    for folder in PRIVATE:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for command in COMMANDS:
        subprocess.run(command.split(), check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def main() -> int:
    """Run the command; its exit code."""
    prepare()
    command = subprocess.Popen(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command too; its end is waited for
    while True:
        ended, status = os.wait()  # the shims of containers are left to this process
        if ended == command.pid:
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1


if __name__ == "__main__":
    sys.exit(main())
