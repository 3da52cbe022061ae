#!/bin/sh
# Expected: `kube-score score staging.yaml production.yaml` says of each file what is wrong in it, as a linter does.
# Found: objects with the same kind, namespace and name become one. The JSON output has a single object, of the last file, with
# the checks of all: what is wrong in the first file is said of the last, and each check stands there twice, with two grades.
# Versions: kube-score v1.20.0. Needs Go and Python.
# Why it matters here: two overlays, or a chart's values files, are the same objects in another form. Given at once, nobody can
# tell which one is at fault: what judges renderings has to call it once for each.
set -eu
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
GOBIN="$folder" GOFLAGS=-modcacherw go install github.com/zegl/kube-score/cmd/kube-score@v1.20.0 2>"$folder/go.log" || {
  cat "$folder/go.log"
  exit 1
}
service() {
  printf 'apiVersion: v1\nkind: Service\nmetadata: {name: app, namespace: team}\nspec:\n'
  printf '  type: %s\n  selector: {app: app}\n  ports: [{port: 80}]\n' "$1"
}
cd "$folder"
service NodePort > staging.yaml
service ClusterIP > production.yaml
go version -m ./kube-score | sed -n 's/^\tmod\t\([^\t]*\)\t\([^\t]*\).*/\1 \2/p'
./kube-score score --output-format json staging.yaml production.yaml > both.json || true # its exit code tells of faults
python3 - <<'PYTHON'
import json
from pathlib import Path

objects = json.loads(Path("both.json").read_text())
told = [
    (Path(item["file_name"]).name, check["grade"], [comment["summary"] for comment in check["comments"] or ()])
    for item in objects
    for check in item["checks"]
    if check["check"]["id"] == "service-type"
]
print(len(objects), "object; checks of the Service's type (10 is well):", *told, sep="\n  ")
seen = len(objects) == 1 and [(name, grade) for name, grade, _ in told] == [("production.yaml", 5), ("production.yaml", 10)]
raise SystemExit(0 if seen else "this has changed")
PYTHON
