"""A tree of files, be it a directory or an archive that is read without being unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import itertools
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

from conviction.core.errors import ConvictionError, DataError
from conviction.data.decode import UnreadablePicture
from conviction.data.source.base import file_digest, file_stamp
from conviction.data.source.locate import ARCHIVE_SUFFIXES

MAX_FILE_BYTES = 256_000_000
MAX_HEADER_BYTES = 1_000_000
CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "icon\r"})
_CHUNK_BYTES = 1 << 20
# A step this small bounds what hostile bytes can inflate to before the entry's declared size stops them.
_INFLATE_STEP_BYTES = 4096
_DECOMPRESSORS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"BZh": bz2.open,
}
_EXTENDED_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@runtime_checkable
class Container(Protocol):
    """Files below one root, named by their path with `/` between the parts."""

    path: Path

    def stamp(self) -> str:
        """Cheap to get, and different whenever the content may have changed (sizes, times)."""

    def digest(self) -> str:
        """The kind of container and the SHA-256 of its content."""

    def digest_of(self, files: Iterable[str], about: str) -> str:
        """The digest of some of the files, and of what else there is to say `about` them; of all in an archive."""

    def names(self) -> tuple[list[str], list[str]]:
        """The sorted paths of all files, and of all folders. Raises: DataError."""

    def read(self, wanted: set[str]) -> Iterator[tuple[str, bytes | UnreadablePicture]]:
        """Path and content of the wanted files, or why one cannot be read, in storage order. Raises: DataError."""


def open_container(path: Path) -> Container:
    """The container at `path`.

    Raises: DataError where it is neither a folder nor an archive of a known kind.
    """
    if path.is_dir():
        return Directory(path)
    name = path.name.lower()
    if not path.is_file():
        raise DataError(f"{path} is no ordinary file.")
    if name.endswith(".zip"):
        return ZipArchive(path)
    if name.endswith(ARCHIVE_SUFFIXES):
        return TarArchive(path)
    raise DataError(f"{path} is neither a folder nor an archive ({', '.join(ARCHIVE_SUFFIXES)}).")


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or left behind by a desktop."""
    return name.startswith(".") or name.lower() in CLUTTER


class Directory:
    """A folder on disk, without its clutter. Links inside it are followed, each folder once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digests: dict[str, str] = {}

    def stamp(self) -> str:
        return self.stamp_of(self.names()[0])

    def stamp_of(self, files: Iterable[str]) -> str:
        """The stamp of some of the files."""
        digest = hashlib.sha256(os.fsencode(self.path.resolve()))
        for name in files:
            stamp = _or_why_not(file_stamp, f"{self.path}/{name}")
            digest.update(f"{name}\0{stamp}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def digest(self) -> str:
        files, folders = self.names()
        return self.digest_of(files, "\n".join(folders))

    def digest_of(self, files: Iterable[str], about: str) -> str:
        """The digest of some of the files, and of what else there is to say `about` them."""
        digest = hashlib.sha256(about.encode(errors="surrogateescape"))
        for name in files:
            # Read once, however many digests are asked for; the stamp tells what changes meanwhile.
            if name not in self._digests:
                self._digests[name] = _or_why_not(_ordinary_digest, self.path / name)
            content = self._digests[name]
            digest.update(f"{name}\0{content}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def names(self) -> tuple[list[str], list[str]]:
        files: list[str] = []
        folders: list[str] = []
        seen: set[tuple[int, int]] = set()

        def refuse(error: OSError) -> None:
            raise DataError(f"Cannot read {error.filename}: {error.strerror}.") from error

        for place, below, here in os.walk(self.path, followlinks=True, onerror=refuse):
            # Of two links to one folder, the first by name is followed on every machine.
            below[:] = sorted(name for name in below if not is_clutter(name))
            try:
                identity = os.stat(place)
            except OSError as error:
                raise DataError(f"Cannot read {place}: {error.strerror}.") from error
            if (identity.st_dev, identity.st_ino) in seen:
                below.clear()
                continue
            seen.add((identity.st_dev, identity.st_ino))
            within = os.path.relpath(place, self.path)
            prefix = "" if within == "." else within.replace(os.sep, "/") + "/"
            folders += [prefix + name for name in below]
            files += [prefix + name for name in here if not is_clutter(name)]
        return sorted(files), sorted(folders)

    def read(self, wanted: set[str]) -> Iterator[tuple[str, bytes | UnreadablePicture]]:
        for name in sorted(wanted):
            path = self.path / name
            try:
                found = path.stat()
                if not stat.S_ISREG(found.st_mode):
                    yield name, UnreadablePicture("is no ordinary file")
                    continue
                _check_size(name, found.st_size, self.path)
                yield name, path.read_bytes()
            except FileNotFoundError:
                gone = f"is a link to {str(path.readlink())!r}, which is not there" if path.is_symlink() else "is gone"
                yield name, UnreadablePicture(gone)
            except OSError as error:
                yield name, UnreadablePicture(f"cannot be read ({error.strerror})")


def _or_why_not(read: Callable[[Any], str], path: object) -> str:
    """What `read` says of a file, or why it cannot: a file that cannot be read is a fault of that picture alone."""
    try:
        return read(path)
    except DataError as error:
        return error.message


def _ordinary_digest(path: Path) -> str:
    """SHA-256 of an ordinary file; opening a pipe would wait for ever."""
    file_stamp(path)
    return file_digest(path)


class _Archive:
    """What all archives have in common."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # With the kind of archive, as its name says it: the same bytes under another name may be refused.

    def stamp(self) -> str:
        return f"{type(self).__name__} {file_stamp(self.path)}"

    def digest(self) -> str:
        return f"{type(self).__name__} {file_digest(self.path)}"

    def digest_of(self, files: Iterable[str], about: str) -> str:
        return self.digest()


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
                with _archive_faults(self.path):
                    content = archive.extractfile(member)
                    assert content is not None
                    picture = content.read()
                yield name, picture

    def _members(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        with (
            _archive_faults(self.path),
            _decompressed(self.path) as stream,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictHeader) as archive,
        ):
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
                archive.members = []  # type: ignore[attr-defined]
            # Reading to the very end checks the checksums of gzip and xz, and finds archives joined behind this one.
            rest: Any = archive.fileobj
            while chunk := rest.read(_CHUNK_BYTES):
                if chunk.strip(b"\0"):
                    raise DataError(f"{self.path} goes on behind its end mark: archives joined together are refused.")


