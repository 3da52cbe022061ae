"""The credential plugin of a kubeconfig (`exec`), run and read as kubectl does.

Guarantees:
- A plugin that fails, takes minutes, or answers something else ends the command, or the request: nothing goes without.
- On a terminal people see what it asks. Elsewhere nothing that it writes to standard error is shown.
- No error quotes its output, which holds credentials.
- Many requests at once renew a credential once.

Source: client-go 0.37 (`plugin/pkg/client/auth/exec`, `tools/auth/exec`).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from worker.kubernetes.kubeconfig import Chosen, Unusable, header_value
from worker.kubernetes.reading import mapping_or_empty, mappings, time_or_none
from worker.model.hidden import Hidden
from worker.model.values import JSON

PATIENCE = 300.0
"""Seconds for one run of it: a human may have to log in."""
_MARGIN = timedelta(seconds=30)
"""A credential is renewed so long before it ends."""
_PAUSE = timedelta(seconds=10)
"""Not sooner again: a plugin may give credentials that have ended, or fail, and each request would run it."""
_CONFIG = "client.authentication.k8s.io/exec"
"""The extension of a cluster that is meant for plugins."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token, or a certificate with its key (PEM), or both. `ends_at`: None where the plugin does not say."""

    token: Hidden | None
    certificate: str | None
    key: Hidden | None
    ends_at: datetime | None

    def as_user(self) -> JSON:
        """They as fields of a kubeconfig's user."""
        user: JSON = {"token": self.token.reveal()} if self.token is not None else {}
        if self.certificate is not None and self.key is not None:
            user["client-certificate-data"] = _encoded(self.certificate)
            user["client-key-data"] = _encoded(self.key.reveal())
        return user


@dataclass(slots=True)
class CredentialPlugin:
    """The plugin of a chosen context, and what it gave last."""

    chosen: Chosen
    now: Callable[[], datetime]
    given: Credentials | None = None
    _asked_at: datetime | None = None
    _failure: Unusable | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def credentials(self) -> Credentials:
        """Run the plugin. Raises Unusable."""
        section = self.chosen.plugin or {}
        name = _named(section)
        if section.get("interactiveMode") == "Always" and not sys.stdin.isatty():
            raise Unusable(f"{name} wants a terminal, and there is none")
        output = await _output(section, info(self.chosen, interactive=_interactive(section)))
        self.given = read(output, str(section.get("apiVersion")), name)
        return self.given

    async def renewed(self) -> Credentials | None:
        """New credentials where the last ones are about to end, else None. Raises Unusable."""
        async with self._lock:
            if self.given is None or self.given.ends_at is None or self.now() < self.given.ends_at - _MARGIN:
                return None
            if self._asked_at is not None and self.now() < self._asked_at + _PAUSE:
                if self._failure is not None:
                    raise Unusable(str(self._failure))
                return None
            self._asked_at, self._failure = self.now(), None
            try:
                return await self.credentials()
            except Unusable as error:
                self._failure = error
                raise


def info(chosen: Chosen, *, interactive: bool) -> JSON:
    """What a plugin is told in KUBERNETES_EXEC_INFO. Raises Unusable where the authority's file cannot be read."""
    section = chosen.plugin or {}
    spec: JSON = {"interactive": interactive}
    if section.get("provideClusterInfo"):
        cluster = chosen.cluster
        told: JSON = {"server": chosen.server, "config": None}
        names = ("tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
        told |= {name: cluster[name] for name in names if cluster.get(name)}
        authority = cluster.get("certificate-authority-data") or _content(cluster.get("certificate-authority"))
        told |= {"certificate-authority-data": authority} if authority else {}
        for extension in mappings(cluster.get("extensions")):
            if extension.get("name") == _CONFIG:
                told["config"] = extension.get("extension")
        spec["cluster"] = told
    return {"apiVersion": section.get("apiVersion"), "kind": "ExecCredential", "spec": spec}


def read(output: bytes, version: str, name: str) -> Credentials:
    """The credentials in a plugin's output. Raises Unusable."""
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        raise Unusable(f"{name} gave no JSON object") from None
    answer = mapping_or_empty(answer)
    if answer.get("apiVersion") != version or answer.get("kind", "ExecCredential") != "ExecCredential":
        raise Unusable(f"{name} gave no ExecCredential of the version that the kubeconfig names")
    status = mapping_or_empty(answer.get("status"))
    token, certificate, key = (
        _text(status, part, name) for part in ("token", "clientCertificateData", "clientKeyData")
    )
    if not (token or (certificate and key)) or bool(certificate) != bool(key):
        raise Unusable(f"{name} gave neither a token nor a certificate with its key")
    if token is not None:
        header_value(token, f"the token of {name}")
    ends = status.get("expirationTimestamp")
    ends_at = time_or_none(ends)
    if ends is not None and ends_at is None:
        raise Unusable(f"{name} gave an expirationTimestamp that is no time")
    return Credentials(Hidden(token) if token else None, certificate, Hidden(key) if key else None, ends_at)


def _text(status: Mapping[str, Any], part: str, name: str) -> str | None:
    value = status.get(part)
    if value is not None and not isinstance(value, str):
        raise Unusable(f"{name} gave a {part} that is no text")
    return value or None


async def _output(section: Mapping[str, Any], told: JSON) -> bytes:
    """What the plugin printed. It is stopped when it takes too long, or when the command ends."""
    command, name = str(section.get("command")), _named(section)
    arguments = [str(argument) for argument in section.get("args") or []]
    named = {str(one.get("name")): str(one.get("value", "")) for one in mappings(section.get("env"))}
    # As kubectl's: a plugin finds its own login in the environment and the home directory of whoever runs this.
    environment = {**os.environ, **named, "KUBERNETES_EXEC_INFO": json.dumps(told)}
    try:
        process = await asyncio.create_subprocess_exec(
            command,
            *arguments,
            env=environment,
            stdin=None if _interactive(section) else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if sys.stderr.isatty() else asyncio.subprocess.DEVNULL,
        )
    except (OSError, ValueError) as error:
        raise Unusable(f"{name} failed: it cannot be started ({type(error).__name__})") from None
    try:
        async with asyncio.timeout(PATIENCE):
            output, _ = await process.communicate()
    except TimeoutError:
        raise Unusable(f"{name} failed: it took over {PATIENCE:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise Unusable(f"{name} failed with exit code {process.returncode}: run it by itself to see why")
    return output


def _interactive(section: Mapping[str, Any]) -> bool:
    """May the plugin ask whoever sits at the terminal?"""
    return sys.stdin.isatty() and section.get("interactiveMode") != "Never"


def _named(section: Mapping[str, Any]) -> str:
    """The plugin in messages: its program's name, without its path and arguments."""
    return f"the credential plugin {Path(str(section.get('command'))).name[:80]!r}"


def _content(path: object) -> str | None:
    if not path:
        return None
    try:
        return base64.b64encode(Path(str(path)).read_bytes()).decode()
    except OSError:
        raise Unusable("certificate-authority cannot be read") from None


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
