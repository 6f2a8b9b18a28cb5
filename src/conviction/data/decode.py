"""One encoded picture to one array, or the reason why it cannot be used."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Phones' MPO files are opened as JPEG.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
_ANIMATED_FORMATS = ("GIF", "PNG", "WEBP")
_SIXTEEN_BIT = 257
# EXIF's orientation, and its values for pictures that are turned by a quarter.
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)


class UnreadablePicture(Exception):
    """Why a picture cannot be used, as the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class DecodeSettings:
    """How a picture becomes an array; part of the key of a pack."""

    color: Literal["rgb", "grey"]
    image_size_px: tuple[int, int] | None
    resize: Literal["crop", "squash"]
    max_image_pixels: int


def decode(content: bytes, settings: DecodeSettings) -> np.ndarray:
    """The picture as `uint8` (H, W, C).

    Turned upright by its EXIF orientation; 16-bit grey is divided by 257, 16-bit colour keeps its high byte;
    transparency is laid over white.

    Raises: UnreadablePicture.
    """
    with opened(content, settings.max_image_pixels) as image:
        if settings.image_size_px and image.mode in ("L", "RGB"):
            # JPEG alone: decode at 1/2, 1/4 or 1/8 where that is still larger than what is asked for, on either side,
            # as the picture is not upright yet.
            least_px = 2 * max(settings.image_size_px)
            image.draft(image.mode, (least_px, least_px))
        image.load()
        return as_array(_upright(image), settings)


@contextmanager
def opened(content: bytes, max_image_pixels: int, limit: str = "data.max_image_pixels") -> Iterator[Image.Image]:
    """A picture whose kind and size are checked and whose pixels are not read yet; `limit` is what sets the size.

    Raises: UnreadablePicture, also for what goes wrong while it is open.
    """
    if not content:
        raise UnreadablePicture("is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check(image, max_image_pixels, limit)
            yield image
    except UnreadablePicture:
        raise
    except UnidentifiedImageError:
        raise UnreadablePicture(f"is no picture of a known kind ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UnreadablePicture(f"has more pixels than {limit} allows ({max_image_pixels:,})") from None
    except Exception as error:  # hostile bytes make the decoders raise anything
        raise UnreadablePicture(f"is damaged: {error}") from error


def stored_size(content: bytes | np.ndarray) -> tuple[int, int]:
    """Height and width of a picture that `decode` reads, upright, from its first bytes alone."""
    if isinstance(content, np.ndarray):
        return content.shape[0], content.shape[1]
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        lies_on_its_side = image.getexif().get(_ORIENTATION, 1) in _SIDEWAYS
    return (width, height) if lies_on_its_side else (height, width)


def _check(image: Image.Image, max_image_pixels: int, limit: str) -> None:
    width, height = image.size
    if width * height > max_image_pixels:
        raise UnreadablePicture(f"has {width}×{height} pixels, more than {limit} allows ({max_image_pixels:,})")
    if image.format in _ANIMATED_FORMATS and getattr(image, "n_frames", 1) > 1:
        raise UnreadablePicture(f"is animated ({getattr(image, 'n_frames', 1)} frames)")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF says nothing about the pixels, which have been read by now
        return image


def as_array(image: Image.Image, settings: DecodeSettings) -> np.ndarray:
    """The picture in the settings' colours and size, as `uint8` (H, W, C)."""
    plain = _without_depth_and_alpha(image).convert("RGB" if settings.color == "rgb" else "L")
    if settings.image_size_px:
        plain = _resized(plain, settings.image_size_px, settings.resize)
    array = np.asarray(plain)
    return array if array.ndim == 3 else array[:, :, None]


def _without_depth_and_alpha(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadablePicture("has grey levels outside 0…65535")
        return Image.fromarray(((values + _SIXTEEN_BIT // 2) // _SIXTEEN_BIT).astype(np.uint8))
    if image.mode == "F":
        raise UnreadablePicture("has floating-point pixels, whose range is not known")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image


def _resized(image: Image.Image, size_px: tuple[int, int], how: str) -> Image.Image:
    height, width = size_px
    if image.size == (width, height):
        return image
    if how == "crop":
        return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    return image.resize((width, height), Image.Resampling.BICUBIC)
