"""What docs/consumers.md says of each kind of consumer, read out of real containers.

The story is told once: two rotations, and a Secret that is deleted in between. Each test reads one claim out of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import pytest

from tests.node.applications import (
    KEY,
    MOUNTED,
    NOTHING,
    PROJECTED,
    SHARED,
    VARIABLE,
    Applications,
    by_file,
    by_variable,
    container,
    pod,
)
from tests.node.installation import SECRET, Finished, Installation, until
from worker.ledger.transitions import VOLUMES_FOLLOW

FIRST, SECOND, THIRD = "first", "second", "third"
INIT = container("-once", "-copy=/shared/key", name="init", env=[VARIABLE])
INIT["volumeMounts"] = [{"name": "shared", "mountPath": "/shared"}]
PODS = {
    "by-env": pod(by_variable()),
    "by-env-from": pod(container(f"-variable={KEY}", envFrom=[{"secretRef": {"name": SECRET}}])),
    "by-sub-path": pod(
        by_file("/only/key", mountPath="/only/key", subPath=KEY),
        by_file(f"/secret/{KEY}") | {"name": "whole"},
        volumes=(MOUNTED,),
    ),
    "by-init": pod(by_file("/shared/key", volume="shared"), initContainers=[INIT], volumes=(SHARED,)),
    "by-sidecar": pod(container(), initContainers=[by_variable(name="sidecar", restartPolicy="Always")]),
    "by-volume": pod(by_file(f"/secret/{KEY}"), volumes=(MOUNTED,)),
    "by-projected-volume": pod(by_file(f"/secret/{KEY}"), volumes=(PROJECTED,)),
    "leaving": pod(by_file(f"/secret/{KEY}", "-stubborn"), volumes=(MOUNTED,), terminationGracePeriodSeconds=3600),
    "restarted": pod(by_variable()),
    "looping": pod(by_variable("-once")),
    "finished": pod(by_variable("-once"), restartPolicy="Never"),
}
FOLLOWING = (("by-volume", "app"), ("by-projected-volume", "app"), ("by-sub-path", "whole"))
"""These containers get a new key without a restart. The last tells when its pod's volume has it."""
TELLS = {"by-sidecar": "sidecar"}
"""Which container has the key, where it is not the main one."""
FOLLOWED = VOLUMES_FOLLOW.total_seconds()
Holders = dict[str, tuple[set[str], set[str]]]


@dataclass
class Story:
    """What containers had, by pod and container, and whom the worker held accounts for, at moments of the story."""

    applications: Applications
    at_first: dict[str, str] = field(default_factory=dict)
    rotated: dict[str, str] = field(default_factory=dict)
    """After the first rotation, once volumes have followed."""
    holders: Holders = field(default_factory=dict)
    """Of the first account then: for certain, and possibly."""
    gone: dict[str, str] = field(default_factory=dict)
    """While there is no Secret."""
    back: dict[str, str] = field(default_factory=dict)
    """After the Secret came back with a third key, once volumes have followed."""
    seen: list[tuple[dict[str, str], Holders]] = field(default_factory=list)
    """What containers had at two moments, and whom the worker held accounts for then."""
    dead: list[str] = field(default_factory=list)
    """Containers that had a dead key after some run."""
    looped: list[str] = field(default_factory=list)
    """What the container of the crash loop had at last, after each new key."""
    left: list[str] = field(default_factory=list)
    """What the pod that was being deleted had, from its start to its end."""
    ended: Finished | None = None
    """The run after the last holder had ended."""
    accounts: list[str] = field(default_factory=list)
    """What was there after it."""
    pods: dict[str, str] = field(default_factory=dict)
    """The Deployment's pod at the moments of `at_first` and `rotated`."""

    def look(self) -> tuple[dict[str, str], Holders]:
        """Let the worker delete what it thinks nobody holds, then ask who has what, and who is held to have it."""
        installation = self.applications.installation
        installation.age()
        run = installation.job()
        assert run.run.code == 0, run.run.output
        self.dead += self.applications.dead()
        labels = {account: label for label, account in self.applications.accounts.items()}
        holders = {labels[account]: who for account, who in installation.holders().items()}
        self.seen.append((self.applications.now(), holders))
        return self.seen[-1]


