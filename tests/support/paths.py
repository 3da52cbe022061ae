"""Where the documented objects are, as paths of the API server's, and a run that does not wait."""

from __future__ import annotations

from datetime import timedelta

from tests.support.scene import LEDGER, PROJECT

SECRET = "/api/v1/namespaces/default/secrets/openai-credentials"
ENTRIES = f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations"
ENTRY = f"{ENTRIES}/default.openai-credentials"
EXTERNAL_SECRET = "/apis/external-secrets.io/v1/namespaces/default/externalsecrets/openai-credentials"
GENERATOR = "/apis/generators.external-secrets.io/v1alpha1/namespaces/default/openais/openai-generator"
ACCOUNTS = f"/v1/organization/projects/{PROJECT}/service_accounts"
NO_WAIT = timedelta(0)
ADMIN_SECRET = "/api/v1/namespaces/default/secrets/openai-admin-secret"
EXTERNAL_SECRETS = "/apis/external-secrets.io/v1/namespaces/default/externalsecrets"
SECRETS = "/api/v1/namespaces/default/secrets"
