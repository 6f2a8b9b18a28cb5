"""From a picture's bytes to a face: the checksum first, then the picture, then the box."""

from __future__ import annotations

import hashlib
import io

from PIL import Image

from conviction.data.decode import DecodeSettings, UnreadablePicture, as_array, opened
from conviction.data.facescrub.face_list import Box
from conviction.data.facescrub.outcome import NotKept

MOST_PIXELS = 50_000_000
_JPEG_QUALITY = 95
_SHOWN_DIGITS = 12
_BEGINNINGS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
)
_WEB_PAGE = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<?xml")


def check_content(content: bytes, sha256: str) -> None:
    """Only bytes whose SHA-256 is the listed one are ever given to a decoder.

    Of the others, the first bytes tell a picture that was changed from what is no picture at all.

    Raises: NotKept (`hash_differs`, `not_an_image`).
    """
    found = hashlib.sha256(content).hexdigest()
    if found == sha256:
        return
    if not content:
        raise NotKept("not_an_image", "is empty (0 bytes)")
    if not _begins_as_picture(content):
        kind = (
            "a web page" if content[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGE) else "no picture"
        )
        raise NotKept("not_an_image", f"is {kind} ({len(content):,} bytes)")
    raise NotKept(
        "hash_differs",
        f"is another picture: its SHA-256 begins with {found[:_SHOWN_DIGITS]}, not {sha256[:_SHOWN_DIGITS]}",
    )


def cut_face(content: bytes, box_px: Box, size_px: int) -> tuple[bytes, str]:
    """The face as JPEG of `size_px` × `size_px`, and what is to be said of it.

    The box counts pixels as they are stored, whatever the EXIF orientation says: there a detector found a face.

    Raises: NotKept (`not_an_image`, `box_outside`).
    """
    settings = DecodeSettings("rgb", (size_px, size_px), "squash", MOST_PIXELS)
    try:
        with opened(content, MOST_PIXELS, "this command") as image:
            width_px, height_px = image.size
            image.load()
            clipped = _clip(box_px, width_px, height_px)
            face = as_array(image.crop(clipped), settings) if clipped else None
    except UnreadablePicture as fault:
        raise NotKept("not_an_image", str(fault)) from fault
    if clipped is None or face is None:
        box = ",".join(map(str, box_px))
        raise NotKept("box_outside", f"the box {box} lies outside of the picture's {width_px}×{height_px} pixels")
    buffer = io.BytesIO()
    Image.fromarray(face).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue(), "" if clipped == box_px else f"the box was clipped to {','.join(map(str, clipped))}"


def _clip(box_px: Box, width_px: int, height_px: int) -> Box | None:
    """The part of a box that lies within the picture; None where there is none."""
    x1, y1, x2, y2 = max(box_px[0], 0), max(box_px[1], 0), min(box_px[2], width_px), min(box_px[3], height_px)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _begins_as_picture(content: bytes) -> bool:
    is_webp = content.startswith(b"RIFF") and content[8:12] == b"WEBP"
    is_pnm = content[:1] == b"P" and content[1:2] in b"123456" and content[2:3] in b" \t\r\n"
    return is_webp or (is_pnm and len(content) > 2) or content.startswith(_BEGINNINGS)
