"""The operator's admin keys beside the ledger: the fallback key, and one that is granted to a namespace."""

from __future__ import annotations

from tests.support.scene import HOST, LEDGER, PROJECT, Scene
from worker.model.hosts import named_origin
from worker.model.targets import AdminKeyRef
from worker.model.values import Ref
from worker.settings.central_keys import CentralKeys, central_keys


def fallback_key(scene: Scene, value: str) -> AdminKeyRef:
    """A Secret with this admin key, to be named as the fallback."""
    _apply(scene, "fallback", value)
    return AdminKeyRef(Ref(LEDGER, "fallback"), "api-key")


def granted_central_key(scene: Scene) -> CentralKeys:
    """The scene's admin key, granted to namespace `default` for its project."""
    _apply(scene, "central", scene.admin_key)
    grants = [{"secret": "central", "host": HOST, "projects": {PROJECT: ["default"]}}]
    return central_keys(grants, LEDGER, {named_origin(HOST)})


def _apply(scene: Scene, name: str, value: str) -> None:
    metadata = {"name": name, "namespace": LEDGER}
    scene.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"api-key": value}})
