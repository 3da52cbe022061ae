"""The certificate authority that whoever installed the worker has named for OpenAI's side.

Guarantee: a file or folder that cannot serve is a mistake that names the variable. OpenSSL itself goes on without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def own_authority(environ: Mapping[str, str]) -> bool:
    """Is one named, by `SSL_CERT_FILE` or `SSL_CERT_DIR`? Raises ValueError where it cannot be used."""
    file, folder = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    if file:
        _check_file(file)
    # As OpenSSL reads it: several folders, of which any may be absent.
    if folder and not any(Path(part).is_dir() for part in folder.split(":")):
        raise ValueError("SSL_CERT_DIR: names no folder that exists")
    return bool(file or folder)


def _check_file(file: str) -> None:
    import ssl  # most runs need no such check

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except ssl.SSLError:
        raise ValueError("SSL_CERT_FILE: holds no certificate (PEM)") from None
    except OSError as error:
        raise ValueError(f"SSL_CERT_FILE: cannot be read ({type(error).__name__})") from None
