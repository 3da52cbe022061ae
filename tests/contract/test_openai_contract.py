"""The official SDK's admin client, held against the sandbox's OpenAI over HTTP."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import openai
import pytest
from openai.types.admin.organization.projects import ProjectServiceAccount, ServiceAccountCreateResponse
from openai.types.admin.organization.projects.service_account_create_response import APIKey

from sandbox.http_server import SandboxServer
from sandbox.kubernetes.server import Kubernetes
from sandbox.openai.server import OpenAI
from sandbox.openai.state import CANARY, KeyStatus


@dataclass(frozen=True)
class Sdk:
    """The SDK's admin client, and what it talks to."""

    client: openai.OpenAI
    machine: OpenAI
    server: SandboxServer
    admin_key: str

    @property
    def accounts(self) -> openai.resources.admin.organization.projects.ServiceAccounts:
        """The part of the client that makes service accounts."""
        return self.client.admin.organization.projects.service_accounts

    def application(self, key: str) -> openai.OpenAI:
        """A client such as an application has."""
        return openai.OpenAI(api_key=key, base_url=self.server.openai_url, max_retries=0)


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    """An organisation with two projects, and its admin client."""
    source = random.Random(1)
    machine = OpenAI(lambda: datetime.now(UTC), source)
    admin_key = machine.add_organization("acme")
    machine.add_project("acme", "proj_1")
    machine.add_project("acme", "proj_default", default=True)
    server = SandboxServer(Kubernetes(lambda: datetime.now(UTC), source), machine)
    with server, openai.OpenAI(admin_api_key=admin_key, base_url=server.openai_url, max_retries=0) as client:
        yield Sdk(client, machine, server, admin_key)


def created(sdk: Sdk, name: str = "app_1") -> ServiceAccountCreateResponse:
    """A new account in the project."""
    return sdk.accounts.create("proj_1", name=name)


def key_of(account: ServiceAccountCreateResponse) -> APIKey:
    """The key that a new account came with."""
    assert account.api_key is not None
    return account.api_key


def test_an_account_comes_with_a_key_that_works(sdk: Sdk) -> None:
    """The key's value is in the answer to the create, and lists models."""
    account = created(sdk)
    assert (account.object, account.name, account.role) == ("organization.project.service_account", "app_1", "member")
    assert key_of(account).object == "organization.project.service_account.api_key"
    assert CANARY in key_of(account).value
    with sdk.application(key_of(account).value) as application:
        assert application.models.list().data[0].object == "model"


def test_an_account_can_be_made_without_a_key(sdk: Sdk) -> None:
    """`create_service_account_only` makes one without membership, too."""
    account = sdk.accounts.create("proj_1", name="app_1", create_service_account_only=True)
    assert (account.role, account.api_key) == ("none", None)


def test_a_key_may_have_a_lifetime(sdk: Sdk) -> None:
    """`expires_in_seconds` sets it, and one that is out of range is refused."""
    account = sdk.accounts.create("proj_1", name="app_1", expires_in_seconds=3600)
    with sdk.server.locked():
        key = sdk.machine.key(key_of(account).value)
    assert key is not None
    assert key.expires_at is not None
    for seconds in (0, 31_536_001):
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.accounts.create("proj_1", name="app_1", expires_in_seconds=seconds)
        assert caught.value.param == "expires_in_seconds"


def test_an_organisation_may_demand_lifetimes(sdk: Sdk) -> None:
    """A create without one, or with a longer one, is a BadRequestError."""
    with sdk.server.locked():
        sdk.machine.require_lifetime("acme", timedelta(hours=1))
    with pytest.raises(openai.BadRequestError):
        created(sdk)
    with pytest.raises(openai.BadRequestError):
        sdk.accounts.create("proj_1", name="app_1", expires_in_seconds=3601)
    sdk.accounts.create("proj_1", name="app_1", expires_in_seconds=3600)


