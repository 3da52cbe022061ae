"""Generators and ExternalSecrets to targets."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import HOST, external_secret_object, generator_object, minutes, placed
from worker.discover.targets import Discovered, resolve_targets
from worker.kubernetes.external_secret import EXTERNAL_SECRETS, raw_external_secret
from worker.kubernetes.fields import LARGEST_METADATA, LONGEST_TEXT, RawObject
from worker.kubernetes.generator import raw_generator
from worker.model.hosts import Origin
from worker.model.scopes import ScopePolicy
from worker.model.targets import (
    AdminKeyRef,
    CleanupKind,
    CleanupPolicy,
    CreationPolicy,
    Project,
    ProjectAccess,
    RefreshPolicy,
    Rejected,
    Target,
)
from worker.model.values import JSON, PREFIX, Ref
from worker.model.workloads import RestartWish, Workload, WorkloadKind
from worker.settings.central_keys import CentralKeys, central_keys

V1, V1BETA1 = EXTERNAL_SECRETS
STANDALONE = {PREFIX + "secret": "creds"}
APP = Workload(WorkloadKind.DEPLOYMENT, Ref("default", "app"))
DB = Workload(WorkloadKind.STATEFUL_SET, Ref("default", "db"))


def found(
    generators: Sequence[JSON] | None = None, external_secrets: Sequence[JSON] | None = None, **more: Any
) -> Discovered:
    options: dict[str, Any] = {"resource": V1, "allowed_hosts": frozenset(), "central": CentralKeys()}
    given = [generator_object()] if generators is None else generators
    wanted = [external_secret_object()] if external_secrets is None else external_secrets
    return resolve_targets([raw_generator(obj) for obj in given], feeding(wanted), **(options | more))


def feeding(objects: Sequence[JSON]) -> list[RawObject]:
    """What is kept of ExternalSecrets: of those that are our business."""
    return [raw for raw in map(raw_external_secret, objects) if raw is not None]


def only(discovered: Discovered) -> Target:
    """The one target, where nothing was rejected."""
    assert discovered.rejected == ()
    (target,) = discovered.targets
    return target


def refused(discovered: Discovered) -> Rejected:
    """The one source that was rejected, where nothing is served."""
    assert discovered.targets == ()
    (rejected,) = discovered.rejected
    return rejected


def generator_with(**spec: Any) -> Discovered:
    return found([generator_object(**spec)])


def external_secret_with(**spec: Any) -> Discovered:
    return found(None, [external_secret_object(**spec)])


def standalone(annotations: dict[str, str] | None = None, **spec: Any) -> Discovered:
    return found([generator_object(annotations=STANDALONE | (annotations or {}), **spec)], [])


# --- what is documented ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", [V1, V1BETA1])
def test_the_documented_objects_make_a_target(resource: Any) -> None:
    """With every default, in either version of ExternalSecrets."""
    target = only(found(resource=resource))
    assert target.ref == Ref("default", "creds")
    assert (target.data_key, target.interval) == ("api_key", timedelta(hours=1))
    assert (target.refresh, target.creation) == (RefreshPolicy.PERIODIC, CreationPolicy.OWNER)
    assert (target.suspended, target.requests, target.key_lifetime) == (False, {}, None)
    assert target.source.resource == resource
    assert (target.source.kind, target.source.uid, target.source.generation) == ("ExternalSecret", "uid-creds", 5)
    generator = target.generator
    assert generator.access == ProjectAccess(Project(HOST, "proj_1"), AdminKeyRef(Ref("default", "admin"), "api-key"))
    assert (generator.name_prefix, generator.name_size) == ("", 12)
    assert generator.cleanup == CleanupPolicy(CleanupKind.RETAIN_LATEST, minutes(2), timedelta(hours=24))


def test_a_generator_stands_alone_by_its_annotation() -> None:
    """It owns the Secret itself; the key's name and the interval are annotations too."""
    extra = {PREFIX + "secret-key": "OPENAI_API_KEY", PREFIX + "refresh-interval": "30m"}
    target = only(standalone(extra))
    assert (target.ref, target.data_key, target.interval) == (Ref("default", "creds"), "OPENAI_API_KEY", minutes(30))
    assert (target.source.kind, target.source.uid) == ("OpenAI", "uid-gen")
    assert (target.creation, target.refresh) == (CreationPolicy.OWNER, RefreshPolicy.PERIODIC)
    defaults = only(standalone())
    assert (defaults.data_key, defaults.interval) == ("api_key", minutes(60))


def test_a_cluster_without_external_secrets_has_standalone_targets() -> None:
    """No operator is needed."""
    assert only(found([generator_object(annotations=STANDALONE)], [], resource=None)).source.kind == "OpenAI"


