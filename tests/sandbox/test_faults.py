"""Which fate a request meets."""

from __future__ import annotations

import random

import pytest

from sandbox.transport.faults import (
    Delivery,
    Latency,
    NoFaults,
    Rule,
    Rules,
    bad_gateway,
    committed_late,
    delivered,
    parse_rule,
    request_lost,
    response_lost,
    too_many_requests,
)
from sandbox.transport.wire import Request

GET = Request.of("GET", "/api/v1/secrets")
POST = Request.of("POST", "/v1/organization/projects/p/service_accounts")


def test_without_faults_everything_is_served() -> None:
    """At once."""
    assert NoFaults().fate(GET) == delivered()


def test_latency_is_spent_on_both_ways() -> None:
    """Half before the machine hears of the request, half after."""
    assert Latency(0.05).fate(GET) == delivered(0.025, 0.025)


def test_the_first_rule_that_matches_decides() -> None:
    """By the whole method and the whole path; the rest is somebody else's."""
    rules = Rules(
        [Rule(request_lost(), "POST", ".*service_accounts"), Rule(response_lost(), "GET|POST")],
        random.Random(1),
        Latency(2),
    )
    assert rules.fate(POST) == request_lost()
    assert rules.fate(GET) == response_lost()
    assert rules.fate(Request.of("POST", POST.path + "/user-1/api_keys")) == response_lost()
    assert rules.fate(Request.of("DELETE", "/")) == delivered(1, 1)


def test_a_rule_can_be_used_up() -> None:
    """After `skip` requests it takes `count` of them."""
    rules = Rules([Rule(request_lost(), skip=1, count=2)], random.Random(1))
    lost = [rules.fate(GET).delivery is Delivery.REQUEST_LOST for _ in range(5)]
    assert lost == [False, True, True, False, False]


def test_a_rule_can_be_a_matter_of_luck() -> None:
    """The same for the same seed."""
    fates = [
        [Rules([Rule(request_lost(), probability=0.5)], source).fate(GET) for _ in range(50)] for source in seeded()
    ]
    assert fates[0] == fates[1]
    assert {fate.delivery for fate in fates[0]} == {Delivery.DELIVERED, Delivery.REQUEST_LOST}


def seeded() -> list[random.Random]:
    """Two sources of one seed."""
    return [random.Random(3), random.Random(3)]


def test_answers_on_the_way_look_like_the_real_ones() -> None:
    """A pause is asked for in seconds, or not at all; a proxy's page is HTML."""
    answer = too_many_requests(7).answer
    assert answer is not None
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    answer = too_many_requests(None).answer
    assert answer is not None
    assert "Retry-After" not in answer.headers
    answer = bad_gateway().answer
    assert answer is not None
    assert (answer.status, answer.headers["Content-Type"]) == (502, "text/html")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("502", Rule(bad_gateway())),
        ("429:POST", Rule(too_many_requests(), "POST")),
        ("response-lost:POST:.*accounts:0.1", Rule(response_lost(), "POST", ".*accounts", 0.1)),
        ("disconnect-after::::3", Rule(response_lost(disconnected=True), count=3)),
        ("late=5:PATCH", Rule(committed_late(5), "PATCH")),
        ("slow=1.5", Rule(delivered(after=1.5))),
    ],
)
def test_rules_can_be_written_down(text: str, rule: Rule) -> None:
    """As the command line takes them."""
    assert parse_rule(text) == rule


@pytest.mark.parametrize("text", ["", "503", "429:POST:x:often", "late", "late=soon", "502:a:b:1:1:1"])
def test_a_malformed_rule_is_refused(text: str) -> None:
    """And not taken for one that does nothing."""
    with pytest.raises(ValueError, match=r"."):
        parse_rule(text)