def test_accounts_are_listed_page_by_page(sdk: Sdk) -> None:
    """The SDK follows `after` and `has_more` by itself."""
    ids = [created(sdk, f"app_{number}").id for number in range(5)]
    page = sdk.accounts.list("proj_1", limit=2)
    assert page.has_more
    assert [account.id for account in page.data] == ids[:2]
    assert [account.id for account in page] == ids
    assert [account.id for account in sdk.accounts.list("proj_1", after=ids[3])] == ids[4:]


def test_a_list_goes_on_after_an_account_that_was_deleted_meanwhile(sdk: Sdk) -> None:
    """A cursor outlives what it points at."""
    ids = [created(sdk, f"app_{number}").id for number in range(4)]
    page = sdk.accounts.list("proj_1", limit=2)
    sdk.accounts.delete(ids[1], project_id="proj_1")
    assert [account.id for account in page.get_next_page()] == ids[2:]


def test_an_account_can_be_retrieved_and_renamed(sdk: Sdk) -> None:
    """By its id."""
    account = created(sdk)
    found = sdk.accounts.retrieve(account.id, project_id="proj_1")
    assert isinstance(found, ProjectServiceAccount)
    assert (found.id, found.name, found.created_at) == (account.id, "app_1", account.created_at)
    assert sdk.accounts.update(account.id, project_id="proj_1", name="app_2").name == "app_2"
    assert sdk.accounts.retrieve(account.id, project_id="proj_1").name == "app_2"


def test_a_deleted_account_takes_its_keys_along(sdk: Sdk) -> None:
    """Its key is answered with 401, which quotes part of it, and a second delete with 404."""
    account = created(sdk)
    value = key_of(account).value
    deleted = sdk.accounts.delete(account.id, project_id="proj_1")
    assert (deleted.id, deleted.deleted) == (account.id, True)
    with sdk.application(value) as application, pytest.raises(openai.AuthenticationError) as caught:
        application.models.list()
    assert caught.value.code == "invalid_api_key"
    assert caught.value.request_id
    assert CANARY in str(caught.value)
    assert value not in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        sdk.accounts.delete(account.id, project_id="proj_1")
    with pytest.raises(openai.NotFoundError):
        sdk.accounts.retrieve(account.id, project_id="proj_1")
    with sdk.server.locked():
        assert sdk.machine.key_status(value) is KeyStatus.DELETED


def test_an_account_can_have_further_keys(sdk: Sdk) -> None:
    """Made by the account, listed with the project's, and shown redacted."""
    account = created(sdk)
    key = sdk.accounts.api_keys.create(account.id, project_id="proj_1", name="second")
    assert CANARY in key.value
    keys = sdk.client.admin.organization.projects.api_keys
    assert [one.id for one in keys.list("proj_1", limit=1)] == [key_of(account).id, key.id]
    shown = keys.retrieve(key.id, project_id="proj_1")
    assert (shown.name, shown.last_used_at) == ("second", None)
    assert shown.owner.service_account is not None
    assert shown.owner.service_account.id == account.id
    assert CANARY not in shown.redacted_value


def test_the_use_of_a_key_is_seen(sdk: Sdk) -> None:
    """`last_used_at` is null until then."""
    account = created(sdk)
    keys = sdk.client.admin.organization.projects.api_keys
    assert keys.retrieve(key_of(account).id, project_id="proj_1").last_used_at is None
    with sdk.application(key_of(account).value) as application:
        application.models.list()
    assert keys.retrieve(key_of(account).id, project_id="proj_1").last_used_at is not None