@pytest.fixture(scope="module")
def story(installation: Installation) -> Story:
    """From the first key to the end of the last holder: four minutes, most of them for volumes."""
    applications = Applications(installation)
    story = Story(applications)
    applications.label_current(FIRST)
    _start(story)
    _rotate(story)
    _without_secret(story)
    _end(story)
    return story


def _start(story: Story) -> None:
    applications = story.applications
    for name, spec in PODS.items():
        applications.create(name, spec)
    applications.deploy("deployed", pod(by_variable()))
    for name, of in (*((name, TELLS.get(name, "app")) for name in PODS), *FOLLOWING):
        until(partial(applications.has, FIRST, name, of))
    story.looped.append(applications.told("looping")[-1])
    story.at_first = applications.now()
    (story.pods["before"],) = _deployed(story)


def _rotate(story: Story) -> None:
    applications, installation = story.applications, story.applications.installation
    installation.kubectl("-n", installation.namespace, "delete", "pod", "leaving", "--wait=false")
    assert installation.rotate().run.code == 0
    applications.label_current(SECOND)
    applications.restart_and_hear("restarted")
    applications.attach("by-env", by_variable(name="debugger"))
    installation.kubectl("-n", installation.namespace, "rollout", "restart", "deployment/deployed")
    applications.rolled_out("deployed")
    (story.pods["after"],) = _deployed(story)
    until(lambda: applications.has(SECOND, story.pods["after"]))
    until(lambda: applications.has(SECOND, "by-env", "debugger"))
    for name, of in FOLLOWING:
        until(partial(applications.has, SECOND, name, of), seconds=FOLLOWED)
    until(partial(applications.has, SECOND, "looping"))
    story.looped.append(applications.told("looping")[-1])
    story.rotated, story.holders = story.look()


def _without_secret(story: Story) -> None:
    applications, installation = story.applications, story.applications.installation
    installation.kubectl("-n", installation.namespace, "delete", "secret", SECRET)
    for name in ("by-volume", "by-sub-path"):
        applications.restart_and_hear(name)
    applications.restart("restarted")
    until(lambda: applications.waits("restarted") == "CreateContainerConfigError")
    story.gone = applications.now()
    assert installation.job().run.code == 0
    applications.label_current(THIRD)
    for name, of in FOLLOWING:
        until(partial(applications.has, THIRD, name, of), seconds=FOLLOWED)
    until(lambda: applications.has(THIRD, "restarted"))
    until(partial(applications.has, THIRD, "looping"))
    story.looped.append(applications.told("looping")[-1])
    story.back, _ = story.look()


def _end(story: Story) -> None:
    """Every application ends, the stubborn one by force; then nobody holds an earlier key."""
    applications, installation = story.applications, story.applications.installation
    story.left = applications.told("leaving")
    applications.installation.node.kill(applications.container("leaving"))
    for kind in ("deployment", "pod"):
        installation.kubectl("-n", installation.namespace, "delete", kind, "--all", "--timeout=300s")
    installation.age()
    story.ended = installation.job()
    story.accounts = installation.accounts()


def _deployed(story: Story) -> list[str]:
    installation = story.applications.installation
    return [found["metadata"]["name"] for found in installation.pods(installation.namespace, "app=deployed")]


@pytest.mark.parametrize("name", ["by-env", "by-env-from", "by-sub-path"])
def test_a_container_keeps_the_key_of_its_start(story: Story, name: str) -> None:
    assert story.at_first[f"{name}/app"] == FIRST
    assert story.rotated[f"{name}/app"] == FIRST
    assert f"{name}/app" in story.holders[FIRST][0]


def test_an_init_container_may_have_handed_the_key_on(story: Story) -> None:
    """It has ended, and its pod has the key."""
    assert story.rotated["by-init/app"] == FIRST
    assert "by-init/init" in story.holders[FIRST][0]


