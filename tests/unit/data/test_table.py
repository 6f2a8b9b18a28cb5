import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from conviction.core.config import parse
from conviction.core.errors import ConfigError, DataError, InstallationError
from conviction.data.pack import SPLIT_CODES, load_pack
from conviction.data.source.base import Source, open_source
from conviction.data.source.table import TableConfig
from pictures import write_picture

ROWS = [("cat/1.png", "cat", "train", "tom"), ("dog/2.png", "dog", "test", ""), ("cat/3.png", "cat", "", "tom")]


def write_pictures(folder: Path, *names: str) -> None:
    for name in names or [row[0] for row in ROWS]:
        write_picture(folder / name)


def write_list(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def opened(path: Path, **settings: Any) -> Source:
    return open_source(TableConfig(path=str(path), **settings))


def listed(path: Path, **settings: Any) -> list[tuple[str, str, str | None, str | None]]:
    return [(entry.path, entry.label, entry.split, entry.group) for entry in opened(path, **settings).entries()]


def separated(sign: str) -> str:
    return "\n".join(sign.join(row) for row in [("file", "label", "split", "group"), *ROWS]) + "\n"


def json_lines() -> str:
    return "".join(
        json.dumps({"file": file, "label": label, "split": split or None, "group": group or None}) + "\n"
        for file, label, split, group in ROWS
    )


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "CSV", "tsv", "tab", "jsonl", "ndjson", "parquet"])
def test_every_format_gives_the_same_entries(kind: str, tmp_path: Path) -> None:
    write_pictures(tmp_path)
    path = tmp_path / f"list.{kind}"
    if kind == "parquet":
        columns = dict(zip(("file", "label", "split", "group"), map(list, zip(*ROWS, strict=True)), strict=True))
        write_parquet(path, columns | {"bytes": [b"x" * 1000] * 3})
    elif kind.endswith(("jsonl", "ndjson")):
        write_list(path, json_lines())
    else:
        write_list(path, separated("," if kind.lower() == "csv" else "\t"))
    assert listed(path, split_column="split", group_column="group") == [
        ("cat/1.png", "cat", "train", "tom"),
        ("cat/3.png", "cat", None, "tom"),
        ("dog/2.png", "dog", "test", None),
    ]
    assert listed(path) == [
        ("cat/1.png", "cat", None, None),
        ("cat/3.png", "cat", None, None),
        ("dog/2.png", "dog", None, None),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(encoding: str, newline: str, tmp_path: Path) -> None:
    write_pictures(tmp_path, "é/ü 1.png", "2.png")
    text = newline.join(["file,label", "é/ü 1.png,Käfer", "", '"2.png","a, ""b"""'])
    assert listed(write_list(tmp_path / "list.csv", text, encoding)) == [
        ("2.png", 'a, "b"', None, None),
        ("é/ü 1.png", "Käfer", None, None),
    ]


def test_json_lines_are_parted_by_line_feeds_alone(tmp_path: Path) -> None:
    write_pictures(tmp_path, "1.png", "2.png")
    text = '{"file": "1.png", "label": "a"}\r\n\n{"file": "2.png", "label": "b", "remark": "x\u2028y"}\n'
    assert [entry[0] for entry in listed(write_list(tmp_path / "list.jsonl", text))] == ["1.png", "2.png"]


def test_paths_are_cleaned_and_blanks_do_not_count(tmp_path: Path) -> None:
    write_pictures(tmp_path, "cat/1.png", "dog/2.png")
    path = write_list(tmp_path / "list.csv", "file, label\n./cat//1.png, cat\ndog\\2.png ,dog \n")
    assert [entry[:2] for entry in listed(path)] == [("cat/1.png", "cat"), ("dog/2.png", "dog")]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([10, 2, 1], ("1", "2", "10")),
        ([1.0, 2.0, 0.5], ("0.5", "1", "2")),
        (["10", "9", "b"], ("10", "9", "b")),
    ],
)
def test_labels_may_be_numbers_which_order_the_classes(
    labels: list[object], classes: tuple[str, ...], tmp_path: Path
) -> None:
    lines = [json.dumps({"file": f"{number}.png", "label": label}) for number, label in enumerate(labels)]
    write_pictures(tmp_path, *(f"{number}.png" for number in range(3)))
    assert opened(write_list(tmp_path / "list.jsonl", "\n".join(lines))).classes() == classes


def test_split_words_are_those_of_split_folders(tmp_path: Path) -> None:
    words = ["Train", "training", "valid", "VAL", "dev", "validation", "test", "testing"]
    names = [f"{number}.png" for number in range(len(words))]
    write_pictures(tmp_path, *names)
    lines = [f"{name},{number % 2},{word}" for number, (name, word) in enumerate(zip(names, words, strict=True))]
    path = write_list(tmp_path / "list.csv", "\n".join(["file,label,split", *lines]))
    found = [split for _, _, split, _ in listed(path, split_column="split")]
    assert found == ["train"] * 2 + ["validation"] * 4 + ["test"] * 2


