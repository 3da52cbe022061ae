"""Whose a failure is, and whether it passes without a human. Pure.

A failure is the tenant's where their own objects, admin key, project or quota bring it about, so that they can mend it.
Guarantee: a reason that is not listed here counts as the platform's, and as one for a human: it is told rather than
kept quiet.
"""

from __future__ import annotations

TENANTS = frozenset(
    {
        "AdminKeyInvalid",
        "AdminKeyMissing",
        "AdminKeySecret",
        "ClusterRefused",
        "CopiedSecret",
        "DeletesRefused",
        "ForeignSecret",
        "HostNotAllowed",
        "InvalidSpec",
        "KeyLifetime",
        "KeyNotPlain",
        "KeyScopesRequired",
        "MixedSources",
        "NoGenerator",
        "OpenAIAddressRefused",
        "OpenAIForbidden",
        "OpenAINotFound",
        "OpenAINotReached",
        "OpenAIProjectEmpty",
        "OpenAIRedirect",
        "OpenAIRefused",
        "OpenAIUnauthorized",
        "OpenAIUnintelligible",
        "OpenAIWrongHost",
        "PutBack",
        "ScopesRefused",
        "SecretImmutable",
        "SecretMissing",
        "SecretNotWritten",
        "SecretTooLarge",
        "SecretType",
        "SharedTarget",
        "TooManyAccounts",
        "UnsupportedField",
    }
)
"""A tenant has to act."""

TENANTS_PASSING = frozenset(
    {
        "AccountNotShown",
        "Changed",
        "Conflict",
        "KeyNotAccepted",
        "KeyNotNarrowed",
        "LostClaim",
        "NotFound",
        "OpenAIThrottled",
        "TwinUnknown",
    }
)
"""A target's own, and a later run goes on."""

PASSING = frozenset(
    {
        "ApiServerUnintelligible",
        "BackingOff",
        "ClockJumped",
        "ClusterThrottled",
        "ClusterUnanswered",
        "DeadlineExceeded",
        "ExternalSecretsNotServed",
        "LedgerNotWritten",
        "ListExpired",
        "OpenAIUnanswered",
        "OpenAIUnreachable",
        "Stopped",
        "TooSlow",
    }
)
"""The platform's, or OpenAI's for everybody, and a later run goes on."""

STATES = frozenset({"Adopted", "Forgotten", "InProgress", "Revoked", "TargetGone"})
"""No failures, although no key is in the Secret: a later run goes on."""

OF_THE_ADMIN_KEY = frozenset(
    {
        "AccountNotShown",
        "AdminKeyInvalid",
        "AdminKeyMissing",
        "DeletesRefused",
        "OpenAIAddressRefused",
        "OpenAIForbidden",
        "OpenAINotFound",
        "OpenAIProjectEmpty",
        "OpenAIRefused",
        "OpenAIThrottled",
        "OpenAIUnauthorized",
        "OpenAIWrongHost",
    }
)
"""A tenant's only where the admin key is: whoever keeps a central one names its projects and hosts as well."""


def is_tenants(reason: str, *, central: bool) -> bool:
    """Is a failure for this reason a tenant's own? `central`: the platform's admin key serves the target."""
    return reason in TENANTS | TENANTS_PASSING and not (central and reason in OF_THE_ADMIN_KEY)


def needs_a_human(reason: str) -> bool:
    """Does a target that is not well for this reason stay so until somebody acts?"""
    return reason not in TENANTS_PASSING | PASSING | STATES
