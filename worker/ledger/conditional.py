"""What each write to the ledger says beside its change. Pure."""

from __future__ import annotations

from worker.model.values import JSON, Version

_UNTRACKED: list[JSON] = [{}]
"""Managed fields that are empty: the API server drops them, and tracks none on later updates (ADR 6)."""


def conditional(patch: JSON, version: Version) -> JSON:
    """The merge patch, for this version of the object alone; without a record of who wrote which field."""
    metadata = {"resourceVersion": version.resource_version, "managedFields": _UNTRACKED}
    return {**patch, "metadata": metadata}
