"""One pass over a source: of each picture what comparing and judging need, a kilobyte at most.

The source is read itself and not a pack: a pack holds pictures in one size, and there is none where pictures cannot be
read.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from conviction.core.errors import DataError
from conviction.core.names import shown
from conviction.data.audit.quality import MEASURES, measured
from conviction.data.decode import DecodeSettings, UnreadablePicture, decode
from conviction.data.in_order import in_order
from conviction.data.pack import SPLIT_CODES, UNREADABLE_LABEL, Pack
from conviction.data.source.base import Content, Entry, Source, SourceConfig, open_source

SIDE_PX = 32
_TELL_EVERY = 256

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Gathered:
    """What was read of a source, a row for each entry in the order of their paths.

    `thumbnails` is `uint8` (N, 32, 32), grey, whatever the picture's proportions; `digests` are of the decoded pixels
    and their size, `pictures_digest` is the source's; `sizes_px` is (N, 2), height and width as stored; `measures` is
    (N, `len(MEASURES)`). Where one cannot be read, `faults` has the reason by its row, its digest is empty and the rest
    is 0.
    """

    source: Source
    pictures_digest: str
    entries: list[Entry]
    thumbnails: np.ndarray
    digests: tuple[bytes, ...]
    sizes_px: np.ndarray
    measures: np.ndarray
    faults: dict[int, str]

    def to_divide(self) -> Pack:
        """A pack without pictures, which is all that dividing looks at."""
        classes = self.source.classes()
        index = {label: number for number, label in enumerate(classes)}
        labels = [
            UNREADABLE_LABEL if row in self.faults else index[entry.label] for row, entry in enumerate(self.entries)
        ]
        return Pack(
            images=np.zeros((len(self.entries), 0, 0, 0), np.uint8),
            labels=np.array(labels, np.int64),
            splits=np.array([SPLIT_CODES[entry.split] for entry in self.entries], np.int8),
            paths=tuple(entry.path for entry in self.entries),
            classes=classes,
            digest="",
            shown_path=self.source.shown_path,
            skipped=(),
            notes=self.source.notes(),
            groups=tuple(entry.group for entry in self.entries) if any(one.group for one in self.entries) else (),
        )


def gather(config: SourceConfig, progress: Progress | None = None) -> Gathered:
    """Read every picture of a source once; what cannot be read is entered with its reason.

    Raises: DataError where the source is missing, changes while it is read, or has no readable picture.
    """
    source = open_source(config)
    stamp = source.stamp()
    entries = source.entries()
    # Before they are read: the stamp, looked at when all are, tells whether it is still theirs.
    pictures_digest = source.pictures_digest()
    settings = _whole_pictures(config)
    rows = {entry.path: row for row, entry in enumerate(entries)}
    thumbnails = np.zeros((len(entries), SIDE_PX, SIDE_PX), np.uint8)
    digests = [b""] * len(entries)
    sizes_px = np.zeros((len(entries), 2), np.int64)
    measures = np.zeros((len(entries), len(MEASURES)), np.float32)
    faults = {row: entry.fault for row, entry in enumerate(entries)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        seen = in_order(lambda one: (one[0], _examined(one[1], settings)), source.read())
        for num_done, (path, found) in enumerate(seen, start=1):
            if path not in rows:
                raise _changed(source)
            row = rows[path]
            # Without a name that can be shown nothing is trained on it, whatever is in it.
            found = entries[row].fault or found
            if isinstance(found, str):
                faults[row] = found
            else:
                del faults[row]
                thumbnails[row], digests[row], sizes_px[row], measures[row] = found
            if progress and (num_done % _TELL_EVERY == 0 or num_done == len(entries)):
                progress("reading", num_done, len(entries))
    if source.stamp() != stamp or not all(faults.values()):
        raise _changed(source)
    if len(faults) == len(entries):
        first = shown(entries[0].path)
        raise DataError(f"{source.shown_path}: none of the {len(entries):,} pictures can be read. {first} {faults[0]}.")
    return Gathered(source, pictures_digest, entries, thumbnails, tuple(digests), sizes_px, measures, faults)


def thumbnails_of(config: SourceConfig, wanted: Iterable[str], most_px: int) -> dict[str, Image.Image]:
    """The named pictures in colour, no side longer than `most_px`; small ones as they are. Raises: DataError."""
    source, settings, paths = open_source(config), _whole_pictures(config), set(wanted)

    def shrunk(one: tuple[str, Content]) -> tuple[str, Image.Image | None]:
        try:
            image = Image.fromarray(_pixels(one[1], settings))
        except UnreadablePicture:
            return one[0], None
        image.thumbnail((most_px, most_px))
        return one[0], image

    chosen = (one for one in source.read() if one[0] in paths)
    return {path: image for path, image in in_order(shrunk, chosen) if image is not None}


def _whole_pictures(config: SourceConfig) -> DecodeSettings:
    """In colour and in their own size, whatever size they are trained in."""
    return DecodeSettings("rgb", None, "crop", config.max_image_pixels)


def _examined(
    content: Content, settings: DecodeSettings
) -> tuple[np.ndarray, bytes, tuple[int, int], np.ndarray] | str:
    """Thumbnail, digest, size and measures of a picture, or why it cannot be used."""
    try:
        pixels = _pixels(content, settings)
    except UnreadablePicture as fault:
        return str(fault)
    grey = Image.fromarray(pixels).convert("L")
    thumbnail = np.asarray(grey.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))
    digest = hashlib.blake2b(pixels.data, digest_size=16, salt=str(pixels.shape[:2]).encode()[:16])
    return thumbnail, digest.digest(), pixels.shape[:2], measured(grey)


def _pixels(content: Content, settings: DecodeSettings) -> np.ndarray:
    """The picture as `uint8` (H, W, 3). Raises: UnreadablePicture."""
    if isinstance(content, UnreadablePicture):
        raise content
    pixels = decode(content, settings) if isinstance(content, bytes) else content
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _changed(source: Source) -> DataError:
    return DataError(f"{source.shown_path} changed while it was being read. Start again when it is complete.")
