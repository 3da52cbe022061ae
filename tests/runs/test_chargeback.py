"""docs/chargeback.md: its recipe, as it stands there, over the log of real runs and the costs that OpenAI tells."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.http_server import SandboxServer
from sandbox.kubernetes.server import Kubernetes
from sandbox.kubernetes.setup import apply, create_namespace, install_crds
from sandbox.openai.server import OpenAI
from sandbox.transport.faults import Rule, Rules, request_lost
from tests.support.canary import leaks
from tests.support.scene import PROJECT, ROOT, Scene, checked_scene
from worker.cli import main

scene = pytest.fixture(checked_scene)
GUIDE = (ROOT / "docs" / "chargeback.md").read_text()
DOCUMENTED = ROOT / "manifests" / "examples" / "documented.yaml"
TARGET = ("default", "openai-credentials")


@dataclass
class Clock:
    """Time that passes only when it is told to."""

    moment: datetime = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def later(self, **units: float) -> None:
        self.moment += timedelta(**units)


@dataclass
class Installation:
    """The documented objects, the worker's command line, and a folder for what it writes."""

    server: SandboxServer
    clock: Clock
    folder: Path
    admin_key: str
    capsys: pytest.CaptureFixture[str]

    def command(self, *arguments: str) -> str:
        """What a command prints. In a pod both streams are in one log."""
        host = self.server.openai_url.removesuffix("/v1")
        hosts = ["--allow-host", host] if arguments[0] != "status" else []
        assert main([*arguments, *hosts, "--output", "json"], clock=self.clock, chance=random.Random(3)) == 0
        said = self.capsys.readouterr()
        return said.out if arguments[0] == "status" else said.err + said.out

    def run(self) -> list[dict[str, Any]]:
        """A run, appended to the log; its lines."""
        text = self.command("run", "--max-wait", "0s")
        with (self.folder / "worker.log").open("a") as log:
            log.write(text)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def spend(self, key: str | None, amount: float) -> None:
        with self.server.locked():
            self.server.openai.spend(PROJECT, key, amount)

    def charged(self, first: str, end: str) -> list[dict[str, str]]:
        """The recipe's table."""
        (self.folder / "status.json").write_text(self.command("status"))
        (recipe,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
        (self.folder / "chargeback.py").write_text(recipe)
        files = [str(self.folder / name) for name in ("worker.log", "status.json")]
        done = subprocess.run(
            [sys.executable, str(self.folder / "chargeback.py"), first, end, *files],
            env={
                "PATH": os.environ["PATH"],
                "OPENAI_BASE_URL": self.server.openai_url,
                "OPENAI_ADMIN_KEY": self.admin_key,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert not leaks(done.stdout)
        return list(csv.DictReader(done.stdout.splitlines()))


@pytest.fixture
def installation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    clock, source = Clock(), random.Random(7)
    kubernetes, openai = Kubernetes(clock.now, source), OpenAI(clock.now, source)
    admin_key = openai.add_organization("acme")
    openai.add_project("acme", PROJECT)
    with SandboxServer(kubernetes, openai) as server:
        with server.locked():
            install_crds(kubernetes)
            create_namespace(kubernetes, "openai-key-rotator")
            documented = DOCUMENTED.read_text().replace("https://api.openai.com/v1", server.openai_url)
            apply(kubernetes, documented.replace("sk-admin-example", admin_key))
        for name in [name for name in os.environ if name.startswith("ROTATOR_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("KUBECONFIG", str(server.write_kubeconfig(tmp_path / "kubeconfig")))
        yield Installation(server, clock, tmp_path, admin_key, capsys)


def rotated(lines: list[dict[str, Any]]) -> dict[str, Any]:
    (line,) = [line for line in lines if line["event"] == "target.rotated"]
    return line


def row(secret: str, amount: str, namespace: str = "") -> dict[str, str]:
    return {"namespace": namespace, "secret": secret, "project": PROJECT, "currency": "usd", "amount": amount}


def test_the_recipe_charges_deleted_keys_to_their_secret(installation: Installation) -> None:
    """The table in the guide is what the recipe really prints."""
    first = rotated(installation.run())["keyId"]
    installation.spend(first, 1.25)
    installation.clock.later(hours=1)
    second = rotated(installation.run())["keyId"]
    installation.spend(second, 2.5)
    installation.clock.later(minutes=10)
    (retired,) = [line for line in installation.run() if line["event"] == "target.retired"]
    assert [key["keyId"] for key in retired["deletedKeys"]] == [first]
    assert [key["account"] for key in retired["deletedKeys"]] == retired["deleted"]
    installation.spend("key_of_a_person", 5.0)
    installation.spend(None, 0.125)
    charged = installation.charged("2026-11-01", "2026-12-01")
    assert charged == [row("key key_of_a_person", "5.0"), row("no key", "0.125"), row(TARGET[1], "3.75", TARGET[0])]
    (shown,) = re.findall(r"```csv\n(.*?)```", GUIDE, re.DOTALL)
    assert charged == list(csv.DictReader(shown.splitlines()))


def test_a_key_whose_rotation_wrote_no_line_is_charged_all_the_same(installation: Installation) -> None:
    """While it lives the ledger has it, then the line about its end."""
    first = rotated(installation.run())["keyId"]
    installation.spend(first, 1.0)
    (installation.folder / "worker.log").write_text("")  # as if the run had died before it wrote a line
    assert installation.charged("2026-11-24", "2026-11-25") == [row(TARGET[1], "1.0", TARGET[0])]
    installation.clock.later(hours=1)
    installation.run()
    installation.clock.later(minutes=10)
    installation.run()
    assert first not in installation.command("status")
    assert installation.charged("2026-11-24", "2026-11-25") == [row(TARGET[1], "1.0", TARGET[0])]


def test_every_page_is_read_and_only_the_days_asked_for_count(installation: Installation) -> None:
    """A page holds 180 days at most."""
    first = rotated(installation.run())["keyId"]
    for amount in (1.0, 0.1, 0.2, 8.0):
        installation.spend(first, amount)
        installation.clock.later(days=190)
    assert installation.charged("2026-11-25", "2028-01-01") == [row(TARGET[1], "0.3", TARGET[0])]


def test_the_event_names_the_key_and_its_project(installation: Installation) -> None:
    """`kubectl describe externalsecret` shows it."""
    line = rotated(installation.run())
    assert line["projectId"] == PROJECT
    with installation.server.locked():
        events = installation.server.kubernetes.objects("events", TARGET[0])
    (event,) = [event for event in events if event["reason"] == "Created"]
    assert event["message"].endswith(f", keyId {line['keyId']}, projectId {PROJECT}")


def test_the_keys_of_both_rounds_of_a_run_are_told(scene: Scene) -> None:
    """A run that rotates deletes what is ripe, and after the wait for the grace the account that it superseded."""
    scene.apply_documented()
    made: list[dict[str, Any]] = []
    for hours in (0, 1, 1):
        scene.advance(hours=hours)
        scene.run(max_wait=timedelta(minutes=5 if len(made) == 2 else 0))
        made.append(scene.named())
    retired = scene.retired()
    assert retired is not None
    told = [(key.account, key.key_id, key.project_id) for key in retired.deleted_keys]
    assert told == [(one["name"], one["keyId"], one["projectId"]) for one in made[:2]]
    assert [account for account, _, _ in told] == list(retired.deleted)


def test_a_key_that_the_ledger_could_not_note_is_told(scene: Scene) -> None:
    """The line says that the run failed, and with which key."""
    scene.apply_documented()
    lost = Rules([Rule(request_lost(disconnected=True), method="PATCH", path=".*/keyrotations/.*")], scene.random)
    scene.run(cluster_faults=lost, max_wait=timedelta(0))
    outcome, named = scene.outcome(), scene.named()
    assert outcome.reason == "LedgerNotWritten"
    assert (outcome.account, outcome.key_id, outcome.project_id) == (named["name"], named["keyId"], PROJECT)
