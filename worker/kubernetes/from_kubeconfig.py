"""A client from kubeconfig files: read, choose, load, and renew what ends.

Guarantees:
- A credential plugin that fails ends the command, or later the request: nothing is sent in its place.
- Errors quote neither the kubeconfig nor a plugin's output: both hold credentials.
"""

from __future__ import annotations

import json
import logging
import os
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import aiohttp
import yaml

from worker.errors import NotSent, OutOfReach
from worker.kubernetes.credential_plugin import CredentialPlugin, Credentials
from worker.kubernetes.kubeconfig import Chosen, Document, Unusable, choose
from worker.kubernetes.library import ConfigException, Configuration, kubeconfig_loader
from worker.kubernetes.rest import RestClient
from worker.model.hidden import Hidden
from worker.model.values import JSON

_LIBRARYS = (ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError)
"""What the library raises for a kubeconfig that it cannot read."""
_NO_FILE, _WAYS = "no such file", "set KUBECONFIG, --kubeconfig or --context"
_FILE_FRESH_FOR = timedelta(minutes=1)
# The library logs a plugin's output, which may hold a credential.
logging.getLogger("kubernetes.aio.config.kube_config").disabled = True


async def from_kubeconfig(
    kubeconfig: str | None,
    context: str | None,
    client_of: Callable[[Configuration], RestClient],
    *,
    now: Callable[[], datetime],
    say: Callable[[str], None],
) -> RestClient:
    """The client of the chosen context; `client_of` makes it. Raises OutOfReach where none is usable."""
    configuration = Configuration()
    try:
        chosen = choose(_read(kubeconfig), context)
        plugin = await _load(chosen, configuration, now)
        say(chosen.described())
        client = client_of(configuration)
    except Unusable as error:
        raise _unusable(kubeconfig, context, str(error)) from None
    except ssl.SSLError:
        raise _unusable(kubeconfig, context, "the authority, or a certificate with its key, cannot be read") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise _unusable(kubeconfig, context, f"a file is not YAML{line}") from None
    except _LIBRARYS as error:
        # The library's text may quote the file, which holds credentials: the kind of error has to do.
        raise _unusable(kubeconfig, context, type(error).__name__) from None
    client.default_headers.update(chosen.headers)
    if plugin is not None:
        _renew_with(plugin, client)
    return client


def _unusable(kubeconfig: str | None, context: str | None, problem: str) -> OutOfReach:
    where = f"kubeconfig {kubeconfig!r}" if kubeconfig is not None else "kubeconfig"
    where += f", context {context!r}" if context is not None else ""
    if problem == _NO_FILE:
        problem += f"; {_WAYS}, or run in a pod with a service account"
    return OutOfReach("NoKubeconfig", f"no usable cluster configuration ({where}): {problem}")


def _read(kubeconfig: str | None) -> list[Document]:
    """The files that exist, in their order. Raises Unusable where none does."""
    names = kubeconfig.split(os.pathsep) if kubeconfig is not None else ["~/.kube/config"]
    paths = [Path(name).expanduser().absolute() for name in names if name]
    documents: list[Document] = []
    for path in (path for path in paths if path.exists()):
        document = _parsed(path.read_text())
        if document is not None and not isinstance(document, dict):
            raise Unusable("a file is not a mapping")
        documents.append((path, document or {}))
    if not documents:
        raise Unusable(_NO_FILE)
    return documents


def _parsed(text: str) -> object:
    try:
        # JSON may be indented with tabs, which YAML does not know.
        return json.loads(text)
    except ValueError:
        # Of several documents in a file kubectl reads the first.
        return next(yaml.safe_load_all(text), None)


async def _load(chosen: Chosen, configuration: Configuration, now: Callable[[], datetime]) -> CredentialPlugin | None:
    """Fill the configuration. The plugin whose credentials end, None without one."""
    plugin = CredentialPlugin(chosen, now) if chosen.plugin is not None else None
    given = await plugin.credentials() if plugin is not None else None
    user = chosen.user | (given.as_user() if given is not None else {})
    path = user.pop("tokenFile", None)
    file = _TokenFile(Path(str(path)), now) if path else None
    if file is not None and (written := file.token()) is not None:
        user["token"] = written.reveal()
    elif file is not None and not user.get("token"):
        raise Unusable("tokenFile cannot be read, or is empty")
    _check_files(chosen.cluster | user)
    document = Chosen(chosen.context, chosen.server, chosen.cluster, user).as_document()
    try:
        await kubeconfig_loader()(document, "chosen", configuration)
    except _LIBRARYS as error:
        if not user.get("auth-provider"):
            raise
        raise Unusable(f"auth-provider: oidc gave no token ({type(error).__name__})") from None
    if file is not None:
        configuration.refresh_api_key_hook = file.refresh  # type: ignore[assignment]
    return plugin if given is not None and given.ends_at is not None else None


def _check_files(fields: JSON) -> None:
    for name in ("certificate-authority", "client-certificate", "client-key"):
        if fields.get(name) and not Path(str(fields[name])).is_file():
            raise Unusable(f"{name} names a file that does not exist")


def _renew_with(plugin: CredentialPlugin, client: RestClient) -> None:
    """Renew the plugin's credentials before they end: `revoke` waits for a human, and a run may take long."""
    if plugin.given is not None and plugin.given.certificate is not None:
        # A connection keeps the certificate that it began with.
        client.default_headers["Connection"] = "close"

    async def renew(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        try:
            given = await plugin.renewed()
        except Unusable as error:
            raise NotSent("NoKubeconfig", str(error)) from None
        if given is not None:
            _use(given, client)
        if plugin.given is not None and plugin.given.token is not None:
            request.headers["Authorization"] = f"Bearer {plugin.given.token.reveal()}"
        return await handler(request)

    session_options = client.configuration.client_session_kwargs or {}
    middlewares = (renew, *session_options.get("middlewares", ()))
    client.configuration.client_session_kwargs = session_options | {"middlewares": middlewares}


def _use(given: Credentials, client: RestClient) -> None:
    """New connections present the new certificate."""
    if given.certificate is None or given.key is None:
        return
    with tempfile.TemporaryDirectory() as directory:
        certificate, key = Path(directory, "certificate"), Path(directory, "key")
        for path, text in ((certificate, given.certificate), (key, given.key.reveal())):
            path.touch(mode=0o600)
            path.write_text(text)
        try:
            client.rest_client.ssl_context.load_cert_chain(certificate, key)
        except ssl.SSLError:
            raise NotSent("NoKubeconfig", "the credential plugin gave a certificate that cannot be read") from None


@dataclass(slots=True)
class _TokenFile:
    """A `tokenFile`, which somebody renews: it is read again once a minute, as client-go does."""

    path: Path
    now: Callable[[], datetime]
    read_at: datetime | None = None

    def token(self) -> Hidden | None:
        """None where it cannot be read, or is empty."""
        self.read_at = self.now()
        try:
            text = self.path.read_text().strip()
        except (OSError, ValueError):
            return None
        return Hidden(text) if text else None

    async def refresh(self, configuration: Configuration) -> None:
        if self.read_at is not None and self.now() < self.read_at + _FILE_FRESH_FOR:
            return
        token = self.token()
        if token is not None:
            configuration.api_key["BearerToken"] = f"Bearer {token.reveal()}"
