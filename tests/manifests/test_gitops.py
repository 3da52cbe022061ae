"""docs/gitops.md: its CEL and Lua, on objects that the worker wrote; its order and times, next to the manifests'."""

from __future__ import annotations

import importlib
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import yaml

from sandbox.transport.faults import Rule, Rules, answered
from sandbox.transport.wire import Response
from tests.support.paths import ADMIN_SECRET, EXTERNAL_SECRET, GENERATOR, NO_WAIT
from tests.support.programs import required_program
from tests.support.scene import LEDGER, ROOT, Scene
from worker.model.times import parse_duration

PAGE = (ROOT / "docs" / "gitops.md").read_text()
SNIPPETS = [obj for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) for obj in yaml.safe_load_all(text)]
MANIFESTS = ROOT / "manifests"
ALONE = {"metadata": {"annotations": {"openai-key-rotator.io/secret": "openai-credentials"}}}
SUSPENDED = {"metadata": {"annotations": {"openai-key-rotator.io/suspend": "true"}}}
WRONG_HOST = {"spec": {"host": "https://elsewhere.test/v1"}}

Object = dict[str, Any]


def of_kind(kind: str) -> list[Object]:
    return [obj for obj in SNIPPETS if obj["kind"] == kind]


# --- objects as the worker writes them


def found(scene: Scene, resource: str) -> Object:
    namespace, name = {
        "externalsecrets": ("default", "openai-credentials"),
        "openais": ("default", "openai-generator"),
        "keyrotations": (LEDGER, "default.openai-credentials"),
    }[resource]
    obj = scene.kubernetes.find(resource, namespace, name)
    assert obj is not None
    return obj


def rotated(scene: Scene) -> None:
    scene.run(max_wait=NO_WAIT)


def blocked(scene: Scene) -> None:
    scene.merge(GENERATOR, WRONG_HOST)
    scene.run(max_wait=NO_WAIT)


def wrong_key(scene: Scene) -> None:
    scene.merge(ADMIN_SECRET, {"stringData": {"api-key": "sk-admin-wrong"}})
    scene.run(max_wait=NO_WAIT)


def openai_away(scene: Scene) -> None:
    """It passes by itself."""
    away = answered(Response.of_json(503, {"error": {"message": "no", "code": None}}))
    scene.run(openai_faults=Rules([Rule(away)], scene.random), max_wait=NO_WAIT)


def changed(scene: Scene) -> None:
    """After the last run."""
    scene.run(max_wait=NO_WAIT)
    scene.merge(GENERATOR, {"spec": {"serviceAccountNamePrefix": "other"}})


def suspended(scene: Scene) -> None:
    scene.run(max_wait=NO_WAIT)
    scene.merge(GENERATOR, SUSPENDED)
    scene.run(max_wait=NO_WAIT)


def untouched(scene: Scene) -> None:
    """Before the first run."""


Act = Callable[[Scene], None]


def after(act: Act, *, alone: bool = False) -> Scene:
    scene = Scene()
    scene.apply_documented()
    if alone:
        scene.delete(EXTERNAL_SECRET)
        scene.merge(GENERATOR, ALONE)
    act(scene)
    return scene


# --- Flux


def flux(obj: Object) -> str:
    """As Flux's evaluator has it (fluxcd/pkg, runtime/cel): generation first, then failed and current."""
    celpy: Any = pytest.importorskip("celpy", reason="cel-python evaluates the expressions")
    (team,) = [each["spec"] for each in of_kind("Kustomization") if "healthCheckExprs" in each["spec"]]
    (checks,) = [check for check in team["healthCheckExprs"] if check["kind"] == obj["kind"]]
    assert checks["apiVersion"] == obj["apiVersion"]
    seen = obj.get("status", {}).get("observedGeneration")
    if seen not in (None, obj["metadata"]["generation"]):
        return "InProgress"
    environment = celpy.Environment()
    fields = {name: celpy.json_to_cel(value) for name, value in obj.items()}
    for name, verdict in (("failed", "Failed"), ("current", "Current")):
        program = environment.program(environment.compile(checks[name]))
        try:
            if bool(program.evaluate(fields)):
                return verdict
        except celpy.CELEvalError:
            return "InProgress"  # an object without a status: Flux goes on waiting
    return "InProgress"


@pytest.mark.parametrize(
    ("act", "verdict"),
    [
        (untouched, "InProgress"),
        (rotated, "Current"),
        (blocked, "Failed"),
        (wrong_key, "Failed"),
        (openai_away, "InProgress"),
    ],
)
def test_flux_waits_goes_on_or_gives_up(act: Act, verdict: str) -> None:
    """For an ExternalSecret, and for a generator that stands alone."""
    assert flux(found(after(act), "externalsecrets")) == verdict
    assert flux(found(after(act, alone=True), "openais")) == verdict


def test_flux_waits_for_a_change_that_no_run_has_seen() -> None:
    assert flux(found(after(changed, alone=True), "openais")) == "InProgress"


