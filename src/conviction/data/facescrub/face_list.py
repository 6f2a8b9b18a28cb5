"""FaceScrub's lists: a face a line, parted by tabs; read wholly or refused, with the number of the line."""

from __future__ import annotations

import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conviction.core.errors import ConfigError, DataError, UnknownName
from conviction.core.names import is_printable
from conviction.data.source.base import SPLIT_WORDS
from conviction.data.source.container import is_clutter
from conviction.data.source.table_file import cut_text, file_mode, read_text

MANIFEST = "manifest.csv"
COLUMNS = ("name", "image_id", "face_id", "url", "bbox", "sha256")
MOST_NAME_BYTES = 100
_FORMULA_SIGNS = "=+-@"
MOST_URL_LETTERS = 4000
MOST_DIGITS = 12
MOST_COORDINATE_PX = 1_000_000
_FORMAT = f"A FaceScrub list has {len(COLUMNS)}, parted by tabs: {', '.join(COLUMNS)}."

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Face:
    """A line of a list: whose face, where its picture is published, and where in it the face is.

    `box_px` is x1, y1, x2, y2 in the picture's pixels as they are stored; `sha256` is that of the picture's file.
    """

    person: str
    image_id: str
    face_id: str
    url: str
    box_px: Box
    sha256: str

    @property
    def key(self) -> str:
        """What tells this face from all others, and its path in the class folders: `Alec Baldwin/3438-2030.jpg`."""
        return f"{self.person}/{self.image_id}-{self.face_id}.jpg"


@dataclass(frozen=True)
class FaceList:
    """The faces of all lists, in their order; `num_repeats` lines stood there more than once."""

    faces: tuple[Face, ...]
    num_repeats: int

    @property
    def people(self) -> dict[str, int]:
        """How many faces of each person are listed, in the order of the lists."""
        return dict(Counter(face.person for face in self.faces))


def read_lists(paths: Sequence[Path]) -> FaceList:
    """The faces of several lists. A line that is repeated word for word counts once.

    Raises: DataError where a list cannot be read, a line breaks a rule, or two lines contradict each other.
    """
    found: dict[str, Face] = {}
    places: dict[str, str] = {}
    num_repeats = 0
    for path in paths:
        num_before = len(found) + num_repeats
        for place, fields in _lines(path):
            face = _face_of(place, fields)
            former = found.setdefault(face.key, face)
            if former != face:
                raise DataError(
                    f"{place} says something else of face {face.face_id} in image {face.image_id} of {face.person!r} "
                    f"than {places[face.key]}. Remove one of the two lines."
                )
            num_repeats += face.key in places
            places.setdefault(face.key, place)
        if len(found) + num_repeats == num_before:
            raise DataError(f"{path} lists no faces: there is nothing below its header.")
    _refuse_names_alike(found.values(), places)
    return FaceList(tuple(found.values()), num_repeats)


def choose_people(listed: FaceList, num_people: int | None, names: Sequence[str]) -> tuple[Face, ...]:
    """The faces of the people named, or of the `num_people` with the most faces listed (of equal ones, the first).

    Raises: ConfigError where fewer people are listed, or fewer than two remain; UnknownName.
    """
    people = listed.people
    if unknown := next((name for name in names if name not in people), None):
        raise UnknownName("person in the lists", unknown, people)
    chosen = set(names or people)
    if num_people is not None:
        if num_people > len(people):
            raise ConfigError(f"--people {num_people}: the lists name {len(people)} people only.")
        # Sorting is stable: of equal ones, the first of the lists.
        chosen = set(sorted(people, key=lambda name: -people[name])[:num_people])
    if len(chosen) < 2:
        raise ConfigError(f"One person only, {next(iter(chosen))!r}, is asked for; a classifier needs at least two.")
    return tuple(face for face in listed.faces if face.person in chosen)


