"""What must hold at every moment of a history, and at rest.

The oracle sees each request of a worker twice: when it is sent, and when it takes effect. It goes by what is really in
the Secrets, at OpenAI and in the stored ledger, never by what the worker reports, and what it allows follows from the
invariants I1 to I8 of the design. What no worker can know is no violation: a Secret that a user put back and took away
again between two looks.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sandbox.openai.state import Key, KeyStatus
from sandbox.transport.wire import Exchange, Request, Response
from tests.simulation.admin_oracle import AdminOracle
from tests.simulation.commands import ADOPT, RUN, Revoke
from tests.simulation.memory import Container, Era, Made, Run
from tests.simulation.mint_rules import MintRules
from tests.simulation.stage import ADMIN_SECRET, CENTRAL, FALLBACK, SOURCES, TARGETS, Stage
from tests.support.canary import leaks
from tests.support.scene import HOST, LEDGER
from worker.kubernetes.secret import CURRENT
from worker.ledger.holds import hold_reason
from worker.model.entries import HoldKind
from worker.model.hosts import has_origin
from worker.model.outcomes import Outcome, Result
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
KEY_SHOWN_WITHIN = 80.0
"""Seconds after which every list of keys that decides a delete has a new key (60 that it counts, and the way)."""
SHOWN_WITHIN = 600.0
"""Seconds after a publication within which no worker doubts its key."""
_RELEASE = {"resourceVersion", "ownerReferences"}
_MARKS = {"resourceVersion", "labels", "annotations"}
EXPIRY = 2 / 3
"""Share of a key's lifetime after which it is renewed."""


