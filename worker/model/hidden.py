"""Secret values that nothing can show, and texts without anything that looks like a key. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import NoReturn

_KEY = re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{6,}")
"""Not in the middle of a word: `task-runner` is a namespace."""


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
