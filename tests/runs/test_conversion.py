"""A list that fails, because the webhook that converts its objects is down: what does not depend on it is served."""

from __future__ import annotations

import pytest

from sandbox.transport.faults import Rule, Rules, answered
from sandbox.transport.wire import Response
from tests.support.paths import GENERATOR, NO_WAIT, SECRET
from tests.support.scene import PROJECT, TARGET, Scene, checked_scene
from worker.errors import OutOfReach
from worker.model.outcomes import Result
from worker.model.values import Ref
from worker.report.summary import exit_code

scene = pytest.fixture(checked_scene)

ALONE = Ref("default", "alone")
LIST = "/apis/external-secrets.io/v1(beta1)?(/namespaces/[^/]+)?/externalsecrets"
DEAD = answered(
    Response.of_json(
        500,
        {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": "InternalError",
            "code": 500,
            "message": "conversion webhook for external-secrets.io/v1beta1, Kind=ExternalSecret failed: Post: refused",
        },
    )
)


def dead(scene: Scene, path: str = LIST) -> Rules:
    return Rules([Rule(DEAD, "GET", path)], scene.random)


@pytest.fixture
def both(scene: Scene) -> Scene:
    """A target of an ExternalSecret, and a generator that stands alone; both rotated an hour ago."""
    scene.apply_documented()
    scene.apply(
        {
            "apiVersion": "generators.external-secrets.io/v1alpha1",
            "kind": "OpenAI",
            "metadata": {
                "name": "alone",
                "namespace": "default",
                "annotations": {"openai-key-rotator.io/secret": "alone"},
            },
            "spec": {
                "projectId": PROJECT,
                "host": "https://openai.test/v1",
                "openAiAdminKey": {"name": "openai-admin-secret", "key": "api-key"},
            },
        }
    )
    scene.run()
    scene.advance(hours=1)
    return scene


def test_what_stands_alone_is_rotated_and_the_rest_is_left_as_it_is(both: Scene) -> None:
    alone, key, entry = both.key(ALONE), both.key(), both.stored_entry()
    for _ in range(3):
        report = both.run(cluster_faults=dead(both))
        assert exit_code(report, strict=False) == 1
        assert exit_code(report, strict=False, spare_tenants=True) == 1
        (told,) = [item for item in report.retired if item.result is Result.FAILED]
        assert told.reason == "ExternalSecretsNotServed"
        assert "list externalsecrets.external-secrets.io" in told.message
        both.advance(hours=1)
    assert both.key(ALONE) != alone
    assert both.live_key(ALONE)
    assert both.key() == key
    assert both.live_key()
    assert both.stored_entry() == entry
    both.run()
    assert both.outcome().reason == "Due"
    assert both.live_key()


def test_a_superseded_account_waits_as_well(both: Scene) -> None:
    both.run(max_wait=NO_WAIT)
    accounts = {p.account.id for p in both.stored_entry().history}
    assert len(accounts) == 2
    both.advance(minutes=30)
    both.run(cluster_faults=dead(both))
    assert accounts <= both.account_ids()
    both.run()
    assert not accounts <= both.account_ids()


def test_no_generator_is_said_to_feed_nothing(both: Scene) -> None:
    both.run(cluster_faults=dead(both))
    assert both.watcher.unused == []
    assert "FeedsNothing" not in [reason for _, reason in both.events()]


def test_a_generator_that_wants_an_external_secrets_secret_does_not_get_it(both: Scene) -> None:
    """With the list the two would refuse each other."""
    key = both.key()
    both.merge(GENERATOR, {"metadata": {"annotations": {"openai-key-rotator.io/secret": TARGET.name}}})
    both.run(cluster_faults=dead(both))
    assert both.outcome().reason == "ExternalSecretsNotServed"
    assert both.key() == key
    both.advance(hours=1)
    both.run()
    assert both.outcome().reason == "SharedTarget"


def test_a_target_whose_secret_is_gone_meanwhile_keeps_its_accounts(both: Scene) -> None:
    id = both.named()["id"]
    both.delete(SECRET)
    for _ in range(3):
        both.run(cluster_faults=dead(both))
        both.advance(hours=1)
    assert id in both.account_ids()


def test_a_dry_run_says_so_too(both: Scene) -> None:
    report = both.run(cluster_faults=dead(both), dry_run=True)
    assert exit_code(report, strict=False) == 1


def test_revoke_serves_what_stands_alone_and_says_why_it_does_not_serve_the_rest(both: Scene) -> None:
    assert both.revoke(ALONE, cluster_faults=dead(both)).complete
    revoked = both.revoke(cluster_faults=dead(both))
    assert not revoked.complete
    assert "ExternalSecrets cannot be listed" in str(revoked.why_none)
    assert not revoked.deleted


def test_adopt_does_not_go_by_half_of_what_there_is(both: Scene) -> None:
    with pytest.raises(OutOfReach, match="list externalsecrets"):
        both.adopt(cluster_faults=dead(both))


@pytest.mark.parametrize(
    "path",
    [
        "/apis/generators.external-secrets.io/v1alpha1/openais",
        "/apis/openai-key-rotator.io/v1alpha1/namespaces/[^/]+/keyrotations",
    ],
    ids=["generators", "ledger"],
)
def test_without_the_generators_or_the_ledger_a_run_does_nothing(both: Scene, path: str) -> None:
    """Everything depends on them: nothing is made, nothing is deleted, and the message names the list."""
    accounts = both.account_ids()
    with pytest.raises(OutOfReach, match=r"the API server failed: list .* \(status 500, reason InternalError\)"):
        both.run(cluster_faults=dead(both, path))
    assert both.account_ids() == accounts


def test_a_cluster_that_cannot_be_reached_ends_the_run_as_before(both: Scene) -> None:
    refused = Rules([Rule(answered(Response.of_json(401, {"kind": "Status"})), "GET", LIST)], both.random)
    with pytest.raises(OutOfReach) as raised:
        both.run(cluster_faults=refused)
    assert raised.value.reason == "ClusterUnauthorized"
