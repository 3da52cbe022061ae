"""Metrics, alerts and dashboard fit together, and fit the ledger's real objects.

kube-state-metrics itself is not here: `state_metrics` plays what its documentation says.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from sandbox.transport.faults import Rule, Rules, answered
from sandbox.transport.wire import Response
from tests.cluster.control_plane import find_promtool
from tests.support.paths import ENTRY, EXTERNAL_SECRET, GENERATOR, SECRET
from tests.support.pods import start_pod
from tests.support.programs import required_program
from tests.support.scene import LEDGER, ROOT, TARGET, Scene
from tests.support.state_metrics import Config, Resource, paths, series
from worker.kubernetes.secret import CURRENT
from worker.model.names import entry_name

COMPONENT = ROOT / "manifests" / "components" / "monitoring"
CRD = ROOT / "manifests" / "crds" / "keyrotation.yaml"
RULE_TESTS = ROOT / "tests" / "data" / "rules_test.yaml"
ALERTS = ROOT / "docs" / "alerts.md"
PLACEHOLDER = "https://openai-key-rotator.example.com/docs"
PREFIX = "openai_key_rotator_"
CRON_JOB = {
    "kube_cronjob_created",
    "kube_cronjob_spec_suspend",
    "kube_cronjob_status_last_schedule_time",
    "kube_cronjob_status_last_successful_time",
}
"""What kube-state-metrics tells by itself, and is used here."""
REFUSED = answered(Response.of_json(400, {"error": {"message": "no", "code": None}}))


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def configured() -> Resource:
    """The configuration, which has one resource."""
    (resource,) = Config.model_validate(loaded(COMPONENT / "config.yaml")).spec.resources
    return resource


def rules() -> list[dict[str, Any]]:
    (group,) = loaded(COMPONENT / "prometheusrule.yaml")["spec"]["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def queries() -> list[str]:
    """Every PromQL expression of the dashboard."""
    panels = json.loads((COMPONENT / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def told(scene: Scene) -> dict[str, float | str]:
    """The metrics of the documented target, by their short name; of an info its label's value."""
    entry = scene.kubernetes.find("keyrotations", LEDGER, entry_name(TARGET))
    assert entry is not None
    found: dict[str, float | str] = {}
    for name, labels, value in series(configured(), entry):
        identity = {"ledger_namespace": LEDGER, "target_namespace": TARGET.namespace, "secret": TARGET.name}
        assert identity.items() <= labels.items()
        own = [text for label, text in labels.items() if label not in identity]
        short = name.removeprefix(PREFIX)
        assert short not in found
        found[short] = own[0] if own else value
    return found


# --- the ledger's objects


@pytest.fixture
def scene() -> Scene:
    """The documented objects, a minute ago."""
    scene = Scene()
    scene.apply_documented()
    scene.advance(minutes=1)
    return scene


def test_a_target_that_rotates_is_told_with_all_its_times(scene: Scene) -> None:
    """In seconds; what is not the case has no series, but for failures, of which there are none."""
    start = scene.now().timestamp()
    scene.run()
    namespace = scene.kubernetes.find("namespaces", "", LEDGER)
    assert namespace is not None
    assert told(scene) == {
        "ready": 1,
        "reason_info": "Rotated",
        "accounts": 1,
        "oldest_key_timestamp_seconds": start,
        "last_rotation_timestamp_seconds": start,
        "next_rotation_timestamp_seconds": start + 3600,
        "failures": 0,
        "ledger_info": namespace["metadata"]["uid"],
    }


def test_a_held_key_is_told_since_when(scene: Scene) -> None:
    """As is that the oldest key is older than the current one."""
    first = scene.now().timestamp()
    scene.run()
    start_pod(scene)
    scene.advance(hours=1)
    scene.run()
    since = scene.stored_entry().history[0].held
    assert since is not None
    found = told(scene)
    assert (found["held_since_timestamp_seconds"], found["accounts"]) == (since.since.timestamp(), 2)
    assert (found["oldest_key_timestamp_seconds"], found["last_rotation_timestamp_seconds"]) == (first, first + 3600)


