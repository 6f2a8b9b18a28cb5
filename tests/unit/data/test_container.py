import contextlib
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archives import SUFFIXES, write_archive, write_tar_of
from conviction.core.errors import DataError
from conviction.data.source import container
from conviction.data.source.container import Directory, open_container

NOISE = bytes(range(256)) * 8
CONTENTS = {"cat/1.png": NOISE, "dog/2.png": b"two", "dog/old/3.png": b""}


def read_all(path: Path) -> dict[str, bytes]:
    opened = open_container(path)
    return dict(opened.read(set(opened.names()[0])))


def refusal(path: Path) -> str:
    """The message with which an archive is refused, both when it is listed and when it is read."""
    with pytest.raises(DataError) as listed:
        open_container(path).names()
    with pytest.raises(DataError):
        list(open_container(path).read({"cat/1.png", "1.png"}))
    return str(listed.value)


def tar_member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("suffix", [*SUFFIXES, ""])
def test_every_kind_gives_the_same_names_and_bytes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"set{suffix}"
    if suffix:
        write_archive(path, CONTENTS)
    else:
        for name, content in CONTENTS.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    assert open_container(path).names()[0] == ["cat/1.png", "dog/2.png", "dog/old/3.png"]
    assert read_all(path) == CONTENTS


def test_only_the_wanted_files_are_given(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        opened = open_container(write_archive(tmp_path / f"set{suffix}", CONTENTS))
        assert dict(opened.read({"dog/2.png"})) == {"dog/2.png": b"two"}


@pytest.mark.parametrize("name", ["./cat/1.png", "cat//1.png", "cat\\1.png"])
@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_spellings_of_one_name(tmp_path: Path, suffix: str, name: str) -> None:
    assert read_all(write_archive(tmp_path / f"set{suffix}", {name: b"1"})) == {"cat/1.png": b"1"}


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "cat/../../evil.png", "..\\evil.png", "/evil.png", "\\evil.png", "C:\\evil.png", "C:evil.png"],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_that_lead_out_are_refused(tmp_path: Path, suffix: str, name: str) -> None:
    path = write_archive(tmp_path / f"set{suffix}", {"cat/1.png": NOISE, name: b"evil"})
    message = refusal(path)
    assert str(path) in message
    assert repr(name) in message


def test_a_colon_alone_is_no_drive(tmp_path: Path) -> None:
    assert read_all(write_archive(tmp_path / "set.tar", {"cat/a:1.png": b"1", "4:3/1.png": b"2"})) == {
        "cat/a:1.png": b"1",
        "4:3/1.png": b"2",
    }


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "neither"),
        (tarfile.BLKTYPE, "neither"),
        (tarfile.FIFOTYPE, "neither"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
    ],
)
def test_tar_entries_that_are_no_files_are_refused(tmp_path: Path, kind: bytes, word: str) -> None:
    path = write_tar_of(tmp_path / "set.tar", tar_member("cat/odd.png", kind, "/etc/passwd"))
    message = refusal(path)
    assert str(path) in message
    assert "cat/odd.png" in message
    assert word in message


@pytest.mark.parametrize(
    ("kind", "word"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "neither"), (stat.S_IFCHR, "neither")]
)
def test_zip_entries_that_are_no_files_are_refused(tmp_path: Path, kind: int, word: str) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("cat/odd.png")
        member.external_attr = (kind | 0o644) << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match=rf"set\.zip holds.*'cat/odd\.png'.*{word}|{word} 'cat/odd\.png'"):
        open_container(path).names()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_a_name_that_stands_twice_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write_archive(tmp_path / f"set{suffix}", {"cat/1.png": b"1", "./cat/1.png": b"2"})
    with pytest.raises(DataError, match=r"holds 'cat/1\.png' twice"):
        open_container(path).names()


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "set.zip", {"cat/1.png": b"1"})
    content = bytearray(path.read_bytes())
    # The flags stand 6 bytes into a local header and 8 bytes into an entry of the directory; bit 0 means encrypted.
    content[content.index(b"PK\3\4") + 6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"set\.zip is encrypted \('cat/1\.png'\)"):
        open_container(path).names()
    with pytest.raises(DataError, match=r"set\.zip"):
        list(open_container(path).read({"cat/1.png"}))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_cut_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    # Incompressible, so that a cut in the middle lies within a picture whatever the compression.
    whole = write_archive(tmp_path / f"set{suffix}", {f"cat/{n}.png": os.urandom(3000) for n in range(4)}).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    # A tar file is padded with zeros to 10,240 bytes, which may be cut off without loss: 4 × (512 + 3,072) are content.
    last = 4 * (512 + 3072) if suffix == ".tar" else len(whole)
    for length in [*range(0, last, 211), *range(0, last, 512), last - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(DataError, match="cut"):
            read_all(cut)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, NOISE, b"\x1f\x8b" + NOISE, b"\xfd7zXZ\x00" + NOISE, b"PK\3\4" + NOISE]
)
def test_other_bytes_under_the_name_of_an_archive_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"set{suffix}"
    path.write_bytes(content)
    assert str(path) in refusal(path)


def test_a_damaged_header_in_the_middle_does_not_pass_for_the_end(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "set.tar", {"cat/1.png": b"1", "cat/2.png": b"2", "cat/3.png": b"3"})
    content = bytearray(path.read_bytes())
    content[1024:1030] = b"\xff" * 6
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"set\.tar is damaged.*at byte 1,024"):
        open_container(path).names()


def test_a_damaged_checksum_at_the_end_is_found(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "set.tar.gz", CONTENTS)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged.*CRC"):
        open_container(path).names()


