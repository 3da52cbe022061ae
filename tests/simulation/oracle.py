"""What must hold at every moment of a history, and at rest.

The oracle sees each request of a worker twice: when it is sent, and when it takes effect. It goes by what is really in
the Secrets, at OpenAI and in the stored ledger, never by what the worker reports, and what it allows follows from the
invariants I1 to I8 of the design. What no worker can know is no violation: a Secret that a user put back and took away
again between two looks.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.openai.state import KeyStatus
from sandbox.transport.wire import Exchange, Request, Response
from tests.simulation.stage import INTERVALS, PROJECTS, TARGETS, Stage, named
from tests.support.canary import leaks
from tests.support.scene import LEDGER
from worker.kubernetes.secret import CURRENT
from worker.ledger.holds import hold_reason
from worker.model.entries import HoldKind
from worker.model.names import entry_name
from worker.model.targets import CleanupKind
from worker.model.times import parse_time
from worker.model.values import Ref
from worker.plan.reasons import LARGEST_SLACK
from worker.plan.retirement import PROPAGATION

CLOCKS = 10.0
"""Seconds that a run's idea of the time may be off: the API server's `Date`, and what is tolerated."""
FRESH = 6.0
"""Seconds within which a look or a note must come before the request that relies on it (5, and the way)."""
UNSEEN_HOLD = 86_400.0
"""Seconds for which somebody unseen holds an account, by default."""
EXPIRY = 2 / 3
"""Share of a key's lifetime after which it is renewed."""


@dataclass(slots=True)
class Run:
    """One run of the worker as the oracle knows it."""

    name: str
    started: float
    force: bool = False
    looks: dict[Ref, float] = field(default_factory=dict)
    """When the API server last served it each target's Secret."""
    uses: dict[str, float | None] = field(default_factory=dict)
    """What OpenAI last told it of each key's last use, by the key's id."""
    pods: dict[str, float] = field(default_factory=dict)
    """When the API server last served it each namespace's pods."""
    lists: dict[str, float] = field(default_factory=dict)
    """When the list that it is reading of each project began."""
    deletes: set[str] = field(default_factory=set)
    """Paths of the accounts that it has asked to delete: an adapter repeats that."""


@dataclass(slots=True)
class Era:
    """How long a target's Secret has carried one account's key, and by whose doing."""

    account: str | None
    since: float
    by_user: bool
    noted: bool = False
    """Has the ledger recorded the account as not superseded meanwhile?"""
    ended: float | None = None


@dataclass(slots=True)
class Container:
    """A container that took a key from its environment, and when its kubelet reported that it started."""

    account: str
    era: Era
    started: float
    began: float
    """When its kubelet took the key."""


@dataclass(slots=True)
class Made:
    """An account that a worker made."""

    name: str
    target: Ref
    key_id: str


