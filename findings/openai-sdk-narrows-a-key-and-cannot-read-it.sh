#!/bin/sh
# Expected: what the official SDK can write it can read: a key's scopes after `projects.api_keys.update(scopes=…)`.
# Found: `update` takes `scopes`, and neither the model that it returns nor the one of `retrieve` and `list` has such a field.
# Versions: openai 3.57.0.
# Why it matters here: a narrowed key is to be read back before it is published. An answer without `scopes` is no proof.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openai==3.57.0
"$folder/venv/bin/python" - <<'PYTHON'
import inspect
import openai
from openai.resources.admin.organization.projects.api_keys import APIKeys
from openai.types.admin.organization.projects import ProjectAPIKey

taken = sorted(set(inspect.signature(APIKeys.update).parameters) & {"scopes", "expires_in_seconds"})
told = sorted(ProjectAPIKey.model_fields)
print("openai", openai.__version__)
print("update takes:", taken)
print("a key tells:", told)
raise SystemExit("this has changed" if "scopes" not in taken or "scopes" in told else 0)
PYTHON
