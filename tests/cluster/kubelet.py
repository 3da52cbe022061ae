"""Run the worker's container as a kubelet would: the pod's command, environment, mounts and token, and nothing else.

Guarantees: what the pod does not say the process does not get; the token is one that the API server issued for this
pod's volume, with its audience and lifetime. Where a file must be at a place that belongs to this machine, the process
finds the pod's file there instead.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.cluster.endpoint import Endpoint, call, kubectl
from tests.cluster.rig import Run
from tests.support.scene import ROOT

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TERMINATION_LOG = "/dev/termination-log"
IN_THE_POD = """
import pathlib, sys
from kubernetes.aio.config import incluster_config
import worker.cli
root = sys.argv.pop(1)
incluster_config.SERVICE_TOKEN_FILENAME = root + incluster_config.SERVICE_TOKEN_FILENAME
incluster_config.SERVICE_CERT_FILENAME = root + incluster_config.SERVICE_CERT_FILENAME
worker.cli.POD_NAMESPACE_FILE = pathlib.Path(root + str(worker.cli.POD_NAMESPACE_FILE))
sys.exit(worker.cli.main())
"""
"""What the image's entry point does, with `/` where the pod's mounts are."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A container that has ended: what it printed, and its termination message."""

    run: Run
    message: dict[str, Any]


def pods_of_a_job(endpoint: Endpoint, namespace: str, cronjob: str, count: int = 1) -> list[dict[str, Any]]:
    """The pods that the real controllers make for a Job of this CronJob."""
    job = f"run-{secrets.token_hex(4)}"
    kubectl(endpoint, "-n", namespace, "create", "job", job, f"--from=cronjob/{cronjob}")
    deadline = time.monotonic() + 60
    while True:
        found = kubectl(endpoint, "-n", namespace, "get", "pods", "-l", f"job-name={job}", "-o", "json")
        pods: list[dict[str, Any]] = json.loads(found)["items"]
        if len(pods) == count:
            return pods
        assert time.monotonic() < deadline, "the Job's pods were not made"
        time.sleep(0.1)


def execute(endpoint: Endpoint, pod: dict[str, Any], root: Path) -> Ended:
    """Run the pod's one container to its end; `root` becomes its file system."""
    (container,) = pod["spec"]["containers"]
    assert "command" not in container
    assert _entry_point() == ["/venv/bin/python", "/app/run.py"]
    _mount(endpoint, pod, container, root)
    environment = {variable["name"]: _value(pod, variable) for variable in container["env"]}
    for mount in container["volumeMounts"]:  # a file that a variable names is found where the pod's mounts are
        environment = {
            name: str(root) + value if value.startswith(mount["mountPath"] + "/") else value
            for name, value in environment.items()
        }
    message = root / "termination-log"
    assert environment["ROTATOR_SUMMARY_FILE"] == container.get("terminationMessagePath", TERMINATION_LOG)
    api_server = urlsplit(endpoint.url)
    environment |= {
        "ROTATOR_SUMMARY_FILE": str(message),
        "KUBERNETES_SERVICE_HOST": str(api_server.hostname),
        "KUBERNETES_SERVICE_PORT": str(api_server.port),
    }
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_POD, str(root), *container["args"]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(Run(done.returncode, done.stdout, done.stderr), json.loads(message.read_text()))


def _value(pod: dict[str, Any], variable: dict[str, Any]) -> str:
    """Of a variable: as it is, or from the pod's own labels, as the Job controller asks for the index."""
    if "valueFrom" not in variable:
        return str(variable["value"])
    found = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", variable["valueFrom"]["fieldRef"]["fieldPath"])
    assert found
    return str(pod["metadata"][found[1]][found[2]])


def _entry_point() -> list[str]:
    found = re.search(r"^ENTRYPOINT (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    entry_point: list[str] = json.loads(found[1])
    return entry_point


def _mount(endpoint: Endpoint, pod: dict[str, Any], container: dict[str, Any], root: Path) -> None:
    """Write what the pod's volumes hold to where the container mounts them."""
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    for mount in container["volumeMounts"]:
        assert mount["readOnly"]
        place = root / mount["mountPath"].lstrip("/")
        place.mkdir(parents=True)
        volume = volumes[mount["name"]]
        assert ("projected" in volume) == (mount["mountPath"] == ACCOUNT)
        for source in volume["projected"]["sources"] if "projected" in volume else [volume]:
            for path, text in _files(endpoint, pod, source).items():
                (place / path).write_text(text)


def _files(endpoint: Endpoint, pod: dict[str, Any], source: dict[str, Any]) -> dict[str, str]:
    """The files of a volume, or of one source of a projected one."""
    namespace = pod["metadata"]["namespace"]
    if "serviceAccountToken" in source:
        wanted = source["serviceAccountToken"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        spec = {"expirationSeconds": wanted["expirationSeconds"], "boundObjectRef": bound}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{pod['spec']['serviceAccountName']}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        status, answer = call(endpoint, "POST", path, request)
        assert status == 201, status
        return {wanted["path"]: answer["status"]["token"]}
    if "configMap" in source:
        name = source["configMap"]["name"]
        found = json.loads(kubectl(endpoint, "-n", namespace, "get", "configmap", name, "-o", "json"))
        items = source["configMap"].get("items", [{"key": key, "path": key} for key in found["data"]])
        return {item["path"]: found["data"][item["key"]] for item in items}
    return {item["path"]: namespace for item in source["downwardAPI"]["items"]}
