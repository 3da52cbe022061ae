"""OpenAI behind a proxy that inspects TLS: its certificate is of an authority that only this company knows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox.http_server import SandboxServer, ServerThread
from sandbox.kubernetes.server import Kubernetes
from sandbox.kubernetes.setup import apply, create_namespace, install_crds
from sandbox.openai.server import OpenAI
from tests.support.authority import bare_authority
from tests.support.command_line import run_py
from tests.support.scene import PROJECT, documented
from tests.support.tls_front import tls_front


@pytest.fixture
def inspected(tmp_path: Path) -> Iterator[tuple[Path, Path, str, OpenAI]]:
    """A kubeconfig, the authority, where OpenAI is to be reached by it alone, and OpenAI itself."""
    ca = bare_authority(tmp_path / "tls", "proxy")
    certificate, key = ca.with_name("proxy.crt"), ca.with_name("proxy.key")
    chance = random.Random(1)
    openai = OpenAI(lambda: datetime.now(UTC), chance)
    kubernetes = Kubernetes(lambda: datetime.now(UTC), chance)
    with (
        SandboxServer(kubernetes, openai) as server,
        ServerThread(tls_front(certificate, key, server.openai_url)) as front,
    ):
        with server.locked():
            admin_key = openai.add_organization("acme")
            openai.add_project("acme", PROJECT)
            install_crds(kubernetes)
            create_namespace(kubernetes, "openai-key-rotator")
            for obj in documented(admin_key, f"{front.urls[0]}/v1"):
                if obj["kind"] != "Deployment":
                    apply(kubernetes, obj)
        yield server.write_kubeconfig(tmp_path / "kubeconfig"), ca, front.urls[0], openai


def test_an_authority_that_is_named_is_trusted(inspected: tuple[Path, Path, str, OpenAI]) -> None:
    """Also one that breaks the strict rules of Python 3.13."""
    kubeconfig, ca, url, openai = inspected
    done = run_py(kubeconfig, "run", "--max-wait", "0s", "--allow-host", url, SSL_CERT_FILE=str(ca))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(openai.accounts(PROJECT)) == 1


def test_an_authority_that_nobody_named_is_not(inspected: tuple[Path, Path, str, OpenAI]) -> None:
    """And the message says certificate."""
    kubeconfig, _, url, openai = inspected
    done = run_py(kubeconfig, "run", "--max-wait", "0s", "--allow-host", url)
    assert done.returncode == 1
    (line,) = [json.loads(line) for line in done.stdout.splitlines() if '"target.failed"' in line]
    assert "the certificate of OpenAI's host is not accepted" in line["message"]
    assert openai.accounts(PROJECT) == ()