def test_a_key_with_a_lifetime_is_told_when_it_ends(scene: Scene) -> None:
    """And that it is renewed before: then the oldest key is a new one."""
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/key-lifetime": "1h"}}})
    start = scene.now().timestamp()
    scene.run()
    found = told(scene)
    assert found["next_expiry_timestamp_seconds"] == start + 3600
    assert found["next_rotation_timestamp_seconds"] == start + 2400
    scene.advance(minutes=50)
    renewed = scene.now().timestamp()
    scene.run()
    assert told(scene)["oldest_key_timestamp_seconds"] == renewed
    assert told(scene)["next_expiry_timestamp_seconds"] == renewed + 3600


def test_a_target_that_fails_is_told_with_its_reason(scene: Scene) -> None:
    """And how often in a row it did. The account that was asked for counts until it is certain that there is none."""
    scene.run()
    scene.advance(hours=1)
    scene.run(openai_faults=Rules((Rule(REFUSED, "POST", ".*/service_accounts"),), scene.random))
    found = told(scene)
    assert (found["ready"], found["reason_info"], found["failures"]) == (0, "OpenAIRefused", 1)
    assert found["accounts"] == 2


def test_a_blocked_target_has_neither_rotations_nor_keys(scene: Scene) -> None:
    """It is not overdue, for nothing is due."""
    scene.merge(GENERATOR, {"spec": {"host": "https://elsewhere.test/v1"}})
    scene.run()
    assert told(scene).keys() == {"ready", "reason_info", "accounts", "failures", "ledger_info"}
    assert told(scene).items() >= {"ready": 0, "reason_info": "HostNotAllowed", "accounts": 0}.items()


def test_a_suspended_target_is_well_and_never_overdue(scene: Scene) -> None:
    """No rotation is due."""
    scene.run()
    scene.merge(EXTERNAL_SECRET, {"metadata": {"annotations": {"openai-key-rotator.io/suspend": "true"}}})
    scene.advance(hours=3)
    scene.run()
    found = told(scene)
    assert (found["ready"], found["reason_info"]) == (1, "Suspended")
    assert "next_rotation_timestamp_seconds" not in found


def test_a_secret_of_another_installation_is_told(scene: Scene) -> None:
    """By the reason that the alert about copies asks for, in an entry of this ledger."""
    scene.run()
    scene.merge(SECRET, {"metadata": {"annotations": {CURRENT: json.dumps(scene.named() | {"ledger": "another"})}}})
    scene.delete(ENTRY)
    scene.run()
    assert told(scene).items() >= {"ready": 0, "reason_info": "ForeignLedger"}.items()


def test_no_two_targets_share_a_series(scene: Scene) -> None:
    """Nor do the same target's entries in two ledgers."""
    scene.run()
    entry = scene.kubernetes.find("keyrotations", LEDGER, entry_name(TARGET))
    assert entry is not None
    elsewhere = {**entry, "metadata": {**entry["metadata"], "namespace": "second-ledger"}}
    found = [
        (name, *sorted(labels.items())) for obj in (entry, elsewhere) for name, labels, _ in series(configured(), obj)
    ]
    assert len(set(found)) == len(found) > 0


# --- the configuration


def test_the_configuration_names_the_ledgers_objects() -> None:
    """Group, version, kind and plural are those of the CRD, and every path is a field of it, to its end."""
    spec, resource = loaded(CRD)["spec"], configured()
    (version,) = spec["versions"]
    named = resource.groupVersionKind
    assert (named.group, named.version, named.kind) == (spec["group"], version["name"], spec["names"]["kind"])
    assert resource.resourcePlural == spec["names"]["plural"]
    for path in paths(resource):
        schema = version["schema"]["openAPIV3Schema"]
        for part in path if path[:1] != ["metadata"] else []:
            if match := re.fullmatch(r"\[(\w+)=\w+\]", part):
                schema = schema["items"]
                assert match[1] in schema["properties"]
            else:
                assert part in schema["properties"], path
                schema = schema["properties"][part]


