"""What exists at OpenAI next to the ledger, line by line, with plain values."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.builders import ACCESS, HOST, NOW, PROJECT, account, entry, generator, intent, minutes, publication
from worker.commands.audit.inventory import Forms, Line, ProjectFacts, Records, Standing, accesses, lines_of
from worker.model.audited import KeyOwner, ProjectKey
from worker.model.entries import Entry
from worker.model.sightings import ListedAccount, Listing
from worker.model.targets import AdminKeyRef, Project, ProjectAccess
from worker.model.values import Ref
from worker.settings.central_keys import ANY, CentralKeys

OLD = NOW - timedelta(days=2)


def key(of: str = "app_1", **changes: Any) -> ProjectKey:
    """The key that an account was made with."""
    values: dict[str, Any] = {
        "id": f"key_{of}",
        "name": "",
        "owner": KeyOwner.ACCOUNT,
        "owner_id": f"user-{of}",
        "owner_name": of,
        "created_at": OLD,
    }
    return ProjectKey(**(values | changes))


def facts(*names: str, keys: tuple[ProjectKey, ...] | None = None) -> ProjectFacts:
    """A project with these accounts, each with its key unless others are given."""
    listing = Listing.of(NOW, {f"user-{name}": ListedAccount(name, OLD) for name in names})
    return ProjectFacts(ACCESS, listing, tuple(key(name) for name in names) if keys is None else keys)


def lines(found: ProjectFacts, *entries: Entry, before: tuple[Entry, ...] | None = None) -> list[Line]:
    records = Records.of(entries if before is None else before, entries)
    return list(lines_of(found, records, Forms.of([generator()]), now=NOW))


def told(found: list[Line]) -> list[tuple[str, Standing, bool]]:
    return [(line.account_name, line.standing, line.own) for line in found]


OF_OLD = publication("app_1", OLD, requested_at=OLD)


def test_the_current_account_is_its_targets() -> None:
    (line,) = lines(facts("app_1"), entry(OF_OLD))
    assert (line.standing, line.target, line.own) == (Standing.CURRENT, Ref("default", "creds"), True)


def test_a_superseded_account_is_one() -> None:
    found = lines(facts("app_1"), entry(replace(OF_OLD, superseded_at=NOW)))
    assert told(found) == [("app_1", Standing.SUPERSEDED, True)]


def test_an_account_that_the_ledger_only_names_is_found_by_its_name() -> None:
    """The answer to its request was lost."""
    waiting = entry(unpublished=(intent("app_2", NOW),), history=())
    assert told(lines(facts("app_2"), waiting)) == [("app_2", Standing.UNPUBLISHED, True)]


def test_the_name_of_a_recorded_account_alone_makes_no_other_one_ours() -> None:
    """A human has copied it: the id decides where the ledger knows it."""
    copied = Listing.of(NOW, {"user-copy": ListedAccount("app_1", OLD), "user-app_1": ListedAccount("app_1", OLD)})
    found = lines(ProjectFacts(ACCESS, copied, (key(),)), entry(OF_OLD))
    assert told(found) == [("app_1", Standing.CURRENT, True), ("app_1", Standing.UNRECORDED, False)]


def test_a_recorded_account_that_is_not_listed_is_gone() -> None:
    (line,) = lines(facts(), entry(OF_OLD))
    assert (line.standing, line.account_name, line.listed) == (Standing.GONE, "app_1", False)


def test_an_account_that_is_minutes_old_is_not_called_gone() -> None:
    """A list may not show it yet."""
    young = publication("app_1", NOW - minutes(5), requested_at=NOW - minutes(5))
    assert told(lines(facts(), entry(young))) == [("app_1", Standing.CURRENT, False)]


def test_an_account_that_a_run_made_after_the_list_is_not_called_gone() -> None:
    """The ledger before the list did not have it: the list says nothing about it."""
    assert lines(facts(), entry(OF_OLD), before=()) == []


def test_an_account_that_a_run_has_let_go_since_the_list_is_not_called_unrecorded() -> None:
    """The ledger before the list had it."""
    after = entry(history=())
    before = (entry(replace(OF_OLD, superseded_at=OLD)),)
    assert told(lines(facts("app_1"), after, before=before)) == [("app_1", Standing.SUPERSEDED, True)]


@pytest.mark.parametrize(
    ("name", "standing"),
    [("app_abcdefghij", Standing.RESEMBLING), ("app_abc", Standing.UNRECORDED), ("other", Standing.UNRECORDED)],
)
def test_an_unrecorded_account_may_be_named_like_ours(name: str, standing: Standing) -> None:
    """By the prefix and the length that a generator of the project gives."""
    assert told(lines(facts(name))) == [(name, standing, False)]


def test_a_name_like_another_projects_accounts_is_not_like_ours() -> None:
    elsewhere = Forms.of([generator(access=ProjectAccess(Project(HOST, "proj_2"), ACCESS.admin_key))])
    (line,) = lines_of(facts("app_abcdefghij"), Records.of([], []), elsewhere, now=NOW)
    assert line.standing is Standing.UNRECORDED


def test_a_users_key_is_a_users() -> None:
    users = key(owner=KeyOwner.USER, owner_id="user-human", owner_name="Human")
    assert told(lines(facts(keys=(users,)))) == [("Human", Standing.USERS, False)]


def test_a_second_key_of_our_account_is_not_ours() -> None:
    """Somebody made it by hand."""
    found = lines(facts("app_1", keys=(key(), key(id="key_2"))), entry(OF_OLD))
    assert [(line.key.id, line.own) for line in found if line.key] == [("key_app_1", True), ("key_2", False)]


def test_a_current_account_without_its_own_key_has_a_line_that_says_so() -> None:
    """Somebody deleted it, and made another one."""
    found = lines(facts("app_1", keys=(key(id="key_2"),)), entry(OF_OLD))
    assert [line.key.id if line.key else None for line in found] == ["key_2", None]


def test_an_account_without_any_key_has_a_line() -> None:
    assert [line.key for line in lines(facts("other", keys=()))] == [None]


def test_a_key_whose_account_the_list_of_accounts_lacks_is_still_its_targets() -> None:
    """It was made between the two lists."""
    waiting = entry(unpublished=(intent("app_2", NOW),), history=())
    found = lines(facts(keys=(key("app_2"),)), waiting)
    assert told(found) == [("app_2", Standing.UNPUBLISHED, True)]


def test_the_ledger_says_which_scopes_were_asked_for() -> None:
    """If it says anything."""
    narrowed = replace(OF_OLD, account=replace(OF_OLD.account, scopes=("model.request",)))
    (line,) = lines(facts("app_1"), entry(narrowed))
    assert line.record is not None
    assert line.record.scopes == ("model.request",)
    (line,) = lines(facts("app_1"), entry(OF_OLD))
    assert line.record is not None
    assert line.record.scopes is None


# --- which projects are asked about, and with which keys

CENTRAL = AdminKeyRef(Ref("openai-key-rotator", "admin"), "api-key")


def test_each_project_is_asked_about_with_the_keys_that_were_named_for_it() -> None:
    """A generator's, a granted and a recorded one, and never the fallback."""
    granted = CentralKeys({(PROJECT, ANY): CENTRAL})
    other = Project(HOST, "proj_2")
    recorded = entry(publication(account=account(access=ProjectAccess(other, ACCESS.admin_key))))
    found = accesses([generator()], granted, [recorded], ())
    assert found == {
        PROJECT: (
            ProjectAccess(PROJECT, ACCESS.admin_key, fallback=False),
            ProjectAccess(PROJECT, CENTRAL, fallback=False),
        ),
        other: (ProjectAccess(other, ACCESS.admin_key, fallback=False),),
    }


def test_other_namespaces_projects_are_left_out() -> None:
    """What a grant to everybody names is asked about all the same."""
    second, third = Project(HOST, "proj_2"), Project(HOST, "proj_3")
    granted = CentralKeys({(PROJECT, ANY): CENTRAL, (second, "other"): CENTRAL})
    recorded = entry(publication(account=account(access=ProjectAccess(third, ACCESS.admin_key))))
    found = accesses([], granted, [replace(recorded, target=Ref("other", "creds"))], ["default"])
    assert list(found) == [PROJECT]


def test_the_time_of_a_line_is_its_keys_or_its_accounts() -> None:
    """Or that of the request."""

    def begun(made: datetime | None, **changes: Any) -> datetime | None:
        (line,) = lines(facts("app_1", keys=(key(created_at=made),)), entry(OF_OLD))
        return replace(line, **changes).begun_at

    assert begun(NOW) == NOW
    assert begun(None) == OLD
    assert begun(None, created_at=None) == OLD
