"""Folders, archives and pictures that cannot be used."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from bad_input.case import Arguments, case, command_case, photos, two_classes
from pictures import write_class_folders, write_picture

command_case(
    "Data",
    "no path",
    "config",
    ("data.path",),
    "train",
    "simplecnn-artists",
    "--set",
    "data.path=null",
)


@case("Data", "path that is nearly right", "data", "No file or folder", "Did you mean 'photos'?")
def _nearly(folder: Path) -> Arguments:
    two_classes(folder)
    return ["train", "simplecnn-artists", "--set", f"data.path={folder / 'photoes'}"]


@case("Data", "file that is no archive", "data", "neither a folder nor an archive")
def _text_file(folder: Path) -> Arguments:
    (folder / "photos").write_text("hello")
    return photos(folder)


@case("Data", "folder without classes", "data", "no class folders")
def _no_classes(folder: Path) -> Arguments:
    write_picture(folder / "photos" / "1.png")
    return photos(folder)


@case("Data", "one class", "data", "one class only, 'cat'")
def _one_class(folder: Path) -> Arguments:
    write_class_folders(folder / "photos", {"cat": 5})
    return photos(folder)


@case("Data", "empty class", "data", "no pictures in the class folder 'owl'")
def _empty_class(folder: Path) -> Arguments:
    (two_classes(folder) / "owl").mkdir()
    return photos(folder)


@case("Data", "fewer pictures than the splits need", "data", "'dog' has 2 pictures", "none is left to train on")
def _too_few(folder: Path) -> Arguments:
    write_class_folders(folder / "photos", {"cat": 12, "dog": 2})
    return photos(folder)


@case("Data", "larger validation split than there are pictures", "config", "split.validation: 500", "only 24")
def _greedy_split(folder: Path) -> Arguments:
    two_classes(folder)
    return photos(folder, "split.validation=500")


@case("Data", "class folders beside train/", "data", "'owl' beside 'train'")
def _mixed_layout(folder: Path) -> Arguments:
    write_class_folders(folder / "photos" / "train", {"cat": 3, "dog": 3})
    write_class_folders(folder / "photos", {"owl": 3})
    return photos(folder)


@case("Data", "truncated picture", "data", "1 of 25 pictures", "cat/broken.jpg", "data.unreadable=skip")
def _truncated(folder: Path) -> Arguments:
    content = io.BytesIO()
    Image.new("RGB", (60, 60), "red").save(content, "JPEG")
    (two_classes(folder) / "cat" / "broken.jpg").write_bytes(content.getvalue()[:400])
    return photos(folder)


@case("Data", "picture of zero bytes", "data", "cat/nothing.png is empty (0 bytes)")
def _zero_bytes(folder: Path) -> Arguments:
    (two_classes(folder) / "cat" / "nothing.png").touch()
    return photos(folder)


@case("Data", "link to a picture that is not there", "data", "1 of 25 pictures", "cat/link.png is a link to")
def _dangling(folder: Path) -> Arguments:
    (two_classes(folder) / "cat" / "link.png").symlink_to("nothing.png")
    return photos(folder)


@case("Data", "web page named .jpg", "data", "dog/page.jpg is no picture of a known kind")
def _web_page(folder: Path) -> Arguments:
    (two_classes(folder) / "dog" / "page.jpg").write_text("<html>404</html>")
    return photos(folder)


@case("Data", "decompression bomb", "data", "dog/bomb.png", "max_image_pixels")
def _bomb(folder: Path) -> Arguments:
    # The header claims what the data do not hold: the size is to be looked at before anything is decoded.
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    (two_classes(folder) / "dog" / "bomb.png").write_bytes(content)
    return photos(folder)


@case("Data", "animated picture", "data", "dog/dance.gif is animated (3 frames)")
def _animated(folder: Path) -> Arguments:
    frames = [Image.new("RGB", (60, 60), shade) for shade in ("red", "green", "blue")]
    frames[0].save(two_classes(folder) / "dog" / "dance.gif", save_all=True, append_images=frames[1:])
    return photos(folder)


@case("Data", "no readable picture at all", "data", "2 of 2 pictures")
def _all_bad(folder: Path) -> Arguments:
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        (folder / "photos" / label / "x.png").write_text("x")
    return photos(folder, "data.unreadable=skip")


@case("Data", "pictures of several sizes", "data", "9×7 pixels where others have 60×60", "data.image_size_px")
def _sizes(folder: Path) -> Arguments:
    write_picture(two_classes(folder) / "dog" / "small.png", (7, 9))
    return photos(folder, "data.image_size_px=null")


def tar_with(folder: Path, *members: tarfile.TarInfo) -> Arguments:
    two_classes(folder)
    with tarfile.open(folder / "photos.tar", "w") as archive:
        archive.add(folder / "photos", "photos")
        for member in members:
            archive.addfile(member)
    return ["train", "simplecnn-artists", "--set", f"data.path={folder / 'photos.tar'}"]


@case("Data", "archive entry that climbs out", "data", "'../../evil.png'", "climbs out")
def _climbing(folder: Path) -> Arguments:
    return tar_with(folder, tarfile.TarInfo("../../evil.png"))


@case("Data", "archive entry with an absolute name", "data", "absolute name '/etc/passwd'")
def _absolute(folder: Path) -> Arguments:
    return tar_with(folder, tarfile.TarInfo("/etc/passwd"))


@case("Data", "archive with a link", "data", "link 'photos/cat/link.png' -> '/etc/passwd'")
def _link(folder: Path) -> Arguments:
    link = tarfile.TarInfo("photos/cat/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return tar_with(folder, link)


@case("Data", "truncated archive", "data", "photos.tar.xz", "damaged")
def _truncated_archive(folder: Path) -> Arguments:
    two_classes(folder)
    with tarfile.open(folder / "photos.tar.xz", "w:xz") as archive:
        archive.add(folder / "photos", "photos")
    whole = (folder / "photos.tar.xz").read_bytes()
    (folder / "photos.tar.xz").write_bytes(whole[: len(whole) // 2])
    return ["train", "simplecnn-artists", "--set", f"data.path={folder / 'photos.tar.xz'}"]


@case("Data", "archive that is none", "data", "photos.zip is damaged or no archive")
def _no_archive(folder: Path) -> Arguments:
    (folder / "photos.zip").write_bytes(np.random.default_rng(0).bytes(1000))
    return ["train", "simplecnn-artists", "--set", f"data.path={folder / 'photos.zip'}"]


@case("Data", "zip entry that climbs out", "data", "'../evil.png'", "climbs out")
def _climbing_zip(folder: Path) -> Arguments:
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("../evil.png", b"x")
    return ["train", "simplecnn-artists", "--set", f"data.path={folder / 'photos.zip'}"]
