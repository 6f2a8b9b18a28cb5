"""From bytes to faces: the checksum, the picture, the box."""

import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conviction.data.facescrub.cut import check_content, cut_face
from conviction.data.facescrub.face_list import Box
from conviction.data.facescrub.outcome import NotKept


def encoded(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# Four quarters, each of one colour: red, green / blue, white, 20 pixels wide and 10 high each.
QUARTERS = np.zeros((20, 40, 3), np.uint8)
QUARTERS[:10, :20, 0] = QUARTERS[:10, 20:, 1] = QUARTERS[10:, :20, 2] = 255
QUARTERS[10:, 20:] = 255
CONTENT = encoded(QUARTERS)


def colours(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "JPEG"
        return np.asarray(image)


@pytest.mark.parametrize(
    ("box", "colour", "clipped"),
    [
        # x1, y1, x2, y2: the first two name the column and the row of the upper left corner.
        ((0, 0, 10, 10), (255, 0, 0), ""),
        ((20, 0, 30, 10), (0, 255, 0), ""),
        ((0, 10, 10, 20), (0, 0, 255), ""),
        ((20, 10, 40, 20), (255, 255, 255), ""),
        ((-100, -100, 10, 10), (255, 0, 0), "0,0,10,10"),
        ((30, 15, 1000, 1000), (255, 255, 255), "30,15,40,20"),
        ((39, 19, 40, 20), (255, 255, 255), ""),
        ((-5, 12, 7, 50), (0, 0, 255), "0,12,7,20"),
    ],
)
def test_the_box_is_cut_and_clipped(box: Box, colour: tuple[int, ...], clipped: str) -> None:
    content, remark = cut_face(CONTENT, box, 16)
    assert colours(content).shape == (16, 16, 3)
    assert np.abs(colours(content).astype(int) - colour).max() <= 3
    assert remark == (f"the box was clipped to {clipped}" if clipped else "")


def test_both_sides_of_a_border_are_where_they_were() -> None:
    # The border between red and green lies in the middle of this box.
    found = colours(cut_face(CONTENT, (15, 0, 25, 10), 20)[0])
    assert np.abs(found[:, :8].astype(int) - (255, 0, 0)).max() < 40
    assert np.abs(found[:, 12:].astype(int) - (0, 255, 0)).max() < 40


@pytest.mark.parametrize(
    "box", [(40, 0, 50, 10), (0, 20, 10, 30), (-9, 0, 0, 10), (0, -9, 10, 0), (500, 500, 900, 900)]
)
def test_a_box_outside_of_the_picture(box: Box) -> None:
    with pytest.raises(NotKept) as caught:
        cut_face(CONTENT, box, 16)
    shown = ",".join(map(str, box))
    assert caught.value.outcome.name == "box_outside"
    assert caught.value.outcome.reason == f"the box {shown} lies outside of the picture's 40×20 pixels"


CORNERS = st.integers(-60, 60)


@given(x1=CORNERS, y1=CORNERS, width=st.integers(1, 90), height=st.integers(1, 90))
def test_a_box_is_cut_wherever_it_has_a_pixel_in_the_picture(x1: int, y1: int, width: int, height: int) -> None:
    box = (x1, y1, x1 + width, y1 + height)
    num_columns = len(set(range(x1, x1 + width)) & set(range(40)))
    num_rows = len(set(range(y1, y1 + height)) & set(range(20)))
    if num_columns * num_rows == 0:
        with pytest.raises(NotKept, match="lies outside"):
            cut_face(CONTENT, box, 8)
        return
    content, remark = cut_face(CONTENT, box, 8)
    assert colours(content).shape == (8, 8, 3)
    assert bool(remark) == (num_columns < width or num_rows < height)


def test_boxes_count_pixels_as_they_are_stored() -> None:
    # Orientation 6 turns the picture by a quarter wherever it is looked at.
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(QUARTERS, "JPEG", exif=exif, quality=100, subsampling=0)
    assert np.abs(colours(cut_face(turned, (22, 1, 30, 8), 16)[0]).astype(int) - (0, 255, 0)).max() < 40


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_every_kind_of_picture(kind: str) -> None:
    grey = np.full((20, 20), 100, np.uint8)
    face = colours(cut_face(encoded(grey, kind), (2, 2, 12, 12), 8)[0])
    assert face.shape == (8, 8, 3)
    assert np.abs(face.astype(int) - 100).max() <= 3


def test_transparency_is_laid_over_white() -> None:
    clear = np.zeros((20, 20, 4), np.uint8)
    assert colours(cut_face(encoded(clear), (2, 2, 12, 12), 8)[0]).min() >= 252


def bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return content


NOISE = encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8), "JPEG")
DANCE = io.BytesIO()
Image.new("L", (20, 20)).save(DANCE, "GIF", save_all=True, append_images=[Image.new("L", (20, 20), 255)])
# These bytes are the listed ones: their checksum is right.
NO_PICTURES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty (0 bytes)"),
    "a web page": (b"<html>Gone</html>", "is no picture of a known kind (JPEG, PNG"),
    "a picture cut off": (NOISE[: len(NOISE) // 2], "is damaged"),
    "a beginning alone": (NOISE[:20], "is"),
    "a bomb": (bomb(), "than this command allows (50,000,000)"),
    "an animation": (DANCE.getvalue(), "is animated (2 frames)"),
    "a drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no picture of a known kind"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("fault", NO_PICTURES)
def test_listed_bytes_that_are_no_picture(fault: str) -> None:
    content, says = NO_PICTURES[fault]
    check_content(content, sha256(content))
    with pytest.raises(NotKept) as caught:
        cut_face(content, (0, 0, 10, 10), 8)
    assert caught.value.outcome.name == "not_an_image"
    assert says in caught.value.outcome.reason


OTHERS: dict[str, tuple[bytes, str, str]] = {
    "another JPEG": (NOISE, "hash_differs", "is another picture: its SHA-256 begins with"),
    "another PNG": (CONTENT, "hash_differs", "is another picture"),
    "another GIF": (DANCE.getvalue(), "hash_differs", "is another picture"),
    "another WebP": (encoded(QUARTERS, "WEBP"), "hash_differs", "is another picture"),
    "another PPM": (encoded(QUARTERS, "PPM"), "hash_differs", "is another picture"),
    "the picture cut off": (NOISE[:-9], "hash_differs", "is another picture"),
    "nothing": (b"", "not_an_image", "is empty (0 bytes)"),
    "a web page": (b"\n <!DOCTYPE HTML><p>Gone", "not_an_image", "is a web page (24 bytes)"),
    "a web page with a mark": (b"\xef\xbb\xbf<html>", "not_an_image", "is a web page"),
    "text": (b"Not found", "not_an_image", "is no picture (9 bytes)"),
    "compressed on its way": (b"\x1f\x8b\x08" + NOISE, "not_an_image", "is no picture"),
    "a letter": (b"P", "not_an_image", "is no picture"),
}


@pytest.mark.parametrize("fault", OTHERS)
def test_other_bytes_than_the_listed_ones(fault: str) -> None:
    content, name, says = OTHERS[fault]
    with pytest.raises(NotKept) as caught:
        check_content(content, "ab" * 32)
    assert caught.value.outcome.name == name
    assert says in caught.value.outcome.reason


def test_bytes_of_another_checksum_reach_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image, "open", never)
    for content, _, _ in OTHERS.values():
        with pytest.raises(NotKept):
            check_content(content, "ab" * 32)


def test_both_checksums_are_shown() -> None:
    with pytest.raises(NotKept, match=f"begins with {sha256(NOISE)[:12]}, not abababababab"):
        check_content(NOISE, "ab" * 32)
