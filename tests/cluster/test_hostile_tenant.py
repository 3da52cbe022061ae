"""A tenant that means harm, with a Role in its own namespace and nothing else, on the real API server.

After each run of the worker: the victim's namespace and ledger entry are unchanged, its accounts and a stranger's exist
and their keys work, no admin key went astray, the attacker's host was never called, and the tenant was told why.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from random import Random

import pytest

from sandbox.http_server import SandboxServer
from sandbox.kubernetes.server import Kubernetes
from tests.cluster.endpoint import Endpoint
from tests.cluster.hostile import FALLBACK, OWN_PROJECT, Attacker, Stage, Tenant, WatchedOpenAI, path_of
from tests.cluster.hostile_attempts import ATTEMPTS, Attempt, Facts, premade
from tests.cluster.rig import PREFIX
from tests.support.scene import PROJECT

MANY = 300
LARGE = 100
MEGABYTE = 1_000_000
MEMORY = 170
"""MiB: two thirds of what the manifests give."""
AGAIN = {PREFIX + "rotate": "2"}


@pytest.fixture(scope="module")
def stage(real_api_server: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One victim for all attempts: what one of them breaks, the others find broken too."""
    openai, directory = WatchedOpenAI(), tmp_path_factory.mktemp("hostile")
    cluster = Kubernetes(lambda: datetime.now(UTC), Random(1))
    with SandboxServer(cluster, openai) as server, Attacker() as attacker:
        stage = Stage.build(real_api_server, openai, server.openai_url, attacker, directory)
        yield stage
        stage.remove()


@pytest.fixture
def tenant(stage: Stage) -> Iterator[Tenant]:
    with closing(Tenant(stage)) as tenant:
        stage.openai.asked.clear()
        yield tenant


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_an_attempt_harms_nobody_else(stage: Stage, tenant: Tenant, attempt: Attempt) -> None:
    """Neither in the run that meets it nor in the next one, when all grace periods have ended."""
    facts = Facts(stage, tenant.namespace)
    if attempt.served_before:
        assert {tenant.write(obj) for obj in (facts.admin(), facts.generator(), facts.source("creds"))} == {201}
        assert tenant.said(stage.run(tenant)) == {"creds": "rotated First"}
        stage.age(tenant)
    before = stage.picture(tenant)
    refused = tenant.write_all(attempt.objects(facts))
    assert refused == {name: status for name, status in attempt.outcomes.items() if isinstance(status, int)}
    own = tenant.secrets()
    for _ in range(2):
        done = stage.run(tenant)
        stage.assert_unharmed(tenant, before)
        assert done.code == attempt.code
        assert tenant.said(done) == {name: said for name, said in attempt.outcomes.items() if name not in refused}
        tenant.assert_told(done)
        assert own.items() <= tenant.secrets().items(), "a Secret that is not the worker's was written"
        stage.age(tenant)


def test_the_tenants_token_opens_nothing_else(stage: Stage, tenant: Tenant) -> None:
    """So that the attempts are made with no more than a tenant has."""
    for place in (stage.victim, stage.rig.ledger):
        for kind in ("Secret", "OpenAI", "ExternalSecret", "KeyRotation", "Pod"):
            path = path_of(kind, place)
            body = {"metadata": {"name": "x"}}
            patched = tenant.ask("PATCH", f"{path}/openai-credentials", body, "application/merge-patch+json")
            asked = [tenant.ask("GET", path), tenant.ask("POST", path, body), tenant.ask("DELETE", path), patched]
            assert set(asked) == {403}
    name = path_of("ExternalSecret", tenant.namespace, "creds")
    assert tenant.ask("PATCH", f"{name}/status", {"status": {}}, "application/merge-patch+json") == 403
    assert tenant.ask("GET", "/api/v1/secrets") == 403


def test_anothers_project_without_its_admin_key(stage: Stage, tenant: Tenant) -> None:
    """A key that is none, in a Secret of the name of the victim's, one of another organisation, one of an application;
    the victim is due, and served.
    """
    facts = Facts(stage, tenant.namespace)
    application = stage.openai.add_user_key(OWN_PROJECT, "application")[1]
    keys = {"none": "sk-admin-CANARY-but-none", "other-organisation": "own", "application": application}
    for name, key in keys.items():
        admin = {"name": "openai-admin-secret" if name == "none" else f"admin-{name}", "key": "api-key"}
        objects = facts.admin(key, admin["name"]), facts.generator(name, projectId=PROJECT, openAiAdminKey=admin)
        assert tenant.write_all([*objects, facts.source(name, name)]) == {}
    stage.ask_for_rotation()
    before = stage.picture(tenant)
    done = stage.run(tenant)
    stage.assert_unharmed(tenant, before, due=True)
    assert done.code == 1
    assert tenant.said(done) == {
        "none": "failed OpenAIUnauthorized",
        "other-organisation": "failed OpenAINotFound",
        "application": "failed OpenAIForbidden",
    }
    tenant.assert_told(done)
    assert stage.victims_outcome(done) == "target.rotated Requested"


