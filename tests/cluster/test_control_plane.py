"""The rig itself: a control plane that starts, lets in whom it should, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import control_plane as rig
from tests.cluster.control_plane import StartFailed, cache_directory, control_plane, find_binaries, find_promtool
from tests.cluster.endpoint import Endpoint, call, kubeconfig_for, kubectl, service_account_token

ROOT = Path(__file__).parent.parent.parent
SECRETS = "/api/v1/namespaces/default/secrets"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a folder with small programs of these names, to be found in place of the real ones."""

    def make(**scripts: str) -> Path:
        directory = tmp_path / "programs"
        directory.mkdir()
        for name, script in scripts.items():
            path = directory / name.replace("_", "-")
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        monkeypatch.setenv("KUBEBUILDER_ASSETS", str(directory))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return directory

    return make


def test_the_users_are_who_they_should_be(real_api_server: Endpoint) -> None:
    """One may do everything, one nothing, and a wrong token is nobody's."""
    assert call(real_api_server, "GET", SECRETS)[0] == 200
    assert call(real_api_server, "GET", SECRETS, token=real_api_server.restricted_token)[0] == 403
    assert call(real_api_server, "GET", SECRETS, token="nobody's")[0] == 401


def test_a_service_account_has_a_token(real_api_server: Endpoint) -> None:
    """It is let in under its own name, and has no permissions."""
    token = service_account_token(real_api_server, "default", "default")
    status, answer = call(real_api_server, "GET", SECRETS, token=token)
    assert status == 403
    assert "system:serviceaccount:default:default" in answer["message"]


def test_kubectl_works_with_either_kubeconfig(real_api_server: Endpoint, tmp_path: Path) -> None:
    """For the user who may do everything, and for another one."""
    assert kubectl(real_api_server, "auth", "whoami", "-o", "name")
    kubeconfig = kubeconfig_for(real_api_server, tmp_path / "kubeconfig", real_api_server.restricted_token)
    answer = kubectl(real_api_server, f"--kubeconfig={kubeconfig}", "auth", "whoami", "-o", "yaml")
    assert "username: restricted" in answer
    assert kubeconfig.stat().st_mode & 0o077 == 0


def test_the_controllers_are_at_work(real_api_server: Endpoint) -> None:
    """A namespace that is deleted goes, with all that is in it."""
    kubectl(real_api_server, "create", "namespace", "short-lived")
    kubectl(real_api_server, "-n", "short-lived", "create", "configmap", "content")
    kubectl(real_api_server, "delete", "namespace", "short-lived", "--wait", "--timeout=60s")
    assert call(real_api_server, "GET", "/api/v1/namespaces/short-lived")[0] == 404


def test_no_token_is_shown(real_api_server: Endpoint) -> None:
    """Neither by the endpoint itself nor in the logs."""
    logs = [path.read_text() for path in real_api_server.kubeconfig.parent.glob("*.log")]
    assert len(logs) == 3
    for token in (real_api_server.token, real_api_server.restricted_token):
        assert not any(token in text for text in [repr(real_api_server), *logs])


def test_a_failure_to_start_shows_the_end_of_the_log(programs: Callable[..., Path], tmp_path: Path) -> None:
    """Of the part that failed; the others are ended."""
    # The API server fails only once etcd runs, which a busy machine may put off.
    wait = "for _ in $(seq 200); do [ -s pid ] && break; sleep 0.05; done"
    programs(etcd="echo $$ > pid; exec sleep 600", kube_apiserver=f"{wait}; echo no such flag; exit 7")
    with pytest.raises(StartFailed, match=r"(?s)kube-apiserver ended with exit code 7.*no such flag"):
        control_plane(tmp_path / "run").__enter__()
    assert not _runs(int((tmp_path / "run" / "start-1" / "pid").read_text()))


def test_a_lost_race_for_a_port_is_another_try(programs: Callable[..., Path], tmp_path: Path) -> None:
    """On other ports, a few times."""
    programs(etcd="exec sleep 600", kube_apiserver='echo "$@" >> ../ports; echo bind: address already in use; exit 1')
    with pytest.raises(StartFailed, match="address already in use"):
        control_plane(tmp_path / "run").__enter__()
    assert len(set((tmp_path / "run" / "ports").read_text().splitlines())) == rig.STARTS


