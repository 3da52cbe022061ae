"""Workloads that an annotation names are restarted after a rotation: once for each publication, and told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sandbox.transport.faults import Rule, Rules, response_lost
from tests.support.paths import EXTERNAL_SECRET, GENERATOR, NO_WAIT
from tests.support.scene import PROJECT, Killer, Meanwhile, Scene, run_command
from tests.support.workloads import deploy, generation_of, path_of, settle, stamp_of, stored, workload
from worker.commands.status import as_text
from worker.kubernetes.workload import RESTARTED_AT
from worker.model.entries import Restart, RestartState, current
from worker.model.outcomes import RestartOutcome, Result
from worker.model.times import format_time
from worker.model.values import PREFIX, Ref
from worker.report.summary import exit_code, run_fields

ALL = "deployment/app, statefulset/db,daemonset/agent"


def asking(value: str | None = "deployment/app", path: str = EXTERNAL_SECRET) -> dict[str, Any]:
    return {"metadata": {"annotations": {PREFIX + "restart": value}}}


def ask(scene: Scene, value: str | None = "deployment/app", path: str = EXTERNAL_SECRET) -> None:
    scene.merge(path, asking(value))


@pytest.fixture
def scene() -> Scene:
    """The documented objects with their first key, and three workloads that were there before."""
    scene = Scene()
    scene.apply_documented()
    for kind, name in (("deployment", "app"), ("statefulset", "db"), ("daemonset", "agent")):
        deploy(scene, kind, name)
    scene.run()
    scene.advance(hours=1)
    return scene


def published_at(scene: Scene) -> str:
    publication = current(scene.stored_entry())
    assert publication is not None
    return format_time(publication.at)


def restart_of(scene: Scene) -> Restart:
    publication = current(scene.stored_entry())
    assert publication is not None
    assert publication.restart is not None
    return publication.restart


def told(scene: Scene) -> RestartOutcome:
    (outcome,) = scene.watcher.restarts
    return outcome


def on_workloads(requests: list[str]) -> list[str]:
    """Those of these requests that are about workloads."""
    return [kind for kind in requests if kind.partition(" ")[2] in ("deployments", "statefulsets", "daemonsets")]


def messages(scene: Scene, reason: str) -> list[str]:
    return [event["message"] for event in scene.kubernetes.objects("events", "default") if event["reason"] == reason]


@pytest.mark.parametrize("path", [EXTERNAL_SECRET, GENERATOR])
def test_each_named_workload_is_restarted_with_the_time_of_the_publication(scene: Scene, path: str) -> None:
    ask(scene, ALL, path)
    report = scene.run(max_wait=NO_WAIT)
    stamps = {stamp_of(scene), stamp_of(scene, "statefulset", "db"), stamp_of(scene, "daemonset", "agent")}
    assert stamps == {published_at(scene)}
    names = ("daemonset/agent", "deployment/app", "statefulset/db")
    assert restart_of(scene) == Restart(RestartState.DONE, names, at=restart_of(scene).at)
    assert told(scene).restarted == names
    assert run_fields(report)["restarted"] == 3
    assert exit_code(report, strict=True) == 0


def test_nothing_else_of_a_workload_changes(scene: Scene) -> None:
    ask(scene)
    before = stored(scene)
    scene.run(max_wait=NO_WAIT)
    after = stored(scene)
    assert after["spec"]["template"]["metadata"].pop("annotations") == {RESTARTED_AT: published_at(scene)}
    assert after["spec"] == before["spec"]
    assert after["metadata"].keys() == before["metadata"].keys()


def test_a_publication_restarts_once_however_many_runs_there_are(scene: Scene) -> None:
    ask(scene)
    scene.run(max_wait=NO_WAIT)
    settle(scene)
    for _ in range(3):
        scene.advance(minutes=10)
        scene.run(max_wait=NO_WAIT)
        assert on_workloads(scene.requests()) == []
    assert generation_of(scene) == 2
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    assert generation_of(scene) == 3


def test_a_restart_costs_two_requests_for_a_workload_and_one_for_the_ledger(scene: Scene) -> None:
    """And one to read the entry, one for the Event. Without the annotation there is none of these."""
    plain = Scene()
    plain.apply_documented()
    plain.run()
    plain.advance(hours=1)
    plain.run(max_wait=NO_WAIT)
    ask(scene)
    scene.run(max_wait=NO_WAIT)
    more = sorted(scene.requests())
    for kind in plain.requests():
        more.remove(kind)
    assert len(more) == 5, more
    assert on_workloads(more) == ["GET deployments", "PATCH deployments"]


def test_the_first_key_restarts_nothing() -> None:
    """Whoever waits for the Secret starts by itself."""
    scene = Scene()
    scene.apply_documented()
    ask(scene, "deployment/my-app")
    scene.run()
    assert stamp_of(scene, name="my-app") is None
    assert scene.watcher.restarts == []


def test_an_annotation_alone_restarts_nothing(scene: Scene) -> None:
    """Only a rotation does, and only one that came after it."""
    scene.run(max_wait=NO_WAIT)
    ask(scene)
    scene.advance(minutes=10)
    scene.run(max_wait=NO_WAIT)
    assert stamp_of(scene) is None


def test_the_restart_is_told(scene: Scene) -> None:
    """At the object, in the condition, by `status` and in the column of `kubectl get -o wide`."""
    ask(scene)
    scene.run(max_wait=NO_WAIT)
    account = scene.named()["name"]
    assert messages(scene, "Restarted") == [f"restarted deployment/app, to take the key of account {account}"]
    entry = scene.stored_entry()
    assert entry.condition is not None
    assert entry.condition.message.endswith("; restarted: deployment/app")
    text = as_text({entry.target: entry}, scene.now(), None)
    assert f"restart for account {account}: deployment/app done" in text
    (stored_entry,) = scene.kubernetes.objects("keyrotations")
    assert stored_entry["status"]["restart"] == "Done"


def test_a_rollout_that_is_under_way_is_waited_for(scene: Scene) -> None:
    """The next run restarts, once it is over."""
    ask(scene)
    scene.run(max_wait=NO_WAIT)
    scene.advance(hours=1)
    scene.run(max_wait=NO_WAIT)
    assert generation_of(scene) == 2
    assert (told(scene).result, told(scene).reason) == (Result.KEPT, "RolloutUnderWay")
    assert restart_of(scene).state is RestartState.WAITING
    entry = scene.stored_entry()
    assert entry.condition is not None
    assert "not restarted: deployment/app: its last rollout is still under way" in entry.condition.message
    for _ in range(2):
        version = scene.stored_entry().version
        scene.advance(minutes=10)
        scene.run(max_wait=NO_WAIT)
    assert scene.stored_entry().version == version
    settle(scene)
    scene.advance(minutes=10)
    scene.run(max_wait=NO_WAIT)
    assert stamp_of(scene) == published_at(scene)
    assert generation_of(scene) == 3


def test_a_key_that_is_about_to_end_waits_for_no_rollout(scene: Scene) -> None:
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {PREFIX + "key-lifetime": "1h"}}})
    ask(scene)
    scene.run(max_wait=NO_WAIT)
    scene.advance(minutes=41)
    scene.run(max_wait=NO_WAIT)
    assert generation_of(scene) == 2
    scene.advance(minutes=10)
    scene.run(max_wait=NO_WAIT)
    assert generation_of(scene) == 3
    assert stamp_of(scene) == published_at(scene)


@pytest.mark.parametrize("verb", ["get", "patch"])
def test_without_the_right_it_is_told_and_the_key_is_rotated(scene: Scene, verb: str) -> None:
    """And nothing has failed. With the right the next run restarts."""
    scene.kubernetes.forbid(verb, "deployments")
    ask(scene, ALL)
    before = scene.named()["name"]
    report = scene.run(max_wait=NO_WAIT)
    assert scene.named()["name"] != before
    assert exit_code(report, strict=False) == 0
    assert told(scene).result is Result.BLOCKED
    assert told(scene).restarted == ("daemonset/agent", "statefulset/db")
    assert f"RBAC forbids to {verb} deployments" in restart_of(scene).why
    if verb == "get":
        assert "manifests/components/restart-workloads gives the right" in restart_of(scene).why
    (warning,) = messages(scene, "RestartBlocked")
    assert "deployments" in warning
    blocked = restart_of(scene)
    for _ in range(2):
        version = scene.stored_entry().version
        scene.advance(minutes=10)
        scene.run(max_wait=NO_WAIT)
    assert scene.stored_entry().version == version
    assert restart_of(scene) == blocked
    assert messages(scene, "RestartBlocked") == [warning]
    scene.kubernetes.permit(verb, "deployments")
    scene.run(max_wait=NO_WAIT)
    assert stamp_of(scene) == published_at(scene)
    assert restart_of(scene).state is RestartState.DONE
    assert generation_of(scene, "statefulset", "db") == 2


def test_where_a_kind_may_not_be_read_no_second_one_is_asked_for(scene: Scene) -> None:
    scene.kubernetes.forbid("get", "deployments")
    ask(scene, "deployment/a,deployment/b,deployment/c")
    scene.run(max_wait=NO_WAIT, concurrency=1)
    assert on_workloads(scene.requests()) == ["GET deployments"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"paused": True}, "it is paused"),
        ({"updateStrategy": {"type": "OnDelete"}}, "replaces no pod by itself"),
    ],
)
def test_a_workload_that_a_stamp_does_not_restart_is_told(scene: Scene, change: dict[str, Any], why: str) -> None:
    scene.merge(path_of(), {"spec": change})
    settle(scene)
    ask(scene)
    scene.run(max_wait=NO_WAIT)
    assert stamp_of(scene) is None
    assert why in restart_of(scene).why
    assert told(scene).result is Result.BLOCKED


def test_an_absent_workload_hinders_no_other(scene: Scene) -> None:
    ask(scene, "deployment/gone, deployment/app")
    scene.run(max_wait=NO_WAIT)
    assert stamp_of(scene) == published_at(scene)
    assert restart_of(scene).why == "deployment/gone: it does not exist"
    deploy(scene, name="gone")
    scene.run(max_wait=NO_WAIT)
    assert stamp_of(scene, name="gone") == published_at(scene)
    assert generation_of(scene) == 2


@pytest.mark.parametrize(
    "value",
    ["", "app", "job/app", "pod/app", "deployment/", "deployment/App", "deployment/team-b/app", "Deployment/app"]
    + ["deployment/../secrets", "deployment/app;daemonset/agent", "everything", "deployment/" + "a" * 600]
    + [",".join(f"deployment/a{i}" for i in range(21))],
)
def test_a_malformed_annotation_hinders_the_restart_alone(scene: Scene, value: str) -> None:
    """It is told at the object, by every run; once it is mended the next run restarts."""
    ask(scene, value)
    before = scene.named()["name"]
    report = scene.run(max_wait=NO_WAIT)
    assert scene.named()["name"] != before
    assert exit_code(report, strict=False) == 0
    assert on_workloads(scene.requests()) == []
    (warning,) = messages(scene, "RestartBlocked")
    assert warning.startswith(f"not restarted: annotation {PREFIX}restart ")
    assert len(warning) < 300
    scene.advance(minutes=10)
    scene.run(max_wait=NO_WAIT)
    assert told(scene).result is Result.BLOCKED
    ask(scene)
    scene.run(max_wait=NO_WAIT)
    assert stamp_of(scene) == published_at(scene)


def test_a_malformed_annotation_is_told_before_anything_is_due(scene: Scene) -> None:
    scene.run(max_wait=NO_WAIT)
    ask(scene, "job/app")
    scene.run(max_wait=NO_WAIT)
    assert told(scene).result is Result.BLOCKED
    assert messages(scene, "RestartBlocked")


def test_a_workload_of_the_same_name_in_another_namespace_is_not_touched(scene: Scene) -> None:
    scene.namespace("team-b")
    deploy(scene, namespace="team-b")
    ask(scene)
    scene.run(max_wait=NO_WAIT)
    assert stamp_of(scene) is not None
    assert stamp_of(scene, namespace="team-b") is None


def test_auto_restarts_whatever_reads_the_secret_by_its_environment(scene: Scene) -> None:
    """Not what mounts it, which follows by itself, nor what reads another Secret, nor in another namespace."""
    scene.namespace("team-b")
    deploy(scene, namespace="team-b")
    deploy(scene, name="other", secret="another")
    mounting = workload(name="mounting")
    pod = mounting["spec"]["template"]["spec"]
    pod["containers"] = [{"name": "app", "image": "any", "volumeMounts": [{"name": "v", "mountPath": "/s"}]}]
    pod["volumes"] = [{"name": "v", "secret": {"secretName": "openai-credentials"}}]
    scene.apply(mounting)
    settle(scene, name="mounting")
    settle(scene, name="my-app")
    ask(scene, "auto")
    scene.run(max_wait=NO_WAIT)
    assert restart_of(scene).done == ("daemonset/agent", "deployment/app", "deployment/my-app", "statefulset/db")
    assert [stamp_of(scene, name=name) for name in ("other", "mounting")] == [None, None]
    assert stamp_of(scene, namespace="team-b") is None
    found = [kind for kind in on_workloads(scene.requests()) if kind.startswith("GET")]
    assert found == ["GET deployments", "GET statefulsets", "GET daemonsets"]


def test_auto_without_a_reader_is_done(scene: Scene) -> None:
    for kind, name in (("deployment", "app"), ("deployment", "my-app"), ("statefulset", "db"), ("daemonset", "agent")):
        scene.delete(path_of(kind, name))
    ask(scene, "auto")
    scene.run(max_wait=NO_WAIT)
    assert restart_of(scene).state is RestartState.DONE
    assert "no workload reads the Secret" in told(scene).message


def test_auto_that_may_not_list_is_told(scene: Scene) -> None:
    scene.kubernetes.forbid("list", "statefulsets")
    ask(scene, "auto, deployment/app")
    scene.run(max_wait=NO_WAIT)
    assert stamp_of(scene) == published_at(scene)
    assert "RBAC forbids to list statefulsets" in restart_of(scene).why
    assert restart_of(scene).state is RestartState.BLOCKED


def test_a_workload_of_two_targets_is_restarted_once_for_both(scene: Scene) -> None:
    """With the later publication: the pods that come then have both keys."""
    second = dict(scene.external_secret())
    scene.apply(
        {"apiVersion": second["apiVersion"], "kind": second["kind"], "spec": second["spec"]}
        | {"metadata": {"name": "second", "namespace": "default"}}
    )
    scene.run(max_wait=NO_WAIT, force=True)
    scene.advance(hours=1)
    ask(scene)
    ask(scene, path=EXTERNAL_SECRET.replace("openai-credentials", "second"))
    scene.run(max_wait=NO_WAIT, concurrency=1)
    assert generation_of(scene) == 2
    entries = [scene.stored_entry(), scene.stored_entry(Ref("default", "second"))]
    times = [publication.at for entry in entries if (publication := current(entry)) is not None]
    assert stamp_of(scene) == format_time(max(times))
    assert [outcome.result for outcome in scene.watcher.restarts] == [Result.KEPT, Result.KEPT]


def test_a_dry_run_says_what_it_would_restart_and_restarts_nothing(scene: Scene) -> None:
    ask(scene, "deployment/app, deployment/gone")
    report = scene.run(dry_run=True)
    assert told(scene).restarted == ("deployment/app",)
    assert told(scene).message == "would restart deployment/app; not restarted: deployment/gone: it does not exist"
    assert run_fields(report)["would_restart"] == 1
    assert not [kind for kind in scene.requests() if not kind.startswith("GET")]
    assert stamp_of(scene) is None


def test_a_suspended_target_restarts_nothing(scene: Scene) -> None:
    """Also for a publication that came before."""
    ask(scene)
    scene.kubernetes.forbid("patch", "deployments")
    scene.run(max_wait=NO_WAIT)
    scene.kubernetes.permit("patch", "deployments")
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {PREFIX + "suspend": "true"}}})
    scene.run(max_wait=NO_WAIT)
    assert stamp_of(scene) is None


def test_a_humans_restart_after_the_publication_is_enough(scene: Scene) -> None:
    """Its pods have the new key."""
    ask(scene)
    scene.kubernetes.forbid("patch", "deployments")
    scene.run(max_wait=NO_WAIT)
    scene.kubernetes.permit("patch", "deployments")
    scene.advance(minutes=3)
    by_hand = format_time(scene.now())
    scene.merge(path_of(), {"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: by_hand}}}}})
    scene.advance(minutes=3)
    scene.run(max_wait=NO_WAIT)
    assert stamp_of(scene) == by_hand
    assert restart_of(scene).state is RestartState.DONE


@pytest.mark.parametrize("apart", [0.0, 0.05, 0.3])
def test_two_runs_at_once_restart_once(scene: Scene, apart: float) -> None:
    ask(scene)
    scene.run_together({"max_wait": NO_WAIT}, {"max_wait": NO_WAIT}, apart=apart)
    scene.advance(minutes=10)
    scene.run(max_wait=NO_WAIT)
    assert generation_of(scene) == 2
    assert stamp_of(scene) == published_at(scene)
    assert restart_of(scene).state is RestartState.DONE


def test_a_failure_of_the_api_server_is_made_up_for(scene: Scene) -> None:
    """The answer to the stamp is lost: the next run finds the stamp, and makes no second one."""
    ask(scene)
    lost = Rules([Rule(response_lost(disconnected=True), method="PATCH", path=path_of(), count=1)], scene.random)
    report = scene.run(max_wait=NO_WAIT, cluster_faults=lost)
    assert told(scene).result is Result.FAILED
    assert exit_code(report, strict=False) == 1
    assert scene.outcome().result is Result.ROTATED
    scene.advance(minutes=10)
    scene.run(max_wait=NO_WAIT)
    assert generation_of(scene) == 2
    assert restart_of(scene).state is RestartState.DONE


def test_a_workload_that_changes_meanwhile_is_looked_at_again(scene: Scene) -> None:
    ask(scene)
    change = Meanwhile(lambda: scene.merge(path_of(), {"spec": {"replicas": 2}}), "PATCH", path_of())
    scene.run(max_wait=NO_WAIT, cluster_faults=change)
    assert stamp_of(scene) is None
    assert restart_of(scene).state is RestartState.WAITING
    settled = Meanwhile(lambda: settle(scene), "PATCH", path_of())
    scene.merge(path_of(), {"spec": {"replicas": 1}})
    settle(scene)
    scene.run(max_wait=NO_WAIT, cluster_faults=settled)
    assert stamp_of(scene) == published_at(scene)


def test_after_a_revocation_the_next_run_restarts(scene: Scene) -> None:
    """What holds a key holds a dead one: no rollout is waited for."""
    ask(scene)
    scene.run(max_wait=NO_WAIT)
    scene.advance(minutes=20)
    scene.revoke()
    scene.advance(minutes=1)
    scene.run(max_wait=NO_WAIT)
    assert stamp_of(scene) == published_at(scene)
    assert generation_of(scene) == 3


def test_a_key_that_was_deleted_by_hand_waits_for_no_rollout(scene: Scene) -> None:
    """Its containers have a dead one."""
    ask(scene)
    scene.run(max_wait=NO_WAIT)
    assert generation_of(scene) == 2
    scene.advance(minutes=20)
    scene.openai.delete_account(PROJECT, scene.named()["id"])
    scene.run(max_wait=NO_WAIT)
    assert scene.outcome().reason == "AccountGone"
    assert generation_of(scene) == 3


def killed(scene: Scene, killer: Killer) -> bool:
    """A run that is killed at one of its requests; False: it made fewer, and was not."""

    async def until_killed() -> bool:
        work = scene.whole(run_command, cluster_faults=killer, openai_faults=killer, max_wait=NO_WAIT)
        killer.work = asyncio.ensure_future(work)
        await asyncio.wait({killer.work})
        await asyncio.sleep(1)
        return killer.work.cancelled()

    return scene._play(until_killed())


@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_is_killed_anywhere_leads_to_one_restart_for_each_publication(after: bool) -> None:
    """Before or after any of its requests; the runs after it make up for what it did not do."""
    number = 0
    while True:
        scene = Scene()
        scene.apply_documented()
        deploy(scene)
        deploy(scene, "statefulset", "db")
        scene.run()
        scene.advance(hours=1)
        ask(scene, "deployment/app, statefulset/db")
        if not killed(scene, Killer(number, after)):
            break
        published = {scene.named()["name"]} - {scene.stored_entry().history[0].account.name}
        for _ in range(3):
            settle(scene)
            settle(scene, "statefulset", "db")
            scene.advance(minutes=5)
            scene.run(max_wait=NO_WAIT)
            published.add(scene.named()["name"])
        for kind, name in (("deployment", "app"), ("statefulset", "db")):
            assert generation_of(scene, kind, name) == 1 + len(published), (number, after)
            assert stamp_of(scene, kind, name) == published_at(scene)
        assert restart_of(scene).state is RestartState.DONE
        number += 1
    assert number > 20
