"""An embedded OpenAI Admin API: service accounts and their keys, and the one call that an application's key makes.

Guarantees:
- `handle` is atomic and does no I/O.
- `handle` takes time and randomness only from the constructor's arguments.
- So the same requests in the same order give the same answers.
- The server answers 501 to an unsupported request.
- No `repr` prints a key's value.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sandbox.openai.errors import OpenAIError, forbidden, invalid, lacking, missing, not_served, unauthorized
from sandbox.openai.objects import account_json, key_json, new_key_json, project_json, unix
from sandbox.openai.organization import admin_key_json, admin_keys, audit_log, costs
from sandbox.openai.state import (
    ADMIN_SCOPES,
    Account,
    AccountRecord,
    AdminKey,
    AuditRecord,
    CostRecord,
    Key,
    KeyRecord,
    KeyStatus,
    Names,
    OrganizationRecord,
    ProjectRecord,
)
from sandbox.transport.wire import Exchange, Request, Response, headers_of, http_date

_MAXIMUM_LIFETIME = 31_536_000
_T = TypeVar("_T")


class OpenAI:
    """OpenAI as the rotator and its applications see it, below the base path `/v1`.

    `acceptance_delay`: for so long, in seconds, a new key answers 401.
    `listing_delay`: for so long lists do not show a new account.
    `usage_delay`: for so long a key's `last_used_at` does not show a use.
    `shows_uses`: whether `last_used_at` shows any use at all.
    `shows_scopes`: whether answers about a key tell its scopes, which OpenAI's API description does not promise.
    `refused_scopes`: scopes that no key gets.
    """

    def __init__(self, now: Callable[[], datetime], random: random.Random) -> None:
        self.acceptance_delay = 0.0
        self.listing_delay = 0.0
        self.usage_delay = 0.0
        self.shows_uses = True
        self.shows_scopes = True
        self.refused_scopes: frozenset[str] = frozenset()
        self.mints = 0
        self.log: list[Exchange] = []
        self._now = now
        self._names = Names(random)
        self._organizations: dict[str, OrganizationRecord] = {}
        self._admin_keys: dict[str, AdminKey] = {}
        self._admin_keys_made = 0
        self._acting: str | None = None
        """The id of the admin key whose request is served; None: a human is at work."""
        self._projects: dict[str, ProjectRecord] = {}
        self._keys: dict[str, tuple[ProjectRecord, KeyRecord]] = {}  # by value, deleted ones too

    def __repr__(self) -> str:
        return f"<OpenAI: {len(self._projects)} projects, {self.mints} mints, {len(self.log)} requests>"

    # Setting up

    def add_organization(self, name: str) -> str:
        """Add an organisation; the answer is its first admin key."""
        self._organizations[name] = OrganizationRecord(name)
        return self.add_admin_key(name)

    def add_admin_key(self, organization: str, *, scopes: Iterable[str] = ADMIN_SCOPES) -> str:
        """Add another admin key to the organisation."""
        key = self._new_admin_key(self._organizations[organization], "Admin key", scopes=frozenset(scopes))
        key.accepted_at = key.listed_at = key.created_at
        return key.value

    def rotate_admin_key(self, old: str) -> str:
        """Replace an admin key: the old one answers 401 from now on."""
        record = self._admin_keys.pop(old)
        return self.add_admin_key(record.organization.name, scopes=record.scopes)

    def revoke_admin_key(self, value: str) -> None:
        """Make an admin key answer 401."""
        del self._admin_keys[value]

    def restrict(self, admin_key: str, *scopes: str) -> None:
        """Leave the admin key only these of `ADMIN_SCOPES`; the rest answers 403."""
        self._admin_keys[admin_key].scopes = frozenset(scopes)

    def expire_admin_key(self, value: str, at: datetime | None) -> None:
        """Say when an admin key ends: it answers 401 from then on."""
        self._admin_keys[value].expires_at = at

    def date_admin_key(self, value: str, created_at: datetime) -> None:
        """Say when an admin key was made."""
        self._admin_keys[value].created_at = created_at

    def admin_key(self, value: str) -> AdminKey | None:
        """The admin key with this value, while OpenAI has it."""
        return self._admin_keys.get(value)

    def admin_keys(self, organization: str) -> tuple[AdminKey, ...]:
        """Every admin key of the organisation, those included that lists do not show yet."""
        return tuple(key for key in self._admin_keys.values() if key.organization.name == organization)

    def use_admin_key(self, value: str) -> bool:
        """Use an admin key as somebody's script does; returns whether OpenAI accepts it."""
        path, headers = "/v1/organization/admin_api_keys", {"Authorization": f"Bearer {value}"}
        return self.handle(Request.of("GET", path, headers=headers)).status != 401

    def keep_audit_log(self, organization: str) -> None:
        """Turn the organisation's audit log on: it has what happens from now on."""
        self._organizations[organization].audited = True

    def spend(self, project: str, key: str | None, amount: float) -> None:
        """Have something cost so many US dollars now. `key`: the id of the key that was used; None: no key was."""
        owner = self._projects[project].organization
        owner.costs.append(CostRecord(self._now(), project, key, amount))

    def require_lifetime(self, organization: str, maximum: timedelta | None) -> None:
        """Refuse new keys that have no lifetime, or a longer one than this; None lifts it."""
        self._organizations[organization].maximum_lifetime = maximum

    def add_project(self, organization: str, id: str, *, name: str | None = None, default: bool = False) -> None:
        """Add a project; the default project takes no service accounts."""
        project = ProjectRecord(id, name or id, self._organizations[organization], self._now(), default)
        self._organizations[organization].projects[id] = project
        self._projects[id] = project

    def archive(self, project: str) -> None:
        """Archive the project: its accounts and keys are gone."""
        record = self._projects[project]
        record.archived_at = self._now()
        for account in list(record.accounts):
            self._delete_account(record, account)
        for key in list(record.keys):
            self._delete_key(record, key)

    def delete_project(self, project: str) -> None:
        """Delete the project: nothing answers for it any more, and its keys are dead."""
        self.archive(project)
        record = self._projects.pop(project)
        del record.organization.projects[project]

    def add_account(self, project: str, name: str, *, created_at: datetime | None = None) -> tuple[Account, str]:
        """Add an account by hand, as a stranger would in the console; the answer has its key's value too."""
        record = self._projects[project]
        account = self._new_account(record, name, "member")
        account.created_at = created_at or account.created_at
        key = self._new_key(record, account.id, name, lifetime=None)
        return account.shown(project, (key.id,)), key.value

    def add_user_key(self, project: str, name: str) -> tuple[str, str]:
        """Add a key that a user owns; the answer is its id and its value."""
        key = self._new_key(self._projects[project], None, name, lifetime=None)
        return key.id, key.value

    def add_key(self, project: str, account: str, name: str) -> tuple[str, str]:
        """Add another key of an account by hand; the answer is its id and its value."""
        key = self._new_key(self._projects[project], account, name, lifetime=None)
        self.mints -= 1
        return key.id, key.value

    def delete_key(self, project: str, key: str) -> None:
        """Delete a key by hand and leave its account, as the console and a leak scanner do."""
        self._delete_key(self._projects[project], key)

    def narrow_key(self, project: str, key: str, *scopes: str) -> None:
        """Leave a key these scopes by hand; without any it may do all."""
        self._narrow(self._projects[project], self._projects[project].keys[key], scopes)

    def expire_key(self, project: str, key: str, at: datetime | None) -> None:
        """Change by hand when a key ends."""
        self._projects[project].keys[key].expires_at = at

    def change_scopes(self, project: str, key: str, *scopes: str) -> None:
        """Change by hand what a key may do, as somebody would in the console; none are all."""
        self._narrow(self._projects[project], self._projects[project].keys[key], scopes)

    def rename_account(self, project: str, account: str, name: str) -> None:
        """Rename an account by hand, as somebody would in the console."""
        self._projects[project].accounts[account].name = name

    def delete_account(self, project: str, account: str) -> None:
        """Delete an account by hand, as somebody would in the console."""
        self._delete_account(self._projects[project], account)

    def use(self, value: str) -> bool:
        """Use a key as an application does; returns whether OpenAI accepts it."""
        if self.handle(Request.of("GET", "/v1/models", headers={"Authorization": f"Bearer {value}"})).status == 200:
            return True
        _, key = self._keys.get(value, (None, None))
        if key is None or not key.scopes or self.key_status(value) is not KeyStatus.ACTIVE:
            return False
        # It may not list models, and works for what it is for.
        key.use(self._now(), self._uses_shown_until())
        return True

    # Looking in

    def accounts(self, project: str) -> tuple[Account, ...]:
        """Every account of the project, including the ones that lists do not show yet."""
        record = self._projects[project]
        keys: dict[str, list[str]] = {account: [] for account in record.accounts}
        for key in record.keys.values():
            if key.account in keys:
                keys[key.account].append(key.id)
        return tuple(account.shown(project, tuple(keys[account.id])) for account in record.accounts.values())

    def key_status(self, value: str) -> KeyStatus:
        """The present status of the key's value."""
        found = self._keys.get(value)
        return found[1].status(self._now()) if found else KeyStatus.UNKNOWN

    def key(self, value: str) -> Key | None:
        """The key with this value, if there ever was one."""
        found = self._keys.get(value)
        if found is None:
            return None
        project, record = found
        status = record.status(self._now())
        used = record.last_used(self._now())
        return Key(record.id, record.account, project.id, status, used, record.expires_at, record.scopes)

    # Reconciler

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        now = self._now()
        try:
            response = self._answer(request)
        except OpenAIError as error:
            response = error.response
        finally:
            self._acting = None
        self.log.append(Exchange(now, request.method, request.path, response.status))
        headers = {**response.headers, "Date": http_date(now), "x-request-id": f"req_{len(self.log):024x}"}
        return Response(response.status, headers_of(headers), response.body)

    def _answer(self, request: Request) -> Response:
        match (request.method, *request.segments):
            case ("GET", "v1", "models"):
                return self._models(request)
            case (method, "v1", "organization", "admin_api_keys", *rest) if method in ("GET", "POST", "DELETE"):
                return self._admin_api_keys(request, rest)
            case ("GET", "v1", "organization", "audit_logs"):
                return audit_log(request, self._audit_log(request))
            case ("GET", "v1", "organization", "costs"):
                return costs(request, self._allowed(request, "read").organization.costs, self._now())
            case (method, "v1", "organization", "projects", project, *rest) if method in ("GET", "POST", "DELETE"):
                return self._in_project(request, self._authorized(request, project), rest)
        raise not_served(f"{request.method} {request.path}")

    def _authorized(self, request: Request, project: str) -> ProjectRecord:
        admin = self._allowed(request, "read" if request.method == "GET" else "write")
        record = admin.organization.projects.get(project)
        if record is None:
            raise missing("project", project)
        return record

    def _allowed(self, request: Request, scope: str) -> AdminKey:
        """The admin key of the request, which must have this scope."""
        value, now = request.bearer, self._now()
        admin = self._admin_keys.get(value or "")
        if admin is None or not admin.works(now):
            if value in self._keys and self.key_status(value) is KeyStatus.ACTIVE:
                raise forbidden("api.management.read")
            raise unauthorized(value)
        if scope not in admin.scopes:
            raise forbidden(f"api.management.{scope}")
        admin.use(now, self._uses_shown_until())
        self._acting = admin.id
        return admin

    def _admin_api_keys(self, request: Request, rest: list[str]) -> Response:
        """The organisation's admin keys: list, read, create, delete, as the official SDK asks for them."""
        admin = self._allowed(request, "admin_keys")
        if request.method != "GET" and "write" not in admin.scopes:
            raise forbidden("api.management.write")
        now, owner = self._now(), admin.organization
        live = {
            key.id: key
            for key in self._admin_keys.values()
            if key.organization is owner and (key.expires_at is None or key.expires_at > now)
        }
        match (request.method, *rest):
            case ("GET",):
                shown = [key for key in live.values() if key.listed_at <= now]
                return admin_keys(request, shown, self._uses_shown_until())
            case ("POST",):
                body = _fields(request, {"name", "expires_in_seconds"})
                name = body.get("name")
                if not isinstance(name, str) or not name:
                    raise invalid("Missing required parameter: 'name'.", "name")
                key = self._new_admin_key(owner, name, lifetime=_seconds(body))
                return Response.of_json(200, admin_key_json(key, now) | {"value": key.value})
            case ("GET", id):
                return Response.of_json(
                    200, admin_key_json(_found(live, "admin API key", id), self._uses_shown_until())
                )
            case ("DELETE", id):
                del self._admin_keys[_found(live, "admin API key", id).value]
                head = {"object": "organization.admin_api_key.deleted", "id": id}
                return Response.of_json(200, head | {"deleted": True})
        raise not_served(f"{request.method} {request.path}")

    def _new_admin_key(
        self,
        owner: OrganizationRecord,
        name: str,
        *,
        lifetime: timedelta | None = None,
        scopes: frozenset[str] = ADMIN_SCOPES,
    ) -> AdminKey:
        now, value = self._now(), self._names.key("sk-admin-")
        self._admin_keys_made += 1
        accepted = now + timedelta(seconds=self.acceptance_delay)
        listed = now + timedelta(seconds=self.listing_delay)
        expires = now + lifetime if lifetime is not None else None
        id = f"key_admin{self._admin_keys_made:04}"
        key = AdminKey(owner, id, name, value, now, accepted, listed, expires, scopes=scopes)
        self._admin_keys[value] = key
        return key

    def _audit_log(self, request: Request) -> list[AuditRecord]:
        owner = self._allowed(request, "audit_logs").organization
        if not owner.audited:
            raise invalid("Audit logging is not enabled for this organization.")
        return owner.audit_log

    def _noted(self, project: ProjectRecord, event: str, resource: str, **details: Any) -> None:
        """Write it into the audit log, if there is one."""
        log = project.organization.audit_log
        if project.organization.audited:
            id = f"audit_log-{len(log):08}"
            log.append(AuditRecord(id, self._now(), event, resource, project.id, self._acting, details))

    def _delete_account(self, project: ProjectRecord, account: str) -> None:
        keys = [key.id for key in project.keys.values() if key.account == account]
        project.delete_account(account)
        self._noted(project, "service_account.deleted", account)
        for key in keys:
            self._noted(project, "api_key.deleted", key)

    def _delete_key(self, project: ProjectRecord, key: str) -> None:
        project.delete_key(key)
        self._noted(project, "api_key.deleted", key)

    def _narrow(self, project: ProjectRecord, key: KeyRecord, scopes: Iterable[str]) -> None:
        key.scopes = tuple(scopes)
        self._noted(project, "api_key.updated", key.id, changes_requested={"scopes": list(key.scopes)})

    def _in_project(self, request: Request, project: ProjectRecord, rest: list[str]) -> Response:
        if rest and project.archived_at is not None:
            raise invalid(f"Project {project.id} is archived.")
        match (request.method, *rest):
            case ("GET",):
                return Response.of_json(200, project_json(project))
            case ("GET", "service_accounts"):
                now = self._now()
                shown = [account_json(account) for account in project.accounts.values() if account.listed_at <= now]
                return _page(request, project, shown)
            case ("POST", "service_accounts"):
                return self._create_account(request, project)
            case (_, "service_accounts", id):
                return self._one_account(request, project, _found(project.accounts, "service account", id))
            case ("POST", "service_accounts", id, "api_keys"):
                return self._create_key(request, project, _found(project.accounts, "service account", id))
            case ("GET", "api_keys"):
                wanted = request.query.get("owner_project_access", "active")
                if wanted not in ("active", "inactive", "any"):
                    raise invalid("owner_project_access must be one of active, inactive, any.", "owner_project_access")
                keys = [self._key_json(project, key) for key in project.keys.values()]
                return _page(request, project, [key for key in keys if wanted in ("any", key["owner_project_access"])])
            case (_, "api_keys", id):
                return self._one_key(request, project, _found(project.keys, "API key", id))
        raise not_served(f"{request.method} {request.path}")

    def _models(self, request: Request) -> Response:
        value = request.bearer or ""
        if value in self._admin_keys:
            raise forbidden("api.model.read")
        if self.key_status(value) is not KeyStatus.ACTIVE:
            raise unauthorized(value)
        project, key = self._keys[value]
        if key.account is not None and project.accounts[key.account].role == "none":
            raise forbidden("api.model.read")
        if key.scopes and not {"api.model.read", "api.all.read"} & set(key.scopes):
            raise lacking("api.model.read")
        key.use(self._now(), self._uses_shown_until())
        model = {"id": "gpt-sandbox", "object": "model", "created": unix(project.created_at), "owned_by": "sandbox"}
        return Response.of_json(200, {"object": "list", "data": [model]})

    def _create_account(self, request: Request, project: ProjectRecord) -> Response:
        body = _fields(request, {"name", "create_service_account_only", "expires_in_seconds"})
        name = body.get("name")
        if not isinstance(name, str) or not name:
            raise invalid("Missing required parameter: 'name'.", "name")
        alone = body.get("create_service_account_only") or False
        if not isinstance(alone, bool):
            raise invalid("create_service_account_only must be a boolean.", "create_service_account_only")
        if alone and body.get("expires_in_seconds") is not None:
            raise invalid(
                "expires_in_seconds needs a key, and create_service_account_only makes none.", "expires_in_seconds"
            )
        lifetime = None if alone else self._lifetime(body, project)
        if project.default:
            raise invalid("Service accounts cannot be created in the default project.")
        account = self._new_account(project, name, "none" if alone else "member")
        key = None if alone else self._new_key(project, account.id, "Secret Key", lifetime=lifetime)
        return Response.of_json(200, account_json(account) | {"api_key": None if key is None else new_key_json(key)})

    def _create_key(self, request: Request, project: ProjectRecord, account: AccountRecord) -> Response:
        body = _fields(request, {"name", "expires_in_seconds", "scopes"})
        name = body.get("name") or "Secret Key"
        if not isinstance(name, str):
            raise invalid("name must be a string.", "name")
        key = self._new_key(
            project, account.id, name, lifetime=self._lifetime(body, project), scopes=self._scopes(body)
        )
        return Response.of_json(200, new_key_json(key))

    def _lifetime(self, body: dict[str, Any], project: ProjectRecord) -> timedelta | None:
        lifetime = _seconds(body)
        maximum = project.organization.maximum_lifetime
        if maximum is not None and (lifetime is None or lifetime > maximum):
            text = f"Your organization requires keys to expire within {int(maximum.total_seconds())} seconds."
            raise invalid(text, "expires_in_seconds")
        return lifetime

    def _one_account(self, request: Request, project: ProjectRecord, account: AccountRecord) -> Response:
        if request.method == "DELETE":
            self._delete_account(project, account.id)
            deleted = {"object": "organization.project.service_account.deleted", "id": account.id, "deleted": True}
            return Response.of_json(200, deleted)
        if request.method == "POST":
            body = _fields(request, {"name", "role"})
            name, role = body.get("name", account.name), body.get("role", account.role)
            if not isinstance(name, str) or not name:
                raise invalid("name must be a non-empty string.", "name")
            if role not in ("member", "owner", account.role):
                raise invalid("role must be one of member, owner.", "role")
            account.name, account.role = name, role
        return Response.of_json(200, account_json(account))

    def _one_key(self, request: Request, project: ProjectRecord, key: KeyRecord) -> Response:
        if request.method == "GET":
            return Response.of_json(200, self._key_json(project, key))
        if request.method == "POST":
            body = _fields(request, {"name", "scopes", "expires_in_seconds"})
            if "scopes" in body:
                self._narrow(project, key, self._scopes(body))
            lifetime = self._lifetime(body, project) if body.get("expires_in_seconds") is not None else None
            # Repeating a lifetime starts its clock anew.
            key.expires_at = self._now() + lifetime if lifetime is not None else key.expires_at
            return Response.of_json(200, self._key_json(project, key))
        self._delete_key(project, key.id)
        return Response.of_json(200, {"object": "organization.project.api_key.deleted", "id": key.id, "deleted": True})

    def _new_account(self, project: ProjectRecord, name: str, role: str) -> AccountRecord:
        now = self._now()
        listed = now + timedelta(seconds=self.listing_delay)
        account = AccountRecord(self._names.identifier("user-"), name, role, now, listed)
        project.accounts[account.id] = account
        project.enrol(account.id)
        self._noted(project, "service_account.created", account.id, data={"role": role})
        return account

    def _new_key(
        self,
        project: ProjectRecord,
        account: str | None,
        name: str,
        *,
        lifetime: timedelta | None,
        scopes: tuple[str, ...] = (),
    ) -> KeyRecord:
        now = self._now()
        value = self._names.key("sk-svcacct-" if account else "sk-proj-")
        accepted = now + timedelta(seconds=self.acceptance_delay)
        expires = now + lifetime if lifetime is not None else None
        id = self._names.identifier("key_")
        key = KeyRecord(id, name, value, account, now, accepted, expires, scopes=scopes)
        project.keys[key.id] = key
        project.enrol(key.id)
        self._keys[value] = (project, key)
        self.mints += 1
        self._noted(project, "api_key.created", key.id, data={"scopes": list(key.scopes)})
        return key

    def _key_json(self, project: ProjectRecord, key: KeyRecord) -> dict[str, Any]:
        shown = key_json(project, key, self._uses_shown_until())
        return shown if self.shows_scopes else {name: value for name, value in shown.items() if name != "scopes"}

    def _scopes(self, body: dict[str, Any]) -> tuple[str, ...]:
        """The key's scopes; none are all."""
        scopes = body.get("scopes") or []
        if not isinstance(scopes, list) or not all(isinstance(scope, str) and scope for scope in scopes):
            raise invalid("scopes must be an array of strings.", "scopes")
        if refused := sorted(self.refused_scopes & set(scopes)):
            # Source: OpenAI's words as users report them.
            text = f"Request includes unauthorized scopes: {', '.join(refused)}. Please check and remove these scopes."
            raise invalid(text, "scopes")
        return tuple(scopes)

    def _uses_shown_until(self) -> datetime:
        if not self.shows_uses:
            return datetime.min.replace(tzinfo=UTC)
        return self._now() - timedelta(seconds=self.usage_delay)


