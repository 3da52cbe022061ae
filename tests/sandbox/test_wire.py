"""Requests and responses as values."""

from __future__ import annotations

import dataclasses

import pytest

from sandbox.transport.wire import Exchange, Request, Response


def test_headers_ignore_case() -> None:
    """As HTTP's do."""
    request = Request.of("GET", "/x", headers={"authorization": "bearer token"})
    assert request.headers["Authorization"] == "bearer token"
    assert request.bearer == "token"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic eA=="])
def test_only_a_bearer_token_is_one(header: str) -> None:
    """Anything else is as good as none."""
    assert Request.of("GET", "/x", headers={"Authorization": header}).bearer is None


def test_an_encoded_slash_separates_nothing() -> None:
    """A name that holds one stays one segment, and so does one of dots."""
    assert Request.of("GET", "/v1/a%2Fb/..%2F?x=1&y=").segments == ("v1", "a/b", "../")
    assert Request.of("GET", "/v1?x=1&y=").query == {"x": "1", "y": ""}


def test_nothing_that_may_carry_a_key_is_printed() -> None:
    """Headers, query and body stay out of `repr`."""
    request = Request.of("POST", "/x?key=CANARY", headers={"Authorization": "Bearer CANARY"}, json={"key": "CANARY"})
    response = Response.of_json(200, {"key": "CANARY"}, {"x": "CANARY"})
    assert "CANARY" not in repr(request) + repr(response)


def test_values_do_not_change() -> None:
    """So a log may keep them."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Request.of("GET", "/x").method = "POST"  # type: ignore[misc]


@pytest.mark.parametrize("body", [b"NaN", b'{"x": Infinity}', b"[-Infinity]"])
def test_json_is_json(body: bytes) -> None:
    """What JSON does not know is refused, though Python would take it."""
    with pytest.raises(ValueError, match="is no JSON"):
        Request.of("POST", "/x", body=body).json()


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("PATCH", "/api/v1/namespaces/a/secrets/b", "PATCH secrets"),
        ("GET", "/api/v1/pods", "GET pods"),
        ("DELETE", "/api/v1/namespaces/a", "DELETE namespaces"),
        ("PATCH", "/apis/g/v1/namespaces/a/things/b/status", "PATCH things/status"),
        ("POST", "/v1/organization/projects/p/service_accounts", "POST service_accounts"),
        ("DELETE", "/v1/organization/projects/p/service_accounts/u", "DELETE service_accounts"),
        ("POST", "/v1/organization/projects/p/service_accounts/u/api_keys", "POST api_keys"),
        ("GET", "/v1/organization/projects/p", "GET projects"),
        ("GET", "/v1/models", "GET models"),
    ],
)
def test_requests_have_kinds(method: str, path: str, kind: str) -> None:
    """By which cost tests count them."""
    assert Exchange(0.0, method, path, 200).kind == kind
