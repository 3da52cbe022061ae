"""Who in a pod may carry a Secret's key, told from the pod's JSON alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pods import BY_ENV, BY_MOUNT, PLAIN, RUNNING, STARTED
from worker.kubernetes.pod import consumers_of
from worker.model.sightings import Consumer

BY_ENV_FROM = {"envFrom": [{"prefix": "X_", "secretRef": {"name": "s"}}]}
BY_SUB_PATH = {"volumeMounts": [{"name": "v", "mountPath": "/s", "subPath": "api_key"}]}
PROJECTED = {"name": "v", "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "s"}}]}}


def pod(
    container: dict[str, Any],
    state: dict[str, Any] | None = None,
    *,
    volume: dict[str, Any] | None = None,
    phase: str = "Running",
    field: str = "containers",
    node: str | None = "node-1",
) -> dict[str, Any]:
    """A pod with one container that matters."""
    states = {"containers": "containerStatuses", "initContainers": "initContainerStatuses"}
    return {
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": node, "volumes": [volume] if volume else [], field: [{"name": "c", **container}]},
        "status": {
            "phase": phase,
            "startTime": "2026-11-24T10:00:00Z",
            states.get(field, "ephemeralContainerStatuses"): [
                {"name": "c", "state": RUNNING if state is None else state}
            ],
        },
    }


@pytest.mark.parametrize(
    ("what", "given_pod", "expected"),
    [
        ("env", pod(BY_ENV), [(STARTED, False)]),
        ("envFrom", pod(BY_ENV_FROM), [(STARTED, False)]),
        ("subPath", pod(BY_SUB_PATH, volume=PLAIN), [(STARTED, False)]),
        ("volume", pod(BY_MOUNT, volume=PLAIN), [(STARTED, True)]),
        ("projected volume", pod(BY_MOUNT, volume=PROJECTED), [(STARTED, True)]),
        ("projected volume by subPath", pod(BY_SUB_PATH, volume=PROJECTED), [(STARTED, False)]),
        ("env and volume", pod(BY_ENV | BY_MOUNT, volume=PLAIN), [(STARTED, False), (STARTED, True)]),
        (
            "volume in a crash loop",
            pod(BY_MOUNT, {"waiting": {"reason": "CrashLoopBackOff"}}, volume=PLAIN),
            [(STARTED, True)],
        ),
        ("volume of a container that has ended", pod(BY_MOUNT, {"terminated": {}}, volume=PLAIN), [(STARTED, True)]),
        ("a volume that is not mounted", pod({}, volume=PLAIN), []),
        ("another Secret", pod({"envFrom": [{"secretRef": {"name": "other"}}]}), []),
        ("a ConfigMap of that name", pod({"envFrom": [{"configMapRef": {"name": "s"}}]}), []),
        ("no node yet", pod(BY_ENV, {"waiting": {}}, node=None, phase="Pending"), []),
        ("about to start", pod(BY_ENV, {"waiting": {"reason": "ContainerCreating"}}), [(None, False)]),
        ("no status yet", pod(BY_ENV, {}), [(None, False)]),
        ("crash loop", pod(BY_ENV, {"waiting": {"reason": "CrashLoopBackOff"}}), []),
        ("terminated", pod(BY_ENV, {"terminated": {"startedAt": "2026-11-24T10:00:00Z"}}), []),
        ("finished pod", pod(BY_ENV, phase="Succeeded"), []),
        ("failed pod", pod(BY_ENV, {"terminated": {}}, phase="Failed"), []),
        ("failed pod whose container has not ended yet", pod(BY_ENV, phase="Failed"), [(STARTED, False)]),
        ("sidecar", pod(BY_ENV | {"restartPolicy": "Always"}, field="initContainers"), [(STARTED, False)]),
        (
            "an init container that has ended",
            pod(BY_ENV, {"terminated": {"startedAt": "2026-11-24T10:00:00Z"}}, field="initContainers"),
            [(STARTED, False)],
        ),
        (
            "an init container that saw a volume and has ended",
            pod(BY_MOUNT, {"terminated": {}}, volume=PLAIN, field="initContainers"),
            [(STARTED, False)],
        ),
        ("ephemeral container", pod(BY_ENV, field="ephemeralContainers"), [(STARTED, False)]),
        ("running without a start", pod(BY_ENV, {"running": {}}), [(None, False)]),
    ],
)
def test_consumers_are_found(
    what: str, given_pod: dict[str, Any], expected: list[tuple[datetime | None, bool]]
) -> None:
    """Each way to read a Secret, in each state of a container."""
    found = consumers_of(given_pod, {"s"})
    assert [(c.started_at, c.follows) for c in found] == expected, what
    assert all((c.secret, c.name) == ("s", "p/c") for c in found)


def test_a_container_of_two_targets_is_a_consumer_of_both() -> None:
    """Two Secrets in one container are two consumers."""
    container = {"envFrom": [{"secretRef": {"name": "s"}}, {"secretRef": {"name": "t"}}]}
    assert consumers_of(pod(container), {"s", "t", "u"}) == (
        Consumer("s", "p/c", STARTED, follows=False, node="node-1"),
        Consumer("t", "p/c", STARTED, follows=False, node="node-1"),
    )


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "env", "envFrom", "secretRef", "valueFrom", "secretKeyRef", "state", "running", "startedAt"]
                + ["volumes", "secret", "secretName", "projected", "sources", "volumeMounts", "subPath", "containers"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def places(value: object) -> Iterator[tuple[str | int, ...]]:
    """The paths to all parts of a JSON value."""
    yield ()
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from ((key, *path) for path in places(part))


def replaced(value: Any, path: tuple[str | int, ...], part: object) -> Any:
    """A JSON value with something else in one place."""
    if not path:
        return part
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], part)
    return copy


@given(
    reading=st.sampled_from([(BY_ENV, None), (BY_ENV_FROM, None), (BY_MOUNT, PLAIN), (BY_SUB_PATH, PROJECTED)]),
    field=st.sampled_from(["containers", "initContainers", "ephemeralContainers"]),
    part=ANYTHING,
    data=st.data(),
)
def test_whatever_a_pod_looks_like_who_names_the_secret_is_found(
    reading: tuple[dict[str, Any], dict[str, Any] | None], field: str, part: object, data: st.DataObject
) -> None:
    """Anything in place of any part of a pod is read without an error; where what says that the container reads the
    Secret, and that the pod has a node, is left as it was, the container is found."""
    container, volume = reading
    whole = pod(container, volume=volume, field=field)
    path = data.draw(st.sampled_from(list(places(whole))))
    found = consumers_of(as_pod(replaced(whole, path, part)), {"s"})
    telling = [("spec", "nodeName"), ("spec", "volumes"), *(("spec", field, 0, key) for key in container)]
    if not any(path == where[: len(path)] or where == path[: len(where)] for where in telling):
        assert [consumer.secret for consumer in found] == ["s"]


def as_pod(value: object) -> dict[str, Any]:
    """A list of pods has objects only."""
    return value if isinstance(value, dict) else {}


def test_an_init_container_whose_start_is_lost_may_have_read_at_any_time() -> None:
    """Kubelets lose the status of one that ended long ago: dated by its pod, and open at the end."""
    lost = pod(BY_ENV, {"terminated": {"exitCode": 0}}, field="initContainers")
    (found,) = consumers_of(lost, {"s"})
    assert found.started_at == STARTED
    assert found.read_until == datetime.max.replace(tzinfo=UTC)


def test_an_init_container_may_have_read_its_volume_until_its_end() -> None:
    """Or later, while it runs."""
    ended = {"terminated": {"startedAt": "2026-11-24T10:00:00Z", "finishedAt": "2026-11-24T11:00:00Z"}}
    (found,) = consumers_of(pod(BY_MOUNT, ended, volume=PLAIN, field="initContainers"), {"s"})
    assert (found.started_at, found.read_until) == (STARTED, STARTED.replace(hour=11))
    (found,) = consumers_of(pod(BY_MOUNT, RUNNING, volume=PLAIN, field="initContainers"), {"s"})
    assert found.read_until == datetime.max.replace(tzinfo=UTC)


def test_a_pod_that_is_being_deleted_keeps_what_its_volume_has() -> None:
    """Until its time is over; from then on it cannot have followed."""
    leaving = pod(BY_MOUNT, volume=PLAIN)
    leaving["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
    (found,) = consumers_of(leaving, {"s"})
    assert (found.follows, found.read_until) == (False, STARTED.replace(hour=12))
