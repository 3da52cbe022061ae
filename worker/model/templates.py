"""Data values of a Secret with a key inside them: the texts around it, and what is kept of a written value. Pure.

Guarantee: nothing here shows a key. What is kept of a value are its digest and the place of the key in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.model.hidden import Hidden

Pieces = tuple[str, ...]
"""The texts of a data value: before the key, between its places, after it. One text alone: the key is not in it."""

KEY_ALONE: Pieces = ("", "")
"""The data value is the key."""

KEY_ROOM = 256
"""Bytes that are reckoned for a key before it is made. OpenAI's have 167."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What is kept of one data value. `at`: the characters before the key; None: the key is not in it.

    `digest`: that of the whole value; None: the key is not made yet, or nobody knows.
    """

    at: int | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class Rendered:
    """What is kept of the data values that a template made: the template's digest, and each value by data key."""

    template: str
    values: Mapping[str, Placed] = field(hash=False)

    def key_places(self) -> Mapping[str, int]:
        """The data keys with the key in their value, and the characters before the key."""
        return {data_key: placed.at for data_key, placed in self.values.items() if placed.at is not None}


@dataclass(frozen=True, slots=True)
class Template:
    """All data values that a target asks for, by data key. The key is in one of them at least."""

    values: Mapping[str, Pieces] = field(hash=False)

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:16]

    def rendered(self, key: Hidden | None) -> Rendered:
        """What is kept of the values with this key; None: with one that is not made yet."""
        return Rendered(self.digest, {data_key: _placed(pieces, key) for data_key, pieces in self.values.items()})


def _placed(pieces: Pieces, key: Hidden | None) -> Placed:
    if len(pieces) == 1:
        return Placed(None, Hidden(pieces[0]).digest())
    return Placed(len(pieces[0]), key.between(pieces).digest() if key is not None else None)


def size_of(pieces: Pieces) -> int:
    """Bytes of a data value before its key is made."""
    return sum(len(piece.encode()) for piece in pieces) + KEY_ROOM * (len(pieces) - 1)
