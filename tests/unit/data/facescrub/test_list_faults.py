"""Every way in which a list of faces, a box or a choice of people can be wrong, with what is said of it."""

import os
from pathlib import Path

import pytest

from conviction.core.errors import ConfigError, ConvictionError, DataError, UnknownName
from conviction.data.facescrub.face_list import Face, FaceList, choose_people, read_lists

SHA = "ab" * 32
HEADER = "name\timage_id\tface_id\turl\tbbox\tsha256\n"


def line(
    name: str = "Ann Lee",
    image_id: str = "1",
    face_id: str = "2",
    url: str = "http://a.org/1.jpg",
    box: str = "1,2,30,40",
    sha256: str = SHA,
) -> str:
    return "\t".join((name, image_id, face_id, url, box, sha256)) + "\n"


# Content of the list, and the parts of the message.
LISTS: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "no bytes": ("", ("list.txt is empty", "a line for each picture")),
    "blank lines alone": ("\n \n\t\n", ("list.txt is empty",)),
    "a header alone": (HEADER, ("list.txt lists no faces", "nothing below its header")),
    "UTF-16": (line().encode("utf-16"), ("is UTF-16 text", "save it as UTF-8")),
    "Latin-1": (line("Zoë").encode("latin-1"), ("line 1 is not UTF-8 (byte 0xEB)",)),
    "NUL byte": (line() + line("A\0", "3"), ("line 2 holds a NUL byte",)),
    "an archive": (b"\xfd7zXZ\0\0", ("line 1 holds a NUL byte", "this is no text")),
    "a picture": (b"\xff\xd8\xff\xe0JFIF", ("line 1 is not UTF-8 (byte 0xFF)",)),
    "commas": (
        line().replace("\t", ","),
        ("line 1 has 1 field. A FaceScrub list has 6, parted by tabs: name, image_id",),
    ),
    "blanks for tabs": (line().replace("\t", "    "), ("line 1 has 1 field.", "parted by tabs")),
    "a field too many": (line().replace("\n", "\tx\n"), ("line 1 has 7 fields.", "It holds 'Ann Lee\\t1")),
    "a field too few": (HEADER + line() + "Ann Lee\t1\t2\n", ("line 3 has 3 fields.",)),
    "an address alone": ("http://a.org/1.jpg\n", ("line 1 has 1 field.", "'http://a.org/1.jpg'")),
    "a web page": ("<!DOCTYPE html>\n<html>\n", ("line 1 has 1 field.", "'<!DOCTYPE html>'")),
    "line cut off": (line() + line("Bo Ek", "3")[:30], ("line 2 has 5 fields.",)),
    "column missing": (
        HEADER.replace("\tsha256", ""),
        ("line 1 names the columns name, image_id, face_id, url, bbox.",),
    ),
    "column of another name": (HEADER.replace("bbox", "box"), ("line 1 names the columns", "url, box, sha256", "bbox")),
    "column twice": (HEADER.replace("face_id", "image_id"), ("line 1 names the columns name, image_id, image_id",)),
    "no name": (line(""), ("line 1 names nobody (name is empty)",)),
    "blank name": (line("  "), ("line 1 names nobody",)),
    "name that climbs out": (line("../x"), ("the name '../x' cannot be that of a class folder: it holds a slash",)),
    "name that is absolute": (line("/etc"), ("the name '/etc'", "it holds a slash")),
    "name with a backslash": (line("a\\b"), ("the name 'a\\\\b'", "it holds a slash")),
    "formula": (line("=cmd|calc"), ("the name '=cmd|calc'", "would take it for a formula in the manifest")),
    "two dots": (line(".."), ("the name '..'", "folders of that name are passed over")),
    "hidden name": (line(".git"), ("the name '.git'", "folders of that name are passed over")),
    "name of a desktop's folder": (line("__MACOSX"), ("the name '__MACOSX'", "folders of that name are passed over")),
    "name of a split": (line("Test"), ("the name 'Test'", "it is the name of a split")),
    "name of the manifest": (line("manifest.csv"), ("the name 'manifest.csv'", "it is the manifest's")),
    "name of a page": (line("é" * 51), ("the name 'ééé", "it is longer than 100 bytes")),
    "name with an escape": (line("A\x1b[1mnn"), ("the name 'A\\x1b[1mnn' has unprintable characters",)),
    "name turned round": (line("Ann\u202e"), ("the name 'Ann\\u202e' has unprintable characters",)),
    "names that differ in capitals": (
        line() + line("ANN LEE", "3"),
        ("line 2 spells 'ANN LEE'", "line 1 spells 'Ann Lee'", "are they one person?"),
    ),
    "no image id": (line(image_id=""), ("line 1: image_id must be a whole number of at most 12 digits, but is ''",)),
    "image id with a slash": (line(image_id="1/2"), ("image_id must be a whole number", "'1/2'")),
    "image id below zero": (line(image_id="-1"), ("image_id must be a whole number", "'-1'")),
    "image id in other digits": (line(image_id="١"), ("image_id must be a whole number",)),
    "image id of 13 digits": (line(image_id="1" * 13), ("of at most 12 digits",)),
    "face id in words": (line(face_id="two"), ("line 1: face_id must be a whole number", "'two'")),
    "face id with a point": (line(face_id="2.0"), ("face_id must be a whole number", "'2.0'")),
    "no address": (line(url=""), ("line 1 has no address (url is empty)",)),
    "address of pages": (line(url="http://a.org/" + "x" * 4000), ("the address has 4,013 letters", "at most 4,000")),
    "no box": (line(box=""), ("line 1: the box must be four numbers, x1,y1,x2,y2, but is ''",)),
    "box of three": (line(box="1,2,3"), ("the box must be four numbers", "'1,2,3'")),
    "box of five": (line(box="1,2,3,4,5"), ("the box must be four numbers", "'1,2,3,4,5'")),
    "box parted by blanks": (line(box="1 2 30 40"), ("the box must be four numbers", "'1 2 30 40'")),
    "box parted by semicolons": (line(box="1;2;30;40"), ("the box must be four numbers",)),
    "box in brackets": (line(box="[1,2,30,40]"), ("corners must be whole numbers of pixels, but are '[1,2,30,40]'",)),
    "box of fractions": (line(box="0.1,0.2,0.5,0.9"), ("corners must be whole numbers of pixels",)),
    "box of half pixels": (line(box="1.5,2,30,40"), ("corners must be whole numbers of pixels",)),
    "box with a gap": (line(box="1,,30,40"), ("corners must be whole numbers of pixels", "'1,,30,40'")),
    "box with NaN": (line(box="nan,2,30,40"), ("corners must be whole numbers of pixels",)),
    "box in words": (line(box="left,top,right,bottom"), ("corners must be whole numbers of pixels",)),
    "box in other digits": (line(box="1,2,3٠,40"), ("corners must be whole numbers of pixels",)),
    "box at 10^12": (line(box=f"1,2,{10**11},40"), ("lies more than 1,000,000 pixels away",)),
    "box of thousands of digits": (line(box=f"1,2,{'9' * 5000},40"), ("corners must be whole numbers of pixels",)),
    "box of no width": (line(box="30,2,30,40"), ("the box '30,2,30,40' is empty", "`x1 < x2` and `y1 < y2`")),
    "box of no height": (line(box="1,40,30,40"), ("the box '1,40,30,40' is empty",)),
    "box from right to left": (line(box="30,2,1,40"), ("the box '30,2,1,40' is empty", "upper left corner first")),
    "box upside down": (line(box="1,40,30,2"), ("the box '1,40,30,2' is empty",)),
    "box as corner and size": (line(box="300,200,50,60"), ("the box '300,200,50,60' is empty",)),
    "no checksum": (line(sha256=""), ("line 1: sha256 must have 64 hexadecimal digits, but is ''",)),
    "checksum cut off": (line(sha256=SHA[:-1]), ("sha256 must have 64 hexadecimal digits",)),
    "checksum of 65 digits": (line(sha256=SHA + "a"), ("sha256 must have 64 hexadecimal digits",)),
    "checksum with another letter": (line(sha256="g" * 64), ("sha256 must have 64 hexadecimal digits",)),
    "MD5": (line(sha256="ab" * 16), ("64 hexadecimal digits", "An MD5 has 32; it cannot take its place.")),
    "SHA-1": (line(sha256="ab" * 20), ("64 hexadecimal digits", "A SHA-1 has 40; it cannot take its place.")),
    "one face, two boxes": (
        line() + line(box="5,6,70,80"),
        ("line 2 says something else of face 2 in image 1 of 'Ann Lee' than", "line 1", "Remove one"),
    ),
    "one face, two addresses": (line() + line(url="http://b.org/1.jpg"), ("line 2 says something else of face 2",)),
    "one face, two checksums": (line() + line(sha256="cd" * 32), ("line 2 says something else of face 2",)),
}


