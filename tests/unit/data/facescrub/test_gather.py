"""Gathering as a whole: what is kept, what a later start does, and what the split holds."""

import contextlib
import csv
import hashlib
import io
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import picture_server as server_of
from conviction.core.errors import ConfigError, DataError, StorageError
from conviction.data.facescrub import folder as face_folder
from conviction.data.facescrub import gather as gathering
from conviction.data.facescrub.divide import divide_faces
from conviction.data.facescrub.face_list import Face
from conviction.data.facescrub.fetch import Limits
from conviction.data.facescrub.gather import GatherConfig, Gathered
from conviction.data.pack import load_pack
from conviction.data.source.base import open_source
from conviction.data.source.folder import FolderConfig
from conviction.data.split import SplitConfig, divide
from picture_server import PictureServer, first_then, other_bytes, serving, status

QUICK = Limits(timeout_s=5.0, num_retries=0)


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with serving() as running:
        yield running


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def faces_on(server: PictureServer, **counts: int) -> list[Face]:
    """So many faces of each person, each in a picture of its own that the server serves."""
    faces = []
    for name, count in counts.items():
        for _ in range(count):
            number = len(server.files) + 1
            content = picture(number)
            server.files[f"/{number}.png"] = content
            digest = hashlib.sha256(content).hexdigest()
            faces.append(Face(name, str(number), "0", f"{server.url}/{number}.png", (2, 2, 22, 22), digest))
    return faces


def gather(faces: list[Face], path: Path, **settings: object) -> Gathered:
    config = {"size_px": 16, "limits": QUICK, "allows_private": True, "num_connections": 4, **settings}
    return gathering.gather(faces, path, GatherConfig(**config))  # type: ignore[arg-type]


def manifest(path: Path) -> dict[str, dict[str, str]]:
    """The manifest's lines by image id."""
    with (path / "manifest.csv").open(newline="") as file:
        return {row["image_id"]: row for row in csv.DictReader(file)}


def files(path: Path) -> set[str]:
    """The pictures in the class folders."""
    found = (file.relative_to(path) for file in path.rglob("*.jpg"))
    return {file.as_posix() for file in found if not file.parts[0].startswith(".")}


def test_class_folders_and_manifest(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=2, Bo=2)
    server.answers["/2.png"] = status(404)
    server.answers["/3.png"] = other_bytes(picture(99))
    gathered = gather(faces, tmp_path / "out")
    assert files(tmp_path / "out") == {"Ann/1-0.jpg", "Bo/4-0.jpg"}
    assert [gathered.outcomes[face].name for face in faces] == ["kept", "dead_link", "hash_differs", "kept"]
    rows = manifest(tmp_path / "out")
    assert rows["1"] == {
        "person": "Ann",
        "image_id": "1",
        "face_id": "0",
        "url": f"{server.url}/1.png",
        "bbox": "2,2,22,22",
        "sha256": faces[0].sha256,
        "outcome": "kept",
        "reason": "",
        "split": "",
        "file": "Ann/1-0.jpg",
    }
    assert (rows["2"]["outcome"], rows["2"]["reason"]) == ("dead_link", "the server answers 404 Not Found")
    assert (rows["3"]["outcome"], rows["3"]["file"]) == ("hash_differs", "")
    with Image.open(tmp_path / "out" / "Ann" / "1-0.jpg") as image:
        assert (image.size, image.mode, image.format) == ((16, 16), "RGB", "JPEG")
    # And training can read it.
    assert open_source(FolderConfig(path=str(tmp_path / "out"))).classes() == ("Ann", "Bo")


def test_pictures_are_fetched_side_by_side(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=4, Bo=4)
    # Each answer waits until three more are asked for.
    together = threading.Barrier(4, timeout=30)
    for path, content in server.files.items():
        server.answers[path] = lambda handler, content=content: (together.wait(), handler.reply(200, content))
    assert len(gather(faces, tmp_path / "out", limits=Limits(timeout_s=60.0), num_connections=4).kept) == 8


def test_two_faces_of_one_picture_are_fetched_once(server: PictureServer, tmp_path: Path) -> None:
    first, second = faces_on(server, Ann=1, Bo=1)
    other = Face("Bo", first.image_id, "7", first.url, (10, 5, 30, 25), first.sha256)
    outside = Face("Bo", first.image_id, "8", first.url, (100, 5, 130, 25), first.sha256)
    gathered = gather([first, second, other, outside], tmp_path / "out")
    assert files(tmp_path / "out") == {"Ann/1-0.jpg", "Bo/2-0.jpg", "Bo/1-7.jpg"}
    assert gathered.outcomes[outside].name == "box_outside"
    assert server.asked == {"/1.png": 1, "/2.png": 1}