# --- generators, field by field ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "attribute", "value"),
    [
        ({"projectId": "a-B_9"}, "access.project.id", "a-B_9"),
        ({"host": "https://api.openai.com/v1/"}, "access.project.host", HOST),
        ({"host": "https://eu.api.openai.com/v1"}, "access.project.host", "https://eu.api.openai.com/v1"),
        ({"serviceAccountNamePrefix": "my-app_1"}, "name_prefix", "my-app_1"),
        ({"serviceAccountNamePrefix": ""}, "name_prefix", ""),
        ({"serviceAccountNamePrefix": None}, "name_prefix", ""),
        ({"serviceAccountNamePrefix": "x" * 51}, "name_prefix", "x" * 51),
        ({"serviceAccountNameSize": 8}, "name_size", 8),
        ({"serviceAccountNameSize": 40}, "name_size", 40),
        ({"openAiAdminKey": {"name": "a.b-c", "key": "._-K"}}, "access.admin_key.key", "._-K"),
        ({"openAiAdminKey": {"name": "a", "key": "k", "namespace": "default"}}, "access.admin_key.key", "k"),
        ({"cleanupPolicy": {"type": "idle"}}, "cleanup.kind", CleanupKind.IDLE),
        ({"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "90s"}}, "cleanup.grace", timedelta(seconds=90)),
        ({"cleanupPolicy": {"type": "idle", "idleTimeout": "1h30m"}}, "cleanup.idle", minutes(90)),
        ({"cleanupPolicy": {}}, "cleanup", CleanupPolicy()),
        ({"cleanupPolicy": None}, "cleanup", CleanupPolicy()),
    ],
)
def test_a_generators_fields_are_honoured(spec: JSON, attribute: str, value: object) -> None:
    """Each one that users know."""
    item: Any = only(generator_with(**spec)).generator
    for part in attribute.split("."):
        item = getattr(item, part)
    assert item == value


def each(field: str, *values: object, **others: object) -> list[Any]:
    """An object for each value of one of its fields."""
    return [others | {field: value} for value in values]


WRONG_TYPES: list[object] = [5, 1.5, True, ["x"], {"x": "y"}]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("projectId", [..., "", "a/b", "..", "x/../../admin_api_keys?", "a b", "a\n", "ä", "x" * 129, *WRONG_TYPES]),
        ("host", ["", "x", "https://api.openai.com@evil.example", "https://api.openai.com/v1?x", *WRONG_TYPES]),
        ("serviceAccountNameSize", [7, 41, 0, -1, 10**30, 12.0, "12", True, None, [], {}]),
        ("serviceAccountNamePrefix", ["a b", "a/b", "ä", "a.b", "x" * 52, "x" * 500, *WRONG_TYPES]),
        ("openAiAdminKey", [..., None, "x", [], 5]),
        ("openAiAdminKey.name", [{"key": "k"}, *each("name", "", "A", "a/b", "..", 5, [], None, key="k")]),
        ("openAiAdminKey.key", [{"name": "a"}, *each("key", "", "a/b", "a b", "ä", 5, [], {}, name="a")]),
        ("openAiAdminKey.namespace", each("namespace", "kube-system", "", 5, [], name="a", key="k")),
        ("cleanupPolicy", ["x", 5, []]),
        ("cleanupPolicy.type", each("type", "never", "", 5, None, [], {})),
        ("cleanupPolicy.gracePeriod", each("gracePeriod", "soon", "0s", "-1m", "", 5, [], "1d")),
        ("cleanupPolicy.idleTimeout", each("idleTimeout", "soon", "0", "-1m", "", 5, {}, True)),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_a_malformed_generator_is_refused_by_the_fields_name(field: str, values: list[object], alone: bool) -> None:
    """Its target is blocked with words about the generator, and nothing else is."""
    name = field.partition(".")[0]
    for value in values:
        spec: JSON = {name: value}
        rejected = refused(standalone(**spec) if alone else generator_with(**spec))
        assert f"spec.{field}" in rejected.message, value
        assert rejected.secret == Ref("default", "creds")
        assert rejected.reason in ("InvalidSpec", "HostNotAllowed")
        assert len(rejected.message) < 400


@pytest.mark.parametrize(
    "host",
    ["http://api.openai.com/v1", "https://evil.example/v1", "https://api.openai.com.evil.example/v1", "https://[::1]/"],
)
def test_a_host_that_the_operator_has_not_named_gets_no_admin_key(host: str) -> None:
    """With the option that would name it."""
    rejected = refused(generator_with(host=host))
    assert rejected.reason == "HostNotAllowed"
    assert "--allow-host" in rejected.message


def test_a_host_that_the_operator_has_named_is_served() -> None:
    """By scheme, name and port."""
    named = frozenset({Origin("http", "localhost", 8080)})
    assert only(found([generator_object(host="http://localhost:8080/v1/")], allowed_hosts=named))


# --- ExternalSecrets, field by field -----------------------------------------------------------------------------

REFERENCE = {"kind": "OpenAI", "name": "gen"}
FROM: JSON = {"sourceRef": {"generatorRef": REFERENCE}}
TRANSFORM = {"transform": {"template": "x"}}
RENAME = {"regexp": {"source": "api_key", "target": "a"}}


def renamed(source: object, target: object) -> list[JSON]:
    return [FROM | {"rewrite": [{"regexp": {"source": source, "target": target}}]}]


@pytest.mark.parametrize(
    ("spec", "attribute", "value"),
    [
        ({"target": {"name": "other"}}, "ref", Ref("default", "other")),
        ({"target": {"name": ""}}, "ref", Ref("default", "creds")),
        ({"target": {}}, "ref", Ref("default", "creds")),
        ({"refreshInterval": "10m"}, "interval", minutes(10)),
        ({"refreshInterval": "1h0m0s"}, "interval", minutes(60)),
        ({"refreshInterval": "0"}, "interval", None),
        ({"refreshInterval": "0s"}, "interval", None),
        ({"refreshPolicy": "Periodic", "refreshInterval": "10m"}, "interval", minutes(10)),
        ({"refreshPolicy": "OnChange", "refreshInterval": "10m"}, "interval", None),
        ({"refreshPolicy": "OnChange"}, "requests", {"generation": "5"}),
        ({"refreshPolicy": "CreatedOnce"}, "interval", None),
        ({"refreshPolicy": "CreatedOnce"}, "refresh", RefreshPolicy.CREATED_ONCE),
        ({"refreshPolicy": "CreatedOnce"}, "requests", {}),
        *(({"target": {"creationPolicy": policy.value}}, "creation", policy) for policy in CreationPolicy),
        *(({"target": {"deletionPolicy": p}}, "creation", CreationPolicy.OWNER) for p in ("Delete", "Merge", "Retain")),
        ({"target": {"immutable": False}}, "creation", CreationPolicy.OWNER),
        ({"target": {"template": {"type": "Opaque", "engineVersion": "v2", "mergePolicy": "Replace"}}}, "labels", {}),
        ({"target": {"template": {"metadata": {"labels": {"a": "b"}}}}}, "labels", {"a": "b"}),
        ({"target": {"template": {"metadata": {"annotations": {"a.b/c": "{ }"}}}}}, "annotations", {"a.b/c": "{ }"}),
        ({"target": {"template": {"data": {}}}}, "labels", {}),
        ({"data": []}, "data_key", "api_key"),
        ({"secretStoreRef": {"name": "any"}}, "data_key", "api_key"),
        ({"dataFrom": [FROM | {"rewrite": []}]}, "data_key", "api_key"),
        ({"dataFrom": renamed("api_key", "OPENAI_API_KEY")}, "data_key", "OPENAI_API_KEY"),
        ({"dataFrom": renamed("^api_key$", "k.e-y_")}, "data_key", "k.e-y_"),
        ({"dataFrom": [{"sourceRef": {"generatorRef": REFERENCE | {
            "apiVersion": "generators.external-secrets.io/v1alpha1"}}}]}, "data_key", "api_key"),
    ],
)  # fmt: skip
def test_an_external_secrets_fields_are_honoured(spec: JSON, attribute: str, value: object) -> None:
    """Each one on the list."""
    assert getattr(only(external_secret_with(**spec)), attribute) == value


NOT_KEYS: list[object] = ["", "a/b", "$1", "a b", "ä", "x" * 254, None, 5, []]


def in_target(field: str, *values: object) -> list[JSON]:
    return [{"target": {field: value}} for value in values]


def in_template(field: str, *values: object) -> list[JSON]:
    return [{"target": {"template": {field: value}}} for value in values]


def in_metadata(field: str, *values: object) -> list[JSON]:
    return [{"target": {"template": {"metadata": {field: value}}}} for value in values]


@pytest.mark.parametrize(
    ("named", "specs"),
    [
        ("spec.target.name", in_target("name", "A", "a/b", "../x", "x" * 254, "a..b", "a\n", *WRONG_TYPES)),
        ("spec.target.creationPolicy", in_target("creationPolicy", "None", "owner", "", *WRONG_TYPES)),
        ("spec.target.deletionPolicy", in_target("deletionPolicy", "Never", "", *WRONG_TYPES)),
        ("spec.target.immutable", in_target("immutable", True, "true")),
        ("spec.target.manifest", in_target("manifest", {"kind": "ConfigMap"})),
        ("spec.target.template.type", in_template("type", "kubernetes.io/tls", "kubernetes.io/dockerconfigjson", 5)),
        ("spec.target.template.type", in_template("type", "kubernetes.io/service-account-token")),
        ("spec.target.template.data", in_template("data", {"a": "b"}, {"a": 5}, {"a/b": "x"}, *WRONG_TYPES)),
        ("spec.target.template.data", in_template("data", {"a": "x" * 65_536}, {"x" * 65_536: "{{ .api_key }}"})),
        ("spec.target.template.data['url']", in_template("data", {"url": "{{ .api_key | quote }}"}, {"url": "{{"})),
        ("spec.target.template.templateFrom", in_template("templateFrom", [{"literal": "x"}])),
        ("spec.target.template.metadata.finalizers", in_metadata("finalizers", ["x"])),
        ("spec.target.template.metadata.labels", in_metadata("labels", {"a": "{{ .x }}"}, {"a": 5}, {"a": None})),
        ("spec.target.template.metadata.annotations", in_metadata("annotations", {"a": "x{{"}, {"a": ["b"]})),
        ("spec.target.template.metadata.labels", in_metadata("labels", {PREFIX + "managed": "false"})),
        ("spec.target.template.metadata.annotations", in_metadata("annotations", {PREFIX + "service-account": "{}"})),
        (
            "spec.target.template.metadata.labels",
            in_metadata("labels", {"reconcile.external-secrets.io/created-by": "x"}, {"external-secrets.io/x": "y"}),
        ),
        ("spec.refreshInterval", each("refreshInterval", "soon", "-1h", "", "1d", "99999999h", *WRONG_TYPES)),
        ("spec.refreshPolicy", each("refreshPolicy", "periodic", "", "Always", *WRONG_TYPES)),
        ("spec.syncWindows", [{"syncWindows": [{"kind": "deny"}]}]),
        ("spec.data", [{"data": [{"secretKey": "x", "remoteRef": {"key": "y"}}]}, {"data": "x"}]),
        ("spec.dataFrom", [{"dataFrom": [FROM, FROM]}, {"dataFrom": [FROM, {"extract": {"key": "x"}}]}]),
        ("spec.dataFrom[0].extract", [{"dataFrom": [FROM | {"extract": {"key": "x"}}]}]),
        ("spec.dataFrom[0].find", [{"dataFrom": [FROM | {"find": {"name": {"regexp": ".*"}}}]}]),
        (
            "spec.dataFrom[0].rewrite",
            [{"dataFrom": [rewrite]} for rewrite in each("rewrite", "x", 5, {"a": 1}, ["x"], [TRANSFORM], **FROM)]
            + [{"dataFrom": renamed(s, "b")} for s in ("api_(.*)", ".*", "other", "", 5, None, ["api_key"])]
            + [{"dataFrom": [FROM | {"rewrite": [RENAME, RENAME]}]}],
        ),
        (
            "spec.dataFrom[0].rewrite[0].regexp.target",
            each("dataFrom", *(renamed("api_key", t) for t in NOT_KEYS)),
        ),
        (
            "spec.dataFrom[0].sourceRef.generatorRef.apiVersion",
            [{"dataFrom": [{"sourceRef": {"generatorRef": REFERENCE | {
                "apiVersion": "generators.external-secrets.io/v2"}}}]}],
        ),
    ],
)  # fmt: skip
def test_what_is_not_honoured_blocks_the_target_by_the_fields_name(named: str, specs: list[JSON]) -> None:
    """Nothing that would change the result is quietly ignored."""
    for spec in specs:
        rejected = refused(external_secret_with(**spec))
        assert named in rejected.message, spec
        assert rejected.source.kind == "ExternalSecret"
        assert len(rejected.message) < 400


@pytest.mark.parametrize("name", ["missing", "", "x" * 100_000, 5, ["gen"], {}])
def test_a_generator_that_does_not_exist_is_named_briefly(name: object) -> None:
    """The words go into conditions, Events and the ledger."""
    rejected = refused(found(None, [external_secret_object(generator=name)]))
    assert rejected.reason == "NoGenerator"
    assert "generatorRef" in rejected.message
    assert len(rejected.message) < 400


def test_a_generator_of_another_namespace_is_not_used() -> None:
    """A tenant's ExternalSecret reaches only its own namespace."""
    other = placed(external_secret_object(), namespace="other")
    assert refused(found(None, [other])).reason == "NoGenerator"


@pytest.mark.parametrize(
    "spec",
    [
        {"dataFrom": ...},
        {"dataFrom": []},
        {"dataFrom": "x"},
        {"dataFrom": [None, 5, "x", []]},
        {"dataFrom": [{"extract": {"key": "x"}}]},
        {"dataFrom": [{"sourceRef": {"storeRef": {"name": "x"}}}]},
        {"dataFrom": [{"sourceRef": "x"}]},
        {"dataFrom": [{"sourceRef": {"generatorRef": "x"}}]},
        {"dataFrom": [{"sourceRef": {"generatorRef": {"kind": "Password", "name": "gen"}}}]},
        {"dataFrom": [{"sourceRef": {"generatorRef": {"kind": "ClusterGenerator", "name": "gen"}}}]},
        {"dataFrom": [{"sourceRef": {"generatorRef": REFERENCE | {"apiVersion": "example.org/v1"}}}]},
        {"dataFrom": [{"sourceRef": {"generatorRef": {"name": "gen"}}}]},
    ],
)
def test_external_secrets_of_other_kinds_are_not_our_business(spec: JSON) -> None:
    """They are neither served nor rejected, and the generator feeds nothing."""
    discovered = external_secret_with(**spec)
    assert (discovered.targets, discovered.rejected, discovered.unused) == ((), (), (Ref("default", "gen"),))


def test_a_generator_named_in_data_is_refused_rather_than_ignored() -> None:
    """`spec.data` cannot take from a generator."""
    reference = {"sourceRef": {"generatorRef": REFERENCE}, "secretKey": "x"}
    rejected = refused(external_secret_with(dataFrom=..., data=[reference]))
    assert "spec.data" in rejected.message


# --- annotations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["external secret", "generator", "standalone"])
@pytest.mark.parametrize(
    ("annotation", "attribute", "value"),
    [
        ("suspend=true", "suspended", True),
        ("suspend=false", "suspended", False),
        ("key-lifetime=24h", "key_lifetime", timedelta(hours=24)),
        ("key-lifetime=8760h", "key_lifetime", timedelta(days=365)),
        ("key-lifetime=1h", "key_lifetime", timedelta(hours=1)),
        ("key-scopes=model.request", "key_scopes", ("model.request",)),
        ("key-scopes= model.request ,api.x.read", "key_scopes", ("api.x.read", "model.request")),
        ("restart=auto", "restart", RestartWish(auto=True)),
        ("restart=deployment/app", "restart", RestartWish((APP,))),
        ("restart= statefulset/db ,auto,deployment/app,deployment/app", "restart", RestartWish((APP, DB), auto=True)),
    ],
)
def test_annotations_count_on_either_object(where: str, annotation: str, attribute: str, value: object) -> None:
    """On the ExternalSecret and on its generator."""
    name, _, text = annotation.partition("=")
    assert getattr(only(_annotated(where, {PREFIX + name: text})), attribute) == value


@pytest.mark.parametrize("where", ["external secret", "generator", "standalone"])
@pytest.mark.parametrize("value", ["", "app", "job/app", "deployment/a/b", "deployment/..", "auto/", "deployment/app;"])
def test_a_malformed_restart_is_part_of_the_wish_and_blocks_nothing(where: str, value: str) -> None:
    """The key is rotated all the same."""
    wish = only(_annotated(where, {PREFIX + "restart": value})).restart
    assert wish is not None
    assert (wish.workloads, wish.auto) == ((), False)
    assert wish.mistake.startswith(f"annotation {PREFIX}restart must be a list of deployment/NAME, ")


def test_a_restart_that_is_too_long_is_not_valid_for_being_cut() -> None:
    for value in (
        "auto," * 999 + "auto",
        "deployment/" + "a" * LONGEST_TEXT,
        ",".join(f"daemonset/{i}" for i in range(21)),
    ):
        wish = only(standalone({PREFIX + "restart": value})).restart
        assert wish is not None
        assert wish.mistake
        assert len(wish.mistake) < 300


@pytest.mark.parametrize("where", ["external secret", "generator", "standalone"])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("suspend", ["", "True", "yes", "1"]),
        ("key-lifetime", ["", "0", "1ms", "59m", "8761h", "soon", "-1h", "1d"]),
        ("key-scopes", ["", " ", ",", "a,", "a b", "A", "*", "sk-x", "a, " * 200 + "a"]),
    ],
)
def test_a_malformed_annotation_blocks_by_its_name(where: str, name: str, values: list[str]) -> None:
    """It is not quietly taken for absent."""
    for value in values:
        assert PREFIX + name in refused(_annotated(where, {PREFIX + name: value})).message


