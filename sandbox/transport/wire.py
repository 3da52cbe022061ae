"""Requests and responses as plain values, the same for every carrier.

Guarantees:
- Requests and responses are immutable.
- Neither prints headers, query or body, because they carry keys.
- `segments` splits a path before it unquotes it, so an encoded slash in a name never becomes a path separator.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote

from multidict import CIMultiDict, CIMultiDictProxy, MultiDict, MultiDictProxy

JSON = "application/json"
_ENCODER = jsonlib.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())


def headers_of(values: Mapping[str, str] | None) -> CIMultiDictProxy[str]:
    """The values as a case-insensitive, read-only mapping."""
    return CIMultiDictProxy(CIMultiDict(values)) if values else _NO_HEADERS


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; `path` is as it was sent (percent-encoded), without the query."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS, repr=False)
    body: bytes = field(default=b"", repr=False)

    @classmethod
    def of(
        cls,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: object = None,
        body: bytes = b"",
    ) -> Request:
        """A request for `target` (path and query), with `json` as its body if given."""
        path, _, query = target.partition("?")
        given = CIMultiDict(headers or {})
        if json is not None:
            given.setdefault("Content-Type", JSON)
            body = dump(json)
        return cls(method, path, MultiDict(parse_qsl(query, keep_blank_values=True)), CIMultiDictProxy(given), body)

    @property
    def segments(self) -> tuple[str, ...]:
        """The path's segments, unquoted."""
        return tuple(unquote(part) for part in self.path.strip("/").split("/"))

    def values(self, parameter: str) -> list[str]:
        """Every value of a query parameter that may be repeated."""
        if isinstance(self.query, MultiDict | MultiDictProxy):
            return list(self.query.getall(parameter, ()))
        return [self.query[parameter]] if parameter in self.query else []

    @property
    def bearer(self) -> str | None:
        """The bearer token of the Authorization header."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    def json(self) -> Any:
        """The body as JSON; `ValueError` if it is no JSON."""
        return jsonlib.loads(self.body, parse_constant=_no_constant)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response."""

    status: int
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS, repr=False)
    body: bytes = field(default=b"", repr=False)

    @classmethod
    def of_json(cls, status: int, value: object, headers: Mapping[str, str] | None = None) -> Response:
        """A response that carries `value` as JSON."""
        return cls(status, headers_of({"Content-Type": JSON, **(headers or {})}), dump(value))

    @classmethod
    def of_text(
        cls,
        status: int,
        text: str,
        content_type: str = "text/plain; charset=utf-8",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """A response that carries text, as a proxy in between might send."""
        return cls(status, headers_of({"Content-Type": content_type, **(headers or {})}), text.encode())

    def json(self) -> Any:
        """The body as JSON; `ValueError` if it is no JSON."""
        return jsonlib.loads(self.body)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request as logs and cost tests want it; `status` 0 means that no answer reached the client."""

    at: datetime | float
    method: str
    path: str
    status: int

    @property
    def kind(self) -> str:
        """The sort of the request, without names: `PATCH secrets`, `POST service_accounts`, `GET models`."""
        return f"{self.method} {_collection(self.path)}"


class Machine(Protocol):
    """A state machine behind an HTTP API: one atomic, synchronous step per request."""

    def handle(self, request: Request) -> Response:
        """Answer the request and change the state as it asks."""


def dump(value: object) -> bytes:
    """JSON as the APIs send it: compact, UTF-8."""
    return _ENCODER.encode(value).encode()


def http_date(moment: datetime) -> str:
    """The value of a `Date` header."""
    return format_datetime(moment, usegmt=True)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _collection(path: str) -> str:
    parts = path.strip("/").split("/")
    if parts[0] in ("api", "apis"):
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        if rest[:1] == ["namespaces"] and len(rest) > 2:
            rest = rest[2:]
        return "/".join(rest[:1] + rest[2:3]) if rest else path
    names = parts[1:]  # below the version: collections and ids take turns, after a leading "organization"
    if names[:1] == ["organization"]:
        names = names[1:]
    return names[(len(names) - 1) // 2 * 2] if names else path
