"""A whole cluster: what a worker that deletes accounts does to containers that real controllers made and a scheduler
placed. They take the key from their environment, as documented; no container ever finds its key dead.

The kubelet is kwok: it writes what a kubelet would write, and runs nothing. So the tests ask OpenAI with the key that a
container would have, and write to a pod's status what kwok does not play.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import NODE, control_plane, find_binaries
from tests.cluster.endpoint import Endpoint, kubectl
from tests.cluster.rig import PREFIX, install_crds
from tests.cluster.story import Container, Told, cluster_time, telling
from tests.support.scene import ROOT
from worker.model.times import parse_time

pytestmark = pytest.mark.cluster

APP = "app=my-app"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Of its own, for the scheduler and kwok would take other tests' pods."""
    if find_binaries(nodes=True) is None:
        pytest.skip("no real cluster: `make control-plane` builds it")
    with control_plane(tmp_path_factory.mktemp("cluster"), nodes=True) as endpoint:
        install_crds(endpoint)
        yield endpoint


@pytest.fixture
def told(cluster: Endpoint, tmp_path: Path) -> Iterator[Told]:
    with telling(cluster, tmp_path) as told:
        yield told


def deployed(told: Told) -> Container:
    """The documented objects, the Secret's first key, and then the documented Deployment's container."""
    objects = told.documented()
    deployment = objects.pop("Deployment")
    told.apply(*objects.values())
    assert told.work().reasons() == {"openai-credentials": "target.rotated First"}
    began = datetime.now(UTC) - timedelta(seconds=1)
    told.apply(deployment)
    told.kubectl("-n", told.namespace, "rollout", "status", "deployment/my-app", "--timeout=300s")
    (pod,) = told.pods(APP)
    assert pod["spec"]["nodeName"] == NODE
    assert pod["status"]["phase"] == "Running"
    started = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    assert began < parse_time(started) <= datetime.now(UTC)
    return told.container(APP)


def test_a_container_keeps_a_working_key_through_any_number_of_rotations(told: Told) -> None:
    """And its account alone is kept: those between go after their grace, and the ledger names who holds it."""
    container = deployed(told)
    first = told.current()
    for number in range(4):
        told.story.later(minutes=10)
        if number % 2:
            told.work("--force")
        else:
            annotation = f"{PREFIX}rotate={number}"
            told.kubectl("-n", told.namespace, "annotate", "--overwrite", "openai", "openai-generator", annotation)
            told.work()
        assert told.accepts(container)
        assert told.current() != first
        assert first in told.accounts()
    told.story.later(minutes=10)
    told.work()
    assert told.accepts(container)
    assert set(told.accounts()) == {first, told.current()}
    assert told.held() == {first: f"1: {container}", told.current(): None}


def test_a_restart_of_the_rollout_lets_the_old_account_go(told: Told) -> None:
    """With the next run; the new container's key works, and is kept in its turn."""
    old = deployed(told)
    first = told.current()
    told.story.later(minutes=10)
    told.work("--force")
    told.story.later(minutes=10)
    told.work()
    assert told.accepts(old)

    told.kubectl("-n", told.namespace, "rollout", "restart", "deployment/my-app")
    told.kubectl("-n", told.namespace, "rollout", "status", "deployment/my-app", "--timeout=300s")
    told.kubectl("-n", told.namespace, "wait", "--for=delete", f"pod/{old.pod}", "--timeout=300s")
    new = told.container(APP)
    second = told.current()
    told.work()
    assert told.accounts() == [second]
    assert not told.accepts(old)

    told.story.later(minutes=10)
    told.work("--force")
    told.story.later(minutes=10)
    told.work()
    assert told.accepts(new)
    assert told.held() == {second: f"1: {new}", told.current(): None}
    assert first not in told.held()


def rolled_out(told: Told, old: Container) -> None:
    """The real controllers have replaced the pod."""
    told.kubectl("-n", told.namespace, "wait", "--for=delete", f"pod/{old.pod}", "--timeout=300s")
    told.kubectl("-n", told.namespace, "rollout", "status", "deployment/my-app", "--timeout=300s")


