"""The authority that `SSL_CERT_FILE` or `SSL_CERT_DIR` names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.authority import bare_authority
from worker.settings.arguments import UsageError, parse


def test_one_that_is_there_is_used(tmp_path: Path) -> None:
    ca = bare_authority(tmp_path / "tls", "proxy")
    assert parse(["run"], {"SSL_CERT_FILE": str(ca)}).own_authority
    assert parse(["run"], {"SSL_CERT_DIR": f"/nonexistent:{tmp_path}"}).own_authority
    assert not parse(["run"], {"SSL_CERT_FILE": ""}).own_authority


def test_one_that_cannot_be_used_is_a_mistake_that_names_the_variable(tmp_path: Path) -> None:
    """A mount that is missing, or another file: OpenSSL would trust nobody, in silence."""
    page = tmp_path / "page"
    page.write_text("<html></html>")
    for variable, value, words in (
        ("SSL_CERT_FILE", str(tmp_path / "none"), "cannot be read (FileNotFoundError)"),
        ("SSL_CERT_FILE", str(tmp_path), ""),
        ("SSL_CERT_FILE", str(page), "holds no certificate"),
        ("SSL_CERT_DIR", str(tmp_path / "none"), "names no folder"),
    ):
        with pytest.raises(UsageError) as raised:
            parse(["run"], {variable: value})
        (mistake,) = raised.value.mistakes
        assert mistake.startswith(f"{variable}: ")
        assert words in mistake
