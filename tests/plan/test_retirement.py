"""When a previous account may go."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import NOW, entry, intent, minutes, publication
from tests.support.strategies import TIMES
from worker.ledger.holds import hold_reason
from worker.model.entries import Hold, Publication
from worker.model.targets import CleanupKind, CleanupPolicy
from worker.plan.retirement import (
    PROPAGATION,
    Delete,
    Held,
    RetirePolicy,
    Usage,
    Wait,
    decide_retirement,
    ended_claims,
    may_yet_publish,
    ripe_at,
)

# --- retirement --------------------------------------------------------------------------------------------------

GRACE = CleanupPolicy(CleanupKind.RETAIN_LATEST, grace=minutes(2), idle=timedelta(hours=24))


IDLE = CleanupPolicy(CleanupKind.IDLE, grace=minutes(2), idle=timedelta(hours=24))


HOUR = minutes(60)


SUPERSEDED = NOW - HOUR


@pytest.mark.parametrize(
    ("policy", "superseded", "used", "verdict"),
    [
        (GRACE, NOW, None, Wait(NOW + minutes(2))),
        (GRACE, NOW - minutes(2) + timedelta(seconds=1), None, Wait(NOW + timedelta(seconds=1))),
        (GRACE, NOW - minutes(2), None, Delete),
        (GRACE, SUPERSEDED, None, Delete),
        (GRACE, SUPERSEDED, SUPERSEDED - HOUR, Delete),
        (GRACE, SUPERSEDED, SUPERSEDED + PROPAGATION, Delete),
        (GRACE, SUPERSEDED, SUPERSEDED + PROPAGATION + timedelta(seconds=1), Held),
        (GRACE, SUPERSEDED, NOW, Held),
        (GRACE, NOW - 24 * HOUR, NOW, Delete),
        (GRACE, NOW - 24 * HOUR + timedelta(seconds=1), NOW, Held),
        (IDLE, NOW, None, Wait(NOW + 24 * HOUR)),
        (IDLE, NOW - 24 * HOUR, None, Delete),
        (IDLE, NOW - 25 * HOUR, NOW - 26 * HOUR, Delete),
        (IDLE, NOW - 25 * HOUR, NOW - HOUR, Held),
        (IDLE, NOW - 25 * HOUR, NOW - 24 * HOUR, Delete),
        (IDLE, NOW - 900 * HOUR, NOW, Held),
    ],
)
def test_a_previous_account_goes_by_its_policy_and_its_last_use(
    policy: CleanupPolicy, superseded: datetime, used: datetime | None, verdict: object
) -> None:
    """Never used is no use at all; an unseen user holds it for a day at most, an idle policy as long as it is used."""
    found = decide_retirement(
        publication(superseded_at=superseded), Usage(used), RetirePolicy(policy, 24 * HOUR), now=NOW
    )
    assert found == verdict if isinstance(verdict, Wait) else isinstance(found, verdict)  # type: ignore[arg-type]


def test_a_key_that_was_in_use_just_now_is_looked_at_once_more() -> None:
    """At the default grace nobody could tell yet whether a use was the last of a volume or one of many to come."""
    policy = CleanupPolicy(CleanupKind.RETAIN_LATEST, timedelta(minutes=2))
    just = NOW - timedelta(minutes=2)
    found = decide_retirement(
        publication(superseded_at=just), Usage(just + timedelta(minutes=1)), RetirePolicy(policy, 24 * HOUR), now=NOW
    )
    assert found == Wait(just + 2 * PROPAGATION)
    found = decide_retirement(
        publication(superseded_at=just), Usage(just - timedelta(minutes=1)), RetirePolicy(policy, 24 * HOUR), now=NOW
    )
    assert isinstance(found, Delete)


def test_a_use_by_holders_that_were_seen_is_explained() -> None:
    """Once the containers that held it have gone, their last use does not hold it."""
    seen_before = replace(publication(superseded_at=SUPERSEDED), held=Hold(hold_reason("1: my-app/app"), SUPERSEDED))
    before = NOW - timedelta(seconds=1)
    assert isinstance(
        decide_retirement(seen_before, Usage(before, looked_at=NOW), RetirePolicy(GRACE, 24 * HOUR), now=NOW), Delete
    )
    later = decide_retirement(seen_before, Usage(NOW, looked_at=NOW), RetirePolicy(GRACE, 24 * HOUR), now=NOW)
    assert isinstance(later, Held), "somebody has used it when they were gone"


def test_a_held_account_says_why_and_until_when() -> None:
    """In words that fit into a condition."""
    found = decide_retirement(
        publication(superseded_at=SUPERSEDED), Usage(NOW), RetirePolicy(GRACE, 24 * HOUR), now=NOW
    )
    words = "by somebody unseen: its key was used at 2026-11-24T10:00:00Z, after it was superseded"
    words += "; it goes at 2026-11-25T09:00:00Z"
    assert found == Held(hold_reason(words), SUPERSEDED + 24 * HOUR)


def test_a_current_account_is_never_retired() -> None:
    """It has no time at which it may go."""
    assert ripe_at(publication(), GRACE) is None
    with pytest.raises(ValueError, match="current"):
        decide_retirement(publication(), Usage(), RetirePolicy(GRACE, HOUR), now=NOW)


@given(st.sampled_from([GRACE, IDLE]), TIMES, st.none() | TIMES)
def test_no_account_goes_before_its_grace(policy: CleanupPolicy, superseded: datetime, used: datetime | None) -> None:
    """Whatever was used when; and a wait is never for the past."""
    previous = publication(superseded_at=superseded)
    ripe = ripe_at(previous, policy)
    found = decide_retirement(previous, Usage(used), RetirePolicy(policy, HOUR), now=NOW)
    assert ripe is not None
    assert not (isinstance(found, Delete) and ripe > NOW)
    assert not (isinstance(found, Wait) and found.until <= NOW)
    assert not (isinstance(found, Held) and found.until is not None and found.until <= NOW)


def test_only_claims_that_have_ended_are_settled() -> None:
    """The others belong to a run."""
    running, ended = intent("a", NOW + timedelta(seconds=1)), intent("b", NOW)
    assert ended_claims(entry(unpublished=(running, ended)), NOW) == (ended,)


@pytest.mark.parametrize(
    ("history", "refused", "may"),
    [
        ((), False, True),
        ((), True, False),
        ((publication("app_1", at=NOW - minutes(9)),), False, True),
        ((publication("app_1", at=NOW - minutes(1)),), False, False),
    ],
)
def test_a_run_may_yet_publish_until_another_has(history: tuple[Publication, ...], refused: bool, may: bool) -> None:
    """Unless it has noted that it never will."""
    left = intent("app_2", NOW - minutes(2), refused=refused)
    assert may_yet_publish(replace(entry(unpublished=(left,)), history=history), left) is may
