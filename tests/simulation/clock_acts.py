"""The API server's clock, which somebody sets wrong, and right again."""

from __future__ import annotations

import random
from datetime import timedelta

from tests.simulation.hands import Act, Hands
from tests.simulation.stage import TARGETS

ERRORS = (timedelta(minutes=3), timedelta(hours=1), timedelta(days=30))


class ClockActs:
    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self.acts: tuple[Act, ...] = (self.set_server_clock,) * 2

    def set_server_clock(self, chance: random.Random) -> str:
        """It is ahead for a while: in each answer, and in all that it and the worker write."""
        stage = self._hands.stage
        if stage.server_error:
            return "the API server's clock is wrong already"
        stage.set_server_clock(chance.choice(ERRORS))
        # What is recorded then may be renewed, or asked for again, once the times are doubted.
        self._hands.oracle.license(*TARGETS)
        self._hands.later(chance.uniform(30, 3600), self._put_right, chance)
        return f"the API server's clock is {stage.server_error} ahead"

    def _put_right(self, _: random.Random) -> str:
        self.calm()
        return "the API server's clock is right again"

    def calm(self) -> None:
        """Put it right."""
        if self._hands.stage.server_error:
            self._hands.stage.set_server_clock(timedelta(0))
            self._hands.oracle.license(*TARGETS)
