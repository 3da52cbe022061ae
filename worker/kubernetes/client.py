"""Adapter: a Kubernetes API server.

The library's typed classes are not used: they cost over a second of CPU at import, and a merge PATCH of theirs silently
becomes a strategic one. Authentication, TLS and kubeconfig stay the library's (`worker.kubernetes.library`).
Guarantees: every request has a timeout, and the server is told of it.
Lists are read page by page, and start again when they expired.
No page takes more memory than `LONGEST_PAGE` says, whatever tenants have written into their objects.
Errors hold our words, the status, the reason and field names, never the server's text: that quotes objects.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, TypeVar

import aiohttp

from worker.errors import (
    EXISTS,
    ConfigurationError,
    Conflict,
    Forbidden,
    NotFound,
    NotSent,
    Refused,
    Throttled,
    Unanswered,
    Unintelligible,
)
from worker.kubernetes.denials import OWNERS, OWNERS_FORBIDDEN, denial
from worker.kubernetes.reading import USER_AGENT, mapping_or_empty, mappings
from worker.kubernetes.rest import RestClient
from worker.model.values import JSON, Answer, Ref, Resource, Version
from worker.ports import Randomness
from worker.runtime.certificates import certificate_problem, connection_problem
from worker.runtime.retrying import retry_after, retrying
from worker.settings.proxies import is_proxy

T = TypeVar("T")

TIMEOUT = 15.0
"""Seconds for one request; the server is asked to give up then too (parameter `timeout`)."""
LIST_TIMEOUT = 60.0
"""Seconds for one page of a list."""
PAGE = 200
"""Objects per page: pods have 10 kB each and ten times that once they are read (`benchmarks.pods`)."""
LONGEST_PAGE = 4_000_000
"""Bytes, decompressed. A page that is longer is not read to its end but asked for again with fewer objects."""
LONGEST_ANSWER = 16_000_000
"""Bytes. One object has at most a tenth of that in etcd, and some times that as JSON where it is full of escapes."""
_PAGES_AT_ONCE = 8
"""Pages of lists that may be on their way at once: each may be as long as the longest."""
_RESTARTS = 3
_SEGMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,252})\Z")
_WORD = re.compile(r"[A-Za-z0-9_.\[\]/-]{1,120}\Z")


@dataclass(frozen=True, slots=True)
class _Request:
    """One request to the API server, as it is sent each time.

    `verb`: what RBAC calls it. `seconds`: until it is given up. `longest`: bytes of the answer, decompressed.
    """

    method: str
    verb: str
    resource: Resource
    ref: Ref
    body: JSON | None = field(default=None, repr=False)
    query: tuple[tuple[str, str], ...] = ()
    subresource: str = ""
    dry_run: bool = False
    seconds: float = TIMEOUT
    longest: int = LONGEST_ANSWER
    document: str = ""
    """The path of a discovery document, in place of an object's."""

    @property
    def subject(self) -> str:
        """The request in words, for messages."""
        slash = f"/{self.subresource}" if self.subresource else ""
        return f"{self.verb} {self.resource}{slash}{_place(self.ref)}"

    @property
    def path(self) -> str:
        """Raises ConfigurationError where a name has characters that Kubernetes does not allow."""
        return self.document or _path(self.resource, self.ref, self.subresource)

    @property
    def parameters(self) -> list[tuple[str, str]]:
        parameters = list(self.query)
        if self.method != "GET":
            parameters.append(("timeout", f"{TIMEOUT:.0f}s"))
        if self.dry_run:
            parameters.append(("dryRun", "All"))
        return parameters

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self.body is not None:
            merging = self.method == "PATCH"
            headers["Content-Type"] = "application/merge-patch+json" if merging else "application/json"
        return headers


