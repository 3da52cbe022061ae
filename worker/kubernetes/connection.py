"""Adapter: the way to the API server, as kubectl would take it: kubeconfig or service account, TLS, proxy.

Guarantees:
- The cluster's own authority is verified as kubectl and client-go do: chain, name and dates.
- No redirect is followed.
- Errors quote no credential.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlsplit

import aiohttp

from worker.errors import OutOfReach
from worker.kubernetes.library import ConfigException, Configuration, load_incluster_config
from worker.kubernetes.rest import RestClient
from worker.model.hosts import is_loopback
from worker.runtime.clocks import SystemClock
from worker.settings.proxies import DIRECT, Proxies


class Redirected(aiohttp.ClientError):
    """The API server, or something before it, wants the request sent elsewhere."""


async def connect(
    *,
    kubeconfig: str | None,
    context: str | None,
    in_cluster: bool,
    connections: int,
    proxies: Proxies = DIRECT,
    now: Callable[[], datetime] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> RestClient:
    """A client as kubectl would make it: the named kubeconfig, else the pod's service account, else the usual file.

    `kubeconfig`: a path, or several as in KUBECONFIG. `say` hears which context and server a kubeconfig chose.
    Raises OutOfReach where none is usable.
    """

    def client(configuration: Configuration) -> RestClient:
        configuration.connection_pool_maxsize = connections
        configuration.client_session_kwargs = {"middlewares": (_refuse_redirects,), "trust_env": False}
        configuration.proxy = configuration.proxy or _proxy(configuration.host, proxies)
        # Python 3.13 refuses authorities that lack keyUsage, as those of EKS, GKE and MicroK8s do; kubectl takes them.
        configuration.disable_strict_ssl_verification = True
        return RestClient.of(configuration)

    if in_cluster and kubeconfig is None and context is None:
        return _in_cluster(client)
    # A pod needs neither YAML nor credential plugins, and to import them takes a tenth of a start.
    from worker.kubernetes.from_kubeconfig import from_kubeconfig

    return await from_kubeconfig(kubeconfig, context, client, now=now or SystemClock().now, say=say)


def _in_cluster(client: Callable[[Configuration], RestClient]) -> RestClient:
    configuration = Configuration()
    try:
        load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        return client(configuration)
    except ssl.SSLError:
        problem = "the pod's ca.crt cannot be read"
    except (ConfigException, OSError, ValueError):
        problem = "the pod's service account has no token, or no ca.crt (is automountServiceAccountToken false?)"
    ways = "set KUBECONFIG, --kubeconfig or --context"
    raise OutOfReach("NoKubeconfig", f"no usable cluster configuration: {problem}; {ways}")


def _proxy(server: str, proxies: Proxies) -> str | None:
    """The environment's proxy; none for an API server on this machine (kind, minikube, kubectl proxy), as in Go."""
    return None if is_loopback(urlsplit(server).hostname or "") else proxies.for_url(server)


async def _refuse_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """The library would follow them, a PATCH with a Secret in it too."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise Redirected
    return response
