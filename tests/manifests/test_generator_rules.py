"""The rules in the generator's CRD, on the real API server: they refuse what the worker would block, and nothing else.

What it would block is asked of the worker itself, set up by an operator who wants the generator served: its host is
allowed, and a central admin key is there for everybody. Left to the worker, and so to its own tests: the namespace of
the admin key, annotations, and which hosts and central keys there are.

GENERATOR_SEED replays what the property test printed.
"""

from __future__ import annotations

import json
import os
import random
import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from sandbox.kubernetes import schema as schemas
from sandbox.kubernetes.setup import GENERATORS, known_crds
from tests.cluster.endpoint import Endpoint, call
from tests.cluster.rig import dry_run, install_crds
from worker.kubernetes.fields import Mistake
from worker.kubernetes.generator import raw_generator, try_generator
from worker.model.hosts import named_origin
from worker.model.targets import AdminKeyRef, Generator, Project
from worker.model.values import Ref
from worker.settings.central_keys import CentralKeys

Spec = dict[str, Any]
NAMESPACE = "default"
SPECS = 400
SEED = int(os.environ.get("GENERATOR_SEED", secrets.randbits(32)))
PATH = f"/apis/generators.external-secrets.io/v1alpha1/namespaces/{NAMESPACE}/openais"
MERGE = "application/merge-patch+json"


class Willing(CentralKeys):
    """A central admin key for every project and namespace."""

    def key_for(self, project: Project, namespace: str) -> AdminKeyRef:
        return AdminKeyRef(Ref("ledger", "admin"), "api-key")


def judged(spec: Spec) -> Generator | Mistake:
    """The worker's verdict on a generator that the API server has stored with this spec."""
    named = set()
    with suppress(ValueError):
        named.add(named_origin(spec["host"]))
    metadata = {"namespace": NAMESPACE, "name": "a", "uid": "1"}
    return try_generator(raw_generator({"metadata": metadata, "spec": spec}), named, Willing())


def as_known(spec: Spec) -> Spec | None:
    """What is stored of a spec under the known CRD; nothing if that refuses it too."""
    (crd,) = (crd for crd in known_crds() if crd["metadata"]["name"] == GENERATORS)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    stored: Spec = json.loads(json.dumps(spec))
    schemas.prune(stored, schema, "spec")
    schemas.apply_defaults(stored, schema)
    return None if schemas.validate(stored, schema, "spec") else stored


@pytest.fixture(scope="module")
def endpoint(real_api_server: Endpoint) -> Iterator[Endpoint]:
    install_crds(real_api_server)
    yield real_api_server
    install_crds(real_api_server, rules=False)  # as the other tests expect it


def usual(**changes: Any) -> Spec:
    return {"projectId": "proj_1", "openAiAdminKey": {"name": "admin", "key": "api-key"}} | changes


def lasting(time: str, field: str = "gracePeriod", kind: str = "retainLatest") -> Spec:
    return usual(cleanupPolicy={"type": kind, field: time})


