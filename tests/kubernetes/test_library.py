"""What a command imports of the Kubernetes library: the half that it calls."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.scene import ROOT

PROGRAM = """
import json, sys
from worker.commands import run
from worker.kubernetes.client import KubernetesApi
from worker.kubernetes.connection import connect
print(json.dumps(sorted(sys.modules)))
"""


def test_neither_the_synchronous_half_nor_generated_classes_are_imported() -> None:
    """Nor what they import, nor YAML, which a pod needs not: a batch job pays that with every run."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stdout))
    assert "kubernetes.aio.client.rest" in imported
    synchronous = {"kubernetes.config", "kubernetes.client", "requests", "urllib3", "oauthlib", "websocket"}
    assert not imported & synchronous
    assert not imported & {"kubernetes.aio.client.api_client", "pydantic", "yaml"}
    assert not any(name.startswith("kubernetes.aio.client.models.") for name in imported)