class Oracle:
    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self.stage = stage
        self.violations: list[str] = []
        self.steps = 0
        self.made: dict[str, Made] = {}
        self.containers: dict[str, Container] = {}
        self.foreign: set[str] = set()
        """The uids of Secrets that users have made themselves."""
        self.copies: dict[str, str] = {}
        """Accounts that humans made under names of ours, with the ids of their keys; they use them at once."""
        self.second_keys: defaultdict[str, list[str]] = defaultdict(list)
        """By account, the values of further keys that humans have made."""
        self.key_made: dict[str, float] = {}
        """When each of them was made, by its id."""
        self.lost: set[str] = set()
        """Accounts of ours of which no worker can know any more, by a human's doing, unless `adopt` finds them."""
        self.struck: set[str] = set()
        """Names that a human has taken from the ledger."""
        self.edited: set[Ref] = set()
        """Targets of whose entries a human has changed times: what the ledger says of them binds nobody."""
        self.forged: set[str] = set()
        """Ids that a tenant has written into an annotation: `adopt` may believe that."""
        self.merging: set[Ref] = set()
        """Targets whose user has ever asked for a key in a Secret of their own."""
        self.mixed: set[Ref] = set()
        """Targets whose Secrets got data from users: some of it may stay."""
        self.looked_after = 0
        """How many targets runs without faults have looked at with nothing wrong, and nobody in between."""
        self._last_effects: dict[str, float] = {}
        """When each run last had an effect."""
        self.put_back: dict[Ref, float] = {}
        """When somebody last put an old copy of each target's Secret back."""
        self.disturbed = -1.0
        """When anybody but a worker last did something."""
        self.mints = MintRules(stage)
        self.admin = AdminOracle(stage, self.violate)
        self.unserved_since = float("inf")
        """Since when the cluster has not served ExternalSecrets; infinity: it does."""
        self._say = say
        self._without_admin_secret = -1.0
        """When an admin Secret was last missing: then the fallback may serve."""
        self._source_at: dict[Ref, str] = {}
        """The uid of the ExternalSecret for which each target was last published."""
        self.revoked: dict[Ref, float] = {}
        """When `revoke` last looked at each target's Secret."""
        self._forced_by: dict[Ref, str] = {}
        """The Job that last forced a key for each target; empty: a run that knows none."""
        self._asked: set[str] = set()
        """Names that were requested."""
        self._noted: dict[str, float] = {}
        """When the ledger first, or again, recorded each intent."""
        self._eras: dict[Ref, list[Era]] = {target: [Era(None, 0.0, False)] for target in TARGETS}
        self._rotated: dict[Ref, str | None] = {}
        """The last rotation of each target, as its entry says."""
        self._entries: dict[Ref, Mapping[str, Any]] = {target: {} for target in TARGETS}
        self._lists: defaultdict[str, list[float]] = defaultdict(list)
        """When each complete list of a project began."""
        self._published: dict[Ref, tuple[Run, float]] = {}
        self._attempts: defaultdict[Ref, set[str]] = defaultdict(set)
        """Names that the ledger has recorded since the last publication."""
        self._licensed: dict[Ref, float] = {}
        """When a user last did something that may ask for a new key."""
        self._recorded_for: dict[str, Ref] = {}
        """Whose each name is that the ledger has ever had."""
        self._suspended: dict[Ref, float] = {}
        """Since when each target that is suspended has been."""
        self._adopted: dict[Ref, float] = {}
        """When `adopt` last recorded something for each target: that counts as a publication."""
        self._dead: dict[Ref, float] = {}
        """Since when each target has carried a key that nobody may use."""
        self._versions: dict[Ref, str] = {}
        self._by_hand: dict[Ref, float] = {}
        """When a human last changed each target's Secret."""
        self._seen_held: set[str] = set()
        """Accounts that a container held after they were superseded."""

    def violate(self, text: str) -> None:
        """Noted, not raised: the worker isolates what a target's work raises."""
        self._say(f"VIOLATION: {text}")
        self.violations.append(text)

    # --- a worker's request is sent

    def sent(self, run: Run, request: Request) -> None:
        kind = kind_of(request)
        run.sent[request.path] = self.stage.moment()
        self.admin.sent(run, request)
        if kind == "POST service_accounts":
            self._check_asked(run, request.json()["name"])
        elif kind == "DELETE service_accounts" and request.path not in run.deletes:
            run.deletes.add(request.path)
            self._check_looked(run, request.path.rpartition("/")[2])
        elif kind == "GET keyrotations" and not run.listed:
            # The first try only: the run looked at the time right before it, not before it tried again.
            run.listed, run.started = True, self.stage.moment()
        elif _lists_accounts(kind, request) and "after" not in request.query:
            run.lists[_project(request)] = self.stage.moment()
        if request.path.startswith("/api"):
            self._check_quiet(run, kind, request)

    def sent_to(self, run: Run, origin: str, path: str, *, headers: Mapping[str, str]) -> None:
        """No admin key reaches a host that is not its own, and the fallback serves what the ledger records alone."""
        key = headers.get("Authorization", "").removeprefix("Bearer ")
        names = [name for name, value in self.stage.admin_keys.items() if value == key]
        name = next(iter(names), self.stage.former_admin_keys.get(key))
        if name is None:
            return
        if name == FALLBACK:
            host = run.options.fallback_host
            own = has_origin(origin, host) if host is not None else origin == "https://api.openai.com"
            if "/admin_api_keys" not in path:  # it is asked about itself
                self._check_fallback(run, path)
        else:
            hosts = {HOST} if name == CENTRAL else self.stage.named_hosts[name]
            own = any(has_origin_of(host, origin) for host in hosts)
        if not own:
            self.violate(f"{run.name} sends the admin key of {name} to {origin}")

    def hidden(self, secret: Ref) -> None:
        """Something in between denies this Secret: if it has an admin key, the fallback may serve."""
        if secret.name in (ADMIN_SECRET, CENTRAL):
            self._without_admin_secret = self.stage.moment()

    def _check_fallback(self, run: Run, path: str) -> None:
        """I8: the fallback admin key serves where the own one's Secret is gone; a tenant's word is not asked about."""
        if self.stage.admin_secrets_are_there() and self._without_admin_secret < run.started - CLOCKS:
            self.violate(f"I8: {run.name} uses the fallback admin key, and every admin key's Secret is there")
        _, _, account = path.partition("/service_accounts/")
        known = {stored.get("id") for target in TARGETS for stored in self.stage.recorded(target).values()}
        if account and run.command is ADOPT and account not in known:
            self.violate(f"I8: {run.name} asks about {account}, which no ledger records, with the fallback admin key")

    def _check_asked(self, run: Run, name: str) -> None:
        """I1, and I5: recorded before requested, requested once, and not without a reason."""
        now = self.stage.moment()
        if name in self._asked:
            self.violate(f"I1: {run.name} requested {name} twice")
        self._asked.add(name)
        intent = self.stage.intent_of(name)
        if intent is None and name in self.struck:
            return  # a human has just deleted the entry
        if intent is None:
            self.violate(f"I1: {run.name} requested {name}, which the ledger does not record")
            return
        if now - self._noted[name] > FRESH:
            self.violate(f"I1: {run.name} requested {name} {now - self._noted[name]:.1f} s after it was recorded")
        target = intent[0]
        if self._suspended.get(target, now) < run.started and not run.revokes(target):
            self.violate(f"I5: {run.name} mints for {target}, which is suspended")
        if not self._is_due(run, target, name):
            self.violate(f"I5: {run.name} mints for {target} again, and nothing asks for it")
        if run.revokes(target) or self.stage.openai_seen.empty or self.stage.cluster_seen.hidden:
            return
        last = self._published.get(target)
        licensed = last is None or self._licensed.get(target, -1.0) >= last[0].started - 1
        asked_for = licensed and not self._put_back_only(target)
        settled = max(self.disturbed, self._eras[target][-1].since)
        forced = run.options.force
        for rule in self.mints.broken(
            target, name, run.options, forced=forced, settled_since=settled, asked_for=asked_for
        ):
            self.violate(f"I5: {run.name} asks for {rule}")

    def _put_back_only(self, target: Ref) -> bool:
        """Has nothing happened to the target since its last key but that somebody put its Secret back?"""
        return self.put_back.get(target, -1.0) == self._licensed.get(target)

    def _is_due(self, run: Run, target: Ref, name: str) -> bool:
        repeated = run.options.job != "" and self._forced_by.get(target) == run.options.job
        force = (run.options.force and not repeated) or run.revokes(target)
        if target not in self._published or force or self._attempts[target] - {name}:
            return True
        last, at = self._published[target]
        if not self.stage.server_was_right(min(last.started, run.started)):
            return True  # who goes by a wrong clock may be early
        if self.stage.openai_seen.empty:
            return True  # that a project's one account is gone is believed
        if self._licensed.get(target, -1.0) >= last.started - 1:
            return True
        interval = self.stage.shortest[target]
        waited = interval - min(interval / 10, LARGEST_SLACK)
        lifetime = self.stage.setting.key_lifetime
        if lifetime is not None and run.started - at >= EXPIRY * lifetime.total_seconds() - CLOCKS:
            return True
        return run.started - last.started >= waited.total_seconds() - CLOCKS

    def _check_looked(self, run: Run, account: str) -> None:
        """I3: ours, looked for in its Secret right before, and asked when its key was last used."""
        made = self.made.get(account)
        if made is None:
            self._check_copy(run, account)
            return
        now = self.stage.moment()
        if self._suspended.get(made.target, now) < run.started and not run.revokes(made.target):
            self.violate(f"I3: {run.name} deletes {made.name} of {made.target}, which is suspended")
        looked = run.looks.get(made.target)
        whatever = isinstance(run.command, Revoke) and run.command.without_successor and run.revokes(made.target)
        if not whatever and (looked is None or now - looked > FRESH):
            self.violate(f"I3: {run.name} deletes {made.name} without a look at {made.target} right before")
        if made.target in SOURCES and self.unserved_since < run.started and run.command is RUN:
            self.violate(f"I3: {run.name} deletes {made.name}, and whether {made.target} is asked for cannot be known")
        recorded = self.stage.recorded(made.target).get(made.name)
        there = [o for o in self.stage.accounts() if o.id == account and o.project not in self.stage.openai_seen.empty]
        if recorded is None or not there:
            return  # another run has released it, so it is gone; or OpenAI says that it is, and deletes nothing
        if run.revokes(made.target):
            return  # whoever uses it
        published = "publishedAt" in recorded and recorded.get("id") == account  # its twin never was
        if run.options.max_hold is not None:
            published = False  # after the longest hold it goes even from certain holders, of whom nothing is asked
        if published and "keyId" in recorded and recorded["keyId"] not in run.uses:
            self.violate(f"I3: {run.name} deletes {made.name} without asking when its key was last used")
        claimed = recorded.get("claimedUntil")
        if not self._is_genuine(made.target, made.name) or "publishedAt" in recorded:
            return
        if claimed is not None and self._moment(claimed) > now + CLOCKS:
            self.violate(f"I3: {run.name} deletes {made.name}, which is claimed until {claimed}")

    def _check_copy(self, run: Run, account: str) -> None:
        """An account that a human made under a name of ours, and uses: OpenAI may only have hidden the use."""
        key = self.copies.get(account)
        if key is not None and not self.stage.server_was_right(0.0):
            pass  # by a wrong clock it may have been made, and used, with ours
        elif key is None or key not in run.uses or run.uses[key] is not None:
            self.violate(f"I3: {run.name} deletes account {account}, which no worker made")
        self.stage.strangers.discard(account)

    def _is_genuine(self, target: Ref, name: str) -> bool:
        """Does what the ledger says of an account's times bind a worker? No: a wrong clock, or a human, wrote it."""
        return target not in self.edited and self.stage.server_was_right(self._noted.get(name, 0.0))

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
        own = {Ref(LEDGER, CENTRAL), Ref(LEDGER, FALLBACK)} if self.stage.admin_rotates else set()
        if kind == "POST events" and body.get("involvedObject", {}).get("name") in {ref.name for ref in own}:
            return
        wanted = (
            target in TARGETS or (target in own and request.method == "PATCH")
            if secret
            else namespace == LEDGER
            if kind.endswith("keyrotations")
            else kind in ("PATCH externalsecrets/status", "PATCH openais/status", "POST events") and namespace != LEDGER
        )
        if not wanted:
            self.violate(f"I8: {run.name} sends {kind} to {request.path}")

    # --- a worker's request takes effect

    def effect(self, run: Run, request: Request, response: Response) -> None:
        self.steps += 1
        self._last_effects[run.name] = self.stage.moment()
        kind = kind_of(request)
        self._say(f"{run.name}: {request.method} {request.path} -> {response.status}")
        if not self.stage.admin_secrets_are_there():
            self._without_admin_secret = self.stage.moment()
        if request.method == "GET":
            self._served(run, kind, request, response)
            return
        if kind == "POST secrets" and response.status == 201 and "dryRun" in request.query:
            # That there could be one is a look as well: it says that there is none.
            run.looks[Ref(request.segments[3], request.json()["metadata"]["name"])] = self.stage.moment()
        if kind == "DELETE service_accounts" and response.status == 403:
            self._note_refused(request.path.rpartition("/")[2])
        if response.status >= 300 or "dryRun" in request.query:
            return
        if self.admin.effect(run, request, response):
            pass
        elif kind == "POST service_accounts":
            self._note_made(response.json())
        elif kind == "DELETE service_accounts":
            self._check_deleted(run, request.path.rpartition("/")[2])
        elif kind.endswith(" secrets"):
            self._check_published(run, request, response)
        elif kind.endswith("keyrotations"):
            self._check_released(run)
            self._check_forward(run)
            self._note_adopted(run)
        self.look(by_user=False)
        self._check_recorded()

    def _served(self, run: Run, kind: str, request: Request, response: Response) -> None:
        absent = response.status == 404
        if response.status != 200 and not absent:
            return
        if kind == "GET secrets":
            ref = Ref(request.segments[3], request.segments[5])
            run.looks[ref] = self.stage.moment()
            if run.revokes(ref):
                self.revoked[ref] = self.stage.moment()
        elif kind == "GET pods":
            run.pods[request.segments[3]] = self.stage.moment()
        elif kind == "GET api_keys" and request.path.endswith("/api_keys"):
            run.keys_listed[_project(request), _bearer(request)].append(self.stage.moment())
        elif kind == "GET api_keys":
            run.asked[request.path.rpartition("/")[2]] = self.stage.moment(), _bearer(request)
            run.uses[request.path.rpartition("/")[2]] = None if absent else response.json()["last_used_at"]
        elif _lists_accounts(kind, request) and not absent:
            project = _project(request)
            if not response.json()["has_more"] and project in run.lists:
                self._lists[project].append(run.lists[project])

    def _note_refused(self, account: str) -> None:
        made = self.made.get(account)
        if made is not None:
            self.mints.refused[made.target].add(account)

    def _check_forward(self, run: Run) -> None:
        """I5: what the ledger says of the last rotation never goes back; of a time that was wrong, to a right one."""
        if not self.stage.server_was_right(0.0):
            return
        for target in TARGETS:
            before, after = self._rotated.get(target), self.stage.last_rotated_at(target)
            if before is not None and after is not None and after < before and target not in self.edited:
                self.violate(f"I5: {run.name} notes a rotation of {target} at {after}, and there was one at {before}")

    def _note_made(self, body: Mapping[str, Any]) -> None:
        name, account = body["name"], body["id"]
        self.made[account] = Made(name, self._recorded_for.get(name, TARGETS[0]), body["api_key"]["id"])
        if name in self.struck or self.stage.intent_of(name) is None:
            # A create that arrives after two lists have shown that there was none: docs/reliability.md.
            self.lost.add(account)

    def _note_adopted(self, run: Run) -> None:
        """What `adopt` has recorded is the target's that it says; a stranger's only if a tenant forged that."""
        if run.command is not ADOPT:
            return
        for target in TARGETS:
            for name, account in self.stage.recorded(target).items():
                id, before = account.get("id"), self._entries[target].get(name, {})
                if id is None or before.get("id") == id:
                    continue
                if id not in self.made and id not in self.forged:
                    self.violate(f"{run.name} adopts {id}, which no worker made")
                self.stage.strangers.discard(id)
                self.made[id] = Made(name, target, account.get("keyId", ""))
                if self.stage.scopes_asked(target):
                    self.license(target)  # nobody knows what its key may do
                self._adopted[target] = self.stage.moment()

    def _check_published(self, run: Run, request: Request, response: Response) -> None:
        """I2: key and name in one PATCH, of this run's intent, under a resourceVersion, before the claim ends."""
        body, secret = request.json(), response.json()
        target = Ref(secret["metadata"]["namespace"], secret["metadata"]["name"])
        if secret["metadata"]["uid"] in self.foreign and target not in self.merging:
            self.violate(f"{run.name} writes {request.path}, which is a user's own Secret")
        metadata = body.get("metadata", {})
        if request.method == "PATCH" and set(body) == {"metadata"} and set(metadata) == _RELEASE:
            return  # our owner reference goes: the Secret is to outlive its ExternalSecret
        if request.method == "PATCH" and set(body) == {"metadata"} and set(metadata) == _MARKS:
            # Somebody took label or annotation away: they go back to the key that is there.
            if self.stage.carried(secret) != json.loads(metadata["annotations"][CURRENT])["id"]:
                self.violate(f"I2: {run.name} writes another account's name than the key's into {target}")
            return
        if CURRENT not in metadata.get("annotations", {}) or not body.get("data"):
            self.violate(f"I2: {run.name} writes {request.path} without key and name together")
            return
        annotation = json.loads(metadata["annotations"][CURRENT])
        if request.method == "PATCH" and "resourceVersion" not in metadata:
            self.violate(f"I2: {run.name} writes {target} whatever its resourceVersion is")
        if self.stage.carried(secret) != annotation["id"]:
            self.violate(f"I2: {run.name} writes another account's name than the key's into {target}")
        intent = self.stage.intent_of(annotation["name"])
        now = self.stage.moment()
        if intent is None and (annotation["name"] in self.struck or now < run.woke + 2):
            # A human has just deleted the entry. Or the run fell asleep between its look at the clock and the sending,
            # and others have let the intent go meanwhile: it looks again afterwards, and heals (docs/reliability.md).
            pass
        elif intent is None or intent[0] != target:
            self.violate(
                f"I2: {run.name} publishes {annotation['name']} in {target}, which the ledger does not ask for"
            )
        elif now < run.woke + 2 or run.sent.get(request.path, now) < run.thawed <= now:
            # No worker notices a sleep between its look at the clock and the sending; it looks again afterwards.
            # Or the request was sent before the process stood still, and on its way meanwhile.
            pass
        elif self._moment(intent[1]["claimedUntil"]) < now - 2 and self._is_genuine(target, annotation["name"]):
            self.violate(f"I2: {run.name} publishes {annotation['name']} after its claim has ended")
        if self.stage.status_of(secret) is KeyStatus.PENDING:
            self.violate(f"I2: {run.name} publishes {annotation['name']}, whose key OpenAI does not accept yet")
        if self.stage.is_too_wide(target):
            self.violate(f"I2: {run.name} publishes {annotation['name']}, whose key may do more than {target} asks for")
        self._published[target] = (run, now)
        if run.options.force:
            self._forced_by[target] = run.options.job
        source = self.stage.external_secret(target)
        self._source_at[target] = source["metadata"]["uid"] if source is not None else ""
        self._attempts[target].clear()

    def _check_deleted(self, run: Run, account: str) -> None:
        """A worker deleted an account: no Secret and no container may carry its key, and its grace must have passed."""
        made = self.made.get(account)
        if made is None:
            return  # told when it was sent
        now, looked = self.stage.moment(), run.looks.get(made.target, -1.0)
        era = self._eras[made.target][-1]  # another Secret that carries it is a copy that somebody made
        spared = not (isinstance(run.command, Revoke) and run.command.without_successor)
        if era.account == account and not (era.by_user and era.since > looked) and spared:
            self.violate(f"I3: account {made.name} was deleted while {made.target} carries its key")
        if run.revokes(made.target):
            self.license(made.target)
            return  # whoever holds it
        for name, container in self.containers.items():
            if container.account == account and self._must_be_seen(container, made, run):
                self.violate(f"I3: account {made.name} was deleted while {name} holds its key")
        left = [era for era in self._eras[made.target] if era.account == account and era.ended is not None]
        if not left or (left[-1].by_user and not left[-1].noted):
            return  # never published, or put back and taken away unseen
        superseded = left[-1].ended or 0.0
        if not self.stage.server_was_right(superseded) or not self.stage.server_was_right(run.started):
            return  # by a wrong clock any grace may have passed
        if now < superseded + self.stage.setting.grace.total_seconds() - 2:
            self.violate(f"I3: account {made.name} was deleted {now - superseded:.0f} s after it was superseded")
        recorded = self._entries[made.target].get(made.name, {})
        noticed = recorded.get("supersededAt")
        superseded = max(superseded, min(now, self._moment(noticed)) if noticed is not None else 0.0)
        if "held" in recorded and hold_reason(recorded["held"]).kind is HoldKind.CONTAINERS:
            self._seen_held.add(account)  # a container that started in between may have been taken for a holder
        if now >= superseded + run.max_hold - CLOCKS:
            return
        self._check_unused(account, made, run.uses.get(made.key_id), superseded)
        self._check_second_keys(run, account, made, superseded)

    def _must_be_seen(self, container: Container, made: Made, run: Run) -> bool:
        """Could the worker know that this container holds the key? One that started late is a possible holder only."""
        era = container.era
        if (era.by_user and not era.noted) or run.revokes(made.target):
            return False
        if not self.stage.server_was_right(era.since - SHOWN_WITHIN):
            return False  # who goes by a wrong clock cannot tell who started when
        if era.ended is not None and self.stage.moment() >= era.ended + run.max_hold - CLOCKS:
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

    def _check_second_keys(self, run: Run, account: str, made: Made, superseded: float) -> None:
        """I3: a human's own key of the account counts as its first one does, as far as OpenAI tells of it."""
        now, cleanup = self.stage.moment(), self.stage.setting.cleanup
        for key in filter(None, map(self.stage.openai.key, self.second_keys.get(account, ()))):
            told = run.uses.get(key.id)
            if key.id not in run.uses and self._was_listed(run, account, key):
                self.violate(f"I3: account {made.name} was deleted without asking for the use of its second key")
            if told is None:
                continue
            last = told - self._epoch()
            if cleanup.kind is CleanupKind.IDLE and now < last + cleanup.idle.total_seconds() - 2:
                self.violate(f"I3: account {made.name} was deleted {now - last:.0f} s after its second key was used")
            held = min(superseded, last) + UNSEEN_HOLD - CLOCKS
            if cleanup.kind is not CleanupKind.IDLE and now < held:
                self.violate(f"I3: account {made.name} was deleted although its second key is used")

    def _was_listed(self, run: Run, account: str, key: Key) -> bool:
        """Has a list of keys shown it to the run, or would a fresh one, before it asked for the own key's use?

        A later list is another target's: what the run has decided by an earlier one is on its way already. So is a list
        that it asked for with another admin key.
        """
        made, now = self.key_made.get(key.id, float("inf")), self.stage.moment()
        asked, bearer = run.asked.get(self.made[account].key_id, (now, ""))
        same = [
            times for (project, by), times in run.keys_listed.items() if project == key.project and bearer in ("", by)
        ]
        lists = [at for times in same for at in times]
        return made < asked - KEY_SHOWN_WITHIN or any(made < listed < asked for listed in lists)

    def _check_released(self, run: Run) -> None:
        """I4: an intent of which no account was ever made leaves the ledger after two complete lists only."""
        for target in TARGETS:
            before, after = self._entries[target], self.stage.recorded(target)
            for name, account in before.items():
                if name not in after:
                    self._note_forgotten(run, name, account)
                if name in after or "publishedAt" in account or name in {made.name for made in self.made.values()}:
                    continue
                if self.stage.is_archived(account["projectId"]):
                    continue  # an archived project has no accounts
                if not self._is_genuine(target, name):
                    continue
                ended = self._moment(account["claimedUntil"])
                complete = [begun for begun in self._lists[account["projectId"]] if begun >= ended - 1]
                if len(complete) < 2:
                    self.violate(f"I4: the intent {name} left the ledger after {len(complete)} complete lists")

    def _note_forgotten(self, run: Run, name: str, account: Mapping[str, Any]) -> None:
        """Of a project that looks empty, and had one account only, no worker can tell that the account is there.

        Nor does `revoke`, which one target is for and a human stands by.
        """
        project = account["projectId"]
        known = {
            other_name
            for target in TARGETS
            for other_name, other in self._entries[target].items()
            if (other["host"], other["projectId"]) == (account["host"], project)
            # What it has made itself since says nothing of the list that it read first.
            and self._moment(other.get("requestedAt", other.get("publishedAt"))) < run.started - 1
        }
        if project in self.stage.openai_seen.empty and (len(known) <= 1 or isinstance(run.command, Revoke)):
            self.lost |= {id for id, made in self.made.items() if made.name == name}

    def _check_recorded(self) -> None:
        """I4: every live account that a worker made is in the ledger, by name."""
        recorded = {name for target in TARGETS for name in self._entries[target]}
        for account in self.stage.accounts():
            made = self.made.get(account.id)
            if made is None:
                continue
            if made.name in recorded:
                self.lost.discard(account.id)
            elif self.stage.server_error:
                # By a wrong clock two lists count as far apart, and OpenAI's may lag: docs/reliability.md.
                self.lost.add(account.id)
            elif account.id not in self.lost:
                self.violate(f"I4: account {made.name} exists and is not in the ledger")

    # --- anybody did something

    def license(self, *targets: Ref) -> None:
        """A user did something after which a new key may be wanted."""
        for target in targets:
            self._licensed[target] = self.stage.moment()

    def look(self, *, by_user: bool) -> None:
        """Note what the Secrets carry and the ledger says now."""
        now = self.stage.moment()
        self.admin.look(by_user=by_user)
        if by_user:
            self.disturbed = now
        if not self.stage.admin_secrets_are_there():
            self._without_admin_secret = now
        for target in TARGETS:
            recorded = self.stage.recorded(target)
            self._recorded_for.update(dict.fromkeys(recorded, target))
            self._note_state(target, now)
            for name in recorded.keys() - self._entries[target].keys():
                self._attempts[target].add(name)
            for name, account in recorded.items():
                before = self._entries[target].get(name, {})
                if "claimedUntil" in account and account["claimedUntil"] != before.get("claimedUntil"):
                    # What is noted of the intent later does not make its times right.
                    self._noted[name] = now
            self._entries[target] = recorded
            self._rotated[target] = self.stage.last_rotated_at(target)
            self._note_hands(target, now, by_user=by_user)
            era = self._eras[target][-1]
            carried = self.stage.carried(self.stage.secret(target))
            if carried != era.account:
                era.ended = now
                era = Era(carried, now, by_user)
                self._eras[target].append(era)
            made = self.made.get(carried or "")
            if made is not None:
                # A run that notes its publication after somebody has put this back knows nothing of that.
                era.noted = "supersededAt" not in recorded.get(made.name, {"supersededAt": ""})
        for container in self.containers.values():
            if container.era.ended is not None:
                self._seen_held.add(container.account)

    def _note_hands(self, target: Ref, now: float, *, by_user: bool) -> None:
        secret = self.stage.secret(target)
        version = secret["metadata"]["resourceVersion"] if secret is not None else ""
        if version != self._versions.get(target, "") and by_user:
            self._by_hand[target] = now
        self._versions[target] = version

    def _may_be_unseen(self, run: Run, target: Ref) -> bool:
        """With --look-every: has a human changed the Secret since the look before, and this run has not read it?"""
        since = run.started - run.options.look_every.total_seconds()
        return target not in run.looks and self._by_hand.get(target, since) > since

    def _note_state(self, target: Ref, now: float) -> None:
        """Note since when the target is suspended, and since when its key is dead."""
        if not self.stage.suspended(target):
            self._suspended.pop(target, None)
        else:
            self._suspended.setdefault(target, now)
        key = self.stage.key_in(self.stage.secret(target))
        if key is None or key.status in (KeyStatus.ACTIVE, KeyStatus.PENDING):
            self._dead.pop(target, None)
        else:
            ended = (
                key.expires_at.timestamp() - self._epoch()
                if key.status is KeyStatus.EXPIRED and key.expires_at
                else now
            )
            self._dead.setdefault(target, ended)

    def strike(self, target: Ref) -> None:
        """A human deletes the target's entry: what it recorded is known to nobody."""
        self.struck |= self.stage.recorded(target).keys()
        for account in self.stage.accounts():
            made = self.made.get(account.id)
            if made is not None and made.target == target:
                self.lost.add(account.id)

    def published_since(self, moment: float) -> bool:
        return any(at >= moment for _, at in self._published.values())

    @property
    def anything_left(self) -> bool:
        """Does the ledger still record more than one account of a target?"""
        return any(len(recorded) > 1 for recorded in self._entries.values())

    def current_era(self, target: Ref) -> Era:
        return self._eras[target][-1]

    def former_era(self, target: Ref, *, ended_within: float) -> Era | None:
        """What the Secret carried until so many seconds ago: a kubelet's cache may have it still."""
        now = self.stage.moment()
        return next(
            (era for era in self._eras[target][-2::-1] if era.account and now - (era.ended or 0.0) <= ended_within),
            None,
        )

    # --- after a run without faults

    def check_after_calm(self, run: Run, outcomes: Collection[Outcome]) -> None:
        """What a run without faults has looked at, and found nothing wrong with, is as its user wants it."""
        self.look(by_user=False)
        if (
            run.command is not RUN
            or self.disturbed >= run.started
            or not self.stage.server_was_right(run.started - 7200)
        ):
            return
        for outcome in outcomes:
            target, fine = outcome.target, (Result.ROTATED, Result.KEPT)
            if target not in TARGETS or outcome.result not in fine or outcome.reason in ("InProgress", "Suspended"):
                continue  # an obstacle is told, or a human's wish
            if self._may_be_unseen(run, target):
                continue
            self.looked_after += 1
            era = self._eras[target][-1]
            young = max(era.since, self._adopted.get(target, 0.0)) + SHOWN_WITHIN
            if max(self._dead.get(target, run.started), young) < run.started:
                self.violate(f"{run.name} leaves a dead key in {target}: {outcome.reason}")
            self._check_secret(run, target)
            self._check_made_anew(run, target)

    def _check_made_anew(self, run: Run, target: Ref) -> None:
        """A new ExternalSecret that rotates on change is one."""
        source, before = self.stage.external_secret(target), self._source_at.get(target)
        if source is None or before is None or self._adopted.get(target, -1.0) >= self._published[target][1]:
            return
        if source["spec"].get("refreshPolicy") == "OnChange" and before not in ("", source["metadata"]["uid"]):
            self.violate(f"{run.name} leaves {target} with the key that an earlier ExternalSecret asked for")

    def _check_secret(self, run: Run, target: Ref) -> None:
        """Only its own data key has a key of ours; and one that is to outlive its ExternalSecret is not owned by it."""
        secret = self.stage.secret(target)
        others = [at for name, at in self._last_effects.items() if name != run.name]
        if secret is None or max(others, default=-1.0) > run.started - 60:
            return  # another run may have written it, by what it had read before
        places = sorted(self.stage.keys_in(secret))
        if places != self.stage.places(target) and target not in self.mixed:
            self.violate(f"{run.name} leaves keys of ours at {places} of {target}")
        source = self.stage.external_secret(target)
        if source is None:
            return
        policy = source["spec"].get("target", {}).get("creationPolicy", "Owner")
        owners = [owner["uid"] for owner in secret["metadata"].get("ownerReferences", ())]
        if policy != "Owner" and source["metadata"]["uid"] in owners:
            self.violate(f"{run.name} leaves {target} to go with its ExternalSecret, whose policy is {policy}")

    # --- times

    def _epoch(self) -> float:
        return self.stage.now().timestamp() - self.stage.moment()

    def _moment(self, text: str) -> float:
        return parse_time(text).timestamp() - self._epoch() - self.stage.server_error.total_seconds()


def has_origin_of(host: str, origin: str) -> bool:
    """Is this base URL at that origin?"""
    return host == origin or host.startswith(origin + "/")


def kind_of(request: Request) -> str:
    """What sort of request it is, without names."""
    return Exchange(0.0, request.method, request.path, 0).kind


def _lists_accounts(kind: str, request: Request) -> bool:
    return kind == "GET service_accounts" and request.path.endswith("/service_accounts")


def _bearer(request: Request) -> str:
    """The admin key that it is asked with."""
    return request.headers.get("Authorization", "")


def _project(request: Request) -> str:
    return request.segments[3]
