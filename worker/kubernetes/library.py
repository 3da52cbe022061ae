"""The library `kubernetes`: its asynchronous half without the other one, and without generated classes.

Guarantee: importing this runs neither `kubernetes/__init__.py` nor `kubernetes/aio/__init__.py`, nor `ApiClient`. The
first two import the synchronous client with requests, urllib3 and oauthlib, and informers, streams and leader election.
`ApiClient` imports pydantic, which only the generated classes need. A start costs a third less CPU without all of that
(`python -m benchmarks.start`). Both packages hold nothing but those imports [kubernetes 37.0.2].
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

from kubernetes.aio import client  # noqa: E402 (the packages must be known before)

# `config` imports the name, for functions that nobody calls here. The package would import the class when it is asked.
client.ApiClient = None  # type: ignore[misc, assignment]

from kubernetes.aio import config  # noqa: E402

del client.ApiClient

from kubernetes.aio.client.configuration import Configuration  # noqa: E402
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse  # noqa: E402

__all__ = ["Configuration", "RESTClientObject", "RESTResponse", "config"]
