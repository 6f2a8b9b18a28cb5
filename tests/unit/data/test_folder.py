import os
import random
from pathlib import Path

import pytest

from archives import SUFFIXES, contents_of, write_archive
from conviction.core.errors import ConfigError, DataError
from conviction.data.pack import SPLIT_CODES, load_pack
from conviction.data.source.base import SPLIT_WORDS, Source, open_source, refuse_faults
from conviction.data.source.folder import FolderConfig
from pictures import write_class_folders


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"picture")
    return root


def opened(root: Path) -> Source:
    return open_source(FolderConfig(path=str(root)))


def listed(root: Path) -> list[tuple[str, str, str | None]]:
    return [(entry.path, entry.label, entry.split) for entry in opened(root).entries()]


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        opened(root).entries()
    assert str(root) in str(caught.value)
    return str(caught.value)


def refusal_of_a_name(root: Path) -> str:
    source = opened(root)
    with pytest.raises(DataError) as caught:
        refuse_faults(source.shown_path, source.entries())
    return str(caught.value)


def test_class_folders(tmp_path: Path) -> None:
    write(tmp_path, "dog/b.png", "cat/a.png", "dog/a.png")
    assert listed(tmp_path) == [
        ("cat/a.png", "cat", None),
        ("dog/a.png", "dog", None),
        ("dog/b.png", "dog", None),
    ]
    assert opened(tmp_path).classes() == ("cat", "dog")


