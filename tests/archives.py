"""Archives of every kind, made for tests from names and bytes."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

SUFFIXES = (".tar", ".tar.gz", ".tar.xz", ".zip")
_TAR_MODES = {".tar": "w:", ".gz": "w:gz", ".xz": "w:xz"}


def write_archive(path: Path, contents: dict[str, bytes]) -> Path:
    """An archive whose suffix says its kind, with the contents in their order."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, _TAR_MODES[path.suffix]) as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def write_tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    """An uncompressed tar file of members without content, for links, devices and the like."""
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(member)
    return path


def contents_of(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their path within it, in no helpful order."""
    files = sorted((path for path in folder.rglob("*") if path.is_file()), reverse=True)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
