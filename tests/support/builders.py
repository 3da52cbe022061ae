"""Small builders of values, each well formed until a test says otherwise."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from worker.kubernetes.external_secret import EXTERNAL_SECRETS
from worker.kubernetes.secret import MANAGED
from worker.model.entries import Account, Entry, Intent, Publication
from worker.model.outcomes import RunInfo
from worker.model.sightings import NamedAccount, SecretView
from worker.model.targets import (
    AdminKeyRef,
    CleanupPolicy,
    CreationPolicy,
    Generator,
    Project,
    ProjectAccess,
    RefreshPolicy,
    Source,
    Target,
)
from worker.model.values import JSON, Ref, Resource, Version

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
LEDGER = "ledger-uid"
HOST = "https://api.openai.com/v1"
PROJECT = Project(HOST, "proj_1")
ACCESS = ProjectAccess(PROJECT, AdminKeyRef(Ref("default", "admin"), "api-key"))
SECRET = Ref("default", "creds")
RUN = RunInfo(NOW, LEDGER)
KEY = "sk-svcacct-CANARY"
"""A fake key; no test may ever see it in a text."""


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


# --- values of the model


def source(**changes: Any) -> Source:
    values: dict[str, Any] = {
        "resource": EXTERNAL_SECRETS[0],
        "kind": "ExternalSecret",
        "ref": SECRET,
        "uid": "source-uid",
        "generation": 3,
        "metadata_hash": "abc",
    }
    return Source(**(values | changes))


def generator(**changes: Any) -> Generator:
    values: dict[str, Any] = {
        "ref": Ref("default", "gen"),
        "uid": "generator-uid",
        "access": ACCESS,
        "name_prefix": "app",
        "name_size": 10,
        "cleanup": CleanupPolicy(),
    }
    return Generator(**(values | changes))


def target(**changes: Any) -> Target:
    values: dict[str, Any] = {
        "ref": SECRET,
        "source": source(),
        "generator": generator(),
        "data_key": "api_key",
        "interval": timedelta(hours=1),
        "refresh": RefreshPolicy.PERIODIC,
        "creation": CreationPolicy.OWNER,
    }
    return Target(**(values | changes))


def account(name: str = "app_1", **changes: Any) -> Account:
    values: dict[str, Any] = {"access": ACCESS, "id": f"user-{name}", "key_id": f"key_{name}"}
    return Account(name, **(values | changes))


def publication(name: str = "app_1", at: datetime = NOW - timedelta(minutes=30), **changes: Any) -> Publication:
    return Publication(changes.pop("account", None) or account(name), at, **changes)


def intent(name: str = "app_2", claimed_until: datetime = NOW + timedelta(minutes=3), **changes: Any) -> Intent:
    values: dict[str, Any] = {
        "account": account(name, id=None, key_id=None),
        "requested_at": claimed_until - minutes(3.5),
        "claimed_until": claimed_until,
    }
    return Intent(**(values | changes))


def entry(*history: Publication, **changes: Any) -> Entry:
    """The entry of a target that was rotated half an hour ago, or with this history."""
    values: dict[str, Any] = {
        "target": SECRET,
        "ledger": LEDGER,
        "history": history or (publication(),),
        "last_rotated_at": NOW - minutes(30),
    }
    return Entry(**(values | changes))


def empty_entry(**changes: Any) -> Entry:
    values: dict[str, Any] = {"target": SECRET, "ledger": LEDGER}
    return Entry(**(values | changes))


def named(of: Account | None = None, **changes: Any) -> NamedAccount:
    of = of or account()
    values: dict[str, Any] = {
        "id": of.id,
        "name": of.name,
        "key_id": of.key_id,
        "project": of.access.project,
        "target": str(SECRET),
        "ledger": LEDGER,
    }
    return NamedAccount(**(values | changes))


def secret_view(**changes: Any) -> SecretView:
    """A target Secret that holds the key of `account()`."""
    values: dict[str, Any] = {
        "ref": SECRET,
        "version": Version("secret-uid", "7"),
        "type": "Opaque",
        "immutable": False,
        "filled": frozenset({"api_key"}),
        "labels": {MANAGED: "true"},
        "annotations": {},
        "named": named(),
    }
    return SecretView(**(values | changes))


# --- objects as the API server lists them


def generator_object(name: str = "gen", *, annotations: Mapping[str, Any] | None = None, **spec: object) -> JSON:
    wanted: JSON = {"projectId": "proj_1", "openAiAdminKey": {"name": "admin", "key": "api-key"}} | spec
    return {
        "metadata": {
            "namespace": "default",
            "name": name,
            "uid": f"uid-{name}",
            "generation": 1,
            "annotations": dict(annotations or {}),
        },
        "spec": {key: value for key, value in wanted.items() if value is not ...},
    }


def external_secret_object(
    name: str = "creds", *, annotations: Mapping[str, Any] | None = None, generator: object = "gen", **spec: object
) -> JSON:
    reference = {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI", "name": generator}
    wanted: JSON = {"dataFrom": [{"sourceRef": {"generatorRef": reference}}]} | spec
    return {
        "metadata": {
            "namespace": "default",
            "name": name,
            "uid": f"uid-{name}",
            "generation": 5,
            "annotations": dict(annotations or {}),
        },
        "spec": {key: value for key, value in wanted.items() if value is not ...},
    }


def placed(obj: JSON, **metadata: object) -> JSON:
    """The object with other metadata."""
    return obj | {"metadata": obj["metadata"] | metadata}


THINGS = Resource("example.org", "v1", "things")


def told(error: BaseException) -> str:
    """Everything that an error could tell somebody: text, repr, traceback and what it was raised from."""
    texts = [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
    return "\n".join(texts)


class FixedRandom:
    """Chance without surprise."""

    def choices(self, population: str, *, k: int) -> list[str]:
        return list(population[:k])

    def random(self) -> float:
        return 0.0


def naming(name: str, **changes: Any) -> SecretView:
    """A Secret whose annotation names this account."""
    return secret_view(named=named(account(name), **changes))