@pytest.mark.parametrize("fault", LISTS)
def test_fault_of_a_list_gets_its_message(fault: str, tmp_path: Path) -> None:
    content, says = LISTS[fault]
    path = tmp_path / "list.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        read_lists([path])
    assert str(path) in str(caught.value)
    for part in says:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 600


def test_place_that_is_no_list(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for path, says in (
        (tmp_path, "is a folder. Name the lists themselves, for example"),
        (tmp_path / "nowhere.txt", "No file "),
        (tmp_path / "pipe.txt", "pipe.txt is no ordinary file"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(DataError, match=says):
            read_lists([path])


def test_fault_of_the_second_list_names_it(tmp_path: Path) -> None:
    (tmp_path / "actors.txt").write_text(line())
    (tmp_path / "actresses.txt").write_text(line(box="9,9,99,99"))
    with pytest.raises(DataError, match=r"actresses\.txt, line 1 says something else .* than .*actors\.txt, line 1"):
        read_lists([tmp_path / "actors.txt", tmp_path / "actresses.txt"])


def test_lists_are_read_with_and_without_header(tmp_path: Path) -> None:
    expected = Face("Ann Lee", "1", "2", "http://a.org/1.jpg", (1, 2, 30, 40), SHA)
    columns = HEADER.strip().split("\t")
    turned = "\t".join(columns[::-1]) + "\r\n" + "\t".join(line().strip().split("\t")[::-1]) + "\r\n"
    for number, text in enumerate((line(), HEADER + line(), "\ufeff" + HEADER.upper() + "\n" + line(), turned)):
        (tmp_path / f"{number}.txt").write_text(text, newline="")
        assert read_lists([tmp_path / f"{number}.txt"]) == FaceList((expected,), 0)


def test_what_is_unusual_but_right(tmp_path: Path) -> None:
    text = line("Miguel O'Hara", box=" -5, +6 ,70,80", sha256=SHA.upper()) + line('Ann "Q." Lee 李', "007")
    (tmp_path / "list.txt").write_text(text)
    first, second = read_lists([tmp_path / "list.txt"]).faces
    assert (first.person, first.box_px, first.sha256) == ("Miguel O'Hara", (-5, 6, 70, 80), SHA)
    assert second.key == 'Ann "Q." Lee 李/007-2.jpg'


def test_a_line_that_is_repeated_counts_once(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(line() + line(face_id="3") + line())
    found = read_lists([tmp_path / "list.txt", tmp_path / "list.txt"])
    assert (len(found.faces), found.num_repeats) == (2, 4)


def faces_of(**counts: int) -> FaceList:
    return FaceList(
        tuple(
            Face(name, str(number), "0", "http://a.org/", (0, 0, 1, 1), SHA)
            for name, count in counts.items()
            for number in range(count)
        ),
        0,
    )


def test_letters_composed_in_two_ways_are_one_name(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(line("Zo\u00eb") + line("Zoe\u0308", "3"))
    assert read_lists([tmp_path / "list.txt"]).people == {"Zo\u00eb": 2}


def test_the_people_with_the_most_faces_are_chosen() -> None:
    listed = faces_of(Ann=1, Zoe=3, Bo=5, Cy=3)
    # Zoe and Cy have equally many: Zoe stands first.
    assert {face.person for face in choose_people(listed, 2, [])} == {"Bo", "Zoe"}
    assert [face.person for face in choose_people(listed, None, ["Cy", "Ann"])] == ["Ann", "Cy", "Cy", "Cy"]
    assert len(choose_people(listed, None, [])) == 12


CHOICES: dict[str, tuple[FaceList, int | None, list[str], type[ConvictionError], str]] = {
    "more people than there are": (
        faces_of(Ann=1, Bo=1),
        3,
        [],
        ConfigError,
        "--people 3: the lists name 2 people only",
    ),
    "misspelt name": (
        faces_of(Ann=1, Bob=1),
        None,
        ["Bbo"],
        UnknownName,
        "No person in the lists named 'Bbo'. Did you",
    ),
    "one person asked for": (faces_of(Ann=1, Bo=1), None, ["Bo"], ConfigError, "One person only, 'Bo', is asked for"),
    "one person twice": (faces_of(Ann=1, Bo=1), None, ["Bo", "Bo"], ConfigError, "One person only, 'Bo'"),
    "one person listed": (faces_of(Ann=9), None, [], ConfigError, "a classifier needs at least two"),
}


@pytest.mark.parametrize("fault", CHOICES)
def test_fault_of_a_choice_gets_its_message(fault: str) -> None:
    listed, number, names, kind, says = CHOICES[fault]
    with pytest.raises(kind) as caught:
        choose_people(listed, number, names)
    assert says in str(caught.value)