def test_a_key_of_an_account_can_be_deleted_alone(sdk: Sdk) -> None:
    """The account stays, and its key answers 401; a user's key goes in the same way."""
    account = created(sdk)
    keys = sdk.client.admin.organization.projects.api_keys
    assert keys.delete(key_of(account).id, project_id="proj_1").deleted
    assert sdk.accounts.retrieve(account.id, project_id="proj_1").id == account.id
    with sdk.application(key_of(account).value) as application, pytest.raises(openai.AuthenticationError):
        application.models.list()
    with pytest.raises(openai.NotFoundError):
        keys.retrieve(key_of(account).id, project_id="proj_1")
    with sdk.server.locked():
        key, _ = sdk.machine.add_user_key("proj_1", "laptop")
    assert keys.delete(key, project_id="proj_1").deleted


def test_a_key_can_be_narrowed_and_given_an_end(sdk: Sdk) -> None:
    """No scopes are all; a lifetime that is given again starts anew."""
    account = created(sdk)
    keys = sdk.client.admin.organization.projects.api_keys
    changed = keys.update(key_of(account).id, project_id="proj_1", scopes=["model.request"], expires_in_seconds=3600)
    assert changed.id == key_of(account).id
    shown = keys.retrieve(key_of(account).id, project_id="proj_1")
    assert shown.expires_at is not None
    assert 3500 < shown.expires_at - datetime.now(UTC).timestamp() < 3700
    keys.update(key_of(account).id, project_id="proj_1", scopes=[])
    with sdk.server.locked():
        key = sdk.machine.key(key_of(account).value)
    assert key is not None
    assert key.scopes == ()


def test_a_narrow_key_works_for_its_scopes_alone(sdk: Sdk) -> None:
    """What it lacks is 401 by name, which is not the 401 of an unknown key."""
    account = created(sdk)
    keys = sdk.client.admin.organization.projects.api_keys
    keys.update(key_of(account).id, project_id="proj_1", scopes=["model.request"])
    with sdk.application(key_of(account).value) as application, pytest.raises(openai.AuthenticationError) as caught:
        application.models.list()
    assert caught.value.code is None
    assert "Missing scopes: api.model.read" in str(caught.value)
    keys.update(key_of(account).id, project_id="proj_1", scopes=["model.request", "api.model.read"])
    with sdk.application(key_of(account).value) as application:
        assert application.models.list().data


def test_a_scope_that_is_not_given_changes_nothing(sdk: Sdk) -> None:
    account = created(sdk)
    keys = sdk.client.admin.organization.projects.api_keys
    keys.update(key_of(account).id, project_id="proj_1", scopes=["model.request"])
    with sdk.server.locked():
        sdk.machine.refused_scopes = frozenset({"api.all.read"})
    with pytest.raises(openai.BadRequestError) as caught:
        keys.update(key_of(account).id, project_id="proj_1", scopes=["model.request", "api.all.read"])
    assert caught.value.param == "scopes"
    with sdk.server.locked():
        key = sdk.machine.key(key_of(account).value)
    assert key is not None
    assert key.scopes == ("model.request",)


def test_the_sdk_documents_no_scopes_in_answers(sdk: Sdk) -> None:
    """So the worker does not rely on them. Where this fails, docs/openai.md is behind."""
    account = created(sdk)
    keys = sdk.client.admin.organization.projects.api_keys
    shown = keys.retrieve(key_of(account).id, project_id="proj_1")
    assert "scopes" not in type(shown).model_fields
    assert "scopes" in shown.model_dump()
    with sdk.server.locked():
        sdk.machine.shows_scopes = False
    assert "scopes" not in keys.retrieve(key_of(account).id, project_id="proj_1").model_dump()


def test_a_lifetime_needs_a_key(sdk: Sdk) -> None:
    with pytest.raises(openai.BadRequestError):
        sdk.accounts.create("proj_1", name="app_1", create_service_account_only=True, expires_in_seconds=3600)