class Oracle:
    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self.stage = stage
        self.violations: list[str] = []
        self.steps = 0
        self.made: dict[str, Made] = {}
        self.containers: dict[str, Container] = {}
        self.foreign: set[str] = set()
        """The uids of Secrets that users have made themselves."""
        self._say = say
        self._asked: set[str] = set()
        """Names that were requested."""
        self._noted: dict[str, float] = {}
        """When the ledger first, or again, recorded each intent."""
        self._eras: dict[Ref, list[Era]] = {target: [Era(None, 0.0, False)] for target in TARGETS}
        self._entries: dict[Ref, Mapping[str, Any]] = {target: {} for target in TARGETS}
        self._lists: defaultdict[str, list[float]] = defaultdict(list)
        """When each complete list of a project began."""
        self._published: dict[Ref, tuple[Run, float]] = {}
        self._attempts: defaultdict[Ref, set[str]] = defaultdict(set)
        """Names that the ledger has recorded since the last publication."""
        self._licensed: dict[Ref, float] = {}
        """When a user last did something that may ask for a new key."""
        self._seen_held: set[str] = set()
        """Accounts that a container held after they were superseded."""

    def violate(self, text: str) -> None:
        """Noted, not raised: the worker isolates what a target's work raises."""
        self._say(f"VIOLATION: {text}")
        self.violations.append(text)

    # --- a worker's request is sent

    def sent(self, run: Run, request: Request) -> None:
        kind = kind_of(request)
        if kind == "POST service_accounts":
            self._check_asked(run, request.json()["name"])
        elif kind == "DELETE service_accounts" and request.path not in run.deletes:
            run.deletes.add(request.path)
            self._check_looked(run, request.path.rpartition("/")[2])
        elif kind == "GET keyrotations" and not run.lists:
            run.started = self.stage.moment()  # it has looked at the time just before
        elif _lists_accounts(kind, request) and "after" not in request.query:
            run.lists[_project(request)] = self.stage.moment()
        if request.path.startswith("/api"):
            self._check_quiet(run, kind, request)

    def _check_asked(self, run: Run, name: str) -> None:
        """I1, and I5: recorded before requested, requested once, and not without a reason."""
        now = self.stage.moment()
        if name in self._asked:
            self.violate(f"I1: {run.name} requested {name} twice")
        self._asked.add(name)
        intent = self.stage.intent_of(name)
        if intent is None:
            self.violate(f"I1: {run.name} requested {name}, which the ledger does not record")
            return
        if now - self._noted[name] > FRESH:
            self.violate(f"I1: {run.name} requested {name} {now - self._noted[name]:.1f} s after it was recorded")
        target = intent[0]
        if not self._is_due(run, target, name):
            self.violate(f"I5: {run.name} mints for {target} again, and nothing asks for it")

    def _is_due(self, run: Run, target: Ref, name: str) -> bool:
        if target not in self._published or run.force or self._attempts[target] - {name}:
            return True
        last, at = self._published[target]
        if self._licensed.get(target, -1.0) >= last.started - 1:
            return True
        interval = INTERVALS[target]
        waited = interval - min(interval / 10, LARGEST_SLACK)
        lifetime = self.stage.setting.key_lifetime
        if lifetime is not None and run.started - at >= EXPIRY * lifetime.total_seconds() - CLOCKS:
            return True
        return run.started - last.started >= waited.total_seconds() - CLOCKS

    def _check_looked(self, run: Run, account: str) -> None:
        """I3: ours, looked for in its Secret right before, and asked when its key was last used."""
        made = self.made.get(account)
        if made is None:
            self.violate(f"I3: {run.name} deletes account {account}, which no worker made")
            return
        now = self.stage.moment()
        looked = run.looks.get(made.target)
        if looked is None or now - looked > FRESH:
            self.violate(f"I3: {run.name} deletes {made.name} without a look at {made.target} right before")
        recorded = self.stage.recorded(made.target).get(made.name)
        if recorded is None:
            return  # another run has released it, so it is gone
        published = "publishedAt" in recorded and recorded.get("id") == account  # its twin never was
        if published and "keyId" in recorded and recorded["keyId"] not in run.uses:
            self.violate(f"I3: {run.name} deletes {made.name} without asking when its key was last used")
        claimed = recorded.get("claimedUntil")
        if claimed is not None and "publishedAt" not in recorded and self._moment(claimed) > now + CLOCKS:
            self.violate(f"I3: {run.name} deletes {made.name}, which is claimed until {claimed}")

    def _check_quiet(self, run: Run, kind: str, request: Request) -> None:
        """I6 and I8: no key but in the data of a target's Secret, and no write where the worker has no business."""
        if request.method == "GET":
            return
        namespace = request.segments[request.segments.index("namespaces") + 1]
        secret = kind.endswith(" secrets")
        body = request.json() if request.body else {}
        shown = {field: value for field, value in body.items() if field != "data"} if secret else body
        if leaks(json.dumps(shown)):
            self.violate(f"I6: a key is in {run.name}'s {kind}")
        target = Ref(namespace, str(body.get("metadata", {}).get("name") or request.segments[-1]))
        wanted = (
            target in TARGETS
            if secret
            else namespace == LEDGER
            if kind.endswith("keyrotations")
            else kind in ("PATCH externalsecrets/status", "POST events") and namespace != LEDGER
        )
        if not wanted:
            self.violate(f"I8: {run.name} sends {kind} to {request.path}")

    # --- a worker's request takes effect

    def effect(self, run: Run, request: Request, response: Response) -> None:
        self.steps += 1
        kind = kind_of(request)
        self._say(f"{run.name}: {request.method} {request.path} -> {response.status}")
        if request.method == "GET":
            self._served(run, kind, request, response)
            return
        if response.status >= 300 or "dryRun" in request.query:
            return
        if kind == "POST service_accounts":
            self._note_made(response.json())
        elif kind == "DELETE service_accounts":
            self._check_deleted(run, request.path.rpartition("/")[2])
        elif kind.endswith(" secrets"):
            self._check_published(run, request, response)
        elif kind.endswith("keyrotations"):
            self._check_released()
        self.look(by_user=False)
        self._check_recorded()

    def _served(self, run: Run, kind: str, request: Request, response: Response) -> None:
        absent = response.status == 404
        if response.status != 200 and not absent:
            return
        if kind == "GET secrets":
            run.looks[Ref(request.segments[3], request.segments[5])] = self.stage.moment()
        elif kind == "GET pods":
            run.pods[request.segments[3]] = self.stage.moment()
        elif kind == "GET api_keys" and not request.path.endswith("/api_keys"):
            run.uses[request.path.rpartition("/")[2]] = None if absent else response.json()["last_used_at"]
        elif _lists_accounts(kind, request) and not absent:
            project = _project(request)
            if not response.json()["has_more"] and project in run.lists:
                self._lists[project].append(run.lists[project])

    def _note_made(self, body: Mapping[str, Any]) -> None:
        intent = self.stage.intent_of(body["name"])
        target = intent[0] if intent is not None else TARGETS[0]
        self.made[body["id"]] = Made(body["name"], target, body["api_key"]["id"])

    def _check_published(self, run: Run, request: Request, response: Response) -> None:
        """I2: key and name in one PATCH, of this run's intent, under a resourceVersion, before the claim ends."""
        body, secret = request.json(), response.json()
        if secret["metadata"]["uid"] in self.foreign:
            self.violate(f"{run.name} writes {request.path}, which is a user's own Secret")
        metadata = body.get("metadata", {})
        if CURRENT not in metadata.get("annotations", {}) or not body.get("data"):
            self.violate(f"I2: {run.name} writes {request.path} without key and name together")
            return
        annotation = json.loads(metadata["annotations"][CURRENT])
        target = Ref(secret["metadata"]["namespace"], secret["metadata"]["name"])
        if request.method == "PATCH" and "resourceVersion" not in metadata:
            self.violate(f"I2: {run.name} writes {target} whatever its resourceVersion is")
        if self.stage.carried(secret) != annotation["id"]:
            self.violate(f"I2: {run.name} writes another account's name than the key's into {target}")
        intent = self.stage.intent_of(annotation["name"])
        now = self.stage.moment()
        if intent is None or intent[0] != target:
            self.violate(
                f"I2: {run.name} publishes {annotation['name']} in {target}, which the ledger does not ask for"
            )
        elif self._moment(intent[1]["claimedUntil"]) < now - 2:
            self.violate(f"I2: {run.name} publishes {annotation['name']} after its claim has ended")
        if self.stage.status_of(secret) is KeyStatus.PENDING:
            self.violate(f"I2: {run.name} publishes {annotation['name']}, whose key OpenAI does not accept yet")
        self._published[target] = (run, now)
        self._attempts[target].clear()

    def _check_deleted(self, run: Run, account: str) -> None:
        """A worker deleted an account: no Secret and no container may carry its key, and its grace must have passed."""
        made = self.made.get(account)
        if made is None:
            return  # told when it was sent
        now, looked = self.stage.moment(), run.looks.get(made.target, -1.0)
        era = self._eras[made.target][-1]  # another Secret that carries it is a copy that somebody made
        if era.account == account and not (era.by_user and era.since > looked):
            self.violate(f"I3: account {made.name} was deleted while {made.target} carries its key")
        for name, container in self.containers.items():
            if container.account == account and self._must_be_seen(container, made, run):
                self.violate(f"I3: account {made.name} was deleted while {name} holds its key")
        left = [era for era in self._eras[made.target] if era.account == account and era.ended is not None]
        if not left or (left[-1].by_user and not left[-1].noted):
            return  # never published, or put back and taken away unseen
        superseded = left[-1].ended or 0.0
        if now < superseded + self.stage.setting.grace.total_seconds() - 2:
            self.violate(f"I3: account {made.name} was deleted {now - superseded:.0f} s after it was superseded")
        recorded = self._entries[made.target].get(made.name, {})
        noticed = recorded.get("supersededAt")
        superseded = max(superseded, self._moment(noticed) if noticed is not None else 0.0)
        if "held" in recorded and hold_reason(recorded["held"]).kind is HoldKind.CONTAINERS:
            self._seen_held.add(account)  # a container that started in between may have been taken for a holder
        self._check_unused(account, made, run.uses.get(made.key_id), superseded)

    def _must_be_seen(self, container: Container, made: Made, run: Run) -> bool:
        """Could the worker know that this container holds the key? One that started late is a possible holder only."""
        era = container.era
        if era.by_user and not era.noted:
            return False
        if era.ended is not None and container.began >= run.pods.get(made.target.namespace, self.stage.moment() + 1):
            return False  # from a cache, after the pods had been looked at: a longer grace is the remedy
        used = run.uses.get(made.key_id)
        last = max(era.ended or 0.0, used - self._epoch() if used is not None else 0.0)
        certain = era.ended is None or container.started < era.ended - 1
        return certain or self.stage.moment() < last + self.stage.setting.cleanup.idle.total_seconds() - 2

    def _check_unused(self, account: str, made: Made, used: float | None, superseded: float) -> None:
        """I3: what OpenAI told the run of the key's last use, `used`, lets the account go."""
        if used is None:
            return
        now, last, cleanup = self.stage.moment(), used - self._epoch(), self.stage.setting.cleanup
        if cleanup.kind is CleanupKind.IDLE:
            if now < last + cleanup.idle.total_seconds() - 2:
                self.violate(f"I3: account {made.name} was deleted {now - last:.0f} s after its key was used")
            return
        settled = superseded + PROPAGATION.total_seconds() + CLOCKS
        held = now < superseded + UNSEEN_HOLD - CLOCKS and account not in self._seen_held
        if last > settled and held:
            self.violate(f"I3: account {made.name} was deleted although somebody unseen uses its key")

    def _check_released(self) -> None:
        """I4: an intent of which no account was ever made leaves the ledger after two complete lists only."""
        for target in TARGETS:
            before, after = self._entries[target], self.stage.recorded(target)
            for name, account in before.items():
                if name in after or "publishedAt" in account or name in {made.name for made in self.made.values()}:
                    continue
                if self.stage.is_archived(account["projectId"]):
                    continue  # an archived project has no accounts
                ended = self._moment(account["claimedUntil"])
                complete = [begun for begun in self._lists[account["projectId"]] if begun >= ended - 1]
                if len(complete) < 2:
                    self.violate(f"I4: the intent {name} left the ledger after {len(complete)} complete lists")

    def _check_recorded(self) -> None:
        """I4: every live account that a worker made is in the ledger, by name."""
        recorded = {name for target in TARGETS for name in self._entries[target]}
        for account in self.stage.accounts():
            if account.id in self.made and account.name not in recorded:
                self.violate(f"I4: account {account.name} exists and is not in the ledger")

    # --- anybody did something

    def license(self, *targets: Ref) -> None:
        """A user did something after which a new key may be wanted."""
        for target in targets:
            self._licensed[target] = self.stage.moment()

    def look(self, *, by_user: bool) -> None:
        """Note what the Secrets carry and the ledger says now."""
        now = self.stage.moment()
        for target in TARGETS:
            recorded = self.stage.recorded(target)
            for name in recorded.keys() - self._entries[target].keys():
                self._attempts[target].add(name)
            for name, account in recorded.items():
                if "claimedUntil" in account and account != self._entries[target].get(name):
                    self._noted[name] = now
            self._entries[target] = recorded
            era = self._eras[target][-1]
            carried = self.stage.carried(self.stage.secret(target))
            if carried != era.account:
                era.ended = now
                era = Era(carried, now, by_user)
                self._eras[target].append(era)
            made = self.made.get(carried or "")
            if made is not None and "supersededAt" not in recorded.get(made.name, {"supersededAt": ""}):
                era.noted = True
        for container in self.containers.values():
            if container.era.ended is not None:
                self._seen_held.add(container.account)

    def current_era(self, target: Ref) -> Era:
        return self._eras[target][-1]

    def former_era(self, target: Ref, *, ended_within: float) -> Era | None:
        """What the Secret carried until so many seconds ago: a kubelet's cache may have it still."""
        now = self.stage.moment()
        return next(
            (era for era in self._eras[target][-2::-1] if era.account and now - (era.ended or 0.0) <= ended_within),
            None,
        )

    # --- at rest

    def check_at_rest(self) -> None:
        """After fault-free runs: one account per target, its key works, and the ledger says the same."""
        current = {}
        for target in TARGETS:
            secret = self.stage.secret(target)
            annotation = named(secret) if secret is not None else {}
            if secret is None or not annotation:
                self.violate(f"at rest: {target} has no key of ours")
                continue
            current[annotation["id"]] = annotation["name"]
            if self.stage.status_of(secret) is not KeyStatus.ACTIVE:
                self.violate(f"at rest: {target} carries a dead key")
            if self.stage.carried(secret) != annotation["id"]:
                self.violate(f"at rest: {target} carries another account's key than its annotation says")
            self._check_entry(target, annotation["name"])
        alive = {account.id: account.name for account in self.stage.accounts()}
        if alive != current:
            self.violate(f"at rest: at OpenAI {sorted(alive.values())}, in Secrets {sorted(current.values())}")
        strangers = {a.id for project in PROJECTS for a in self.stage.openai.accounts(project)} - alive.keys()
        if strangers != self.stage.strangers:
            self.violate("at rest: a stranger's account is gone")

    def _check_entry(self, target: Ref, current: str) -> None:
        entry = self.stage.kubernetes.find("keyrotations", LEDGER, entry_name(target))
        status = entry["status"] if entry is not None else {}
        if list(status.get("accounts", {})) != [current] or status.get("accountCount") != 1:
            self.violate(f"at rest: the ledger has {sorted(status.get('accounts', {}))} for {target}, not {current}")
        ready = [c for c in status.get("conditions", []) if c["type"] == "Ready" and c["status"] == "True"]
        if not ready or "failures" in status:
            self.violate(f"at rest: the entry of {target} is not Ready")

    # --- times

    def _epoch(self) -> float:
        return self.stage.now().timestamp() - self.stage.moment()

    def _moment(self, text: str) -> float:
        return parse_time(text).timestamp() - self._epoch()


def kind_of(request: Request) -> str:
    """What sort of request it is, without names."""
    return Exchange(0.0, request.method, request.path, 0).kind


def _lists_accounts(kind: str, request: Request) -> bool:
    return kind == "GET service_accounts" and request.path.endswith("/service_accounts")


def _project(request: Request) -> str:
    return request.segments[3]
