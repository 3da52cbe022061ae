"""What a key may do at OpenAI: the names of its scopes. Pure.

Guarantees: a list of scopes is sorted and has no scope twice, so two lists that mean the same are equal.
No scope asked for means no restriction: a malformed list never passes for that.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

_SCOPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*\Z")
_LONGEST = 64

Scopes = tuple[str, ...]
"""Empty: no restriction, as OpenAI has it."""


def is_scope(value: object) -> bool:
    """Has it the form of a scope, such as `api.model.read`? A key does not have it."""
    return isinstance(value, str) and len(value) <= _LONGEST and _SCOPE.match(value) is not None


def canonical(scopes: Iterable[str]) -> Scopes:
    return _shared(tuple(sorted(set(scopes))))


@functools.lru_cache(maxsize=256)
def _shared(scopes: Scopes) -> Scopes:
    """One object for equal lists: thousands of keys share a few."""
    return scopes


def parse_scopes(text: str) -> Scopes:
    """A list such as `model.request, api.model.read`. Raises ValueError for an empty one: OpenAI takes none for all."""
    names = [name.strip() for name in text.split(",")]
    if not all(is_scope(name) for name in names):
        raise ValueError("must be one or more scopes with commas between, such as model.request, api.model.read")
    return canonical(names)


def is_wider(shown: Scopes, asked: Scopes) -> bool:
    """May a key with the shown scopes do more than was asked for?"""
    return bool(asked) and (not shown or not set(shown) <= set(asked))


@dataclass(frozen=True, slots=True)
class ScopePolicy:
    """The operator's word on scopes. `default`: for targets that name none. `required`: those are refused."""

    default: Scopes = ()
    required: bool = False


ANY_SCOPES = ScopePolicy()
