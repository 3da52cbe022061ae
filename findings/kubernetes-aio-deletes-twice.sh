#!/bin/sh
# Expected: kubernetes.aio sends a request once. Its configuration has `retries`, and that is not set here.
# Found: where the server takes a request and closes the connection without an answer, a GET and a DELETE are sent again, once, on
# a new connection: aiohttp does that for every idempotent method. POST and PATCH are sent once.
# Versions: kubernetes 37.0.2 (its package kubernetes.aio), aiohttp as it asks for.
# Why it matters here: the first DELETE has taken effect, and the second is answered 404 or 409. Who reads that as somebody else's
# doing is wrong: it is one's own.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q kubernetes==37.0.2 aiohttp==3.14.5
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
from importlib.metadata import version
from kubernetes.aio.client import ApiClient, Configuration, CoreV1Api


async def main() -> None:
    asked: list[str] = []

    async def take_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split()[0].decode())
        writer.close()

    server = await asyncio.start_server(take_and_close, "127.0.0.1", 0)
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with ApiClient(configuration) as client:
        api = CoreV1Api(client)
        for call in (
            api.read_namespaced_secret("s", "n"),
            api.delete_namespaced_secret("s", "n"),
            api.create_namespaced_secret("n", {}),
            api.patch_namespaced_secret("s", "n", {}),
        ):
            try:
                await call
            except Exception as error:
                print(type(error).__name__, end=" ")
    server.close()
    counts = {method: asked.count(method) for method in ("GET", "DELETE", "POST", "PATCH")}
    print("\nkubernetes", version("kubernetes"), "aiohttp", version("aiohttp"), counts)
    raise SystemExit(0 if counts == {"GET": 2, "DELETE": 2, "POST": 1, "PATCH": 1} else "this has changed")


asyncio.run(main())
PYTHON
