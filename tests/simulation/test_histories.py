"""Random histories; a failing one prints the command that replays it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.fates import SENT
from tests.simulation.history import History, Violation
from tests.simulation.search import REPLAY, Found, play, report, search
from tests.support.scene import ROOT

FIRST = int(os.environ.get("SIMULATION_FIRST_SEED", "1"))
COUNT = int(os.environ.get("SIMULATION_SEEDS", "40"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_a_rough_history_ends_clean(seed: int) -> None:
    """Whatever is lost, late, refused or killed: nothing is orphaned, no Secret carries a dead key, nothing wedges."""
    history = History(seed)
    try:
        history.play()
    except BaseException:
        print("\n".join(history.trace[-80:]))
        print(f"replay it with its whole trace: {REPLAY.format(seed)}")
        raise


def test_a_history_is_the_same_each_time_whatever_the_hash_seed_is() -> None:
    """Otherwise a failing seed could not be replayed."""
    command = [sys.executable, "-m", "tests.simulation", "--replay", "3"]
    traces = [
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert traces[0] == traces[1]
    assert len(traces[0].splitlines()) > 100


def test_the_oracle_stops_a_history_in_which_something_is_lost() -> None:
    """Here an account's record, by a hand that reaches into the ledger."""
    history = History(1)
    run = history.actors.calm_down

    def steal() -> None:
        run()
        history.oracle.made["user-stolen"] = next(iter(history.oracle.made.values()))
        account, _ = history.stage.openai.add_account("my-openai-project-id", "app_lost")
        history.oracle.made[account.id] = history.oracle.made["user-stolen"]

    history.actors.calm_down = steal  # type: ignore[method-assign]
    with pytest.raises(Violation, match="exists and is not in the ledger"):
        history.play()


def test_a_search_finds_the_same_on_any_number_of_cores() -> None:
    """And says how often each kind of request met each fault."""
    alone, together = play(range(1, 13)), Found()
    for part in search(range(1, 13), jobs=2):
        together.add(part)
    assert together == alone
    text = report(together)
    assert text.startswith("12 histories")
    assert "0 violations" in text
    assert together.tally["POST service_accounts", SENT] > 0
