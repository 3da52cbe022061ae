"""Whether a workload is restarted for a publication, and what the ledger says afterwards."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.builders import LEDGER, NOW, SECRET, account, entry, intent, minutes, publication
from worker.model.entries import Restart, RestartState
from worker.model.values import Ref, Version
from worker.model.workloads import Workload, WorkloadKind, WorkloadView
from worker.plan.restart import (
    NOBODY,
    UNDER_WAY,
    Fate,
    Stamp,
    Verdict,
    cannot_wait,
    decide_restart,
    restart_after,
    restart_due,
)

APP = Workload(WorkloadKind.DEPLOYMENT, Ref(SECRET.namespace, "app"))
DB = Workload(WorkloadKind.STATEFUL_SET, Ref(SECRET.namespace, "db"))
PUBLISHED = NOW - minutes(5)
VIEW = WorkloadView(APP, Version("uid", "1"))


def test_it_is_stamped_with_the_time_of_the_publication() -> None:
    assert decide_restart(VIEW, PUBLISHED, urgent=False, now=NOW) == Stamp(PUBLISHED)
    before = replace(VIEW, stamp=PUBLISHED - minutes(60))
    assert decide_restart(before, PUBLISHED, urgent=False, now=NOW) == Stamp(PUBLISHED)


@pytest.mark.parametrize("later", [0.0, 3.0, 5.5])
def test_a_restart_since_the_publication_is_enough(later: float) -> None:
    """An earlier run's, or a human's: also while its rollout is under way, and by a clock that is a bit ahead."""
    view = replace(VIEW, stamp=PUBLISHED + minutes(later), rolling=True)
    assert decide_restart(view, PUBLISHED, urgent=True, now=NOW) == Verdict(Fate.ALREADY)


def test_a_stamp_from_the_future_is_not_believed() -> None:
    """It would keep the workload from any restart until then."""
    view = replace(VIEW, stamp=NOW + timedelta(days=365))
    assert decide_restart(view, PUBLISHED, urgent=False, now=NOW) == Stamp(PUBLISHED)


def test_a_rollout_under_way_is_waited_for_unless_it_cannot_wait() -> None:
    view = replace(VIEW, rolling=True)
    assert decide_restart(view, PUBLISHED, urgent=False, now=NOW) == Verdict(Fate.WAITS, UNDER_WAY)
    assert decide_restart(view, PUBLISHED, urgent=True, now=NOW) == Stamp(PUBLISHED)


def test_an_obstacle_is_one_however_urgent_it_is() -> None:
    view = replace(VIEW, obstacle="it is paused")
    assert decide_restart(view, PUBLISHED, urgent=True, now=NOW) == Verdict(Fate.HINDERED, "it is paused")


def test_it_is_due_until_the_ledger_says_that_it_is_done() -> None:
    asked = publication(restart=Restart())
    assert restart_due(entry(asked), LEDGER, NOW) == asked
    waiting = publication(restart=Restart(RestartState.WAITING, why=UNDER_WAY))
    assert restart_due(entry(waiting), LEDGER, NOW) == waiting
    assert restart_due(entry(publication(restart=Restart(RestartState.DONE, at=NOW))), LEDGER, NOW) is None
    assert restart_due(entry(publication()), LEDGER, NOW) is None


def test_it_is_not_due_where_another_run_works_or_another_ledger_rules() -> None:
    asked = publication(restart=Restart())
    assert restart_due(entry(asked, unpublished=(intent(),)), LEDGER, NOW) is None
    assert restart_due(entry(asked), "another", NOW) is None
    assert restart_due(entry(replace(asked, superseded_at=NOW)), LEDGER, NOW) is None


@pytest.mark.parametrize(("left", "urgent"), [(16.0, False), (14.0, True), (-5.0, True)])
def test_in_the_last_quarter_of_an_earlier_keys_life_it_cannot_wait(left: float, urgent: bool) -> None:
    born = NOW + minutes(left) - minutes(60)
    ending = publication("old", born, account=account("old", expires_at=NOW + minutes(left)), superseded_at=PUBLISHED)
    assert cannot_wait(entry(ending, publication("new", PUBLISHED)), None, NOW) is urgent


def test_near_the_longest_hold_it_cannot_wait() -> None:
    """Then the worker deletes the account, held or not."""
    held = entry(
        publication("old", NOW - timedelta(days=3), superseded_at=NOW - minutes(50)), publication("new", PUBLISHED)
    )
    assert cannot_wait(held, timedelta(hours=1), NOW)
    assert not cannot_wait(held, timedelta(days=3), NOW)
    assert not cannot_wait(held, None, NOW)


def test_where_the_keys_that_containers_have_are_dead_it_cannot_wait() -> None:
    """Somebody revoked them. Where all earlier accounts went by themselves nobody had their keys."""
    assert cannot_wait(entry(publication("new", PUBLISHED, restart=Restart(urgent=True))), None, NOW)
    assert not cannot_wait(entry(publication("new", PUBLISHED, restart=Restart())), None, NOW)


def test_what_is_done_stays_done_and_the_rest_has_its_reasons() -> None:
    before = Restart(RestartState.WAITING, ("daemonset/agent",), why=UNDER_WAY)
    verdicts = {DB: Verdict(Fate.WAITS, UNDER_WAY), APP: Verdict(Fate.STAMPED)}
    after = restart_after(before, verdicts, NOW)
    assert after == Restart(
        RestartState.WAITING, ("daemonset/agent", "deployment/app"), why=f"statefulset/db: {UNDER_WAY}"
    )
    assert restart_after(after, {DB: Verdict(Fate.ALREADY)}, NOW) == Restart(
        RestartState.DONE, ("daemonset/agent", "deployment/app", "statefulset/db"), at=NOW
    )


@pytest.mark.parametrize(
    ("fate", "state"),
    [
        (Fate.WAITS, RestartState.WAITING),
        (Fate.FAILED, RestartState.WAITING),
        (Fate.HINDERED, RestartState.BLOCKED),
    ],
)
def test_only_what_needs_a_human_blocks(fate: Fate, state: RestartState) -> None:
    assert restart_after(Restart(), {APP: Verdict(fate, "why")}, NOW).state is state
    assert restart_after(Restart(), {}, NOW, trouble=Verdict(fate, "why")) == Restart(state, why="why")


def test_of_many_reasons_the_first_few_are_told() -> None:
    verdicts = {
        Workload(WorkloadKind.DEPLOYMENT, Ref("default", f"a{i}")): Verdict(Fate.WAITS, "why") for i in range(9)
    }
    why = restart_after(Restart(), verdicts, NOW).why
    assert why == "deployment/a0: why; deployment/a1: why; deployment/a2: why; and 6 more"


def test_nothing_to_restart_is_done() -> None:
    assert restart_after(Restart(), {}, NOW) == Restart(RestartState.DONE, at=NOW, why=NOBODY)
