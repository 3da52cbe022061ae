"""Who denied a write, told from the forms that the API server writes."""

import pytest

from worker.kubernetes.denials import OWNERS, denial

KEY = "sk-CANARY"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('admission webhook "v.example.com" denied the request: no ' + KEY, "the webhook v.example.com denies it"),
        (
            "secrets \"a\" is forbidden: ValidatingAdmissionPolicy 'p.example' with binding 'b' denied request: " + KEY,
            "the ValidatingAdmissionPolicy p.example denies it",
        ),
        (
            'secrets "a" is forbidden: exceeded quota: team-q, requested: secrets=1',
            "the ResourceQuota team-q is exhausted",
        ),
        (
            'secrets is forbidden: User "u" cannot create resource "secrets" in API group "" in the namespace "n"',
            "RBAC forbids to create secrets",
        ),
        ('secrets "a" is forbidden: cannot set an ownerRef on a resource you can\'t delete: , <nil>', OWNERS),
        (
            'secrets "a" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource',
            OWNERS,
        ),
        (
            "policy 'add-labels' with binding 'b' denied request: " + KEY,
            "the admission policy add-labels denies it",
        ),
        (
            'Internal error occurred: failed calling webhook "v.example.com": failed to call webhook: Post ' + KEY,
            "the webhook v.example.com does not answer",
        ),
        (
            "conversion webhook for external-secrets.io/v1beta1, Kind=ExternalSecret failed: Post " + KEY,
            "the webhook that converts ExternalSecret objects does not answer",
        ),
        (
            'secrets "a" is forbidden: unable to create new content in namespace team-a because it is being terminated',
            "the namespace team-a is being deleted",
        ),
        ("something else " + KEY, None),
        (f'admission webhook "a b {KEY}" denied the request', None),
        (None, None),
        ("x" * 20_000, None),
    ],
)
def test_a_denial_names_who_denied(message: object, expected: str | None) -> None:
    """And passes on no text but a name."""
    found = denial(message)
    assert found == expected
    assert KEY not in (found or "")
