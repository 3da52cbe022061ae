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


def test_the_synchronous_half_is_not_imported() -> None:
    """Nor what it imports: a batch job pays that with every run."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stdout))
    assert "kubernetes.aio.client.api_client" in imported
    assert not imported & {"kubernetes.config", "kubernetes.client", "requests", "urllib3", "oauthlib", "websocket"}
    assert not any(name.startswith("kubernetes.aio.client.models.") for name in imported)
