"""Adapter: OpenAI's Admin API over HTTP. The only module that sends an admin key or a new key to OpenAI.

Guarantees:
- The client follows no redirect.
- It sends a create once.
- It checks an id again before the id becomes part of a path.
- An answer counts only if it has the documented shape.
- An error holds our text, the status, a well-formed OpenAI error code and the request id, never a server's text.

Source of paths, fields and status codes: OpenAI's API description (openapi 2.3.0) and the notes in docs/openai.md.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NoReturn
from urllib.parse import urlencode

import aiohttp

from worker.errors import (
    ConfigurationError,
    Forbidden,
    NotFound,
    NotSent,
    Refused,
    RotatorError,
    Throttled,
    Unanswered,
    Unintelligible,
)
from worker.model.audited import AdminKeyFacts, AuditEvent, ProjectKey
from worker.model.hidden import Hidden
from worker.model.hosts import is_allowed
from worker.model.names import ID
from worker.model.scopes import Scopes, canonical
from worker.model.sightings import AccountKey, ListedAccount, NewAccount, NewAdminKey
from worker.model.targets import Project
from worker.model.times import format_duration
from worker.model.values import JSON, PREFIX
from worker.openai.audited import EVENTS, admin_key_facts, audit_event, project_key
from worker.ports import Randomness
from worker.runtime.certificates import certificate_problem, connection_problem
from worker.runtime.retrying import retry_after, retrying
from worker.settings.proxies import DIRECT, Proxies, is_proxy

TIMEOUT = 30.0
"""Seconds for one request."""
PAGE = 100
"""The largest page that OpenAI gives."""
_CODE = re.compile(r"(?!.*sk-)[A-Za-z0-9_.-]{1,64}\Z")
"""The form of an error code or a request id. A key does not have it."""
_ADVICE = {
    401: ("OpenAIUnauthorized", "the admin key is not valid"),
    403: ("OpenAIForbidden", "the admin key lacks the permission"),
    404: ("OpenAINotFound", "no such project, or not one of the admin key's organisation"),
    400: ("OpenAIRefused", "the request was refused; an archived project answers so"),
}
WRONG_HOST, ADDRESS = "OpenAIWrongHost", "OpenAIAddressRefused"
MISSING_SCOPE = "OpenAIForbidden"
_NO_ADDRESS = (ADDRESS, "its organisation's list of allowed addresses lacks the cluster's")
_CODES = {
    "incorrect_hostname": (WRONG_HOST, "the project lives in another region: set `host` to that region's"),
    "ip_not_authorized": _NO_ADDRESS,
    "ip_address_not_allowed": _NO_ADDRESS,
    "unsupported_country_region_territory": (
        ADDRESS,
        "OpenAI does not serve the country or region that the cluster's requests come from",
    ),
}
"""What waiting does not mend. Source: the official SDKs' tests and public reports (docs/openai.md)."""
_LIFETIME = (
    "its organisation or project limits how long a key may live: set the annotation "
    f"{PREFIX}key-lifetime of the ExternalSecret or the generator to a time within the limit"
)
_CREATE, _VERIFY, _NARROW = "create account", "verify key", "narrow key"
_CREATE_ADMIN, _DELETE_ADMIN = "create admin key", "delete admin key"
_NO_PROJECT = {
    404: ("OpenAINotFound", "there is no such admin key, or the host does not serve admin keys"),
    400: ("OpenAIRefused", "the request was refused"),
}
"""`_ADVICE` where a request is about no project."""
_TAIL = 4
"""Characters that a redacted value shows at its end, as the console does."""
_NEVER = datetime(2200, 1, 1, tzinfo=UTC)
"""A time from then on stands for none: the ledger reads none so late."""


@asynccontextmanager
async def connected(
    connections: int, random: Randomness, proxies: Proxies, *, own_authority: bool = False
) -> AsyncIterator[OpenAIAdminApi]:
    """The Admin API over at most so many connections at once, closed at the end.

    `own_authority`: whoever installed the worker has named an authority (`SSL_CERT_FILE`), a proxy's that inspects TLS.
    """
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=_lenient() if own_authority else True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "openai-key-rotator"},
    )
    async with session:
        yield OpenAIAdminApi(session, random, proxies)


