"""`revoke --admin-secret`: a new admin key, and the former ones gone at once, whoever uses them."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.transport.faults import Rule, Rules, response_lost
from tests.support.ledger_secrets import fallback_key, granted_central_key
from tests.support.scene import LEDGER, Killer, Scene, checked_scene
from worker.commands.revoke.admin_key import (
    AdminKeyRevoked,
    as_json,
    plan_admin_key,
    plan_text,
    result_text,
    revoke_admin_key,
)
from worker.errors import ConfigurationError, RotatorError
from worker.model.values import Ref
from worker.settings.central_keys import CentralKeys

scene = pytest.fixture(checked_scene)
SECRET = f"/api/v1/namespaces/{LEDGER}/secrets/central"
INTERVAL = "openai-key-rotator.io/admin-key-interval"


@pytest.fixture
def granted(scene: Scene) -> CentralKeys:
    return granted_central_key(scene)


def revoked(scene: Scene, granted: CentralKeys, secret: str = "central", **options: Any) -> AdminKeyRevoked:
    return scene.play(
        lambda asked, world, stop, _: revoke_admin_key(asked, secret, world, stop=stop, say=scene.said.append),
        central_keys=granted,
        **options,
    )


def values(scene: Scene) -> list[str]:
    return [key.value for key in scene.openai.admin_keys("acme")]


def held(scene: Scene) -> str:
    return scene.key(Ref(LEDGER, "central"), "api-key")


def test_the_key_is_replaced_and_gone_at_once(scene: Scene, granted: CentralKeys) -> None:
    """No annotation asks for it, and no run has recorded it."""
    done = revoked(scene, granted)
    assert done.complete
    assert done.deleted == ("Admin key",)
    assert values(scene) == [held(scene)]
    assert held(scene) != scene.admin_key
    assert "has a new admin key: openai-key-rotator-" in result_text(done)
    assert as_json(done)["successor"] == done.successor


def test_former_keys_go_too_whoever_uses_them(scene: Scene, granted: CentralKeys) -> None:
    scene.merge(SECRET, {"metadata": {"annotations": {INTERVAL: "24h"}}})
    for _ in range(5):
        scene.advance(hours=25)
        scene.openai.use_admin_key(scene.admin_key)
        scene.run(central_keys=granted)
    assert len(values(scene)) > 1
    assert revoked(scene, granted).complete
    assert values(scene) == [held(scene)]


def test_targets_go_on_with_the_new_key(scene: Scene, granted: CentralKeys) -> None:
    scene.apply_documented(openAiAdminKey={})
    scene.run(central_keys=granted)
    revoked(scene, granted)
    scene.advance(hours=1)
    scene.run(central_keys=granted)
    assert scene.outcome().reason == "Due"


def test_without_a_new_key_nothing_is_deleted(scene: Scene, granted: CentralKeys) -> None:
    scene.kubernetes.forbid("patch", "secrets", LEDGER)
    done = revoked(scene, granted)
    assert not done.complete
    assert done.why_none is not None
    assert "AdminSecretForbidden" in done.why_none
    assert values(scene) == [scene.admin_key]
    assert "nothing was deleted" in result_text(done)


def test_a_restricted_key_is_told(scene: Scene, granted: CentralKeys) -> None:
    scene.openai.restrict(scene.admin_key, "read", "write", "admin_keys")
    done = revoked(scene, granted)
    assert done.why_none is not None
    assert "AdminKeyRestricted" in done.why_none


def test_a_secret_that_no_option_names_is_refused(scene: Scene, granted: CentralKeys) -> None:
    """A tenant's, or one that somebody mistypes."""
    with pytest.raises(ConfigurationError, match="no option names"):
        revoked(scene, granted, "other")


def test_a_secret_that_is_gone_is_told(scene: Scene, granted: CentralKeys) -> None:
    scene.delete(SECRET)
    with pytest.raises(RotatorError):
        revoked(scene, granted)


def shown(scene: Scene, granted: CentralKeys, **options: Any) -> str:
    """What the command shows before it asks."""
    planned = scene.play(
        lambda asked, world, stop, _: plan_admin_key(asked, "central", world, stop=stop),
        central_keys=granted,
        **options,
    )
    return plan_text(planned)


def test_it_shows_where_else_the_key_is(scene: Scene, granted: CentralKeys) -> None:
    """Whoever revokes it has to change it there."""
    assert "has one of them too" not in shown(scene, granted)
    fallback = fallback_key(scene, scene.admin_key)
    scene.merge(SECRET, {"stringData": {"other": scene.admin_key}})
    text = shown(scene, granted, fallback_admin_key=fallback)
    for place in (f"Secret {LEDGER}/fallback", f"Secret {LEDGER}/central, data key 'other'"):
        assert f"\n{place} has one of them too: put the new key there afterwards\n" in text


def test_it_shows_what_goes(scene: Scene, granted: CentralKeys) -> None:
    assert "which OpenAI's list has to tell first" in shown(scene, granted)
    scene.merge(SECRET, {"metadata": {"annotations": {INTERVAL: "24h"}}})
    scene.advance(days=2)
    scene.run(central_keys=granted)
    assert "Admin key (key_admin0001)" in shown(scene, granted)
    assert len(values(scene)) == 2


def test_a_run_that_has_died_is_waited_for(scene: Scene, granted: CentralKeys) -> None:
    """The key that it may have made goes first."""
    scene.merge(SECRET, {"metadata": {"annotations": {INTERVAL: "24h"}}})
    scene.advance(days=2)
    lost = Rules((Rule(response_lost(), "POST", ".*/admin_api_keys"),), scene.random)
    scene.run(central_keys=granted, openai_faults=lost)
    assert len(values(scene)) == 2
    done = revoked(scene, granted)
    assert done.complete
    assert scene.said
    assert values(scene) == [held(scene)]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_revocation_that_is_interrupted_is_done_again(after: bool) -> None:
    number = 0
    while True:
        scene = Scene()
        granted = granted_central_key(scene)
        killer = Killer(number, after)

        async def command(*world: Any) -> Any:
            asked, outside, stop, _ = world
            return await revoke_admin_key(asked, "central", outside, stop=stop, say=lambda _: None)

        killed = scene.killed(killer, command, central_keys=granted)
        assert scene.openai.admin_key(held(scene)) is not None
        for _ in range(3):
            scene.advance(hours=2)
            done = revoked(scene, granted)
        assert done.complete
        assert values(scene) == [held(scene)], (number, after)
        if not killed:
            break
        number += 1
    assert number >= 12
