"""A way from one address to another that a test can cut, as a network is cut: what is sent meanwhile arrives later.

Guarantees: connections stay open through a cut, and new ones are accepted and hear nothing; after the cut all that was
sent arrives. With a certificate the way ends TLS, so that a server without it is reached by https.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

PIECE = 65536


class Way:
    """`cut`: nothing passes while it is set; any thread may set it."""

    def __init__(self) -> None:
        self.cut = False

    @asynccontextmanager
    async def leading(
        self, host: str, port: int, to: tuple[str, int], tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[str]:
        """Listen here and lead there while the context lasts; gives the URL of its beginning."""
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            with suppress(OSError, asyncio.CancelledError):
                await self._carry(reader, writer, to)
            writer.close()

        server = await asyncio.start_server(connected, host, port, ssl=tls)
        try:
            yield f"https://{host}:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: tuple[str, int]) -> None:
        await self._passable()
        beyond, back = await asyncio.open_connection(*to)
        try:
            await asyncio.gather(self._pass(reader, back), self._pass(beyond, writer))
        finally:
            back.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE):
            await self._passable()
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def _passable(self) -> None:
        while self.cut:
            await asyncio.sleep(0.05)


def certificate(directory: Path, address: str) -> tuple[Path, ssl.SSLContext]:
    """A new certificate for this address: its file, which a client has to trust, and what a server needs."""
    key, made = directory / "server.key", directory / "server.crt"
    subject = ["-subj", "/CN=openai", "-addext", f"subjectAltName=IP:{address}"]
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*request, "-keyout", key, "-out", made], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    return made, context
