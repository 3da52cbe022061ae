"""The guide for the enterprise operator's users, command by command, against the real API server."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.http_server import SandboxServer
from sandbox.kubernetes.server import Kubernetes
from sandbox.openai.server import OpenAI
from tests.cluster.control_plane import control_plane, find_binaries
from tests.cluster.endpoint import kubectl
from tests.support import operator
from tests.support.guide import follow
from tests.support.operator import GUIDE, OPERATOR
from tests.support.scene import PROJECT, ROOT, documented

pytestmark = pytest.mark.cluster


@pytest.fixture
def openai() -> OpenAI:
    return OpenAI(lambda: datetime.now(UTC), random.Random(secrets.randbits(64)))


@pytest.fixture
def server(openai: OpenAI) -> Iterator[SandboxServer]:
    with SandboxServer(Kubernetes(lambda: datetime.now(UTC), random.Random(1)), openai) as server:
        yield server


def test_every_command_of_the_guide_works_on_the_real_api_server(
    openai: OpenAI, server: SandboxServer, tmp_path: Path
) -> None:
    """A cluster of its own, for the guide is about its default namespace, and installs CRDs one by one."""
    if find_binaries() is None:
        pytest.skip("no real API server")
    with control_plane(tmp_path) as endpoint:

        def apply(*objects: dict[str, Any]) -> None:
            kubectl(endpoint, "apply", "--filename", "-", given=yaml.safe_dump_all(objects))

        for crd in ("openai.yaml", "external-secret/externalsecret.yaml"):
            kubectl(endpoint, "apply", "--server-side", "--filename", ROOT / "manifests" / "crds" / crd)
        kubectl(endpoint, "apply", "--filename", operator.CRD)
        kubectl(endpoint, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        kubectl(endpoint, "create", "namespace", "external-secrets")
        admin_key = openai.add_organization("acme")
        openai.add_project("acme", PROJECT)
        apply(OPERATOR, *documented(admin_key, server.openai_url))
        source = json.loads(kubectl(endpoint, "get", "externalsecret", "openai-credentials", "--output", "json"))
        generator = json.loads(kubectl(endpoint, "get", "openai", "openai-generator", "--output", "json"))
        old, _ = openai.add_account(PROJECT, "app_old0000000")
        latest, key = openai.add_account(PROJECT, "app_new0000000")
        apply(
            operator.generator_state("gen-1", old.id, source, generator, deadline="2026-11-24T11:02:00Z"),
            operator.generator_state("gen-2", latest.id, source, generator),
            operator.secret(key, source),
        )
        follow(GUIDE, tmp_path, endpoint.kubeconfig, server.openai_url)
        entry = json.loads(
            kubectl(endpoint, "get", "keyrotations", "--namespace", "openai-key-rotator", "--output", "json")
        )["items"][0]
        assert len(entry["status"]["accounts"]) == 3
        assert {old.name, latest.name} < set(entry["status"]["accounts"])
        assert kubectl(endpoint, "get", "generatorstates", "--output", "name") == ""
