"""An ExternalSecret that means an OpenAI generator, it seems, and names none: it is told, and never served."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.paths import EXTERNAL_SECRET
from tests.support.scene import Scene, checked_scene

scene = pytest.fixture(checked_scene)

RIGHT = {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI", "name": "openai-generator"}


def with_reference(scene: Scene, **changes: Any) -> None:
    reference = {key: value for key, value in (RIGHT | changes).items() if value is not None}
    scene.merge(EXTERNAL_SECRET, {"spec": {"dataFrom": [{"sourceRef": {"generatorRef": reference}}]}})


def told(scene: Scene) -> list[str]:
    events = scene.kubernetes.objects("events", "default")
    return [e["message"] for e in events if e["involvedObject"]["kind"] == "ExternalSecret" and e["type"] == "Warning"]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "OpenAi"},
        {"kind": "openai"},
        {"kind": "OPENAI"},
        {"apiVersion": "generators.example.org/v1"},
        {"apiVersion": "v1"},
        {"kind": "OpenAi", "apiVersion": None},
    ],
    ids=str,
)
def test_a_near_miss_is_told_and_gets_nothing(scene: Scene, changes: dict[str, Any]) -> None:
    scene.apply_documented()
    with_reference(scene, **changes)
    for _ in range(2):
        scene.run()
        scene.advance(minutes=10)
    assert scene.secret() is None
    assert scene.accounts() == []
    (message,) = told(scene)
    assert "this rotator serves generators.external-secrets.io/v1alpha1, kind 'OpenAI', alone" in message
    assert scene.watcher.outcomes == []


@pytest.mark.parametrize("changes", [{"kind": "Password"}, {"kind": "OpenAIs"}, {"kind": "Fake"}], ids=str)
def test_another_generator_is_none_of_our_business(scene: Scene, changes: dict[str, Any]) -> None:
    scene.apply_documented()
    with_reference(scene, **changes)
    scene.run()
    assert told(scene) == []


def test_a_target_that_becomes_a_near_miss_keeps_its_secret_and_its_account(scene: Scene) -> None:
    scene.apply_documented()
    scene.run()
    key = scene.key()
    with_reference(scene, kind="OpenAi")
    for _ in range(3):
        scene.advance(hours=1)
        scene.run()
    assert scene.key() == key
    assert scene.openai.use(key)
    assert len(told(scene)) == 1


def test_it_does_not_stand_in_the_way_of_a_generator_that_stands_alone(scene: Scene) -> None:
    """It asks us for nothing, so the Secret is not shared."""
    scene.apply_documented()
    with_reference(scene, apiVersion="generators.example.org/v1")
    generator = "/apis/generators.external-secrets.io/v1alpha1/namespaces/default/openais/openai-generator"
    scene.merge(generator, {"metadata": {"annotations": {"openai-key-rotator.io/secret": "openai-credentials"}}})
    scene.run()
    assert scene.live_key()


def test_a_run_with_a_selector_says_nothing_of_it(scene: Scene) -> None:
    scene.apply_documented()
    with_reference(scene, kind="OpenAi")
    scene.run(selector="team=a")
    assert told(scene) == []
