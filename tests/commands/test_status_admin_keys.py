"""What `status` says of the operator's own admin keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.support.builders import NOW
from worker.commands.status_admin_keys import admin_keys_as_json, admin_keys_as_text
from worker.model.admin_keys import AdminEntry, AdminIntent, AdminKey
from worker.model.entries import Condition, Unreadable

DAY = timedelta(days=1)
OLD = AdminKey("key_1", "by hand", "d1", NOW - 40 * DAY, False, superseded_at=NOW - 2 * DAY)
NEW = AdminKey("key_2", "openai-key-rotator-x", "d2", NOW - 2 * DAY, True)
ENTRY = AdminEntry(
    "openai-admin",
    "api-key",
    "https://api.openai.com/v1",
    "ledger",
    (OLD, NEW),
    last_rotated_at=NOW - 2 * DAY,
    next_rotation_at=NOW + 28 * DAY,
    condition=Condition(True, "Rotated", "key openai-key-rotator-x is current", NOW),
)


def lines(entry: AdminEntry | Unreadable) -> list[str]:
    return admin_keys_as_text({"openai-admin": entry}, NOW).splitlines()


def test_a_key_is_one_row_and_its_former_one_a_line() -> None:
    assert lines(ENTRY)[1].split() == ["openai-admin", "True", "Rotated", "2", "2d", "ago", "in", "28d"]
    assert "former key by hand (key_1)" in lines(ENTRY)[2]
    assert lines(ENTRY)[2].endswith("its grace runs")


def test_why_a_former_key_stays_is_said() -> None:
    held = replace(OLD, held="somebody else uses it", held_since=NOW)
    assert lines(replace(ENTRY, history=(held, NEW)))[2].endswith("still lives: somebody else uses it")


def test_what_is_wrong_is_said_in_words() -> None:
    blocked = replace(ENTRY, condition=Condition(False, "AdminKeyRestricted", "the words", NOW))
    assert "openai-admin: the words" in lines(blocked)


def test_an_end_and_an_open_request_are_said() -> None:
    ending = replace(NEW, expires_at=NOW + DAY)
    intent = AdminIntent("openai-key-rotator-y", NOW, NOW + timedelta(minutes=3))
    shown = lines(replace(ENTRY, history=(ending,), intent=intent))
    assert "openai-admin: the key ends at" in shown[2]
    assert "openai-key-rotator-y unpublished" in shown[3]


def test_an_unreadable_object_is_named() -> None:
    assert "unreadable: at is missing" in lines(Unreadable("openai-admin", "at is missing"))[2]


def test_scripts_tell_them_from_targets() -> None:
    (item,) = admin_keys_as_json({"openai-admin": ENTRY}, "rotator")
    assert (item["namespace"], item["secret"], item["adminKey"]) == ("rotator", "openai-admin", "api-key")
    assert [key["id"] for key in item["keys"]] == ["key_1", "key_2"]
    assert (item["ready"], item["accounts"]) == (True, [])
    (odd,) = admin_keys_as_json({"x": Unreadable("x", "at is missing")}, "rotator")
    assert odd["unreadable"] == "at is missing"