def test_the_next_start_asks_for_what_may_have_passed_alone(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=3, Bo=3)
    server.answers["/1.png"] = first_then(status(503), 1, server.files["/1.png"])
    server.answers["/2.png"] = status(404)
    server.answers["/3.png"] = other_bytes(server_of.WEB_PAGE)
    server.answers["/4.png"] = first_then(server_of.reset, 1, server.files["/4.png"])
    first = gather(faces, tmp_path / "out")
    assert [outcome.name for outcome in first.outcomes.values()] == [
        *("no_answer", "dead_link", "not_an_image", "no_answer", "kept", "kept")
    ]
    server.asked.clear()
    second = gather(faces, tmp_path / "out")
    assert server.asked == {"/1.png": 1, "/4.png": 1}
    assert [outcome.name for outcome in second.outcomes.values()].count("kept") == 4
    # The reason of the first start is in the second's manifest.
    assert manifest(tmp_path / "out")["3"]["reason"] == f"is a web page ({len(server_of.WEB_PAGE)} bytes)"
    server.asked.clear()
    del server.answers["/2.png"]
    third = gather(faces, tmp_path / "out", retries_final=True)
    assert server.asked == {"/2.png": 1, "/3.png": 1}
    assert third.outcomes[faces[1]].name == "kept"


def test_a_list_that_says_something_new_is_followed(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=2, Bo=2)
    server.answers["/2.png"] = status(404)
    gather(faces, tmp_path / "out")
    former = (tmp_path / "out" / "Ann" / "1-0.jpg").read_bytes()
    server.asked.clear()
    # Another box, another address, another checksum.
    faces[0] = Face("Ann", "1", "0", faces[0].url, (5, 5, 25, 25), faces[0].sha256)
    server.files["/moved.png"] = picture(2)
    faces[1] = Face("Ann", "2", "0", f"{server.url}/moved.png", faces[1].box_px, faces[1].sha256)
    faces[2] = Face("Bo", "3", "0", faces[2].url, faces[2].box_px, "ab" * 32)
    gathered = gather(faces, tmp_path / "out")
    assert server.asked == {"/1.png": 1, "/moved.png": 1, "/3.png": 1}
    assert (tmp_path / "out" / "Ann" / "1-0.jpg").read_bytes() != former
    assert gathered.outcomes[faces[2]].name == "hash_differs"
    assert files(tmp_path / "out") == {"Ann/1-0.jpg", "Ann/2-0.jpg", "Bo/4-0.jpg"}