@pytest.mark.parametrize(("suffix", "compress"), [(".tar.gz", gzip.compress), (".tar.xz", lzma.compress)])
def test_a_tar_file_in_two_compressed_streams_is_read_whole(tmp_path: Path, suffix: str, compress: object) -> None:
    assert callable(compress)
    plain = write_archive(tmp_path / "set.tar", CONTENTS).read_bytes()
    path = tmp_path / f"set{suffix}"
    path.write_bytes(compress(plain[:700]) + compress(plain[700:]))
    assert read_all(path) == CONTENTS


def test_tar_files_joined_together_are_refused(tmp_path: Path) -> None:
    plain = write_archive(tmp_path / "one.tar", CONTENTS).read_bytes()
    path = tmp_path / "two.tar"
    path.write_bytes(plain + plain)
    with pytest.raises(DataError, match=r"two\.tar goes on behind its end mark"):
        open_container(path).names()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_too_large_is_refused(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_FILE_BYTES", 1000)
    path = write_archive(tmp_path / f"set{suffix}", {"cat/1.png": bytes(1000), "cat/2.png": bytes(1001)})
    with pytest.raises(DataError, match=r"holds 'cat/2\.png' with 1,001 bytes; a picture has at most 1,000"):
        open_container(path).names()


def test_a_tar_header_that_claims_a_gigabyte_of_name_is_refused(tmp_path: Path) -> None:
    member = tar_member("long", tarfile.GNUTYPE_LONGNAME)
    member.size = 1 << 30
    path = tmp_path / "set.tar"
    path.write_bytes(member.tobuf() + bytes(1024))
    with pytest.raises(DataError, match="a header claims 1,073,741,824 bytes"):
        open_container(path).names()


def test_a_zip_entry_that_inflates_beyond_its_size_is_refused_without_the_memory(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "bomb.zip", {"cat/1.png": bytes(100_000_000)})
    content = bytearray(path.read_bytes())
    assert len(content) < 200_000
    # The inflated size stands 22 bytes into a local header and 24 bytes into an entry of the directory.
    struct.pack_into("<I", content, content.index(b"PK\3\4") + 22, 100)
    struct.pack_into("<I", content, content.rindex(b"PK\1\2") + 24, 100)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"bomb\.zip.*cat/1\.png"):
            read_all(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_methods_whose_memory_cannot_be_bounded_are_refused(tmp_path: Path, method: int) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("cat/1.png", NOISE)
    with pytest.raises(DataError, match=r"set\.zip holds 'cat/1\.png' compressed by another method than deflate"):
        open_container(path).names()


def test_a_zip_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "set.zip", {"cat/ü.png": b"1"})
    path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xff\xfe"))
    assert "set.zip" in refusal(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damage_is_read_right_or_refused(tmp_path: Path, suffix: str, damage: list[tuple[float, int]]) -> None:
    path = tmp_path / f"set{suffix}"
    write_archive(path, CONTENTS)
    content = bytearray(path.read_bytes())
    for place, value in damage:
        content[int(place * len(content))] = value
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert all(isinstance(picture, bytes) for picture in read_all(path).values())


def test_a_folder_behind_two_links_is_read_once_under_its_first_name(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "dog").mkdir(parents=True)
    (root / "dog" / "1.png").write_bytes(b"1")
    (root / "cat").symlink_to(root / "dog")
    (root / "dog" / "loop").symlink_to(root)
    assert read_all(root) == {"cat/1.png": b"1"}


def test_hidden_files_change_neither_stamp_nor_digest(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"1")
    opened = Directory(tmp_path)
    before = opened.stamp(), opened.digest()
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "cat" / ".#1.png").symlink_to("nowhere")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"x")
    assert (opened.stamp(), opened.digest()) == before


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    try:
        root.mkdir()
    except OSError:
        pytest.skip("this file system takes names of valid text alone")
    (root / "1.png").write_bytes(b"1")
    assert len(Directory(root).stamp()) == 64


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pipe.png", "is no ordinary file"),
        ("dangling.png", "is a link to"),
        ("self.png", "cannot be read"),
    ],
)
def test_something_that_is_no_file_is_a_fault_of_that_picture_alone(tmp_path: Path, name: str, reason: str) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (root / "good.png").write_bytes(b"1")
    if name == "pipe.png":
        os.mkfifo(root / name)
    else:
        (root / name).symlink_to(root / ("nothing" if name == "dangling.png" else name))
    container = open_container(root)
    assert len(container.stamp()) == len(container.digest()) == 64
    read = dict(container.read({"good.png", name}))
    assert read["good.png"] == b"1"
    assert str(read[name]).startswith(reason)


def test_a_pipe_under_the_name_of_an_archive_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "set.tar")
    with pytest.raises(DataError, match="no ordinary file"):
        open_container(tmp_path / "set.tar")


def test_another_kind_of_file_is_refused_with_the_kinds_there_are(tmp_path: Path) -> None:
    (tmp_path / "set.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match=r"set\.rar is neither a folder nor an archive \(\.tar, \.tar\.gz"):
        open_container(tmp_path / "set.rar")


def test_a_sparse_or_extended_header_in_the_newer_format_is_read_or_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("cat/1.png")
        member.size = 3
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 30}
        archive.addfile(member, io.BytesIO(b"1\n0"))
    path = tmp_path / "set.tar"
    path.write_bytes(buffer.getvalue())
    assert str(path) in refusal(path)


def test_reading_an_archive_writes_nothing(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = write_archive(tmp_path / f"set{suffix}", CONTENTS)
        before = {found: zlib.crc32(found.read_bytes()) for found in tmp_path.rglob("*") if found.is_file()}
        read_all(path)
        assert {found: zlib.crc32(found.read_bytes()) for found in tmp_path.rglob("*") if found.is_file()} == before
