"""Everybody but the worker: users, admins, GitOps, tenants with ideas, kubelets, key users, and OpenAI's moods.

Each act is one function of the seed's chance; it says what it did. Acts that may ask for a new key tell the oracle, so
that it knows for which mints there is a reason.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import Context
from datetime import timedelta
from typing import Any

from sandbox.kubernetes.setup import Refused, apply, create_namespace, send, set_node
from tests.simulation.clock_acts import ClockActs
from tests.simulation.hands import Act, Hands
from tests.simulation.ledger_acts import LedgerActs
from tests.simulation.memory import Container, Era
from tests.simulation.openai_acts import OpenAIActs
from tests.simulation.oracle import Oracle
from tests.simulation.stage import (
    ADMIN_SECRET,
    ALONE,
    DOCUMENTED,
    NODE,
    OTHER_PROJECT,
    PROJECTS,
    SECOND,
    TARGETS,
    Stage,
    annotations_of,
    external_secret_path,
    generator_path,
    named,
    of_generator,
    path_of,
)
from tests.simulation.user_acts import UserActs
from tests.support.scene import PROJECT
from worker.kubernetes.secret import CURRENT
from worker.model.times import format_time
from worker.model.values import Ref

WATCHED = 420.0
"""Seconds for which a kubelet goes on watching a Secret that no container reads."""
STALE_CACHE = 200.0
"""Seconds by which a kubelet's cache of a Secret may lag behind (and a container starts up to 60 s later)."""


