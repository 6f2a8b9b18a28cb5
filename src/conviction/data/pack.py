"""A source, decoded once into one memory-mapped `uint8` array in the cache folder.

A pack lies under the digest of its content and settings. Beside it a small file, named by the source's cheap stamp,
leads to it, so that the next start neither decodes nor hashes anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from conviction.core.errors import ConvictionError, DataError, storage_faults
from conviction.core.files import locked, make_folder, write_text
from conviction.core.records import SplitName
from conviction.data.decode import DecodeSettings, UnreadablePicture, as_array, decode
from conviction.data.in_order import in_order
from conviction.data.resident import allocate_rows, read_rows, release, rows_at_once
from conviction.data.source.base import Content, Entry, Source, SourceConfig, open_source, refuse_faults
from conviction.data.source.locate import cache_folder

PACK_FORMAT = 3
_ARRAYS = ("images.npy", "labels.npy", "splits.npy")
SPLIT_CODES: dict[SplitName | None, int] = {None: -1, "train": 0, "validation": 1, "test": 2}
UNREADABLE_LABEL = -1
_SHOWN_FAULTS = 10
_CHUNK = 256
_BUILDING_PREFIX = ".building-"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Pack:
    """All pictures of a source, in the order of their paths.

    `images` is `uint8` (N, H, W, C), memory-mapped; `labels` is `int64` (N), -1 where a picture was skipped; `splits`
    holds `SPLIT_CODES`; `digest` is the SHA-256 of the decoded pictures, their labels and their splits. `groups` names
    the group of each picture, None where it has none; it is empty where the source has no groups. `pictures_digest` is
    that of the source.
    """

    images: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    digest: str
    shown_path: str
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    groups: tuple[str | None, ...] = ()
    pictures_digest: str = ""


def load_pack(config: SourceConfig, progress: Progress | None = None) -> Pack:
    """The pack of a recipe's `data`, built where it is not in the cache yet.

    `progress` is called with the number of pictures decoded so far and their total.

    Raises: DataError where the source is missing or holds unreadable pictures, StorageError where the cache is full.
    """
    source = open_source(config)
    settings = DecodeSettings(config.color, config.image_size_px, config.resize, config.max_image_pixels)
    wanted = {
        "format": PACK_FORMAT,
        "pillow": PIL.__version__,
        "source": config.name,
        "reader": type(source).__name__,
        "unreadable": config.unreadable,
        **asdict(settings),
    }
    packs = cache_folder() / "packs"
    make_folder(packs)
    stamp = source.stamp()
    pointer = packs / f"{_key(stamp, wanted)}.stamp"
    if (pack := _follow(pointer, packs)) is None:
        # The lock is by stamp: a second process waits here for the first one's work and then finds it.
        with locked(_lock_path(packs, pointer.name)):
            if (pack := _follow(pointer, packs)) is None:
                key, pictures = _key(source.digest(), wanted), source.pictures_digest()
                pack = _found_or_built(source, settings, config.unreadable, packs / key, stamp, progress)
                pack = replace(pack, pictures_digest=pictures)
                write_text(pointer, f"{key} {pictures}")
    return replace(pack, shown_path=source.shown_path)


def _found_or_built(
    source: Source, settings: DecodeSettings, unreadable: str, target: Path, stamp: str, progress: Progress | None
) -> Pack:
    """The pack of this content, which another source or a touched file may have left here before."""
    _remove_abandoned(target.parent)
    # Two copies of one source have two stamps but the same content: the second lock is by that.
    with locked(_lock_path(target.parent, target.name)):
        if _open(target) is None:
            _build(source, settings, unreadable, target, stamp, progress)
        pack = _open(target)
        assert pack is not None
        return pack


def _remove_abandoned(packs: Path) -> None:
    """Delete what killed processes had begun to build: whoever still builds holds the lock of its pack."""
    for folder in packs.glob(f"{_BUILDING_PREFIX}*"):
        with locked(_lock_path(packs, folder.name.removeprefix(_BUILDING_PREFIX)), wait=False) as abandoned:
            if abandoned:
                shutil.rmtree(folder, ignore_errors=True)


def _lock_path(packs: Path, key: str) -> Path:
    return packs / f"{key}.lock"


def _changed(source: Source) -> DataError:
    return DataError(f"{source.shown_path} changed while it was being read. Start again when it is complete.")


def _key(identity: str, settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([identity, settings], sort_keys=True).encode()).hexdigest()[:32]


def _follow(pointer: Path, packs: Path) -> Pack | None:
    try:
        key, _, pictures = pointer.read_text(encoding="utf-8").partition(" ")
    except (OSError, UnicodeDecodeError):
        return None
    pack = _open(packs / key) if pictures else None
    return pack and replace(pack, pictures_digest=pictures)


def _open(folder: Path) -> Pack | None:
    """The pack in `folder`; None where there is none or it is damaged, so that it is built again.

    Reading all of it at each start would take longer than the rest of the start: the arrays are compared with their
    digest where their sizes and times are not those that they were written with.
    """
    try:
        about = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels, splits = np.load(folder / "labels.npy"), np.load(folder / "splits.npy")
        right = images.dtype == np.uint8 and images.ndim == 4 and list(images.shape) == about["shape"]
        if not right or not len(images) == len(labels) == len(splits) == len(about["paths"]):
            return None
        if labels.min() < UNREADABLE_LABEL or labels.max() >= len(about["classes"]):
            return None
        if len(about["groups"]) not in (0, len(images)):
            return None
        if about["written"] != _written(folder):
            if _content_digest(images, labels, splits, about["classes"]) != about["digest"]:
                return None
            # Copied or touched, but whole.
            with suppress(ConvictionError):
                write_text(folder / "pack.json", json.dumps({**about, "written": _written(folder)}))
        return Pack(
            images,
            labels,
            splits,
            tuple(about["paths"]),
            tuple(about["classes"]),
            about["digest"],
            about["shown_path"],
            tuple(about["skipped"]),
            tuple(about["notes"]),
            tuple(about["groups"]),
        )
    except Exception:  # damaged files make the readers raise anything
        return None


def _written(folder: Path) -> list[list[int]]:
    """Size and time of each array's file."""
    found = [(folder / name).stat() for name in _ARRAYS]
    return [[file.st_size, file.st_mtime_ns] for file in found]


