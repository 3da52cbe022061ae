"""Which hosts may receive an admin key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.model.hosts import DEFAULT_HOST, Origin, allowed, is_loopback, named_origin, normalise

PROXY = Origin("https", "proxy.corp", 8443)


@pytest.mark.parametrize(
    ("host", "base"),
    [
        (DEFAULT_HOST, DEFAULT_HOST),
        ("https://api.openai.com/v1/", DEFAULT_HOST),
        ("HTTPS://API.OpenAI.com/v1", DEFAULT_HOST),
        ("https://eu.api.openai.com/v1", "https://eu.api.openai.com/v1"),
        ("https://api.openai.com", "https://api.openai.com"),
        ("https://proxy.corp:8443/openai/v1", "https://proxy.corp:8443/openai/v1"),
    ],
)
def test_openais_own_and_named_hosts_are_allowed(host: str, base: str) -> None:
    """The base URL has no trailing slash and a name in small letters."""
    shown, origin = normalise(host)
    assert shown == base
    assert allowed(origin, {PROXY})


@pytest.mark.parametrize(
    "host",
    [
        "http://api.openai.com/v1",
        "https://api.openai.com:8443/v1",
        "https://api.openai.com.evil.example/v1",
        "https://evilapi.openai.com/v1",
        "https://openai.com/v1",
        "https://evil.example/api.openai.com",
        "https://proxy.corp/openai/v1",
        "http://proxy.corp:8443/openai/v1",
        "https://sub.proxy.corp:8443/v1",
        "https://127.0.0.1/v1",
        "https://[::1]/v1",
    ],
)
def test_other_hosts_are_not_allowed(host: str) -> None:
    """Scheme, name and port must all be right."""
    _, origin = normalise(host)
    assert not allowed(origin, {PROXY})


@pytest.mark.parametrize(
    "host",
    [
        "https://api.openai.com@evil.example/v1",
        "https://user:password@api.openai.com/v1",
        "https://@api.openai.com/v1",
        "https://evil.example\\@api.openai.com/v1",
        "https://evil.example\\.api.openai.com/v1",
        "https://api.openai.com/v1?x=y",
        "https://api.openai.com/v1?",
        "https://api.openai.com/v1#x",
        "https://api.openai.com/v1#",
        "https://api.openai.com/../admin",
        "https://api.openai.com/v1/./x",
        "https://api.openai.com/%2e%2e/admin",
        "https://api.openai.com//v1",
        "https://api.openai.com/v1;x",
        "https://api.openai.com/ v1",
        "https://api.openai.com:99999/v1",
        "https://api.openai.com:port/v1",
        "https://аpi.openai.com/v1",
        "https://ａpi.openai.com/v1",
        "https://api.openai.com./v1",
        "https://-api.openai.com/v1",
        "https://[api.openai.com]/v1",
        "https://[v1.corp]/v1",
        "https://api.openai.com[::1]/v1",
        "https://[::1]443/v1",
        "https://\N{KELVIN SIGN}ube.corp/v1",
        " https://api.openai.com/v1",
        "https://api.openai.com/v1\n",
        "https://api.open\tai.com/v1",
        "ftp://api.openai.com/v1",
        "//api.openai.com/v1",
        "api.openai.com/v1",
        "https://",
        "",
        "https://api.openai.com/" + "x" * 500,
        None,
        5,
        ["https://api.openai.com/v1"],
        {},
    ],
)
def test_what_is_not_a_plain_url_is_refused(host: object) -> None:
    """User info, query, fragment, dots in the path, other alphabets, wrong types."""
    with pytest.raises(ValueError, match=r"must|is not|has"):
        normalise(host)


@given(st.one_of(st.text(), st.text().map("https://api.openai.com".__add__), st.text().map("https://{}/v1".format)))
def test_an_allowed_text_stays_with_openai(host: str) -> None:
    """Whatever is accepted reads the same when it is read again, and what is allowed goes to OpenAI."""
    try:
        base, origin = normalise(host)
    except ValueError:
        return
    assert normalise(base) == (base, origin)
    assert base.isascii()
    assert not allowed(origin, ()) or origin.name.endswith("api.openai.com")


@pytest.mark.parametrize(
    "host", ["http://localhost:8080", "http://127.0.0.1:1/v1", "http://[::1]:1", "https://any.corp"]
)
def test_an_operator_may_name_loopback_or_https(host: str) -> None:
    """What was named is allowed then, under any path."""
    assert allowed(normalise(host + "/more")[1], {named_origin(host)})


@pytest.mark.parametrize("host", ["http://any.corp", "http://10.0.0.1", "http://localhost.evil.example", "nonsense"])
def test_an_operator_may_not_name_plain_http_elsewhere(host: str) -> None:
    """An admin key does not cross a network unencrypted."""
    with pytest.raises(ValueError, match="http"):
        named_origin(host)


@pytest.mark.parametrize(
    ("name", "loopback"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False), ("x", False)]
    + [("::ffff:127.0.0.1", False), ("::1%lo", True)],
)
def test_loopback_is_told_by_address(name: str, loopback: bool) -> None:
    """Only a literal address or `localhost` counts; nothing is resolved."""
    assert is_loopback(name) is loopback
