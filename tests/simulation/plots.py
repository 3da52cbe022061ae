"""Things that happen in an order that chance rarely finds: each plot is one, with chance in all its particulars.

A plot is played before the rest of its history, which then goes on with whatever the plot has left.
Guarantee: a plot only does what users, tenants, kubelets, runs and networks do; the oracle judges it as all else.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sandbox.kubernetes.setup import apply, send
from sandbox.transport.faults import Fate, answered, delivered
from sandbox.transport.wire import Request, Response
from tests.simulation.at_rest import check_adopted, check_current, check_nothing_left
from tests.simulation.commands import ADOPT, RUN, Command, Revoke
from tests.simulation.fates import Fates, Roughness
from tests.simulation.memory import Run
from tests.simulation.oracle import Oracle, kind_of
from tests.simulation.play import FALLBACK_KEY, Play, options_of
from tests.simulation.stage import (
    ADMIN_SECRET,
    ALONE,
    OTHER_PROJECT,
    SOURCES,
    TARGETS,
    external_secret_path,
    generator_path,
    named,
    of_generator,
    path_of,
)
from tests.support.scene import PROJECT
from worker.kubernetes.secret import CURRENT
from worker.model.values import Ref

if TYPE_CHECKING:
    from tests.simulation.history import History

PLOTS = (
    "made_anew",
    "put_back_by_git",
    "left_behind",
    "used_and_denied",
    "late_note",
    "tried_again",
    "crowded",
    "undeletable",
    "adopted_elsewhere",
    "moved",
    "a_strangers_claim",
    "put_back_while_revoked",
    "renamed_unnoted",
    "forged_before_the_first",
    "not_served",
    "of_another_age",
    "a_page_for_the_admin_key",
    "copied_by_a_human",
    "clock_set_meanwhile",
    "another_data_key",
    "seldom_looked_at",
)
LISTS = ("GET openais", "GET externalsecrets")
PUBLICATIONS = ("POST secrets", "PATCH secrets")
AFTER_CLAIM = 400.0
"""Seconds after which nobody claims anything that a run has left."""


@dataclass
class Spoilt(Fates):
    """All goes well until one request has been served; then something happens, once."""

    kinds: tuple[str, ...] = ()
    number: int = 1
    """Which request of these kinds."""
    happens: Callable[[], float] = lambda: 0.0
    """Does it, and returns the seconds for which the run stands still; less than zero: it is killed."""
    _seen: int = 0
    _pause: float = 0.0

    def fate(self, request: Request) -> Fate:
        fate = super().fate(request)
        if kind_of(request) in self.kinds and "dryRun" not in request.query:
            self._seen += 1
            if self._seen == self.number:
                # The request is served in the same turn of the loop, and its answer comes later.
                asyncio.get_running_loop().call_later(0.01, self._happen)
                return delivered(0.0, 0.1)
        return fate

    def _happen(self) -> None:
        seconds = self.happens()
        if seconds < 0:
            self.kill()
        else:
            self._pause = seconds

    def freeze(self) -> float:
        pause, self._pause = self._pause, 0.0
        return pause or super().freeze()


class Plots:
    def __init__(self, history: History) -> None:
        self._history = history
        self._stage, self._oracle, self._actors = history.stage, history.oracle, history.actors
        self._runs = 0

    async def play(self, name: str, chance: random.Random) -> None:
        """Play one of `PLOTS`."""
        self._history.say(f"-- plot: {name}")
        await getattr(self, name)(chance)
        self._oracle.look(by_user=True)
        await asyncio.sleep(AFTER_CLAIM)
        self._history.say("-- the plot is over")

    # --- what plots are made of

    async def _run(
        self,
        command: Command = RUN,
        *,
        fates: Callable[..., Fates] = Fates,
        calm: bool = True,
        step: tuple[float, timedelta] | None = None,
        **options: Any,
    ) -> bool:
        """A run without faults but those of `fates`; whether it was killed."""
        self._runs += 1
        options = {"fallback_admin_key": FALLBACK_KEY, "concurrency": 1, "max_wait": timedelta(0)} | options
        play = Play(options_of(**options), command=command, calm=calm, step=step)
        return await self._history.run(f"plot{self._runs}", play, self._history.random, fates=fates)

    def _spoilt(self, kinds: tuple[str, ...], happens: Callable[[], float], *, number: int = 1) -> Callable[..., Fates]:
        def made(run: Run, roughness: Roughness, oracle: Oracle, *others: Any) -> Fates:
            spoilt = Spoilt(run, roughness, oracle, *others)
            spoilt.kinds, spoilt.number, spoilt.happens = kinds, number, happens
            return spoilt

        return made

    def _send(self, method: str, path: str, body: object = None) -> Any:
        answer = send(self._stage.kubernetes, method, path, body=body)
        self._oracle.look(by_user=True)
        return answer

    def _source(self, asked: Ref, **spec: Any) -> dict[str, Any]:
        """The ExternalSecret of a target, as a manifest, with these fields."""
        found = copy.deepcopy(dict(self._stage.external_secret(asked) or self._stage.second()))
        metadata = {"name": asked.name, "namespace": asked.namespace}
        return {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": metadata} | {
            "spec": found["spec"] | spec
        }

    def _delete_source(self, target: Ref) -> None:
        self._oracle.license(target)
        self._send("DELETE", external_secret_path(target.name))

    def _apply_source(self, source: dict[str, Any]) -> None:
        self._oracle.license(Ref(source["metadata"]["namespace"], source["metadata"]["name"]))
        apply(self._stage.kubernetes, source)
        self._oracle.look(by_user=True)

    def _secret_copy(self, target: Ref) -> Any:
        return json.loads(json.dumps(self._stage.secret(target)))

    # --- users

    async def made_anew(self, chance: random.Random) -> None:
        """An ExternalSecret that rotates on change is deleted, its Secret outlives it, and it is made again."""
        target = chance.choice(SOURCES)
        source = self._source(target, refreshPolicy="OnChange", target={"creationPolicy": "Orphan"})
        usual = self._source(target)
        self._delete_source(target)
        self._apply_source(source)
        await self._run()
        await asyncio.sleep(chance.uniform(700, 7200))
        self._delete_source(target)
        if chance.random() < 0.5:
            await self._run()
        await asyncio.sleep(chance.uniform(1, 900))
        self._apply_source(source)
        await asyncio.sleep(1)
        await self._run()
        self._delete_source(target)
        self._apply_source(usual)

    async def put_back_by_git(self, chance: random.Random) -> None:
        """GitOps holds a Secret to what it once was, or to a value of its own, after each run."""
        target = chance.choice(TARGETS)
        await self._run()
        then = self._secret_copy(target)
        if chance.random() < 0.5:
            then["data"] = dict.fromkeys(then["data"], "b2YgZ2l0")
        for _ in range(20):
            await asyncio.sleep(chance.uniform(240, 330))
            await self._run()
            secret = self._stage.secret(target)
            if secret is not None and secret["data"] != then["data"]:
                self._actors.put_back(then)
        await asyncio.sleep(3700)

    async def left_behind(self, chance: random.Random) -> None:
        """An ExternalSecret goes, its Secret stays, and its user puts another key of their own into it."""
        target = chance.choice(SOURCES)
        usual = self._source(target)
        self._apply_source(self._source(target, target={"creationPolicy": "Orphan"}))
        await self._run()
        await asyncio.sleep(chance.uniform(700, 7200))
        self._delete_source(target)
        labels = dict.fromkeys((self._stage.secret(target) or {})["metadata"].get("labels", {}))
        data = dict.fromkeys((self._stage.secret(target) or {}).get("data", {}))
        metadata = {"annotations": {CURRENT: None}, "labels": labels}
        self._send("PATCH", path_of(target), {"data": {**data, "api_key": "bXkgb3du"}, "metadata": metadata})
        for pause in (AFTER_CLAIM, 1200, 90_000, 1200):
            await asyncio.sleep(pause)
            await self._run()
        check_nothing_left(self._oracle, target)
        self._send("DELETE", path_of(target))
        self._apply_source(usual)

    async def used_and_denied(self, chance: random.Random) -> None:
        """Somebody unseen uses a superseded key, and a replica of OpenAI's that is behind denies it."""
        await self._run()
        for _ in range(3):
            await asyncio.sleep(chance.uniform(1900, 3700))
            self._actors.do(self._actors.use_key_unseen, chance)
            await self._run()
            for _ in range(2):
                await asyncio.sleep(chance.uniform(200, 800))
                await self._run(fates=_Denied, calm=False)

    async def seldom_looked_at(self, chance: random.Random) -> None:
        """The operator asks for few looks. In between somebody puts a dead key back, or its owner changes its mind."""
        few: dict[str, Any] = {"look_every": timedelta(hours=1)}
        target = chance.choice(SOURCES)
        usual = self._source(target)
        self._apply_source(self._source(target, refreshInterval="24h"))
        await self._run(**few)
        before = self._secret_copy(target)
        await asyncio.sleep(chance.uniform(600, 900))
        await self._run(force=True, **few)
        for _ in range(3):
            await asyncio.sleep(chance.uniform(600, 900))
            await self._run(**few)
        if chance.random() < 0.5:
            self._actors.put_back(before)
            self._oracle.look(by_user=True)
        else:
            self._apply_source(self._source(target, refreshInterval="24h", target={"creationPolicy": "Orphan"}))
        for _ in range(9):
            await asyncio.sleep(600)
            await self._run(**few)
        self._apply_source(usual)

    # --- runs that die, stand still, or are tried again

    async def late_note(self, chance: random.Random) -> None:
        """A run stands still right after it has published; before it goes on, others have rotated again."""
        pause = chance.uniform(300, 800)
        kinds = chance.choice((PUBLICATIONS, ("PATCH secrets",)))
        await self._run()
        await asyncio.sleep(1000)
        slow = self._run(force=True, job="slow", fates=self._spoilt(kinds, lambda: pause), calm=False)
        others = asyncio.create_task(self._rotate_meanwhile(chance))
        await slow
        await others

    async def _rotate_meanwhile(self, chance: random.Random) -> None:
        await asyncio.sleep(chance.uniform(215, 240))
        await self._run()
        await asyncio.sleep(1)
        await self._run(force=True, job="quick")

    async def tried_again(self, chance: random.Random) -> None:
        """A Job that forces is killed when it has rotated some targets, and Kubernetes tries it again."""
        await self._run()
        await asyncio.sleep(chance.uniform(100, 600))
        job = f"job-{chance.randrange(1000)}"
        number = chance.choice((2, 3))
        await self._run(force=True, job=job, fates=self._spoilt(PUBLICATIONS, lambda: -1.0, number=number), calm=False)
        await asyncio.sleep(chance.choice((1.0, 5.0, 300.0)))
        await self._run(force=True, job=job)

    # --- bounds

    async def crowded(self, chance: random.Random) -> None:
        """Containers hold each account of a target that is rotated again and again."""
        target = chance.choice(TARGETS)
        most = chance.choice((2, 3))
        for _ in range(most + 2):
            await self._run(force=True, max_accounts=most)
            self._history.say(self._actors.start_in(target, chance))
            self._oracle.look(by_user=True)
            await asyncio.sleep(chance.uniform(800, 1500))

    async def undeletable(self, chance: random.Random) -> None:
        """The admin key may make accounts and not delete them, for half a day."""
        self._stage.openai_seen.keeps = True
        self._history.say("no account can be deleted from now on")
        for _ in range(9):
            await self._run(max_wait=timedelta(minutes=5))
            await asyncio.sleep(chance.uniform(3500, 4000))
        self._stage.openai_seen.keeps = False
        self._oracle.mints.refused.clear()

    # --- adopt and revoke

    async def adopted_elsewhere(self, chance: random.Random) -> None:
        """The ledger's entry is lost while the Secret carries an account of the generator's former project."""
        await self._run()
        await asyncio.sleep(700)
        target = chance.choice(TARGETS)
        self._oracle.license(*of_generator(target.namespace))
        self._send("PATCH", generator_path(target.namespace), {"spec": {"projectId": OTHER_PROJECT}})
        self._actors.ledger_acts.delete_entry_of(target)
        await asyncio.sleep(1)
        await self._run(ADOPT)
        check_adopted(self._oracle, target)
        self._oracle.license(*of_generator(target.namespace))
        self._send("PATCH", generator_path(target.namespace), {"spec": {"projectId": PROJECT}})

    async def moved(self, chance: random.Random) -> None:
        """The ledger is moved with its namespace, and adopted; the operator's own admin key serves some targets."""
        self._actors.do(self._actors.user_acts.use_central_key, chance)
        await self._run()
        await asyncio.sleep(chance.uniform(700, 1500))
        self._actors.do(self._actors.ledger_acts.move_ledger, chance)
        await asyncio.sleep(1)
        await self._run(ADOPT)
        for target in TARGETS:
            check_adopted(self._oracle, target)

    async def a_strangers_claim(self, chance: random.Random) -> None:
        """A tenant without an admin key claims a stranger's account by an annotation, and a human adopts."""
        await self._run()
        await asyncio.sleep(700)
        victim = chance.choice(sorted(self._stage.strangers))
        honest = named(self._stage.secret(ALONE) or {"metadata": {}})
        forged = {**honest, "id": victim, "name": "app_stranger000", "target": str(ALONE)}
        self._send("DELETE", path_of(Ref(ALONE.namespace, ADMIN_SECRET)))
        self._oracle.license(ALONE)
        self._send("PATCH", path_of(ALONE), {"metadata": {"annotations": {CURRENT: json.dumps(forged)}}})
        await asyncio.sleep(1)
        await self._run(ADOPT)
        self._actors.mend_admin_keys(chance)
        self._oracle.license(ALONE)
        self._send("PATCH", path_of(ALONE), {"metadata": {"annotations": {CURRENT: json.dumps(honest)}}})

    async def put_back_while_revoked(self, chance: random.Random) -> None:
        """The Secret is put back to the key that is being revoked, when the new one is there."""
        target = chance.choice(TARGETS)
        await self._run()
        then = self._secret_copy(target)
        await asyncio.sleep(700)

        stands_still = chance.choice((0.0, 8.0, 8.0))

        def put_back() -> float:
            self._actors.put_back(then)
            self._oracle.look(by_user=True)
            return stands_still

        kinds, number = chance.choice(
            ((("GET pods",), 2), (("GET secrets",), chance.randrange(3, 6)), (("GET service_accounts",), 2))
        )
        await self._run(Revoke(target), fates=self._spoilt(kinds, put_back, number=number), calm=False)
        check_current(self._oracle, target, "revoke")

    # --- tenants and humans at odd moments

    async def renamed_unnoted(self, chance: random.Random) -> None:
        """A run dies right after it has published; a human renames the account before the next run notes it."""
        if chance.random() < 0.5:
            await self._run()
            await asyncio.sleep(3700)
        await self._run(fates=self._spoilt(PUBLICATIONS, lambda: -1.0), calm=False)
        await asyncio.sleep(AFTER_CLAIM)
        for target in TARGETS:
            self._rename(target)
        for _ in range(3):
            await self._run()
            await asyncio.sleep(chance.uniform(300, 900))
        self._actors.openai_acts.give_names_back()

    def _rename(self, target: Ref) -> None:
        """The account that the Secret carries, and that no entry knows by its id."""
        carried = self._stage.carried(self._stage.secret(target))
        known = [a.get("id") for a in self._stage.recorded(target).values()]
        account = next((a for a in self._stage.accounts() if a.id == carried and a.id not in known), None)
        if account is not None:
            self._stage.openai.rename_account(account.project, account.id, f"renamed-{account.name[-5:]}")
            self._history.say(f"renamed {account.name}")

    async def forged_before_the_first(self, chance: random.Random) -> None:
        """A run dies right after its first create; a tenant makes the Secret, with a stranger's id and that name."""
        await self._run(fates=self._spoilt(("POST service_accounts",), lambda: -1.0), calm=False)
        await asyncio.sleep(AFTER_CLAIM)
        for target in TARGETS:
            intents = [n for n, a in self._stage.recorded(target).items() if "publishedAt" not in a and "id" not in a]
            if not intents or self._stage.secret(target) is not None:
                continue
            account = self._stage.recorded(target)[intents[0]]
            annotation = {
                "id": chance.choice(sorted(self._stage.strangers)),
                "name": intents[0],
                "target": str(target),
                "ledger": self._stage.ledgers[-1],
                "host": account["host"],
                "projectId": account["projectId"],
                "dataKey": "api_key",
            }
            self._oracle.license(target)
            self._oracle.mixed.add(target)
            metadata = {
                "name": target.name,
                "namespace": target.namespace,
                "annotations": {CURRENT: json.dumps(annotation)},
                "labels": {"openai-key-rotator.io/managed": "true"},
            }
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"api_key": "bXkgb3du"}}
            self._send("POST", path_of(target).rpartition("/")[0], body)
            self._history.say(f"a tenant makes {target} with a stranger's id")
        for pause in (1.0, 3700.0, 1200.0, 90_000.0, 1200.0):
            await asyncio.sleep(pause)
            await self._run()

    async def not_served(self, chance: random.Random) -> None:
        """The cluster does not serve ExternalSecrets for a day, and a Secret of theirs is deleted meanwhile."""
        for _ in range(2):
            await self._run()
            await asyncio.sleep(3700)
        self._stage.cluster_seen.unserved = True
        self._oracle.unserved_since = self._stage.moment()
        await asyncio.sleep(1)
        if chance.random() < 0.7:
            target = chance.choice(SOURCES)
            self._oracle.license(target)
            self._send("DELETE", path_of(target))
        for pause in (60.0, 1200.0, 90_000.0, 1200.0):
            await asyncio.sleep(pause)
            await self._run()
        self._stage.cluster_seen.unserved = False
        self._oracle.unserved_since = float("inf")
        self._oracle.license(*TARGETS)

    async def of_another_age(self, chance: random.Random) -> None:
        """Times in the ledger are of another age right after they were written, and put right after the next run."""
        await self._run()
        for _ in range(4):
            await asyncio.sleep(chance.uniform(1900, 3700))
            await self._run()
            for target in TARGETS:
                self._history.say(self._actors.ledger_acts.edit_end_of(target, chance))
            self._oracle.look(by_user=True)
            await self._run()
            self._actors.ledger_acts.put_right()

    async def copied_by_a_human(self, chance: random.Random) -> None:
        """A human makes an account with the name of ours and uses it; ours is rotated, and goes.

        When ours was asked for is not known, for a wrong clock wrote it: only its use tells the human's account.
        """
        await self._run()
        await asyncio.sleep(chance.uniform(700, 1500))
        for target in TARGETS:
            self._actors.ledger_acts.edit_requests_ahead(target)
        self._actors.do(self._actors.openai_acts.copy_account, chance)
        for _ in range(3):
            await asyncio.sleep(chance.uniform(700, 3700))
            await self._run()

    async def clock_set_meanwhile(self, chance: random.Random) -> None:
        """Somebody sets the machine's clock while a run is on it; what was superseded lacks seconds of its grace."""
        await self._run()
        await asyncio.sleep(chance.uniform(3700, 5000))
        await self._run(force=True)
        grace = self._stage.setting.grace.total_seconds()
        await asyncio.sleep(max(1.0, grace - chance.uniform(10, 60)))
        # The first request has told the time; the second lasts until somebody has set the clock.
        slow = self._spoilt(LISTS, lambda: 0.0, number=2)
        await self._run(fates=slow, step=(0.05, timedelta(minutes=chance.choice((4, 4, 30, -4)))))

    async def another_data_key(self, chance: random.Random) -> None:
        """An ExternalSecret's data key is renamed, and the annotation, which tells the former one, is forged."""
        await self._run()
        await asyncio.sleep(chance.uniform(700, 3700))
        target = chance.choice(SOURCES)
        self._history.say(self._actors.user_acts.rename_data_key(chance, target))
        annotation = named(self._stage.secret(target) or {"metadata": {}})
        forged = chance.choice(({**annotation, "dataKey": self._stage.data_key(target)}, {}))
        self._oracle.license(target)
        self._send("PATCH", path_of(target), {"metadata": {"annotations": {CURRENT: json.dumps(forged)}}})
        for pause in (1.0, 1200.0, 3700.0):
            await asyncio.sleep(pause)
            await self._run()

    async def a_page_for_the_admin_key(self, chance: random.Random) -> None:
        """A proxy answers with a page of its own, 404, where a run reads an admin key."""
        await self._run()
        await asyncio.sleep(chance.uniform(3700, 5000))
        await self._run()
        await asyncio.sleep(chance.uniform(300, 900))
        await self._run(fates=_Paged, calm=False)


@dataclass
class _Answered(Fates):
    """Something in between answers the requests that `hides` knows."""

    def fate(self, request: Request) -> Fate:
        if not self.hides(request):
            return super().fate(request)
        self.oracle.sent(self.run, request)
        return answered(self.answer())

    def hides(self, request: Request) -> bool:
        raise NotImplementedError

    def answer(self) -> Response:
        raise NotImplementedError


@dataclass
class _Paged(_Answered):
    """Nobody gets an admin key to see."""

    def hides(self, request: Request) -> bool:
        return kind_of(request) == "GET secrets" and request.segments[-1] == ADMIN_SECRET

    def answer(self) -> Response:
        return Response.of_text(404, "<html>no such page</html>", "text/html")


@dataclass
class _Denied(_Answered):
    """OpenAI says of each single key that there is none."""

    def hides(self, request: Request) -> bool:
        return kind_of(request) == "GET api_keys" and not request.path.endswith("/api_keys")

    def answer(self) -> Response:
        return Response.of_json(404, {"error": {"message": "There is no such key.", "code": None}})
