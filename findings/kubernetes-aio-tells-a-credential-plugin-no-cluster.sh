#!/bin/sh
# Expected: one package, one reading of a kubeconfig. With `provideClusterInfo: true` a credential plugin is told its cluster, in
# KUBERNETES_EXEC_INFO, as kubectl does, whichever of the package's two clients asks it.
# Found: the blocking client tells it (server, authority, the extension for plugins as `config`). The asyncio client in the same
# release ignores the field, without a word: `spec.cluster` is missing.
# Versions: kubernetes 37.0.2 (kubernetes.config and kubernetes.aio.config).
# Why it matters here: GKE's plugin wants that field. The worker had to run the plugins of its asyncio client by itself.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q kubernetes==37.0.2 aiohttp==3.14.5
cat > "$folder/plugin" <<'PLUGIN'
#!/bin/sh
# It notes what it is told, and gives a token.
printf '%s' "$KUBERNETES_EXEC_INFO" > "$1"
printf '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "a-token"}}'
PLUGIN
chmod +x "$folder/plugin"
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import asyncio
import json
import sys
from importlib.metadata import version
from pathlib import Path

import kubernetes.aio.client
import kubernetes.aio.config
import kubernetes.client
import kubernetes.config

folder = Path(sys.argv[1])
extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "an-audience"}}


def kubeconfig(told: Path) -> dict:
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(folder / "plugin"),
        "args": [str(told)],
        "interactiveMode": "Never",
        "provideClusterInfo": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://cluster.example", "extensions": [extension]}}],
        "users": [{"name": "u", "user": {"exec": plugin}}],
    }


blocking, asynchronous = folder / "blocking", folder / "asynchronous"
kubernetes.config.load_kube_config_from_dict(
    kubeconfig(blocking), client_configuration=kubernetes.client.Configuration()
)
asyncio.run(
    kubernetes.aio.config.load_kube_config_from_dict(
        kubeconfig(asynchronous), client_configuration=kubernetes.aio.client.Configuration()
    )
)
clusters = [json.loads(file.read_text())["spec"].get("cluster") for file in (blocking, asynchronous)]
print("kubernetes", version("kubernetes"))
print("the blocking client tells:", json.dumps(clusters[0]))
print("the asyncio client tells: ", json.dumps(clusters[1]))
seen = clusters[0] is not None and clusters[0]["config"] == {"audience": "an-audience"} and clusters[1] is None
raise SystemExit(0 if seen else "this has changed")
PYTHON
