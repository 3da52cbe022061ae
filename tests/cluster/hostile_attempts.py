"""What a hostile tenant applies: each attempt is some objects, and what has to come of each of them.

Guarantee: every source asks for a rotation, and names an admin key that is good wherever that makes it more dangerous.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.hostile import FALLBACK, OWN_PROJECT, STRANGE_PROJECT, Stage, secret
from tests.cluster.rig import PREFIX
from tests.support.scene import PROJECT
from worker.kubernetes.secret import CURRENT, MANAGED, PREVIOUS

Objects = list[dict[str, Any]]
GENERATOR = {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI"}


@dataclass(frozen=True)
class Facts:
    """What a well-informed attacker knows: its own keys, names, and everything but the keys of the others' Secrets."""

    stage: Stage = field(repr=False)
    namespace: str

    def named(self, **changes: Any) -> str:
        """The annotation of the victim's Secret, as if it were this tenant's."""
        stored = self.stage.rig.get("secret", "openai-credentials")["metadata"]["annotations"][CURRENT]
        return json.dumps(json.loads(stored) | changes)

    def fixed(self, project: str) -> list[str]:
        return sorted(self.stage.fixed[project])

    def admin(self, key: str = "own", name: str = "admin") -> dict[str, Any]:
        """The tenant's admin Secret, with the key of this owner, or this key."""
        return secret(name, self.namespace, {"api-key": self.stage.keys.get(key, key)})

    def generator(self, name: str = "gen", annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
        usual = {
            "projectId": OWN_PROJECT,
            "host": self.stage.rig.openai_url,
            "openAiAdminKey": {"name": "admin", "key": "api-key"},
            "cleanupPolicy": {"type": "retainLatest", "gracePeriod": "1s"},
        }
        return GENERATOR | {"metadata": {"name": name, "annotations": annotations or {}}, "spec": usual | spec}

    def source(
        self, name: str, generator: str = "gen", annotations: dict[str, str] | None = None, **spec: Any
    ) -> dict[str, Any]:
        """An ExternalSecret that asks for a rotation, so that whatever stops it is no lack of a wish."""
        usual = {"dataFrom": [{"sourceRef": {"generatorRef": {"kind": "OpenAI", "name": generator}}}]}
        return {
            "apiVersion": "external-secrets.io/v1",
            "kind": "ExternalSecret",
            "metadata": {"name": name, "annotations": {"openai-key-rotator.io/rotate": "1"} | (annotations or {})},
            "spec": usual | spec,
        }


@dataclass(frozen=True)
class Attempt:
    """`objects`: what the tenant applies. `outcomes`: event and reason of each source by name; or the status with which
    the API server refuses the object of this name. The runs end with `code`.
    """

    name: str
    objects: Callable[[Facts], Objects]
    outcomes: dict[str, str | int]
    served_before: bool = False
    """Whether the tenant has first had a key of its own for the Secret `creds`, as it should."""
    code: int = 0


def premade(f: Facts, name: str, current: str | None, **metadata: Any) -> dict[str, Any]:
    """A Secret that looks like one of ours. Without `current` the annotation that is there stays."""
    everybodys = [{"id": id, "name": "x"} for project in (PROJECT, STRANGE_PROJECT) for id in f.fixed(project)]
    annotations = {PREVIOUS: json.dumps(everybodys)} | ({CURRENT: current} if current is not None else {})
    usual = {"labels": {MANAGED: "true"}, "annotations": annotations}
    return secret(name, f.namespace, {"api_key": "nothing"}, **usual | metadata)


def forged(f: Facts) -> Objects:
    """In the victim's own project, for which the tenant has a good admin key."""
    stranger = f.fixed(STRANGE_PROJECT)[0]
    names = {
        "whole": f.named(target=f"{f.namespace}/whole"),
        "foreign": f.named(target=f"{f.namespace}/foreign", ledger="another"),
        "strange": f.named(target=f"{f.namespace}/strange", id=stranger, name="stranger", projectId=STRANGE_PROJECT),
        "nowhere": f.named(target=f"{f.namespace}/nowhere", host=None, projectId=None),
        "evil": f.named(target=f"{f.namespace}/evil", host=f"http://127.0.0.1:{f.stage.attacker.port}/v1"),
        "copy": f.named(),
        "path": f.named(target=f"{f.namespace}/path", id="x/../../admin_api_keys?", keyId="../..", name="../.."),
    }
    made = [premade(f, name, text) for name, text in names.items()] + [f.source(name, "shared") for name in names]
    return [f.admin("shared"), f.generator("shared", projectId=PROJECT), *made]


def forged_elsewhere(f: Facts) -> Objects:
    """The same, with a good admin key for the tenant's own project only."""
    current = f.named(target=f"{f.namespace}/creds")
    return [f.admin(), f.generator(), premade(f, "creds", current), f.source("creds")]


def forged_later(f: Facts) -> Objects:
    """Into the Secret that the worker has written: the victim's account instead of the tenant's."""
    again = f.source("creds", annotations={PREFIX + "rotate": "2"})
    return [premade(f, "creds", f.named(target=f"{f.namespace}/creds")), again]


def through_the_template(f: Facts) -> Objects:
    def template(name: str, **metadata: Any) -> dict[str, Any]:
        return f.source(name, target={"template": {"metadata": metadata}})

    current = f.named(target=f"{f.namespace}/current")
    return [
        f.admin("shared"),
        f.generator(projectId=PROJECT),
        template("current", annotations={CURRENT: current}),
        template("previous", annotations={PREVIOUS: "[]"}),
        template("label", labels={MANAGED: "true"}),
        template("operator", labels={"reconcile.external-secrets.io/created-by": "x"}),
        template("format", annotations={"a": "{{ .api_key }}"}),
        template("owner", ownerReferences=[{"name": "x"}], labels={MANAGED: "true"}),
        premade(f, "current", current),
    ]


PROJECT_IDS = [
    f"x/../{PROJECT}",
    "..",
    f"{PROJECT}/service_accounts?",
    f"..%2f{PROJECT}",
    f"{PROJECT}#",
    f"{PROJECT}\n",
    "x\r\nAuthorization: Bearer x",
    "\u202e" + PROJECT,
    "",
]


def paths(f: Facts) -> Objects:
    made = [f.generator(f"id-{i}", projectId=id) for i, id in enumerate(PROJECT_IDS)]
    made += [f.source(f"id-{i}", f"id-{i}") for i in range(len(PROJECT_IDS))]
    deep = f"{f.stage.rig.openai_url}/organization/projects/{PROJECT}/service_accounts"
    return [f.admin("shared"), *made, f.generator("dots", host=deep + "/../.."), f.source("dots", "dots")]


def hosts_of(f: Facts) -> list[str]:
    port, own = f.stage.attacker.port, f.stage.rig.openai_url
    there = f"127.0.0.1:{port}"
    return [
        f"http://{there}/v1",
        f"https://{there}/v1",
        f"http://localhost:{port}/v1",
        f"http://[::ffff:127.0.0.1]:{port}/v1",
        f"http://2130706433:{port}/v1",
        f"http://0.0.0.0:{port}/v1",
        f"{own.removesuffix('/v1')}@{there}/v1",
        f"https://api.openai.com@{there}/v1",
        f"https://api.openai.com:443@{there}/v1",
        f"http://{there}\\@api.openai.com/v1",
        f"http://{there}#@api.openai.com/v1",
        f"http://{there}/?x=https://api.openai.com/v1",
        "https://api.openai.com.evil.example/v1",
        "https://api.openai.com:8443/v1",
        "file:///etc/passwd",
        "http://169.254.169.254/latest",
    ]


HOSTS = 16
MALFORMED_HOSTS = {6, 7, 8, 9, 10, 11, 14}


def hosts(f: Facts) -> Objects:
    made = [f.generator(f"host-{i}", host=host) for i, host in enumerate(hosts_of(f))]
    return [f.admin(), *made, *(f.source(f"host-{i}", f"host-{i}") for i in range(HOSTS))]


FOREIGN = {"managed-by": "another-tool"}


def targets(f: Facts) -> Objects:
    """Secrets in the tenant's namespace that its operators or other tools have put there."""

    def at(name: str, target: str, **more: str) -> dict[str, Any]:
        return f.source(name, target={"name": target, **more})

    tls = {"tls.crt": "x", "tls.key": "x"}
    helm = "helm.sh/release.v1"
    token = {"kubernetes.io/service-account.name": "dev"}
    return [
        f.admin(),
        f.generator(),
        f.generator("alone", annotations={PREFIX + "secret": "admin2"}, openAiAdminKey={"name": "admin2", "key": "k"}),
        f.generator("third", openAiAdminKey={"name": "admin3", "key": "api-key"}),
        f.admin(name="admin3"),
        f.generator("outside", annotations={PREFIX + "secret": f"../{f.stage.victim}/openai-credentials"}),
        secret("tool", f.namespace, {"password": "x"}, labels=FOREIGN),
        secret("tool-marked", f.namespace, {"password": "x"}, labels={MANAGED: "true"}),
        secret("tls", f.namespace, tls, "kubernetes.io/tls"),
        secret("release", f.namespace, {"release": "x"}, helm),
        secret("token", f.namespace, {}, "kubernetes.io/service-account-token", annotations=token),
        secret("frozen", f.namespace, {"a": "x"}) | {"immutable": True},
        at("at-admin", "admin"),
        at("at-admin-merging", "admin3", creationPolicy="CreateOrMerge"),
        at("at-tool", "tool"),
        at("at-tool-marked", "tool-marked"),
        at("at-tls", "tls", creationPolicy="Merge"),
        at("at-release", "release", creationPolicy="Merge"),
        at("at-token", "token", creationPolicy="Merge"),
        at("at-frozen", "frozen", creationPolicy="Merge"),
        at("at-victim", f"{f.stage.victim}/openai-credentials"),
        at("at-parent", "../openai-credentials"),
    ]


def huge(f: Facts) -> Objects:
    """Values on which a careless pattern, number or parser would choke, and a megabyte in each text."""
    many = 500_000
    changes: dict[str, dict[str, Any]] = {
        "h-project": {"projectId": "a" * many + "!"},
        "h-host": {"host": "https://" + "a." * many + "!"},
        "h-path": {"host": f"{f.stage.rig.openai_url}{'/a' * 200}!"},
        "h-prefix": {"serviceAccountNamePrefix": "a" * many},
        "h-size": {"serviceAccountNameSize": 10**15},
        "h-grace": {"cleanupPolicy": {"type": "retainLatest", "gracePeriod": "1h" * many}},
    }
    sources = {
        "h-interval": f.source("h-interval", refreshInterval="9" * many + "h"),
        "h-units": f.source("h-units", refreshInterval="1.1" * many),
        "h-life": f.source("h-life", annotations={PREFIX + "key-lifetime": "1" * 200_000 + "h"}),
        "h-scopes": f.source("h-scopes", annotations={PREFIX + "key-scopes": "a." * 100_000 + "b"}),
        "h-suspend": f.source("h-suspend", annotations={PREFIX + "suspend": "true" * 50_000}),
        "h-key": f.source("h-key"),
        "h-template": f.source("h-template", target={"template": {"metadata": {"annotations": {"{": "x" * many}}}}),
    }
    rewrite = {"regexp": {"source": "(a+)+$" * 50_000, "target": "a" * many}}
    sources["h-key"]["spec"]["dataFrom"][0]["rewrite"] = [rewrite]
    made = [f.generator(name, **spec) for name, spec in changes.items()]
    return [f.admin(), f.generator(), *made, *(f.source(name, name) for name in changes), *sources.values()]


def long_annotations(f: Facts) -> Objects:
    """As long as the API server lets them be, and longer; deep, and with numbers that are slow to read."""
    much = 250_000
    texts = {
        "a-deep": "[" * much,
        "a-objects": '{"a":' * 3_000,
        "a-number": json.dumps({"id": "x"})[:-1] + ', "name": ' + "9" * 15_000 + "}",
        "a-long": f.named(target=f"{f.namespace}/a-long", name="n" * much),
        "a-late": f.named(target=f"{f.namespace}/a-late", publishedAt="9999-12-31T23:59:59-23:59", expiresAt=1e300),
        "a-mega": "x" * 2_000_000,
    }
    made = [secret(name, f.namespace, {"a": "x"}, annotations={CURRENT: text}) for name, text in texts.items()]
    requests = {PREFIX + "rotate": "x" * 2_000_000}
    rotate = f.source("r-mega", annotations=requests)
    sources = [f.source(name) for name in texts if name != "a-mega"]
    return [f.admin("shared"), f.generator(projectId=PROJECT), *made, *sources, rotate]


def foreign_generator(f: Facts) -> Objects:
    """The victim's generator, and the victim's and the worker's admin Secret."""
    victim, ledger = f.stage.victim, f.stage.rig.ledger
    named = f.source("namespaced", "openai-generator")
    named["spec"]["dataFrom"][0]["sourceRef"]["generatorRef"]["namespace"] = victim
    cluster = f.source("cluster", "openai-generator")
    cluster["spec"]["dataFrom"][0]["sourceRef"]["generatorRef"]["kind"] = "ClusterGenerator"
    admin = {"name": "openai-admin-secret", "key": "api-key"}
    return [
        named,
        cluster,
        f.source("slash", f"{victim}/openai-generator"),
        f.source("plain", "openai-generator"),
        f.generator("theirs", projectId=PROJECT, openAiAdminKey=admin | {"namespace": victim}),
        f.source("theirs", "theirs"),
        f.generator("unnamed", projectId=PROJECT, openAiAdminKey=admin),
        f.source("unnamed", "unnamed"),
        f.generator("workers", projectId=PROJECT, openAiAdminKey=admin | {"name": FALLBACK, "namespace": ledger}),
        f.source("workers", "workers"),
        f.generator("path", openAiAdminKey=admin | {"name": f"../{victim}/openai-admin-secret"}),
    ]


def all_blocked(reason: str, *names: str) -> dict[str, str | int]:
    return dict.fromkeys(names, f"blocked {reason}")


ATTEMPTS = [
    Attempt(
        "forged",
        forged,
        all_blocked("UnknownAccount", "whole", "strange", "nowhere", "evil")
        | {"foreign": "blocked ForeignLedger", "copy": "blocked CopiedSecret", "path": "blocked ForeignSecret"},
    ),
    Attempt("forged-elsewhere", forged_elsewhere, {"creds": "blocked UnknownAccount"}),
    Attempt("forged-later", forged_later, {"creds": "blocked UnknownAccount"}, served_before=True),
    Attempt(
        "through-the-template",
        through_the_template,
        all_blocked("InvalidSpec", "current", "previous", "label", "operator", "format", "owner"),
    ),
    Attempt("paths", paths, all_blocked("InvalidSpec", "dots", *(f"id-{i}" for i in range(len(PROJECT_IDS))))),
    Attempt(
        "hosts",
        hosts,
        all_blocked("HostNotAllowed", *(f"host-{i}" for i in range(HOSTS)))
        | all_blocked("InvalidSpec", *(f"host-{i}" for i in MALFORMED_HOSTS)),
    ),
    Attempt(
        "targets",
        targets,
        all_blocked("AdminKeySecret", "alone", "at-admin", "at-admin-merging")
        | all_blocked("ForeignSecret", "at-tool", "at-tool-marked")
        | all_blocked("SecretType", "at-tls", "at-release", "at-token")
        | {"at-frozen": "blocked SecretImmutable", "outside": "blocked InvalidSpec"}
        | {"at-victim": 422, "at-parent": 422},
    ),
    Attempt(
        "huge",
        huge,
        all_blocked("InvalidSpec", "h-project", "h-host", "h-path", "h-prefix", "h-size", "h-grace")
        | all_blocked("InvalidSpec", "h-interval", "h-units", "h-life", "h-scopes", "h-suspend", "h-key", "h-template"),
    ),
    Attempt(
        "annotations",
        long_annotations,
        all_blocked("ForeignSecret", "a-deep", "a-objects", "a-number", "a-long")
        | {"a-late": "blocked UnknownAccount", "a-mega": 422, "r-mega": 422},
    ),
    Attempt(
        "foreign-generator",
        foreign_generator,
        all_blocked("NoGenerator", "namespaced", "plain")
        | all_blocked("InvalidSpec", "theirs", "workers")
        | {"unnamed": "failed AdminKeyMissing", "slash": 422, "path": 422},
        code=1,
    ),
]
