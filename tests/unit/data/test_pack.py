import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archives import SUFFIXES, contents_of, write_archive
from conviction.core.errors import DataError, StorageError
from conviction.data import pack as pack_module
from conviction.data.pack import UNREADABLE_LABEL, Pack, load_pack
from conviction.data.source.folder import FolderConfig
from pictures import write_class_folders, write_picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "photos", {"cat": 3, "dog": 3})


def load(root: Path, **settings: Any) -> Pack:
    return load_pack(FolderConfig(path=str(root), **settings))


def packs(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache" / "packs").iterdir() if path.is_dir()]


def decode_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("decoded again")

    monkeypatch.setattr(pack_module, "decode", refuse)


def test_a_pack_is_a_read_only_map_of_its_file(photos: Path, tmp_path: Path) -> None:
    pack = load(photos)
    assert isinstance(pack.images, np.memmap)
    assert not pack.images.flags.writeable
    assert (pack.images.dtype, pack.images.shape) == (np.uint8, (6, 8, 8, 3))
    assert (pack.labels.dtype, pack.labels.tolist()) == (np.int64, [0, 0, 0, 1, 1, 1])
    assert Path(pack.images.filename).is_relative_to(tmp_path / "cache")


def test_a_second_load_decodes_and_hashes_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(photos)
    decode_nothing(monkeypatch)
    monkeypatch.setattr("conviction.data.source.container.file_digest", None)
    second = load(photos)
    assert np.array_equal(first.images, second.images)
    assert (first.digest, first.paths, first.notes) == (second.digest, second.paths, second.notes)


@pytest.mark.parametrize("suffix", ["", ".tar.xz"])
def test_a_touched_source_is_hashed_but_not_decoded(
    photos: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_archive(tmp_path / f"photos{suffix}", contents_of(photos)) if suffix else photos
    first = load(source)
    os.utime(source if suffix else source / "cat" / "cat-001.png", (1, 1))
    decode_nothing(monkeypatch)
    assert load(source).digest == first.digest
    assert len(packs(tmp_path)) == 1


def test_an_equal_copy_shares_the_pack_but_keeps_its_own_name(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(photos)
    shutil.copytree(photos, tmp_path / "copy")
    decode_nothing(monkeypatch)
    second = load(tmp_path / "copy")
    assert (second.digest, second.shown_path) == (first.digest, "copy")
    assert first.shown_path == "photos"


def test_a_changed_picture_gives_another_pack(photos: Path) -> None:
    first = load(photos)
    write_picture(photos / "cat" / "cat-001.png", shade=255)
    second = load(photos)
    assert second.digest != first.digest
    assert second.images[1].mean() > first.images[1].mean()
    assert np.array_equal(second.images[[0, 2, 3, 4, 5]], first.images[[0, 2, 3, 4, 5]])


def test_an_added_and_a_removed_picture_give_another_pack(photos: Path) -> None:
    digests = [load(photos).digest]
    write_picture(photos / "cat" / "cat-009.png")
    digests.append(load(photos).digest)
    (photos / "cat" / "cat-009.png").unlink()
    digests.append(load(photos).digest)
    assert digests[0] == digests[2] != digests[1]


def test_another_class_or_split_gives_another_digest(photos: Path) -> None:
    digests = {load(photos).digest}
    (photos / "dog").rename(photos / "fox")
    digests.add(load(photos).digest)
    (photos / "cat" / "cat-000.png").rename(photos / "fox" / "a.png")
    digests.add(load(photos).digest)
    shutil.copytree(photos, photos.parent / "train")
    shutil.rmtree(photos)
    photos.mkdir()
    (photos.parent / "train").rename(photos / "train")
    digests.add(load(photos).digest)
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"color": "grey"}, (6, 8, 8, 1)),
        ({"image_size_px": 4}, (6, 4, 4, 3)),
        ({"image_size_px": (4, 8)}, (6, 4, 8, 3)),
        ({"resize": "squash"}, (6, 8, 8, 3)),
        ({"max_image_pixels": 1000}, (6, 8, 8, 3)),
        ({"unreadable": "skip"}, (6, 8, 8, 3)),
    ],
)
def test_other_settings_give_another_pack(
    photos: Path, tmp_path: Path, settings: dict[str, Any], shape: tuple[int, ...]
) -> None:
    assert load(photos).images.shape == (6, 8, 8, 3)
    assert load(photos, **settings).images.shape == shape
    assert load(photos).images.shape == (6, 8, 8, 3)
    assert len(packs(tmp_path)) == 2


def test_progress_ends_at_the_number_of_pictures(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "many", {"cat": 200, "dog": 100}, (2, 2))
    seen: list[tuple[int, int]] = []
    load_pack(FolderConfig(path=str(root)), lambda done, total: seen.append((done, total)))
    assert seen == [(256, 300), (300, 300)]
    load_pack(FolderConfig(path=str(root)), lambda done, total: seen.append((done, total)))
    assert len(seen) == 2


