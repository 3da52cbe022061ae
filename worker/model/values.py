"""The nouns of the rotator: immutable values without behaviour that does I/O or asks for the time.

Guarantees:
- Nobody can change a value after its creation.
- A secret value is always a `Hidden`, which no log, format string, repr, traceback or pickle can show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

PREFIX = "openai-key-rotator.io/"
"""Prefix of every label and annotation that is ours."""

JSON = dict[str, Any]
"""A JSON object as the API server sends it: unchecked until the codec or discovery has read it."""


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """A namespaced object; the context tells its kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A Kubernetes resource type, as its URL names it."""

    group: str
    version: str
    plural: str

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


class Packed(Mapping[str, Any]):
    """A JSON object as text, parsed at each access: for thousands of objects of which little is read, once."""

    __slots__ = ("_text",)

    def __init__(self, value: JSON) -> None:
        self._text = json.dumps(value, separators=(",", ":")).encode()

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self._text)

    def __getitem__(self, key: str) -> Any:
        return json.loads(self._text)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(json.loads(self._text))

    def __len__(self) -> int:
        return len(json.loads(self._text))


@dataclass(frozen=True, slots=True)
class Answer:
    """An object from the API server, the server's time of the answer (header `Date`, to the second), and its bytes."""

    body: JSON
    at: datetime | None = None
    length: int = 0


@dataclass(frozen=True, slots=True)
class Version:
    """The version of a read object: the condition of a PATCH or DELETE of it."""

    uid: str
    resource_version: str
