"""The production overlay on a real node: its image in real containers, from admission to what a run leaves behind."""

from __future__ import annotations

import json

import pytest

from sandbox.openai.state import KeyStatus
from tests.node.build import IMAGE, TAG
from tests.node.installation import SECRET, WORKER, Finished, Installation
from tests.node.world import NODE

MIB = 1024**2


@pytest.fixture(scope="module")
def first(installation: Installation) -> Finished:
    """The Job that the README makes."""
    return installation.first


def test_the_readmes_job_rotates_in_the_real_image(installation: Installation, first: Finished) -> None:
    assert first.run.code == 0, first.run.output
    assert first.run.reasons() == {SECRET: "target.rotated First"}
    assert installation.openai.key_status(installation.key()) is KeyStatus.ACTIVE  # or a later one, by now
    (status,) = first.pod["status"]["containerStatuses"]
    assert first.pod["spec"]["nodeName"] == NODE
    assert status["image"] == f"{IMAGE}:{TAG}"
    assert status["restartCount"] == 0


def test_its_namespace_enforces_the_restricted_standard(installation: Installation, first: Finished) -> None:
    """Which admitted the pod: a pod that asks for more is refused there."""
    labels = json.loads(installation.kubectl("get", "namespace", WORKER, "-o", "json"))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    more = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "more", "namespace": WORKER}}
    more["spec"] = {"containers": [{"name": "c", "image": "localhost/probe:1"}]}
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        installation.kubectl("apply", "--dry-run=server", "-f", "-", given=json.dumps(more))


def test_its_root_is_read_only_and_its_user_has_no_rights(installation: Installation, first: Finished) -> None:
    """Tried from inside, with the CronJob's own settings. The group is another than the image's `USER` says: a kubelet
    passes on only the number of the user, and containerd then takes group 0.
    """
    program = (
        "import json, os, pathlib\n"
        "def refused(path):\n"
        "    try: pathlib.Path(path).write_text('x')\n"
        "    except OSError as error: return error.strerror\n"
        "status = dict(line.split(':', 1) for line in pathlib.Path('/proc/self/status').read_text().splitlines())\n"
        "print(json.dumps({'refused': {path: refused(path) for path in ('/app/x', '/x', '/tmp/x', '/venv/x')},\n"
        "    'user': [os.getuid(), os.getgid()], 'capabilities': int(status['CapEff'], 16),\n"
        "    'no_new_privileges': status['NoNewPrivs'].strip(), 'seccomp': status['Seccomp'].strip()}))\n"
    )
    ended = installation.python(program)
    assert ended == {
        "refused": dict.fromkeys(("/app/x", "/x", "/tmp/x", "/venv/x"), "Read-only file system"),  # noqa: S108
        "user": [65532, 0],
        "capabilities": 0,
        "no_new_privileges": "1",
        "seccomp": "2",
    }


def test_the_api_server_knew_it_by_its_own_token_alone(installation: Installation, first: Finished) -> None:
    """Bound to this very pod."""
    name = first.pod["metadata"]["name"]
    events = map(json.loads, installation.endpoint.audit_log.read_text().splitlines())
    users = [event["user"] for event in events if event["user"]["username"].endswith(f":{WORKER}:{WORKER}")]
    its = [user for user in users if user["extra"].get("authentication.kubernetes.io/pod-name") == [name]]
    assert its
    assert {user["username"] for user in its} == {f"system:serviceaccount:{WORKER}:{WORKER}"}


def test_its_termination_message_is_its_summary(first: Finished) -> None:
    assert {"rotated": 1, "failed": 0, "exit_code": 0}.items() <= first.summary.items()


def test_every_line_of_its_log_is_json_and_the_last_is_the_runs(first: Finished) -> None:
    """`kubectl logs` reads it from the kubelet."""
    events = [line["event"] for line in first.run.lines]
    assert len(events) == len(first.run.output.splitlines())
    assert "target.rotated" in events
    assert events[-1].startswith("run.")


def test_its_memory_stays_below_what_it_requests(first: Finished) -> None:
    """And so far below its limit. The whole pod's, as the kernel counted it."""
    print(f"peak of memory: {first.peak / MIB:.1f} MiB")
    (container,) = first.pod["spec"]["containers"]
    resources = container["resources"]
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == ("96Mi", "256Mi")
    assert 0 < first.peak < 96 * MIB


def test_the_ledger_shows_it(installation: Installation, first: Finished) -> None:
    (line,) = [line.split() for line in installation.shown.splitlines() if line.startswith(installation.namespace)]
    assert line[1:4] == [installation.namespace, SECRET, "1"]
    assert line[-2:] == ["True", "Rotated"]


def test_the_admission_policy_binds_the_worker_and_nobody_else(installation: Installation, first: Finished) -> None:
    """The worker's own token may not write a Secret that is not the rotator's."""
    metadata = {"name": "foreign", "namespace": installation.namespace}
    foreign = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    assert installation.as_worker("POST", "secrets", foreign) == 422
    labels = {"openai-key-rotator.io/managed": "true"}
    managed = {**foreign, "metadata": {**metadata, "labels": labels}}
    assert installation.as_worker("POST", "secrets?dryRun=All", managed) == 201
