"""People around the operator's admin keys: scripts that use one, an operator who puts in a new or an old one."""

from __future__ import annotations

import random
from collections.abc import Callable

from sandbox.kubernetes.setup import send
from tests.simulation.oracle import Oracle
from tests.simulation.stage import CENTRAL, FALLBACK, Stage
from tests.support.scene import LEDGER

NAMES = (CENTRAL, FALLBACK)


class AdminActs:
    def __init__(self, stage: Stage, oracle: Oracle, say: Callable[[str], None]) -> None:
        self._stage, self._oracle, self._say = stage, oracle, say
        self._scripts: list[str] = []
        self.acts = (self._give, self._use, self._use, self._use, self._put_own, self._put_back, self._toggle)

    def act(self, chance: random.Random) -> None:
        """Do one of them."""
        act = chance.choice(self.acts)
        self._say(f"admin keys: {act.__name__.strip('_')} {act(chance)}")
        self._oracle.look(by_user=True)

    def _give(self, chance: random.Random) -> str:
        """The operator gives the present key to a script."""
        name = chance.choice(NAMES)
        value = self._stage.admin_value(name)
        if value is not None:
            self._scripts.append(value)
        return name

    def _use(self, chance: random.Random) -> str:
        """A script uses its key: perhaps a former one by now."""
        if not self._scripts:
            return "none"
        value = chance.choice(self._scripts)
        key = self._stage.openai.admin_key(value)
        if key is None or not self._stage.openai.use_admin_key(value):
            return "a dead one"
        self._stage.admin_uses[key.id] = self._stage.moment()
        return key.id

    def _put_own(self, chance: random.Random) -> str:
        """The operator puts in a key that they have just made."""
        name, value = chance.choice(NAMES), self._stage.openai.add_admin_key("acme")
        self._write(name, value)
        return name

    def _put_back(self, chance: random.Random) -> str:
        """Something puts an earlier key back, dead or alive."""
        name = chance.choice(NAMES)
        former = [value for value, owner in self._stage.former_admin_keys.items() if owner == name]
        if not former:
            return "nothing"
        value = chance.choice(former)
        if self._stage.openai.admin_key(value) is None:
            self._oracle.admin.dead.add(value)
        self._write(name, value)
        return name

    def _toggle(self, chance: random.Random) -> str:
        """The operator changes their mind, and again."""
        interval = chance.choice((None, "1h", "1h", "2h"))
        self._stage.ask_for_admin_keys(interval)
        return str(interval)

    def _write(self, name: str, value: str) -> None:
        if self._stage.admin_value(name) is not None:
            path = f"/api/v1/namespaces/{LEDGER}/secrets/{name}"
            send(self._stage.kubernetes, "PATCH", path, body={"stringData": {"api-key": value}})
