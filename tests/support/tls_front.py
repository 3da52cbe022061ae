"""A server with a certificate in front of one without, as a proxy that inspects TLS is in front of OpenAI."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit


@asynccontextmanager
async def tls_front(certificate: Path, key: Path, behind: str) -> AsyncIterator[str]:
    """Carry what comes to the server at `behind`, and back; gives its own URL."""
    address = urlsplit(behind)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(address.hostname, address.port)
        await asyncio.gather(_pour(reader, forth), _pour(back, writer))

    server = await asyncio.start_server(carry, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # whoever hangs up first ends both ways
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()
