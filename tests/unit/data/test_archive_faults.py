"""Every way in which an archive of class folders can be wrong, with what is said of it."""

import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from archives import write_archive
from conviction.core.errors import DataError
from conviction.data.source import container
from conviction.data.source.base import open_source
from conviction.data.source.folder import FolderConfig

NOISE = bytes(range(256)) * 16
WHOLE = {"cat/1.png": NOISE, "dog/2.png": NOISE}
Maker = Callable[[Path], object]


def raw(content: bytes) -> Maker:
    return lambda path: path.write_bytes(content)


def holding(contents: dict[str, bytes]) -> Maker:
    return lambda path: write_archive(path, contents)


def changed(change: Callable[[bytearray], object], contents: dict[str, bytes] = WHOLE) -> Maker:
    """A good archive whose bytes are changed."""

    def make(path: Path) -> None:
        content = bytearray(write_archive(path, contents).read_bytes())
        change(content)
        path.write_bytes(content)

    return make


def cut(keep: Callable[[int], int]) -> Maker:
    def change(content: bytearray) -> None:
        del content[keep(len(content)) :]

    return changed(change)


def with_entry(kind: bytes, target: str = "", name: str = "cat/odd.png", size: int = 0) -> Maker:
    """A tar file with an entry of another kind."""

    def make(path: Path) -> None:
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo("cat/1.png")
            member.size = len(NOISE)
            archive.addfile(member, io.BytesIO(NOISE))
            odd = tarfile.TarInfo(name)
            odd.type, odd.linkname, odd.size = kind, target, size
            archive.addfile(odd)

    return make