@pytest.mark.parametrize(
    "spec",
    [
        usual(),
        usual(
            host="https://api.openai.com/v1",
            serviceAccountNamePrefix="app",
            serviceAccountNameSize=10,
            cleanupPolicy={"type": "retainLatest", "gracePeriod": "2m"},
        ),
        usual(openAiAdminKey={}),
        usual(openAiAdminKey={"name": "a.b-c" + "d" * 248, "key": "._-K" + "k" * 249, "namespace": NAMESPACE}),
        usual(projectId="p"),
        usual(projectId="-_Aa0" + "x" * 123),
        usual(serviceAccountNameSize=8),
        usual(serviceAccountNameSize=40),
        usual(serviceAccountNameSize=12.0),
        usual(serviceAccountNamePrefix=""),
        usual(serviceAccountNamePrefix=None, serviceAccountNameSize=None, host=None, cleanupPolicy=None),
        usual(serviceAccountNamePrefix="A-b_9" + "x" * 50, serviceAccountNameSize=8),
        usual(serviceAccountNamePrefix="x" * 23, serviceAccountNameSize=40),
        usual(serviceAccountNamePrefix="x" * 24, serviceAccountNameSize=39),
        usual(host="https://eu.api.openai.com/v1/"),
        usual(host="HTTPS://API.OpenAI.com"),
        usual(host="https://proxy.corp:8443/openai/v1.0/_x/-y"),
        usual(host="https://proxy.corp:065535"),
        usual(host="https://proxy.corp:/v1"),
        usual(host="https://proxy.corp/" + "x" * 481),
        usual(host="https://10.0.0.1/v1"),
        usual(host="https://[fe80::1%eth0]:8443/v1"),
        usual(host="https://[1:2:3:4:5:6:7:8]"),
        usual(host="https://[::2:3:4:5:6:7:8]"),
        usual(host="https://[::ffff:10.0.0.1]/v1"),
        usual(host="http://localhost:8080/v1"),
        usual(host="http://LOCALHOST"),
        usual(host="http://127.255.0.1:8080/v1"),
        usual(host="http://[::1]:8080/v1"),
        usual(host="http://[0:0:0:0:0:0:0:1]/v1"),
        usual(cleanupPolicy={}),
        usual(cleanupPolicy={"type": "idle", "gracePeriod": "1s", "idleTimeout": "720h"}),
        lasting("1us"),
        lasting("1µs"),
        lasting("87600h"),
        lasting("5256000m"),
        lasting("315360000.000s"),
        lasting("315360000000ms"),
        lasting("000000000001h0.123456789h1.5m3s4ms5us6ns", "idleTimeout", "idle"),
        lasting("1s" * 32, "idleTimeout"),
    ],
    ids=str,
)
def test_what_the_worker_serves_is_accepted(endpoint: Endpoint, spec: Spec) -> None:
    """The documented generators, and each field's edges; the worker serves what was stored."""
    status, answer = dry_run(endpoint, spec)
    assert status == 201, answer
    assert isinstance(judged(answer["spec"]), Generator)


PROJECT_ID = "must be an OpenAI project id: letters, digits, - and _"
NOT_HTTPS = "is not an https URL"
MORE = "must not have user info, a query or a fragment"
CHARACTERS = "has characters that a host and path may not have"
LOOPBACK = "plain http is only for loopback addresses"
NAME = "must be letters, digits, - and _, and the account's name at most 64 characters"
TIME = "must be longer than nothing, and at most ten years"
PATTERN = r"should match '^([0-9]{1,12}(\.[0-9]{1,9})?(h|m|s|ms|us|µs|ns))+$'"