def _lenient() -> ssl.SSLContext:
    """A context that verifies chain, name and dates, without the strict rules of Python 3.13."""
    # Authorities of proxies that inspect TLS often break those.
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class OpenAIAdminApi:
    """`session` is an aiohttp.ClientSession, or its stand-in."""

    def __init__(self, session: aiohttp.ClientSession, random: Randomness, proxies: Proxies = DIRECT) -> None:
        self._session = session
        self._random = random
        self._proxies = proxies

    async def list_accounts(self, project: Project, admin_key: Hidden) -> dict[str, ListedAccount]:
        accounts: dict[str, ListedAccount] = {}
        for item in await self._pages(_path(project), admin_key, "list accounts"):
            account_id, name = _field(item, "id", "list accounts"), item.get("name")
            created = _time_if_any(item.get("created_at"))
            accounts[account_id] = ListedAccount(name if isinstance(name, str) else "", created)
        return accounts

    async def list_keys(self, project: Project, admin_key: Hidden) -> list[AccountKey]:
        # Without the parameter OpenAI leaves out keys that still work (docs/openai.md).
        keys, path = [], f"{_project(project)}/api_keys"
        for item in await self._pages(path, admin_key, "list keys", "&owner_project_access=any"):
            owner = item.get("owner")
            if not isinstance(owner, Mapping):
                raise _unintelligible("list keys", "has no owner")
            if owner.get("type") != "service_account":
                continue
            account_id = _field(owner.get("service_account"), "id", "list keys")
            created = _time(item.get("created_at"), "list keys", "created_at")
            expires = _time_if_any(item.get("expires_at"))
            expires = expires if expires is not None and expires > created else None
            active = item.get("owner_project_access") != "inactive"
            tail = str(item.get("redacted_value", ""))[-_TAIL:]
            scopes = _scopes_if_any(item)
            keys.append(AccountKey(_field(item, "id", "list keys"), account_id, created, expires, active, tail, scopes))
        return keys

    async def list_project_keys(self, project: Project, admin_key: Hidden) -> list[ProjectKey]:
        pages = self._pages(f"{_project(project)}/api_keys", admin_key, "list keys", "&owner_project_access=any")
        return [project_key(item) for item in await pages]

    async def list_admin_keys(self, host: str, admin_key: Hidden) -> list[AdminKeyFacts]:
        pages = self._pages(_admin_keys(host), admin_key, "list admin keys")
        return [admin_key_facts(item) for item in await pages]

    async def create_admin_key(
        self, host: str, admin_key: Hidden, name: str, *, lifetime: timedelta | None
    ) -> NewAdminKey:
        body: JSON = {"name": name}
        if lifetime is not None:
            body["expires_in_seconds"] = int(lifetime.total_seconds())
        made = await self._json("POST", _admin_keys(host), admin_key, what=_CREATE_ADMIN, body=body)
        value = _usable(made.get("value"), _CREATE_ADMIN)
        return NewAdminKey(_field(made, "id", _CREATE_ADMIN), value, _time_if_any(made.get("expires_at")))

    async def delete_admin_key(self, host: str, admin_key: Hidden, key_id: str) -> None:
        path = f"{_admin_keys(host)}/{_id(key_id)}"
        answer = await self._json("DELETE", path, admin_key, what=_DELETE_ADMIN, repeatable=True)
        if answer.get("deleted") is not True:
            raise _unintelligible(_DELETE_ADMIN, "does not say that it is deleted")

    async def list_audit_events(
        self, project: Project, admin_key: Hidden, resources: Collection[str], *, since: datetime
    ) -> list[AuditEvent]:
        wanted = [("project_ids[]", _id(project.id)), ("effective_at[gte]", str(int(since.timestamp())))]
        wanted += [("event_types[]", event) for event in EVENTS]
        wanted += [("resource_ids[]", _id(resource)) for resource in sorted(resources)]
        query, path = "&" + urlencode(wanted), f"{project.host}/organization/audit_logs"
        found = [audit_event(item) for item in await self._pages(path, admin_key, "read audit log", query)]
        return [event for event in found if event is not None]

    async def create_account(
        self, project: Project, admin_key: Hidden, name: str, *, lifetime: timedelta | None
    ) -> NewAccount:
        body: JSON = {"name": name}
        if lifetime is not None:
            body["expires_in_seconds"] = int(lifetime.total_seconds())
        made = await self._json("POST", _path(project), admin_key, what=_CREATE, body=body)
        key = made.get("api_key")
        if not isinstance(key, Mapping):
            raise _unintelligible(_CREATE, "holds no key")
        value = _usable(key.get("value"), _CREATE)
        account_id, key_id = _field(made, "id", _CREATE), _field(key, "id", _CREATE)
        return NewAccount(account_id, key_id, value, _time_if_any(key.get("expires_at")))

    async def read_account(self, project: Project, admin_key: Hidden, account_id: str) -> ListedAccount:
        path = f"{_path(project)}/{_id(account_id)}"
        account = await self._json("GET", path, admin_key, what="read account", repeatable=True)
        if account.get("id") != account_id:
            raise _unintelligible("read account", "is about another account")
        name = account.get("name")
        return ListedAccount(name if isinstance(name, str) else "", _time_if_any(account.get("created_at")))

    async def narrow_key(self, project: Project, admin_key: Hidden, key_id: str, scopes: Scopes) -> None:
        if not scopes:
            # OpenAI would lift every restriction.
            raise ConfigurationError("InvalidRequest", "a key is never narrowed to no scopes")
        path = f"{_project(project)}/api_keys/{_id(key_id)}"
        # Without `expires_in_seconds`: OpenAI would start the key's lifetime anew with each repetition.
        body: JSON = {"scopes": list(scopes)}
        key = await self._json("POST", path, admin_key, what=_NARROW, body=body, repeatable=True)
        if key.get("id") != key_id:
            raise _unintelligible(_NARROW, "is about another key")

    async def key_scopes(self, project: Project, admin_key: Hidden, key_id: str) -> Scopes | None:
        path = f"{_project(project)}/api_keys/{_id(key_id)}"
        key = await self._json("GET", path, admin_key, what="read key", repeatable=True)
        if key.get("id") != key_id:
            raise _unintelligible("read key", "is about another key")
        return _scopes_if_any(key)

    async def key_last_used(self, project: Project, admin_key: Hidden, key_id: str) -> datetime | None:
        path = f"{_project(project)}/api_keys/{_id(key_id)}"
        key = await self._json("GET", path, admin_key, what="read key", repeatable=True)
        used = key.get("last_used_at")
        return None if used is None else _time(used, "read key", "last_used_at")

    async def delete_account(self, project: Project, admin_key: Hidden, account_id: str) -> None:
        path = f"{_path(project)}/{_id(account_id)}"
        answer = await self._json("DELETE", path, admin_key, what="delete account", repeatable=True)
        if answer.get("deleted") is not True:
            raise _unintelligible("delete account", "does not say that it is deleted")

    async def project_archived(self, project: Project, admin_key: Hidden) -> bool:
        found = await self._json("GET", _project(project), admin_key, what="read project", repeatable=True)
        return found.get("id") == project.id and found.get("status") == "archived"

    async def key_accepted(self, host: str, key: Hidden) -> bool:
        """Does OpenAI accept the key? 401 with OpenAI's own error: no, or not yet.

        Raises Refused for what waiting does not mend: the wrong regional host, an address that is not allowed.
        Raises Unanswered for an answer that is not OpenAI's.
        """
        try:
            await self._json("GET", f"{host}/models", key, what=_VERIFY, repeatable=False)
        except Refused as error:
            if error.reason in (WRONG_HOST, ADDRESS):
                raise
            # They tell nothing about the key: it may lack that permission, or the host may lack that path.
            if error.reason == MISSING_SCOPE or error.status == 403:
                return True
            if error.status == 404 and (error.own or not is_allowed(host, ())):
                return True
            if error.status == 401:
                return False
            if isinstance(error, Throttled):
                raise
            raise Unanswered(error.reason, error.message) from None
        return True

    # --- one request

    async def _pages(self, path: str, admin_key: Hidden, what: str, query: str = "") -> list[JSON]:
        """Every item of a list, page by page."""
        found: list[JSON] = []
        after: str | None = None
        seen: set[str] = set()
        while True:
            place = f"?limit={PAGE}{query}" + (f"&after={after}" if after is not None else "")
            page = await self._json("GET", path + place, admin_key, what=what, repeatable=True)
            items, more = page.get("data"), page.get("has_more")
            if not isinstance(items, list) or not isinstance(more, bool):
                raise _unintelligible(what, "has no data or has_more")
            for item in items:
                _field(item, "id", what)
            found += items
            if not more:
                return found
            last = page.get("last_id") or (items[-1]["id"] if items else None)
            if not isinstance(last, str) or not ID.match(last) or not items:
                raise _unintelligible(what, "says that there is more, but not where")
            if last in seen:
                raise _unintelligible(what, "does not end")
            seen.add(last)
            after = last

    async def _json(
        self, method: str, url: str, key: Hidden, *, what: str, body: JSON | None = None, repeatable: bool = False
    ) -> JSON:
        text = await self._retry(
            lambda: self._send(method, url, key, what=what, body=body), repeatable=repeatable, method=method
        )
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            raise _unintelligible(what, "is not JSON") from None
        if not isinstance(answer, dict):
            raise _unintelligible(what, "is not a JSON object")
        return answer

    async def _retry(self, call: Callable[[], Awaitable[bytes]], *, repeatable: bool, method: str = "") -> bytes:
        """Send a request, and repeat it if `retrying` allows that; never a create, and nothing after a 429."""
        # I1: no second create under the same name, not even a harmless one. Narrowing twice is narrowing once.
        if method == "POST" and not repeatable:
            return await call()
        # A 429 concerns all users of the same admin key: `worker.openai.limiter` handles it.
        return await retrying(call, repeatable=repeatable, random=self._random, throttled=False)

    async def _send(self, method: str, url: str, key: Hidden, *, what: str, body: JSON | None = None) -> bytes:
        """The body of a 2xx answer. Raises one of the errors of `worker.errors` for anything else."""
        proxy = self._proxies.for_url(url)
        try:
            async with self._session.request(
                method,
                url,
                headers={"Authorization": f"Bearer {key.reveal()}"},
                json=body,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
                allow_redirects=False,
                proxy=proxy,
            ) as response:
                content = await response.read()
        except aiohttp.ClientConnectorCertificateError as error:
            whose = "the proxy" if is_proxy(error.host, proxy) else "OpenAI's host"
            message = f"the certificate of {whose} is not accepted ({certificate_problem(error)}): {what}"
            raise NotSent("OpenAICertificate", message) from None
        except aiohttp.ClientHttpProxyError as error:
            raise NotSent(
                "ProxyRefused", f"the proxy refused the way to OpenAI (status {error.status}): {what}"
            ) from None
        except aiohttp.ClientConnectorError as error:
            where = "the proxy that leads to OpenAI" if is_proxy(error.host, proxy) else "OpenAI"
            raise NotSent(
                "OpenAIUnreachable", f"no connection to {where} to {what}: {connection_problem(error)}"
            ) from None
        except TimeoutError:
            raise Unanswered("OpenAIUnanswered", f"OpenAI did not answer within {TIMEOUT:.0f} s: {what}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unanswered(
                "OpenAIUnanswered", f"the connection to OpenAI broke: {what} ({connection_problem(error)})"
            ) from None
        except ValueError as error:
            raise ConfigurationError("InvalidRequest", f"{what}: {type(error).__name__}") from None
        if not 200 <= response.status < 300:
            asked = body.get("scopes", ()) if body is not None else ()
            _raise(response.status, response.headers, content, what=what, scopes=asked)
        return content