def spoil(root: Path) -> None:
    (root / "cat" / "cat-000.png").write_bytes(b"")
    (root / "cat" / "page.jpg").write_bytes(b"<html>")
    (root / "dog" / "dog-001.png").write_bytes((root / "dog" / "dog-001.png").read_bytes()[:-30])


def test_refuse_names_every_bad_file(photos: Path, tmp_path: Path) -> None:
    spoil(photos)
    with pytest.raises(DataError) as caught:
        load(photos)
    head, *lines, way_out = str(caught.value).splitlines()
    assert head == "photos: 3 of 7 pictures cannot be used:"
    assert lines[0] == "  cat/cat-000.png is empty (0 bytes)"
    assert lines[1].startswith("  cat/page.jpg is no picture of a known kind")
    assert lines[2].startswith("  dog/dog-001.png is damaged: ")
    assert way_out == "Mend or remove them, or leave them out: --set data.unreadable=skip"
    assert packs(tmp_path) == []


def test_refuse_shows_ten_and_counts_the_rest(photos: Path) -> None:
    for number in range(12):
        (photos / "cat" / f"bad-{number:02d}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"12 of 18 pictures[\s\S]*bad-09\.png[\s\S]*… and 2 more") as caught:
        load(photos)
    assert "bad-10" not in str(caught.value)


def test_skip_leaves_them_out_and_records_them(photos: Path) -> None:
    spoil(photos)
    pack = load(photos, unreadable="skip")
    assert [line.split(" ")[0] for line in pack.skipped] == ["cat/cat-000.png", "cat/page.jpg", "dog/dog-001.png"]
    assert pack.skipped[0] == "cat/cat-000.png is empty (0 bytes)"
    skipped = [path for path, label in zip(pack.paths, pack.labels, strict=True) if label == UNREADABLE_LABEL]
    assert skipped == ["cat/cat-000.png", "cat/page.jpg", "dog/dog-001.png"]
    assert load(photos, unreadable="skip").skipped == pack.skipped


@pytest.mark.parametrize("unreadable", ["refuse", "skip"])
def test_a_source_without_a_readable_picture_is_refused(photos: Path, unreadable: str) -> None:
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="photos: 6 of 6 pictures cannot be used") as caught:
        load(photos, unreadable=unreadable)
    assert "skip" not in str(caught.value)


def test_a_class_that_skipping_empties_is_refused(photos: Path) -> None:
    for path in (photos / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no picture of the class 'dog' can be read"):
        load(photos, unreadable="skip")


@pytest.mark.parametrize("unreadable", ["refuse", "skip"])
def test_pictures_of_several_sizes_are_refused_with_the_way_out(photos: Path, unreadable: str) -> None:
    write_picture(photos / "dog" / "wide.png", (8, 9))
    with pytest.raises(DataError, match="1 of 7 pictures") as caught:
        load(photos, unreadable=unreadable)
    assert (
        "dog/wide.png has 9×8 pixels where others have 8×8 (bring all to one size: --set data.image_size_px=64)"
        in str(caught.value)
    )
    assert "unreadable=skip" not in str(caught.value)
    assert load(photos, unreadable=unreadable, image_size_px=4).images.shape == (7, 4, 4, 3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("images.npy", None),
        ("images.npy", b""),
        ("images.npy", b"\x93NUMPY garbage"),
        ("labels.npy", b""),
        ("splits.npy", None),
        ("pack.json", None),
        ("pack.json", b"garbage"),
        ("pack.json", b"\xff\xfe"),
        ("pack.json", b"[]"),
        ("pack.json", b"7"),
        ("pack.json", b"{}"),
    ],
)
def test_a_damaged_pack_is_built_again(photos: Path, tmp_path: Path, name: str, content: bytes | None) -> None:
    whole = load(photos)
    [folder] = packs(tmp_path)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    again = load(photos)
    assert again.digest == whole.digest
    assert np.array_equal(again.images, whole.images)


def test_a_pack_with_its_end_cut_off_is_built_again(photos: Path, tmp_path: Path) -> None:
    digest = load(photos).digest
    [folder] = packs(tmp_path)
    os.truncate(folder / "images.npy", (folder / "images.npy").stat().st_size - 1)
    assert load(photos).digest == digest
    about = json.loads((folder / "pack.json").read_text())
    (folder / "pack.json").write_text(json.dumps(about | {"shape": [5, 8, 8, 3]}))
    assert load(photos).images.shape == (6, 8, 8, 3)
    (folder / "pack.json").write_text(json.dumps(about | {"groups": ["tom"]}))
    assert load(photos).groups == ()


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "splits.npy"])
def test_a_pack_whose_numbers_were_changed_in_place_is_built_again(photos: Path, tmp_path: Path, name: str) -> None:
    whole = load(photos)
    [folder] = packs(tmp_path)
    former = np.load(folder / name)
    changed = np.lib.format.open_memmap(folder / name, mode="r+")
    changed[:] = 0
    changed.flush()
    assert not np.array_equal(np.load(folder / name), former)
    again = load(photos)
    assert again.digest == whole.digest
    assert np.array_equal(np.load(folder / name), former)