def test_a_project_is_active_or_archived(sdk: Sdk) -> None:
    """An archived one answers everything about its accounts with BadRequestError, and an unknown one does not exist."""
    projects = sdk.client.admin.organization.projects
    account = created(sdk)
    assert projects.retrieve("proj_1").status == "active"
    with sdk.server.locked():
        sdk.machine.archive("proj_1")
    assert projects.retrieve("proj_1").status == "archived"
    for act in (
        lambda: sdk.accounts.list("proj_1"),
        lambda: created(sdk),
        lambda: sdk.accounts.delete(account.id, project_id="proj_1"),
    ):
        with pytest.raises(openai.BadRequestError):
            act()
    with pytest.raises(openai.NotFoundError):
        sdk.accounts.list("proj_unknown")


def test_the_default_project_takes_no_accounts(sdk: Sdk) -> None:
    """BadRequestError."""
    with pytest.raises(openai.BadRequestError):
        sdk.accounts.create("proj_default", name="app_1")


def test_an_admin_key_without_permission_is_denied(sdk: Sdk) -> None:
    """PermissionDeniedError for what it lacks; an application's key may do nothing here."""
    account = created(sdk)
    with sdk.server.locked():
        sdk.machine.restrict(sdk.admin_key, "read")
    assert sdk.accounts.list("proj_1").data
    with pytest.raises(openai.PermissionDeniedError):
        created(sdk)
    key, url = key_of(account).value, sdk.server.openai_url
    with openai.OpenAI(admin_api_key=key, base_url=url) as client, pytest.raises(openai.PermissionDeniedError):
        client.admin.organization.projects.service_accounts.list("proj_1")


def test_an_admin_key_that_was_rotated_away_is_not_accepted(sdk: Sdk) -> None:
    """AuthenticationError for the old one; the new one works."""
    with sdk.server.locked():
        new = sdk.machine.rotate_admin_key(sdk.admin_key)
    with pytest.raises(openai.AuthenticationError):
        sdk.accounts.list("proj_1")
    with openai.OpenAI(admin_api_key=new, base_url=sdk.server.openai_url, max_retries=0) as client:
        assert client.admin.organization.projects.service_accounts.list("proj_1").data == []


def test_a_new_key_may_take_its_time(sdk: Sdk) -> None:
    """Until it is accepted it is answered like an unknown one."""
    with sdk.server.locked():
        sdk.machine.acceptance_delay = 3600
    account = created(sdk)
    with sdk.application(key_of(account).value) as application, pytest.raises(openai.AuthenticationError):
        application.models.list()


@pytest.mark.parametrize("limit", [0, 101])
def test_a_page_has_its_limits(sdk: Sdk, limit: int) -> None:
    """1 to 100, otherwise BadRequestError."""
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.accounts.list("proj_1", limit=limit)
    assert caught.value.param == "limit"


def test_a_page_has_twenty_objects_unless_it_is_told(sdk: Sdk) -> None:
    """OpenAI's default, which is why lists must be followed."""
    for number in range(21):
        created(sdk, f"app_{number}")
    assert len(sdk.accounts.list("proj_1").data) == 20


def test_what_the_sandbox_does_not_do_is_said(sdk: Sdk) -> None:
    """501, never an answer that might be wrong."""
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.client.admin.organization.projects.list()
    assert caught.value.status_code == 501


def test_admin_keys_are_listed_redacted(sdk: Sdk) -> None:
    """Page by page, with their end and their last use; the value's two ends alone."""
    with sdk.server.locked():
        second = sdk.machine.add_admin_key("acme")
        sdk.machine.expire_admin_key(second, datetime.now(UTC) + timedelta(days=3))
        sdk.machine.add_organization("another")
    keys = sdk.client.admin.organization.admin_api_keys
    found = list(keys.list(limit=1))
    assert [key.object for key in found] == ["organization.admin_api_key"] * 2
    assert [key.expires_at is None for key in found] == [True, False]
    assert [key.last_used_at is None for key in found] == [False, True]
    assert [key.redacted_value.endswith(value[-4:]) for key, value in zip(found, (sdk.admin_key, second), strict=True)]
    assert not any(CANARY in key.redacted_value for key in found)
    assert [key.id for key in keys.list(order="desc")] == [key.id for key in found][::-1]