def test_classes_that_look_the_same_are_noted(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write(tmp_path, f"{composed}/a.png", f"{decomposed}/b.png", "bar/c.png", "Bar/d.png")
    assert set(opened(tmp_path).notes()) == {
        f"2 classes look the same, {decomposed!r}: their accents are written in two ways.",
        "The classes 'Bar', 'bar' differ in capital letters alone.",
    }


@pytest.mark.parametrize("spelling", [*SPLIT_WORDS, "Test", "VALID"])
def test_every_spelling_of_a_split(tmp_path: Path, spelling: str) -> None:
    write(tmp_path, "Train/cat/1.png", "Train/dog/2.png", f"{spelling}/cat/3.png")
    split = SPLIT_WORDS[spelling.lower()]
    assert (f"{spelling}/cat/3.png", "cat", split) in listed(tmp_path)
    assert ("Train/cat/1.png", "cat", "train") in listed(tmp_path)


def test_splits_that_the_folders_of_a_published_set_have() -> None:
    assert {name for name, split in SPLIT_WORDS.items() if split == "validation"} == {
        "validation",
        "valid",
        "val",
        "dev",
    }
    assert {name for name, split in SPLIT_WORDS.items() if split == "train"} == {"train", "training"}
    assert {name for name, split in SPLIT_WORDS.items() if split == "test"} == {"test", "testing"}


def test_labels_do_not_shift_where_a_class_is_missing_from_a_split(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "set" / "train", {"ant": 1, "bee": 1, "cow": 1})
    write_class_folders(tmp_path / "set" / "test", {"cow": 1, "dog": 1})
    pack = load_pack(FolderConfig(path=str(tmp_path / "set")))
    assert pack.classes == ("ant", "bee", "cow", "dog")
    labels = dict(zip(pack.paths, pack.labels.tolist(), strict=True))
    assert labels == {
        "test/cow/cow-000.png": 2,
        "test/dog/dog-000.png": 3,
        "train/ant/ant-000.png": 0,
        "train/bee/bee-000.png": 1,
        "train/cow/cow-000.png": 2,
    }
    assert pack.splits.tolist() == [SPLIT_CODES["test"]] * 2 + [SPLIT_CODES["train"]] * 3
    assert pack.notes == (
        "The train split has no pictures of 'dog'.",
        "The test split has no pictures of 'ant', 'bee'.",
    )


@pytest.mark.parametrize("below", ["", "train/", "photos/", "photos/train/", "download/photos/"])
def test_wrapping_folders_make_no_difference(tmp_path: Path, below: str) -> None:
    write(tmp_path, f"{below}cat/1.png", f"{below}dog/2.png")
    split = "train/" if "train" in below else ""
    assert [(path, label) for path, label, _ in listed(tmp_path)] == [
        (f"{split}cat/1.png", "cat"),
        (f"{split}dog/2.png", "dog"),
    ]


def test_folders_within_a_class_belong_to_it(tmp_path: Path) -> None:
    write(tmp_path, "cat/old/1.png", "cat/old/very/2.png", "dog/3.png")
    assert listed(tmp_path) == [
        ("cat/old/1.png", "cat", None),
        ("cat/old/very/2.png", "cat", None),
        ("dog/3.png", "dog", None),
    ]


def test_clutter_is_passed_over_and_loose_files_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.png", "dog/2.png", "README.txt", "labels.csv")
    write(tmp_path, ".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", "dog/desktop.ini", "cat/._1.png", "dog/Icon\r")
    write(tmp_path, ".git/config", ".thumbs/big/1.png", "__MACOSX/cat/._1.png")
    assert [path for path, _, _ in listed(tmp_path)] == ["cat/1.png", "dog/2.png"]
    source = opened(tmp_path)
    source.entries()
    assert source.notes() == ("2 files outside class folders were passed over.",)
    (tmp_path / "labels.csv").unlink()
    source = opened(tmp_path)
    source.entries()
    assert source.notes() == ("1 file outside class folders was passed over.",)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_clutter_in_archives_is_passed_over(tmp_path: Path, suffix: str) -> None:
    names = ["set/cat/1.png", "set/dog/2.png", "set/.DS_Store", "__MACOSX/set/cat/._1.png", "set/cat/._1.png"]
    path = write_archive(tmp_path / f"set{suffix}", dict.fromkeys(names, b"picture"))
    assert [path for path, _, _ in listed(path)] == ["cat/1.png", "dog/2.png"]


def test_split_folders_beside_class_folders_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train/cat/1.png", "train/dog/2.png", "bird/3.png")
    assert "has the folder 'bird' beside 'train'" in refusal(tmp_path)


def test_a_class_called_test_is_a_class_where_there_is_no_training_folder(tmp_path: Path) -> None:
    write(tmp_path, "test/1.png", "control/2.png")
    assert listed(tmp_path) == [("control/2.png", "control", None), ("test/1.png", "test", None)]


def test_two_classes_called_like_splits_are_classes(tmp_path: Path) -> None:
    write(tmp_path, "test/1.png", "dev/2.png")
    assert [label for _, label, _ in listed(tmp_path)] == ["dev", "test"]


@pytest.mark.parametrize("splits", [["test"], ["test", "validation"]])
def test_split_folders_without_a_training_folder_are_refused(tmp_path: Path, splits: list[str]) -> None:
    for split in splits:
        write(tmp_path, f"{split}/cat/1.png", f"{split}/dog/2.png")
    assert "no folder 'train'" in refusal(tmp_path)


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    assert "holds no class folders" in refusal(tmp_path)
    write(tmp_path, "1.png", "2.png")
    assert "holds no class folders" in refusal(tmp_path)


@pytest.mark.parametrize("below", ["", "train/"])
def test_one_class_alone_is_refused(tmp_path: Path, below: str) -> None:
    write(tmp_path, f"{below}cat/1.png", f"{below}cat/2.png")
    assert "holds one class only, 'cat'" in refusal(tmp_path)


def test_an_empty_class_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.png", "dog/2.png", "cow/.DS_Store")
    (tmp_path / "bird").mkdir()
    assert "no pictures in the class folder 'bird', 'cow'" in refusal(tmp_path)


def test_a_class_that_is_empty_in_one_split_alone_is_kept(tmp_path: Path) -> None:
    write(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/cat/3.png")
    (tmp_path / "test" / "dog").mkdir()
    assert opened(tmp_path).classes() == ("cat", "dog")


@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
def test_names_in_any_language(tmp_path: Path, suffix: str) -> None:
    # Combining accents, an ideographic space, a narrow space as in macOS's screenshots, a joined emoji, a joined word.
    classes = ["Ölbild", "e\u0301te\u0301", "東京\u3000塔", "1.00\u202fPM", "👩\u200d🎨", "می\u200cخواهم"]
    contents = {f"{label}/{label}.png": b"picture" for label in classes}
    root = write_archive(tmp_path / f"set{suffix}", contents) if suffix else write(tmp_path / "set", *contents)
    assert opened(root).classes() == tuple(sorted(classes))


@pytest.mark.parametrize("odd", ["\x07", "\x1b[31m", "\n", "\u202e", "\ufeff", "\ue000"])
@pytest.mark.parametrize("place", ["cat{}/1.png", "cat/1{}.png"])
@pytest.mark.parametrize("suffix", ["", ".tar", ".zip"])
def test_unprintable_names_are_refused(tmp_path: Path, odd: str, place: str, suffix: str) -> None:
    names = ["dog/2.png", place.format(odd)]
    if suffix:
        root = write_archive(tmp_path / f"set{suffix}", dict.fromkeys(names, b"picture"))
    else:
        root = write(tmp_path / "set", *names)
    message = refusal_of_a_name(root)
    assert message == (
        f"set{suffix} holds {place.format(odd)!r}, which has unprintable characters in its name: rename it."
    )
    assert odd not in message


def test_unprintable_names_outside_class_folders_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.png", "dog/2.png", "read\nme.txt")
    source = opened(tmp_path)
    refuse_faults(source.shown_path, source.entries())
    assert source.notes() == ("1 file outside class folders was passed over.",)


@pytest.mark.parametrize("suffix", ["", ".tar"])
def test_names_that_are_no_text_are_refused(tmp_path: Path, suffix: str) -> None:
    names = ["cat/1.png", os.fsdecode(b"dog\xff/2.png")]
    if suffix:
        root = write_archive(tmp_path / f"set{suffix}", dict.fromkeys(names, b"picture"))
    else:
        root = tmp_path / "set"
        try:
            write(root, *names)
        except OSError:
            pytest.skip("this file system takes names of valid text alone")
    message = refusal_of_a_name(root)
    assert r"dog\udcff" in message
    message.encode()


def test_links_that_lead_round_in_circles(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    (tmp_path / "dog" / "cats").symlink_to(tmp_path / "cat")
    assert [path for path, _, _ in listed(tmp_path)] == ["cat/1.png", "dog/2.png"]


def test_a_link_to_a_class_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    write(tmp_path, "set/cat/1.png", "elsewhere/2.png")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere")
    assert [path for path, _, _ in listed(tmp_path / "set")] == ["cat/1.png", "dog/2.png"]


def test_the_same_pictures_give_the_same_pack_however_they_are_kept(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "set" / "train", {"cat": 3, "dog": 2}).parent
    write_class_folders(root / "test", {"cat": 1, "dog": 1})
    contents = list(contents_of(root).items())
    directory = load_pack(FolderConfig(path=str(root)))
    for number, suffix in enumerate(SUFFIXES):
        random.Random(number).shuffle(contents)
        plain = write_archive(tmp_path / f"plain{suffix}", dict(contents))
        wrapped = write_archive(tmp_path / f"wrapped{suffix}", {f"set/{name}": content for name, content in contents})
        for archive in (plain, wrapped):
            pack = load_pack(FolderConfig(path=str(archive)))
            assert (pack.digest, pack.paths, pack.classes) == (directory.digest, directory.paths, directory.classes)
            assert pack.shown_path == archive.name


def test_the_pack_holds_the_pictures_in_the_order_of_their_paths(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "set", {"cat": 2, "dog": 2})
    pack = load_pack(FolderConfig(path=str(tmp_path / "set")))
    assert pack.paths == ("cat/cat-000.png", "cat/cat-001.png", "dog/dog-000.png", "dog/dog-001.png")
    assert pack.labels.tolist() == [0, 0, 1, 1]
    # The first class is dark and the last one light.
    assert pack.images[:2].mean() < 90 < 160 < pack.images[2:].mean()


def test_a_path_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"data\.path: say where the class folders are"):
        open_source(FolderConfig())


def test_the_working_folder_has_a_name_in_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "photos", "cat/1.png", "dog/2.png")
    monkeypatch.chdir(tmp_path / "photos" / "cat")
    assert opened(Path("..")).shown_path == "photos"
    monkeypatch.chdir(tmp_path / "photos")
    assert opened(Path()).shown_path == "photos"
