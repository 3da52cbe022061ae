"""Which targets a benchmark has, and what they are called: tenants of up to 50 targets, each with a namespace, a
generator and an OpenAI project. All names of a kind have one length.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

TENANT = 50
"""Targets per namespace."""
LEDGER = "openai-key-rotator"
NAMESPACE = "bench-{:04}"
NAME = "openai-{:04}"
PROJECT = "project-{:04}"


def tenants(targets: int) -> int:
    """How many tenants so many targets have."""
    return -(-targets // TENANT)


def places(targets: int) -> list[tuple[int, list[int]]]:
    """The number of each tenant, and of its targets."""
    return [(first // TENANT, list(range(first, min(first + TENANT, targets)))) for first in range(0, targets, TENANT)]


async def at_most(work: Iterable[Awaitable[None]], limit: int) -> None:
    """Do all of it, so many at once."""
    room = asyncio.Semaphore(limit)

    async def one(piece: Awaitable[None]) -> None:
        async with room:
            await piece

    await asyncio.gather(*(one(piece) for piece in work))