def test_the_worker_restarts_what_the_annotation_names_once_for_each_publication(told: Told) -> None:
    """Nobody does a thing: the real controllers make new pods, which have the new key, and the old account goes."""
    old = deployed(told)
    first = told.current()
    annotation = f"{PREFIX}restart=deployment/my-app"
    told.kubectl("-n", told.namespace, "annotate", "externalsecret", "openai-credentials", annotation)
    told.story.later(minutes=10)
    (line,) = told.work("--force").said("target.restarted")
    assert line["restarted"] == ["deployment/my-app"]
    rolled_out(told, old)
    new = told.container(APP)
    assert told.accepts(new)

    # However many runs there are: one restart.
    for _ in range(2):
        told.story.later(minutes=10)
        assert not told.work().said("target.restarted")
        assert told.container(APP) == new

    # The new container started seconds after the rotation. A day later nobody can hold the old key by any rule.
    told.story.later(minutes=24 * 60)
    (line,) = told.work().said("target.restarted")
    assert line["restarted"] == ["deployment/my-app"]
    rolled_out(told, new)
    assert told.accepts(told.container(APP))
    assert first not in told.accounts()
    assert first not in told.held()


def test_a_job_made_from_our_cronjob_is_admitted_placed_and_completes(cluster: Endpoint) -> None:
    """Under the restrictions on pods that our own namespace sets."""
    kubectl(cluster, "apply", "-k", ROOT / "manifests" / "base")
    place = ("-n", "openai-key-rotator")
    kubectl(cluster, *place, "create", "job", "--from=cronjob/openai-key-rotator", "first")
    kubectl(cluster, *place, "wait", "--for=condition=Complete", "job/first", "--timeout=300s")


def test_no_part_of_the_cluster_tells_a_token(cluster: Endpoint) -> None:
    """In its log."""
    logs = {path.stem: path.read_text() for path in cluster.kubeconfig.parent.glob("*.log")}
    assert {"kube-scheduler", "kwok"} < logs.keys()
    for token in (cluster.token, cluster.restricted_token):
        assert not [name for name, text in logs.items() if token in text]


# --- what kwok does not play is written to the pods' status

Act = Callable[[Told, str], None]
"""Something befalls the pod of this life."""


def nothing(told: Told, life: str) -> None:
    pass


def crash(told: Told, life: str) -> None:
    told.write_state(told.container(f"life={life}"), {"waiting": {"reason": "CrashLoopBackOff"}})


def restart(told: Told, life: str) -> None:
    """Restart in place: another container in the same pod, which reads its environment anew."""
    told.write_state(told.container(f"life={life}"), {"running": {"startedAt": cluster_time()}})


def end(told: Told, life: str) -> None:
    told.write_state(told.container(f"life={life}"), {"terminated": {"exitCode": 0, "finishedAt": cluster_time()}})


def debug(told: Told, life: str) -> None:
    """Put an ephemeral container into the pod, as `kubectl debug` does."""
    (pod,) = told.pods(f"life={life}")
    name = pod["metadata"]["name"]
    told.patch_pod(name, "ephemeralcontainers", {"spec": {"ephemeralContainers": [taking(life)]}})
    status = {"name": "taking", "image": "any", "imageID": "", "ready": False, "restartCount": 0}
    status["state"] = {"running": {"startedAt": cluster_time()}}
    told.patch_pod(name, "status", {"status": {"ephemeralContainerStatuses": [status]}})


def delete(told: Told, life: str) -> None:
    told.kubectl("-n", told.namespace, "delete", "pod", "-l", f"life={life}", "--timeout=300s")


def scale_to_0(told: Told, life: str) -> None:
    told.kubectl("-n", told.namespace, "scale", f"deployment/{life}", "--replicas=0")
    told.kubectl("-n", told.namespace, "wait", "--for=delete", "pod", "-l", f"life={life}", "--timeout=300s")


OTHER = {"name": "other", "image": "any"}


def taking(secret: str, **more: str) -> dict[str, Any]:
    """A container that takes the key from this Secret."""
    key = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": secret, "key": "api_key"}}}
    return {"name": "taking", "image": "any", "env": [key], **more}


def alone(secret: str) -> dict[str, Any]:
    return {"containers": [taking(secret)]}


def beside(secret: str) -> dict[str, Any]:
    return {"initContainers": [taking(secret, restartPolicy="Always")], "containers": [OTHER]}


def before(secret: str) -> dict[str, Any]:
    return {"initContainers": [taking(secret)], "containers": [OTHER]}


def without(secret: str) -> dict[str, Any]:
    return {"containers": [OTHER]}


