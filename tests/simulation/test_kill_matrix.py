"""A run killed at each of its requests. All situations: `make kill-matrix`."""

from __future__ import annotations

import pytest

from tests.simulation.kill_matrix import Prepare, When, due, first, gone, kill_case, lost_create, scopes_changed


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("situation", [first, due, gone, lost_create, scopes_changed])
def test_a_run_may_die_at_any_request(situation: Prepare, when: When) -> None:
    """The runs after it clean up, also one that starts at once: one live account per target, and the ledger says so."""
    killed = kill_case((situation, when, True))
    assert killed.failures == []
    assert killed.kills > 15
