"""The stage of a history: both APIs, virtual time, what users have installed, and ways to look at all of it.

Guarantee: looking changes nothing, and sees what is really there, not what the worker believes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sandbox.kubernetes.server import Kubernetes
from sandbox.kubernetes.setup import apply, create_namespace, install_crds
from sandbox.openai.server import OpenAI
from sandbox.openai.state import Account, Key, KeyStatus
from tests.support.scene import EPOCH, HOST, LEDGER, PROJECT, documented
from worker.kubernetes.secret import CURRENT
from worker.model.names import entry_name
from worker.model.targets import CleanupKind, CleanupPolicy
from worker.model.values import Ref

OTHER_PROJECT = "another-project"
PROJECTS = (PROJECT, OTHER_PROJECT)
ADMIN_SECRET = "openai-admin-secret"
GENERATOR = "openai-generator"
FALLBACK = "fallback"
DOCUMENTED, SECOND, ALONE = Ref("default", "openai-credentials"), Ref("default", "second"), Ref("team", "alone")
TARGETS = (DOCUMENTED, SECOND, ALONE)
INTERVALS = {DOCUMENTED: timedelta(hours=1), SECOND: timedelta(minutes=30), ALONE: timedelta(minutes=20)}
CROWD = 105
"""More accounts than one page of a list shows."""

_GENERATORS = "/apis/generators.external-secrets.io/v1alpha1/namespaces/{}/openais/" + GENERATOR
_EXTERNAL_SECRETS = "/apis/external-secrets.io/v1/namespaces/default/externalsecrets/"


@dataclass(frozen=True, slots=True)
class Setting:
    """What the users of one history have asked for, beyond the documented objects."""

    cleanup: CleanupPolicy
    key_lifetime: timedelta | None
    crowd: bool
    """Are there so many strangers in the projects that a list has several pages?"""

    @classmethod
    def drawn(cls, chance: random.Random) -> Setting:
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
        return cls(cleanup, lifetime, chance.random() < 0.15)

    @property
    def grace(self) -> timedelta:
        """How long a superseded account stays at least."""
        return self.cleanup.grace if self.cleanup.kind is CleanupKind.RETAIN_LATEST else self.cleanup.idle


class Stage:
    def __init__(self, chance: random.Random, setting: Setting) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self.setting = setting
        self.kubernetes = Kubernetes(self.now, random.Random(chance.random()))
        self.openai = OpenAI(self.now, random.Random(chance.random()))
        self.admin_key = self.openai.add_organization("acme")
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
        apply(self.kubernetes, self._admin_secret(LEDGER, FALLBACK))
        self.install()

    # --- time

    def use_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on time is the loop's."""
        self._loop = loop

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.moment())

    def moment(self) -> float:
        """Seconds since the history began."""
        return self._loop.time() if self._loop is not None else 0.0

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
        for obj in documented(self.admin_key, HOST):
            if obj["kind"] == "OpenAI":
                obj["spec"]["cleanupPolicy"] = policy
            apply(self.kubernetes, obj)
            if obj["kind"] in ("Secret", "OpenAI"):
                obj["metadata"]["namespace"] = "team"
                if obj["kind"] == "OpenAI":
                    obj["metadata"]["annotations"] = self._standalone()
                apply(self.kubernetes, obj)
        apply(self.kubernetes, second())

    def _standalone(self) -> dict[str, str]:
        annotations = {"openai-key-rotator.io/secret": ALONE.name, "openai-key-rotator.io/refresh-interval": "20m"}
        if self.setting.key_lifetime is not None:
            seconds = self.setting.key_lifetime.total_seconds()
            annotations["openai-key-rotator.io/key-lifetime"] = f"{seconds:.0f}s"
        return annotations

    def _admin_secret(self, namespace: str, name: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": namespace, "name": name},
            "stringData": {"api-key": self.admin_key},
        }

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
        """The service account's key that is in a Secret's data."""
        values = (base64.b64decode(value).decode() for value in (secret or {}).get("data", {}).values())
        found = (self.openai.key(value) for value in values)
        return next((key for key in found if key is not None and key.account is not None), None)

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

    def recorded(self, target: Ref) -> Mapping[str, Any]:
        """What the ledger says of the target's accounts, by name."""
        entry = self.kubernetes.find("keyrotations", LEDGER, entry_name(target))
        accounts: Mapping[str, Any] = entry["status"].get("accounts", {}) if entry is not None else {}
        return accounts

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


def path_of(target: Ref) -> str:
    return f"/api/v1/namespaces/{target.namespace}/secrets/{target.name}"


def generator_path(namespace: str) -> str:
    return _GENERATORS.format(namespace)


def external_secret_path(name: str) -> str:
    return _EXTERNAL_SECRETS + name


def second() -> dict[str, Any]:
    """A second target of the documented generator."""
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": SECOND.name, "namespace": SECOND.namespace},
        "spec": {
            "refreshInterval": "30m",
            "dataFrom": [{"sourceRef": {"generatorRef": {"kind": "OpenAI", "name": GENERATOR}}}],
        },
    }


def of_generator(namespace: str) -> Iterator[Ref]:
    """The targets that a namespace's generator feeds."""
    return (target for target in TARGETS if target.namespace == namespace)
