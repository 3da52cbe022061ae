"""The stage of a history: both APIs, virtual time, what users have installed, and ways to look at all of it.

Guarantee: looking changes nothing, and sees what is really there, not what the worker believes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sandbox.kubernetes.server import Kubernetes
from sandbox.kubernetes.setup import apply, create_namespace, install_crds, send, set_node
from sandbox.openai.server import OpenAI
from sandbox.openai.state import Account, Key, KeyStatus
from tests.simulation.veils import VeiledKubernetes, VeiledOpenAI
from tests.support.scene import EPOCH, HOST, LEDGER, PROJECT, documented
from tests.support.virtual_time import VirtualTimeLoop
from worker.kubernetes.admin_secret import GRACE, INTERVAL
from worker.kubernetes.secret import CURRENT
from worker.model.names import entry_name
from worker.model.scopes import Scopes, is_wider, parse_scopes
from worker.model.targets import CleanupKind, CleanupPolicy
from worker.model.values import Ref

OTHER_PROJECT = "another-project"
PROJECTS = (PROJECT, OTHER_PROJECT)
ADMIN_SECRET = "openai-admin-secret"
GENERATOR = "openai-generator"
NODE = "n"
"""Where all pods are."""
FALLBACK = "fallback"
CENTRAL = "central"
GATEWAY = "https://gateway.tenant.test/v1"
"""A host that the operator allows, and that a tenant's generator may name."""
SUSPEND = "openai-key-rotator.io/suspend"
SCOPES = "openai-key-rotator.io/key-scopes"
DOCUMENTED, SECOND, ALONE = Ref("default", "openai-credentials"), Ref("default", "second"), Ref("team", "alone")
TARGETS = (DOCUMENTED, SECOND, ALONE)
SOURCES = (DOCUMENTED, SECOND)
"""The targets that an ExternalSecret asks for; it has the Secret's name."""
INTERVALS = {DOCUMENTED: timedelta(hours=1), SECOND: timedelta(minutes=30), ALONE: timedelta(minutes=20)}
KEY_IN_TEMPLATE = "{{ .api_key }}"
TEMPLATES: tuple[dict[str, Any], ...] = (
    {"mergePolicy": "Replace", "data": {"config.yaml": f"a: {KEY_IN_TEMPLATE}\nb: {KEY_IN_TEMPLATE}", "level": "1"}},
    {"mergePolicy": "Merge", "data": {"settings.env": f"KEY={KEY_IN_TEMPLATE}", "level": "2"}},
)
"""What the second ExternalSecret may make of its key."""
CROWD = 105
"""More accounts than one page of a list shows."""

_GENERATORS = "/apis/generators.external-secrets.io/v1alpha1/namespaces/{}/openais/" + GENERATOR
_EXTERNAL_SECRETS = "/apis/external-secrets.io/v1/namespaces/default/externalsecrets/"


WIDER = ("openai", "clocks", "pages", "users", "ledger", "options")
"""Kinds of acts, faults and options that only some histories have."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the users of one history have asked for, beyond the documented objects."""

    cleanup: CleanupPolicy
    key_lifetime: timedelta | None
    crowd: bool
    """Are there so many strangers in the projects that a list has several pages?"""
    wider: frozenset[str] = frozenset()
    """Which of `WIDER` happen in this history besides."""
    key_scopes: Scopes = ()
    """What the generators' keys may do; empty: everything."""
    template: bool = False
    """Does the second ExternalSecret put its key into files?"""

    @classmethod
    def drawn(cls, chance: random.Random) -> Setting:
        # A chance of its own: the other histories stay those that they were before there were templates.
        apart = random.Random()
        apart.setstate(chance.getstate())
        cleanup = chance.choice(
            (
                CleanupPolicy(),
                CleanupPolicy(),
                CleanupPolicy(grace=timedelta(seconds=1)),
                CleanupPolicy(grace=timedelta(minutes=10)),
                CleanupPolicy(CleanupKind.IDLE, idle=timedelta(minutes=15)),
            )
        )
        lifetime = chance.choice((None, None, None, timedelta(hours=1)))
        crowd = chance.random() < 0.15
        # Plain histories stay frequent: in them little hides what the worker itself does.
        share = chance.choice((0.0, 0.25, 0.6))
        wider = frozenset(kind for kind in WIDER if chance.random() < share)
        scopes = chance.choice(((), (), ("model.request",), ("api.model.read", "model.request")))
        return cls(cleanup, lifetime, crowd, wider, scopes, apart.random() < 0.3)

    @property
    def grace(self) -> timedelta:
        """How long a superseded account stays at least."""
        return self.cleanup.grace if self.cleanup.kind is CleanupKind.RETAIN_LATEST else self.cleanup.idle