@pytest.mark.parametrize(
    ("field", "words", "spec"),
    [
        ("projectId", PROJECT_ID, usual(projectId="")),
        ("projectId", PROJECT_ID, usual(projectId="x/../other")),
        ("projectId", PROJECT_ID, usual(projectId="x\n")),
        ("projectId", PROJECT_ID, usual(projectId="prój")),
        ("projectId", "may not be more than 128 bytes", usual(projectId="x" * 129)),
        ("host", NOT_HTTPS, usual(host="api.openai.com/v1")),
        ("host", NOT_HTTPS, usual(host="ftp://api.openai.com/v1")),
        ("host", NOT_HTTPS, usual(host="")),
        ("host", MORE, usual(host="https://api.openai.com@evil.example/v1")),
        ("host", MORE, usual(host="https://api.openai.com/v1?x=y")),
        ("host", MORE, usual(host="https://api.openai.com/v1#")),
        ("host", CHARACTERS, usual(host="https://api.openai.com/../admin")),
        ("host", CHARACTERS, usual(host="https://api.openai.com//v1")),
        ("host", CHARACTERS, usual(host="https://api.openai.com/v1\n")),
        ("host", CHARACTERS, usual(host="https://аpi.openai.com/v1")),
        ("host", CHARACTERS, usual(host="https://api.openai.com:port/v1")),
        ("host", CHARACTERS, usual(host="https://[api.openai.com]/v1")),
        ("host", "is not a URL", usual(host="https://api.openai.com:65536/v1")),
        ("host", "is not a URL", usual(host="https://[1:2:3]/v1")),
        ("host", "is not a URL", usual(host="https://[1:2:3:4:5:6:7]/v1")),
        ("host", "is not a URL", usual(host="https://[::12345]/v1")),
        ("host", "is not a URL", usual(host="https://[1::2::3]/v1")),
        ("host", "is not a URL", usual(host="https://[1:2:3:4:5::6:7:8]/v1")),
        ("host", "is not a URL", usual(host="https://[::10.0.0.256]/v1")),
        ("host", "may not be more than 500 bytes", usual(host="https://api.openai.com/" + "x" * 500)),
        ("host", LOOPBACK, usual(host="http://api.openai.com/v1")),
        ("host", LOOPBACK, usual(host="http://localhost.evil.example")),
        ("host", LOOPBACK, usual(host="http://127.0.0.1.evil.example")),
        ("host", LOOPBACK, usual(host="http://[::2]/v1")),
        ("host", LOOPBACK, usual(host="http://[::ffff:127.0.0.1]/v1")),
        ("openAiAdminKey.key", "must be a key of that Secret", usual(openAiAdminKey={"name": "admin"})),
        ("openAiAdminKey.name", "must be the name of a Secret", usual(openAiAdminKey={"key": "api-key"})),
        ("openAiAdminKey.name", "must be the name of a Secret", usual(openAiAdminKey={"namespace": NAMESPACE})),
        ("serviceAccountNameSize", "should be greater than or equal to 8", usual(serviceAccountNameSize=7)),
        ("serviceAccountNameSize", "should be less than or equal to 40", usual(serviceAccountNameSize=41)),
        ("serviceAccountNamePrefix", NAME, usual(serviceAccountNamePrefix="my app")),
        ("serviceAccountNamePrefix", NAME, usual(serviceAccountNamePrefix="x" * 52)),
        ("serviceAccountNamePrefix", NAME, usual(serviceAccountNamePrefix="x" * 24, serviceAccountNameSize=40)),
        ("serviceAccountNamePrefix", "may not be more than 55 bytes", usual(serviceAccountNamePrefix="x" * 56)),
        ("cleanupPolicy.gracePeriod", TIME, lasting("0s")),
        ("cleanupPolicy.gracePeriod", TIME, lasting("0")),
        ("cleanupPolicy.gracePeriod", TIME, lasting("999ns")),
        ("cleanupPolicy.gracePeriod", TIME, lasting("-1s")),
        ("cleanupPolicy.idleTimeout", TIME, lasting("87600h1ns", "idleTimeout", "idle")),
        ("cleanupPolicy.idleTimeout", "must not validate the schema", lasting("5124096h", "idleTimeout")),
        ("cleanupPolicy.gracePeriod", PATTERN, lasting("1d")),
        ("cleanupPolicy.gracePeriod", PATTERN, lasting("about 2 weeks")),
        ("cleanupPolicy.gracePeriod", "may not be more than 64 bytes", lasting("1s" * 33)),
    ],
)
def test_what_the_worker_blocks_is_refused(endpoint: Endpoint, field: str, words: str, spec: Spec) -> None:
    """With the field, and words that say what to change. The known CRD lets it through, and the worker blocks it."""
    status, answer = dry_run(endpoint, spec)
    assert status == 422
    assert f"spec.{field}" in answer["message"]
    assert words in answer["message"]
    stored = as_known(spec)
    assert stored is not None
    assert isinstance(judged(stored), Mistake)


