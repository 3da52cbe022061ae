"""Requests by the library's REST client: address, headers, credentials. Paths and bodies are the caller's.

The library's own `ApiClient` does that as well; `worker.kubernetes.library` says why it is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import quote, urlencode

import aiohttp

from worker.kubernetes.library import Configuration, RESTClientObject, RESTResponse
from worker.model.values import JSON


@dataclass(frozen=True, slots=True)
class RestClient:
    """`configuration` says where and as whom; `default_headers` go with every request."""

    configuration: Configuration
    rest_client: RESTClientObject
    default_headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, configuration: Configuration) -> RestClient:
        """Raises OSError or ssl.SSLError where its certificates cannot be read."""
        return cls(configuration, RESTClientObject(configuration))

    async def request(
        self,
        method: str,
        path: str,
        *,
        parameters: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        body: JSON | None,
        seconds: float,
    ) -> RESTResponse:
        """Raises what aiohttp raises, and TimeoutError after so many seconds. The answer has not been read yet."""
        query = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
        # Asked for each time: a token may be renewed meanwhile.
        credentials = (await self.configuration.auth_settings()).get("BearerToken")
        authorization = {credentials["key"]: credentials["value"]} if credentials is not None else {}
        response: RESTResponse = await self.rest_client.request(  # type: ignore[no-untyped-call]
            method,
            f"{self.configuration.host}{path}{query}",
            headers={**headers, **self.default_headers, **authorization},
            body=body,
            _request_timeout=aiohttp.ClientTimeout(total=seconds),
        )
        return response

    async def close(self) -> None:
        await self.rest_client.close()

    async def __aenter__(self) -> RestClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
