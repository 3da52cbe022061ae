"""A kubeconfig as kubectl reads it, from plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker.kubernetes.kubeconfig import Chosen, Unusable, choose

HOME = Path("/home/me/.kube/config")
KEY = "sk-CANARY-token"
PLUGIN = {"command": "./bin/login", "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}


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
        ("k.example:8080", {}, "http://k.example:8080"),
        ("https://k.example/", {}, "https://k.example"),
        ("HTTPS://k.example/k8s/clusters/c-1", {}, "https://k.example/k8s/clusters/c-1"),
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
    found = chosen(
        {"certificate-authority": "ca.crt"},
        {
            "client-certificate": "/abs/c.crt",
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
        "token": KEY,
    }


def test_impersonation_becomes_headers() -> None:
    """Never more rights than were asked for."""
    found = chosen(user={"token": KEY, "as": "ada", "as-uid": "u-1", "as-groups": ["devs"]})
    assert found.headers == {"Impersonate-User": "ada", "Impersonate-Uid": "u-1", "Impersonate-Group": "devs"}
    assert found.user == {"token": KEY}


PAIR = {"client-certificate": "c", "client-key": "k"}


def test_a_plugins_path_is_relative_to_its_file() -> None:
    found = chosen(user={"exec": PLUGIN})
    assert found.plugin is not None
    assert found.plugin["command"] == "/home/me/.kube/bin/login"


@pytest.mark.parametrize("user", [{"token": KEY}, {"tokenFile": "t"}, {"username": "a"}, PAIR], ids=str)
def test_a_credential_of_the_file_goes_before_a_plugin(user: dict[str, Any]) -> None:
    """As in kubectl, which does not even run it."""
    assert chosen(user={"exec": PLUGIN} | user).plugin is None
    assert chosen(user={"exec": PLUGIN, "client-key": "k"}).plugin is not None


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({"server": ""}, {}, "names no server"),
        ({"server": "k.example:6443", "certificate-authority": "ca.crt"}, {}, "has no scheme: write https"),
        ({"server": "k.example:6443", "insecure-skip-tls-verify": True}, {}, "has no scheme: write https"),
        ({"certificate-authority": "a", "certificate-authority-data": "eA=="}, {}, "both given"),
        ({"certificate-authority": "a", "insecure-skip-tls-verify": True}, {}, "contradicts"),
        ({}, {"client-key": "a", "client-key-data": KEY}, "both given"),
        ({}, {"token": KEY, "username": "a"}, "one of them alone"),
        ({}, {"tokenFile": "t", "username": "a", "password": KEY}, "one of them alone"),
        ({}, {"password": KEY}, "a password without a username"),
        ({}, {"client-certificate": "c"}, "no client-key"),
        ({}, {"client-certificate": "c", "client-key-data": KEY}, "client-key-data is not base64"),
        ({}, {"token": 5}, "token must be a text"),
        ({}, {"token": f"{KEY}\n"}, "characters"),
        ({}, {"token": KEY, "as": "a\nb"}, "characters"),
        ({"insecure-skip-tls-verify": "false"}, {}, "true or false"),
        ({"server": "ftp://k.example"}, {}, "https:// URL"),
        ({"server": f"https://user:{KEY}@k.example"}, {}, "without a name or password"),
        ({"proxy-url": f"user:{KEY}@proxy:3128"}, {}, "proxy-url must be"),
        ({"proxy-url": f"socks5://user:{KEY}@proxy:1080"}, {}, "other proxies are not honoured"),
        ({}, {"exec": PLUGIN, "auth-provider": {"name": "oidc"}}, "one of them alone"),
        ({}, {"exec": {"command": "x", "apiVersion": "client.authentication.k8s.io/v1"}}, "interactiveMode"),
        ({}, {"exec": PLUGIN | {"interactiveMode": KEY}}, "interactiveMode"),
        ({}, {"exec": PLUGIN | {"apiVersion": "client.authentication.k8s.io/v1alpha1"}}, "exec.apiVersion"),
        ({}, {"exec": PLUGIN | {"args": KEY}}, "exec.args is malformed"),
        ({}, {"exec": PLUGIN | {"env": [{"name": "A", "value": 5}]}}, "exec.env must have"),
        ({}, {"exec": PLUGIN | {"provideClusterInfo": "yes"}}, "true or false"),
        ({"api-version": "v2"}, {}, "'api-version' is not honoured"),
        ({}, {"impersonate": KEY}, "'impersonate' is not honoured"),
        ({}, {"as-groups": ["x"]}, "need as"),
        ({}, {"as": "a", "as-groups": ["x", "y"]}, "more than one"),
        ({}, {"as": "a", "as-user-extra": {"k": ["v"]}}, "not honoured"),
        ({}, {"auth-provider": {"name": "gcp", "config": {"access-token": KEY}}}, "only oidc"),
        ({}, {"exec": {"args": [KEY]}}, "no command"),
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
        ({"users": [{"name": "u"}, {"name": "x"}, {"name": "x"}]}, "user 'x' is there twice"),
        ({"kind": "Pod"}, "is no kubeconfig"),
        ({"apiVersion": "v2"}, "is no kubeconfig"),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Unusable, match=words):
        chosen(**changes)


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"token": KEY}, ""),
        ({"exec": PLUGIN}, ""),
        (PAIR, ""),
        ({"token": KEY, "as": "ada"}, ", acting for ada"),
        ({}, ", without credentials"),
    ],
)
def test_people_are_told_where_it_leads_and_as_whom(user: dict[str, Any], words: str) -> None:
    """A 403 that follows is no riddle then."""
    assert chosen(user=user).described() == f"context c, server https://k.example:6443{words}"


def test_nothing_of_it_can_be_printed() -> None:
    assert KEY not in repr(chosen(user={"token": KEY}))