class KubernetesApi:
    """`client` is configured and closed by the caller."""

    def __init__(self, client: RestClient, random: Randomness) -> None:
        self._client = client
        self._random = random
        self._pages = asyncio.Semaphore(_PAGES_AT_ONCE)
        client.default_headers["User-Agent"] = USER_AGENT

    async def list_all(
        self,
        resource: Resource,
        keep: Callable[[JSON], T],
        *,
        namespace: str | None = None,
        selector: str = "",
        heard: Callable[[datetime, timedelta], None] | None = None,
    ) -> list[T]:
        for _ in range(_RESTARTS):
            try:
                return await self._list(resource, keep, namespace=namespace, selector=selector, heard=heard)
            except _Expired:
                continue
            except _NoResource as error:
                if await self.serves(resource):
                    raise Unanswered("ClusterUnanswered", f"{error.message}, although the API server has it") from None
                raise NotFound("NotFound", error.message, status=404) from None
        raise Unanswered("ListExpired", f"the list of {resource} expired {_RESTARTS} times while it was read")

    async def read(self, resource: Resource, ref: Ref) -> Answer:
        return await self._call(_Request("GET", "get", resource, ref))

    async def create(self, resource: Resource, namespace: str, body: JSON, *, dry_run: bool = False) -> Answer:
        return await self._call(_Request("POST", "create", resource, Ref(namespace, ""), body, dry_run=dry_run))

    async def patch(
        self, resource: Resource, ref: Ref, patch: JSON, *, subresource: str = "", dry_run: bool = False
    ) -> Answer:
        return await self._call(
            _Request("PATCH", "patch", resource, ref, patch, subresource=subresource, dry_run=dry_run)
        )

    async def delete(self, resource: Resource, ref: Ref, version: Version) -> None:
        preconditions = {"uid": version.uid, "resourceVersion": version.resource_version}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        await self._call(_Request("DELETE", "delete", resource, ref, body))

    async def serves(self, resource: Resource, subresource: str = "") -> bool:
        # A 404 has no form that would tell; the API server's own documents do.
        served = await self._call(_Request("GET", "get", resource, Ref("", ""), document="/apis"))
        groups = {
            str(group.get("name")): {str(version.get("version")) for version in mappings(group.get("versions"))}
            for group in mappings(served.body.get("groups"))
        }
        if served.body.get("kind") != "APIGroupList" or not groups:
            raise Unanswered("ClusterUnanswered", "what answers for /apis is not an API server")
        if resource.version not in groups.get(resource.group, ()):
            return False
        document = f"/apis/{resource.group}/{resource.version}"
        known = await self._call(_Request("GET", "get", resource, Ref("", ""), document=document))
        name = f"{resource.plural}/{subresource}" if subresource else resource.plural
        return name in {str(item.get("name")) for item in mappings(known.body.get("resources"))}

    # --- one request

    async def _list(
        self,
        resource: Resource,
        keep: Callable[[JSON], T],
        *,
        namespace: str | None,
        selector: str,
        heard: Callable[[datetime, timedelta], None] | None,
    ) -> list[T]:
        kept: list[T] = []
        tokens: list[str] = []
        limit = PAGE
        while True:
            query = [("labelSelector", selector)] if selector else []
            query += [("continue", tokens[-1])] if tokens else []
            begun = asyncio.get_running_loop().time()
            page, limit, at = await self._page(resource, Ref(namespace or "", ""), query, limit=limit)
            if heard is not None and at is not None:
                heard(at, timedelta(seconds=asyncio.get_running_loop().time() - begun))
            items, metadata = page.get("items"), page.get("metadata") or {}
            if not isinstance(items, list) or not isinstance(metadata, dict):
                raise Unintelligible("ApiServerUnintelligible", f"the list of {resource} has no items")
            kept += [keep(item) for item in items]
            following = metadata.get("continue")
            del page, items  # two pages of pods at once would be most of the worker's memory
            if not following:
                return kept
            if not isinstance(following, str) or following in tokens:
                raise Unintelligible("ApiServerUnintelligible", f"the list of {resource} does not end")
            tokens.append(following)

    async def _page(
        self, resource: Resource, place: Ref, query: list[tuple[str, str]], *, limit: int
    ) -> tuple[JSON, int, datetime | None]:
        """The next objects of a list, at most `limit`; the limit for the next page; the API server's time.

        A token goes on after the last object that was shown, whatever the limit was.
        """
        while True:
            longest = LONGEST_PAGE if limit > 1 else LONGEST_ANSWER
            asked = (("limit", str(limit)), *query)
            request = _Request("GET", "list", resource, place, query=asked, seconds=LIST_TIMEOUT, longest=longest)
            try:
                async with self._pages:
                    answer = await self._call(request)
            except _TooLong:
                if limit == 1:
                    raise
                limit = max(1, limit // 4)
                continue
            # The limit grows only where twice the page would not have been too long: no second page is read in vain.
            roomy = answer.length <= LONGEST_PAGE // 2
            return answer.body, min(PAGE, 2 * limit) if roomy else limit, answer.at

    async def _call(self, request: _Request) -> Answer:
        return await retrying(lambda: self._once(request), repeatable=request.method == "GET", random=self._random)

    async def _once(self, request: _Request) -> Answer:
        subject, proxy = request.subject, self._client.configuration.proxy
        try:
            response = await self._client.request(
                request.method,
                request.path,
                parameters=request.parameters,
                headers=request.headers,
                body=request.body,
                seconds=request.seconds,
            )
            content = await _read(response.response, request.longest, subject)
        except aiohttp.ClientConnectorCertificateError as error:
            whose = "the proxy" if is_proxy(error.host, proxy) else "the API server"
            message = f"{whose}'s certificate is not accepted ({certificate_problem(error)}): {subject}"
            raise NotSent("ClusterCertificate", message) from None
        except aiohttp.ClientHttpProxyError as error:
            message = f"the proxy refused the way to the API server (status {error.status}): {subject}"
            raise NotSent("ProxyRefused", message) from None
        except aiohttp.ClientConnectorError as error:
            where = "the proxy that leads to the cluster" if is_proxy(error.host, proxy) else "the cluster"
            raise NotSent(
                "ClusterUnreachable", f"no connection to {where} to {subject} ({connection_problem(error)})"
            ) from None
        except TimeoutError:
            raise Unanswered(
                "ClusterUnanswered", f"the API server did not answer within {request.seconds:.0f} s: {subject}"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            message = f"the connection to the cluster broke: {subject} ({type(error).__name__})"
            raise Unanswered("ClusterUnanswered", message) from None
        except ValueError as error:
            raise ConfigurationError("InvalidRequest", f"{subject}: {type(error).__name__}") from None
        if not 200 <= response.status < 300:
            _raise(response.status, response.headers, content, request=request)
        return Answer(_object(content, subject), _date(response.headers.get("Date")), len(content))


class _Expired(Refused):
    """A list's continue token is too old (410)."""


class _NoResource(Refused):
    """A list answered 404: the API server has no such objects, or something before it answered."""


class _TooLong(Unintelligible):
    """An answer is longer than it may be, and was not read to its end."""


async def _read(response: aiohttp.ClientResponse, longest: int, subject: str) -> bytearray:
    """The answer, decompressed, piece by piece. A connection on which something is left is closed."""
    content = bytearray()
    try:
        async for piece in response.content.iter_any():
            content += piece
            if len(content) > longest:
                message = f"the API server's answer is longer than {longest // 1_000_000} MB: {subject}"
                raise _TooLong("ApiServerUnintelligible", message)
    except BaseException:
        response.close()
        raise
    return content


def _raise(status: int, headers: Mapping[str, str], content: bytearray, *, request: _Request) -> NoReturn:
    subject = request.subject
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = {}
    answer = answer if isinstance(answer, dict) else {}
    details, own = _details(status, answer), answer.get("kind") == "Status"
    denied = denial(answer.get("message")) if own else None
    if denied is not None and 400 <= status < 500 and status != 403:
        # A webhook chooses its status (400 where it names none), a policy too (422): neither is what it says elsewhere.
        raise Refused("ClusterRefused", f"not allowed to {subject}: {denied} ({details})", status=status, own=own)
    if status == 401:
        raise Refused(
            "ClusterUnauthorized", f"the cluster does not accept the credentials: {subject}", status=status, own=own
        )
    if status == 403:
        reading = request.verb in ("list", "get")
        usual = "RBAC forbids it" if reading else "RBAC, a quota or a webhook forbids it"
        advice = denied or usual
        reason = OWNERS_FORBIDDEN if advice == OWNERS else "Forbidden"
        raise Forbidden(reason, f"not allowed to {subject}: {advice} ({details})", status=status, own=own)
    if status == 404:
        if request.verb == "list":
            raise _NoResource("ClusterUnanswered", f"{subject}: not found")
        if not _is_about(request, answer):
            # An ingress or a proxy answers 404 with a page of its own: that says nothing about the object.
            raise Unanswered("ClusterUnanswered", f"a 404 that is not the API server's word on it: {subject}")
        raise NotFound("NotFound", f"{subject}: not found", status=status, own=own)
    if status == 409:
        if not own:
            # Another writer is the API server's to tell: a page in its place may have hidden a success.
            raise Unanswered("ClusterUnanswered", f"a 409 that is not the API server's: {subject}")
        reason = EXISTS if answer.get("reason") == EXISTS else "Conflict"
        raise Conflict(reason, f"{subject}: changed or created meanwhile", status=status, own=own)
    if status == 410:
        raise _Expired("Expired", f"{subject}: the list expired", status=status, own=own)
    if status == 429:
        message = f"the API server asks to slow down: {subject}"
        raise Throttled("ClusterThrottled", message, retry_after=retry_after(headers))
    if status >= 500 or status < 200:
        cause = f": {denied}" if denied is not None else ""
        raise Unanswered("ClusterUnanswered", f"the API server failed: {subject}{cause} ({details})")
    raise Refused("ClusterRefused", f"the API server refused to {subject} ({details})", status=status, own=own)


def _is_about(request: _Request, answer: Mapping[str, Any]) -> bool:
    """Is this a `Status` that says of the very object, or of its namespace, that it does not exist?"""
    if answer.get("kind") != "Status" or answer.get("reason") != "NotFound":
        return False
    details = mapping_or_empty(answer.get("details"))
    return details.get("name") in (request.ref.name or request.ref.namespace, request.ref.namespace)


def _details(status: int, answer: Mapping[str, Any]) -> str:
    """Status, reason and field names of a `Status` object; its messages quote objects and are left out."""
    parts = [f"status {status}"]
    reason = answer.get("reason")
    parts += [f"reason {reason}"] if isinstance(reason, str) and _WORD.match(reason) else []
    details = answer.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    fields = [c.get("field") for c in causes if isinstance(c, Mapping)] if isinstance(causes, list) else []
    shown = [field for field in fields[:5] if isinstance(field, str) and _WORD.match(field)]
    return ", ".join([*parts, f"fields {' '.join(shown)}"] if shown else parts)


def _object(content: bytearray, subject: str) -> JSON:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise Unintelligible("ApiServerUnintelligible", f"the API server's answer is not an object: {subject}")
    return answer


def _path(resource: Resource, ref: Ref, subresource: str) -> str:
    parts = [f"/apis/{resource.group}" if resource.group else "/api", resource.version]
    if ref.namespace:
        parts += ["namespaces", _segment(ref.namespace)]
    parts.append(resource.plural)
    if ref.name:
        parts.append(_segment(ref.name))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


def _segment(text: str) -> str:
    if not _SEGMENT.match(text):
        raise ConfigurationError("InvalidName", "an object's name has characters that Kubernetes does not allow")
    return text


def _place(ref: Ref) -> str:
    if ref.name:
        return f" {ref}" if ref.namespace else f" {ref.name}"
    return f" in namespace {ref.namespace}" if ref.namespace else " in all namespaces"


@functools.lru_cache(maxsize=16)
def _date(text: str | None) -> datetime | None:
    """Cached, for the answers of one second say the same."""
    try:
        return parsedate_to_datetime(text).astimezone(UTC) if text else None
    except ValueError:
        return None
