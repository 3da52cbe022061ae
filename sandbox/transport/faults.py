"""The faults of a request on its way: one function decides each request's fate.

Guarantees:
- A fate decides whether and when the machine hears of the request.
- A fate decides whether and when the client hears of the answer.
- A fate never changes the machine's handling of the request.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from sandbox.transport.wire import Request, Response


class Delivery(Enum):
    """The stage that a request and its answer reach."""

    DELIVERED = "delivered"
    REQUEST_LOST = "request lost"
    RESPONSE_LOST = "response lost"
    COMMITTED_LATE = "committed late"
    ANSWERED_ON_THE_WAY = "answered on the way"


@dataclass(frozen=True, slots=True)
class Fate:
    """One request's fate; use the functions below to make one.

    `before` and `after`: seconds until the machine hears of the request, and then until the client hears of the answer.
    `disconnected`: the client notices a loss at once, by a closed connection; otherwise it waits until its own timeout.
    `answer`: the answer of an intermediary; the machine never hears of the request.
    """

    delivery: Delivery = Delivery.DELIVERED
    before: float = 0.0
    after: float = 0.0
    disconnected: bool = False
    answer: Response | None = None


def delivered(before: float = 0.0, after: float = 0.0) -> Fate:
    """The machine serves the request, perhaps slowly. A client that gives up during `before` takes its request back."""
    return Fate(before=before, after=after)


def request_lost(*, disconnected: bool = False, before: float = 0.0) -> Fate:
    """The machine never hears of the request."""
    return Fate(Delivery.REQUEST_LOST, before=before, disconnected=disconnected)


def response_lost(*, disconnected: bool = False, before: float = 0.0, after: float = 0.0) -> Fate:
    """The machine serves the request, and the client never hears of it."""
    return Fate(Delivery.RESPONSE_LOST, before=before, after=after, disconnected=disconnected)


def committed_late(before: float, *, disconnected: bool = False) -> Fate:
    """The client hears nothing. The machine serves the request after `before` seconds, even without the client."""
    return Fate(Delivery.COMMITTED_LATE, before=before, disconnected=disconnected)


def answered(response: Response, *, before: float = 0.0) -> Fate:
    """An intermediary answers; the machine never hears of the request."""
    return Fate(Delivery.ANSWERED_ON_THE_WAY, before=before, answer=response)


def too_many_requests(retry_after: int | None = 1) -> Fate:
    """429, with the pause asked for, if any."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    error = {"message": "Rate limit reached.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    return answered(Response.of_json(429, {"error": error}, headers))


def bad_gateway() -> Fate:
    """502 with HTML, as a proxy sends it."""
    return answered(Response.of_text(502, "<html><body><h1>502 Bad Gateway</h1></body></html>", "text/html"))


class Faults(Protocol):
    """Decides the fate of each request."""

    def fate(self, request: Request) -> Fate:
        """The fate of this request."""


class NoFaults:
    """Deliver every request at once."""

    def fate(self, request: Request) -> Fate:
        """The fate of this request."""
        return _SERVED


@dataclass(frozen=True, slots=True)
class Latency:
    """Every request takes so many seconds, half of them on its way there."""

    seconds: float

    def fate(self, request: Request) -> Fate:
        """The fate of this request."""
        return delivered(self.seconds / 2, self.seconds / 2)


@dataclass(slots=True)
class Rule:
    """Gives requests whose method and path match wholly a fate: with this probability, so many times, after so many."""

    fate: Fate
    method: str = ".*"
    path: str = ".*"
    probability: float = 1.0
    count: int | None = None
    skip: int = 0

    def matches(self, request: Request, source: random.Random) -> bool:
        """Does the rule take this request? The rule counts the requests that it took."""
        if (
            self.count == 0
            or not re.fullmatch(self.method, request.method)
            or not re.fullmatch(self.path, request.path)
        ):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.probability < 1.0 and source.random() >= self.probability:
            return False
        if self.count is not None:
            self.count -= 1
        return True


@dataclass(slots=True)
class Rules:
    """The first rule that takes a request decides; otherwise `otherwise` does."""

    rules: Sequence[Rule]
    random: random.Random = field(repr=False)
    otherwise: Faults = field(default_factory=NoFaults)

    def fate(self, request: Request) -> Fate:
        """The fate of this request."""
        for rule in self.rules:
            if rule.matches(request, self.random):
                return rule.fate
        return self.otherwise.fate(request)


_SERVED = Fate()
_NAMED: Mapping[str, Fate] = {
    "request-lost": request_lost(),
    "response-lost": response_lost(),
    "disconnect-before": request_lost(disconnected=True),
    "disconnect-after": response_lost(disconnected=True),
    "429": too_many_requests(),
    "502": bad_gateway(),
}


def parse_rule(text: str) -> Rule:
    """A rule from `FATE[:METHOD[:PATH[:PROBABILITY[:COUNT]]]]`, e.g. `429:POST:.*service_accounts:0.1`.

    FATE is one of request-lost, response-lost, disconnect-before, disconnect-after, 429, 502, `late=SECONDS` or
    `slow=SECONDS`. `ValueError` if it is anything else.
    """
    parts = text.split(":")
    name, method, path, probability, count = parts + [""] * (5 - len(parts))
    kind, _, seconds = name.partition("=")
    if kind == "late":
        fate = committed_late(float(seconds))
    elif kind == "slow":
        fate = delivered(after=float(seconds))
    elif name in _NAMED:
        fate = _NAMED[name]
    else:
        raise ValueError(f"not a fate: {name}")
    return Rule(fate, method or ".*", path or ".*", float(probability or 1), int(count) if count else None)