def test_what_a_tenant_leaves_behind_gets_nobody_elses_account_deleted(stage: Stage, tenant: Tenant) -> None:
    """Its ExternalSecret and admin key are gone, its Secret stays and names the victim's account, and then goes: the
    fallback admin key, which may delete the victim's too, deletes the tenant's own.
    """
    facts, before = Facts(stage, tenant.namespace), stage.picture(tenant)
    own = serve(stage, tenant, facts)
    forged = facts.named(target=f"{tenant.namespace}/creds")
    assert tenant.write_all([premade(facts, "creds", forged, ownerReferences=None)]) == {}
    for kind, name in (("ExternalSecret", "creds"), ("OpenAI", "gen"), ("Secret", "admin")):
        tenant.delete(kind, name)
    assert stage.run(tenant).code == 0
    stage.assert_unharmed(tenant, before)
    assert stage.deletes() == set()
    tenant.delete("Secret", "creds")
    run_until_something_is_deleted(stage, tenant, before)
    assert stage.deletes() == {(FALLBACK, own)}


def test_an_account_that_is_called_previous_is_not_deleted(stage: Stage, tenant: Tenant) -> None:
    """The victim's accounts in the list of the tenant's previous ones: at its next rotation its own one goes alone."""
    facts, before = Facts(stage, tenant.namespace), stage.picture(tenant)
    own = serve(stage, tenant, facts)
    assert tenant.write_all([premade(facts, "creds", None), facts.source("creds", annotations=AGAIN)]) == {}
    done = stage.run(tenant)
    stage.assert_unharmed(tenant, before)
    assert tenant.said(done) == {"creds": "rotated KeyMissing"}
    run_until_something_is_deleted(stage, tenant, before)
    assert stage.deletes() == {("shared", own)}


def run_until_something_is_deleted(stage: Stage, tenant: Tenant, before: dict[str, str]) -> None:
    """Grace periods of a second are measured by the clock."""
    for _ in range(10):
        stage.age(tenant)
        done = stage.run(tenant)
        stage.assert_unharmed(tenant, before)
        assert done.code == 0
        if stage.deletes():
            return


def serve(stage: Stage, tenant: Tenant, facts: Facts) -> str:
    """A key in the victim's project for the tenant, as it should be, long ago; its account's id."""
    objects = [facts.admin("shared"), facts.generator(projectId=PROJECT), facts.source("creds")]
    assert tenant.write_all(objects) == {}
    assert tenant.said(stage.run(tenant)) == {"creds": "rotated First"}
    stage.age(tenant)
    own, *others = stage.recorded(tenant.namespace)
    assert others == []
    return own


def test_hundreds_of_generators_keep_nobody_waiting(stage: Stage, tenant: Tenant) -> None:
    """All of them valid and due, five places: the victim's due rotation comes early in the same run."""
    facts = Facts(stage, tenant.namespace)
    names = [f"creds-{i}" for i in range(MANY)]
    many = [facts.generator(name) for name in names] + [facts.source(name, name) for name in names]
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(tenant.write, [facts.admin(), *many])) == {201}
    stage.ask_for_rotation()
    before = stage.picture(tenant)
    done = stage.run(tenant)
    stage.assert_unharmed(tenant, before, due=True)
    assert done.code == 0
    assert tenant.said(done) == dict.fromkeys(names, "rotated First")
    assert stage.victims_outcome(done) == "target.rotated Requested"
    order = [line["namespace"] for line in done.said("target.rotated")]
    assert order.index(stage.victim) < MANY / 10


def test_a_hundred_megabytes_of_generators_take_no_memory(stage: Stage, tenant: Tenant) -> None:
    """And of ExternalSecrets: the worker has 256Mi. Each is told why it is not served, and the victim is."""
    facts = Facts(stage, tenant.namespace)
    names = [f"large-{i}" for i in range(LARGE)]
    many = [facts.generator(name, projectId="x" * MEGABYTE) for name in names]
    annotations = {"a": "x" * MEGABYTE}
    template = {"metadata": {"annotations": annotations, "labels": {f"label-{i}": "" for i in range(5000)}}}
    many += [facts.source(name, name) for name in names]
    many += [facts.source(f"{name}-template", "gen", target={"template": template}) for name in names[: LARGE // 4]]
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(tenant.write, [facts.admin(), facts.generator(), *many])) == {201}
    stage.ask_for_rotation()
    before = stage.picture(tenant)
    done = stage.run(tenant, "--deadline=100s")
    assert done.peak < MEMORY
    stage.assert_unharmed(tenant, before, due=True)
    assert done.code == 0
    assert tenant.said(done) == {obj["metadata"]["name"]: "blocked InvalidSpec" for obj in many}
    tenant.assert_told(done)
    assert stage.victims_outcome(done) == "target.rotated Requested"


def test_megabytes_of_pods_take_no_memory(stage: Stage, tenant: Tenant) -> None:
    """They are listed before the tenant's superseded account goes."""
    facts, before = Facts(stage, tenant.namespace), stage.picture(tenant)
    own = serve(stage, tenant, facts)
    assert tenant.write_all([facts.source("creds", annotations=AGAIN)]) == {}
    assert tenant.said(stage.run(tenant)) == {"creds": "rotated Requested"}
    environment = [{"name": f"V{i}"} for i in range(60_000)]
    container = {"name": "c", "image": "i", "env": environment}
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"large-{i}"}, "spec": {"containers": [container]}}
        for i in range(LARGE // 4)
    ]
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(tenant.write, pods)) == {201}
    stage.age(tenant)
    done = stage.run(tenant, "--deadline=100s")
    assert done.peak < MEMORY
    stage.assert_unharmed(tenant, before)
    assert stage.deletes() == {("shared", own)}