def test_an_admin_key_that_has_ended_is_not_accepted(sdk: Sdk) -> None:
    """AuthenticationError, and no list shows it."""
    with sdk.server.locked():
        sdk.machine.expire_admin_key(sdk.admin_key, datetime.now(UTC))
        other = sdk.machine.add_admin_key("acme")
    with pytest.raises(openai.AuthenticationError):
        sdk.accounts.list("proj_1")
    with openai.OpenAI(admin_api_key=other, base_url=sdk.server.openai_url, max_retries=0) as client:
        assert len(list(client.admin.organization.admin_api_keys.list())) == 1


def test_an_admin_key_may_lack_the_right_to_list_others_and_the_audit_log(sdk: Sdk) -> None:
    """PermissionDeniedError, while projects are served."""
    with sdk.server.locked():
        sdk.machine.restrict(sdk.admin_key, "read", "write")
    assert sdk.accounts.list("proj_1").data == []
    with pytest.raises(openai.PermissionDeniedError):
        sdk.client.admin.organization.admin_api_keys.list()
    with pytest.raises(openai.PermissionDeniedError):
        sdk.client.admin.organization.audit_logs.list()


def test_the_audit_log_tells_who_did_what(sdk: Sdk) -> None:
    """The newest first: an admin key made it, a human deleted it."""
    with sdk.server.locked():
        sdk.machine.keep_audit_log("acme")
    account = created(sdk)
    sdk.client.admin.organization.projects.api_keys.update(
        key_of(account).id, project_id="proj_1", scopes=["model.request"]
    )
    with sdk.server.locked():
        sdk.machine.delete_account("proj_1", account.id)
    logs = sdk.client.admin.organization.audit_logs
    found = list(logs.list(limit=2))
    assert [event.type for event in found] == [
        "api_key.deleted",
        "service_account.deleted",
        "api_key.updated",
        "api_key.created",
        "service_account.created",
    ]
    first, last = found[-1], found[1]
    assert first.service_account_created is not None
    assert first.service_account_created.id == account.id
    assert first.actor is not None
    assert first.actor.api_key is not None
    assert first.actor.api_key.id == "key_admin0001"
    assert last.actor is not None
    assert last.actor.session is not None
    assert last.actor.session.user is not None
    assert last.actor.session.user.email == "human@example.com"
    narrowed = found[2].api_key_updated
    assert narrowed is not None
    assert narrowed.changes_requested is not None
    assert narrowed.changes_requested.scopes == ["model.request"]


def test_the_audit_log_is_asked_about_some_things_alone(sdk: Sdk) -> None:
    """Several types, projects or resources; from a time on."""
    with sdk.server.locked():
        sdk.machine.keep_audit_log("acme")
        sdk.machine.add_project("acme", "proj_2")
    account, other = created(sdk), sdk.accounts.create("proj_2", name="app_2")
    logs = sdk.client.admin.organization.audit_logs
    assert {event.project.id for event in logs.list(project_ids=["proj_2"]) if event.project} == {"proj_2"}
    assert len(list(logs.list(event_types=["service_account.created", "service_account.deleted"]))) == 2
    assert len(list(logs.list(resource_ids=[account.id, other.id]))) == 2
    assert list(logs.list(effective_at={"gte": int(datetime.now(UTC).timestamp()) + 60})) == []


def test_an_organisation_keeps_no_audit_log_unless_it_is_turned_on(sdk: Sdk) -> None:
    """BadRequestError."""
    with pytest.raises(openai.BadRequestError):
        sdk.client.admin.organization.audit_logs.list()


