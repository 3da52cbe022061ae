"""Random histories; a failing one prints the command that replays it."""

from __future__ import annotations

import os

import pytest

from tests.simulation.history import History, Profile

FIRST = int(os.environ.get("SIMULATION_FIRST_SEED", "1"))
COUNT = int(os.environ.get("SIMULATION_SEEDS", "40"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_a_rough_history_ends_clean(seed: int) -> None:
    """Whatever is lost, late, refused or killed: nothing is orphaned, no Secret carries a dead key, nothing wedges."""
    history = History(seed, Profile())
    try:
        history.play()
    except BaseException:
        print("\n".join(history.trace[-80:]))
        print(f"replay: SIMULATION_FIRST_SEED={seed} SIMULATION_SEEDS=1 pytest tests/simulation")
        raise
