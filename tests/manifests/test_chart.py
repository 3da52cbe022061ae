"""The chart: what Helm renders is what kustomize makes of the overlays and components, object by object, under every
name; what it has of manifests/ is the same; and a value that it does not know is refused.

Helm is one of the programs of `make control-plane`; what needs none is tested without it.
"""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.authority import bare_authority
from tests.support.chart import CHART, CLUSTERS, MANIFESTS, NAME, Object, by_name, helm, run_helm, templated
from tests.support.releases import (
    ALL,
    CASES,
    DIGEST,
    DOCS,
    FOR_APPLICATIONS,
    NO_COMPONENTS,
    OVERLAYS,
    Case,
    built,
    released,
)
from tests.support.scene import ROOT
from worker.settings.arguments import parse

OURS = ("app.kubernetes.io/", "helm.sh/")
"""Labels and annotations that say whose an object is. Helm's and kustomize's differ by right."""
TOLD_OF_A_TOOL = {f"app.kubernetes.io/{name}" for name in ("instance", "managed-by", "version")}
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def normal(part: Any) -> Any:
    """Without what says whose an object is, and without an order where Kubernetes heeds none."""
    if isinstance(part, list):
        return [normal(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {}
    for name, value in part.items():
        if name in ("labels", "annotations") and isinstance(value, dict):
            value = {key: text for key, text in value.items() if not key.startswith(OURS)}
            if not value:
                continue
        if name in ("env", "volumes", "volumeMounts"):
            value = {item.get("mountPath", item["name"]): item for item in value}
        value = normal(value)
        if name == "metadata" and not value:
            continue
        found[name] = value
    if found.get("kind") in CLUSTERS and "metadata" in found:
        found["metadata"].pop("namespace", None)
    return found


def labels_of(obj: Object) -> list[dict[str, str]]:
    """Of the object, of its Jobs and of their pods."""
    job = obj.get("spec", {}).get("jobTemplate", {})
    pod = job.get("spec", {}).get("template", {})
    return [part.get("metadata", {}).get("labels", {}) for part in (obj, job, pod)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_release_is_what_kustomize_makes(case: Case, tmp_path: Path) -> None:
    expected = by_name(built(case, tmp_path))
    found = by_name(released(case, tmp_path))
    assert found.keys() == expected.keys()
    for key, obj in expected.items():
        assert normal(found[key]) == normal(obj), key
        for ours, theirs in zip(labels_of(found[key]), labels_of(obj), strict=True):
            told = {label: text for label, text in theirs.items() if label not in TOLD_OF_A_TOOL}
            assert told.items() <= ours.items(), key


def test_every_overlay_and_component_has_its_case() -> None:
    components = {path.name for path in (MANIFESTS / "components").iterdir()}
    assert components - FOR_APPLICATIONS <= {name for case in CASES for name in case.name.split("+")}
    assert {f"{name}-values.yaml" for name in [*OVERLAYS, "base"]} <= {case.file for case in CASES}
    assert {path.name for path in (CHART / "ci").iterdir()} == {case.file for case in CASES} - {""}


def test_what_the_chart_has_of_manifests_is_the_same() -> None:
    """`make chart` copies it. No symlinks: Flux leaves them out of what it fetches from git."""
    copies = [path for path in (CHART / "files").rglob("*") if not path.is_dir()]
    assert len(copies) >= 8
    for path in copies:
        assert not path.is_symlink()
        assert path.read_bytes() == (MANIFESTS / path.relative_to(CHART / "files")).read_bytes(), path


def test_it_has_the_version_of_the_worker() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == setup["metadata"]["version"]


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    def keys(values: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
        for name, value in values.items():
            yield f"{path}{name}"
            inner = schema["properties"][name]
            if isinstance(value, dict) and "properties" in inner and value:
                yield from keys(value, inner, f"{path}{name}.")

    def allowed(schema: dict[str, Any], values: Any, path: str = "") -> Iterator[str]:
        for name, inner in schema["properties"].items():
            if not path and name == "global":
                continue
            yield f"{path}{name}"
            if "properties" in inner and values[name]:
                yield from allowed(inner, values[name], f"{path}{name}.")

    assert sorted(keys(VALUES, SCHEMA)) == sorted(allowed(SCHEMA, VALUES))


def test_every_option_of_a_run_is_a_value() -> None:
    """But for those that other values set, and those of a laptop."""
    command = [sys.executable, str(ROOT / "run.py"), "run", "--help"]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"--([a-z-]+)", usage)) - {"help"}
    by_values = {"namespace", "dry-run", "shards", "fallback-admin-key", "central-admin-keys", "job", "summary-file"}
    of_a_laptop = {"kubeconfig", "context", "ledger-namespace"}
    assert set(SCHEMA["properties"]["options"]["properties"]) == options - by_values - of_a_laptop


@pytest.mark.parametrize("name", [NAME, f"{NAME}-audit"])
def test_a_pod_has_what_the_values_say(name: str, tmp_path: Path) -> None:
    """The audit's as well."""
    objects = by_name(templated(tmp_path, values=ALL))
    cronjob = objects["CronJob", NAME, name]
    pod = cronjob["spec"]["jobTemplate"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert cronjob["spec"]["suspend"] is True
    assert container["image"] == f"registry.acme.example/rotator:7@{DIGEST}"
    assert container["resources"] == ALL["resources"]
    for field_ in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "topologySpreadConstraints"):
        assert pod["spec"][field_] == ALL[field_]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["metadata"]["labels"] == {
        "app.kubernetes.io/name": "keys",
        "app.kubernetes.io/instance": NAME,
        "app.kubernetes.io/version": VERSION,
        "app.kubernetes.io/component": "worker" if name == NAME else "audit",
        "app.kubernetes.io/part-of": NAME,
        "app.kubernetes.io/managed-by": "Helm",
        "helm.sh/chart": f"{NAME}-{VERSION}",
        "openai-key-rotator.io/worker": "true",
        "owner": "platform",
        "sidecar.istio.io/inject": "true",
        "team": "acme",
    }
    assert pod["metadata"]["annotations"] == {
        "acme.example/owner": "platform",
        "acme.example/why": "keys",
        "linkerd.io/inject": "disabled",
    }
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["ca"]["configMap"] == {"name": "corporate"}
    assert volumes["admin-keys"]["configMap"] == {"name": f"{NAME}-admin-keys"}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys() == {"ca", "admin-keys", "more"}
    assert not duplicates(container["env"])


def test_a_long_time_is_a_number_of_seconds(tmp_path: Path) -> None:
    """Helm reads a number as a float, and writes a million of them as 1e+06: no integer for a strict reader."""
    objects = by_name(templated(tmp_path, values={"ttlSecondsAfterFinished": 1209600}))
    found = objects["CronJob", NAME, NAME]["spec"]["jobTemplate"]["spec"]["ttlSecondsAfterFinished"]
    assert (type(found), found) == (int, 1209600)


def test_a_registry_may_have_a_port(tmp_path: Path) -> None:
    values = {"image": {"repository": "registry.example.com:5000/keys/rotator", "tag": "7"}}
    cronjob = by_name(templated(tmp_path, values=values))["CronJob", NAME, NAME]
    (container,) = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example.com:5000/keys/rotator:7"


def duplicates(variables: list[dict[str, Any]]) -> set[str]:
    names = [variable["name"] for variable in variables]
    return {name for name in names if names.count(name) > 1}


@pytest.mark.parametrize("name", [NAME, f"{NAME}-audit"])
def test_a_variable_of_the_users_takes_the_place_of_the_charts(name: str, tmp_path: Path) -> None:
    """As a kustomize patch does. Helm 4 applies on the server's side, where a list has no name twice."""
    given = [
        {"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}},
        {"name": "ROTATOR_FALLBACK_ADMIN_KEY", "value": "mine"},
        {"name": "ROTATOR_STRICT", "value": "false"},
        {"name": "ROTATOR_CONCURRENCY", "value": "3"},
        {"name": "ROTATOR_SUMMARY_FILE", "value": "/mine/summary"},
    ]
    objects = by_name(templated(tmp_path, values={**ALL, "extraEnv": given}))
    (container,) = objects["CronJob", NAME, name]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert not duplicates(container["env"])
    assert [variable for variable in container["env"] if variable in given] == given


@pytest.mark.parametrize("name", [NAME, f"{NAME}-audit"])
def test_the_worker_takes_its_settings(name: str, tmp_path: Path) -> None:
    """All that the chart sets, by the worker's own parser: an unknown variable would be a mistake."""
    objects = by_name(templated(tmp_path, values=ALL))
    (container,) = objects["CronJob", NAME, name]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    environ = {item["name"]: item.get("value", "a-uid") for item in container["env"]}
    keys = tmp_path / "admin-keys.yaml"
    keys.write_text(objects["ConfigMap", NAME, f"{NAME}-admin-keys"]["data"]["admin-keys.yaml"])
    assert environ.pop("ROTATOR_CENTRAL_ADMIN_KEYS") == "/etc/openai-key-rotator/admin-keys.yaml"
    assert environ.pop("SSL_CERT_FILE") == "/etc/openai-key-rotator/ca/ca.crt"
    inside = {
        "ROTATOR_CENTRAL_ADMIN_KEYS": str(keys),
        "SSL_CERT_FILE": str(bare_authority(tmp_path / "tls", "proxy")),
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "JOB_COMPLETION_INDEX": "1",
    }
    settings = parse(container["args"], environ | inside, NAME)
    assert settings.options.namespaces == ("team-a", "team-b")
    assert len(settings.options.allowed_hosts) == 2
    assert settings.strict is (name != NAME)
    if name == NAME:
        assert settings.options.fallback_admin_key is not None
        assert settings.options.concurrency == 7
        assert settings.options.shard.count == 3
        assert settings.tenant_failures == "report"


def test_an_audit_need_not_fail_for_its_findings(tmp_path: Path) -> None:
    """A run's own `strict` says nothing about it."""
    values = {"audit": {"enabled": True, "strict": False}, "options": {"strict": True}}
    objects = by_name(templated(tmp_path, values=values))
    strict = {}
    for name in (NAME, f"{NAME}-audit"):
        (container,) = objects["CronJob", NAME, name]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        strict[name] = [item["value"] for item in container["env"] if item["name"] == "ROTATOR_STRICT"]
    assert strict == {NAME: ["true"], f"{NAME}-audit": []}


def test_rights_and_ports_follow_the_values(tmp_path: Path) -> None:
    objects = by_name(templated(tmp_path, values=ALL))
    central = objects["Role", NAME, f"{NAME}-central"]["rules"][0]
    assert central["resourceNames"] == ["openai-admin", "openai-eu"]
    bound = {namespace for kind, namespace, name in objects if (kind, name) == ("RoleBinding", NAME)}
    assert bound == {"team-a", "team-b"}
    assert not [key for key in objects if key[0] == "ClusterRoleBinding"]
    assert {3128, 16443, 443} < let_out(objects)


def let_out(objects: dict[tuple[str, str, str], Object]) -> set[int]:
    """The ports of the NetworkPolicy."""
    (egress,) = objects["NetworkPolicy", NAME, NAME]["spec"]["egress"]
    return {port["port"] for port in egress["ports"]}


@pytest.mark.parametrize(
    ("proxy", "port"),
    [
        ("http://proxy.acme.example", 80),
        ("http://proxy.acme.example/", 80),
        ("proxy.acme.example", 80),
        ("proxy.acme.example:3128", 3128),
        ("http://[fd00::1]", 80),
        ("http://[fd00::1]:8080/", 8080),
        ("https://proxy.acme.example:8443", 8443),
        ("https://proxy.acme.example", 443),
    ],
)
def test_the_port_of_a_proxy_is_let_out(proxy: str, port: int, tmp_path: Path) -> None:
    """Also the one that it has by its scheme; one without a scheme is http's."""
    always = let_out(by_name(templated(tmp_path)))
    assert let_out(by_name(templated(tmp_path, values={"proxy": {"https": proxy}}))) == always | {port}


def test_no_name_of_a_secret_is_no_right_to_all(tmp_path: Path) -> None:
    """A Role without resourceNames would be about every Secret of the namespace."""
    mine = {"enabled": True, "configMap": "mine"}
    objects = by_name(templated(tmp_path, values={"centralAdminKeys": mine}))
    rules = objects["Role", NAME, f"{NAME}-central"]["rules"]
    assert [rule["resources"] for rule in rules] == [["events"]]


def test_labels_reach_every_object(tmp_path: Path) -> None:
    values = {**ALL, "namespace": {"create": True}, "crds": {"externalSecret": True}}
    for obj in templated(tmp_path, values=values):
        assert obj["metadata"]["labels"]["owner"] == "platform", obj["metadata"]["name"]
        assert obj["metadata"]["annotations"]["acme.example/owner"] == "platform", obj["metadata"]["name"]


def test_what_holds_the_ledger_stays_when_the_release_goes(tmp_path: Path) -> None:
    values = {"namespace": {"create": True}, "crds": {"externalSecret": True}}
    kept = {
        obj["metadata"]["name"]
        for obj in templated(tmp_path, values=values)
        if obj["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
    }
    assert kept == {
        NAME,
        "adminkeyrotations.openai-key-rotator.io",
        "keyrotations.openai-key-rotator.io",
        "openais.generators.external-secrets.io",
        "externalsecrets.external-secrets.io",
    }


def test_crds_can_be_left_to_others(tmp_path: Path) -> None:
    objects = templated(tmp_path, values={"crds": {"install": False}})
    assert not [obj for obj in objects if obj["kind"] == "CustomResourceDefinition"]


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("2026", {"fullnameOverride": "2026"}, "2026"),
        ("keys", {}, f"keys-{NAME}"),
        ("keys", {"nameOverride": "rotator"}, "keys-rotator"),
        ("keys", {"fullnameOverride": "keys"}, "keys"),
        ("a" * 53, {}, "a" * 46),
    ],
)
def test_everything_follows_the_releases_name(release: str, values: dict[str, Any], name: str, tmp_path: Path) -> None:
    """Bindings, policies, alerts; and a CronJob's name has 52 letters at most."""
    parts = {part: {"enabled": True} for part in ("admissionPolicy", "restartWorkloads", "audit")}
    monitoring = {"enabled": True, "docsUrl": DOCS}
    values = {**values, **parts, "monitoring": monitoring}
    objects = by_name(templated(tmp_path, values=values, release=release, namespace="acme"))
    account = {"kind": "ServiceAccount", "name": name, "namespace": "acme"}
    assert ("ServiceAccount", "acme", name) in objects
    bindings = [obj for obj in objects.values() if obj["kind"] in ("ClusterRoleBinding", "RoleBinding")]
    assert len(bindings) >= 4
    roles = {(kind, part) for kind, _, part in objects}
    for binding in bindings:
        assert binding["subjects"] == [account]
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in roles
    bound = objects["ValidatingAdmissionPolicyBinding", "", name]["spec"]
    assert bound["policyName"] == name
    assert bound["paramRef"] == {"name": name, "namespace": "acme", "parameterNotFoundAction": "Allow"}
    restart = objects["ValidatingAdmissionPolicyBinding", "", f"{name}-restart"]["spec"]
    assert restart["policyName"] == f"{name}-restart"
    assert restart["paramRef"] == bound["paramRef"]
    assert len(max((part for kind, _, part in objects if kind == "CronJob"), key=len)) <= 52
    rules = json.dumps(objects["PrometheusRule", "acme", name]).replace("\\", "")
    selected = set(re.findall(r'cronjob=~"([^"]+)"', rules))
    assert len(selected) >= 2
    for pattern in selected:
        assert any(re.fullmatch(pattern, cronjob) for cronjob in (name, f"{name}-audit")), pattern
        assert NAME in name or not re.fullmatch(pattern, f"other-{name}-of-theirs"), pattern


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"schedul": "* * * * *"}, "schedul"),
        ({"options": {"max-weight": "10m"}}, "max-weight"),
        ({"options": {"max-wait": "10 minutes"}}, "max-wait"),
        ({"schedule": "10m"}, "schedule"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"image": {"repository": ""}}, "repository"),
        ({"shards": 0}, "shards"),
        ({"namespaces": ["Team A"]}, "namespaces"),
        ({"proxies": {}}, "proxies"),
        ({"monitoring": {"kubeStateMetrics": {"name": "kube-state-metrics"}}}, "kubeStateMetrics"),
        ({"monitoring": {"enabled": True}}, "monitoring.docsUrl"),
        ({"centralAdminKeys": {"enabled": True}}, "centralAdminKeys.keys"),
        # A Role with an empty list of names would be about every Secret of the namespace.
        ({"fallbackAdminKey": {"secret": ""}}, "/fallbackAdminKey/secret"),
        ({"fallbackAdminKey": {"secret": None}}, "'secret'"),
        ({"rotateAdminKeys": {"enabled": True, "secrets": None}}, "'secrets'"),
        ({"rotateAdminKeys": {"enabled": True, "secrets": []}}, "/rotateAdminKeys/secrets"),
        ({"image": {"repository": None}}, "'repository'"),
        ({"rights": None}, "'rights'"),
        ({"options": {"output": "html"}}, "/options/output"),
        # The API server would refuse these, in words about its own types.
        ({"image": {"repository": "registry.example.com/rotator:7"}}, "/image/repository"),
        ({"extraEnv": [{"name": "MORE", "value": 5}]}, "/extraEnv/0/value"),
        ({"extraEnv": [{"name": "MORE", "value": True}]}, "/extraEnv/0/value"),
        ({"extraVolumes": [{"name": "ca", "emptyDir": {}}]}, "/extraVolumes/0/name"),
        ({"extraVolumes": [{"name": "admin-keys", "emptyDir": {}}]}, "/extraVolumes/0/name"),
        ({"options": {"look-every": "1d"}}, "/options/look-every"),
    ],
    ids=json.dumps,
)
def test_a_value_that_cannot_be_is_refused_by_name(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    done = run_helm(tmp_path, "template", NAME, CHART, "--values", "-", given=yaml.safe_dump(values))
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize("value", ["admissionPolicy", "restartWorkloads"])
def test_a_policy_on_an_old_cluster_is_refused_before_anything_is_installed(value: str, tmp_path: Path) -> None:
    given = yaml.safe_dump(NO_COMPONENTS | {value: {"enabled": True}})
    command = ["template", NAME, str(CHART), "--values", "-", "--kube-version", "1.29.3"]
    done = run_helm(tmp_path, *command, given=given)
    assert done.returncode != 0
    assert f"{value}.enabled needs Kubernetes 1.30" in done.stderr
    assert templated(tmp_path, "--kube-version", "1.29.3", values=NO_COMPONENTS)


def test_shards_on_an_older_cluster_are_refused(tmp_path: Path) -> None:
    """It would drop the field, and repeat a part that failed."""
    given = yaml.safe_dump(NO_COMPONENTS | {"shards": 4})
    done = run_helm(tmp_path, "template", NAME, CHART, "--values", "-", "--kube-version", "1.28.9", given=given)
    assert done.returncode != 0
    assert "shards needs Kubernetes 1.29" in done.stderr
    assert templated(tmp_path, "--kube-version", "1.29.0", values=NO_COMPONENTS | {"shards": 4})
    assert templated(tmp_path, "--kube-version", "1.28.9", values=NO_COMPONENTS)


def notes(directory: Path, values: dict[str, Any]) -> str:
    """What Helm says after an installation."""
    command = ["install", NAME, str(CHART), "--namespace", "keys", "--dry-run=client", "--values", "-"]
    return helm(directory, *command, given=yaml.safe_dump(values)).partition("\nNOTES:\n")[2]


def test_the_notes_name_what_the_pods_cannot_start_without(tmp_path: Path) -> None:
    """A ConfigMap of the user's that is not there keeps a pod from starting, without a word in any log."""
    said = notes(tmp_path, {"caBundle": {"enabled": True}, "centralAdminKeys": ALL["centralAdminKeys"]})
    assert "kubectl create configmap openai-key-rotator-ca -n keys --from-file=ca.crt=FILE" in said
    for secret in ("openai-admin", "openai-eu"):
        assert said.count(f"the Secret {secret}\n") == 1
    mine = {"enabled": True, "configMap": "mine", "secrets": ["theirs"]}
    said = notes(tmp_path, {"centralAdminKeys": mine})
    assert "kubectl create configmap mine -n keys --from-file=admin-keys.yaml=FILE" in said
    assert "the Secret theirs\n" in said
    assert "needs" not in notes(tmp_path, {})


def test_the_notes_of_a_dry_run_show_what_it_said(tmp_path: Path) -> None:
    """It writes no KeyRotation, so a list of them would be empty."""
    said = notes(tmp_path, {"dryRun": True})
    assert "kubectl logs -n keys job/first-1 --follow" in said
    assert "kubectl get keyrotations" not in said
    assert "kubectl get keyrotations -n keys" in notes(tmp_path, {})


@pytest.mark.parametrize("file", sorted((CHART / "ci").iterdir()), ids=lambda path: path.stem)
def test_helm_finds_no_fault_in_it(file: Path, tmp_path: Path) -> None:
    assert "0 chart(s) failed" in helm(tmp_path, "lint", "--strict", CHART, "--values", file)


def test_a_package_has_all_of_it(tmp_path: Path) -> None:
    """As it goes to an OCI registry: it renders as the folder does."""
    helm(tmp_path, "package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob(f"{NAME}-*.tgz")
    assert templated(tmp_path, chart=package) == templated(tmp_path)
    with tarfile.open(package) as archive:
        names = archive.getnames()
    assert f"{NAME}/files/crds/keyrotation.yaml" in names
    assert f"{NAME}/values.schema.json" in names
