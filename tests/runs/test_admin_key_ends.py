"""When an admin key ends: in the entries that use it, by an Event on its Secret, and never at a rotation's cost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from sandbox.transport.faults import Rule, Rules, answered, request_lost, too_many_requests
from sandbox.transport.wire import Response
from tests.support.ledger_secrets import granted_central_key
from tests.support.paths import ADMIN_SECRET, NO_WAIT
from tests.support.scene import LEDGER, TARGET, Scene, checked_scene
from worker.model.outcomes import Result
from worker.model.values import Ref

scene = pytest.fixture(checked_scene)
LIST = "GET admin_api_keys"
SOON = timedelta(days=10)


@pytest.fixture
def documented(scene: Scene) -> Scene:
    scene.apply_documented()
    return scene


def told(scene: Scene, namespace: str = "default") -> list[tuple[str, str]]:
    """Type and reason of the Events about admin Secrets."""
    events = scene.kubernetes.objects("events", namespace)
    return sorted((event["type"], event["reason"]) for event in events if event["involvedObject"]["kind"] == "Secret")


def test_the_end_of_an_admin_key_is_in_the_entries_that_use_it(documented: Scene) -> None:
    """In whole seconds, as OpenAI lists it."""
    end = documented.now() + timedelta(days=100)
    documented.openai.expire_admin_key(documented.admin_key, end)
    documented.run()
    assert documented.stored_entry().admin_key_ends_at == end
    assert told(documented) == []


def test_an_admin_key_without_an_end_costs_no_write(documented: Scene) -> None:
    """One list a run, and nothing in the entry."""
    documented.run()
    documented.run()
    assert documented.stored_entry().admin_key_ends_at is None
    assert documented.requests().count(LIST) == 1
    assert not [kind for kind in documented.requests() if kind.startswith(("PATCH", "POST"))]


def test_an_end_that_is_known_costs_no_further_write(documented: Scene) -> None:
    documented.openai.expire_admin_key(documented.admin_key, documented.now() + timedelta(days=100))
    documented.run()
    documented.run()
    assert not [kind for kind in documented.requests() if kind.startswith("PATCH")]


def test_an_admin_key_that_ends_soon_is_told_by_an_event_on_its_secret(documented: Scene) -> None:
    """Which `kubectl describe secret` shows: the Secret is what has to be changed."""
    end = documented.now() + SOON
    documented.openai.expire_admin_key(documented.admin_key, end)
    documented.run()
    assert told(documented) == [("Warning", "AdminKeyExpiring")]
    (event,) = [e for e in documented.kubernetes.objects("events", "default") if e["reason"] == "AdminKeyExpiring"]
    secret = documented.kubernetes.find("secrets", "default", "openai-admin-secret")
    assert secret is not None
    assert event["involvedObject"]["uid"] == secret["metadata"]["uid"]
    assert "ends at 2026-12-04T10:00:00Z" in event["message"]
    documented.run()
    assert told(documented) == [("Warning", "AdminKeyExpiring")]


def test_a_new_admin_key_in_the_secret_ends_the_warning(documented: Scene) -> None:
    documented.openai.expire_admin_key(documented.admin_key, documented.now() + SOON)
    documented.run()
    new = documented.openai.add_admin_key("acme")
    documented.merge(ADMIN_SECRET, {"stringData": {"api-key": new}})
    documented.run()
    assert documented.stored_entry().admin_key_ends_at is None


def test_an_old_admin_key_is_told(documented: Scene) -> None:
    documented.openai.date_admin_key(documented.admin_key, documented.now() - timedelta(days=181))
    documented.run()
    assert told(documented) == [("Warning", "AdminKeyOld")]


def test_a_key_that_may_not_be_listed_is_told_once_and_warns_of_nothing(documented: Scene) -> None:
    """Not in each run anew, and not for each of its targets; the rotation goes on."""
    documented.openai.restrict(documented.admin_key, "read", "write")
    documented.run()
    documented.run()
    assert documented.outcome().result is Result.KEPT
    assert told(documented) == [("Normal", "AdminKeyNotListed")]
    assert documented.watcher.problems == []


def test_a_key_that_is_replaced_by_one_that_may_not_be_listed_leaves_no_old_end(documented: Scene) -> None:
    """The alert would go on about a key that nobody uses."""
    documented.openai.expire_admin_key(documented.admin_key, documented.now() + SOON)
    documented.run()
    new = documented.openai.add_admin_key("acme", scopes=["read", "write"])
    documented.merge(ADMIN_SECRET, {"stringData": {"api-key": new}})
    documented.run()
    assert documented.stored_entry().admin_key_ends_at is None


@pytest.mark.parametrize(
    "fate",
    [
        answered(Response.of_json(500, {"error": {}})),
        request_lost(),
        too_many_requests(),
        answered(Response(200, {}, b"<p>")),
    ],
    ids=["500", "lost", "429", "page"],
)
def test_what_could_not_be_asked_changes_nothing(documented: Scene, fate: Any) -> None:
    """The rotation and the deletion have happened before; the ledger keeps the end that it knows."""
    end = documented.now() + SOON
    documented.openai.expire_admin_key(documented.admin_key, end)
    documented.run()
    documented.advance(hours=1)
    documented.run(openai_faults=Rules((Rule(fate, "GET", ".*/admin_api_keys"),), documented.random))
    assert documented.outcome().result is Result.ROTATED
    assert len(documented.accounts()) == 1
    assert documented.stored_entry().admin_key_ends_at == end


def test_an_admin_key_that_does_not_work_is_not_asked_about(documented: Scene) -> None:
    """Its targets tell already."""
    documented.openai.revoke_admin_key(documented.admin_key)
    documented.run()
    assert documented.outcome().result is Result.FAILED
    assert LIST not in documented.requests()


def test_it_is_asked_for_last(documented: Scene) -> None:
    """No rotation and no deletion waits for it."""
    documented.run()
    documented.advance(hours=1)
    documented.run()
    kinds = [kind for kind in documented.requests() if "service_accounts" in kind or kind == LIST]
    assert kinds[-1] == LIST
    assert "DELETE service_accounts" in kinds


def test_a_dry_run_neither_asks_nor_tells(documented: Scene) -> None:
    documented.openai.expire_admin_key(documented.admin_key, documented.now() + SOON)
    documented.run(dry_run=True)
    assert LIST not in documented.requests()
    assert told(documented) == []


def test_secrets_with_the_same_key_are_asked_about_once(documented: Scene) -> None:
    """Each of them is told."""
    documented.namespace("team-b")
    documented.apply_documented("team-b")
    documented.openai.expire_admin_key(documented.admin_key, documented.now() + SOON)
    documented.run(max_wait=NO_WAIT)
    assert documented.requests().count(LIST) == 1
    for namespace in ("default", "team-b"):
        assert told(documented, namespace) == [("Warning", "AdminKeyExpiring")]
        assert documented.stored_entry(Ref(namespace, TARGET.name)).admin_key_ends_at is not None


def test_another_installations_entry_is_left_as_it_is(documented: Scene) -> None:
    documented.run()
    entry = f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations/default.openai-credentials"
    documented.merge(entry, {"spec": {"ledger": "another"}})
    documented.openai.expire_admin_key(documented.admin_key, documented.now() + SOON)
    documented.run()
    assert documented.stored_entry().admin_key_ends_at is None


def test_the_end_of_a_central_key_is_told_where_the_operator_looks(scene: Scene) -> None:
    """On the Secret beside the ledger, and not in the tenant's namespace; in the tenant's entry, for the alert."""
    granted = granted_central_key(scene)
    scene.apply_documented(openAiAdminKey={})
    scene.openai.expire_admin_key(scene.admin_key, scene.now() + SOON)
    scene.run(central_keys=granted)
    assert told(scene) == []
    assert told(scene, LEDGER) == [("Warning", "AdminKeyExpiring")]
    assert scene.stored_entry().admin_key_ends_at is not None