def test_a_face_that_is_cut_anew_is_in_one_place(server: PictureServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    faces = faces_on(server, Ann=6, Bo=6)
    gather(faces, out, num_train_per_person=2)
    faces = [Face(face.person, face.image_id, "0", face.url, (5, 5, 25, 25), face.sha256) for face in faces]
    gather(faces, out)
    assert len(list(out.rglob("*.jpg"))) == 12
    assert {name.split("/")[0] for name in files(out)} == {"Ann", "Bo"}


def test_a_face_whose_file_is_gone_is_fetched_again(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=2, Bo=1)
    gather(faces, tmp_path / "out")
    server.asked.clear()
    (tmp_path / "out" / "Ann" / "2-0.jpg").unlink()
    gather(faces, tmp_path / "out")
    assert server.asked == {"/2.png": 1}
    assert "Ann/2-0.jpg" in files(tmp_path / "out")


def test_split(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=9, Bo=8, Cy=5)
    gathered = gather(faces, tmp_path / "out", num_train_per_person=4)
    counts = Counter(name.rpartition("/")[0] for name in files(tmp_path / "out"))
    # Of five that are left, the odd one validates; Cy's five are fewer than 4 + 1 + 1.
    assert counts == {
        **dict.fromkeys(("train/Ann", "train/Bo"), 4),
        **dict.fromkeys(("test/Ann", "validation/Bo", "test/Bo"), 2),
        "validation/Ann": 3,
    }
    rows = manifest(tmp_path / "out")
    assert rows["22"]["file"] == ".facescrub/unplaced/Cy/22-0.jpg"
    assert rows["22"]["split"] == ""
    assert all(row["file"].split("/")[0] == row["split"] for row in rows.values() if row["person"] != "Cy")
    assert {face.person for face in gathered.splits} == {"Ann", "Bo"}
    source = open_source(FolderConfig(path=str(tmp_path / "out")))
    assert Counter(entry.split for entry in source.entries()) == {"train": 8, "validation": 5, "test": 4}


def test_a_split_can_be_changed_and_taken_away_without_fetching(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=6, Bo=6, Cy=3)
    out = tmp_path / "out"
    gather(faces, out)
    flat = {name: (out / name).read_bytes() for name in files(out)}
    server.asked.clear()
    gather(faces, out, num_train_per_person=4)
    assert {name.split("/")[0] for name in files(out)} == {"train", "validation", "test"}
    gather(faces, out, num_train_per_person=1)
    assert Counter(name.split("/")[0] for name in files(out)) == {"train": 3, "validation": 7, "test": 5}
    gather(faces, out)
    assert {name: (out / name).read_bytes() for name in files(out)} == flat
    assert sorted(entry.name for entry in out.iterdir()) == [".facescrub", "Ann", "Bo", "Cy", "manifest.csv"]
    assert not server.asked


def test_the_split_is_the_one_that_a_recipe_draws(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=9, Bo=8)
    gather(faces, tmp_path / "out")
    pack = load_pack(FolderConfig(path=str(tmp_path / "out")))
    drawn = dict(divide(pack, SplitConfig(train_per_class=4), seed=3).by_path(pack.paths))
    assert {face.key: split for face, split in divide_faces(faces, 4, seed=3).items()} == drawn


def test_fewer_people_take_the_others_out_of_the_class_folders(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=2, Bo=2, Cy=2)
    gather(faces, tmp_path / "out")
    server.asked.clear()
    gather(faces[:4], tmp_path / "out")
    assert {name.split("/")[0] for name in files(tmp_path / "out")} == {"Ann", "Bo"}
    assert not (tmp_path / "out" / "Cy").exists()
    gather(faces, tmp_path / "out")
    assert len(files(tmp_path / "out")) == 6
    assert not server.asked


def test_nothing_kept(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=1, Bo=2)
    for number in (1, 2):
        server.answers[f"/{number}.png"] = status(404)
    server.answers["/3.png"] = status(500)
    with pytest.raises(DataError) as caught:
        gather(faces, tmp_path / "out")
    assert "None of 3 faces could be kept (dead link 2, no answer 1)" in str(caught.value)
    assert "the server answers 404 Not Found." in str(caught.value)
    assert len(manifest(tmp_path / "out")) == 3


def test_too_few_for_the_split(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=4, Bo=3)
    with pytest.raises(DataError) as caught:
        gather(faces, tmp_path / "out", num_train_per_person=2)
    assert "fewer than two people have the 4 faces that the splits take" in str(caught.value)
    assert "(most: 'Ann' 4, 'Bo' 3)" in str(caught.value)
    server.asked.clear()
    assert len(gather(faces, tmp_path / "out", num_train_per_person=1).splits) == 7
    assert not server.asked


FOLDERS = {
    "other files": "holds something else already ('notes.txt')",
    "a file": "is a file. Name a folder.",
    "another size": "holds faces of 32×32 pixels, and 16×16 are asked for. Write --size-px 32",
    "a newer format": "has format 9, and this version of Conviction reads 1",
    "damaged settings": "settings.json is damaged",
    "settings that are a list": "settings.json is damaged",
    "another process": "Another process is gathering faces into",
}


@pytest.mark.parametrize("fault", FOLDERS)
def test_folder_that_is_of_no_use(fault: str, server: PictureServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    faces = faces_on(server, Ann=1, Bo=1)
    if fault == "a file":
        out.write_text("")
    elif fault == "other files":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    else:
        gather(faces, out, size_px=32 if fault == "another size" else 16)
    settings = {
        "a newer format": '{"format": 9, "size_px": 16}',
        "damaged settings": "{",
        "settings that are a list": "[]",
    }
    if fault in settings:
        (out / ".facescrub" / "settings.json").write_text(settings[fault])
    server.asked.clear()
    with contextlib.ExitStack() as held:
        if fault == "another process":
            held.enter_context(face_folder.open_face_folder(out, 16))
        with pytest.raises(ConfigError) as caught:
            gather(faces, out)
    assert FOLDERS[fault] in str(caught.value)
    assert str(out) in str(caught.value)
    assert not server.asked


def test_an_empty_folder_and_one_with_hidden_files_are_filled(server: PictureServer, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".DS_Store").touch()
    assert len(gather(faces_on(server, Ann=1, Bo=1), tmp_path / "out").kept) == 2


@pytest.mark.parametrize(
    "damage",
    [
        b'["Ann/2-0.jpg", "ab',
        b"\xff\xfe\n",
        b"{}\n[]\n7\n" + b"[" * 10_000 + b"\n",
        b'["../../evil/1-0.jpg", "", "kept", "", ""]\n["Ann/1-0.jpg", 7, "kept", "", ""]\n',
        b'["Ann/1-0.jpg", "", "stolen", "", ""]\n',
    ],
)
def test_a_damaged_journal_costs_no_more_than_its_lines(server: PictureServer, tmp_path: Path, damage: bytes) -> None:
    faces = faces_on(server, Ann=2, Bo=2)
    gather(faces, tmp_path / "out")
    journal = tmp_path / "out" / ".facescrub" / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]) + damage)
    server.asked.clear()
    gather(faces, tmp_path / "out")
    assert server.asked.total() == 1
    assert len(files(tmp_path / "out")) == 4
    assert all(json.loads(line)[2] == "kept" for line in journal.read_text().splitlines())


