"""Official files that are not here yet: fetched once, kept only where their checksum is right."""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from conviction.core.errors import DataError, storage_faults
from conviction.core.files import make_folder
from conviction.data.source.locate import cache_folder

TIMEOUT_S = 30
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class OfficialFile:
    """A published file: its name, where it is, how large, and the MD5 that its publisher states."""

    name: str
    url: str
    size_bytes: int
    md5: str


def fetch(file: OfficialFile) -> Path:
    """The file in the download folder, fetched where it is not there yet.

    Raises: DataError where there is no network or the bytes are not the published ones.
    """
    folder = cache_folder() / "downloads"
    target = folder / file.name
    if target.exists():
        return target
    make_folder(folder)
    partial = folder / f".{secrets.token_hex(4)}-{file.name}"
    try:
        found = _download(file, partial)
        if found != file.md5:
            raise DataError(f"{file.url} gave other bytes than the published ones (MD5 {found}, expected {file.md5}).")
        with storage_faults(target):
            os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _download(file: OfficialFile, target: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    received = 0
    try:
        with (
            urllib.request.urlopen(file.url, timeout=TIMEOUT_S) as answer,  # noqa: S310 - the addresses are our own
            storage_faults(target),
            target.open("wb") as out,
        ):
            while chunk := answer.read(CHUNK_BYTES):
                received += len(chunk)
                if received > file.size_bytes:
                    raise DataError(f"{file.url} gave more than the published {file.size_bytes:,} bytes.")
                digest.update(chunk)
                out.write(chunk)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{file.name} is not here, and fetching it failed ({getattr(error, 'reason', error)}). Put it into a "
            "folder named in CONVICTION_DATA, or give its place by data.path."
        ) from error
    return digest.hexdigest()
