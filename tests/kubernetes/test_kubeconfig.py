"""A kubeconfig as kubectl reads it, from plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker.kubernetes.kubeconfig import Chosen, Unusable, choose

HOME = Path("/home/me/.kube/config")
KEY = "sk-CANARY-token"


def document(
    cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://k.example:6443"} | (cluster or {})}],
        "users": [{"name": "u", "user": user or {}}],
    }
    return found | changes


def chosen(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **changes: Any) -> Chosen:
    return choose([(HOME, document(cluster, user, **changes))], None)


def test_the_first_file_that_names_something_decides() -> None:
    """Current context, cluster and user alike: kubectl looks at the same cluster."""
    first = document({"server": "https://first.example"}, {"token": "1"})
    second = document({"server": "https://second.example"}, {"token": "2"}) | {"current-context": "other"}
    both = choose([(HOME, first), (Path("/other"), second)], None)
    assert (both.context, both.server, both.user) == ("c", "https://first.example", {"token": "1"})
    second["contexts"].append({"name": "other", "context": {"cluster": "k"}})
    named = choose([(HOME, {k: v for k, v in first.items() if k != "current-context"}), (Path("/o"), second)], None)
    assert (named.context, named.server, named.user) == ("other", "https://first.example", {})


@pytest.mark.parametrize(
    ("server", "cluster", "expected"),
    [
        ("k.example:6443", {"certificate-authority": "ca.crt"}, "https://k.example:6443"),
        ("k.example:6443", {"insecure-skip-tls-verify": True}, "https://k.example:6443"),
        ("k.example:8080", {}, "http://k.example:8080"),
        ("https://k.example/", {}, "https://k.example"),
    ],
)
def test_a_server_without_a_scheme_is_what_kubectl_makes_of_it(
    server: str, cluster: dict[str, Any], expected: str
) -> None:
    assert chosen({"server": server} | cluster).server == expected


def test_no_credential_goes_in_clear() -> None:
    """kubectl sends none over http, either; whom it acts for it says."""
    plain = chosen({"server": "http://127.0.0.1:8001"}, {"token": KEY, "as": "root", "exec": {"command": "x"}})
    assert (plain.user, plain.headers, plain.plugin) == ({}, {"Impersonate-User": "root"}, None)


def test_paths_are_relative_to_the_file_that_names_them() -> None:
    """Inline data goes before a file, and a token's file before a token."""
    found = chosen(
        {"certificate-authority": "ca.crt"},
        {
            "client-certificate": "/abs/c.crt",
            "client-key": "k",
            "client-key-data": "eA==",
            "tokenFile": "t",
            "token": KEY,
        },
    )
    assert found.cluster["certificate-authority"] == "/home/me/.kube/ca.crt"
    assert found.user == {
        "client-certificate": "/abs/c.crt",
        "client-key-data": "eA==",
        "tokenFile": "/home/me/.kube/t",
    }


def test_impersonation_becomes_headers() -> None:
    """Never more rights than were asked for."""
    found = chosen(user={"token": KEY, "as": "ada", "as-uid": "u-1", "as-groups": ["devs"]})
    assert found.headers == {"Impersonate-User": "ada", "Impersonate-Uid": "u-1", "Impersonate-Group": "devs"}
    assert found.user == {"token": KEY}


def test_a_plugins_credentials_count_alone() -> None:
    found = chosen(user={"token": KEY, "exec": {"command": "./bin/login", "apiVersion": "v1"}})
    assert found.plugin is not None
    assert (found.user, found.plugin["command"]) == ({}, "/home/me/.kube/bin/login")


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({"server": ""}, {}, "names no server"),
        ({"api-version": "v2"}, {}, "'api-version' is not honoured"),
        ({}, {"impersonate": KEY}, "'impersonate' is not honoured"),
        ({}, {"as-groups": ["x"]}, "need as"),
        ({}, {"as": "a", "as-groups": ["x", "y"]}, "more than one"),
        ({}, {"as": "a", "as-user-extra": {"k": ["v"]}}, "not honoured"),
        ({}, {"auth-provider": {"name": "gcp", "config": {"access-token": KEY}}}, "only oidc"),
        ({}, {"exec": {"args": [KEY]}}, "no command"),
        ({}, {"exec": {"command": "x", "provideClusterInfo": True}}, "provideClusterInfo"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(cluster: dict[str, Any], user: dict[str, Any], words: str) -> None:
    with pytest.raises(Unusable, match=words) as raised:
        chosen(cluster, user)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"current-context": ""}, "no context is named"),
        ({"contexts": []}, "context 'c' does not exist"),
        ({"clusters": None}, "cluster 'k' does not exist"),
        ({"users": [{"name": "x"}]}, "user 'u' does not exist"),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Unusable, match=words):
        chosen(**changes)


def test_nothing_of_it_can_be_printed() -> None:
    assert KEY not in repr(chosen(user={"token": KEY}))
