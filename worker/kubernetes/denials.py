"""Who denied a request, or broke it: RBAC, a webhook, a policy, a quota, a namespace's end, the guard of owners. Pure.

Guarantees: of the API server's text only names are passed on, and only where they look like names.
Source: the forms of Kubernetes 1.31 to 1.37 (`apiserver/pkg/admission`, `plugin/pkg/admission`, `authorization`).
"""

from __future__ import annotations

import re

OWNERS = (
    "an ownerReference may not be set (admission plugin OwnerReferencesPermissionEnforcement): grant `delete` on the "
    "Secret, or use creationPolicy Orphan or Merge"
)
OWNERS_FORBIDDEN = "OwnerReferenceForbidden"
"""The reason of an error with these words: the write may be tried without owners."""

_NAME = r"(?P<name>[A-Za-z0-9]([A-Za-z0-9.:_-]{0,252}[A-Za-z0-9])?)"
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf'admission webhook "{_NAME}" denied the request'), "the webhook {name} denies it"),
    (
        re.compile(rf"ValidatingAdmissionPolicy '{_NAME}' (with binding '[^']{{1,253}}' )?denied request"),
        "the ValidatingAdmissionPolicy {name} denies it",
    ),
    (
        re.compile(rf"\bpolicy '{_NAME}' (with binding '[^']{{1,253}}' )?denied request"),
        "the admission policy {name} denies it",
    ),
    (re.compile(rf'failed calling webhook "{_NAME}"'), "the webhook {name} does not answer"),
    (
        re.compile(r"conversion webhook for [a-z0-9./-]{1,253}, Kind=(?P<name>[A-Za-z]{1,63}) failed"),
        "the webhook that converts {name} objects does not answer",
    ),
    (
        re.compile(rf"unable to create new content in namespace {_NAME} because it is being terminated"),
        "the namespace {name} is being deleted",
    ),
    (re.compile(rf"exceeded quota: {_NAME}(,|$)"), "the ResourceQuota {name} is exhausted"),
    (re.compile(rf"failed quota: {_NAME}(:|,|$)"), "the ResourceQuota {name} asks for something that is missing"),
    (
        re.compile(r'cannot (?P<verb>[a-z]{2,20}) resource "(?P<name>[a-z]{2,60}(/[a-z]{2,20})?)" in API group'),
        "RBAC forbids to {verb} {name}",
    ),
)
_OWNERS = re.compile(r"cannot set (an ownerRef|blockOwnerDeletion)")


def denial(message: object) -> str | None:
    """Who denied it, in our words; None where the text has no known form."""
    if not isinstance(message, str) or len(message) > 10_000:
        return None
    if _OWNERS.search(message):
        return OWNERS
    for pattern, words in _FORMS:
        found = pattern.search(message)
        if found is not None:
            return words.format(**{key: value for key, value in found.groupdict().items() if value is not None})
    return None
