"""Data sets of the library `datasets`: folders that it wrote itself (tests/data_sets), and faults in such folders."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from conviction.core.errors import ConfigError, DataError
from conviction.data.pack import load_pack
from conviction.data.source.base import Entry, open_source
from conviction.data.source.hugging_face import HuggingFaceConfig
from conviction.data.split import SplitConfig, divide

SAVED = Path(__file__).parents[2] / "data_sets"
FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}


def opened(folder: Path, **settings: Any) -> Any:
    return open_source(HuggingFaceConfig(path=str(folder), **settings))


def expected_pixels(count: int, seed: int) -> np.ndarray:
    """As tests/data_sets/write.py draws them."""
    values = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    values[:, 0, 0, :] = np.arange(count)[:, None]
    return values


@pytest.mark.parametrize("name", ["splits", "published"])
def test_splits_labels_and_pixels_are_those_that_were_saved(name: str) -> None:
    pack = load_pack(HuggingFaceConfig(path=str(SAVED / name), group_column="owner"))
    # The classes are in the order of their numbers, not of their letters.
    assert pack.classes == ("dog", "cat")
    for code, (word, count) in enumerate([("train", 8), ("validation", 4), ("test", 4)]):
        rows = [number for number, path in enumerate(pack.paths) if path.startswith(f"{word}/")]
        assert [pack.paths[row] for row in rows] == [f"{word}/{number:07d}" for number in range(count)]
        assert np.array_equal(pack.images[rows], expected_pixels(count, code))
        assert pack.labels[rows].tolist() == [number % 2 for number in range(count)]
        assert pack.splits[rows].tolist() == [code] * count
        assert [pack.groups[row] for row in rows] == [f"owner {code}-{number // 2}" for number in range(count)]


def test_rows_go_on_from_file_to_file() -> None:
    pack = load_pack(HuggingFaceConfig(path=str(SAVED / "shards")))
    assert pack.paths == tuple(f"rows/{number:07d}" for number in range(10))
    assert np.array_equal(pack.images, expected_pixels(10, 3))
    assert set(pack.splits.tolist()) == {-1}


def test_a_choice_of_rows_keeps_its_order() -> None:
    pack = load_pack(HuggingFaceConfig(path=str(SAVED / "chosen")))
    assert pack.images[:, 0, 0, 0].tolist() == [9, 0, 3, 4, 5, 6, 7]


def picture(shade: int) -> dict[str, Any]:
    memory = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(memory, "PNG")
    return {"bytes": memory.getvalue(), "path": None}


def write_parquet(path: Path, columns: dict[str, list[Any]], features: dict[str, Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path)
    return path.parent


def test_labels_without_names_are_taken_as_they_stand(tmp_path: Path) -> None:
    columns = {"picture": [picture(n)["bytes"] for n in range(3)], "label": [10, 2, 10]}
    source = opened(write_parquet(tmp_path / "mine" / "rows.parquet", columns))
    assert source.classes() == ("2", "10")
    assert source.entries() == [Entry(f"rows/{n:07d}", label, None) for n, label in enumerate(["10", "2", "10"])]


@pytest.mark.parametrize("layout", ["train/0000.parquet", "train.parquet", "data/training-00000-of-00001-abc.parquet"])
def test_splits_are_known_from_published_names(layout: str, tmp_path: Path) -> None:
    columns = {"image": [picture(n) for n in range(4)], "label": [0, 1, 0, 1]}
    write_parquet(tmp_path / "mine" / layout, columns, FEATURES)
    write_parquet(tmp_path / "mine" / layout.replace("training", "train").replace("train", "extra"), columns, FEATURES)
    source = opened(tmp_path / "mine")
    assert {(entry.split, entry.path.split("/")[0]) for entry in source.entries()} in (
        {("train", "train")},
        {("train", "training")},
    )
    assert source.notes() == ("The rows of 'extra' were passed over, as this names no split.",)


def test_columns_are_chosen_where_several_might_be_meant(tmp_path: Path) -> None:
    features = {**FEATURES, "fine": {"names": ["poodle", "siamese"], "_type": "ClassLabel"}}
    columns = {"image": [picture(0), picture(1)], "label": [0, 1], "fine": [1, 0]}
    folder = write_parquet(tmp_path / "mine" / "rows.parquet", columns, features)
    with pytest.raises(DataError, match=r"columns of labels are 'label', 'fine'.*data.label_column=NAME"):
        opened(folder).entries()
    assert opened(folder, label_column="fine").classes() == ("poodle", "siamese")


def test_names_in_another_order_are_put_right(tmp_path: Path) -> None:
    """White dogs and black cats in both parts, but numbered the other way round in the second."""
    turned = {**FEATURES, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    write_parquet(tmp_path / "mine" / "train.parquet", {"image": [picture(255), picture(0)], "label": [0, 1]}, FEATURES)
    write_parquet(tmp_path / "mine" / "test.parquet", {"image": [picture(255), picture(0)], "label": [1, 0]}, turned)
    pack = load_pack(HuggingFaceConfig(path=str(tmp_path / "mine")))
    shades = pack.images[:, 0, 0, 0].tolist()
    labels = [pack.classes[label] for label in pack.labels]
    assert sorted(zip(shades, labels, strict=True)) == [(0, "cat"), (0, "cat"), (255, "dog"), (255, "dog")]
    # In the order of the first file.
    assert pack.classes == ("cat", "dog")


@pytest.mark.parametrize("names", [("mydata-train", "mydata-test"), ("cifar10_train", "cifar10_test")])
def test_split_words_within_names_are_known(names: tuple[str, str], tmp_path: Path) -> None:
    columns = {"image": [picture(0), picture(9)], "label": [0, 1]}
    for name in names:
        write_parquet(tmp_path / "mine" / f"{name}.parquet", columns, FEATURES)
    assert {(entry.split, entry.path) for entry in opened(tmp_path / "mine").entries()} == {
        (split, f"{split}/{number:07d}") for split in ("train", "test") for number in range(2)
    }


def test_parts_that_are_no_splits_are_taken_together_and_noted(tmp_path: Path) -> None:
    for name in ("en", "de"):
        write_parquet(tmp_path / "mine" / f"{name}.parquet", {"image": [picture(0)] * 2, "label": [0, 1]}, FEATURES)
    source = opened(tmp_path / "mine")
    assert [entry.split for entry in source.entries()] == [None] * 4
    assert source.notes() == ("The parts 'de', 'en' name no splits and were taken together.",)


@pytest.mark.parametrize("layout", ["{}/train.parquet", "{}/train/0000.parquet", "{}/train-00000-of-00001.parquet"])
def test_several_data_sets_in_one_folder_are_refused(layout: str, tmp_path: Path) -> None:
    for name in ("full", "small"):
        write_parquet(tmp_path / "mine" / layout.format(name), {"image": [picture(0)], "label": [0]}, FEATURES)
    with pytest.raises(DataError, match=r"holds several data sets, 'full', 'small'.*Name the folder of one"):
        opened(tmp_path / "mine").entries()


def test_hidden_files_are_no_part_of_it(tmp_path: Path) -> None:
    columns = {"image": [picture(0), picture(9)], "label": [0, 1]}
    for name in ("train.parquet", ".cache/train.parquet", "._train.parquet"):
        write_parquet(tmp_path / "mine" / name, columns, FEATURES)
    assert len(opened(tmp_path / "mine").entries()) == 2


def test_a_column_of_another_type_is_named_with_it(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "mine" / "rows.parquet", {"size": [3], "image": [picture(0)], "label": [0]})
    with pytest.raises(DataError, match="the column 'size' holds int64, and not pictures as bytes"):
        opened(folder, image_column="size").entries()


def test_a_picture_outside_of_the_data_set_is_unreadable(tmp_path: Path) -> None:
    columns = {"image": [picture(0), {"bytes": None, "path": "/etc/passwd"}, picture(2)], "label": [0, 1, 1]}
    folder = write_parquet(tmp_path / "mine" / "rows.parquet", columns, FEATURES)
    with pytest.raises(DataError, match=r"rows/0000001 lies outside of the data set, at '/etc/passwd'"):
        load_pack(HuggingFaceConfig(path=str(folder)))
    pack = load_pack(HuggingFaceConfig(path=str(folder), unreadable="skip"))
    assert pack.labels.tolist() == [0, -1, 1]


def changed(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        state = json.loads(path.read_text())
        change(state)
        path.write_text(json.dumps(state))

    return apply


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut_short(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-200]) and None


STATE, ARROW = "train/state.json", "train/data-00000-of-00001.arrow"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no JSON": (written("dataset_dict.json", b"{"), "Cannot read .*dataset_dict.json: it is no JSON"),
    "no text": (written("dataset_dict.json", b"\xff\xfe"), "it is no JSON"),
    "JSON nested deeply": (written("dataset_dict.json", b"[" * 10**5), "it is no JSON"),
    "JSON list": (written("dataset_dict.json", b"[]"), "must hold an object"),
    "no splits": (changed("dataset_dict.json", lambda found: found.update(splits=[])), "names no splits"),
    "splits are a number": (changed("dataset_dict.json", lambda found: found.update(splits=3)), "names no splits"),
    "split climbs out": (
        changed("dataset_dict.json", lambda found: found.update(splits=["../train"])),
        "names '../train', which is no file or folder beside it",
    ),
    "split is a number": (changed("dataset_dict.json", lambda found: found.update(splits=[1])), "names 1, which is no"),
    "split is not there": (changed("dataset_dict.json", lambda found: found["splits"].append("x")), "Cannot read .*x"),
    "no state": (lambda folder: (folder / STATE).unlink(), "Cannot read .*state.json: No such file"),
    "state without files": (changed(STATE, lambda found: found.pop("_data_files")), "names no files of data"),
    "state of another form": (changed(STATE, lambda found: found.update(_data_files=[1])), "names no files of data"),
    "file climbs out": (
        changed(STATE, lambda found: found.update(_data_files=[{"filename": "../test/state.json"}])),
        "names '../test/state.json', which is no",
    ),
    "file is absolute": (
        changed(STATE, lambda found: found.update(_data_files=[{"filename": "/etc/passwd"}])),
        "names '/etc/passwd', which is no",
    ),
    "file is not there": (lambda folder: (folder / ARROW).unlink(), "lacks 'data-00000-of-00001.arrow'"),
    "rows chosen apart": (changed(STATE, lambda found: found.update(_indices_data_files=[{}])), "a choice of rows"),
    "empty file": (written(ARROW, b""), "is damaged, or no file of a data set"),
    "no Arrow": (written(ARROW, b"\x89PNG" * 100), "is damaged, or no file of a data set"),
    "Arrow cut short": (cut_short(ARROW), "is damaged, or no file of a data set"),
    "no training part": (
        changed("dataset_dict.json", lambda found: found["splits"].remove("train")),
        "no part 'train'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folders_are_refused(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(SAVED / "splits", folder)
    spoil, message = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(DataError, match=message):
        load_pack(HuggingFaceConfig(path=str(folder)))


ROWS: dict[str, tuple[dict[str, list[Any]], dict[str, Any] | None, str]] = {
    "no picture": ({"name": ["a"], "label": [0]}, None, "no column holds pictures as bytes, of 'name', 'label'"),
    "two pictures": (
        {"left": [picture(0)], "right": [picture(1)], "label": [0]},
        None,
        "columns of pictures are 'left', 'right'.*data.image_column=NAME",
    ),
    "no label": ({"image": [picture(0)], "kind": [0]}, None, "no column is known to hold labels, of 'image', 'kind'"),
    "list of pictures": (
        {"image": [[picture(0)]], "label": [0]},
        {**FEATURES, "image": {"_type": "List", "feature": {"_type": "Image"}}},
        "no column holds pictures as bytes",
    ),
    "label -1": ({"image": [picture(0)] * 2, "label": [0, -1]}, FEATURES, "rows/0000001 has no label"),
    "label null": ({"image": [picture(0)] * 2, "label": [None, 1]}, FEATURES, "rows/0000000 has no label"),
    "label beyond": ({"image": [picture(0)] * 2, "label": [0, 2]}, FEATURES, "the label 2 is none of the 2 classes"),
    "label is text": ({"image": [picture(0)] * 2, "label": ["x", "y"]}, FEATURES, "the label 'x' is none of the 2"),
    "label is a list": ({"image": [picture(0)], "label": [[1, 2]]}, None, "'label' must be text or a number"),
    "label unprintable": (
        {"image": [picture(0)] * 2, "label": ["a\x07", "b"]},
        None,
        r"holds 'rows/0000000', which has unprintable characters in its label 'a\\x07' \(mine, rows/0000000\)",
    ),
    "one class": ({"image": [picture(0)] * 2, "label": [1, 1]}, FEATURES, "one class only, 'cat'"),
    "no rows": ({"image": pyarrow.array([], pyarrow.binary()), "label": []}, None, "holds no rows"),
    "row without picture": ({"image": [picture(0), None], "label": [0, 1]}, FEATURES, "is missing: its row has none"),
    "damaged picture": ({"image": [picture(0)["bytes"], b"hello"], "label": [0, 1]}, None, "is no picture of a known"),
}


@pytest.mark.parametrize("fault", ROWS)
def test_rows_that_cannot_be_used_are_refused(fault: str, tmp_path: Path) -> None:
    columns, features, message = ROWS[fault]
    folder = write_parquet(tmp_path / "mine" / "rows.parquet", columns, features)
    with pytest.raises(DataError, match=message):
        load_pack(HuggingFaceConfig(path=str(folder)))


def test_a_group_in_two_splits_is_refused(tmp_path: Path) -> None:
    for part, owners in {"train": ["Ann", "Bob"], "validation": ["Cy", "Di"], "test": ["Ann", "Eve"]}.items():
        columns = {"image": [picture(0)] * 2, "label": [0, 1], "owner": owners}
        write_parquet(tmp_path / "mine" / f"{part}.parquet", columns, FEATURES)
    pack = load_pack(HuggingFaceConfig(path=str(tmp_path / "mine"), group_column="owner"))
    with pytest.raises(
        DataError, match="group 'Ann' is divided: 'test/0000000' is placed in test, and 'train/0000000'"
    ):
        divide(pack, SplitConfig(), 0)


def test_a_column_that_one_file_lacks_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "mine" / "train.parquet", {"image": [picture(0)], "label": [0]}, FEATURES)
    write_parquet(tmp_path / "mine" / "test.parquet", {"image": [picture(0)], "lable": [0]}, FEATURES)
    with pytest.raises(DataError, match=r"test.parquet has no column 'label'. Did you mean 'lable'\?"):
        opened(tmp_path / "mine", label_column="label").entries()


def test_other_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say where the data set is"):
        open_source(HuggingFaceConfig())
    with pytest.raises(DataError, match="is no data set on disk"):
        opened(tmp_path)
    with pytest.raises(ValueError, match="must differ, but two are 'label'"):
        HuggingFaceConfig(label_column="label", group_column="label")