def _fields(request: Request, known: set[str]) -> dict[str, Any]:
    try:
        body = request.json()
    except ValueError:
        raise invalid("We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise invalid("The body of the request must be a JSON object.")
    for name in body.keys() - known:
        raise not_served(f"the field {name}")
    return body


def _seconds(body: dict[str, Any]) -> timedelta | None:
    """The lifetime that a new key is to have."""
    seconds = body.get("expires_in_seconds")
    if seconds is not None and (type(seconds) is not int or not 1 <= seconds <= _MAXIMUM_LIFETIME):
        text = f"expires_in_seconds must be an integer between 1 and {_MAXIMUM_LIFETIME}."
        raise invalid(text, "expires_in_seconds")
    return None if seconds is None else timedelta(seconds=seconds)


def _found(objects: dict[str, _T], what: str, identifier: str) -> _T:
    try:
        return objects[identifier]
    except KeyError:
        raise missing(what, identifier) from None


def _page(request: Request, project: ProjectRecord, items: list[dict[str, Any]]) -> Response:
    for name in set(request.query) - {"limit", "after", "owner_project_access"}:
        raise not_served(f"the query parameter {name}")
    text = request.query.get("limit", "20")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100:
        raise invalid("limit must be an integer between 1 and 100.", "limit")
    limit = int(text)
    after = request.query.get("after")
    if after is not None:
        if after not in project.order:
            raise invalid("after must be the id of an object of this list.", "after")
        items = [item for item in items if project.order[item["id"]] > project.order[after]]
    shown = items[:limit]
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    page = {"object": "list", "data": shown, "first_id": first, "last_id": last, "has_more": len(items) > limit}
    return Response.of_json(200, page)