class _StrictHeader(tarfile.TarInfo):
    """A tar header that is never passed over: tarfile takes a damaged one, or none, for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _StrictHeader:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset:,}") from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictHeader:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENDED_HEADERS and header.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {header.size:,} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(f"the entry {header.name!r} is a sparse file")
        return header


@contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a tar file; tarfile's own reader checks no checksum and stops after a first compressed stream."""
    with path.open("rb") as file:
        start = file.read(max(map(len, _DECOMPRESSORS)))
        file.seek(0)
        for magic, decompressor in _DECOMPRESSORS.items():
            if start.startswith(magic):
                with decompressor(file) as stream:
                    yield stream
                return
        yield file


class ZipArchive(_Archive):
    """A zip file."""

    def names(self) -> tuple[list[str], list[str]]:
        files: list[str] = []
        folders: list[str] = []
        with self._opened() as archive:
            for member in archive.infolist():
                name = _clean_name(member.filename, self.path)
                kind = stat.S_IFMT(member.external_attr >> 16)
                if kind == stat.S_IFLNK:
                    raise DataError(
                        f"{self.path} holds the link {name!r}. Links in archives are refused: pack the file itself."
                    )
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(f"{self.path} holds {name!r}, which is neither a file nor a folder.")
                if member.flag_bits & 1:
                    raise DataError(f"{self.path} is encrypted ({name!r}): unpack it first.")
                # Python's readers of the other methods inflate all there is before they look at the size.
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise DataError(
                        f"{self.path} holds {name!r} compressed by another method than deflate: pack it anew."
                    )
                _check_size(name, member.file_size, self.path)
                (folders if member.is_dir() else files).append(name)
        return _without_repeats(files, self.path), sorted(set(folders) - {"."})

    def read(self, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        with self._opened() as archive:
            for member in archive.infolist():
                name = _clean_name(member.filename, self.path)
                if name in wanted and not member.is_dir():
                    with archive.open(member) as file:
                        picture = b"".join(iter(lambda: file.read(_INFLATE_STEP_BYTES), b""))
                    if len(picture) != member.file_size:
                        raise DataError(f"{self.path} is damaged: {name!r} ends too early.")
                    yield name, picture

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        with _archive_faults(self.path), zipfile.ZipFile(self.path) as archive:
            yield archive


def _clean_name(name: str, archive: Path) -> str:
    """The entry's name without `./`. Raises: DataError where it leads out of the archive's own folder."""
    shown = name.replace("\\", "/")
    parts = [part for part in shown.split("/") if part not in ("", ".")]
    if shown.startswith("/") or (shown[:1].isalpha() and shown[1:2] == ":"):
        raise DataError(f"{archive} holds the absolute name {name!r}: such an archive is refused.")
    if ".." in parts:
        raise DataError(f"{archive} holds {name!r}, which climbs out of its folder: such an archive is refused.")
    return "/".join(parts) or "."


def _without_repeats(files: list[str], archive: Path) -> list[str]:
    ordered = sorted(files)
    for first, second in itertools.pairwise(ordered):
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
    except ConvictionError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise DataError(f"Cannot read {path}: {error.strerror}.") from error
        raise DataError(f"{path} is damaged or no archive: {error}.") from error
    except Exception as error:  # hostile bytes make the archive readers raise anything
        raise DataError(f"{path} is damaged or no archive: {str(error) or 'it ends too early'}.") from error
