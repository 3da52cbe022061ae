"""Archives that are the same, byte for byte, whoever makes them from the same files, and when."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import IO

Files = Iterable[tuple[str, bytes, bool]]
"""Name, content, is it a program?"""


def write_tar(target: Path, files: Files, *, epoch: int) -> None:
    """A tar of files, in this order, compressed where its name says so. Its times are `epoch`, and nobody owns it."""
    with target.open("wb") as raw:
        if target.suffix == ".tar":
            _write(raw, files, epoch=epoch)
        else:
            with gzip.GzipFile("", "wb", 9, raw, mtime=epoch) as packed:
                _write(packed, files, epoch=epoch)


def _write(stream: IO[bytes] | gzip.GzipFile, files: Files, *, epoch: int) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content, program in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), epoch, 0o755 if program else 0o644
            archive.addfile(info, BytesIO(content))


def repack(archive: Path, *, epoch: int) -> None:
    """Write a tar again, without the traces of who made it, and when."""
    files = []
    with tarfile.open(archive) as opened:
        for item in sorted(opened.getmembers(), key=lambda item: item.name):
            content = opened.extractfile(item)
            if content is not None:
                files.append((item.name, content.read(), bool(item.mode & 0o100)))
    write_tar(archive, files, epoch=epoch)


def extract(archive: Path, directory: Path) -> None:
    """Unpack a tar into a new folder, with the same modes whatever the umask is."""
    directory.mkdir()
    with tarfile.open(archive) as opened:
        opened.extractall(directory, filter="data")
    for path in directory.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