def test_each_kustomization_waits_for_the_one_before_it_and_for_a_run() -> None:
    steps = of_kind("Kustomization")
    names = [step["metadata"]["name"] for step in steps]
    assert [[each["name"] for each in step["spec"].get("dependsOn", ())] for step in steps] == [
        [],
        names[:1],
        names[1:2],
    ]
    for step in steps[:2]:
        assert (ROOT / step["spec"]["path"] / "kustomization.yaml").is_file()
    assert [step["spec"]["prune"] for step in steps] == [False, True, True]
    job = yaml.safe_load((MANIFESTS / "base" / "cronjob.yaml").read_text())["spec"]
    assert job["schedule"] == "*/10 * * * *"
    assert parse_duration(steps[2]["spec"]["timeout"]) > timedelta(minutes=10)


# --- Argo CD


def script(name: str) -> str:
    (config,) = of_kind("ConfigMap")
    text: str = config["data"][f"resource.customizations.health.{name}"]
    return text


def argo(name: str, obj: Object) -> tuple[str, str]:
    """What the script says of the object: health and message. Argo CD runs Lua 5.1 without libraries."""
    lua: Any = importlib.import_module("lupa.lua51")
    runtime = lua.LuaRuntime(register_eval=False, unpack_returned_tuples=True)
    runtime.globals().obj = runtime.table_from(obj, recursive=True)
    health = runtime.execute(script(name))
    return health.status, health.message


GENERATORS, ENTRIES = "generators.external-secrets.io_OpenAI", "openai-key-rotator.io_KeyRotation"


@pytest.mark.parametrize(
    ("act", "health", "word"),
    [
        (untouched, "Progressing", "no run"),
        (rotated, "Healthy", "Rotated"),
        (blocked, "Degraded", "HostNotAllowed"),
        (wrong_key, "Degraded", "OpenAIUnauthorized"),
        (openai_away, "Progressing", "OpenAI"),
        (changed, "Progressing", "the change"),
        (suspended, "Suspended", "Suspended"),
    ],
)
def test_argo_cd_tells_the_health_of_a_generator_and_of_an_entry(act: Act, health: str, word: str) -> None:
    scene = after(act, alone=True)
    told, message = argo(GENERATORS, found(scene, "openais"))
    assert (told, word in message) == (health, True), message
    if act not in (untouched, changed):
        told, message = argo(ENTRIES, found(scene, "keyrotations"))
        assert (told, word in message) == (health, True), message


def jobs() -> Iterator[tuple[Object, str, str]]:
    """Jobs of ours and of others, with their health."""
    command = [required_program("kubectl"), "kustomize", str(MANIFESTS / "base")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (cron_job,) = [obj for obj in yaml.safe_load_all(done.stdout) if obj["kind"] == "CronJob"]
    ours, others = cron_job["spec"]["jobTemplate"]["metadata"]["labels"], {"app": "other"}
    for labels, failed in ((ours, "Healthy"), (others, "Degraded")):
        for kind, health in (("Failed", failed), ("Complete", "Healthy"), ("Suspended", "Suspended")):
            condition = {"type": kind, "status": "True", "message": "words"}
            job = {"metadata": {"name": "job", "labels": labels}, "status": {"conditions": [condition]}}
            yield job, health, "words"
            condition = {"type": kind, "status": "False"}
            yield job | {"status": {"conditions": [condition]}}, "Progressing", "running"
    yield {"metadata": {"name": "job"}}, "Progressing", "running"
    yield {"metadata": {"name": "job"}, "status": {"active": 1}}, "Progressing", "running"


def test_argo_cd_takes_a_failed_run_for_no_failure_of_the_platforms_and_other_jobs_as_before() -> None:
    for job, health, word in jobs():
        told, message = argo("batch_Job", job)
        assert (told, word in message) == (health, True), job


def test_argo_cd_leaves_the_ledger_alone() -> None:
    (config,) = of_kind("ConfigMap")
    (exclusion,) = yaml.safe_load(config["data"]["resource.exclusions"])
    crds = [yaml.safe_load(path.read_text()) for path in sorted((MANIFESTS / "crds").glob("*.yaml"))]
    ours = [crd["spec"] for crd in crds if crd.get("spec", {}).get("group") == "openai-key-rotator.io"]
    kinds = sorted(spec["names"]["kind"] for spec in ours)
    assert kinds == ["AdminKeyRotation", "KeyRotation"]
    assert exclusion == {"apiGroups": ["openai-key-rotator.io"], "kinds": kinds, "clusters": ["*"]}


def test_a_wave_begins_when_the_secret_is_there() -> None:
    waves = {
        obj["kind"]: int(obj["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])
        for obj in SNIPPETS
        if "annotations" in obj["metadata"]
    }
    assert waves["ExternalSecret"] < waves["Deployment"]


def test_argo_cds_refresh_has_the_next_run_make_a_key() -> None:
    """Its action sets this annotation (argoproj/argo-cd, resource_customizations)."""
    scene = after(rotated)
    key = scene.key()
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"force-sync": "2026-11-24T10:05:00Z"}}})
    scene.run(max_wait=NO_WAIT)
    assert scene.key() != key