def test_programs_outlive_nobody(programs: Callable[..., Path], tmp_path: Path) -> None:
    """Not even a test run that was killed."""
    programs(etcd="echo $$ > pid; exec sleep 600", kube_apiserver="exec sleep 600")
    code = (
        "import sys; from pathlib import Path; from tests.cluster.control_plane import control_plane\n"
        "control_plane(Path(sys.argv[1])).__enter__()"
    )
    run = subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], cwd=ROOT)
    file = tmp_path / "run" / "start-1" / "pid"
    _until(lambda: file.exists() and file.read_text().endswith("\n"))
    run.send_signal(signal.SIGKILL)
    run.wait()
    _until(lambda: not _runs(int(file.read_text())))


def test_programs_named_by_the_environment_come_first(programs: Callable[..., Path]) -> None:
    """If they are all there and can be run."""
    directory = programs(etcd="", kube_apiserver="")
    assert find_binaries() == directory
    assert find_binaries(controllers=True) is None
    (directory / "etcd").chmod(0o644)
    assert find_binaries() is None


def test_nodes_need_everything(programs: Callable[..., Path]) -> None:
    """All programs, and what kwok is told to do."""
    directory = programs(etcd="", kube_apiserver="", kube_controller_manager="", kube_scheduler="", kwok="")
    assert find_binaries(controllers=True) == directory
    assert find_binaries(nodes=True) is None
    (directory / rig.STAGES).touch()
    assert find_binaries(nodes=True) == directory
    (directory / "kwok").unlink()
    assert find_binaries(nodes=True) is None


@pytest.mark.parametrize(
    ("required", "code", "words"), [("", 0, "not used, 1 tests skipped"), ("1", 1, "skipped, but REQUIRE_CLUSTER=1")]
)
def test_tests_without_the_api_server_are_told(
    programs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, required: str, code: int, words: str
) -> None:
    """Skipped ones are counted; where the API server is required they fail."""
    programs()
    monkeypatch.setenv("REQUIRE_CLUSTER", required)
    one = f"{Path(__file__).relative_to(ROOT)}::test_the_users_are_who_they_should_be"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", one],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert words in done.stdout
    assert "make control-plane" in done.stdout


def test_promtool_is_the_one_of_the_cache(programs: Callable[..., Path]) -> None:
    """Pinned as the cluster's programs are; the folder of another version of those need not have it."""
    programs(promtool="")
    assert find_promtool() is None
    cache_directory().mkdir(parents=True)
    program = cache_directory() / "promtool"
    program.touch(mode=0o755)
    assert find_promtool() == program
    program.chmod(0o644)
    assert find_promtool() is None


@pytest.mark.parametrize(("required", "code"), [("", 0), ("1", 1)])
def test_alerts_go_untested_only_where_nothing_is_required(
    programs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, required: str, code: int
) -> None:
    """Without promtool."""
    programs()
    monkeypatch.setenv("REQUIRE_CLUSTER", required)
    one = "tests/manifests/test_monitoring.py::test_promtool_finds_the_alerts_right"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-r", "s", one]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "make control-plane" in done.stdout


@pytest.mark.parametrize(("required", "code"), [("", 0), ("1", 1)])
def test_the_chart_goes_unrendered_only_where_nothing_is_required(
    programs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, required: str, code: int
) -> None:
    """Without Helm."""
    programs()
    monkeypatch.setenv("REQUIRE_CLUSTER", required)
    one = "tests/manifests/test_chart.py::test_what_holds_the_ledger_stays_when_the_release_goes"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-r", "s", one]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "no helm: `make control-plane` builds it" in done.stdout


def _runs(pid: int) -> bool:
    # A killed one is there until its parent, or whoever took its place, has looked at it. It may go at any moment,
    # also while its file is being read.
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # gone just now, or a system without /proc
        return not Path("/proc").exists()


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
