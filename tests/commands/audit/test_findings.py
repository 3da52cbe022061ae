"""Each finding, and what is none, with plain values."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.builders import NOW, PROJECT, SECRET, intent, minutes, publication, target
from worker.commands.audit.findings import ADVICE, RULES, FindingKind, Policy, findings_of
from worker.commands.audit.inventory import Line, Record, Standing
from worker.model.audited import KeyOwner, ProjectKey
from worker.model.entries import Hold, HoldKind, HoldReason
from worker.model.targets import CleanupPolicy

HOUR = timedelta(hours=1)
MONTH = timedelta(days=30)


def key(**changes: Any) -> ProjectKey:
    made = ProjectKey("key_app_1", "", KeyOwner.ACCOUNT, "user-app_1", "app_1", NOW - minutes(30), NOW - minutes(5))
    return replace(made, **changes)


def line(standing: Standing = Standing.CURRENT, *, scopes: tuple[str, ...] | None = None, **changes: Any) -> Line:
    """A line without a finding: a key that is used, of a target that is rotated each hour."""
    superseded = NOW - minutes(1) if standing is Standing.SUPERSEDED else None
    item: Any = publication(superseded_at=superseded)
    if standing is Standing.UNPUBLISHED:
        item = intent(claimed_until=NOW)
    record = Record(SECRET, item, CleanupPolicy(), scopes)
    recorded = standing in (Standing.CURRENT, Standing.SUPERSEDED, Standing.UNPUBLISHED, Standing.GONE)
    values: dict[str, Any] = {
        "account_id": "user-app_1",
        "account_name": "app_1",
        "created_at": NOW - minutes(30),
        "key": key(),
        "own": recorded,
        "record": record if recorded else None,
    }
    return Line(PROJECT, standing, **(values | changes))


def found(of: Line, **changes: Any) -> list[str]:
    """Kinds and messages, where `target` may be changed or None."""
    asked: dict[str, Any] = {"unused": MONTH, "targets": {SECRET: target()}} | changes
    return [f"{finding.kind.value}: {finding.message}" for finding in findings_of(of, Policy(NOW, **asked))]


WELL = [Standing.CURRENT, Standing.SUPERSEDED, Standing.UNPUBLISHED]


@pytest.mark.parametrize("standing", WELL)
def test_what_is_as_it_should_be_is_no_finding(standing: Standing) -> None:
    assert found(line(standing)) == []


def test_every_kind_has_advice_and_every_rule_its_own_kind() -> None:
    assert set(ADVICE) == set(FindingKind)
    assert len(RULES) == len(FindingKind) - 2  # the last two are about admin keys


# --- gone


def test_a_current_account_that_is_gone_leaves_a_dead_key() -> None:
    (text,) = found(line(Standing.GONE, key=None, listed=False))
    assert text == "Gone: the current account does not exist: its key in the Secret is dead"


def test_a_superseded_account_that_is_gone_is_only_still_recorded() -> None:
    gone = line(Standing.SUPERSEDED)
    (text,) = found(replace(gone, standing=Standing.GONE, key=None, listed=False))
    assert text == "Gone: the account is recorded and does not exist: a run will let it go"


def test_a_current_account_without_a_key_is_a_dead_key() -> None:
    assert found(line(key=None, own=False)) == ["Gone: the current account has no key: the one in the Secret is dead"]


def test_a_key_that_has_ended_or_is_disabled_is_told() -> None:
    assert found(line(key=key(expires_at=NOW))) == ["Gone: the current key has ended at 2026-11-24T10:00:00Z"]
    assert found(line(key=key(active=False, expires_at=NOW + HOUR))) == ["Gone: the current key is disabled"]


# --- forgotten, foreign


def test_an_unrecorded_account_named_like_ours_is_forgotten() -> None:
    forgotten = line(Standing.RESEMBLING, key=key(expires_at=NOW + HOUR), created_at=NOW - timedelta(days=3))
    assert found(forgotten) == ["Forgotten: named like ours, and no ledger entry records it, made 3d ago"]


def test_an_account_that_another_ledger_may_just_be_making_is_not_forgotten_yet() -> None:
    assert found(line(Standing.RESEMBLING, key=key(expires_at=NOW + HOUR), created_at=NOW - minutes(1))) == []


def test_a_strangers_account_is_not_forgotten() -> None:
    assert found(line(Standing.UNRECORDED, key=key(expires_at=NOW + HOUR))) == []


@pytest.mark.parametrize("standing", WELL)
def test_a_further_key_on_our_account_is_told(standing: Standing) -> None:
    texts = found(line(standing, own=False, key=key(expires_at=NOW + HOUR, name="laptop")))
    assert texts == ["ForeignKey: the worker has not made this key (laptop)"]


# --- wider


@pytest.mark.parametrize(
    ("has", "message"),
    [
        ((), "may do everything; asked for was only model.request"),
        (("files", "model.request"), "may do files; asked for was only model.request"),
    ],
)
def test_a_key_that_may_do_more_than_asked_for_is_told(has: tuple[str, ...], message: str) -> None:
    assert found(line(scopes=("model.request",), key=key(scopes=has))) == [f"WiderScopes: {message}"]


@pytest.mark.parametrize("has", [None, ("model.request",)])
def test_a_key_of_which_openai_tells_no_more_is_not_wider(has: tuple[str, ...] | None) -> None:
    assert found(line(scopes=("model.request",), key=key(scopes=has))) == []


def test_where_nothing_was_asked_for_nothing_is_wider() -> None:
    assert found(line(key=key(scopes=()))) == []


# --- overdue


def published(at: datetime, **changes: Any) -> Line:
    record = Record(SECRET, publication(at=at, **changes), CleanupPolicy())
    standing = Standing.CURRENT if changes.get("superseded_at") is None else Standing.SUPERSEDED
    return line(standing, record=record)


@pytest.mark.parametrize(("late", "count"), [(29, 0), (31, 1)])
def test_a_key_older_than_its_interval_is_overdue(late: int, count: int) -> None:
    """With half an hour for the schedule."""
    texts = found(published(NOW - HOUR - minutes(late)))
    assert len(texts) == count
    assert all(text.startswith("Overdue: should have been rotated by 2026-11-24T09:29:00Z") for text in texts)


@pytest.mark.parametrize("changes", [{"suspended": True}, {"interval": None}])
def test_what_has_no_due_time_is_not_overdue(changes: dict[str, Any]) -> None:
    ends = key(expires_at=NOW + HOUR)
    old = replace(published(NOW - timedelta(days=2)), key=ends)
    assert found(old, targets={SECRET: target(**changes)}) == []


def test_a_superseded_account_past_its_grace_is_overdue_unless_somebody_holds_it() -> None:
    old = {"at": NOW - timedelta(days=2), "superseded_at": NOW - HOUR}
    (text,) = found(published(**old))
    assert text.startswith("Overdue: superseded, and should have been deleted by 2026-11-24T09:02:00Z")
    held = Hold(HoldReason(HoldKind.CONTAINERS, "1: app"), NOW)
    assert found(published(**old, held=held)) == []


def test_an_unpublished_account_long_after_its_claim_is_overdue() -> None:
    lost = Record(SECRET, intent(claimed_until=NOW - HOUR), CleanupPolicy())
    (text,) = found(line(Standing.UNPUBLISHED, record=lost))
    assert text.startswith("Overdue: unpublished, and should have been deleted by")


# --- unused


def test_a_key_without_a_use_for_so_long_is_unused() -> None:
    stale = key(last_used_at=NOW - timedelta(days=31), expires_at=NOW + HOUR)
    assert found(line(Standing.UNRECORDED, key=stale)) == ["Unused: not used for 31d"]
    never = key(last_used_at=None, created_at=NOW - timedelta(days=40), expires_at=NOW + HOUR)
    assert found(line(Standing.USERS, key=never, record=None)) == ["Unused: never used in 40d"]


def test_a_young_key_that_nobody_has_used_yet_is_not_unused() -> None:
    assert found(line(key=key(last_used_at=None))) == []


def test_a_superseded_key_is_not_unused() -> None:
    """Nobody should use it."""
    assert found(line(Standing.SUPERSEDED, key=key(last_used_at=NOW - timedelta(days=90)))) == []


# --- without end


@pytest.mark.parametrize("standing", [Standing.UNRECORDED, Standing.USERS])
def test_what_nothing_rotates_and_nothing_ends_is_told(standing: Standing) -> None:
    assert found(line(standing)) == ["NoEnd: never ends, and nothing rotates it"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (None, "nothing asks for its Secret any more"),
        (target(suspended=True), "its target is suspended"),
        (target(interval=None), "is rotated on request only"),
    ],
)
def test_a_current_key_that_no_rotation_replaces_is_told(asked: Any, why: str) -> None:
    (text,) = found(line(), targets={} if asked is None else {SECRET: asked})
    assert text == f"NoEnd: never ends, and {why}"


def test_a_key_that_was_to_end_and_does_not_is_told() -> None:
    (text,) = found(line(), targets={SECRET: target(key_lifetime=timedelta(hours=48))})
    assert text == "NoEnd: was to end after 48h, and never ends"


def test_a_key_that_is_rotated_needs_no_end() -> None:
    assert found(line()) == []
