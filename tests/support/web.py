"""Answers for the adapters' own tables of status and error, in place of the network."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses
from yarl import URL

from tests.support.builders import KEY, told
from tests.support.virtual_time import run_virtually
from worker.errors import RotatorError

Answer = Mapping[str, Any]
"""What aioresponses takes: status, body, headers, or an exception."""


@dataclass
class Web:
    """Gives its answers in order, whatever is asked for; more requests than answers are a failure of the test."""

    answers: list[Answer]
    asked: list[tuple[str, URL]] = field(default_factory=list)
    sent: list[Mapping[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    """Virtual time that passed."""

    def ask(self, call: Callable[[aiohttp.ClientSession], Awaitable[Any]]) -> Any:
        """What the call returns, or the expected error that it raises."""

        async def whole() -> Any:
            with _Answering(self):
                async with aiohttp.ClientSession() as session:
                    try:
                        return await call(session)
                    except RotatorError as error:
                        return error

        result, self.seconds = run_virtually(whole(), 0.0)
        return result

    @property
    def paths(self) -> list[tuple[str, str]]:
        return [(method, url.path) for method, url in self.asked]

    @property
    def queries(self) -> list[dict[str, str]]:
        return [dict(url.query) for _, url in self.asked]


class _Answering(aioresponses):
    def __init__(self, web: Web) -> None:
        super().__init__()
        self._web = web
        self._left = list(web.answers)

    async def match(self, method: str, url: URL, allow_redirects: bool = True, **sent: Any) -> Any:
        self._web.asked.append((method, url))
        self._web.sent.append(sent | {"allow_redirects": allow_redirects})
        assert self._left, f"an unexpected request: {method} {url.path}"
        self.add(url, method, **self._left.pop(0))
        return await super().match(method, url, allow_redirects=allow_redirects, **sent)


def js(body: object, status: int = 200, **headers: str) -> Answer:
    return {"status": status, "body": json.dumps(body), "headers": headers}


def connection_refused() -> aiohttp.ClientConnectorError:
    """What aiohttp raises where nobody listens."""
    return aiohttp.ClientConnectorError(
        ConnectionKey("host.test", 443, True, True, None, None, None), OSError(111, KEY)
    )


def brief(value: object) -> str:
    """The name of a test's parameter, without the fake key in it."""
    return str(value).replace("CANARY", "KEY")[:60]


def assert_silent(error: RotatorError, *texts: str) -> None:
    """No key and no server's text, wherever one looks."""
    for text in ("CANARY", *texts):
        assert text not in told(error)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
