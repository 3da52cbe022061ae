"""The library `kubernetes`: its asynchronous half, imported without the other one.

Guarantee: importing this runs neither `kubernetes/__init__.py` nor `kubernetes/aio/__init__.py`. Those import the
synchronous client with requests, urllib3 and oauthlib, and informers, streams and leader election: 270 modules that no
command calls, and a sixth of a start's CPU (`python -m benchmarks.start`).
Both packages hold nothing but those imports [kubernetes 37.0.2].
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec


def _known(package: str) -> None:
    """Let modules of this package be imported as if its `__init__` had been run."""
    spec = find_spec(package)
    if package not in sys.modules and spec is not None:
        sys.modules[package] = module_from_spec(spec)


_known("kubernetes")
_known("kubernetes.aio")

from kubernetes.aio import config  # noqa: E402 (the packages must be known before)
from kubernetes.aio.client import ApiClient, Configuration  # noqa: E402

__all__ = ["ApiClient", "Configuration", "config"]
