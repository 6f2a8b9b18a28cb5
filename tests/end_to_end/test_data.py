"""`conviction data` as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from command import conviction
from pictures import write_class_folders


def test_info_prints_counts_sizes_and_both_deviations() -> None:
    finished = conviction("data", "info", "digits")
    assert finished.code == 0, finished.err
    lines = [" ".join(line.split()) for line in finished.out.splitlines()]
    assert lines[0].endswith("1,797 pictures of 10 classes")
    # 178 zeros: a fifth is 36 for validation and for test.
    assert "0 106 36 36 178" in lines
    assert "all 1,079 359 359 1,797" in lines
    assert "Pictures 8×8 pixels (height×width), 1 channel (grey)" in lines
    assert "Splits validation and test drawn by class from seed 0" in lines
    assert "Channels on the scale [0, 1], from the 1,079 training pictures alone:" in lines
    assert any(line.startswith("average of the pictures' own deviations 0.") for line in lines)
    assert "does not, and is therefore never larger." in " ".join(lines)


def test_json_is_one_document(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", {"cat": 20, "dog": 10}, (12, 9))
    found = conviction("data", "info", root, "--set", "data.image_size_px=6", "--json").json
    assert found["counts"] == {
        "train": {"cat": 16, "dog": 8},
        "validation": {"cat": 2, "dog": 1},
        "test": {"cat": 2, "dog": 1},
    }
    assert found["stored_sizes"] == [{"height_px": 12, "width_px": 9, "count": 24}]
    assert (found["channels"], found["height_px"], found["width_px"]) == (3, 6, 6)
    assert (found["statistics"]["split"], found["statistics"]["count"]) == ("train", 24)
    assert all(
        own <= over_all
        for own, over_all in zip(
            found["statistics"]["mean_picture_deviation"], found["statistics"]["deviation"], strict=True
        )
    )
    assert found["sheet"] is None
    assert "never larger" in found["why_two_deviations"]


def test_archives_are_read(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos", {"cat": 10, "dog": 10})
    subprocess.run(["tar", "-cf", tmp_path / "photos.tar", "-C", tmp_path, "photos"], check=True)
    found = conviction("data", "info", tmp_path / "photos.tar", "--json").json
    assert sum(found["counts"]["train"].values()) == 16


def test_lists_and_data_sets_are_known_by_their_files(tmp_path: Path) -> None:
    saved = conviction("data", "info", Path(__file__).parents[1] / "data_sets" / "splits", "--json").json
    assert (saved["source"], saved["counts"]["validation"]) == ("hugging_face", {"dog": 2, "cat": 2})
    root = write_class_folders(tmp_path / "photos", {"cat": 10, "dog": 10})
    names = [path.relative_to(root).as_posix() for path in root.rglob("*.png")]
    (root / "mine.csv").write_text("\n".join(["file,label", *(f"{name},{name[:3]}" for name in names)]))
    listed = conviction("data", "info", root / "mine.csv", "--json").json
    assert (listed["source"], listed["counts"]["train"]) == ("table", {"cat": 8, "dog": 8})


def test_sheet(tmp_path: Path) -> None:
    for name in ("sheet.png", "sheet.svg"):
        finished = conviction("data", "info", "digits", "--save-sheet", tmp_path / name)
        assert f"Sheet       {tmp_path / name}" in finished.out
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width > 1000
    drawn = (tmp_path / "sheet.svg").read_text()
    assert "1,079 pictures of 10 classes" in drawn
    # Ten pictures of each of ten classes.
    assert len(list(ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}image"))) == 100


def test_the_test_split_stays_sealed(tmp_path: Path) -> None:
    assert conviction("data", "info", "digits", "--save-sheet", tmp_path / "sheet.png").code == 0
    assert not list((tmp_path / "runs").glob("*"))


def test_preview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finished = conviction("data", "preview", "digits", "--augment", "random_crop:padding_px=2", "--augment", "rotate")
    assert finished.code == 0, finished.err
    lines = finished.out.splitlines()
    assert lines[0] == "digits: 6 pictures of the 1,079 of the training split, seed 0"
    assert lines[1] == "random_crop (padding_px 2), rotate"
    assert lines[2] == "Preview     preview.png"
    with Image.open(tmp_path / "preview.png") as picture:
        assert picture.width > 1000
    assert not list((tmp_path / "runs").glob("*"))


def test_preview_of_one_picture_alone_says_that_it_is_not_mixed(tmp_path: Path) -> None:
    arguments = ("--augment", "mixup", "--pictures", "1", "--out", tmp_path / "one.svg")
    finished = conviction("data", "preview", "digits", *arguments)
    assert finished.out.splitlines()[-1].startswith("note: one picture alone cannot be mixed")
    assert "note: one picture alone cannot be mixed" in (tmp_path / "one.svg").read_text()


def test_preview_of_a_recipes_own_augmentations(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "data: digits\nsplit: {test: 0.1, validation: 0.1}\nnetwork: digits\nseed: 7\n"
        "augment: [mixup, {name: cutout, size_px: 3}]\n"
    )
    arguments = ("--pictures", "3", "--variants", "2", "--out", tmp_path / "mine.svg", "--json")
    found = conviction("data", "preview", recipe, *arguments).json
    assert (found["split"], found["num_train"], found["seed"], found["num_variants"]) == ("train", 1439, 7, 2)
    assert [entry["name"] for entry in found["augment"]] == ["mixup", "cutout"]
    assert len(found["pictures"]) == 3
    assert all(sum(shares.values()) == pytest.approx(1) for row in found["pictures"] for shares in row["shares"])
    drawn = ElementTree.parse(tmp_path / "mine.svg")
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}image"))) == 9


@pytest.mark.parametrize(
    ("arguments", "kind", "part"),
    [
        (("info",), "usage", "SOURCE"),
        (("inf", "digits"), "usage", "inf"),
        (("info", "digts"), "data", "Did you mean 'digits'?"),
        (("info", "nowhere.yaml"), "config", "Cannot read nowhere.yaml"),
        (("info", "nowhere/photos"), "data", "No file or folder 'nowhere/photos'"),
        (("info", "digits", "--save-sheet", "sheet.pdf"), "config", "written as .png or .svg, but got 'sheet.pdf'"),
        (("info", "digits", "--save-sheet", "nowhere/sheet.png"), "storage", "its folder does not exist"),
        (("info", "digits", "--set", "split.test"), "config", "KEY=VALUE"),
        (("info", "digits", "--set", "split.test=5000"), "config", "only 1797 are there"),
        (("info", "digits", "--set", "data.size=8"), "config", "unknown key"),
        (("info", "digits", "mnist"), "usage", "unexpected extra argument"),
        (("preview",), "usage", "SOURCE"),
        (("preview", "digts", "--augment", "invert"), "data", "Did you mean 'digits'?"),
        (("preview", "lenet5-mnist"), "config", "has no augmentations to preview"),
        (("preview", "digits", "--augment", "randaument"), "config", "Did you mean 'randaugment'?"),
        (("preview", "digits", "--augment", "rotate:degres=5"), "config", "Did you mean 'degrees'?"),
        (("preview", "digits", "--augment", "rotate:5"), "config", "NAME:KEY=VALUE"),
        (("preview", "digits", "--augment", "{rotate"), "config", "not valid YAML"),
        (("preview", "digits", "--augment", "random_crop:padding_px=8"), "config", "padding_px < 8"),
        (("preview", "digits", "--augment", "invert", "--out", "p.pdf"), "config", "written as .png or .svg"),
        (("preview", "digits", "--augment", "invert", "--out", "no/p.png"), "storage", "its folder does not exist"),
        (("preview", "digits", "--augment", "invert", "--pictures", "0"), "usage", "greater than or equal to 1"),
        (("preview", "digits", "--augment", "invert", "--seed", "-1"), "usage", "greater than or equal to 0"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[str, ...], kind: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finished = conviction("data", *arguments, "--json")
    assert finished.code == 2
    assert finished.json["error"]["kind"] == kind
    assert part in finished.json["error"]["message"]
    assert not list(tmp_path.glob("*.p*"))


def test_the_group_alone_shows_its_help() -> None:
    finished = conviction("data")
    assert finished.code == 0
    assert "info" in finished.out


def test_help_and_counts_load_no_drawing_library() -> None:
    code = (
        "import sys\nfrom conviction.cli.main import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as end: assert end.code == 0, end.code\n"
        "print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    for arguments, loaded in ((("data", "info", "--help"), "[]"), (("data", "info", "digits"), "['torch']")):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == loaded
