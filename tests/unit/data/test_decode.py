import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conviction.data.decode import DecodeSettings, UnreadablePicture, decode

RGB = DecodeSettings("rgb", None, "crop", 50_000_000)
GREY = DecodeSettings("grey", None, "crop", 50_000_000)
BLACK, WHITE, RED, GREEN, BLUE = [0, 0, 0], [255] * 3, [255, 0, 0], [0, 255, 0], [0, 0, 255]
# Two rows of three.
FLAG = [[RED, GREEN, BLUE], [BLACK, WHITE, RED]]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flag() -> Image.Image:
    return Image.fromarray(np.array(FLAG, np.uint8))


def png(width: int, height: int, depth: int, color_type: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand: `rows` are the raw scan lines, each after its filter byte 0."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def reason(content: bytes, how: DecodeSettings = RGB) -> str:
    with pytest.raises(UnreadablePicture) as caught:
        decode(content, how)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("PPM", {}), ("TIFF", {})]
)
def test_lossless_formats_keep_every_pixel(kind: str, options: dict[str, Any]) -> None:
    assert decode(encoded(flag(), kind, **options), RGB).tolist() == FLAG


def test_a_gif_of_one_frame() -> None:
    assert decode(encoded(flag().quantize(5), "GIF"), RGB).tolist() == FLAG


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
def test_jpeg(options: dict[str, Any]) -> None:
    even = Image.new("RGB", (16, 8), (200, 100, 50))
    array = decode(encoded(even, "JPEG", quality=95, **options), RGB)
    assert array.shape == (8, 16, 3)
    assert np.abs(array.astype(int) - [200, 100, 50]).max() <= 2


def test_cmyk_jpeg() -> None:
    # Cyan at 100 % takes all red; key at 20 % leaves 204 of 255.
    array = decode(encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 51)), "JPEG", quality=100), RGB)
    assert np.abs(array.astype(int) - [0, 204, 204]).max() <= 2


def test_the_first_picture_of_a_phones_stereo_file() -> None:
    second = Image.new("RGB", (8, 8), "blue")
    content = encoded(Image.new("RGB", (8, 8), "red"), "MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(decode(content, RGB).astype(int) - RED).max() <= 3


def test_one_bit() -> None:
    content = png(3, 2, 1, 0, b"\0\xa0" + b"\0\x40")  # 101 and 010
    assert decode(content, GREY)[:, :, 0].tolist() == [[255, 0, 255], [0, 255, 0]]
    assert decode(content, RGB)[0].tolist() == [WHITE, BLACK, WHITE]


def test_two_and_four_bits_reach_from_black_to_white() -> None:
    # 0, 1, 2, 3 of 3 and 0, 5, 10, 15 of 15 are all thirds.
    assert decode(png(4, 1, 2, 0, b"\0\x1b"), GREY).ravel().tolist() == [0, 85, 170, 255]
    assert decode(png(4, 1, 4, 0, b"\0\x05\xaf"), GREY).ravel().tolist() == [0, 85, 170, 255]


PALETTE = (b"PLTE", bytes([*RED, *GREEN, *BLACK]))


def test_palette() -> None:
    assert decode(png(3, 1, 8, 3, b"\0\0\1\2", PALETTE), RGB).tolist() == [[RED, GREEN, BLACK]]


def test_palette_with_transparency_lies_over_white() -> None:
    content = png(3, 1, 8, 3, b"\0\0\1\2", PALETTE, (b"tRNS", bytes([255, 0, 128])))
    array = decode(content, RGB)
    assert array[0, :2].tolist() == [RED, WHITE]
    # Black at 128/255 over white leaves 255 · 127/255.
    assert array[0, 2].tolist() in ([127] * 3, [128] * 3)


def test_one_transparent_color_lies_over_white() -> None:
    key = (b"tRNS", struct.pack(">HHH", *RED))
    assert decode(png(2, 1, 8, 2, b"\0" + bytes([*RED, *GREEN]), key), RGB).tolist() == [[WHITE, GREEN]]


def test_grey() -> None:
    content = png(3, 1, 8, 0, b"\0\x00\x07\xff")
    assert decode(content, GREY).tolist() == [[[0], [7], [255]]]
    assert decode(content, RGB).tolist() == [[BLACK, [7] * 3, WHITE]]


def test_color_to_grey_by_the_luma_of_itu_r_601() -> None:
    # 0.299, 0.587 and 0.114 of 255.
    assert decode(encoded(flag()), GREY)[0].ravel().tolist() == [76, 150, 29]


def test_sixteen_bit_grey_is_divided_by_257() -> None:
    # 0 → 0; 128 → 0 and 129 → 1, the nearest; 257 → 1; 32768 → 127.50 → 128; 65535 → 255.
    levels = [0, 128, 129, 257, 32768, 65535]
    content = png(6, 1, 16, 0, b"\0" + struct.pack(">6H", *levels))
    assert decode(content, GREY).ravel().tolist() == [0, 0, 1, 1, 128, 255]
    assert decode(content, RGB)[0, :, 2].tolist() == [0, 0, 1, 1, 128, 255]


def test_sixteen_bit_color_keeps_its_high_byte() -> None:
    content = png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 65535, 257, 0x80FF))
    assert decode(content, RGB).tolist() == [[[255, 1, 128]]]


