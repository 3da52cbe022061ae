"""The form of names and ids that may become part of a path. Pure."""

from __future__ import annotations

import hashlib
import re

from worker.model.values import Ref

# --- KeyRotation -------------------------------------------------------------------------------------------------


def entry_name(target: Ref) -> str:
    """The object's name: `<namespace>.<secret>`, cut and hashed where that is longer than 253 characters.

    A namespace has no dots, so two targets never share a name.
    """
    name = f"{target.namespace}.{target.name}"
    if len(name) <= 253:
        return name
    return f"{name[:230].rstrip('.-')}.{hashlib.sha256(name.encode()).hexdigest()[:16]}"


DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")


_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")


_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


def is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 253 and _SUBDOMAIN.match(value) is not None


def is_namespace(value: object) -> bool:
    return isinstance(value, str) and _LABEL.match(value) is not None


ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
"""The form of an id that may become part of a path (yarl would normalise `..`)."""
