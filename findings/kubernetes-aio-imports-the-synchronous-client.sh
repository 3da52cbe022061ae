#!/bin/sh
# Expected: `kubernetes.aio` is the asynchronous client, beside the other one; who imports it gets aiohttp and no requests.
# Found: Python runs kubernetes/__init__.py first, which imports the synchronous half eagerly: its configuration, informers,
# streams and leader election, and with them requests, urllib3, oauthlib and websocket. The generated models of the same half
# are imported lazily, so it looks cheap in its own source.
# Versions: kubernetes 37.0.2.
# Why it matters here: a third of all modules, and a sixth of a start's CPU, for code that an asynchronous program never calls.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q kubernetes==37.0.2
cat >"$folder/count.py" <<'PYTHON'
import sys
import time

begun = time.process_time()
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient

found = [name for name in ("requests", "urllib3", "oauthlib", "websocket", "kubernetes.config") if name in sys.modules]
models = sum(name.startswith("kubernetes.client.models.") for name in sys.modules)
print("imported besides:", found, f"{len(sys.modules)} modules, {models} of them models, {time.process_time() - begun:.2f} s")
raise SystemExit(0 if len(found) == 5 else "this has changed")
PYTHON
"$folder/venv/bin/pip" list 2>/dev/null | grep -i '^kubernetes '
"$folder/venv/bin/python" "$folder/count.py"