def _raise(
    status: int, headers: Mapping[str, str], content: bytes, *, what: str, scopes: Collection[str] = ()
) -> NoReturn:
    details = _details(status, headers, content)
    if status == 429:
        message = f"OpenAI asks to slow down: {what} ({details})"
        raise Throttled("OpenAIThrottled", message, retry_after=retry_after(headers))
    if what not in (_CREATE, _CREATE_ADMIN) and _is_passing(status, headers):
        final = headers.get("x-should-retry") == "false"
        message = f"OpenAI failed: {what} ({details})"
        raise Unanswered("OpenAIUnanswered", message, retry_after=retry_after(headers), final=final)
    if status >= 500 or status < 200 or status in (408, 425):
        raise Unanswered("OpenAIUnanswered", f"OpenAI failed: {what} ({details})")
    if status < 400:
        raise Refused(
            "OpenAIRedirect", f"OpenAI's host redirects, which is not followed: {what} ({details})", status=status
        )
    answer = _object_of(content)
    if answer is None and not (what == _VERIFY and status == 404):
        # A proxy, a firewall, a host without /v1 at its end: of a create nobody knows then what became of it.
        advice = "the answer is not OpenAI's: a proxy, a firewall, or a host without /v1 at its end"
        raise Unintelligible("OpenAINotReached", f"OpenAI was not reached to {what}: {advice} ({details})")
    by_code = _by_code(status, answer or {})
    known = _ADVICE | _NO_PROJECT if what in (_CREATE_ADMIN, _DELETE_ADMIN) else _ADVICE
    reason, advice = by_code or known.get(status, ("OpenAIRefused", "the request was refused"))
    if what == _CREATE and status in (400, 422) and _is_about_expiry(content):
        reason, advice = "KeyLifetime", _LIFETIME + _limit(content)
    if what == _NARROW and status in (400, 403, 422) and by_code is None and b"scope" in content.lower():
        reason, advice = "ScopesRefused", _scopes_advice(content, scopes)
    kind: type[Refused] = {403: Forbidden, 404: NotFound}.get(status, Refused)
    raise kind(reason, f"OpenAI refused to {what}: {advice} ({details})", status=status, own=answer is not None)