def _build(
    source: Source, settings: DecodeSettings, unreadable: str, target: Path, stamp: str, progress: Progress | None
) -> None:
    """Decode everything into a folder beside `target`, then move it there in one step."""
    entries = source.entries()
    assert entries, "a source without pictures raises DataError itself"
    refuse_faults(source.shown_path, entries)
    building = target.with_name(f"{_BUILDING_PREFIX}{target.name}")
    make_folder(building)
    try:
        images, faults, misfits = _decode_all(source, entries, settings, building / "images.npy", progress)
        # Before the faults: a picture that is being written looks damaged.
        if source.stamp() != stamp:
            raise _changed(source)
        if images is None:
            raise DataError(_describe_faults(source, faults, len(entries), mendable=False))
        # Another size is no damage: leaving such pictures out would keep whichever size happens to come first.
        refused = faults | misfits if unreadable == "refuse" else misfits
        if refused:
            raise DataError(_describe_faults(source, refused, len(entries), mendable=bool(faults and not misfits)))
        _check_classes_left(source, entries, faults)
        classes = source.classes()
        index = {label: number for number, label in enumerate(classes)}
        labels = np.array(
            [UNREADABLE_LABEL if entry.path in faults else index[entry.label] for entry in entries], np.int64
        )
        splits = np.array([SPLIT_CODES[entry.split] for entry in entries], np.int8)
        about = {
            "shape": images.shape,
            "digest": _content_digest(images, labels, splits, classes),
            "shown_path": source.shown_path,
            "classes": classes,
            "skipped": [f"{path} {reason}" for path, reason in sorted(faults.items())],
            "notes": source.notes(),
            "paths": [entry.path for entry in entries],
            "groups": [entry.group for entry in entries] if any(entry.group for entry in entries) else [],
        }
        images.flush()
        with storage_faults(building):
            np.save(building / "labels.npy", labels)
            np.save(building / "splits.npy", splits)
        write_text(building / "pack.json", json.dumps({**about, "written": _written(building)}))
        shutil.rmtree(target, ignore_errors=True)
        with storage_faults(target):
            os.replace(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _decode_all(
    source: Source, entries: list[Entry], settings: DecodeSettings, path: Path, progress: Progress | None
) -> tuple[np.memmap | None, dict[str, str], dict[str, str]]:
    """Every picture in its row, or None; by path, why some are unreadable, and which differ in size from the first."""
    rows = {entry.path: row for row, entry in enumerate(entries)}
    faults: dict[str, str] = {}
    misfits: dict[str, str] = {}
    images: np.memmap | None = None
    done = 0
    for name, array, reason in _decoded(source.read(), settings):
        done += 1
        if name not in rows:
            raise _changed(source)
        if array is None:
            faults[name] = reason
        else:
            if images is None:
                images = allocate_rows(path, (len(entries), *array.shape), np.uint8)
            if array.shape == images.shape[1:]:
                images[rows[name]] = array
                if done % rows_at_once(images) == 0:
                    release(images)
            else:
                misfits[name] = (
                    f"has {array.shape[1]}×{array.shape[0]} pixels where others have {images.shape[2]}×"
                    f"{images.shape[1]} (bring all to one size: --set data.image_size_px=64)"
                )
        if progress and (done % _CHUNK == 0 or done == len(entries)):
            progress(done, len(entries))
    if done != len(entries):
        raise _changed(source)
    return images, faults, misfits


def _decoded(
    contents: Iterator[tuple[str, Content]], settings: DecodeSettings
) -> Iterator[tuple[str, np.ndarray | None, str]]:
    """Path, array and fault of each picture, in the order of `contents`, decoded on all cores."""

    def one(given: tuple[str, Content]) -> tuple[str, np.ndarray | None, str]:
        name, content = given
        try:
            if isinstance(content, UnreadablePicture):
                raise content
            if isinstance(content, bytes):
                return name, decode(content, settings), ""
            picture = content[:, :, 0] if content.shape[2] == 1 else content
            return name, as_array(Image.fromarray(picture), settings), ""
        except UnreadablePicture as fault:
            return name, None, str(fault)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield from in_order(one, contents)


def _content_digest(images: np.ndarray, labels: np.ndarray, splits: np.ndarray, classes: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps([images.shape, classes]).encode())
    digest.update(labels.tobytes())
    digest.update(splits.tobytes())
    size = rows_at_once(images)
    for start in range(0, len(images), size):
        digest.update(read_rows(images, slice(start, start + size)).data)
    return digest.hexdigest()


def _check_classes_left(source: Source, entries: list[Entry], faults: dict[str, str]) -> None:
    left = {entry.label for entry in entries if entry.path not in faults}
    if emptied := sorted({entry.label for entry in entries} - left):
        raise DataError(f"{source.shown_path}: no picture of the class {emptied[0]!r} can be read. Mend or remove it.")


def _describe_faults(source: Source, faults: dict[str, str], num_pictures: int, mendable: bool) -> str:
    shown = [f"  {path} {reason}" for path, reason in sorted(faults.items())[:_SHOWN_FAULTS]]
    if len(faults) > _SHOWN_FAULTS:
        shown.append(f"  … and {len(faults) - _SHOWN_FAULTS:,} more")
    way_out = ["Mend or remove them, or leave them out: --set data.unreadable=skip"] if mendable else []
    head = f"{source.shown_path}: {len(faults):,} of {num_pictures:,} pictures cannot be used:"
    return "\n".join([head, *shown, *way_out])