def test_a_native_sidecar_has_the_key_of_its_own_start(story: Story) -> None:
    assert story.rotated["by-sidecar/sidecar"] == FIRST
    assert story.rotated["by-sidecar/app"] == NOTHING
    assert {name for name in story.holders[FIRST][0] if name.startswith("by-sidecar")} == {"by-sidecar/sidecar"}


def test_an_ephemeral_container_has_the_key_of_its_own_start(story: Story) -> None:
    """In a pod whose other container has an older one."""
    assert story.rotated["by-env/debugger"] == SECOND
    assert "by-env/debugger" not in story.holders[FIRST][0]


def test_a_container_restarted_in_place_reads_anew(story: Story) -> None:
    assert story.at_first["restarted/app"] == FIRST
    assert story.rotated["restarted/app"] == SECOND


def test_a_crash_loop_reads_anew_at_each_start(story: Story) -> None:
    assert story.looped == [FIRST, SECOND, THIRD]


def test_pods_of_a_restarted_deployment_have_the_new_key(story: Story) -> None:
    assert story.at_first[f"{story.pods['before']}/app"] == FIRST
    assert story.rotated[f"{story.pods['after']}/app"] == SECOND
    assert f"{story.pods['before']}/app" not in story.rotated


def test_what_has_ended_holds_nothing(story: Story) -> None:
    assert not any(name.startswith("finished/") for who in story.holders[FIRST] for name in who)


@pytest.mark.parametrize(("name", "of"), FOLLOWING)
def test_a_volume_follows_without_a_restart(story: Story, name: str, of: str) -> None:
    """Within the time that the worker counts on: the story waited no longer."""
    assert story.at_first[f"{name}/{of}"] == FIRST
    assert story.rotated[f"{name}/{of}"] == SECOND
    assert story.back[f"{name}/{of}"] == THIRD
    assert not any(f"{name}/{of}" in who for who in story.holders[FIRST])


def test_the_volume_of_a_pod_that_is_being_deleted_is_left_alone(story: Story) -> None:
    """Through two new keys, and a Secret that was deleted."""
    assert story.left == [FIRST]
    assert "leaving/app" in story.holders[FIRST][0]


def test_only_those_that_started_soon_after_the_rotation_are_possible_holders(story: Story) -> None:
    new = story.pods["after"]
    assert story.holders[FIRST][1] <= {"by-env/debugger", "restarted/app", "looping/app", f"{new}/app"}


def test_volumes_keep_the_key_of_a_deleted_secret_also_for_containers_that_start_meanwhile(story: Story) -> None:
    for name in ("by-volume", "by-projected-volume", "by-sub-path"):
        assert story.gone[f"{name}/app"] == SECOND, name


def test_a_container_that_needs_a_deleted_secret_for_its_environment_waits(story: Story) -> None:
    """The story saw why: CreateContainerConfigError."""
    assert "restarted/app" not in story.gone
    assert story.back["restarted/app"] == THIRD


def test_a_sub_path_keeps_what_it_took_while_the_secret_was_gone(story: Story) -> None:
    assert story.back["by-sub-path/app"] == SECOND


def test_whoever_has_an_earlier_key_is_held_to_have_it(story: Story) -> None:
    """At each moment: for certain, or possibly."""
    assert len(story.seen) == 2
    for had, holders in story.seen:
        for name, label in had.items():
            if label not in (NOTHING, max(holders, key=[FIRST, SECOND, THIRD].index)):
                held = {holder.replace("/init", "/app") for who in holders[label] for holder in who}
                assert name in held, (name, label)


def test_no_container_had_a_dead_key_after_any_run(story: Story) -> None:
    assert story.dead == []


def test_the_earlier_accounts_go_with_the_run_after_the_last_holder_has_ended(story: Story) -> None:
    assert story.ended is not None
    assert story.ended.run.code == 0, story.ended.run.output
    assert story.accounts == [story.applications.accounts[THIRD]]