def test_a_touched_pack_is_read_once_and_kept(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = load(photos).digest
    [folder] = packs(tmp_path)
    os.utime(folder / "images.npy", (1, 1))
    decode_nothing(monkeypatch)
    assert load(photos).digest == digest
    monkeypatch.setattr(pack_module, "_content_digest", None)
    assert load(photos).digest == digest


def test_an_archive_under_a_wrong_name_is_refused_even_where_its_bytes_are_packed(tmp_path: Path) -> None:
    right = write_archive(tmp_path / "photos.zip", contents_of(write_class_folders(tmp_path / "a", {"x": 2, "y": 2})))
    load(right)
    wrong = right.rename(tmp_path / "photos.tar")
    with pytest.raises(DataError, match="is damaged or no archive"):
        load(wrong)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe", b"../..", b"a\0b"])
def test_a_damaged_pointer_is_written_again(photos: Path, tmp_path: Path, content: bytes) -> None:
    digest = load(photos).digest
    [pointer] = (tmp_path / "cache" / "packs").glob("*.stamp")
    whole = pointer.read_bytes()
    pointer.write_bytes(content)
    assert load(photos).digest == digest
    assert pointer.read_bytes() == whole


@pytest.mark.parametrize("change", ["add", "rewrite", "remove"])
def test_a_source_that_changes_under_the_build_is_refused(
    photos: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pack_module.decode
    changed: list[str] = []

    def decode(*arguments: Any) -> np.ndarray:
        if not changed:
            changed.append(change)
            last = photos / "dog" / "dog-002.png"
            {
                "add": lambda: write_picture(photos / "dog" / "dog-009.png"),
                "rewrite": lambda: write_picture(last, shade=250),
                "remove": last.unlink,
            }[change]()
        return real(*arguments)

    monkeypatch.setattr(pack_module, "decode", decode)
    with pytest.raises(DataError, match=r"photos changed while it was being read|Cannot read .*dog-002\.png"):
        load(photos)
    assert packs(tmp_path) == []
    count = {"add": 7, "rewrite": 6, "remove": 5}[change]
    assert len(load(photos).images) == count


def test_an_archive_that_grows_between_listing_and_reading_is_refused(photos: Path, tmp_path: Path) -> None:
    contents = contents_of(photos)
    path = write_archive(tmp_path / "photos.tar", contents)
    source = pack_module.open_source(FolderConfig(path=str(path)))
    entries = source.entries()
    write_archive(path, dict(list(contents.items())[1:]))
    settings = pack_module.DecodeSettings("rgb", None, "crop", 1000)
    with pytest.raises(DataError, match=r"photos\.tar changed while it was being read"):
        pack_module._decode_all(source, entries, settings, tmp_path / "images.npy", None)


@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
@pytest.mark.parametrize("evil", ["", "../evil.png", "cat/../../evil.png"])
def test_nothing_is_written_outside_the_cache(photos: Path, tmp_path: Path, suffix: str, evil: str) -> None:
    source = photos
    if suffix:
        contents = contents_of(photos) | ({evil: b"evil"} if evil else {})
        source = write_archive(tmp_path / f"photos{suffix}", contents)
    elif evil:
        (photos / "cat" / "evil.png").symlink_to(tmp_path / "nowhere")
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(DataError) if evil else contextlib.nullcontext():
        load(source)
    after = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    cache = tmp_path / "cache"
    assert {path for path in after if path != cache and not path.is_relative_to(cache)} == set(before)
    assert all(after[path] == before[path] for path in before)


@pytest.fixture
def tiny_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 64 KiB that holds the cache."""
    place = tmp_path / "tiny"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system of its own takes root")
    monkeypatch.setenv("CONVICTION_CACHE", str(place / "cache"))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_reported_and_leaves_nothing(photos: Path, tiny_disk: Path) -> None:
    # 6 × 128 × 128 × 3 bytes, and the header of the file, which numpy pads to 128 bytes.
    with pytest.raises(StorageError, match=r"the disk is full.*\(294,912 bytes are needed; CONVICTION_CACHE names"):
        load(photos, image_size_px=128)
    assert [path for path in (tiny_disk / "cache" / "packs").iterdir() if path.is_dir()] == []
    assert load(photos).images.shape == (6, 8, 8, 3)


def test_a_disk_that_was_full_before_is_reported(photos: Path, tiny_disk: Path) -> None:
    (tiny_disk / "cache").mkdir()
    with pytest.raises(OSError, match="No space"):
        (tiny_disk / "filler").write_bytes(bytes(70_000))
    with pytest.raises(StorageError, match="the disk is full"):
        load(photos)


def test_a_cache_that_is_a_file_is_reported(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        load(photos)
