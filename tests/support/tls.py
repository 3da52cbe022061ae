"""An API server's TLS for tests: an authority, what it signed, and a listener that notes who came.

The authority has basicConstraints and no keyUsage, as those of EKS, older GKE and MicroK8s.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

OPENSSL = shutil.which("openssl")
NAME = "api.internal"


def _openssl(*arguments: str, given: str = "") -> None:
    subprocess.run([str(OPENSSL), *arguments], input=given.encode(), capture_output=True, check=True)


@dataclass(frozen=True, slots=True)
class Certificates:
    """`ca` signed `server`, `client` and `other`; nobody trusts `stranger`. Each has a key (`.key`)."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def stranger(self) -> Path:
        return self.directory / "stranger.crt"

    @classmethod
    def made_in(cls, directory: Path) -> Certificates:
        made = cls(directory)
        for name in ("ca", "stranger"):
            made._key(name)
            config = "[req]\nprompt=no\ndistinguished_name=d\nx509_extensions=x\n[d]\nCN=test\n"
            made._signed(name, config + "[x]\nbasicConstraints=critical,CA:TRUE\n", "req", "-x509", "-days", "30")
        for name, extensions in (
            ("server", f"subjectAltName=DNS:{NAME},IP:127.0.0.1\nextendedKeyUsage=serverAuth"),
            ("client", "extendedKeyUsage=clientAuth"),
            ("other", "extendedKeyUsage=clientAuth"),
        ):
            made._key(name)
            request, options = directory / f"{name}.csr", directory / f"{name}.ext"
            options.write_text(extensions)
            _openssl("req", "-new", "-key", str(made._of(name, "key")), "-subj", f"/CN={name}", "-out", str(request))
            _openssl(
                *("x509", "-req", "-in", str(request), "-CA", str(made.ca), "-CAkey", str(made._of("ca", "key"))),
                *("-CAcreateserial", "-days", "30", "-extfile", str(options), "-out", str(made._of(name, "crt"))),
            )
        return made

    def _of(self, name: str, kind: str) -> Path:
        return self.directory / f"{name}.{kind}"

    def _key(self, name: str) -> None:
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(self._of(name, "key")))

    def _signed(self, name: str, config: str, *command: str) -> None:
        path = self._of(name, "cnf")
        path.write_text(config)
        key, out = str(self._of(name, "key")), str(self._of(name, "crt"))
        _openssl(*command, "-key", key, "-config", str(path), "-out", out)


@dataclass
class Listener:
    """Who came: credentials, whom they act for, the client certificate's name, and the asked server name."""

    url: str
    seen: list[dict[str, str]] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)


@contextmanager
def listening(certificates: Certificates) -> Iterator[Listener]:
    seen: list[dict[str, str]] = []
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown = {name.lower(): value for name, value in self.headers.items()}
            who = {k: v for k, v in shown.items() if k == "authorization" or k.startswith("impersonate")}
            subject: Any = (self.connection.getpeercert() or {}).get("subject", ())
            names = [value for part in subject for name, value in part if name == "commonName"]
            who |= {"certificate": names[0]} if names else {}
            seen.append(who)
            body = json.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "n"}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.directory / "server.crt", certificates.directory / "server.key")
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.sni_callback = lambda _, name, __: asked.append(name)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Listener(f"127.0.0.1:{server.server_port}", seen, asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
