"""Secret values that nothing can show, and texts without anything that looks like a key. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NoReturn

_KEY = re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{6,}")
"""Not in the middle of a word: `task-runner` is a namespace."""


_REDACTED = re.compile(r"([A-Za-z0-9_-]*)(?:\*+|\.{2,}|…)([A-Za-z0-9_-]{3,})\Z")
"""The two ends of a value that a list hides. Three characters at its end tell one key from most others."""


_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,1024}")
"""What stands in a config file of any format, inside quotes or outside them, without a change of its meaning."""


def redacted(text: str) -> str:
    """The text without anything that looks like a key: a second line of defence behind `Hidden`."""
    return _KEY.sub("sk-***", text)


class Hidden:
    """A secret value. Only the code that puts it into a request calls `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def ends_with(self, tail: str) -> bool:
        return self._value.endswith(tail)

    def fits(self, redacted: str) -> bool:
        """Is this the value that a list shows as `sk-admin...wxyz`, with its two ends? One without a tail fits none."""
        found = _REDACTED.match(redacted)
        if found is None or len(self._value) < len(found[1]) + len(found[2]):
            return False
        return self._value.startswith(found[1]) and self._value.endswith(found[2])

    def between(self, pieces: Sequence[str]) -> Hidden:
        """The text that has this value in each place between two pieces."""
        return Hidden(self._value.join(pieces))

    def is_plain(self) -> bool:
        """Has it letters, digits, `-` and `_` alone, which no file format takes for anything else?"""
        return _PLAIN.fullmatch(self._value) is not None

    def part(self, at: int, digest: str) -> Hidden | None:
        """The plain value of that digest that begins at this character of the text; None: there is none."""
        if at == 0 and self.digest() == digest:
            return self
        run = _PLAIN.match(self._value, at)
        ends = range(run.end(), at, -1) if run is not None else ()
        return next((part for part in (Hidden(self._value[at:end]) for end in ends) if part.digest() == digest), None)

    def contains(self, digest: str) -> bool:
        """Has the text a plain value of that digest in it, with other characters before and after it?"""
        return any(Hidden(run[0]).digest() == digest for run in _PLAIN.finditer(self._value))

    def digest(self) -> str:
        """64 bits that tell one key from another and nothing of either: keys are random and far longer."""
        return hashlib.sha256(self._value.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return "Hidden(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a hidden value cannot be pickled or copied")