@pytest.mark.parametrize(
    ("annotation", "values"),
    [("secret", ["", "A", "a/b", "../x"]), ("secret-key", ["", "a/b", "a b"]), ("refresh-interval", ["", "x", "-1h"])],
)
def test_a_malformed_standalone_annotation_blocks_by_its_name(annotation: str, values: list[str]) -> None:
    """As a field would."""
    for value in values:
        assert f"annotation {PREFIX}{annotation}" in refused(standalone({PREFIX + annotation: value})).message


def _annotated(where: str, annotations: dict[str, str], **more: Any) -> Discovered:
    if where == "standalone":
        return found([generator_object(annotations=STANDALONE | annotations)], [], **more)
    if where == "generator":
        return found([generator_object(annotations=annotations)], **more)
    return found(None, [external_secret_object(annotations=annotations)], **more)


def test_the_scopes_of_the_external_secret_win() -> None:
    generator, own = {PREFIX + "key-scopes": "a.read"}, {PREFIX + "key-scopes": "b.read"}
    wanted = found([generator_object(annotations=generator)], [external_secret_object(annotations=own)])
    assert only(wanted).key_scopes == ("b.read",)


@pytest.mark.parametrize("where", ["external secret", "generator", "standalone"])
@pytest.mark.parametrize(
    ("policy", "annotation", "expected"),
    [
        (ScopePolicy(("x",)), None, ("x",)),
        (ScopePolicy(("x",)), "a", ("a",)),
        (ScopePolicy(("x",), required=True), None, ("x",)),
        (ScopePolicy((), required=True), "a", ("a",)),
        (ScopePolicy((), required=True), None, "KeyScopesRequired"),
        (ScopePolicy(("x",), required=True), "", "InvalidSpec"),
    ],
)
def test_an_operator_has_a_word_on_scopes(
    where: str, policy: ScopePolicy, annotation: str | None, expected: object
) -> None:
    annotations = {PREFIX + "key-scopes": annotation} if annotation is not None else {}
    discovered = _annotated(where, annotations, scopes=policy)
    if isinstance(expected, str):
        assert refused(discovered).reason == expected
        assert PREFIX + "key-scopes" in refused(discovered).message
    else:
        assert only(discovered).key_scopes == expected


