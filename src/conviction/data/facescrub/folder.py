"""The folder that a list is gathered into: class folders, a manifest, and what the next start has to know.

Whatever kills the program, each file in it is whole: faces and manifest are moved into place in one step, and the
journal is only ever appended to, so that a kill can cut off its last line at most.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from conviction.core.errors import ConfigError, RunError, storage_faults
from conviction.core.files import (
    locked,
    make_folder,
    read_json,
    remove_leftovers,
    write_bytes,
    write_json,
    write_text,
)
from conviction.core.records import SplitName
from conviction.data.facescrub.face_list import MANIFEST, Face
from conviction.data.facescrub.outcome import NOT_TRIED, OUTCOMES, Outcome
from conviction.data.source.base import listed
from conviction.data.source.container import is_clutter

FORMAT = 1
STATE = ".facescrub"
MANIFEST_COLUMNS = (
    "person", "image_id", "face_id", "url", "bbox", "sha256", "outcome", "reason", "split", "file"
)  # fmt: skip
_KEY = re.compile(r"[^./\\][^/\\]*/[0-9]+-[0-9]+\.jpg")
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class FaceFolder:
    """A folder of gathered faces. Open it with `open_face_folder`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = path / STATE
        self._unplaced = self._state / "unplaced"
        self._outcomes = _read_journal(self._state / "journal.jsonl")
        # Looked for once: of a hundred thousand faces, asking for each would take longer than all the rest.
        self._places = _find_faces((self._unplaced, path, *(path / split for split in SPLITS)))

    def outcome(self, face: Face) -> Outcome:
        """What is known of a face: `not_tried` where the list says something new of it, or its file is gone."""
        found = self._outcomes.get(face.key)
        if found is None or found[0] != _identity(face):
            return NOT_TRIED
        if found[1].name == "kept":
            return found[1] if self.find(face.key) else NOT_TRIED
        return found[1] if found[2] == face.url else NOT_TRIED

    def find(self, key: str) -> Path | None:
        """Where the file of a kept face lies."""
        return self._places.get(key)

    def keep(self, face: Face, content: bytes) -> None:
        """Write a face's file; `arrange` brings it into the class folders. Raises: StorageError."""
        target = self._unplaced / face.key
        make_folder(target.parent)
        write_bytes(target, content)
        former = self._places.get(face.key, target)
        self._places[face.key] = target
        if former != target:
            former.unlink(missing_ok=True)

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        """The journal, open for further outcomes; what earlier starts left in it is written anew, without repeats."""
        path = self._state / "journal.jsonl"
        write_text(path, "".join(_entry(key, *found) for key, found in self._outcomes.items()))
        with storage_faults(path), path.open("a", encoding="utf-8") as out:
            yield Journal(out, self._outcomes)

    def arrange(self, splits: Mapping[Face, SplitName | None]) -> None:
        """Move the faces' files: into their split's class folders, into plain ones (None), all others out of them.

        A start that was killed in the middle is completed by the next one. Raises: StorageError.
        """
        wanted = {face.key: self.path / (split or "") / face.key for face, split in splits.items()}
        for key, found in self._outcomes.items():
            if (place := self.find(key)) is None:
                continue
            if found[1].name != "kept":
                # Kept once, before the list said something new of it.
                self._places.pop(key).unlink(missing_ok=True)
                continue
            target = wanted.get(key, self._unplaced / key)
            if place != target:
                make_folder(target.parent)
                with storage_faults(target):
                    os.replace(place, target)
                self._places[key] = target
        self._remove_empty({key.partition("/")[0] for key in self._outcomes})

    def write_manifest(self, faces: Sequence[Face], splits: Mapping[Face, SplitName | None]) -> None:
        """A line for each face of the lists. Raises: StorageError."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(MANIFEST_COLUMNS)
        for face in faces:
            outcome = self.outcome(face)
            place = self.find(face.key) if outcome.name == "kept" else None
            shown_place = place.relative_to(self.path).as_posix() if place else ""
            box = ",".join(map(str, face.box_px))
            said = (outcome.name, outcome.reason, splits.get(face) or "", shown_place)
            writer.writerow((face.person, face.image_id, face.face_id, face.url, box, face.sha256, *said))
        write_text(self.path / MANIFEST, text.getvalue())

    def _remove_empty(self, people: Iterable[str]) -> None:
        """Training refuses a class folder without pictures."""
        for root in (self.path, *(self.path / split for split in SPLITS), self._unplaced):
            for person in people:
                with suppress(OSError):
                    (root / person).rmdir()
        for split in SPLITS:
            with suppress(OSError):
                (self.path / split).rmdir()


class Journal:
    """Outcomes, written down one by one as they become known."""

    def __init__(self, out: TextIO, outcomes: dict[str, Found]) -> None:
        self._out = out
        self._outcomes = outcomes

    def note(self, face: Face, outcome: Outcome) -> None:
        """Raises: OSError where the disk is full."""
        self._outcomes[face.key] = (_identity(face), outcome, face.url)
        self._out.write(_entry(face.key, *self._outcomes[face.key]))
        self._out.flush()


# What the outcome is of (checksum and box), the outcome, and the address that it came from.
Found = tuple[str, Outcome, str]


@contextmanager
def open_face_folder(path: Path, size_px: int) -> Iterator[FaceFolder]:
    """The folder to gather into, held against a second process.

    Raises: ConfigError where it holds something else, faces of another size, or is being filled by another process;
    StorageError.
    """
    state = path / STATE
    _refuse_other_content(path)
    make_folder(state)
    with locked(state / "lock", wait=False) as is_ours:
        if not is_ours:
            raise ConfigError(f"Another process is gathering faces into {path}. Wait for it, or name another folder.")
        _check_settings(path, size_px)
        remove_leftovers(path)
        remove_leftovers(state)
        for folder in (state / "unplaced").glob("*"):
            remove_leftovers(folder)
        yield FaceFolder(path)


def _refuse_other_content(path: Path) -> None:
    try:
        others = sorted(entry.name for entry in path.iterdir() if not is_clutter(entry.name))
        is_ours = (path / STATE).is_dir()
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise ConfigError(f"--out: {path} is a file. Name a folder.") from None
    except OSError as error:
        raise ConfigError(f"--out: cannot read {path}: {error.strerror}.") from error
    if others and not is_ours:
        raise ConfigError(
            f"--out: {path} holds something else already ({listed(others, 3)}). Name a folder that is new or empty, or "
            "one that this command has made."
        )


def _check_settings(path: Path, size_px: int) -> None:
    place = path / STATE / "settings.json"
    if not place.exists():
        write_json(place, {"format": FORMAT, "size_px": size_px})
        return
    try:
        settings = read_json(place)
        written, former_px = settings["format"], settings["size_px"]
    except (RunError, KeyError, TypeError) as error:
        raise ConfigError(f"{place} is damaged. Name another folder, or delete {path} and begin anew.") from error
    if written != FORMAT:
        raise ConfigError(f"{path} has format {written}, and this version of Conviction reads {FORMAT}: update it.")
    if former_px != size_px:
        raise ConfigError(
            f"{path} holds faces of {former_px}×{former_px} pixels, and {size_px}×{size_px} are asked for. Write "
            f"--size-px {former_px}, or name another folder."
        )


def _identity(face: Face) -> str:
    return f"{face.sha256} {','.join(map(str, face.box_px))}"


def _entry(key: str, identity: str, outcome: Outcome, url: str) -> str:
    return json.dumps([key, identity, outcome.name, outcome.reason, url], ensure_ascii=True) + "\n"


def _read_journal(path: Path) -> dict[str, Found]:
    """The last outcome of each face. A line that a kill cut off is passed over: its face is tried again."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.") from error
    found: dict[str, Found] = {}
    for line in lines:
        with suppress(ValueError, TypeError, RecursionError):
            key, identity, name, reason, url = json.loads(line)
            texts = all(isinstance(part, str) for part in (key, identity, reason, url))
            if texts and name in OUTCOMES and _KEY.fullmatch(key):
                found[key] = (identity, Outcome(name, reason), url)
    return found


def _find_faces(roots: Sequence[Path]) -> dict[str, Path]:
    """The files of faces below the folders of people in each root.

    Of two files of one face the first root's is the newer: a start was killed before it deleted the other one.
    """
    found: dict[str, Path] = {}
    for root in roots:
        for place in root.glob("*/*.jpg"):
            key = f"{place.parent.name}/{place.name}"
            if found.setdefault(key, place) != place and _KEY.fullmatch(key):
                place.unlink(missing_ok=True)
    return found
