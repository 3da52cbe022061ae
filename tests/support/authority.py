"""A certificate authority as EKS, older GKE and MicroK8s have it: it may sign, and says nothing else of itself.

Guarantee: neither key usage nor key identifiers, which Python's strictest rules ask for since 3.13, and kubectl never.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.support.programs import required_program

CONFIG = """
[req]
distinguished_name = name
prompt = no
[name]
[authority]
basicConstraints = critical, CA:TRUE
subjectKeyIdentifier = none
authorityKeyIdentifier = none
[server]
subjectAltName = IP:127.0.0.1
subjectKeyIdentifier = none
authorityKeyIdentifier = none
"""


def bare_authority(directory: Path, server_name: str) -> Path:
    """The authority's certificate; beside it certificate and key of a server on loopback that it has signed."""
    directory.mkdir()
    config = directory / "openssl.cnf"
    # OpenSSL adds key identifiers by itself since 3.0; LibreSSL and older ones neither do nor know `none`.
    adds = re.match(r"OpenSSL [3-9]", _openssl("version")) is not None
    config.write_text("".join(line for line in CONFIG.splitlines(keepends=True) if adds or "none" not in line))
    ca, ca_key = directory / "ca.crt", directory / "ca.key"
    server, key = directory / f"{server_name}.crt", directory / f"{server_name}.key"
    new_key: list[str | Path] = ["-newkey", "rsa:2048", "-nodes", "-config", config, "-subj"]
    _openssl(
        "req",
        "-x509",
        *new_key,
        "/CN=authority",
        "-extensions",
        "authority",
        "-days",
        "2",
        "-keyout",
        ca_key,
        "-out",
        ca,
    )
    request = directory / "server.csr"
    _openssl("req", *new_key, "/CN=server", "-keyout", key, "-out", request)
    signed_by: list[str | Path] = ["-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2"]
    _openssl("x509", "-req", "-in", request, *signed_by, "-extfile", config, "-extensions", "server", "-out", server)
    return ca


def _openssl(*arguments: str | Path) -> str:
    command = [required_program("openssl"), *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