@pytest.mark.parametrize(
    ("where", "annotations", "requests"),
    [
        ("external secret", {PREFIX + "rotate": "1"}, {"rotate": "1"}),
        ("external secret", {"force-sync": "1700000000"}, {"forceSync": "1700000000"}),
        ("generator", {PREFIX + "rotate": "1"}, {"generatorRotate": "1"}),
        ("generator", {"force-sync": "1"}, {}),
        ("standalone", {PREFIX + "rotate": "1"}, {"rotate": "1"}),
        ("standalone", {"force-sync": "1"}, {"forceSync": "1"}),
        ("external secret", {"rotate": "1", "other.io/rotate": "1"}, {}),
    ],
)
def test_requests_are_kept_by_what_carries_them(where: str, annotations: JSON, requests: JSON) -> None:
    """So that each new value forces one rotation."""
    assert only(_annotated(where, annotations)).requests == requests


def test_a_long_request_is_kept_as_its_hash() -> None:
    """It goes into the ledger."""
    one, other = (only(_annotated("standalone", {PREFIX + "rotate": "x" * n})).requests for n in (1000, 1001))
    assert len(one["rotate"]) < 80
    assert one != other


def test_zero_stands_for_once_only() -> None:
    """For a standalone target too."""
    assert only(standalone({PREFIX + "refresh-interval": "0"})).interval is None