@dataclass(frozen=True, slots=True)
class Life:
    """What befalls a pod that takes the key of a Secret of the same name: before its rotation, and long after it."""

    name: str
    spec: Callable[[str], dict[str, Any]]
    begins: Act
    goes_on: Act
    kind: str = "Pod"

    def object(self, namespace: str) -> dict[str, Any]:
        """What a user applies."""
        labels = {"life": self.name}
        pod = {"metadata": {"labels": labels}, "spec": self.spec(self.name)}
        made: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": self.kind,
            "metadata": {"name": self.name, "namespace": namespace},
        }
        if self.kind == "Job":
            pod["spec"]["restartPolicy"] = "Never"
            return made | {"apiVersion": "batch/v1", "spec": {"template": pod}}
        if self.kind == "Deployment":
            return made | {"apiVersion": "apps/v1", "spec": {"selector": {"matchLabels": labels}, "template": pod}}
        made["metadata"] |= pod["metadata"]
        return made | {"spec": pod["spec"]}

    def ready(self) -> tuple[str, ...]:
        """What is waited for: that it has begun, and for a Job that it has ended."""
        phase = "Succeeded" if self.kind == "Job" else "Running"
        return ("pod", "-l", f"life={self.name}", f"--for=jsonpath={{.status.phase}}={phase}")


HOLDING = (
    Life("restarted-in-place", alone, nothing, restart),
    Life("init-container", before, nothing, delete),
    Life("native-sidecar", beside, nothing, end),
    Life("ephemeral-container", without, debug, end),
    Life("scaled-to-0", alone, nothing, scale_to_0, "Deployment"),
)
NOT_HOLDING = (
    Life("crash-loop", alone, crash, restart),
    Life("finished-job", alone, nothing, nothing, "Job"),
)


@dataclass(frozen=True, slots=True)
class Lived:
    """What became of the account of a container's key: rotated away, with all grace over, and after what came then."""

    holder: str
    held: str | None
    worked: bool
    existed: bool
    exists: bool
    recorded: bool


@pytest.fixture(scope="module")
def lived(cluster: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Lived]]:
    """All lives at once, for they share the worker's runs."""
    lives = (*HOLDING, *NOT_HOLDING)
    with telling(cluster, tmp_path_factory.mktemp("lives")) as told:
        objects = told.documented()
        fed = objects["ExternalSecret"]
        sources = [fed | {"metadata": {"name": life.name, "namespace": told.namespace}} for life in lives]
        told.apply(objects["Secret"], objects["OpenAI"], *sources)
        told.work()
        first = {life.name: told.current(life.name) for life in lives}

        told.apply(*(life.object(told.namespace) for life in lives))
        for life in lives:
            told.kubectl("-n", told.namespace, "wait", "--for=create", *life.ready()[:3], "--timeout=300s")
            told.kubectl("-n", told.namespace, "wait", *life.ready(), "--timeout=300s")
            life.begins(told, life.name)
        containers = {life.name: told.container(f"life={life.name}") for life in lives}

        told.story.later(minutes=10)
        told.work("--force")
        told.story.later(minutes=10)
        told.work()
        worked = {name: told.accepts(container) for name, container in containers.items()}
        existed, held = told.accounts(), {name: told.held(name).get(account) for name, account in first.items()}

        for life in lives:
            life.goes_on(told, life.name)
        told.work()
        exist, recorded = told.accounts(), {name: told.held(name) for name in first}
        yield {
            name: Lived(
                holder=f"1: {containers[name]}",
                held=held[name],
                worked=worked[name],
                existed=account in existed,
                exists=account in exist,
                recorded=account in recorded[name],
            )
            for name, account in first.items()
        }


@pytest.mark.parametrize("life", [life.name for life in HOLDING])
def test_an_account_stays_while_a_container_has_its_key_and_no_longer(lived: dict[str, Lived], life: str) -> None:
    """Its key works, the ledger names the container, and the run after the container's end deletes it."""
    seen = lived[life]
    assert seen.held == seen.holder
    assert (seen.existed, seen.worked) == (True, True)
    assert (seen.exists, seen.recorded) == (False, False)


@pytest.mark.parametrize("life", [life.name for life in NOT_HOLDING])
def test_a_pod_in_which_nothing_has_the_key_keeps_no_account(lived: dict[str, Lived], life: str) -> None:
    """It would read the new key, if it ever ran again."""
    seen = lived[life]
    assert seen.held is None
    assert (seen.existed, seen.worked) == (False, False)
    assert (seen.exists, seen.recorded) == (False, False)
