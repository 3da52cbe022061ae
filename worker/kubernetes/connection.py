"""Adapter: the way to the API server, as kubectl would take it: kubeconfig or service account, TLS, proxy.

Guarantees:
- A credential plugin that fails ends the command: nothing is sent in its place.
- The cluster's own authority is verified as kubectl and client-go do: chain, name and dates.
- No redirect is followed.
- Errors quote neither the kubeconfig nor a plugin's output: both hold credentials.
"""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config.exec_provider import ExecProvider
from kubernetes.aio.config.kube_config import ConfigNode

from worker.errors import OutOfReach
from worker.kubernetes.kubeconfig import Chosen, Document, Unusable, choose
from worker.kubernetes.reading import time_or_none
from worker.model.hidden import Hidden
from worker.model.hosts import is_loopback
from worker.model.values import JSON
from worker.runtime.clocks import SystemClock
from worker.settings.proxies import DIRECT, Proxies

_MARGIN = timedelta(seconds=30)
"""A plugin's token is renewed so long before it ends."""
# The library logs a plugin's output, which may hold a credential.
logging.getLogger("kubernetes.aio.config.kube_config").disabled = True


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
) -> ApiClient:
    """A client as kubectl would make it: the named kubeconfig, else the pod's service account, else the usual file.

    `kubeconfig`: a path, or several as in KUBECONFIG. `say` hears which context and server a kubeconfig chose.
    Raises OutOfReach where none is usable.
    """
    configuration, headers = Configuration(), {}
    try:
        if in_cluster and kubeconfig is None and context is None:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            chosen = choose(_read(kubeconfig), context)
            headers = dict(chosen.headers)
            await _load(chosen, configuration, now or SystemClock().now)
            say(f"context {chosen.context}, server {chosen.server}")
        configuration.connection_pool_maxsize = connections
        configuration.client_session_kwargs = {"middlewares": (_refuse_redirects,), "trust_env": False}
        configuration.proxy = configuration.proxy or _proxy(configuration.host, proxies)
        # Python 3.13 refuses authorities that lack keyUsage, as those of EKS, GKE and MicroK8s do; kubectl takes them.
        configuration.disable_strict_ssl_verification = True
        client = ApiClient(configuration)
    except Unusable as error:
        raise _unusable(kubeconfig, context, str(error)) from None
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # The library's text may quote the file, which holds credentials: the kind of error has to do.
        raise _unusable(kubeconfig, context, type(error).__name__) from None
    for name, value in headers.items():
        client.set_default_header(name, value)  # type: ignore[no-untyped-call]
    return client


def _proxy(server: str, proxies: Proxies) -> str | None:
    """The environment's proxy; none for an API server on this machine (kind, minikube, kubectl proxy), as in Go."""
    return None if is_loopback(urlsplit(server).hostname or "") else proxies.for_url(server)


def _unusable(kubeconfig: str | None, context: str | None, problem: str) -> OutOfReach:
    where = f"kubeconfig {kubeconfig!r}" if kubeconfig is not None else "kubeconfig"
    where += f", context {context!r}" if context is not None else ""
    return OutOfReach(
        "NoKubeconfig",
        f"no usable cluster configuration ({where}: {problem}): set KUBECONFIG, --kubeconfig or "
        "--context, or run in a pod with a service account",
    )


def _read(kubeconfig: str | None) -> list[Document]:
    """The files that exist, in their order. Raises Unusable where none does."""
    names = kubeconfig.split(os.pathsep) if kubeconfig is not None else ["~/.kube/config"]
    paths = [Path(name).expanduser().absolute() for name in names if name]
    documents: list[Document] = []
    for path in (path for path in paths if path.exists()):
        document = yaml.safe_load(path.read_text())
        if document is not None and not isinstance(document, dict):
            raise Unusable("a file is not a mapping")
        documents.append((path, document or {}))
    if not documents:
        raise Unusable("no such file")
    return documents


async def _load(chosen: Chosen, configuration: Configuration, now: Callable[[], datetime]) -> None:
    plugin = _Plugin(chosen, now) if chosen.plugin is not None else None
    user = chosen.user | (await plugin.credentials() if plugin is not None else {})
    document = Chosen(chosen.context, chosen.server, chosen.cluster, user).as_document()
    await config.load_kube_config_from_dict(document, "chosen", configuration)  # type: ignore[no-untyped-call]
    if plugin is not None and plugin.ends_at is not None:
        configuration.refresh_api_key_hook = plugin.refresh  # type: ignore[assignment]


@dataclass(slots=True)
class _Plugin:
    """A credential plugin of a kubeconfig (`exec`). `ends_at`: when its token ends, None: it does not say."""

    chosen: Chosen
    now: Callable[[], datetime]
    ends_at: datetime | None = None

    async def credentials(self) -> JSON:
        """Run it; its credentials as fields of a kubeconfig's user. Raises Unusable."""
        section = self.chosen.plugin or {}
        name = Path(str(section.get("command"))).name
        try:
            status = await ExecProvider(ConfigNode("exec", section)).run()  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unusable(f"the credential plugin {name[:80]!r} failed ({type(error).__name__})") from None
        token, certificate, key = (status.get(field) for field in ("token", "clientCertificateData", "clientKeyData"))
        self.ends_at = time_or_none(status.get("expirationTimestamp"))
        if isinstance(certificate, str) and isinstance(key, str):
            data = {"client-certificate-data": _encoded(certificate), "client-key-data": _encoded(key)}
            return data | ({"token": token} if token else {})
        if isinstance(token, str) and token:
            return {"token": token}
        raise Unusable(f"the credential plugin {name[:80]!r} gave neither a token nor a certificate with its key")

    async def refresh(self, configuration: Configuration) -> None:
        """Renew the token before it ends: `revoke` waits for a human, and a run may take long."""
        if self.ends_at is None or self.now() < self.ends_at - _MARGIN:
            return
        token = Hidden(str((await self.credentials()).get("token", "")))
        configuration.api_key["BearerToken"] = f"Bearer {token.reveal()}"


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def _refuse_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """The library would follow them, a PATCH with a Secret in it too."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise Redirected
    return response