class Actors:
    def __init__(self, stage: Stage, oracle: Oracle, say: Callable[[str], None]) -> None:
        self.stage = stage
        self.oracle = oracle
        self.calm = False
        self._say = say
        self._copies: list[Mapping[str, Any]] = []
        self._cut: dict[Ref, Era] | None = None
        """What each Secret carried when the node was cut off; None: it is not."""
        self._untold: dict[str, Mapping[str, Any]] = {}
        """What the node will tell of its containers when it is back."""
        self.acts_done: Counter[str] = Counter()
        self.acts: tuple[Act, ...] = (
            # Kubelets act most often, then users; the rest is rarer in life too.
            *[self.start_container] * 4,
            *[self.stop_container] * 2,
            self.restart_container,
            self.cut_node_off,
            *[self.delete_secret] * 2,
            *[self.restore_copy] * 3,
            self.edit_label,
            self.put_own_secret,
            self.request_rotation,
            self.recreate_external_secret,
            self.revert_for_a_while,
            self.copy_to_another_name,
            self.forge_annotation,
            self.change_project,
            self.archive_other_project,
            self.delete_account,
            self.replace_admin_key,
            self.take_admin_secret_away,
            self.delete_namespace,
            self.use_key_unseen,
            *[self.moody] * 2,
        )
        hands = Hands(stage, oracle, self._later)
        self.ledger_acts, self.openai_acts = LedgerActs(hands), OpenAIActs(hands)
        self.user_acts, self._clock_acts = UserActs(hands), ClockActs(hands)
        wider = stage.setting.wider
        self.acts += self.openai_acts.acts * 2 if "openai" in wider else ()
        self.acts += self.openai_acts.veils * 2 if "pages" in wider else ()
        self.acts += self.user_acts.acts * 2 if "users" in wider else ()
        self.acts += self.user_acts.keys * 2 if "options" in wider else ()
        self.acts += self.ledger_acts.acts * 2 if "ledger" in wider else ()
        self.acts += self._clock_acts.acts * 2 if "clocks" in wider else ()

    def act(self, chance: random.Random) -> None:
        """Do one of them."""
        self.do(chance.choice(self.acts), chance)

    def do(self, act: Act, chance: random.Random) -> None:
        self.acts_done[act.__name__.strip("_")] += 1
        try:
            self._say(f"{act.__name__}: {act(chance)}")
        except Refused as error:
            self._say(f"{act.__name__}: {error}")
        self.oracle.look(by_user=True)

    def lie_in_wait(self, chance: random.Random) -> None:
        """The worker is about to do something that others could spoil: somebody may act right then."""
        if chance.random() < 0.1:
            self._later(chance.choice((0.0, 0.5, chance.uniform(0, 30))), chance.choice(self.acts), chance)

    def _later(self, seconds: float, act: Act, chance: random.Random) -> None:
        """Do something after a while, unless all is calm by then."""
        seed = chance.random()

        def now() -> None:
            if not self.calm:
                self.do(act, random.Random(seed))

        # Whoever does it does not sleep with the machine of the run that it is to spoil.
        asyncio.get_running_loop().call_later(seconds, now, context=Context())

    def _send(self, method: str, path: str, body: object = None) -> Any:
        return send(self.stage.kubernetes, method, path, body=body)

    @property
    def _count(self) -> int:
        return self.acts_done.total()

    # --- users

    def delete_secret(self, chance: random.Random) -> str:
        target = chance.choice(TARGETS)
        self.oracle.license(target)
        self._send("DELETE", path_of(target))
        return f"deleted {target}"

    def edit_label(self, chance: random.Random) -> str:
        target = chance.choice(TARGETS)
        self._send("PATCH", path_of(target), {"metadata": {"labels": {"edited": str(self._count)}}})
        path = external_secret_path(DOCUMENTED.name)
        self._send("PATCH", path, {"metadata": {"annotations": {"edited": str(self._count)}}})
        return f"edited labels of {target} and annotations of an ExternalSecret"

    def put_own_secret(self, chance: random.Random) -> str:
        """Replace a target's Secret by one that has nothing to do with the worker; for a while."""
        target = chance.choice(TARGETS)
        self.oracle.license(target)
        path = path_of(target)
        if self.stage.secret(target) is not None:
            self._send("DELETE", path)
        metadata = {"name": target.name, "namespace": target.namespace}
        own = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"mine": "bXkgb3du"}}
        self.oracle.foreign.add(self._send("POST", path.rpartition("/")[0], own)["metadata"]["uid"])

        def take_away(_: random.Random) -> str:
            self.oracle.license(target)
            self._send("DELETE", path)
            return f"deleted {target}"

        self._later(chance.uniform(60, 1800), take_away, chance)
        return f"put a Secret of their own in the place of {target}"

    def request_rotation(self, chance: random.Random) -> str:
        value = str(self._count)
        if chance.random() < 0.5:
            self.oracle.license(DOCUMENTED)
            path = external_secret_path(DOCUMENTED.name)
            self._send("PATCH", path, {"metadata": {"annotations": {"force-sync": value}}})
            return f"force-sync on {DOCUMENTED}"
        namespace = chance.choice(("default", "team"))
        self.oracle.license(*of_generator(namespace))
        self._send(
            "PATCH", generator_path(namespace), {"metadata": {"annotations": {"openai-key-rotator.io/rotate": value}}}
        )
        return f"rotate on the generator in {namespace}"

    def recreate_external_secret(self, chance: random.Random) -> str:
        """With another uid; what it owned is collected."""
        self.oracle.license(SECOND)
        self._send("DELETE", external_secret_path(SECOND.name))
        if chance.random() < 0.5:
            apply(self.stage.kubernetes, self.stage.second())
            return "recreated the second ExternalSecret"
        self._later(chance.uniform(1, 900), self._create_external_secret, chance)
        return "deleted the second ExternalSecret"

    def _create_external_secret(self, chance: random.Random) -> str:
        self.oracle.license(SECOND)
        apply(self.stage.kubernetes, self.stage.second())
        return "created the second ExternalSecret"

    def change_project(self, chance: random.Random) -> str:
        namespace, project = chance.choice(("default", "team")), chance.choice(PROJECTS)
        self.oracle.license(*of_generator(namespace))
        self._send("PATCH", generator_path(namespace), {"spec": {"projectId": project}})
        return f"changed the project in {namespace} to {project}"

    def archive_other_project(self, chance: random.Random) -> str:
        """Its accounts and keys are gone with it."""
        if chance.random() < 0.7:
            return "thought better of it"
        self.oracle.license(*TARGETS)
        self.stage.archive(OTHER_PROJECT)
        return f"archived {OTHER_PROJECT}"

    def delete_account(self, chance: random.Random) -> str:
        accounts = self.stage.accounts()
        if not accounts:
            return "no account to delete"
        account = chance.choice(accounts)
        self.oracle.license(*TARGETS)
        self.stage.openai.delete_account(account.project, account.id)
        return f"deleted account {account.name} by hand"

    # --- admins

    def replace_admin_key(self, chance: random.Random) -> str:
        """By one of another organisation, or one that is none; put right after a while."""
        namespace = chance.choice(("default", "team"))
        value = chance.choice((self.stage.foreign_admin_key, self.stage.foreign_admin_key, "sk-admin-nonsense"))
        self._write_admin_key(namespace, value)
        self._later(chance.uniform(60, 3600), self.mend_admin_keys, chance)
        return f"put a wrong admin key in {namespace}"

    def mend_admin_keys(self, _: random.Random) -> str:
        """Put the right ones in place."""
        for namespace in ("default", "team"):
            self._write_admin_key(namespace, self.stage.admin_keys[namespace])
        return "put the right admin keys in place"

    def _write_admin_key(self, namespace: str, value: str) -> None:
        metadata = {"name": ADMIN_SECRET, "namespace": namespace}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"api-key": value}}
        apply(self.stage.kubernetes, secret)

    def take_admin_secret_away(self, chance: random.Random) -> str:
        namespace = chance.choice(("default", "team"))
        self._send("DELETE", path_of(Ref(namespace, ADMIN_SECRET)))
        self._later(chance.uniform(60, 3600), self.mend_admin_keys, chance)
        return f"deleted the admin Secret of {namespace}"

    def delete_namespace(self, chance: random.Random) -> str:
        """It terminates for a while; later it is there again, with all that belongs in it."""
        self.oracle.license(ALONE)
        self._send("DELETE", "/api/v1/namespaces/team")
        self._later(chance.uniform(0, 300), self._empty_namespace, chance)
        return "deleted namespace team"

    def _empty_namespace(self, chance: random.Random) -> str:
        for name in [name for name in self.oracle.containers if name.startswith("team/")]:
            self._end(name)
        self.oracle.license(ALONE)
        self.stage.kubernetes.finish_termination()
        self._later(chance.uniform(1, 1800), self._bring_back_namespace, chance)
        return "namespace team is gone"

    def _bring_back_namespace(self, _: random.Random) -> str:
        if self.stage.kubernetes.find("namespaces", "", "team") is None:
            create_namespace(self.stage.kubernetes, "team")
        self.oracle.license(*TARGETS)
        self.stage.install()
        return "installed everything again"

    # --- GitOps and tenants with ideas

    def restore_copy(self, chance: random.Random) -> str:
        """A backup: keep copies of all Secrets, or put an old copy back, or half of it."""
        if not self._copies or chance.random() < 0.4:
            self._copies += [json.loads(json.dumps(secret)) for secret in self.stage.secrets()]
            return "kept copies of the Secrets"
        copy = chance.choice(self._copies)
        half = chance.choice(("", "", "data", "metadata"))
        self.put_back(copy, without=half)
        return f"restored an old copy of {_ref(copy)}{' without its ' + half if half else ''}"

    def put_back(self, copy: Mapping[str, Any], *, without: str = "") -> None:
        """Write a copy of a Secret over it. `without`: but for its data, or its metadata."""
        target = _ref(copy)
        self.oracle.license(target)
        self.oracle.put_back[target] = self.stage.moment()
        annotations = {CURRENT: annotations_of(copy)[CURRENT]}
        body = {"data": copy["data"], "metadata": {"annotations": annotations}}
        body.pop(without, None)
        self.oracle.mixed.add(target)
        self._take_over(target)
        self._send("PATCH", path_of(target), body)

    def _take_over(self, target: Ref) -> None:
        """What was a user's own Secret says now that it is the worker's."""
        secret = self.stage.secret(target)
        if secret is not None:
            self.oracle.foreign.discard(secret["metadata"]["uid"])

    def revert_for_a_while(self, chance: random.Random) -> str:
        """GitOps that holds a Secret to what it was once, every minute."""
        secrets = self.stage.secrets()
        if not secrets:
            return "nothing to revert"
        copy = json.loads(json.dumps(chance.choice(secrets)))

        def revert(_: random.Random) -> str:
            now = self.stage.secret(_ref(copy))
            if now is not None and now["data"] != copy["data"]:
                self.put_back(copy)
                return f"reverted {_ref(copy)}"
            return f"{_ref(copy)} is as it was"

        for minute in range(1, chance.choice((5, 30))):
            self._later(60.0 * minute, revert, chance)
        return f"holds {_ref(copy)} to what it is now"

    def copy_to_another_name(self, chance: random.Random) -> str:
        """A tenant's copy, its annotations with it: of no target, or over another target."""
        secrets = self.stage.secrets()
        if not secrets:
            return "nothing to copy"
        copy = chance.choice(secrets)
        into = chance.choice((Ref("default", "copy"), Ref("default", "copy"), SECOND, ALONE))
        if into == _ref(copy):
            return "nothing to copy"
        self.oracle.license(into)
        self.oracle.mixed.add(into)
        self._take_over(into)
        annotations = {CURRENT: annotations_of(copy)[CURRENT]}
        metadata = {"name": into.name, "namespace": into.namespace, "annotations": annotations}
        apply(self.stage.kubernetes, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": copy["data"]})
        return f"copied {_ref(copy)} to {into}"

    def forge_annotation(self, chance: random.Random) -> str:
        """An annotation that names somebody else's account, or another target's, or nothing at all."""
        target = chance.choice(TARGETS)
        secret = self.stage.secret(target)
        if secret is None:
            return "nothing to forge"
        honest = named(secret)
        others = [a.id for a in self.stage.accounts()] + sorted(self.stage.strangers)
        victim = chance.choice(others) if others else "user-nobody"
        recorded = [name for name, account in self.stage.recorded(target).items() if "publishedAt" not in account]
        forged: dict[str, Any] = chance.choice(
            (
                {**honest, "id": victim},
                {**honest, "id": victim, "name": "app_stranger000"},
                {**honest, "id": victim, "name": chance.choice(recorded or ["nobody"]), "target": str(target)},
                {**honest, "ledger": "another-ledger"},
                {"id": "../../users", "name": "x"},
                {},
            )
        )
        self.oracle.license(target)
        self.oracle.forged.add(str(forged.get("id")))
        self._take_over(target)
        self._send("PATCH", path_of(target), {"metadata": {"annotations": {CURRENT: json.dumps(forged)}}})
        return f"forged the annotation of {target}"

    # --- kubelets and whoever uses keys

    def start_container(self, chance: random.Random) -> str:
        """A kubelet reads the Secret, now or from its cache; up to a minute later it reports the start."""
        return self.start_in(chance.choice(TARGETS), chance)

    def start_in(self, target: Ref, chance: random.Random) -> str:
        """Start a container that uses this target."""
        era = self.oracle.current_era(target)
        if self._cut is not None:
            return "the node is cut off: nothing starts"
        beside = any(
            container.target == target and self.stage.moment() - container.began <= WATCHED
            for container in self.oracle.containers.values()
        )
        if beside and chance.random() < 0.2:
            # Its kubelet asks anew where no other pod has the Secret, or none has read it for long.
            era = self.oracle.former_era(target, ended_within=STALE_CACHE) or era
        if era.account is None or era.account not in self.oracle.made:
            return f"no key of ours in {target}"
        name = f"{target.namespace}/pods/pod-{self._count}"
        container = {"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": target.name}}]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"pod-{self._count}", "namespace": target.namespace},
            "spec": {"nodeName": NODE, "containers": [container]},
        }
        apply(self.stage.kubernetes, pod)
        self._hold(name, target, era, chance)
        return f"started {name} with the key of {self.oracle.made[era.account].name}"

    def _hold(self, name: str, target: Ref, era: Era, chance: random.Random) -> None:
        assert era.account is not None
        pause = chance.uniform(0, 60)
        state = {"running": {"startedAt": format_time(self.stage.now() + timedelta(seconds=pause))}}
        status = {"phase": "Running", "containerStatuses": [{"name": "c", "state": state}]}
        if self._cut is None:
            self._send("PATCH", f"/api/v1/namespaces/{name}/status", {"status": status})
        else:
            self._untold[name] = status
        began = self.stage.moment()
        self.oracle.containers[name] = Container(era.account, target, era, began + pause, began)

    def cut_node_off(self, chance: random.Random) -> str:
        """Its kubelet goes on with what it had, and restarts containers with it."""
        if self._cut is not None:
            return "the node is cut off already"
        self._cut = {target: self.oracle.current_era(target) for target in TARGETS}
        lasts = chance.choice((30.0, 400.0, 1500.0))

        def noticed(_: random.Random) -> str:
            if self._cut is None:
                return "the node is back"
            set_node(self.stage.kubernetes, NODE, ready=False, since=self.stage.now())
            return "the node is not Ready"

        def back(_: random.Random) -> str:
            self._reconnect(noticed=lasts > 60)
            return "the node is back"

        self._later(50.0, noticed, chance)
        self._later(lasts, back, chance)
        for _ in range(2):
            self._later(chance.uniform(5, lasts), self.restart_container, chance)
        return f"cut the node off for {lasts:.0f} s"

    def _reconnect(self, *, noticed: bool) -> None:
        if self._cut is None:
            return
        self._cut = None
        if noticed:
            set_node(self.stage.kubernetes, NODE, ready=True, since=self.stage.now())
        for name, status in self._untold.items():
            if name in self.oracle.containers:
                self._send("PATCH", f"/api/v1/namespaces/{name}/status", {"status": status})
        self._untold.clear()

    def restart_container(self, chance: random.Random) -> str:
        """In place: it reads the Secret anew."""
        if not self.oracle.containers:
            return "no container to restart"
        name = chance.choice(sorted(self.oracle.containers))
        pod = self.stage.kubernetes.find("pods", name.partition("/")[0], name.rpartition("/")[2])
        assert pod is not None
        secret = pod["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"]
        target = Ref(name.partition("/")[0], secret)
        era = self.oracle.current_era(target) if self._cut is None else self._cut[target]
        if era.account is None:
            self._end(name)
            return f"{name} could not start again and was deleted"
        self._hold(name, target, era, chance)
        return f"restarted {name}"

    def stop_container(self, chance: random.Random) -> str:
        if not self.oracle.containers:
            return "no container to stop"
        if self._cut is not None:
            return "the node is cut off: nothing is heard of what stops"
        name = chance.choice(sorted(self.oracle.containers))
        self._end(name)
        return f"stopped {name}"

    def _end(self, name: str) -> None:
        del self.oracle.containers[name]
        self._send("DELETE", f"/api/v1/namespaces/{name}?gracePeriodSeconds=0")

    def use_key_unseen(self, chance: random.Random) -> str:
        """Somebody takes a key out of the cluster and uses it every few minutes."""
        secrets = self.stage.secrets()
        if not secrets:
            return "no key to take"
        secret = chance.choice(secrets)
        keys = [base64.b64decode(value).decode() for value in secret["data"].values()]

        def use(_: random.Random) -> str:
            return "used a key" if any(map(self.stage.openai.use, keys)) else "a key is not accepted"

        for number in range(chance.choice((3, 20))):
            self._later(chance.uniform(60, 240) * (number + 1), use, chance)
        return f"took the key of {_ref(secret)}"

    # --- OpenAI

    def moody(self, chance: random.Random) -> str:
        """Slow to accept keys, slow to list accounts, slow to show uses or not at all; for a while."""
        openai = self.stage.openai
        openai.acceptance_delay = chance.choice((0.0, 3.0, 20.0, 70.0))
        openai.listing_delay = chance.choice((0.0, 5.0, 120.0))
        openai.usage_delay = chance.choice((0.0, 60.0))
        openai.shows_uses = chance.random() < 0.8
        self._later(chance.uniform(60, 3600), self._good_mood, chance)
        return f"keys after {openai.acceptance_delay:.0f} s, lists after {openai.listing_delay:.0f} s"

    def _good_mood(self, _: random.Random) -> str:
        openai = self.stage.openai
        openai.acceptance_delay = openai.listing_delay = openai.usage_delay = 0.0
        openai.shows_uses = True
        return "OpenAI is well again"

    # --- the end

    def calm_down(self) -> None:
        """Nobody does anything any more; what users have broken is put right, as the worker's messages ask for."""
        self.calm = True
        chance = random.Random(0)
        self._reconnect(noticed=True)
        while self.oracle.containers:
            self._end(min(self.oracle.containers))
        self._good_mood(chance)
        self._clock_acts.calm()
        self.openai_acts.calm()
        self.stage.kubernetes.finish_termination()
        self._bring_back_namespace(chance)
        for namespace in ("default", "team"):
            self._send("PATCH", generator_path(namespace), {"spec": {"projectId": PROJECT}})
        self.user_acts.calm()
        self.ledger_acts.calm()
        if self.stage.admin_rotates:
            self.stage.ask_for_admin_keys(None)  # so that the last former keys can go
        self._say("-- calm")

    @property
    def lost_the_ledger(self) -> bool:
        """Is there anything for `adopt` to find?"""
        return "ledger" in self.stage.setting.wider or self.ledger_acts.lost

    def clean_up(self, *, adopted: bool = True) -> None:
        """Users delete the Secrets that they have spoilt; once `adopt` has been tried, also those that it left."""
        for target in TARGETS:
            if self.stage.secret(target) is not None and self._is_spoilt(target, adopted=adopted):
                self._send("DELETE", path_of(target))
        self.oracle.license(*TARGETS)
        self.oracle.look(by_user=True)

    def _is_spoilt(self, target: Ref, *, adopted: bool) -> bool:
        """Is the Secret a copy or forged? Its user has to delete it."""
        secret = self.stage.secret(target)
        if secret is None:
            return False
        annotation = named(secret)
        made = self.oracle.made.get(self.stage.carried(secret) or "")
        honest = made is not None and (annotation.get("name"), annotation.get("target")) == (made.name, str(target))
        if not honest or annotation["id"] != self.stage.carried(secret):
            return True
        if not adopted:
            return False
        # What the ledger does not know, or an earlier ledger wrote, has been adopted, or has to go.
        recorded = self.stage.recorded(target).get(annotation["name"], {})
        if not self.lost_the_ledger:
            return annotation.get("ledger") != self.stage.ledgers[-1]
        return annotation.get("ledger") not in self.stage.ledgers or recorded.get("id") != annotation["id"]


def _ref(obj: Mapping[str, Any]) -> Ref:
    return Ref(obj["metadata"]["namespace"], obj["metadata"]["name"])
