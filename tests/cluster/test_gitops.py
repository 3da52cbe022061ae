"""What kstatus, and so Flux, makes of the objects that the worker writes on the real API server."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sandbox.http_server import SandboxServer
from sandbox.kubernetes.server import Kubernetes
from sandbox.openai.server import OpenAI
from tests.cluster.endpoint import Endpoint, call
from tests.cluster.kstatus_tool import find_kstatus, judged
from tests.cluster.rig import PREFIX, Rig, install_crds
from tests.support.builders import empty_entry
from worker.kubernetes.generator import GENERATORS
from worker.ledger.codec import entry_object
from worker.model import faults
from worker.model.outcomes import Outcome, Result
from worker.model.targets import Source
from worker.model.values import Ref
from worker.report.health import generator_patch, status_patch, target_health

ENTRIES = "/apis/openai-key-rotator.io/v1alpha1/namespaces/{}/keyrotations"
KINDS = {
    "openais": "/apis/generators.external-secrets.io/v1alpha1/namespaces/{}/openais",
    "externalsecrets": "/apis/external-secrets.io/v1/namespaces/{}/externalsecrets",
}

Object = dict[str, Any]


@pytest.fixture(scope="module")
def program() -> Path:
    found = find_kstatus()
    if found is None:
        pytest.skip("no kstatus: `make control-plane` builds it")
    return found


@pytest.fixture
def rig(real_api_server: Endpoint, tmp_path: Path) -> Iterator[Rig]:
    """With our CRDs, as they are installed."""

    def now() -> datetime:
        return datetime.now(UTC)

    chance = random.Random(secrets.randbits(64))
    openai = OpenAI(now, chance)
    with SandboxServer(Kubernetes(now, chance), openai) as server:
        rig = Rig(real_api_server, openai, server.openai_url, tmp_path)
        install_crds(real_api_server)
        for name in (rig.namespace, rig.ledger):
            rig.kubectl("create", "namespace", name)
        rig.apply_documented(rig.namespace)
        yield rig
        rig.kubectl("delete", "namespace", rig.namespace, rig.ledger, "--wait=false")
        install_crds(real_api_server, rules=False)  # as the other tests expect it


def generator(rig: Rig, name: str, **spec: Any) -> Object:
    """One that stands alone, and feeds the Secret of its name."""
    wanted = {"projectId": "my-openai-project-id", "host": rig.openai_url}
    wanted["openAiAdminKey"] = {"name": "openai-admin-secret", "key": "api-key"}  # type: ignore[assignment]
    metadata = {"name": name, "namespace": rig.namespace, "annotations": {f"{PREFIX}secret": name}}
    return {"apiVersion": GENERATORS.api_version, "kind": "OpenAI", "metadata": metadata, "spec": wanted | spec}


def verdict(rig: Rig, program: Path, kind: str, name: str, namespace: str = "") -> str:
    (status,) = judged(program, [rig.get(kind, name, namespace)])
    return status


def waits(rig: Rig, kind: str, name: str, namespace: str = "") -> None:
    place = namespace or rig.namespace
    rig.kubectl("-n", place, "wait", "--for=condition=Ready", f"{kind}/{name}", "--timeout=10s")


def test_kstatus_follows_a_target_from_its_first_day(rig: Rig, program: Path) -> None:
    """Before a run, after it, after a change, blocked, and mended. `kubectl wait` and `get` agree."""
    rig.kubectl("-n", rig.namespace, "delete", "externalsecret", "openai-credentials")
    rig.apply(generator(rig, "alone"))
    assert verdict(rig, program, "openai", "alone") == "InProgress"
    assert "Pending" in rig.kubectl("-n", rig.namespace, "get", "openai", "alone")
    assert rig.run().code == 0
    assert verdict(rig, program, "openai", "alone") == "Current"
    waits(rig, "openai", "alone")
    header, row = rig.kubectl("-n", rig.namespace, "get", "openai", "alone").splitlines()
    assert header.split() == ["NAME", "PROJECT", "READY", "REASON", "AGE"]
    assert row.split()[2:4] == ["True", "Rotated"]
    entry = f"{rig.namespace}.alone"
    assert verdict(rig, program, "keyrotation", entry, rig.ledger) == "Current"
    waits(rig, "keyrotation", entry, rig.ledger)

    rig.apply(generator(rig, "alone", openAiAdminKey={"name": "absent", "key": "api-key"}))
    assert verdict(rig, program, "openai", "alone") == "InProgress"
    rig.run("--force")
    assert verdict(rig, program, "openai", "alone") == "Failed"
    assert verdict(rig, program, "keyrotation", entry, rig.ledger) == "Failed"
    assert "AdminKeyMissing" in rig.kubectl("-n", rig.namespace, "get", "openai", "alone")

    rig.apply(generator(rig, "alone"))
    assert rig.run("--force").code == 0
    assert verdict(rig, program, "openai", "alone") == "Current"
    assert verdict(rig, program, "keyrotation", entry, rig.ledger) == "Current"


def test_kstatus_knows_which_external_secret_waits_and_which_is_stuck(rig: Rig, program: Path) -> None:
    assert rig.run().code == 0
    assert verdict(rig, program, "externalsecret", "openai-credentials") == "Current"
    assert verdict(rig, program, "openai", "openai-generator") == "Current"
    patch = json.dumps({"spec": {"target": {"creationPolicy": "None"}}})
    rig.kubectl("-n", rig.namespace, "patch", "externalsecret", "openai-credentials", "--type=merge", "-p", patch)
    rig.run()
    assert verdict(rig, program, "externalsecret", "openai-credentials") == "Failed"


# --- every reason

REASONS = sorted(faults.TENANTS | faults.TENANTS_PASSING | faults.PASSING | faults.STATES | {"Forbidden", "OfTomorrow"})


def expected(reason: str) -> str:
    return "Failed" if faults.needs_a_human(reason) else "InProgress"


def test_kstatus_fails_what_waits_for_a_human_and_waits_for_what_passes(rig: Rig, program: Path) -> None:
    """Each reason that a target may not be ready for, as the worker writes it, stored and read by the API server."""
    now = datetime.now(UTC)
    wanted: list[str] = []
    objects: list[Object] = []
    for number, reason in enumerate(REASONS):
        target = Ref(rig.namespace, f"reason-{number}")
        entry = empty_entry(target=target).with_condition(False, reason, "words", now=now)
        body = entry_object(entry) | {"apiVersion": "openai-key-rotator.io/v1alpha1", "kind": "KeyRotation"}
        body["metadata"] = {"name": f"{target.namespace}.{target.name}"}
        path = ENTRIES.format(rig.ledger)
        status, stored = call(rig.endpoint, "POST", path, body)
        assert status == 201, (reason, status)
        objects.append(stored)
        wanted.append(expected(reason))
        if reason == "InProgress":
            continue  # a run that finds another at work says nothing of its source
        for plural, base in KINDS.items():
            path = f"{base.format(rig.namespace)}/{'openai-generator' if plural == 'openais' else 'openai-credentials'}"
            _, before = call(rig.endpoint, "GET", path)
            source = Source(
                GENERATORS,
                "OpenAI" if plural == "openais" else "ExternalSecret",
                target,
                before["metadata"]["uid"],
                before["metadata"]["generation"],
                status=before.get("status", {}),
            )
            outcome = Outcome(target, Result.FAILED, reason, f"words of {reason}")
            health = target_health(source, outcome)
            if plural == "openais":
                assert health is not None
                patch = generator_patch(source, health, now=now)
            else:
                patch = status_patch(source, target, outcome, now=now)
            assert patch is not None, reason
            status, stored = call(
                rig.endpoint, "PATCH", f"{path}/status", patch, content_type="application/merge-patch+json"
            )
            assert status == 200, (reason, plural, status)
            objects.append(stored)
            wanted.append(expected(reason))
    found = judged(program, objects)
    told = [(obj["kind"], obj["status"]["conditions"], status) for obj, status in zip(objects, found, strict=True)]
    assert found == wanted, [each for each, right in zip(told, wanted, strict=True) if each[2] != right]
