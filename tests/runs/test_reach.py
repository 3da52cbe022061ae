"""Where an admin key goes, and what a tenant can have asked or deleted with one that is not its own."""

import json
from datetime import timedelta
from typing import Any

import pytest

from sandbox.transport.faults import Fate, NoFaults
from sandbox.transport.wire import Request
from tests.support.paths import ADMIN_SECRET, EXTERNAL_SECRET, GENERATOR, NO_WAIT
from tests.support.scene import HOST, LEDGER, PROJECT, Scene, checked_scene
from worker.commands.adopt.judge import Verdict
from worker.model.hosts import named_origin
from worker.model.targets import AdminKeyRef
from worker.model.values import Ref

scene = pytest.fixture(checked_scene)
FALLBACK = AdminKeyRef(Ref(LEDGER, "fallback"), "api-key")
GATEWAY = "https://gateway.tenant.example/v1"
BOTH = frozenset({named_origin(HOST), named_origin(GATEWAY)})


def put_fallback(scene: Scene, value: str) -> None:
    metadata = {"namespace": LEDGER, "name": FALLBACK.secret.name}
    scene.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {FALLBACK.key: value}})


class Listener:
    """Faults: lets everything through, and keeps each key with the host that it was sent to."""

    def __init__(self) -> None:
        self.heard: set[tuple[str, str]] = set()

    def fate(self, request: Request) -> Fate:
        self.heard.add((request.headers.get("host", ""), request.bearer or ""))
        return NoFaults().fate(request)

    def keys(self) -> set[str]:
        return {key for _, key in self.heard}


@pytest.fixture
def claimed(scene: Scene) -> tuple[Scene, str]:
    """A tenant claims an account of another project, whose admin key it has not; the scene and the account's key."""
    scene.openai.add_project("acme", "proj_victim")
    victim, key = scene.openai.add_account("proj_victim", "production-backend")
    put_fallback(scene, scene.admin_key)
    scene.namespace("tenant")
    previous = json.dumps([{"id": victim.id, "name": victim.name}])
    annotations = {"openai-key-rotator.io/previous-service-accounts": previous}
    spec = {
        "projectId": "proj_victim",
        "host": HOST,
        "openAiAdminKey": {"name": "absent", "key": "k"},
        "serviceAccountNameSize": len(victim.name),
    }
    metadata = {"namespace": "tenant", "name": "gen", "annotations": {"openai-key-rotator.io/secret": "creds"}}
    generator = {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI"}
    scene.apply(
        generator | {"metadata": metadata, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"namespace": "tenant", "name": "creds", "annotations": annotations},
        },
    )
    return scene, key


def test_adopt_asks_about_what_a_tenant_names_with_the_tenants_own_key_alone(claimed: tuple[Scene, str]) -> None:
    """The account stays, adopt cannot confirm it, and OpenAI hears of none of it."""
    scene, key = claimed
    listener = Listener()
    scene.run(fallback_admin_key=FALLBACK, openai_faults=listener)
    adopted = scene.adopt(yes=True, fallback_admin_key=FALLBACK, openai_faults=listener)
    assert [finding.verdict for finding in adopted.findings if finding.id] == [Verdict.REFUSED]
    for _ in range(3):
        scene.advance(minutes=10)
        scene.run(fallback_admin_key=FALLBACK, openai_faults=listener)
    assert scene.openai.use(key)
    assert listener.keys() == set()


def test_adopt_shows_nothing_of_a_project_whose_key_the_tenant_has_not(claimed: tuple[Scene, str]) -> None:
    scene, _ = claimed
    scene.openai.add_account("proj_victim", "production-bask2nd")
    adopted = scene.adopt(fallback_admin_key=FALLBACK)
    assert [finding.name for finding in adopted.findings if finding.verdict is Verdict.UNRECORDED] == []


def test_the_fallback_key_goes_to_its_own_host_alone(scene: Scene) -> None:
    """A tenant's allowed gateway does not get it when the tenant deletes its admin Secret."""
    operators = scene.openai.add_admin_key("acme")
    put_fallback(scene, operators)
    scene.apply_documented(host=GATEWAY)
    options: dict[str, Any] = {"allowed_hosts": BOTH, "fallback_admin_key": FALLBACK}
    listener = Listener()
    scene.run(**options)
    scene.advance(hours=1)
    scene.run(max_wait=timedelta(0), **options)
    scene.delete(ADMIN_SECRET)
    scene.advance(minutes=10)
    scene.run(openai_faults=listener, **options)
    scene.adopt(openai_faults=listener, **options)
    assert listener.keys() == set()
    assert len(scene.accounts()) == 2
    scene.advance(minutes=10)
    scene.run(openai_faults=listener, **options, fallback_host=named_origin(GATEWAY))
    assert listener.keys() == {operators}
    assert len(scene.accounts()) == 1


def test_the_fallback_key_serves_accounts_that_the_ledger_records(scene: Scene) -> None:
    """Its own host: the superseded account goes although the tenant's admin Secret is gone."""
    put_fallback(scene, scene.openai.add_admin_key("acme"))
    scene.apply_documented()
    scene.run()
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    scene.delete(ADMIN_SECRET)
    scene.advance(minutes=10)
    scene.run(fallback_admin_key=FALLBACK)
    assert len(scene.accounts()) == 1


def test_adopt_asks_about_an_account_in_the_project_that_the_annotation_names(scene: Scene) -> None:
    """The generator has moved to another project of the same key, and the ledger is lost: the account is not gone."""
    scene.openai.add_project("acme", "proj_next")
    scene.apply_documented()
    scene.run()
    scene.delete(f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations/default.openai-credentials")
    scene.merge(GENERATOR, {"spec": {"projectId": "proj_next"}})
    adopted = scene.adopt(yes=True)
    assert [finding.verdict for finding in adopted.findings] == [Verdict.RECORD]
    for _ in range(3):
        scene.advance(minutes=10)
        scene.run()
    assert scene.live_key()
    assert scene.accounts(PROJECT) == []
    assert len(scene.accounts("proj_next")) == 1


def test_a_suspended_target_loses_no_account_whatever_else_is_wrong_with_it(scene: Scene) -> None:
    """Malformed generator, suspend annotation that is neither true nor false, generator gone."""
    scene.apply_documented()
    scene.run()
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    suspend = {"metadata": {"annotations": {"openai-key-rotator.io/suspend": "true"}}}
    scene.merge(EXTERNAL_SECRET, suspend)
    scene.merge(GENERATOR, {"spec": {"serviceAccountNameSize": 7}})
    for _ in range(2):
        scene.advance(minutes=10)
        scene.run()
    assert len(scene.accounts()) == 2
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/suspend": "yes"}}})
    scene.advance(minutes=10)
    scene.run()
    assert len(scene.accounts()) == 2
    scene.merge(EXTERNAL_SECRET, suspend)
    scene.delete(GENERATOR)
    scene.advance(minutes=10)
    scene.run()
    assert len(scene.accounts()) == 2
