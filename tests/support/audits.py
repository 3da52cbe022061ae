"""A cluster and a project with one of each kind of key that an audit tells apart."""

from __future__ import annotations

from tests.support.paths import NO_WAIT
from tests.support.pods import start_pod
from tests.support.scene import PROJECT, Scene

STRANGER = "somebody"
LIKE_OURS = "app_abcdefghij"
SEARCH = "team-b"


def furnish(scene: Scene) -> None:
    """Two namespaces, in one of them an account is held; an account of a stranger, one like ours, a user's key."""
    scene.openai.keep_audit_log("acme")
    scene.namespace(SEARCH)
    for namespace in ("default", SEARCH):
        scene.apply_documented(namespace, serviceAccountNamePrefix="app", serviceAccountNameSize=10)
    scene.run()
    start_pod(scene)
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    scene.openai.add_account(PROJECT, LIKE_OURS)
    scene.openai.add_account(PROJECT, STRANGER)
    scene.openai.add_user_key(PROJECT, "laptop")
    scene.advance(minutes=50)
    # The superseded account of team-b goes, the one of default is held.
    scene.run()
    scene.advance(minutes=5)