def test_suspension_by_either_object_counts() -> None:
    """A `false` on one does not undo a `true` on the other."""
    one, other = {PREFIX + "suspend": "true"}, {PREFIX + "suspend": "false"}
    for mine, its in ((one, other), (other, one)):
        assert only(
            found([generator_object(annotations=its)], [external_secret_object(annotations=mine)])
        ).suspended  # fmt: skip


# --- several objects ---------------------------------------------------------------------------------------------


def test_two_sources_of_one_secret_block_each_other() -> None:
    """Each is told of the other; a third target is served."""
    target = {"target": {"name": "shared"}}
    discovered = found(
        None,
        [external_secret_object("a", **target), external_secret_object("b", **target), external_secret_object("c")],
    )
    assert [t.ref.name for t in discovered.targets] == ["c"]
    assert [r.reason for r in discovered.rejected] == ["SharedTarget"] * 2
    assert "ExternalSecret default/b" in discovered.rejected[0].message
    assert "ExternalSecret default/a" in discovered.rejected[1].message


def test_a_standalone_generator_and_an_external_secret_block_each_other() -> None:
    """Whichever came first."""
    discovered = found([generator_object(annotations=STANDALONE)])
    assert discovered.targets == ()
    assert {r.source.kind for r in discovered.rejected} == {"OpenAI", "ExternalSecret"}


