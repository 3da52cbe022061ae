"""A credential plugin over time: what it gave ends, it fails, it hangs, and many requests need it at once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.builders import FixedRandom
from tests.support.scene import ROOT
from tests.support.tls import OPENSSL, Certificates, Listener, listening
from worker.errors import NotSent, OutOfReach
from worker.kubernetes import credential_plugin
from worker.kubernetes.client import KubernetesApi
from worker.kubernetes.connection import connect
from worker.model.times import format_time
from worker.model.values import Ref, Resource

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="needs openssl for certificates")
PODS = Resource("", "v1", "pods")
NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
VERSION = "client.authentication.k8s.io/v1"
PLUGIN = """#!/bin/sh
echo run >> runs
exec cat "answer-$(wc -l < runs | tr -d ' ')"
"""
"""Gives one answer after another; without a file for it, it fails."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def listener(certificates: Certificates) -> Iterator[Listener]:
    with listening(certificates) as found:
        yield found


class Desk:
    """A kubeconfig with a plugin, what the plugin will answer, and the time."""

    def __init__(self, directory: Path, listener: Listener, certificates: Certificates) -> None:
        self.directory, self.now = directory, NOW
        plugin = directory / "login"
        plugin.write_text(PLUGIN.replace("runs", str(directory / "runs")).replace("answer-", f"{directory}/answer-"))
        plugin.chmod(0o755)
        section = {"apiVersion": VERSION, "command": str(plugin), "interactiveMode": "Never"}
        cluster = {"server": f"https://{listener.url}", "certificate-authority": str(certificates.ca)}
        self.kubeconfig = directory / "kubeconfig"
        document = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": cluster}],
            "users": [{"name": "u", "user": {"exec": section}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(document))

    def answers(self, *statuses: dict[str, Any]) -> None:
        for number, status in enumerate(statuses, 1):
            answer = {"apiVersion": VERSION, "kind": "ExecCredential", "status": status}
            (self.directory / f"answer-{number}").write_text(json.dumps(answer))

    @property
    def runs(self) -> int:
        return len((self.directory / "runs").read_text().splitlines())

    async def ask(self, *, steps: int, at_once: int = 1, step: timedelta = timedelta(minutes=10)) -> list[object]:
        """So many requests at once, then time passes, and again; what came of each: an error, or None."""
        found: list[object] = []
        client = await connect(
            kubeconfig=str(self.kubeconfig), context=None, in_cluster=False, connections=9, now=lambda: self.now
        )
        async with client:
            api = KubernetesApi(client, FixedRandom())
            for _ in range(steps):
                asked = [api.read(PODS, Ref("n", "p")) for _ in range(at_once)]
                answers = await asyncio.gather(*asked, return_exceptions=True)
                found += [answer if isinstance(answer, BaseException) else None for answer in answers]
                self.now += step
        return found


@pytest.fixture
def desk(tmp_path: Path, listener: Listener, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr("worker.runtime.retrying.FIRST_DELAY", 0.001)
    return Desk(tmp_path, listener, certificates)


def at(minutes: int) -> str:
    return format_time(NOW + timedelta(minutes=minutes))


def test_a_token_is_renewed_once_for_many_requests(desk: Desk, listener: Listener) -> None:
    """Before it ends; one without an end is kept."""
    desk.answers({"token": "1", "expirationTimestamp": at(5)}, {"token": "2"})
    assert asyncio.run(desk.ask(steps=3, at_once=5)) == [None] * 15
    assert desk.runs == 2
    assert [who["authorization"] for who in listener.seen] == ["Bearer 1"] * 5 + ["Bearer 2"] * 10


def test_a_certificate_is_renewed_too(desk: Desk, listener: Listener, certificates: Certificates) -> None:
    """Teleport and others give one that ends in minutes. No connection goes on with the one before."""

    def pair(name: str) -> dict[str, str]:
        read = (certificates.directory / f"{name}.{kind}" for kind in ("crt", "key"))
        certificate, key = (path.read_text() for path in read)
        return {"clientCertificateData": certificate, "clientKeyData": key}

    desk.answers(pair("client") | {"expirationTimestamp": at(5)}, pair("other") | {"expirationTimestamp": at(99)})
    assert asyncio.run(desk.ask(steps=2, at_once=2)) == [None] * 4
    assert desk.runs == 2
    assert listener.seen == [{"certificate": "client"}] * 2 + [{"certificate": "other"}] * 2


def test_a_renewal_that_fails_sends_nothing_and_is_not_tried_for_each_request(desk: Desk, listener: Listener) -> None:
    desk.answers({"token": "1", "expirationTimestamp": at(5)})
    first, *later = asyncio.run(desk.ask(steps=2, at_once=4))[3:]
    assert first is None
    for error in later:
        assert isinstance(error, NotSent)
        assert error.reason == "NoKubeconfig"
        assert "the credential plugin 'login' failed with exit code 1" in error.message
    assert desk.runs == 2
    assert len(listener.seen) == 4


def test_a_plugin_whose_tokens_have_always_ended_is_not_run_for_each_request(desk: Desk, listener: Listener) -> None:
    desk.answers(*[{"token": "x", "expirationTimestamp": at(-60)}] * 9)
    assert asyncio.run(desk.ask(steps=3, at_once=5)) == [None] * 15
    assert desk.runs == 4


def test_a_plugin_that_hangs_is_stopped(desk: Desk, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so it is when the command ends."""
    (desk.directory / "login").write_text(f"#!/bin/sh\necho $$ > {desk.directory}/pid\nexec sleep 600\n")
    monkeypatch.setattr(credential_plugin, "PATIENCE", 0.5)
    with pytest.raises(OutOfReach, match=r"the credential plugin 'login' failed: it took over"):
        asyncio.run(desk.ask(steps=1))
    assert not Path("/proc", (desk.directory / "pid").read_text().strip()).exists() or not Path("/proc").exists()
    assert listener.seen == []


INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background hands down another
from worker.cli import main
sys.exit(main(["status"]))
"""


def test_whoever_waits_for_a_login_may_give_up(desk: Desk, listener: Listener) -> None:
    """Control and C: that is no bug to report."""
    (desk.directory / "login").write_text("#!/bin/sh\nkill -INT $PPID\nexec sleep 600\n")
    environment = {"KUBECONFIG": str(desk.kubeconfig), "PATH": os.environ["PATH"], "HOME": str(desk.directory)}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTIBLE], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")
    assert listener.seen == []