def _is_passing(status: int, headers: Mapping[str, str]) -> bool:
    """May the same request be well later? 409 is a lock that passes; the server's own word goes before the status."""
    # Source: `_should_retry` of the official SDKs.
    if headers.get("x-should-retry") == "true":
        return True
    return status >= 500 or status < 200 or status in (408, 409, 425)


def _object_of(content: bytes) -> JSON | None:
    """The answer, where it has OpenAI's error object; None where it has none: a gateway may write JSON, too."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and isinstance(answer.get("error"), dict) else None


def _by_code(status: int, answer: JSON) -> tuple[str, str] | None:
    """Reason and advice of a refusal whose status alone says too little; None where the status says enough."""
    error = answer.get("error", {})
    code, text = str(error.get("code")), str(error.get("message"))
    if code in _CODES:
        return _CODES[code]
    if status in (401, 403) and ("issing scopes" in text or code == "missing_scope"):
        return MISSING_SCOPE, "the admin key lacks the permission: a scope such as api.management.write is missing"
    return None


def _details(status: int, headers: Mapping[str, str], content: bytes) -> str:
    """Status, code and request id, without any text that could quote a key."""
    parts = [f"status {status}"]
    try:
        code = json.loads(content)["error"]["code"]
    except (ValueError, RecursionError, KeyError, TypeError):
        code = None
    request_id = headers.get("x-request-id")
    parts += [f"code {code}"] if isinstance(code, str) and _CODE.match(code) else []
    parts += [f"request {request_id}"] if isinstance(request_id, str) and _CODE.match(request_id) else []
    return ", ".join(parts)


def _is_about_expiry(content: bytes) -> bool:
    """Is an error about the expiry of keys? OpenAI documents no form. We inspect its text and never show it."""
    try:
        error = json.loads(content)["error"]
        return any("expir" in str(error.get(field)) for field in ("param", "code", "message"))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return False


def _limit(content: bytes) -> str:
    """The limit, if the text of the error holds one number of seconds or days. A number reveals no secret."""
    found = re.findall(rb"(?<![\w.-])(\d{1,8}) (second|day)s?\b", content)
    if len(found) != 1:
        return ""
    number, unit = found[0]
    return f", which OpenAI says is {format_duration(timedelta(**{unit.decode() + 's': int(number)}))}"


def _scopes_advice(content: bytes, scopes: Collection[str]) -> str:
    """Which of the scopes that were asked for an error names: the user's own words, none of the server's."""
    text = content.decode(errors="replace")
    named = [scope for scope in scopes if re.search(rf"(?<![\w.]){re.escape(scope)}(?!\.?\w)", text)]
    return f"it does not give the scopes {', '.join(named or scopes)}"


def _scopes_if_any(key: JSON) -> Scopes | None:
    """The scopes that an answer about a key tells. OpenAI documents no such field: without it nobody knows."""
    # Source: `ProjectAPIKey` of the official SDK. Where there is one, null and the empty list mean no restriction.
    if "scopes" not in key:
        return None
    found = key["scopes"] or []
    if not isinstance(found, list) or not all(isinstance(scope, str) for scope in found):
        return None
    return canonical(found)


def _time_if_any(value: object) -> datetime | None:
    """A time beside what the answer is about. One that cannot be read counts as not said: the object exists."""
    try:
        found = None if value is None else _time(value, "", "")
    except Unintelligible:
        return None
    return None if found is not None and found >= _NEVER else found


def _unintelligible(what: str, problem: str) -> RotatorError:
    return Unintelligible("OpenAIUnintelligible", f"OpenAI's answer to '{what}' {problem}")


def _field(obj: object, field: str, what: str) -> str:
    value = obj.get(field) if isinstance(obj, Mapping) else None
    if not isinstance(value, str) or not ID.match(value):
        raise _unintelligible(what, f"has no usable {field}")
    return value


def _time(value: object, what: str, field: str) -> datetime:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e11:
        raise _unintelligible(what, f"has no usable {field}")
    return datetime.fromtimestamp(value, UTC)


def _id(value: str) -> str:
    if not ID.match(value):
        raise ConfigurationError("InvalidId", "an id has characters that an OpenAI id does not have")
    return value


def _usable(value: object, what: str) -> Hidden:
    """A new key's value."""
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise _unintelligible(what, "holds no usable key")
    return Hidden(value)


def _admin_keys(host: str) -> str:
    return f"{host}/organization/admin_api_keys"


def _project(project: Project) -> str:
    return f"{project.host}/organization/projects/{_id(project.id)}"


def _path(project: Project) -> str:
    return f"{_project(project)}/service_accounts"