def _lines(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The place and the fields of each face, by column."""
    mode = file_mode(path)
    if stat.S_ISDIR(mode):
        raise DataError(f"{path} is a folder. Name the lists themselves, for example {path / 'facescrub_actors.txt'}.")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is no ordinary file.")
    columns: Sequence[str] | None = None
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        fields = [field.strip() for field in line.split("\t")]
        if columns is None:
            columns = _header(place, fields)
            if columns is not None:
                continue
            # As the lists of parts of FaceScrub are passed on.
            columns = COLUMNS
        if len(fields) != len(columns):
            raise DataError(
                f"{place} has {len(fields)} field{'s' * (len(fields) != 1)}. {_FORMAT} It holds {cut_text(line)!r}."
            )
        yield place, dict(zip(columns, fields, strict=True))


def _header(place: str, fields: list[str]) -> list[str] | None:
    """The columns that the first line names; None where it is a face's."""
    names = [field.lower() for field in fields]
    num_known = len(set(names) & set(COLUMNS))
    if num_known < 2:
        return None
    if sorted(names) != sorted(COLUMNS):
        raise DataError(f"{place} names the columns {', '.join(fields)}. {_FORMAT}")
    return names


def _face_of(place: str, fields: dict[str, str]) -> Face:
    for column in ("image_id", "face_id"):
        if not (fields[column].isascii() and fields[column].isdecimal() and len(fields[column]) <= MOST_DIGITS):
            raise DataError(
                f"{place}: {column} must be a whole number of at most {MOST_DIGITS} digits, but is "
                f"{cut_text(fields[column])!r}."
            )
    url = fields["url"]
    if not url:
        raise DataError(f"{place} has no address (url is empty). Fill it in, or remove the line.")
    if len(url) > MOST_URL_LETTERS:
        raise DataError(
            f"{place}: the address has {len(url):,} letters, {cut_text(url)!r}; it has at most {MOST_URL_LETTERS:,}."
        )
    return Face(
        # As one letter or as two, an ë is one: file systems differ in which they keep.
        _person(place, unicodedata.normalize("NFC", fields["name"])),
        fields["image_id"],
        fields["face_id"],
        url,
        _box(place, fields["bbox"]),
        _sha256(place, fields["sha256"]),
    )


def _person(place: str, name: str) -> str:
    """The name, which becomes the name of a class folder."""
    if not name:
        raise DataError(f"{place} names nobody (name is empty). Fill it in, or remove the line.")
    if not is_printable(name):
        raise DataError(f"{place}: the name {cut_text(name)!r} has unprintable characters: rename it.")
    reason = ""
    if "/" in name or "\\" in name:
        reason = "it holds a slash"
    elif is_clutter(name):
        reason = "folders of that name are passed over"
    elif name.lower() in SPLIT_WORDS:
        reason = "it is the name of a split"
    elif name.lower() == MANIFEST:
        reason = "it is the manifest's"
    elif name[0] in _FORMULA_SIGNS:
        reason = "a table program would take it for a formula in the manifest"
    elif len(name.encode()) > MOST_NAME_BYTES:
        reason = f"it is longer than {MOST_NAME_BYTES} bytes"
    if reason:
        raise DataError(f"{place}: the name {cut_text(name)!r} cannot be that of a class folder: {reason}. Rename it.")
    return name


def _box(place: str, text: str) -> Box:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4:
        raise DataError(f"{place}: the box must be four numbers, x1,y1,x2,y2, but is {cut_text(text)!r}.")
    if not all(re.fullmatch(r"[+-]?[0-9]{1,12}", part) for part in parts):
        raise DataError(f"{place}: the box's corners must be whole numbers of pixels, but are {cut_text(text)!r}.")
    x1, y1, x2, y2 = map(int, parts)
    if max(map(abs, (x1, y1, x2, y2))) > MOST_COORDINATE_PX:
        raise DataError(
            f"{place}: the box {text!r} lies more than {MOST_COORDINATE_PX:,} pixels away, where no picture reaches."
        )
    if x2 <= x1 or y2 <= y1:
        raise DataError(
            f"{place}: the box {text!r} is empty. It must be x1,y1,x2,y2 with `x1 < x2` and `y1 < y2`, upper left "
            "corner first."
        )
    return x1, y1, x2, y2


def _sha256(place: str, text: str) -> str:
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return text.lower()
    other = {32: " An MD5 has 32; it cannot take its place.", 40: " A SHA-1 has 40; it cannot take its place."}
    hint = other.get(len(text), "") if re.fullmatch("[0-9a-fA-F]+", text) else ""
    raise DataError(f"{place}: sha256 must have 64 hexadecimal digits, but is {cut_text(text)!r}.{hint}")


def _refuse_names_alike(faces: Iterable[Face], places: dict[str, str]) -> None:
    """Raises: DataError where two names differ in capitals alone."""
    first: dict[str, Face] = {}
    for face in faces:
        former = first.setdefault(face.person.casefold(), face)
        if former.person != face.person:
            raise DataError(
                f"{places[face.key]} spells {face.person!r} what {places[former.key]} spells {former.person!r}: are "
                "they one person? Spell one name in one way, and two names differently."
            )
