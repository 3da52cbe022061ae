"""The library `kubernetes`: its asynchronous half without the other one, and without generated classes.

Guarantee: importing this runs no `__init__.py` of the packages named below, and no `ApiClient`. Those import the
synchronous client with requests, urllib3 and oauthlib; informers, streams and leader election; YAML and credential
plugins; pydantic, which only the generated classes need. A start costs a third less CPU without all of that
(`python -m benchmarks.start`). They hold imports alone, and functions that call them [kubernetes 37.0.2].
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from importlib.util import find_spec, module_from_spec

from worker.model.values import JSON


def _known(package: str) -> None:
    """Let modules of this package be imported as if its `__init__` had been run."""
    spec = find_spec(package)
    if package not in sys.modules and spec is not None:
        sys.modules[package] = module_from_spec(spec)


for package in ("kubernetes", "kubernetes.aio", "kubernetes.aio.config", "kubernetes.aio.utils"):
    _known(package)

from kubernetes.aio import client  # noqa: E402 (the packages must be known before)
from kubernetes.aio.client.configuration import Configuration  # noqa: E402
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse  # noqa: E402
from kubernetes.aio.config.config_exception import ConfigException  # noqa: E402
from kubernetes.aio.config.incluster_config import load_incluster_config  # noqa: E402

__all__ = [
    "ConfigException",
    "Configuration",
    "RESTClientObject",
    "RESTResponse",
    "kubeconfig_loader",
    "load_incluster_config",
]


def kubeconfig_loader() -> Callable[[JSON, str, Configuration], Awaitable[None]]:
    """What fills a configuration from a kubeconfig and the name of its context."""
    # The module imports the name, for functions that nobody calls here; the package would import the class.
    client.ApiClient = None  # type: ignore[misc, assignment]
    from kubernetes.aio.config import kube_config

    del client.ApiClient
    load: Callable[[JSON, str, Configuration], Awaitable[None]] = kube_config.load_kube_config_from_dict
    return load