def test_one_generator_may_feed_many_secrets() -> None:
    """Its own and any number of ExternalSecrets'."""
    many = [external_secret_object(f"es-{n}") for n in range(5)]
    discovered = found([generator_object(annotations=STANDALONE)], [*many])
    assert len(discovered.targets) == 6
    assert discovered.unused == ()


def test_the_same_name_in_two_namespaces_is_two_targets() -> None:
    """Nothing is shared between namespaces."""
    there = {"namespace": "other"}
    discovered = found(
        [generator_object(), placed(generator_object(), **there)],
        [external_secret_object(), placed(external_secret_object(), **there)],
    )
    assert [t.ref.namespace for t in discovered.targets] == ["default", "other"]


@pytest.mark.parametrize(
    "spec", [{}, {"projectId": "../x"}, {"host": "nonsense"}, {"openAiAdminKey": {"name": "admin"}}]
)
@pytest.mark.parametrize("deleting", [False, True])
def test_no_secret_with_an_admin_key_becomes_a_target(spec: JSON, deleting: bool) -> None:
    """Also that of a generator which is malformed or being deleted; any source, any policy."""
    metadata = {"deletionTimestamp": "2026-11-24T10:00:00Z"} if deleting else {}
    holder = placed(generator_object("holder", **spec), **metadata)
    wanted = external_secret_object(target={"name": "admin", "creationPolicy": "Merge"})
    elsewhere = {"name": "b", "key": "c"}
    alone = generator_object("alone", annotations={PREFIX + "secret": "admin"}, openAiAdminKey=elsewhere)
    feeding = generator_object(openAiAdminKey=elsewhere)
    for discovered in (found([holder, feeding], [wanted]), found([holder, alone], [])):
        reasons = {r.reason for r in discovered.rejected if r.secret == Ref("default", "admin")}
        assert reasons == {"AdminKeySecret"}
        assert discovered.targets == ()


def test_an_admin_key_of_another_namespace_protects_nothing_here() -> None:
    """Names are per namespace."""
    other = placed(generator_object("holder", openAiAdminKey={"name": "creds", "key": "k"}), namespace="other")
    assert only(found([generator_object(), other])).ref == Ref("default", "creds")


def test_a_generator_that_feeds_nothing_is_reported() -> None:
    """A malformed one with what is wrong about it."""
    discovered = found([generator_object("idle"), generator_object("broken", projectId="..")], [])
    assert discovered.unused == (Ref("default", "idle"),)
    (rejected,) = discovered.rejected
    assert (rejected.secret, str(rejected.source)) == (None, "OpenAI default/broken")
    assert discovered.malformed == ()


def test_a_malformed_generator_that_is_used_is_named_besides() -> None:
    """It is the ExternalSecret that is rejected; the generator's own readers are told too."""
    discovered = found([generator_object(projectId="..")])
    assert [str(item.source) for item in discovered.rejected] == ["ExternalSecret default/creds"]
    (malformed,) = discovered.malformed
    assert str(malformed.source) == "OpenAI default/gen"
    assert discovered.rejected[0].message == f"generator default/gen: {malformed.message}"
    assert discovered.unused == ()


def test_a_malformed_object_blocks_itself_alone() -> None:
    """Its neighbours are served."""
    discovered = found(
        [generator_object(), generator_object("broken", projectId="..")],
        [external_secret_object("good"), external_secret_object("bad", generator="broken"),
         external_secret_object("worse", target={"immutable": True})],
    )  # fmt: skip
    assert [t.ref.name for t in discovered.targets] == ["good"]
    assert sorted(str(r.secret) for r in discovered.rejected) == ["default/bad", "default/worse"]


def test_objects_that_are_being_deleted_ask_for_nothing() -> None:
    """Their accounts are retired by the ledger."""
    deleting = {"deletionTimestamp": "2026-11-24T10:00:00Z"}
    assert found(None, [placed(external_secret_object(), **deleting)]).targets == ()
    assert refused(found([placed(generator_object(), **deleting)])).reason == "NoGenerator"
    assert found([placed(generator_object(annotations=STANDALONE), **deleting)], []) == Discovered((), (), ())


def test_a_selection_serves_less_and_checks_as_much() -> None:
    """What was not selected still counts against double use, and protects its admin key."""
    target = {"target": {"name": "shared"}}
    generators = [generator_object("a"), generator_object("b")]
    wanted = [
        external_secret_object("one", generator="a", **target),
        external_secret_object("two", generator="b", **target),
        external_secret_object("three", generator="b"),
    ]
    discovered = found(generators, wanted, selected={Ref("default", "a")})
    assert [(r.source.ref.name, r.reason) for r in discovered.rejected] == [("one", "SharedTarget")]
    assert discovered.targets == ()
    discovered = found(generators, wanted, selected={Ref("default", "b")})
    assert [t.ref.name for t in discovered.targets] == ["three"]
    assert found(generators, [], selected={Ref("default", "a")}).unused == (Ref("default", "a"),)


# --- whatever is in an object ------------------------------------------------------------------------------------

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ES_FIELDS = ["refreshInterval", "refreshPolicy", "secretStoreRef", "target", "data", "dataFrom", "other"]
TARGET_FIELDS = ["name", "creationPolicy", "deletionPolicy", "template", "immutable", "manifest"]
TEMPLATE_FIELDS = ["metadata", "type", "engineVersion", "mergePolicy", "data", "templateFrom"]
GENERATOR_FIELDS = ["projectId", "host", "openAiAdminKey", "serviceAccountNamePrefix", "serviceAccountNameSize"]


def fields(names: list[str], inner: st.SearchStrategy[Any] = JSONS) -> st.SearchStrategy[Any]:
    return JSONS | st.dictionaries(st.sampled_from(names), inner, max_size=3)