def test_a_megabyte_is_refused_at_once(endpoint: Endpoint) -> None:
    """In each text of a generator."""
    much = "1h" * 500_000
    for field in ("projectId", "host", "serviceAccountNamePrefix"):
        assert dry_run(endpoint, usual(**{field: much}))[0] == 422
    for field in ("gracePeriod", "idleTimeout"):
        assert dry_run(endpoint, lasting(much, field))[0] == 422
    for field in ("name", "key", "namespace"):
        assert dry_run(endpoint, usual(openAiAdminKey={"name": "a", "key": "a"} | {field: "a" * 1_000_000}))[0] == 422


def test_an_older_object_that_breaks_a_rule_can_be_changed_elsewhere(endpoint: Endpoint) -> None:
    """Each field alone, metadata and status; what is changed has to keep the rules. (Kubernetes 1.30 and newer.)"""
    broken = {
        "projectId": "a/b",
        "host": "https://api.openai.com/v1?x=" + "y" * 600,
        "openAiAdminKey": {"name": "admin"},
        "serviceAccountNameSize": 4,
        "serviceAccountNamePrefix": "my app",
        "cleanupPolicy": {"type": "idle", "gracePeriod": "1d"},
    }
    install_crds(endpoint, rules=False)
    name = f"older-{secrets.token_hex(4)}"
    generator = {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI", "metadata": {"name": name}}
    assert call(endpoint, "POST", PATH, generator | {"spec": broken})[0] == 201
    install_crds(endpoint)

    def patch(body: dict[str, Any], where: str = "") -> int:
        return call(endpoint, "PATCH", f"{PATH}/{name}{where}", body, content_type=MERGE)[0]

    assert patch({"metadata": {"annotations": {"x": "y"}}}) == 200
    assert patch({"status": {"output": {"x": "y"}}}, "/status") == 200
    assert patch({"spec": {"projectId": "a/c"}}) == 422
    for field, value in usual(serviceAccountNameSize=8, serviceAccountNamePrefix="x").items():
        assert patch({"spec": {field: value}}) == 200, field
    assert call(endpoint, "DELETE", f"{PATH}/{name}")[0] == 200


# --- The CRD and the worker agree

STRANGE = "aZ0-_./:@?#[]% \n\tµé\N{KELVIN SIGN}"
FIELDS = ("projectId", "host", "openAiAdminKey", "serviceAccountNameSize", "serviceAccountNamePrefix", "cleanupPolicy")


def misspelt(chance: random.Random, text: str) -> str:
    """The text with a character more, less or another one."""
    at, letter = chance.randint(0, len(text)), chance.choice(STRANGE)
    return text[:at] + chance.choice(["", letter]) + text[at + chance.choice([0, 0, 1]) :]


def some_address(chance: random.Random) -> str:
    """An IPv6 address, nearly."""
    groups = [chance.choice(["0", "1", "ffff", "A0", "10000"[: chance.randint(1, 5)]]) for _ in range(9)]
    if chance.random() < 0.6:
        at = chance.randint(0, 8)
        left, right = groups[: at // chance.randint(1, 3)], groups[at + chance.randint(0, 2) :]
        text = ":".join(left) + "::" + ":".join(right)
    else:
        text = ":".join(groups[: chance.choice([7, 8, 8, 8, 9])])
    if chance.random() < 0.3:
        text = text.rpartition(":")[0] + ":" + chance.choice(["1.2.3.4", "127.0.0.1", "0.0.0.1", "1.2.3", "1.2.3.400"])
    return "[" + chance.choice([text, text, "::1", "0:0::0:1", text + "%eth0", "::1%"]) + "]"


def some_host(chance: random.Random) -> str:
    pick = chance.choice
    scheme = pick(["https://"] * 6 + ["http://"] * 3 + ["HTTPS://", "ftp://", "https:/", ""])
    names = ["api.openai.com", "API.corp", "localhost", "127.0.0.1", "127.0.0.300", "127.1", "a", "-a", "a.", "1"]
    name = some_address(chance) if chance.random() < 0.35 else pick(names)
    port = pick([""] * 6 + [":", ":0", ":443", ":65535", ":65536", ":00080", ":700000", ":x"])
    path = pick(["/v1"] * 4 + ["", "/", "/v1/", "/a.b/c_-", "/.a", "//", "/" + "x" * 470, "/" + "x" * 490])
    user, rest = pick([""] * 15 + ["u@", "u:p@"]), pick([""] * 15 + ["?x", "#"])
    return scheme + user + name + port + path + rest


def some_time(chance: random.Random) -> str:
    pick, terms = chance.choice, []
    for _ in range(pick([0, 1, 1, 1, 1, 2, 3, 12])):
        unit = pick(["h", "m", "s", "ms", "us", "µs", "ns", "h", "m", "s", "d", "μs", "M"])
        ten_years = {"h": 87600, "m": 5256000, "s": 315360000, "ms": 315360000000}.get(unit, 10**11)
        number = str(pick([0, 1, 30, ten_years, ten_years + 1, ten_years * 11, chance.randrange(10**13)]))
        number = number.zfill(chance.randint(1, 13)) if chance.random() < 0.2 else number
        fraction = "." + str(chance.randrange(10 ** chance.randint(1, 10))) if chance.random() < 0.3 else ""
        terms.append(number + fraction + unit)
    return "".join(terms) or pick(["0", "", "60", "1 h"])


def some_value(chance: random.Random, field: str) -> Any:
    """Of a field, as somebody may write it who half knows how."""
    pick = chance.choice
    match field:
        case "projectId":
            value: Any = pick(["p", "proj_A-9", "x" * 127, "x" * 128, "x" * 129, "", "..", "a b"])
        case "host":
            value = some_host(chance)
        case "openAiAdminKey":
            parts = {"name": pick(["admin", "a.b", "A"]), "key": pick(["api-key", "a/b"]), "namespace": NAMESPACE}
            value = {part: parts[part] for part in parts if chance.random() < 0.6}
        case "serviceAccountNameSize":
            value = pick([-1, 0, 7, 8, 9, 12, 24, 39, 40, 41, 2**31, 2**63 - 1])
        case "serviceAccountNamePrefix":
            value = pick(["app", "A_b-", "", "x"]) * pick([1, 1, 6, 13, 14, 18]) + pick(["", "x"])
        case _:
            times = {part: some_time(chance) for part in ("gracePeriod", "idleTimeout") if chance.random() < 0.6}
            value = {"type": pick(["idle", "retainLatest"])} | times
    if isinstance(value, str) and chance.random() < 0.1:
        return misspelt(chance, value)
    return value


def some_spec(chance: random.Random) -> Spec:
    """One or two fields of it are unusual: more of them would hide each other's mistakes."""
    unusual = chance.sample(FIELDS, chance.choice([1, 1, 2]))
    if "serviceAccountNamePrefix" in unusual and chance.random() < 0.5:
        unusual.append("serviceAccountNameSize")
    return usual(**{field: some_value(chance, field) for field in unusual})


def test_the_crd_and_the_worker_agree(endpoint: Endpoint) -> None:
    """Of what the known CRD accepts, ours refuses exactly what the worker blocks."""
    print(f"replay: GENERATOR_SEED={SEED} pytest {__file__}")
    chance = random.Random(SEED)
    agreed = {True: 0, False: 0}
    disagreements = []
    for _ in range(SPECS):
        spec = some_spec(chance)
        stored = as_known(spec)
        status, answer = dry_run(endpoint, spec)
        assert status in (201, 422), (spec, status)
        accepted = status == 201
        if accepted:
            stored = answer["spec"]
        verdict = None if stored is None else judged(stored)
        if accepted is not isinstance(verdict, Generator):
            disagreements.append((spec, answer.get("message", "accepted"), str(verdict)))
        agreed[accepted] += 1
    assert disagreements == []
    assert min(agreed.values()) > SPECS / 5, agreed
