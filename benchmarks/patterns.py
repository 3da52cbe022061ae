"""What a run of the worker asks for, request by request: recorded once, from one target, and made a pattern for many.

The replay knows nothing of what the requests are about: names and ids that differ between targets are replaced in the
text, and that is all. So whatever the worker comes to ask for is what the replay sends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.targets import NAME, NAMESPACE, PROJECT
from sandbox.transport.wire import Exchange

TENANT_HERE, TARGET_HERE, PROJECT_HERE = NAMESPACE.format(0), NAME.format(0), PROJECT.format(0)
"""The names of the recorded target; every other's have the same length."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request. `api`: kubernetes or openai; `content`: its content type; `key`: it is sent with the new key."""

    api: str
    method: str
    path: str
    body: str = ""
    content: str = ""
    key: bool = False

    @property
    def kind(self) -> str:
        """What sort of request it is."""
        return Exchange(0, self.method, self.path.partition("?")[0], 0).kind


@dataclass(frozen=True, slots=True)
class Phase:
    """What a run asks for once, for each tenant, and for each target, in this order."""

    run: list[Step] = field(default_factory=list)
    tenant: list[Step] = field(default_factory=list)
    target: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A run's phases: serving, then retiring."""

    phases: list[Phase]

    def per_target(self, api: str) -> list[Step]:
        """The requests of one target to one of the two."""
        return [step for phase in self.phases for step in phase.target if step.api == api]

    def text(self) -> str:
        """For the replay's process."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Pattern:
        """The pattern that was made this text."""
        return cls(
            [
                Phase(*([Step(**step) for step in phase[scope]] for scope in ("run", "tenant", "target")))
                for phase in json.loads(text)["phases"]
            ]
        )


def pattern(steps: Iterable[Step]) -> Pattern:
    """The pattern of a run with one target. Retiring begins where the ledger is listed for the second time."""
    phases = [Phase()]
    listed: set[str] = set()
    for step in steps:
        path = step.path.partition("?")[0]
        if step.api == "kubernetes" and step.method == "GET" and path.endswith("/keyrotations"):
            if path in listed:
                phases.append(Phase())
            listed.add(path)
        getattr(phases[-1], _scope(step)).append(step)
    return Pattern(phases)


def _scope(step: Step) -> str:
    """Is it asked for once a run, once a tenant, or for each target?"""
    path = step.path.partition("?")[0]
    if step.api == "openai":
        lists = step.method == "GET" and path.endswith(("/service_accounts", "/api_keys"))
        return "tenant" if lists else "target"
    if TARGET_HERE in path or (step.method == "POST" and TENANT_HERE in path) or TARGET_HERE in step.body:
        return "target"
    return "tenant" if TENANT_HERE in path else "run"


# --- the pattern made one target's again


_ACCOUNT = re.compile(r"user-[A-Za-z0-9]{24}")
_KEY_ID = re.compile(r"key_[A-Za-z0-9]{24}")
_VERSION = re.compile(r'"resourceVersion":\s?"\d+"')
_EVENT = re.compile(re.escape(TARGET_HERE) + r"\.[0-9a-f]{16}")
_UID = re.compile(r'"uid":\s?"[0-9a-f-]{36}"')
_NAME = re.compile(r"app_[A-Za-z0-9]{10}")


@dataclass(slots=True)
class Made:
    """What one target's requests are made of, and what its answers have told."""

    tenant: int
    number: int
    token: str
    """16 hexadecimal digits that no other target and no other replay has."""
    source: str = ""
    """The uid of what asks for the target."""
    account: str = ""
    key_id: str = ""
    key: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def fill(self, text: str) -> str:
        """The text of the recorded target as this one's."""
        for recorded, own in (
            (TENANT_HERE, NAMESPACE.format(self.tenant)),
            (TARGET_HERE, NAME.format(self.number)),
            (PROJECT_HERE, PROJECT.format(self.tenant)),
        ):
            text = text.replace(recorded, own)
        return text

    def path(self, step: Step) -> str:
        """Where the request goes; an account in it is the one that was just made."""
        return _KEY_ID.sub(self.key_id, _ACCOUNT.sub(self.account, self.fill(step.path)))

    def body(self, step: Step, path: str) -> str:
        """What the request carries: the same size, changed content, under the version last seen."""
        if not step.body:
            return ""
        text = self.fill(_EVENT.sub(f"{TARGET_HERE}.{self.token}", step.body))
        text = _VERSION.sub(f'"resourceVersion": "{self.versions.get(object_of(path), "0")}"', text)
        text = _UID.sub(f'"uid": "{self.source}"', text)
        return _NAME.sub(self._renamed, text)

    def learn(self, path: str, step: Step, answer: bytes) -> None:
        """Keep what later requests need."""
        if step.api == "openai":
            if step.method == "POST":
                made: dict[str, Any] = json.loads(answer)
                self.account, self.key_id, self.key = made["id"], made["api_key"]["id"], made["api_key"]["value"]
        elif found := _VERSION.search(answer.decode()):
            self.versions[object_of(path)] = found.group().rpartition('"')[0].rpartition('"')[2]

    def _renamed(self, match: re.Match[str]) -> str:
        """Account names of this replay, of the same length: the first one seen is the new account's."""
        return self.names.setdefault(match.group(), f"app_{self.token[:9]}{len(self.names) % 10}")


def object_of(path: str) -> str:
    return path.partition("?")[0].removesuffix("/status")