EXTERNAL_SPECS = fields(
    ES_FIELDS,
    fields(TARGET_FIELDS, fields(TEMPLATE_FIELDS, fields(["labels", "annotations"])))
    | st.lists(fields(["sourceRef", "rewrite", "extract"], fields(["generatorRef"], fields(["kind", "name"]))))
    | st.lists(st.builds(lambda rewrite: FROM | {"rewrite": rewrite}, JSONS | st.lists(fields(["regexp"])))),
)


@settings(max_examples=300)
@given(fields([*GENERATOR_FIELDS, "cleanupPolicy"]), EXTERNAL_SPECS, st.dictionaries(st.sampled_from(
    [PREFIX + name
     for name in ("secret", "secret-key", "refresh-interval", "suspend", "rotate", "key-lifetime", "key-scopes")]
    + [PREFIX + "restart"]
), st.text(max_size=8)))  # fmt: skip
def test_discovery_never_raises_on_what_users_write(spec: object, other: object, annotations: dict[str, str]) -> None:
    """Every object is served, rejected with words, or not our business; a healthy neighbour is always served."""
    strange = generator_object("strange", annotations=annotations)
    strange["spec"] = spec if not isinstance(spec, dict) else strange["spec"] | spec
    wanted = external_secret_object("wanted", annotations=annotations)
    wanted["spec"] = other if not isinstance(other, dict) else wanted["spec"] | other
    from_strange = external_secret_object("from-strange", generator="strange")
    neighbour = placed(external_secret_object(), namespace="next"), placed(generator_object(), namespace="next")
    generators, external_secrets = [strange, generator_object(), neighbour[1]], [wanted, from_strange, neighbour[0]]
    discovered = found(generators, external_secrets)
    assert Ref("next", "creds") in {target.ref for target in discovered.targets}
    for rejected in discovered.rejected:
        assert rejected.reason.isalnum()
        assert len(rejected.message) < 600
    for target in discovered.targets:
        assert target.ref.namespace == target.source.ref.namespace == target.generator.ref.namespace
        assert target.generator.access.project.host.startswith("https://")


LONG = st.sampled_from([LONGEST_TEXT - 1, LONGEST_TEXT, LONGEST_TEXT + 1, 9 * LONGEST_TEXT])
TEXTS = ["1d", "a", "x.", "https://api.openai.com/v1/", "Owner", "true", "generators.external-secrets.io/v1alpha1", "/"]
LARGE_JSONS = (
    st.builds(lambda text, length: (text * length)[:length], st.sampled_from(TEXTS), LONG)
    | st.builds(lambda value, count: [value] * count, JSONS, st.sampled_from([2, 3, 50]))
    | st.builds(lambda count: {f"field-{i}": i for i in range(count)}, st.sampled_from([1, 50]))
)
LARGE_SPECS = fields(
    ES_FIELDS,
    LARGE_JSONS
    | fields(TARGET_FIELDS, LARGE_JSONS | fields(TEMPLATE_FIELDS, LARGE_JSONS | fields(["labels", "annotations", "x"])))
    | st.lists(st.builds(lambda item: FROM | item, fields(["rewrite", "extract"], LARGE_JSONS).filter(
        lambda item: isinstance(item, dict))), max_size=4),
)  # fmt: skip


@settings(max_examples=500)
@given(
    fields([*GENERATOR_FIELDS, "cleanupPolicy", "x"], LARGE_JSONS | fields(
        ["name", "key", "namespace", "type", "gracePeriod"], LARGE_JSONS)),
    LARGE_SPECS | EXTERNAL_SPECS,
)  # fmt: skip
def test_what_is_kept_leads_to_what_the_whole_would(spec: object, other: object) -> None:
    """The same target, or the same words about the same field; nothing is accepted for having been cut."""
    generator, wanted = generator_object(), external_secret_object()
    generator["spec"] = spec if not isinstance(spec, dict) else generator["spec"] | spec
    wanted["spec"] = other if not isinstance(other, dict) else wanted["spec"] | other
    whole = [replace(raw, spec=wanted["spec"]) for raw in feeding([wanted])]
    given = generator["spec"] if isinstance(generator["spec"], dict) else {}
    known = [replace(raw_generator(generator), spec=given)]
    central = central_keys([{"secret": "central", "projects": {"proj_1": ["*"]}}], "ledger")
    options: dict[str, Any] = {"resource": V1, "allowed_hosts": (), "central": central}
    assert found([generator], [wanted], **options) == resolve_targets(known, whole, **options)


def large(count: int) -> dict[str, str]:
    return {f"key-{i:09}": "\U0001f511" * 10 for i in range(count)}


MEGABYTE = "x" * 1_000_000
MEGABYTES: list[JSON] = [
    {"projectId": MEGABYTE},
    {"openAiAdminKey": {"name": MEGABYTE, "key": MEGABYTE, "namespace": MEGABYTE, MEGABYTE: MEGABYTE}},
    {"cleanupPolicy": {"type": MEGABYTE, "gracePeriod": [MEGABYTE], "idleTimeout": {MEGABYTE: MEGABYTE}}},
    {"host": [MEGABYTE], MEGABYTE: MEGABYTE, "serviceAccountNamePrefix": {"x": MEGABYTE}},
    large(10_000),
    {"refreshInterval": MEGABYTE, "refreshPolicy": MEGABYTE, "data": [MEGABYTE], "secretStoreRef": {"name": MEGABYTE}},
    {"target": {"name": MEGABYTE, "creationPolicy": MEGABYTE, "immutable": MEGABYTE, "template": MEGABYTE}},
    {"target": {"template": {"metadata": {"labels": large(9999), "annotations": {"a": MEGABYTE}}, "data": large(9)}}},
    {"target": {"template": {"metadata": {"labels": large(45), "annotations": large(45)}, MEGABYTE: MEGABYTE}}},
    {"dataFrom": [FROM] * 10_000},
    {"dataFrom": [FROM | {"rewrite": [{"regexp": {"source": MEGABYTE, "target": MEGABYTE}}] * 2, MEGABYTE: [5]}]},
    {"dataFrom": [{"sourceRef": {"generatorRef": REFERENCE | {"name": {MEGABYTE: MEGABYTE}, MEGABYTE: [MEGABYTE]}}}]},
]  # fmt: skip


