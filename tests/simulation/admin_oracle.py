"""What must hold of the operator's own admin keys at every moment of a history, and at rest.

It goes by what is really in the Secrets beside the ledger, and at OpenAI. Keys that somebody else uses, and keys whose
record a human has destroyed, may stay; no key may go that is in a Secret, or that nobody recorded.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.openai.state import AdminKey
from sandbox.transport.wire import Request, Response
from tests.simulation.memory import Run
from tests.simulation.stage import CENTRAL, FALLBACK, Stage
from tests.support.scene import HOST, LEDGER
from worker.kubernetes.admin_secret import NAME
from worker.ledger import transitions
from worker.model.values import Ref
from worker.plan.admin_rotation import USE_BY_RUNS

NAMES = (CENTRAL, FALLBACK)
CLOCKS = 10.0
GRACE = USE_BY_RUNS.total_seconds()
"""The shortest grace, which the histories ask for, is as long as a run may work with a former key."""
CLAIM = transitions.CLAIM.total_seconds()


@dataclass
class AdminOracle:
    stage: Stage
    violate: Callable[[str], None]
    made: dict[str, str] = field(default_factory=dict)
    """Names of the keys that workers made, by id."""
    lost: set[str] = field(default_factory=set)
    """Ids of keys whose record a human has destroyed, or whose create arrived when it was given up."""
    dead: set[str] = field(default_factory=set)
    """Values that a human has put into a Secret although their key is gone."""
    _asked: set[str] = field(default_factory=set)
    _there: dict[str, str] = field(default_factory=dict)
    """The value in each Secret, as last seen."""
    _changed_by_user: dict[str, float] = field(default_factory=dict)
    _left: dict[str, float] = field(default_factory=dict)
    """When each key last left a Secret, by id."""
    _replaced: set[str] = field(default_factory=set)
    """Ids of keys in whose place a worker has published another."""
    _noted: set[str] = field(default_factory=set)
    """Ids of keys of which the ledger has said that they were replaced."""
    _told: dict[str, float] = field(default_factory=dict)
    """Since when the ledger says so, by id."""
    _known: set[str] = field(default_factory=set)
    """Ids of keys of which the ledger has said that they are or were in a Secret."""
    _published: dict[str, float] = field(default_factory=dict)
    """When a worker published each key, by id."""
    _ids: dict[str, str] = field(default_factory=dict)
    """The id of each value that was ever in a Secret."""
    _ledgers: int = 1

    def sent(self, run: Run, request: Request) -> None:
        """Recorded before requested, and requested once."""
        if not _is_about_admin_keys(request) or request.method != "POST":
            return
        name = request.json()["name"]
        if name in self._asked:
            self.violate(f"admin keys: {run.name} requested {name} twice")
        self._asked.add(name)
        if not self._recorded(name):
            self.violate(f"admin keys: {run.name} requested {name}, which the ledger does not record")

    def effect(self, run: Run, request: Request, response: Response) -> bool:
        """A request took effect. True: it was about these keys."""
        path = request.path
        if _is_about_admin_keys(request) and request.method == "POST":
            body = response.json()
            self.made[body["id"]] = body["name"]
            if not self._recorded(body["name"]):
                self.lost.add(body["id"])
            return True
        if _is_about_admin_keys(request):
            self._check_deleted(run, path.rpartition("/")[2])
            return True
        if request.method == "PATCH" and path.startswith(f"/api/v1/namespaces/{LEDGER}/secrets/"):
            self._check_published(run, request, response)
            return True
        return False

    def look(self, *, by_user: bool) -> None:
        """The key in each Secret works, whatever anybody has done."""
        now = self.stage.moment()
        if len(self.stage.ledgers) != self._ledgers:
            self._ledgers = len(self.stage.ledgers)
            self.lost |= self.made.keys() | self._replaced
        for name in NAMES:
            entry: Mapping[str, Any] | None = self.stage.kubernetes.find("adminkeyrotations", LEDGER, name)
            recorded = entry["status"].get("keys", []) if entry is not None else []
            self._note_recorded(recorded)
            value = self.stage.admin_value(name)
            if value is None:
                continue
            key, before = self.stage.openai.admin_key(value), self._there.get(name)
            if key is not None:
                self._ids[value] = key.id
            elif value not in self.dead:
                self.violate(f"admin keys: Secret {name} has a dead key")
                self.dead.add(value)
            if value == before:
                continue
            self._there[name] = self.stage.admin_keys[name] = value
            self.stage.former_admin_keys[value] = name
            if by_user:
                self._changed_by_user[name] = now
            if before in self._ids:
                intent = entry["status"].get("intent", {}) if entry is not None else {}
                ours = key is not None and key.id == intent.get("id")
                self._note_left(self._ids[before], recorded, by_user=by_user, ours=ours)

    def _note_recorded(self, recorded: list[Mapping[str, Any]]) -> None:
        """What the ledger says of the keys of a Secret."""
        for key in recorded:
            self._known.add(key["id"])
            if "supersededAt" in key:
                self._noted.add(key["id"])
                self._told.setdefault(key["id"], self.stage.moment())
            else:
                self._told.pop(key["id"], None)

    def _note_left(self, id: str, recorded: list[Mapping[str, Any]], *, by_user: bool, ours: bool) -> None:
        """A key has left a Secret. `ours`: for one that a worker has published, as no run has noted yet."""
        noted = any(key["id"] == id and "supersededAt" not in key for key in recorded)
        if by_user and id in self._left and not noted:
            return  # it was put back, and taken away unseen
        self._left[id] = self.stage.moment()
        if not by_user:
            self._replaced.add(id)
        elif noted and not ours:
            # A human put it back, and has replaced it themselves. With the worker's own publication back in place, the
            # ledger cannot tell that from the publication alone.
            self._replaced.discard(id)

    def check_at_rest(self) -> None:
        """No key that a worker made or replaced is left, but those in the Secrets, and those that others use."""
        current = {self._ids.get(self.stage.admin_value(name) or "") for name in NAMES}
        told = {known for name in NAMES for known in self._left_to_humans(name)}
        for key in self.stage.openai.admin_keys("acme"):
            # A human's key in whose place a dying run published another, before a human put in a third: nobody knows.
            ours = key.id in self.made or key.id in self._replaced & self._noted
            if key.id in told or self.made.get(key.id) in told:
                continue
            if ours and key.id not in current | self.lost and not self._used_since(key):
                self.violate(f"admin keys: at rest {self.made.get(key.id, key.id)} is left behind")

    def _left_to_humans(self, name: str) -> set[str]:
        """Keys that only a human can have go, by id and by name: of another host or ledger, or beside a dead key."""
        entry: Mapping[str, Any] | None = self.stage.kubernetes.find("adminkeyrotations", LEDGER, name)
        if entry is None:
            return set()
        spec = entry["spec"]
        dead = self.stage.admin_value(name) in self.dead
        if spec["host"] == HOST and spec["ledger"] == self.stage.ledgers[-1] and not dead:
            return set()
        status = entry["status"]
        # A create without an answer has left no id: the ledger, and so the human, knows its key by the name alone.
        recorded = (*status.get("keys", []), status.get("intent", {}))
        return {key[field] for key in recorded for field in ("id", "name") if key.get(field)}

    def _used_since(self, key: AdminKey) -> bool:
        """Was it used later than by a run that had read it before? Then it stays, and is told."""
        used, left = key.last_used(self.stage.now()), self._left.get(key.id)
        if used is None or left is None:
            return False
        return used.timestamp() - self._epoch() > left + GRACE - CLOCKS

    def _check_deleted(self, run: Run, id: str) -> None:
        now = self.stage.moment()
        if id not in self.made and id not in self._replaced:
            self.violate(f"admin keys: {run.name} deletes {id}, which no worker made or replaced")
        for name, value in self._there.items():
            looked = run.looks.get(Ref(LEDGER, name), -1.0)
            if self._ids.get(value) == id and self._changed_by_user.get(name, -1.0) <= looked:
                self.violate(f"admin keys: {run.name} deletes {id}, which Secret {name} has")
            if self._ids.get(value) == id:
                self.dead.add(value)  # put back right after the look: no worker can know
        left = self._left.get(id)
        # A human replaced it before any run could note its publication: only its use tells that it was in the Secret.
        known = id in self._known
        if left is not None and known and self.stage.server_was_right(0.0) and now < left + GRACE - CLOCKS:
            self.violate(f"admin keys: {run.name} deletes {id} {now - left:.0f} s after it was replaced")
        used = self.stage.admin_uses.get(id)
        right = left is not None and self.stage.server_was_right(left)  # a wrong clock may say that it left later
        if right and left is not None and used is not None and self._not_by_runs(id, left) < used < now - CLOCKS:
            self.violate(f"admin keys: {run.name} deletes {id}, which somebody else uses")

    def _not_by_runs(self, id: str, left: float) -> float:
        """From when on the worker has to know that a use of a key that left then is none of its runs'."""
        if id not in self._known:
            # Its own run uses it within the claim alone. Any later use tells that it was published.
            return self._published.get(id, left) + CLAIM + CLOCKS
        told = self._told.get(id, left)
        if id in self._replaced:
            # A publication that a later run notes took place by the end of its claim.
            return min(max(told, left), left + CLAIM) + GRACE + CLOCKS
        # A human replaced it. Nobody tells the worker when: to its knowledge runs have read the key until it looked.
        return max(told, left) + GRACE + CLOCKS

    def _check_published(self, run: Run, request: Request, response: Response) -> None:
        """A recorded key, which OpenAI accepts, under a resourceVersion, and nothing else of the Secret."""
        body, secret = request.json(), response.json()
        metadata = body.get("metadata", {})
        if set(body) != {"metadata", "data"} or set(metadata) != {"resourceVersion", "annotations"}:
            self.violate(f"admin keys: {run.name} writes {sorted(body)} of {request.path}")
            return
        name, value = metadata["annotations"].get(NAME), _value(secret)
        key = self.stage.openai.admin_key(value)
        if key is None or key.name != name or not key.works(self.stage.now()):
            self.violate(f"admin keys: {run.name} publishes a key that does not work, or another one's name")
        elif not self._recorded(name, id=key.id):
            self.violate(f"admin keys: {run.name} publishes {name}, of which the ledger has not the id")
        if key is not None:
            self._published[key.id] = self.stage.moment()

    def _recorded(self, name: str, *, id: str | None = None) -> bool:
        """Does the ledger have an intent of this name, and this id?"""
        for secret in NAMES:
            entry: Mapping[str, Any] | None = self.stage.kubernetes.find("adminkeyrotations", LEDGER, secret)
            intent = entry["status"].get("intent", {}) if entry is not None else {}
            if intent.get("name") == name and id in (None, intent.get("id")):
                return True
        return False

    def _epoch(self) -> float:
        return self.stage.now().timestamp() - self.stage.moment()


def _is_about_admin_keys(request: Request) -> bool:
    return "/organization/admin_api_keys" in request.path


def _value(secret: Mapping[str, Any]) -> str:
    return base64.b64decode(secret["data"]["api-key"]).decode()