class Stage:
    def __init__(self, chance: random.Random, setting: Setting) -> None:
        self._loop: VirtualTimeLoop | None = None
        self.setting = setting
        self.server_error = timedelta(0)
        """By how much the API server's clock is wrong."""
        self._server_set: list[float] = []
        self.kubernetes = Kubernetes(self._server_now, random.Random(chance.random()))
        self.openai = OpenAI(self.now, random.Random(chance.random()))
        self.cluster_seen, self.openai_seen = VeiledKubernetes(self.kubernetes), VeiledOpenAI(self.openai)
        """The same as the worker sees them."""
        self.openai.add_organization("acme")
        self.admin_keys = {name: self.openai.add_admin_key("acme") for name in ("default", "team", FALLBACK, CENTRAL)}
        """By the namespace whose generator has it, or by what it is for."""
        self.former_admin_keys: dict[str, str] = {}
        """The Secret of each admin key that was ever in one beside the ledger, by the key's value."""
        self.admin_uses: dict[str, float] = {}
        """When somebody else last used each of them, by its id."""
        self.admin_rotates = False
        """Has the operator ever asked for that?"""
        self.admin_interval: str | None = None
        """How often the operator wants the keys beside the ledger replaced."""
        self.named_hosts: dict[str, set[str]] = {namespace: {HOST} for namespace in ("default", "team")}
        """Every host that a namespace's generator has ever named."""
        self.shortest: dict[Ref, timedelta] = dict(INTERVALS)
        """The shortest interval that a target has ever had."""
        self.foreign_admin_key = self.openai.add_organization("rival")
        for project in PROJECTS:
            self.openai.add_project("acme", project)
            for number in range(CROWD if self.setting.crowd else 1):
                # Names as ours: only the ledger tells.
                self.openai.add_account(project, f"app_stranger{number:03}")
        self.strangers = {account.id for project in PROJECTS for account in self.openai.accounts(project)}
        self._archived: set[str] = set()
        install_crds(self.kubernetes)
        create_namespace(self.kubernetes, LEDGER)
        self.ledgers: list[str] = []
        """The uids of the ledger's namespace, the present one last."""
        self.note_ledger()
        set_node(self.kubernetes, NODE, ready=True, since=self.now() - timedelta(days=1))
        self.install()

    # --- time

    def use_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on time is the loop's."""
        assert isinstance(loop, VirtualTimeLoop)
        self._loop = loop

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.moment())

    def moment(self) -> float:
        """Seconds since the history began."""
        return self._loop.moment if self._loop is not None else 0.0

    def set_server_clock(self, error: timedelta) -> None:
        """The API server's clock is wrong by so much from now on."""
        self.server_error = error
        self._server_set.append(self.moment())

    def server_was_right(self, since: float) -> bool:
        """Has the API server's clock been right from that moment on?"""
        return not self.server_error and all(moment < since for moment in self._server_set)

    def _server_now(self) -> datetime:
        return self.now() + self.server_error

    # --- what users have installed

    def install(self) -> None:
        """Apply all that users want; what is there already is put right."""
        for namespace in ("default", "team"):
            if self.kubernetes.find("namespaces", "", namespace) is None:
                create_namespace(self.kubernetes, namespace)
        cleanup = self.setting.cleanup
        policy = {
            "type": cleanup.kind.value,
            "gracePeriod": f"{cleanup.grace.total_seconds():.0f}s",
            "idleTimeout": f"{cleanup.idle.total_seconds():.0f}s",
        }
        for obj in documented(self.admin_keys["default"], HOST):
            if obj["kind"] == "OpenAI":
                obj["spec"]["cleanupPolicy"] = policy
                obj["metadata"]["annotations"] = self._scoped()
            apply(self.kubernetes, obj)
            if obj["kind"] in ("Secret", "OpenAI"):
                obj["metadata"]["namespace"] = "team"
                if obj["kind"] == "Secret":
                    obj["stringData"]["api-key"] = self.admin_keys["team"]
                if obj["kind"] == "OpenAI":
                    obj["metadata"]["annotations"] = self._standalone()
                apply(self.kubernetes, obj)
        apply(self.kubernetes, self.second())

    def second(self) -> dict[str, Any]:
        """A second target of the documented generator."""
        target = {"target": {"template": TEMPLATES[0]}} if self.setting.template else {}
        return {
            "apiVersion": "external-secrets.io/v1",
            "kind": "ExternalSecret",
            "metadata": {"name": SECOND.name, "namespace": SECOND.namespace},
            "spec": {
                "refreshInterval": "30m",
                "dataFrom": [{"sourceRef": {"generatorRef": {"kind": "OpenAI", "name": GENERATOR}}}],
                **target,
            },
        }

    def _standalone(self) -> dict[str, str]:
        annotations = {"openai-key-rotator.io/secret": ALONE.name, "openai-key-rotator.io/refresh-interval": "20m"}
        if self.setting.key_lifetime is not None:
            seconds = self.setting.key_lifetime.total_seconds()
            annotations["openai-key-rotator.io/key-lifetime"] = f"{seconds:.0f}s"
        return annotations | self._scoped()

    def _scoped(self) -> dict[str, str]:
        return {SCOPES: ", ".join(self.setting.key_scopes)} if self.setting.key_scopes else {}

    def note_ledger(self) -> None:
        """The ledger's namespace is new: the operator's Secrets belong in it."""
        namespace = self.kubernetes.find("namespaces", "", LEDGER)
        assert namespace is not None
        self.ledgers.append(namespace["metadata"]["uid"])
        for name in (FALLBACK, CENTRAL):
            metadata = {"namespace": LEDGER, "name": name}
            value = {"api-key": self.admin_keys[name]}
            apply(self.kubernetes, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": value})
        if self.admin_interval is not None:
            self.ask_for_admin_keys(self.admin_interval)

    def ask_for_admin_keys(self, interval: str | None) -> None:
        """Annotate the Secrets beside the ledger; None: the operator wants it no more."""
        self.admin_interval = interval
        self.admin_rotates = True
        for name in (FALLBACK, CENTRAL):
            if self.secret(Ref(LEDGER, name)) is not None:
                path = f"/api/v1/namespaces/{LEDGER}/secrets/{name}"
                annotations = {INTERVAL: interval, GRACE: "1h"}
                send(self.kubernetes, "PATCH", path, body={"metadata": {"annotations": annotations}})

    def admin_value(self, name: str) -> str | None:
        """The admin key in a Secret beside the ledger; None: there is no such Secret."""
        secret = self.secret(Ref(LEDGER, name))
        return base64.b64decode(secret["data"]["api-key"]).decode() if secret is not None else None

    # --- looking

    def secret(self, target: Ref) -> Mapping[str, Any] | None:
        return self.kubernetes.find("secrets", target.namespace, target.name)

    def secrets(self) -> list[Mapping[str, Any]]:
        """Of the targets, those that exist and name an account."""
        found = (self.secret(target) for target in TARGETS)
        return [secret for secret in found if secret is not None and CURRENT in annotations_of(secret)]

    def carried(self, secret: Mapping[str, Any] | None) -> str | None:
        """The id of the account whose key is in a Secret's data, whatever the annotation says."""
        key = self.key_in(secret)
        return key.account if key is not None else None

    def status_of(self, secret: Mapping[str, Any]) -> KeyStatus:
        """What the key in a Secret is good for."""
        key = self.key_in(secret)
        return key.status if key is not None else KeyStatus.UNKNOWN

    def key_in(self, secret: Mapping[str, Any] | None) -> Key | None:
        """The service account's key that is in a Secret's data: where its user looks for it, or elsewhere."""
        keys = self.keys_in(secret)
        if len(keys) > 1 and secret is not None:
            wanted = self.places(Ref(secret["metadata"]["namespace"], secret["metadata"]["name"]))
            return next((keys[place] for place in wanted if place in keys), None) or next(iter(keys.values()))
        return next(iter(keys.values()), None)

    def keys_in(self, secret: Mapping[str, Any] | None) -> dict[str, Key]:
        """The service accounts' keys that are in a Secret, by data key: alone, or inside a file."""
        words = [(place, word) for place, text in texts_in(secret).items() for word in re.findall(r"[\w-]+", text)]
        found = {place: key for place, word in words if (key := self.openai.key(word)) is not None}
        return {place: key for place, key in found.items() if key.account is not None}

    def texts_wanted(self, target: Ref, key: str) -> dict[str, str]:
        """All that the target's user wants in its Secret, with this key."""
        source = self.external_secret(target)
        template = source["spec"].get("target", {}).get("template") if source is not None else None
        if not template:
            return {self.data_key(target): key}
        texts = {place: text.replace(KEY_IN_TEMPLATE, key) for place, text in template["data"].items()}
        return ({"api_key": key} if template["mergePolicy"] == "Merge" else {}) | texts

    def is_as_wanted(self, target: Ref) -> bool:
        """Has the target's Secret all that its user wants in it, with one key?"""
        texts = texts_in(self.secret(target))
        keys = {word for text in texts.values() for word in re.findall(r"[\w-]+", text) if self.openai.key(word)}
        return any(self.texts_wanted(target, key).items() <= texts.items() for key in keys)

    def places(self, target: Ref) -> list[str]:
        """The data keys with the key in them, as the target's user wants them."""
        wanted = self.texts_wanted(target, KEY_IN_TEMPLATE)
        return sorted(place for place, text in wanted.items() if KEY_IN_TEMPLATE in text)

    def external_secret(self, target: Ref) -> Mapping[str, Any] | None:
        return self.kubernetes.find("externalsecrets", target.namespace, target.name) if target in SOURCES else None

    def data_key(self, target: Ref) -> str:
        """Where the target's user looks for the key."""
        source = self.external_secret(target)
        rewrite = source["spec"]["dataFrom"][0].get("rewrite") if source is not None else None
        return str(rewrite[0]["regexp"]["target"]) if rewrite else "api_key"

    def scopes_asked(self, target: Ref) -> Scopes:
        """What the target's generator asks for; empty: everything, or there is no generator."""
        generator = self.kubernetes.find("openais", target.namespace, GENERATOR)
        asked = annotations_of(generator).get(SCOPES) if generator is not None else None
        return parse_scopes(asked) if asked is not None else ()

    def is_too_wide(self, target: Ref) -> bool:
        """May the key in the target's Secret do more than was asked for?"""
        key = self.key_in(self.secret(target))
        return key is not None and is_wider(key.scopes, self.scopes_asked(target))

    def suspended(self, target: Ref) -> bool:
        """Has a user suspended it? An annotation that is neither true nor false does so, too."""
        generator, source = self.kubernetes.find("openais", target.namespace, GENERATOR), self.external_secret(target)
        if target in SOURCES and source is None:
            return False
        objects = [obj for obj in (generator, source) if obj is not None]
        return any(annotations_of(obj).get(SUSPEND, "false") != "false" for obj in objects)

    def is_archived(self, project: str) -> bool:
        return project in self._archived

    def archive(self, project: str) -> None:
        """Its accounts and keys are gone with it, the strangers' too."""
        self._archived.add(project)
        self.openai.archive(project)
        self.strangers &= {account.id for one in PROJECTS for account in self.openai.accounts(one)}

    def accounts(self) -> list[Account]:
        """Every account at OpenAI but the strangers'."""
        return [a for project in PROJECTS for a in self.openai.accounts(project) if a.id not in self.strangers]

    def has_key(self, id: str) -> bool:
        """Does an account have a key of this id?"""
        return any(id in account.keys for project in PROJECTS for account in self.openai.accounts(project))

    def recorded(self, target: Ref) -> Mapping[str, Any]:
        """What the ledger says of the target's accounts, by name."""
        entry = self.kubernetes.find("keyrotations", LEDGER, entry_name(target))
        accounts: Mapping[str, Any] = entry["status"].get("accounts", {}) if entry is not None else {}
        return accounts

    def last_rotated_at(self, target: Ref) -> str | None:
        """When the target was last rotated, as its entry says."""
        entry = self.kubernetes.find("keyrotations", LEDGER, entry_name(target))
        return entry["status"].get("lastRotatedAt") if entry is not None else None

    def admin_secrets_are_there(self) -> bool:
        """Does each Secret exist from which a worker reads an admin key that is not the fallback?"""
        own = [Ref(namespace, ADMIN_SECRET) for namespace in ("default", "team")]
        return all(self.secret(ref) is not None for ref in [*own, Ref(LEDGER, CENTRAL)])

    def intent_of(self, name: str) -> tuple[Ref, Mapping[str, Any]] | None:
        """The target whose ledger entry records an account of this name as not published, and what it says."""
        for target in TARGETS:
            account = self.recorded(target).get(name)
            if account is not None and "publishedAt" not in account:
                return target, account
        return None


def annotations_of(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = obj["metadata"].get("annotations", {})
    return found


def named(secret: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a Secret's annotation says; nothing where it is no JSON object."""
    try:
        found = json.loads(annotations_of(secret).get(CURRENT, ""))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def texts_in(secret: Mapping[str, Any] | None) -> dict[str, str]:
    """A Secret's data."""
    return {place: base64.b64decode(value).decode() for place, value in (secret or {}).get("data", {}).items()}


def path_of(target: Ref) -> str:
    return f"/api/v1/namespaces/{target.namespace}/secrets/{target.name}"


def generator_path(namespace: str) -> str:
    return _GENERATORS.format(namespace)


def external_secret_path(name: str) -> str:
    return _EXTERNAL_SECRETS + name


def of_generator(namespace: str) -> Iterator[Ref]:
    """The targets that a namespace's generator feeds."""
    return (target for target in TARGETS if target.namespace == namespace)
