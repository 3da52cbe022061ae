"""What a ledger's tests start from and end with."""

from __future__ import annotations

import json
from typing import Any

from sandbox.transport.faults import Rule, Rules
from tests.support.scene import Scene
from worker.kubernetes.secret import CURRENT
from worker.model.outcomes import Result


def an_hour_later(scene: Scene) -> Scene:
    """The documented objects, an hour after their first run."""
    scene.apply_documented()
    scene.run()
    scene.advance(hours=1)
    return scene


def rule(scene: Scene, *rules: Rule) -> Rules:
    return Rules(rules, scene.random)


def settle(scene: Scene, *, hours: float = 3) -> None:
    """Runs every ten minutes, as a CronJob makes them, until nothing can be left over; then all must be in order."""
    for _ in range(int(hours * 6)):
        scene.advance(minutes=10)
        scene.run()
    entry = scene.stored_entry()
    assert scene.live_key()
    assert entry.unpublished == ()
    assert scene.account_ids() == {publication.account.id for publication in entry.history}
    assert len(entry.history) <= 2
    assert scene.outcome().result in (Result.KEPT, Result.ROTATED)


def annotation(scene: Scene, **changes: Any) -> dict[str, Any]:
    """A patch of the Secret that forges its annotation."""
    forged = json.dumps(scene.named() | changes)
    return {"metadata": {"annotations": {CURRENT: forged}}}