def test_costs_are_told_by_day_key_and_project(sdk: Sdk) -> None:
    """As docs/chargeback.md reads them: a deleted key's too, and a page at a time."""
    account = created(sdk)
    key = key_of(account).id
    with sdk.server.locked():
        for project, cause in (("proj_1", key), ("proj_1", key), ("proj_1", None), ("proj_default", None)):
            sdk.machine.spend(project, cause, 0.5)
    sdk.accounts.delete(account.id, project_id="proj_1")
    now = int(datetime.now(UTC).timestamp())
    costs = sdk.client.admin.organization.usage.costs
    page = costs(start_time=now - 2 * 86400, limit=2, group_by=["project_id", "api_key_id"])
    assert (page.object, page.has_more, len(page.data)) == ("page", True, 2)
    rest = costs(start_time=now - 2 * 86400, limit=2, group_by=["project_id", "api_key_id"], page=str(page.next_page))
    assert (rest.has_more, rest.next_page) == (False, None)
    days = [*page.data, *rest.data]
    assert [(day.object, day.end_time - day.start_time, day.start_time % 86400) for day in days] == [
        ("bucket", 86400, 0)
    ] * 3
    results = [result for day in days for result in day.results]
    found = set()
    for result in results:
        assert result.object == "organization.costs.result"
        assert result.amount is not None
        found.add((result.project_id, result.api_key_id, result.amount.value, result.amount.currency))
    assert found == {
        ("proj_1", key, 1.0, "usd"),
        ("proj_1", None, 0.5, "usd"),
        ("proj_default", None, 0.5, "usd"),
    }
    (total,) = [result for day in costs(start_time=now - 86400).data for result in day.results]
    assert total.object == "organization.costs.result"
    assert total.amount is not None
    assert (total.amount.value, total.api_key_id, total.project_id) == (2.0, None, None)


def test_costs_of_other_units_are_refused(sdk: Sdk) -> None:
    with pytest.raises(openai.BadRequestError):
        sdk.client.admin.organization.usage.costs(start_time=0, limit=181)


def test_an_admin_key_is_made_shown_and_deleted(sdk: Sdk) -> None:
    """Its value comes once, with the create; a list shows both ends of it."""
    keys = sdk.client.admin.organization.admin_api_keys
    made = keys.create(name="ours", expires_in_seconds=3600)
    assert made.object == "organization.admin_api_key"
    assert CANARY in made.value
    assert made.expires_at == made.created_at + 3600
    with openai.OpenAI(admin_api_key=made.value, base_url=sdk.server.openai_url, max_retries=0) as client:
        listed = {key.id: key for key in client.admin.organization.admin_api_keys.list(limit=1)}
    assert listed[made.id].redacted_value.endswith(made.value[-4:])
    assert (listed[made.id].name, len(listed)) == ("ours", 2)
    assert "value" not in listed[made.id].model_dump()
    assert keys.retrieve(made.id).id == made.id
    assert keys.delete(made.id).deleted
    for gone in (lambda: keys.retrieve(made.id), lambda: keys.delete(made.id)):
        with pytest.raises(openai.NotFoundError):
            gone()
    with (
        openai.OpenAI(admin_api_key=made.value, base_url=sdk.server.openai_url, max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.admin.organization.admin_api_keys.list()


def test_an_admin_key_without_a_name_or_with_an_odd_lifetime_is_refused(sdk: Sdk) -> None:
    keys = sdk.client.admin.organization.admin_api_keys
    for arguments in ({"name": ""}, {"name": "x", "expires_in_seconds": 0}):
        with pytest.raises(openai.BadRequestError):
            keys.create(**arguments)


def test_a_restricted_admin_key_makes_none(sdk: Sdk) -> None:
    """And its list tells what it may do, in case that OpenAI's does: the SDK has no field for that."""
    keys = sdk.client.admin.organization.admin_api_keys
    with sdk.server.locked():
        sdk.machine.restrict(sdk.admin_key, "read", "admin_keys")
    (shown,) = keys.list().data
    assert "scopes" not in type(shown).model_fields
    assert shown.model_dump()["scopes"] == ["api.management.admin_keys", "api.management.read"]
    with pytest.raises(openai.PermissionDeniedError):
        keys.create(name="ours")