def test_a_start_that_was_killed_while_it_moved_files_is_completed(
    server: PictureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = faces_on(server, Ann=6, Bo=6)
    gather(faces, tmp_path / "out")
    server.asked.clear()
    moved = Counter[str]()
    replace = os.replace

    def killed(*places: Path) -> None:
        moved["files"] += 1
        if moved["files"] == 5:
            raise MemoryError("stands for the kill")
        replace(*places)

    with monkeypatch.context() as patched:
        patched.setattr(face_folder.os, "replace", killed)
        with pytest.raises(MemoryError):
            gather(faces, tmp_path / "out", num_train_per_person=4)
    assert "Ann" in os.listdir(tmp_path / "out")
    assert "train" in os.listdir(tmp_path / "out")
    gather(faces, tmp_path / "out", num_train_per_person=4)
    assert Counter(name.split("/")[0] for name in files(tmp_path / "out")) == {"train": 8, "validation": 2, "test": 2}
    assert not server.asked


def test_an_interruption_leaves_what_was_kept_in_the_class_folders(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=10, Bo=10)

    def interrupt(num_done: int, num_pictures: int, num_kept: int) -> None:
        assert num_pictures == 20
        if num_done == 7:
            raise KeyboardInterrupt

    config = GatherConfig(size_px=16, limits=QUICK, allows_private=True, num_connections=2)
    with pytest.raises(KeyboardInterrupt):
        gathering.gather(faces, tmp_path / "out", config, interrupt)
    assert len(files(tmp_path / "out")) == 7
    assert Counter(row["outcome"] for row in manifest(tmp_path / "out").values()) == {"kept": 7, "not_tried": 13}
    server.asked.clear()
    assert len(gather(faces, tmp_path / "out").kept) == 20
    assert server.asked.total() == 13


def test_a_full_disk_is_named(server: PictureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = faces_on(server, Ann=2, Bo=2)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="the disk is full"):
        gather(faces, tmp_path / "out")
    monkeypatch.undo()
    assert len(gather(faces, tmp_path / "out").kept) == 4


def test_our_own_bug_in_a_thread_is_seen(
    server: PictureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(gathering, "check_content", broken)
    with pytest.raises(ZeroDivisionError):
        gather(faces_on(server, Ann=2, Bo=2), tmp_path / "out")


def test_of_two_files_of_one_face_the_newer_remains(server: PictureServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    faces = faces_on(server, Ann=6, Bo=6)
    gather(faces, out, num_train_per_person=2)
    # As a kill leaves them between writing a face anew and deleting the former one.
    older = next((out / "test").glob("Ann/*.jpg"))
    newer = out / ".facescrub" / "unplaced" / "Ann" / older.name
    newer.parent.mkdir(parents=True, exist_ok=True)
    newer.write_bytes(b"newer")
    gather(faces, out)
    assert (out / "Ann" / older.name).read_bytes() == b"newer"
    assert len(list(out.rglob(older.name))) == 1


def test_leftovers_of_a_kill_are_swept_away(server: PictureServer, tmp_path: Path) -> None:
    faces = faces_on(server, Ann=1, Bo=1)
    gather(faces, tmp_path / "out")
    unplaced = tmp_path / "out" / ".facescrub" / "unplaced" / "Ann"
    unplaced.mkdir(parents=True, exist_ok=True)
    (unplaced / ".writing-0123-9-9.jpg").write_bytes(b"half")
    gather(faces, tmp_path / "out")
    assert not unplaced.exists()
