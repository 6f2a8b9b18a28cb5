"""A tree of files, be it a directory or an archive that is read without being unpacked to disk."""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from conviction.core.errors import DataError
from conviction.data.source.base import file_digest, file_stamp
from conviction.data.source.locate import ARCHIVE_SUFFIXES

MAX_FILE_BYTES = 256_000_000


class Container(Protocol):
    """Files below one root, named by their path with `/` between the parts."""

    path: Path

    def stamp(self) -> str: ...

    def digest(self) -> str: ...

    def names(self) -> tuple[list[str], list[str]]:
        """The sorted paths of all files, and of all folders. Raises: DataError."""

    def read(self, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        """Path and content of the wanted files, in storage order. Raises: DataError."""


def open_container(path: Path) -> Container:
    """The container at `path`.

    Raises: DataError where it is neither a folder nor an archive of a known kind.
    """
    if path.is_dir():
        return Directory(path)
    name = path.name.lower()
    if name.endswith(".zip"):
        return ZipArchive(path)
    if name.endswith(ARCHIVE_SUFFIXES):
        return TarArchive(path)
    raise DataError(f"{path} is neither a folder nor an archive ({', '.join(ARCHIVE_SUFFIXES)}).")


class Directory:
    """A folder on disk. Links inside it are followed, each folder once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stamp(self) -> str:
        digest = hashlib.sha256(str(self.path.resolve()).encode())
        for name in self.names()[0]:
            digest.update(f"{name}\0{file_stamp(f'{self.path}/{name}')}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def digest(self) -> str:
        files, folders = self.names()
        digest = hashlib.sha256("\n".join(folders).encode(errors="surrogateescape"))
        for name in files:
            digest.update(f"{name}\0{file_digest(self.path / name)}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def names(self) -> tuple[list[str], list[str]]:
        files: list[str] = []
        folders: list[str] = []
        seen: set[tuple[int, int]] = set()

        def refuse(error: OSError) -> None:
            raise DataError(f"Cannot read {error.filename}: {error.strerror}.") from error

        for place, below, here in os.walk(self.path, followlinks=True, onerror=refuse):
            identity = os.stat(place)
            if (identity.st_dev, identity.st_ino) in seen:
                below.clear()
                continue
            seen.add((identity.st_dev, identity.st_ino))
            within = os.path.relpath(place, self.path)
            prefix = "" if within == "." else within.replace(os.sep, "/") + "/"
            folders += [prefix + name for name in below]
            files += [prefix + name for name in here]
        return sorted(files), sorted(folders)

    def read(self, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        for name in sorted(wanted):
            path = self.path / name
            try:
                found = path.stat()
                if not stat.S_ISREG(found.st_mode):
                    raise DataError(f"{path} is no ordinary file.")
                _check_size(name, found.st_size, self.path)
                yield name, path.read_bytes()
            except OSError as error:
                raise DataError(f"Cannot read {path}: {error.strerror}.") from error


class _Archive:
    def __init__(self, path: Path) -> None:
        self.path = path

    def stamp(self) -> str:
        return file_stamp(self.path)

    def digest(self) -> str:
        return file_digest(self.path)


class TarArchive(_Archive):
    """A tar file, compressed or not, read from front to back."""

    def names(self) -> tuple[list[str], list[str]]:
        files: list[str] = []
        folders: list[str] = []
        for _, member in self._members():
            (folders if member.isdir() else files).append(_clean_name(member.name, self.path))
        return _without_repeats(files, self.path), sorted(set(folders) - {"."})

    def read(self, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        for archive, member in self._members():
            name = _clean_name(member.name, self.path)
            if member.isfile() and name in wanted:
                content = archive.extractfile(member)
                assert content is not None
                yield name, content.read()

    def _members(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        with _archive_faults(self.path), tarfile.open(self.path, "r|*") as archive:
            for member in archive:
                if member.issym() or member.islnk():
                    raise DataError(
                        f"{self.path} holds the link {member.name!r} -> {member.linkname!r}. Links in archives are "
                        "refused: pack the file itself."
                    )
                if not (member.isfile() or member.isdir()):
                    raise DataError(f"{self.path} holds {member.name!r}, which is neither a file nor a folder.")
                _check_size(member.name, member.size, self.path)
                yield archive, member
                # tarfile keeps every header it has seen, which would grow with the archive.
                archive.members = []


class ZipArchive(_Archive):
    """A zip file."""

    def names(self) -> tuple[list[str], list[str]]:
        files: list[str] = []
        folders: list[str] = []
        with self._opened() as archive:
            for member in archive.infolist():
                name = _clean_name(member.filename, self.path)
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise DataError(
                        f"{self.path} holds the link {name!r}. Links in archives are refused: pack the file itself."
                    )
                if member.flag_bits & 1:
                    raise DataError(f"{self.path} is encrypted: unpack it first.")
                _check_size(name, member.file_size, self.path)
                (folders if member.is_dir() else files).append(name)
        return _without_repeats(files, self.path), sorted(set(folders) - {"."})

    def read(self, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        with self._opened() as archive:
            for member in archive.infolist():
                name = _clean_name(member.filename, self.path)
                if name in wanted and not member.is_dir():
                    yield name, archive.read(member)

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        with _archive_faults(self.path), zipfile.ZipFile(self.path) as archive:
            yield archive


def _clean_name(name: str, archive: Path) -> str:
    """The entry's name without `./`. Raises: DataError where it leads out of the archive's own folder."""
    shown = name.replace("\\", "/")
    parts = PurePosixPath(shown).parts
    if shown.startswith("/") or (len(shown) > 1 and shown[1] == ":"):
        raise DataError(f"{archive} holds the absolute name {name!r}: such an archive is refused.")
    if ".." in parts:
        raise DataError(f"{archive} holds {name!r}, which climbs out of its folder: such an archive is refused.")
    return str(PurePosixPath(*parts)) if parts else "."


def _without_repeats(files: list[str], archive: Path) -> list[str]:
    ordered = sorted(files)
    for first, second in zip(ordered, ordered[1:], strict=False):
        if first == second:
            raise DataError(f"{archive} holds {first!r} twice: which one is meant?")
    return ordered


def _check_size(name: str, size_bytes: int, where: Path) -> None:
    if size_bytes > MAX_FILE_BYTES:
        raise DataError(f"{where} holds {name!r} with {size_bytes:,} bytes; a picture has at most {MAX_FILE_BYTES:,}.")


@contextmanager
def _archive_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{path} is damaged or no archive: {error or 'it ends too early'}.") from error
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from error
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