def test_alpha_lies_over_white() -> None:
    color = png(3, 1, 8, 6, b"\0" + bytes([*BLACK, 128, *RED, 255, *GREEN, 0]))
    assert decode(color, RGB)[0, 0].tolist() in ([127] * 3, [128] * 3)
    assert decode(color, RGB)[0, 1:].tolist() == [RED, WHITE]
    grey = decode(png(3, 1, 8, 4, b"\0" + bytes([0, 128, 9, 255, 9, 0])), GREY).ravel().tolist()
    assert grey in ([127, 9, 255], [128, 9, 255])


def test_pgm_of_eight_and_sixteen_bits() -> None:
    assert decode(b"P5 3 1 255\n" + bytes([0, 7, 255]), GREY).ravel().tolist() == [0, 7, 255]
    assert decode(b"P5 3 1 65535\n" + struct.pack(">3H", 0, 257, 65535), GREY).ravel().tolist() == [0, 1, 255]
    assert decode(b"P2 2 1 255\n3 4\n", GREY).ravel().tolist() == [3, 4]


# What each orientation says about where the first row and column of the scene lie (EXIF 2.3, tag 0x0112); what is
# stored is FLAG, and here stands what a person should see.
UPRIGHT = {
    1: [[RED, GREEN, BLUE], [BLACK, WHITE, RED]],
    2: [[BLUE, GREEN, RED], [RED, WHITE, BLACK]],
    3: [[RED, WHITE, BLACK], [BLUE, GREEN, RED]],
    4: [[BLACK, WHITE, RED], [RED, GREEN, BLUE]],
    5: [[RED, BLACK], [GREEN, WHITE], [BLUE, RED]],
    6: [[BLACK, RED], [WHITE, GREEN], [RED, BLUE]],
    7: [[RED, BLUE], [WHITE, GREEN], [BLACK, RED]],
    8: [[BLUE, RED], [GREEN, WHITE], [RED, BLACK]],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        content = encoded(flag(), kind, exif=exif, **options)
        assert decode(content, RGB).tolist() == UPRIGHT[orientation]


def test_senseless_orientations_change_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert decode(encoded(flag(), exif=exif), RGB).tolist() == FLAG
    assert decode(encoded(flag(), exif=b"Exif\0\0no exif at all"), RGB).tolist() == FLAG


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_are_refused(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue", "green")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    assert reason(content) == "is animated (3 frames)"


def test_more_pixels_than_allowed_are_refused() -> None:
    small = DecodeSettings("rgb", None, "crop", 5)
    assert reason(encoded(flag()), small) == "has 3×2 pixels, more than data.max_image_pixels allows (5)"
    assert decode(encoded(flag()), DecodeSettings("rgb", None, "crop", 6)).shape == (2, 3, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side_px", [10_000, 60_000, 2**31 - 1])
def test_a_header_that_claims_billions_of_pixels_is_refused_at_once(side_px: int) -> None:
    assert "data.max_image_pixels allows (50,000,000)" in reason(png(side_px, side_px, 8, 2, b""))


def test_what_is_no_picture_is_refused() -> None:
    assert reason(b"") == "is empty (0 bytes)"
    for content in (b"<!DOCTYPE html><html>404</html>", b"\0" * 1000, b"GIF", b"%PDF-1.4", b"version https://git-lfs"):
        assert reason(content).startswith("is no picture of a known kind (JPEG, PNG,")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF"])
def test_truncated_pictures_are_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    image = Image.fromarray(noise)
    content = encoded(image.quantize(64) if kind == "GIF" else image, kind)
    for length in (len(content) // 4, len(content) // 2, 3 * len(content) // 4):
        assert reason(content[:length]).startswith("is ")


def test_floating_point_pixels_are_refused() -> None:
    assert "floating-point" in reason(encoded(Image.new("F", (2, 2)), "TIFF"))


def test_grey_levels_beyond_sixteen_bits_are_refused() -> None:
    deep = Image.fromarray(np.array([[0, 65536]], np.int32))
    assert reason(encoded(deep, "TIFF")) == "has grey levels outside 0…65535"


def test_crop_keeps_the_proportions_and_squash_does_not() -> None:
    # Left quarter black, right quarter black, the middle half white: cropping to a square keeps the middle alone.
    levels = np.zeros((4, 8), np.uint8)
    levels[:, 2:6] = 255
    content = encoded(Image.fromarray(levels))
    assert decode(content, DecodeSettings("grey", (4, 4), "crop", 99)).ravel().tolist() == [255] * 16
    squashed = decode(content, DecodeSettings("grey", (4, 4), "squash", 99))
    assert squashed.shape == (4, 4, 1)
    assert (squashed[:, 0] < 60).all()
    assert (squashed[:, 1:3] > 195).all()


def test_the_size_is_height_then_width() -> None:
    assert decode(encoded(flag()), DecodeSettings("rgb", (5, 7), "squash", 99)).shape == (5, 7, 3)


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpegs_are_made_small_without_losing_detail(orientation: int) -> None:
    # 80 stripes of 4 px across the stored picture's width; what is asked for still shows each of them in 2 px.
    stripes = np.repeat(np.tile([0, 255], 40), 4).astype(np.uint8)[None].repeat(2560, axis=0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(stripes), "JPEG", quality=95, exif=exif)
    size_px = (2, 160) if orientation == 1 else (160, 2)
    small = decode(content, DecodeSettings("grey", size_px, "squash", 10**6))[:, :, 0]
    line = small[0] if orientation == 1 else small[:, 0]
    assert (line.reshape(80, 2)[0::2] < 60).all()
    assert (line.reshape(80, 2)[1::2] > 195).all()


SEEDS = [
    encoded(flag()),
    encoded(flag().resize((24, 17)), "JPEG"),
    encoded(flag().resize((24, 17)), "JPEG", progressive=True),
    encoded(flag().quantize(5), "GIF"),
    encoded(flag(), "WEBP"),
    encoded(flag(), "BMP"),
    encoded(flag(), "TIFF"),
    encoded(flag().quantize(5), "PNG", transparency=0),
    png(2, 2, 16, 0, b"\0abcd\0abcd"),
    b"P5 3 1 65535\n" + bytes(6),
    encoded(flag(), "PNG", save_all=True, append_images=[flag()]),
]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=600, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4)), max_size=5),
    cut=st.floats(0, 1),
    size_px=st.none() | st.just((5, 6)),
    color=st.sampled_from(["rgb", "grey"]),
)
def test_mutated_pictures_are_decoded_or_refused(
    seed: bytes, damage: list[tuple[float, bytes]], cut: float, size_px: tuple[int, int] | None, color: Any
) -> None:
    content = bytearray(seed)
    for place, replacement in damage:
        start = int(place * len(content))
        content[start : start + len(replacement)] = replacement
    # Half of the files keep their end.
    content = content[: int(2 * cut * len(content))]
    with contextlib.suppress(UnreadablePicture):
        array = decode(bytes(content), DecodeSettings(color, size_px, "crop", 100_000))
        assert array.dtype == np.uint8
        assert array.ndim == 3
        assert array.shape[2] == (3 if color == "rgb" else 1)
        assert size_px is None or array.shape[:2] == size_px
        assert array.shape[0] * array.shape[1] <= 100_000


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200), magic=st.sampled_from([seed[:12] for seed in SEEDS] + [b""]))
@pytest.mark.filterwarnings("ignore")
def test_random_bytes_are_decoded_or_refused(content: bytes, magic: bytes) -> None:
    with contextlib.suppress(UnreadablePicture):
        assert decode(magic + content, RGB).dtype == np.uint8
