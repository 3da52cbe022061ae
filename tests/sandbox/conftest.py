"""The machines, with a clock that tests move."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from sandbox.kubernetes.server import Kubernetes
from sandbox.openai.server import OpenAI


@dataclass
class Clock:
    """Time that passes only when it is told to."""

    moment: datetime = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.moment += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    """The machines' clock."""
    return Clock()


@pytest.fixture
def openai(clock: Clock) -> OpenAI:
    """An OpenAI without organisations."""
    return OpenAI(clock, random.Random(1))


@pytest.fixture
def kubernetes(clock: Clock) -> Kubernetes:
    """A fresh API server."""
    return Kubernetes(clock, random.Random(1))