@pytest.mark.parametrize(
    ("place", "field", "value"),
    [
        ("gauge", "valuefrom", ["status"]),
        ("gauge", "path", "status.accountCount"),
        ("gauge", "nilIsZero", "true"),
        ("gauge", "path", [0]),
        ("each", "type", "Counter"),
        ("each", "type", "Info"),
    ],
)
def test_what_the_documentation_does_not_have_is_refused(place: str, field: str, value: object) -> None:
    """Unknown fields, other types, a kind of metric that is not the one described."""
    config = loaded(COMPONENT / "config.yaml")
    each = config["spec"]["resources"][0]["metrics"][0]["each"]
    (each if place == "each" else each[place])[field] = value
    with pytest.raises(ValidationError):
        Config.model_validate(config)


def test_names_of_metrics_say_what_they_are() -> None:
    """An info ends in `_info`, and nothing else does; each name is there once."""
    metrics = configured().metrics
    assert len({metric.name for metric in metrics}) == len(metrics)
    for metric in metrics:
        assert metric.name.endswith("_info") == (metric.each.type == "Info")
        path = metric.each.gauge.path if metric.each.gauge else []
        assert metric.name.endswith("_timestamp_seconds") == (path[-1:] != [] and path[-1].endswith(("At", "Since")))


# --- alerts and dashboard


def names_in(text: str) -> set[str]:
    return set(re.findall(rf"\b(?:{PREFIX}|kube_)\w+", text))


def labels_in(query: str) -> set[str]:
    """Labels that a query selects, groups or joins by."""
    lists = [*re.findall(r"\b(?:by|on) \(([^)]*)\)", query)]
    return {name.strip() for each in lists for name in each.split(",")} | set(re.findall(r"(\w+)=", query))


def queries_of_alerts() -> list[str]:
    return [rule["expr"] + rule["annotations"]["summary"] for rule in rules()]


@pytest.mark.parametrize("ask", [queries, queries_of_alerts])
def test_only_metrics_that_exist_are_asked_for(ask: Callable[[], list[str]]) -> None:
    """By labels that they have."""
    resource = configured()
    ours = {resource.full_name(metric) for metric in resource.metrics}
    own = {label for metric in resource.metrics if metric.each.info for label in metric.each.info.labelsFromPath}
    for query in ask():
        assert names_in(query)
        assert names_in(query) <= ours | CRON_JOB
        assert labels_in(query) <= {*resource.labelsFromPath, *own, "namespace", "cronjob"}


def test_every_metric_is_used() -> None:
    """By an alert or the dashboard."""
    used = set().union(*(names_in(query) for query in queries() + queries_of_alerts()))
    assert {configured().full_name(metric) for metric in configured().metrics} <= used


def test_every_alert_is_explained_and_tested() -> None:
    """Severity, summary, description; a heading that its runbook leads to; a case in which it fires, and one not."""
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", ALERTS.read_text(), re.MULTILINE)}
    tested = defaultdict(set)
    for case in loaded(RULE_TESTS)["tests"]:
        for expected in case.get("alert_rule_test", ()):
            tested[expected["alertname"]].add(bool(expected["exp_alerts"]))
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["for"]
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"{PLACEHOLDER}/{ALERTS.name}#{rule['alert'].lower()}"
    assert headings == {rule["alert"].lower() for rule in rules()}
    assert tested == {rule["alert"]: {True, False} for rule in rules()}