@pytest.mark.parametrize("spec", MEGABYTES, ids=range(len(MEGABYTES)))
def test_little_is_kept_of_a_megabyte(spec: JSON) -> None:
    """Whatever it is made of, annotations, labels and status too."""
    names = [
        "rotate",
        "suspend",
        "key-lifetime",
        "key-scopes",
        "restart",
        "secret",
        "secret-key",
        "refresh-interval",
        "unknown",
        MEGABYTE,
    ]
    much: JSON = {"labels": large(10_000), "annotations": {PREFIX + name: MEGABYTE for name in names} | large(999)}
    status = {"conditions": [{"type": "Ready", "message": MEGABYTE}], "refreshTime": MEGABYTE, "x": MEGABYTE}
    wanted, generator = (make(**spec) | {"status": status} for make in (external_secret_object, generator_object))
    for kept in (raw_generator(placed(generator, **much)), *feeding([placed(wanted, **much)])):
        assert held_by(kept) < 50_000


def held_by(value: Any) -> int:
    """Bytes that a value takes in memory with all that is in it."""
    if isinstance(value, RawObject):
        value = [getattr(value, name) for name in RawObject.__slots__]
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return sys.getsizeof(value) + sum(held_by(item) for item in inner)


@pytest.mark.parametrize("field", ["labels", "annotations"])
@pytest.mark.parametrize("values", [
    {"a": "x" * LARGEST_METADATA}, {"x" * LARGEST_METADATA: "b"}, large(100), {"a": "\U0001f511" * 2048},
], ids=["value", "name", "many", "wide"])  # fmt: skip
def test_a_template_that_is_too_large_to_be_copied_is_refused(field: str, values: JSON) -> None:
    """In words, and not by leaving something out."""
    rejected = refused(external_secret_with(target={"template": {"metadata": {field: values}}}))
    assert rejected.message.startswith(f"spec.target.template.metadata.{field} is too large to be honoured (above 8 kB")


@pytest.mark.parametrize("field", ["labels", "annotations"])
@pytest.mark.parametrize("values", [{"a": "x" * 8000}, large(45)], ids=["long", "many"])
def test_a_large_template_is_copied_whole(field: str, values: JSON) -> None:
    """Longer than any other text may be."""
    target = only(external_secret_with(target={"template": {"metadata": {field: values}}}))
    assert getattr(target, field) == values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("suspend", "true"),
        ("key-lifetime", "1h"),
        ("key-scopes", "a"),
        ("refresh-interval", "1m"),
        ("secret", "a"),
        ("secret-key", "a"),
    ],
)
def test_an_annotation_is_not_valid_for_being_cut(name: str, value: str) -> None:
    """The same words as about the whole."""
    for length in (LONGEST_TEXT + 1, 250_000):
        assert f"annotation {PREFIX}{name}" in refused(standalone({PREFIX + name: value * length})).message


def test_long_requests_keep_the_hashes_that_the_ledger_has() -> None:
    """Or an upgrade of the worker would rotate once more."""
    digest = hashlib.sha256(b"x" * 999).hexdigest()
    assert only(standalone({PREFIX + "rotate": "x" * 999})).requests == {"rotate": f"sha256:{digest}"}
    assert only(standalone({PREFIX + "rotate": "x" * 64})).requests == {"rotate": "x" * 64}


def test_conditions_of_others_are_kept_unless_they_are_a_heap() -> None:
    """What announcing leaves as it is."""
    other = {"type": "Deleted", "status": "False", "message": "x" * 3000}
    for conditions, kept in (([other], [other]), ([other] * 3, []), ({"x": "y"}, []), (None, [])):
        wanted = external_secret_object() | {"status": {"conditions": conditions, "refreshTime": "t"}}
        assert only(found(None, [wanted])).source.status == {"conditions": kept, "refreshTime": "t"}


@given(JSONS, JSONS, JSONS)
def test_an_object_of_any_shape_is_kept(spec: object, status: object, labels: object) -> None:
    """Metadata is the API server's word; the rest is anybody's."""
    obj = generator_object() | {"spec": spec, "status": status}
    obj["metadata"]["labels"] = labels
    for kept in (raw_generator(obj), raw_external_secret(obj)):
        assert kept is None or kept.ref == Ref("default", "gen")


def test_only_annotations_that_matter_are_kept() -> None:
    """A large list stays small."""
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 999, PREFIX + "rotate": "1"}
    assert raw_generator(generator_object(annotations=annotations)).annotations == {PREFIX + "rotate": "1"}


def test_the_hash_of_metadata_follows_what_announcing_compares() -> None:
    """Equal for equal metadata, different for another annotation of ours."""
    hashes = {
        only(found(None, [external_secret_object(annotations={PREFIX + "rotate": value})])).source.metadata_hash
        for value in ("1", "1", "2")
    }
    assert len(hashes) == 2
