#!/bin/sh
# Expected: `import aiohttp` reads no certificates; or once, for requests that verify.
# Found: it loads the system's certificate authorities twice while it is imported: for its shared context that verifies, and for
# the one that verifies nothing. A program that only speaks plain HTTP, or to a server with an authority of its own, pays too.
# Versions: aiohttp 3.14.5, Python 3.11 and newer.
# Why it matters here: a batch job pays its start with every run. With the 140 authorities of a Debian each load takes 20 to 45 ms
# of CPU: together a third of the import, and a tenth of the worker's start.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q aiohttp==3.14.5
"$folder/venv/bin/python" - <<'PYTHON'
import ssl
import time
from importlib.metadata import version

whole, begun, loads = ssl.SSLContext.set_default_verify_paths, time.process_time(), []


def counted(context: ssl.SSLContext) -> None:
    before = time.process_time()
    whole(context)
    verifies = "verifies" if context.verify_mode is ssl.CERT_REQUIRED else "verifies nothing"
    loads.append((verifies, time.process_time() - before))


ssl.SSLContext.set_default_verify_paths = counted
import aiohttp

kinds = [verifies for verifies, _ in loads]
of_loads, of_all = sum(seconds for _, seconds in loads), time.process_time() - begun
print("aiohttp", version("aiohttp"), "loads:", kinds, f"{of_loads / of_all:.0%} of the CPU of its import")
raise SystemExit(0 if kinds == ["verifies", "verifies nothing"] else "this has changed")
PYTHON