@pytest.mark.promtool
def test_promtool_finds_the_alerts_right(tmp_path: Path) -> None:
    """Syntax, the dashboard's too; and each fires when it should, and says what it should."""
    promtool = find_promtool()
    if promtool is None:
        pytest.skip("no promtool: `make control-plane` builds it")
    spec = loaded(COMPONENT / "prometheusrule.yaml")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    recorded = [{"record": f"panel_{number}", "expr": query} for number, query in enumerate(queries())]
    (tmp_path / "dashboard.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    shutil.copy(RULE_TESTS, tmp_path)
    check = ["check", "rules", "--lint=all", "--lint-fatal"]
    for command in ([*check, "rules.yaml"], [*check, "dashboard.yaml"], ["test", "rules", RULE_TESTS.name]):
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "SUCCESS" in done.stdout


KUBE_JOB_FAILED = {"alert": "KubeJobFailed", "expr": 'kube_job_failed{job="kube-state-metrics"} > 0', "for": "15m"}
"""The stock rule of kube-prometheus (kubernetes-mixin)."""


@pytest.mark.promtool
@pytest.mark.parametrize(("seconds", "fires"), [(None, False), (3600, True)])
def test_a_failed_run_does_not_fire_the_stock_alert(tmp_path: Path, seconds: int | None, fires: bool) -> None:
    """For its Job goes before; one that is kept for an hour, as an example, does."""
    promtool = find_promtool()
    if promtool is None:
        pytest.skip("no promtool: `make control-plane` builds it")
    job = loaded(ROOT / "manifests" / "base" / "cronjob.yaml")["spec"]["jobTemplate"]["spec"]
    minutes = (seconds or job["ttlSecondsAfterFinished"]) // 60
    labels = '{job="kube-state-metrics",namespace="openai-key-rotator",job_name="openai-key-rotator-29400010"}'
    ever = {
        "expr": 'max(count_over_time(ALERTS{alertstate="firing"}[60m]) > bool 0)',
        "eval_time": "60m",
        "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
    }
    case = {
        "interval": "1m",
        "input_series": [{"series": f"kube_job_failed{labels}", "values": f"1x{minutes} stale"}],
        "promql_expr_test": [ever],
    }
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "stock", "rules": [KUBE_JOB_FAILED]}]}))
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        [promtool, "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_can_be_loaded() -> None:
    """Every panel has a title, a place of its own, and the data source that is chosen at its top."""
    dashboard = json.loads((COMPONENT / "dashboard.json").read_text())
    (variable,) = dashboard["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        for source in (panel, *panel["targets"]):
            assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


# --- the component


def kustomized(directory: Path, kustomization: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    command = [required_program("kubectl"), "kustomize", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_the_address_of_the_docs_nothing_is_built(tmp_path: Path) -> None:
    """An alert's link to nowhere would be found out at night."""
    component = os.path.relpath(COMPONENT, tmp_path.resolve())
    built = kustomized(tmp_path, {"namespace": "monitoring", "components": [component]})
    assert built.returncode != 0
    assert "openai-key-rotator-docs" in built.stderr


def test_the_component_is_complete_by_itself(tmp_path: Path) -> None:
    """In a namespace of the user's: both ConfigMaps with the files as they are, the alerts, and the right to read."""
    component = os.path.relpath(COMPONENT, tmp_path.resolve())
    docs = "https://git.acme.example/keys/docs"
    address = {"name": "openai-key-rotator-docs", "literals": [f"url={docs}"]}
    mine = {"namespace": "monitoring", "components": [component], "configMapGenerator": [address]}
    built = kustomized(tmp_path, mine)
    assert built.returncode == 0, built.stderr
    objects = {(obj["kind"], obj["metadata"]["name"]): obj for obj in yaml.safe_load_all(built.stdout)}
    objects = {key: obj for key, obj in objects.items() if not key[1].startswith(address["name"])}
    settings = objects.pop(("ConfigMap", "openai-key-rotator-kube-state-metrics"))
    dashboard = objects.pop(("ConfigMap", "openai-key-rotator-dashboard"))
    assert settings["data"] == {"config.yaml": (COMPONENT / "config.yaml").read_text()}
    assert dashboard["data"] == {"openai-key-rotator.json": (COMPONENT / "dashboard.json").read_text()}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    alerts = objects.pop(("PrometheusRule", "openai-key-rotator"))
    links = [rule["annotations"]["runbook_url"] for group in alerts["spec"]["groups"] for rule in group["rules"]]
    assert links == [f"{docs}/alerts.md#{rule['alert'].lower()}" for rule in rules()]
    assert {obj["metadata"]["namespace"] for obj in (settings, dashboard, alerts)} == {"monitoring"}
    role = objects.pop(("ClusterRole", "openai-key-rotator-metrics"))
    assert [(rule["resources"], rule["verbs"]) for rule in role["rules"]] == [
        (["keyrotations"], ["list", "watch"]),
        (["customresourcedefinitions"], ["list", "watch"]),
    ]
    assert not objects
