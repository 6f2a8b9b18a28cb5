"""Lists of faces, boxes, addresses and folders that `conviction data facescrub` refuses.

Each list here is wrong in one way; tests/unit/data/facescrub has every way.
"""

from __future__ import annotations

from pathlib import Path

from bad_input.case import Arguments, case, command_case

_SHA256 = "ab" * 32
_LINE = f"Ann Lee\t1\t2\thttp://a.example/1.jpg\t1,2,30,40\t{_SHA256}\n"
_OTHER = f"Bo Ek\t3\t4\thttp://a.example/3.jpg\t1,2,30,40\t{_SHA256}\n"


def faces(folder: Path, text: str, *options: object) -> Arguments:
    """Gather what a list says into `folder/out`."""
    (folder / "faces.txt").write_text(text)
    return ["data", "facescrub", folder / "faces.txt", "--out", folder / "out", *options]


_LISTS = (
    ("commas in place of tabs", _LINE.replace("\t", ","), ("line 1 has 1 field", "parted by tabs")),
    ("line cut off", _LINE + _OTHER[:30], ("line 2 has 4 fields",)),
    ("header of another list", "file\tname\turl\n" + _LINE, ("names the columns file, name, url",)),
    ("name that climbs out", _LINE.replace("Ann Lee", "../x"), ("'../x' cannot be that of a class folder",)),
    ("name of a split", _LINE.replace("Ann Lee", "Test"), ("'Test'", "it is the name of a split")),
    ("one name in two spellings", _LINE + _OTHER.replace("Bo Ek", "ANN LEE"), ("spells 'ANN LEE'",)),
    ("image id that is no number", _LINE.replace("\t1\t", "\tone\t"), ("image_id must be a whole number",)),
    ("no address", _LINE.replace("http://a.example/1.jpg", ""), ("line 1 has no address",)),
    ("box of three numbers", _LINE.replace("1,2,30,40", "1,2,30"), ("the box must be four numbers",)),
    ("box of fractions", _LINE.replace("1,2,30,40", "0.1,0.2,0.3,0.4"), ("must be whole numbers of pixels",)),
    ("box that is empty", _LINE.replace("1,2,30,40", "30,2,30,40"), ("'30,2,30,40' is empty",)),
    ("box from right to left", _LINE.replace("1,2,30,40", "30,40,1,2"), ("upper left corner first",)),
    ("box beyond every picture", _LINE.replace("1,2,30,40", "1,2,3000000,40"), ("1,000,000 pixels away",)),
    ("MD5 in place of SHA-256", _LINE.replace(_SHA256, "ab" * 16), ("64 hexadecimal digits", "An MD5 has 32")),
    ("two lines that contradict each other", _LINE + _LINE.replace("30,40", "50,60"), ("line 2 says something else",)),
    ("one person", _LINE, ("One person only, 'Ann Lee'",)),
)
for _title, _text, _says in _LISTS:
    _kind = "config" if _title == "one person" else "data"
    case("FaceScrub", _title, _kind, *_says)(lambda folder, text=_text: faces(folder, text))

_ADDRESSES = (
    ("address of a file", "file:///etc/passwd", "is neither http nor https"),
    ("address with a password", "http://me:secret@a.example/", "carries a user name"),
    ("address of a mail server", "http://a.example:25/", "asks for port 25"),
    ("address of this machine", "http://127.0.0.1/", "127.0.0.1 is no public address"),
    ("address within the own network", "http://192.168.1.1/", "192.168.1.1 is no public address"),
    ("address of a cloud's credentials", "http://169.254.169.254/latest", "is no public address"),
    ("address in IPv6 of this machine", "http://[::ffff:127.0.0.1]/", "is no public address"),
)
for _title, _url, _reason in _ADDRESSES:
    case("FaceScrub", _title, "data", "None of 2 faces could be kept (refused address 2)", _reason)(
        lambda folder, url=_url: faces(
            folder, "".join(line.split("http")[0] + url + line[line.index("\t1,2,") :] for line in (_LINE, _OTHER))
        )
    )


@case("FaceScrub", "server that does not answer", "data", "no answer 2", "Connection refused")
def _no_server(folder: Path) -> Arguments:
    text = (_LINE + _OTHER).replace("a.example", "127.0.0.1:1024")
    return faces(folder, text, "--allow-private", "--retries", 0)


@case("FaceScrub", "more people than are listed", "config", "--people 3: the lists name 2 people only")
def _many_people(folder: Path) -> Arguments:
    return faces(folder, _LINE + _OTHER, "--people", 3)


@case("FaceScrub", "name that is nearly right", "unknown_name", "'Ann Le'", "Did you mean 'Ann Lee'?")
def _misspelt(folder: Path) -> Arguments:
    return faces(folder, _LINE + _OTHER, "--person", "Ann Le", "--person", "Bo Ek")


@case("FaceScrub", "people by number and by name", "config", "leave one out")
def _both(folder: Path) -> Arguments:
    return faces(folder, _LINE + _OTHER, "--people", 2, "--person", "Bo Ek")


@case("FaceScrub", "folder with other files", "config", "holds something else already ('notes.txt')")
def _other_files(folder: Path) -> Arguments:
    (folder / "out").mkdir()
    (folder / "out" / "notes.txt").write_text("mine")
    return faces(folder, _LINE + _OTHER)


command_case(
    "FaceScrub",
    "list that is not there",
    "data",
    ("No file nowhere.txt",),
    *("data", "facescrub", "nowhere.txt", "--out", "out"),
)
