"""The state of every target, from the ledger alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta

from tests.support.builders import LEDGER, NOW, SECRET, account, empty_entry, entry, intent, minutes, publication
from worker.commands.status import as_json, as_text
from worker.model.entries import Condition, Entry, Failures, Hold, HoldKind, HoldReason, Unreadable
from worker.model.values import Ref

HOLD = Hold(HoldReason(HoldKind.CONTAINERS, "pod x has it"), NOW - timedelta(1))
BROKEN = Unreadable("default.broken", "since is missing")
WELL = Condition(True, "Rotated", "well", NOW)


def text_of(*entries: Entry | Unreadable) -> list[str]:
    return as_text(ledger(*entries), NOW, LEDGER).splitlines()


def ledger(*entries: Entry | Unreadable) -> Mapping[Ref, Entry | Unreadable]:
    return {e.target if isinstance(e, Entry) else Ref("default", "broken"): e for e in entries}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell]


def test_a_healthy_target_is_one_row_without_notes() -> None:
    """When it was rotated, when it will be, and how old its oldest key is."""
    state = entry(condition=WELL, next_rotation_at=NOW + minutes(30))
    (_, line) = text_of(state)
    assert cells(line) == ["default", "creds", "True", "Rotated", "1", "30m ago", "in 30m", "30m"]


def test_a_target_that_was_never_served_is_shown_as_such() -> None:
    """Nothing is invented."""
    assert cells(text_of(empty_entry())[1]) == ["default", "creds", "Unknown", "0", "never", "-", "-"]


def test_an_overdue_rotation_says_for_how_long() -> None:
    """The runs do not come, or fail."""
    assert "due for 10m" in text_of(entry(condition=WELL, next_rotation_at=NOW - minutes(10)))[1]


def test_what_is_wrong_is_said_below_in_words() -> None:
    """The condition, the attempts, and every account but the current one with what it waits for."""
    state = entry(
        publication("held", NOW - timedelta(2), superseded_at=NOW - timedelta(1), held=HOLD),
        publication("old", NOW - minutes(60), superseded_at=NOW),
        publication("now", NOW),
        unpublished=(intent("lost", NOW),),
        failures=Failures(2, NOW + minutes(2)),
        condition=Condition(False, "Broken", "words", NOW),
    )
    assert text_of(state)[2:] == [
        "",
        "default/creds: words",
        "default/creds: 2 failed attempts, next one not before 2026-11-24T10:02:00Z",
        "default/creds: account held superseded, held since 2026-11-23T10:00:00Z: pod x has it",
        "default/creds: account old superseded, stays until 2026-11-24T10:02:00Z at least",
        "default/creds: account lost unpublished, claimed until 2026-11-24T10:00:00Z",
    ]


def test_an_admin_key_that_ends_soon_is_said_below() -> None:
    """Within two weeks; JSON has it at any time."""
    soon, later = (entry(condition=WELL, admin_key_ends_at=NOW + timedelta(days=days)) for days in (13, 15))
    assert text_of(soon)[-1] == "default/creds: its admin key ends at 2026-12-07T10:00:00Z"
    assert "admin key" not in text_of(later)[-1]
    assert as_json(ledger(later), LEDGER)[0]["adminKeyExpiresAt"] == "2026-12-09T10:00:00Z"


def test_an_attempt_that_may_be_made_waits_for_the_next_run() -> None:
    """Nothing else holds it."""
    assert "with the next run" in text_of(entry(failures=Failures(1, NOW)))[-1]


def test_an_unreadable_entry_is_shown_and_hides_no_other() -> None:
    """With its object's name and the field."""
    lines = text_of(BROKEN, entry(condition=WELL))
    assert cells(lines[1])[:4] == ["default", "broken", "Unknown", "LedgerUnreadable"]
    assert cells(lines[2])[1] == "creds"
    assert lines[-1] == "default/broken: ledger entry default.broken is unreadable: since is missing"


def test_an_empty_ledger_is_said_to_be_empty() -> None:
    """And not shown as an empty table."""
    assert as_text({}, NOW, LEDGER) == "no targets: the ledger is empty"
    assert as_json({}, LEDGER) == []


def test_json_has_each_account_with_its_state() -> None:
    """For scripts; it can be written out, and holds no key."""
    state = entry(publication("old", superseded_at=NOW), publication("now", NOW), condition=WELL)
    (found, broken) = sorted(json.loads(json.dumps(as_json(ledger(state, BROKEN), LEDGER))), key=len, reverse=True)
    assert (found["namespace"], found["secret"], found["ready"], found["reason"]) == (
        "default",
        "creds",
        True,
        "Rotated",
    )
    assert {a["name"]: a["state"].partition(",")[0] for a in found["accounts"]} == {
        "old": "superseded",
        "now": "current",
    }
    assert found["accounts"][0]["id"] == account("old").id
    assert broken == {"namespace": "default", "secret": "broken", "unreadable": "since is missing"}


def test_json_of_a_target_that_was_never_served_has_no_condition() -> None:
    """Null, not false."""
    (found,) = as_json(ledger(empty_entry()), LEDGER)
    assert (found["ready"], found["accounts"]) == (None, [])
    assert found["secret"] == SECRET.name


def test_another_ledgers_entry_is_shown_as_such() -> None:
    """With the way out; where the own ledger's uid may not be read, that there are several."""
    theirs = entry(target=Ref("default", "theirs"), ledger="another", condition=WELL)
    lines = text_of(entry(condition=WELL), theirs)
    assert cells(lines[2])[:4] == ["default", "theirs", "Unknown", "ForeignLedger"]
    assert "`openai-key-rotator adopt default/theirs`" in lines[-1]
    assert [item["foreign"] for item in as_json(ledger(entry(), theirs), LEDGER)] == [False, True]
    unread = as_text(ledger(entry(), theirs), NOW, None)
    assert "2 ledgers" in unread
    assert "ForeignLedger" not in unread
    assert [item["foreign"] for item in as_json(ledger(theirs), None)] == [None]