def test_columns_may_have_any_name(tmp_path: Path) -> None:
    write_pictures(tmp_path, "1.png", "2.png")
    path = write_list(tmp_path / "list.csv", ",bild,2024,person\n0,1.png,a,x\n1,2.png,b,y\n")
    found = listed(path, file_column="bild", label_column="2024", group_column="person")
    assert found == [("1.png", "a", None, "x"), ("2.png", "b", None, "y")]


def test_links_are_followed_as_in_class_folders(tmp_path: Path) -> None:
    write_pictures(tmp_path / "elsewhere", "1.png")
    write_pictures(tmp_path / "set", "2.png")
    (tmp_path / "set" / "1.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "set" / "3.png").symlink_to("nothing.png")
    path = write_list(tmp_path / "set" / "list.csv", "file,label\n1.png,a\n2.png,b\n3.png,b\n")
    contents = dict(opened(path).read())
    assert contents["1.png"] == (tmp_path / "elsewhere" / "1.png").read_bytes()
    assert str(contents["3.png"]) == "is a link to 'nothing.png', which is not there"
    with pytest.raises(DataError, match=r"1 of 3 pictures cannot be used:\n  3\.png is a link"):
        load_pack(TableConfig(path=str(path)))
    assert load_pack(TableConfig(path=str(path), unreadable="skip")).labels.tolist() == [0, 1, -1]


def test_pictures_that_are_not_listed_are_passed_over(tmp_path: Path) -> None:
    write_pictures(tmp_path, "1.png", "2.png", "3.png")
    path = write_list(tmp_path / "list.csv", "file,label\n1.png,a\n2.png,b\n")
    assert load_pack(TableConfig(path=str(path))).paths == ("1.png", "2.png")
    stamp = opened(path).stamp()
    write_picture(tmp_path / "3.png", shade=10)
    assert opened(path).stamp() == stamp
    write_picture(tmp_path / "2.png", shade=10)
    assert opened(path).stamp() != stamp


def test_the_pack_keeps_splits_and_groups(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    path = write_list(tmp_path / "list.csv", separated(","))
    config = TableConfig(path=str(path), split_column="split", group_column="group")
    for _ in ("built", "found"):
        pack = load_pack(config)
        assert pack.groups == ("tom", "tom", None)
        assert pack.splits.tolist() == [SPLIT_CODES["train"], SPLIT_CODES[None], SPLIT_CODES["test"]]
    # The same list, read without its columns, is another pack.
    plain = load_pack(TableConfig(path=str(path)))
    assert (plain.groups, set(plain.splits.tolist())) == ((), {SPLIT_CODES[None]})


def test_notes_name_absent_classes_and_those_alike(tmp_path: Path) -> None:
    write_pictures(tmp_path, "1.png", "2.png", "3.png")
    path = write_list(tmp_path / "list.csv", "file,label,split\n1.png,cat,train\n2.png,Cat,test\n3.png,dog,train\n")
    assert opened(path, split_column="split").notes() == (
        "The train split has no pictures of 'Cat'.",
        "The test split has no pictures of 'cat', 'dog'.",
        "The classes 'Cat', 'cat' differ in capital letters alone.",
    )


def test_stamp_and_digest_follow_parquet_and_json_lines(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    for name in ("list.jsonl", "list.parquet"):
        seen = set()
        for labels in (["a", "b", "c"], ["a", "b", "d"]):
            files = [row[0] for row in ROWS]
            if name.endswith("parquet"):
                path = write_parquet(tmp_path / name, {"file": files, "label": labels})
            else:
                pairs = zip(files, labels, strict=True)
                lines = [json.dumps({"file": file, "label": label}) for file, label in pairs]
                path = write_list(tmp_path / name, "\n".join(lines))
            os.utime(path, ns=(1, len(seen)))
            seen |= {opened(path).stamp(), opened(path).digest()}
        assert len(seen) == 4


def test_missing_pyarrow_is_answered_with_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "list.parquet", {"file": ["1.png"], "label": ["a"]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InstallationError, match=r"pip install 'conviction\[parquet\]'"):
        opened(path).entries()


def test_one_column_cannot_have_two_meanings() -> None:
    with pytest.raises(ConfigError, match="must differ, but two are 'label'"):
        parse(TableConfig, {"group_column": "label"}, "The recipe")
    with pytest.raises(ConfigError, match="split_column"):
        parse(TableConfig, {"split_column": ""}, "The recipe")
