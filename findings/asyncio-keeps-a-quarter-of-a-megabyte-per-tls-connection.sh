#!/bin/sh
# Expected: an idle keep-alive connection of an HTTP client costs some kilobytes, over TLS a little more.
# Found: asyncio gives each TLS connection a read buffer of 256 KiB at once, and keeps it as long as the connection, whatever is
# read. aiohttp keeps its connections open for reuse: 20 of them that have each read 2 bytes hold over 5 MB, and without TLS a
# thirtieth of that. No option of aiohttp or asyncio says otherwise; only fewer connections help.
# Versions: aiohttp 3.14.5, Python 3.11 and newer; trustme 1.2.1 makes the certificate.
# Why it matters here: a batch job works on 50 targets at once, each with a connection to the API server. That is 13 MB, a fifth of
# what the worker takes with few targets, and no list of objects shows it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q aiohttp==3.14.5 trustme==1.2.1
cat > "$folder/server.py" <<'PYTHON'
import asyncio
import ssl
import sys

import trustme
from aiohttp import web

folder = sys.argv[1]
authority = trustme.CA()
authority.cert_pem.write_to_path(f"{folder}/ca.pem")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("127.0.0.1").configure_cert(context)


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(0.5)  # so that no connection is free for the next request
    return web.Response(text="ok")


async def main() -> None:
    application = web.Application()
    application.add_routes([web.get("/", slow)])
    runner = web.AppRunner(application)
    await runner.setup()
    ports = []
    for with_tls in (None, context):
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=with_tls)
        await site.start()
        ports.append(site._server.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
PYTHON
cat > "$folder/client.py" <<'PYTHON'
import asyncio
import gc
import ssl
import subprocess
import sys
import tracemalloc

import aiohttp

CONNECTIONS = 20
folder = sys.argv[1]


async def held(url: str, context: ssl.SSLContext | bool) -> float:
    """KiB that each idle connection holds, after one small answer."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:

        async def ask() -> None:
            async with session.get(url) as response:
                await response.read()

        await ask()  # whatever is made once
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / (CONNECTIONS - 1) / 1024


async def main() -> None:
    server = subprocess.Popen([sys.executable, f"{folder}/server.py", folder], stdout=subprocess.PIPE, text=True)
    try:
        plain, tls = server.stdout.readline().split()
        context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
        tracemalloc.start()
        without = await held(f"http://127.0.0.1:{plain}/", True)
        within = await held(f"https://127.0.0.1:{tls}/", context)
    finally:
        server.kill()
    print(f"Python {sys.version.split()[0]}, aiohttp {aiohttp.__version__}")
    print(f"each idle connection holds {without:.0f} KiB without TLS, {within:.0f} KiB with it")
    raise SystemExit(0 if within > 256 > 20 * without else "this has changed")


asyncio.run(main())
PYTHON
"$folder/venv/bin/python" "$folder/client.py" "$folder"