def with_zip_entry(mode: int, method: int = zipfile.ZIP_STORED) -> Maker:
    """A zip file with an entry of another kind, or compressed in another way."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("cat/1.png", NOISE)
            member = zipfile.ZipInfo("dog/odd.png")
            member.external_attr = (mode | 0o644) << 16
            member.compress_type = method
            archive.writestr(member, NOISE)

    return make


def flag(content: bytearray, bit: int) -> None:
    # The flags stand 6 bytes into a local header and 8 bytes into an entry of the directory.
    content[content.index(b"PK\3\4") + 6] |= bit
    content[content.index(b"PK\1\2") + 8] |= bit


def claim(content: bytearray, size: int) -> None:
    # The inflated size stands 24 bytes into an entry of the directory.
    struct.pack_into("<I", content, content.rindex(b"PK\1\2") + 24, size)


def flip(position: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[position] ^= 1

    return change


def twice(path: Path) -> None:
    content = write_archive(path, WHOLE).read_bytes()
    path.write_bytes(content + content)


# Name of the archive, how it is made, and the parts of the message.
FAULTS: dict[str, tuple[str, Maker, tuple[str, ...]]] = {
    "no bytes, tar": ("set.tar", raw(b""), ("set.tar is damaged or no archive",)),
    "no bytes, gzip": ("set.tar.gz", raw(b""), ("set.tar.gz is damaged or no archive",)),
    "no bytes, xz": ("set.tar.xz", raw(b""), ("set.tar.xz is damaged or no archive",)),
    "no bytes, zip": ("set.zip", raw(b""), ("set.zip is damaged or no archive",)),
    "a web page": ("set.zip", raw(b"<html>404</html>"), ("set.zip is damaged or no archive",)),
    "a web page for a tar file": ("set.tar", raw(b"<html>404</html>" * 99), ("set.tar is damaged or no archive",)),
    "a text file of Git LFS": (
        "set.tar.xz",
        raw(b"version https://git-lfs\n"),
        ("set.tar.xz is damaged or no archive",),
    ),
    "a RAR named zip": ("set.zip", raw(b"Rar!\x1a\x07" + NOISE), ("set.zip is damaged or no archive",)),
    "a zip named tar": (
        "set.tar",
        lambda path: path.write_bytes(write_archive(path.with_suffix(".zip"), WHOLE).read_bytes()),
        ("set.tar is damaged or no archive",),
    ),
    "a RAR": ("set.rar", raw(b"Rar!"), ("neither a folder nor an archive (.tar, .tar.gz, .tgz, .tar.xz, .zip)",)),
    "a 7z": ("set.7z", raw(b"7z"), ("neither a folder nor an archive",)),
    "a single picture, compressed": ("set.gz", raw(gzip.compress(NOISE)), ("neither a folder nor an archive",)),
    "a pipe": ("set.tar", os.mkfifo, ("set.tar is no ordinary file",)),
    "cut in the middle, tar": ("set.tar", cut(lambda size: 700), ("set.tar is damaged or no archive",)),
    "cut in the middle, gzip": ("set.tar.gz", cut(lambda size: size // 2), ("set.tar.gz is damaged or no archive",)),
    "cut in the middle, xz": ("set.tar.xz", cut(lambda size: size // 2), ("set.tar.xz is damaged or no archive",)),
    "cut in the middle, zip": ("set.zip", cut(lambda size: size // 2), ("set.zip is damaged or no archive",)),
    "last byte missing, gzip": ("set.tar.gz", cut(lambda size: size - 1), ("set.tar.gz is damaged",)),
    "last byte missing, xz": ("set.tar.xz", cut(lambda size: size - 1), ("set.tar.xz is damaged",)),
    "wrong checksum, gzip": ("set.tar.gz", changed(flip(-5)), ("set.tar.gz is damaged", "CRC")),
    "wrong checksum, zip": ("set.zip", changed(flip(60)), ("set.zip is damaged",)),
    "damaged header": ("set.tar", changed(flip(4608 + 3)), ("set.tar is damaged", "bad checksum at byte 4,608")),
    "two archives joined": ("set.tar", twice, ("set.tar goes on behind its end mark",)),
    "a header that claims a gigabyte": (
        "set.tar",
        with_entry(tarfile.GNUTYPE_LONGNAME, size=1 << 30),
        ("a header claims 1,073,741,824 bytes",),
    ),
    "a name that climbs out": ("set.tar", holding({**WHOLE, "../1.png": b""}), ("'../1.png', which climbs out of",)),
    "a name that climbs within": ("set.zip", holding({**WHOLE, "cat/../../1.png": b""}), ("which climbs out of",)),
    "a name that climbs by backslash": ("set.zip", holding({**WHOLE, "..\\1.png": b""}), ("which climbs out of",)),
    "an absolute name": ("set.tar", holding({**WHOLE, "/etc/passwd": b""}), ("the absolute name '/etc/passwd'",)),
    "a drive": ("set.zip", holding({**WHOLE, "C:\\1.png": b""}), ("holds the absolute name",)),
    "a network share": ("set.zip", holding({**WHOLE, "\\\\host\\1.png": b""}), ("holds the absolute name",)),
    "a link": ("set.tar", with_entry(tarfile.SYMTYPE, "/etc/passwd"), ("the link 'cat/odd.png' -> '/etc/passwd'",)),
    "a hard link": ("set.tar", with_entry(tarfile.LNKTYPE, "cat/1.png"), ("the link 'cat/odd.png'", "pack the file")),
    "a device": ("set.tar", with_entry(tarfile.CHRTYPE), ("'cat/odd.png', which is neither a file nor a folder",)),
    "a disk": ("set.tar", with_entry(tarfile.BLKTYPE), ("'cat/odd.png', which is neither a file nor a folder",)),
    "a pipe within": ("set.tar", with_entry(tarfile.FIFOTYPE), ("'cat/odd.png', which is neither a file nor",)),
    "a sparse file": ("set.tar", with_entry(tarfile.GNUTYPE_SPARSE), ("'cat/odd.png' is a sparse file",)),
    "a link, zip": ("set.zip", with_zip_entry(stat.S_IFLNK), ("the link 'dog/odd.png'", "pack the file itself")),
    "a device, zip": ("set.zip", with_zip_entry(stat.S_IFCHR), ("'dog/odd.png', which is neither a file nor",)),
    "bzip2 within a zip": (
        "set.zip",
        with_zip_entry(stat.S_IFREG, zipfile.ZIP_BZIP2),
        ("'dog/odd.png' compressed by another method than deflate: pack it anew",),
    ),
    "encrypted": ("set.zip", changed(lambda content: flag(content, 1)), ("set.zip is encrypted", "unpack it first")),
    "a file twice": ("set.tar", holding({**WHOLE, "./cat/1.png": b""}), ("holds 'cat/1.png' twice: which one is",)),
    "a file larger than a picture": (
        "set.tar",
        holding({**WHOLE, "cat/9.png": bytes(10_001)}),
        ("'cat/9.png' with 10,001 bytes; a picture has at most 10,000",),
    ),
    "a file that claims four gigabytes": (
        "set.zip",
        changed(lambda content: claim(content, 0xFFFFFFF0)),
        ("'dog/2.png' with 4,294,967,280 bytes; a picture has at most 10,000",),
    ),
    "a file that inflates beyond its size": ("set.zip", changed(lambda content: claim(content, 9)), ("set.zip",)),
    "a file that ends too early": (
        "set.zip",
        changed(lambda content: claim(content, 9000)),
        ("set.zip is damaged: 'dog/2.png' ends too early",),
    ),
    "end marks alone": ("set.tar", holding({}), ("set.tar holds no class folders", "photos/cat/1.jpg")),
    "an empty zip": ("set.zip", holding({}), ("set.zip holds no class folders",)),
    "an archive within": (
        "set.tar",
        holding({"inner.tar.xz": lzma.compress(NOISE)}),
        ("set.tar holds no class folders",),
    ),
    "pictures without folders": ("set.zip", holding({"1.png": NOISE, "2.png": NOISE}), ("holds no class folders",)),
    "hidden folders alone": ("set.tar", holding({".git/1.png": NOISE}), ("holds no class folders",)),
    "one class": ("set.tar", holding({"cat/1.png": NOISE}), ("holds one class only, 'cat'", "at least two")),
    "a test split alone": (
        "set.tar",
        holding({"test/cat/1.png": NOISE, "test/dog/1.png": NOISE}),
        ("has the folders 'test', but no folder 'train' to learn from",),
    ),
    "class folders beside train/": (
        "set.zip",
        holding({"train/cat/1.png": NOISE, "train/dog/1.png": NOISE, "owl/1.png": NOISE}),
        ("has the folder 'owl' beside 'train'",),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_gets_its_message(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_FILE_BYTES", 10_000)
    name, make, says = FAULTS[fault]
    make(tmp_path / name)
    with pytest.raises(DataError) as caught:
        list(open_source(FolderConfig(path=str(tmp_path / name))).read())
    message = str(caught.value)
    assert str(tmp_path) in message
    for part in says:
        assert part in message
    assert len(message) < 600
