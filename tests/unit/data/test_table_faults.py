"""Every way in which a list of pictures can be wrong, with what is said of it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from conviction.core.errors import ConfigError, DataError
from conviction.data.pack import load_pack
from conviction.data.source import table_file
from conviction.data.source.base import open_source, refuse_faults
from conviction.data.source.table import TableConfig
from pictures import write_picture

HEADER = "file,label,split,group\n"
# Name of the list, its content, and the parts of the message.
FAULTS: dict[str, tuple[str, str | bytes, tuple[str, ...]]] = {
    "no bytes": ("list.csv", "", ("list.csv is empty", "a line for each picture")),
    "blank lines alone": ("list.tsv", "\n \n", ("list.tsv is empty",)),
    "a mark of UTF-8 alone": ("list.jsonl", b"\xef\xbb\xbf", ("list.jsonl is empty",)),
    "a header alone": ("list.csv", HEADER, ("lists no pictures", "nothing below its header")),
    "no header": ("list.csv", "a.png,cat,,\nb.png,dog,,\n", ("has no header", "'a.png'", "file, label, split, group")),
    "column missing": ("list.csv", "filename,label,split,group\n", ("no column 'file'", "Did you mean 'filename'?")),
    "column in capitals": ("list.csv", "File,label,split,group\n", ("no column 'file'", "Did you mean 'File'?")),
    "split column missing": ("list.csv", "file,label,spilt,group\n", ("no column 'split'", "Did you mean 'spilt'?")),
    "column twice": ("list.csv", "file,label,label,split,group\n", ("the column 'label' twice", "which one is meant")),
    "semicolons": ("list.csv", "file;label;split;group\n", ("parted by ';'", "in a .csv they are parted by commas")),
    "commas in TSV": ("list.tsv", HEADER, ("parted by ','", "in a .tsv they are parted by tabs")),
    "field too many": ("list.csv", HEADER + "a.png,cat,,\nb.png,dog,,,\n", ("line 3 has 5 fields", "header has 4")),
    "field too few": ("list.csv", HEADER + "a.png,cat\n", ("line 2 has 2 fields", "'a.png,cat'")),
    "fault behind a field of two lines": (
        "list.csv",
        "remark," + HEADER + '"x\ny",a.png,cat,,\nb.png\n',
        ("line 4 has 1 field where the header has 5",),
    ),
    "quote left open": ("list.csv", HEADER + 'a.png,"cat,,\nb.png,dog,,\n', ("line 2 is damaged", "written twice")),
    "text behind a quote": ("list.csv", HEADER + 'a.png,"cat"s,,\n', ("line 2 is damaged", "expected after")),
    "field of a megabyte": ("list.csv", HEADER + f"a.png,{'x' * 10**6},,\n", ("line 2 is damaged", "field limit")),
    "no JSON": ("list.jsonl", '{"file": "a.png"\n', ("line 1 is not JSON", "column 17: Expecting ',' delimiter")),
    "JSON document": ("list.jsonl", '[\n{"file": "a.png"}\n]', ("line 1 is not JSON",)),
    "JSON list": ("list.jsonl", '["a.png", "cat"]\n', ("line 1 must hold an object", '\'["a.png", "cat"]\'')),
    "JSON number": ("list.jsonl", "7\n", ("line 1 must hold an object", "holds '7'")),
    "JSON key twice": ("list.jsonl", '{"file": "a.png", "file": "b.png"}', ("line 1", "the key 'file' stands twice")),
    "JSON nested deeply": ("list.jsonl", "[" * 10**5, ("line 1 cannot be used", "nested too deeply")),
    "JSON number of 5000 digits": ("list.jsonl", '{"file": ' + "9" * 5000 + "}", ("line 1 cannot be used",)),
    "JSON without a key": (
        "list.jsonl",
        '{"file": "a.png", "labels": "cat", "split": "", "group": ""}',
        ("line 1 has no 'label'", "Did you mean 'labels'?"),
    ),
    "label is a list": (
        "list.jsonl",
        '{"file": "a.png", "label": ["cat"], "split": "", "group": ""}',
        ("line 1: 'label' must be text or a number", "is a list", "['cat']"),
    ),
    "label is an object": (
        "list.jsonl",
        '{"file": "a.png", "label": {"name": "cat"}, "split": "", "group": ""}',
        ("line 1: 'label' must be text or a number", "is an object"),
    ),
    "label is true": (
        "list.jsonl",
        '{"file": "a.png", "label": true, "split": "", "group": ""}',
        ("line 1: 'label' must be text or a number", "is true or false"),
    ),
    "label is null": (
        "list.jsonl",
        '{"file": "a.png", "label": null, "split": "", "group": ""}',
        ("line 1: 'a.png' has no label", "'label' is empty"),
    ),
    "label is NaN": (
        "list.jsonl",
        '{"file": "a.png", "label": NaN, "split": "", "group": ""}',
        ("line 1: 'a.png' has no label",),
    ),
    "label is blank": ("list.csv", HEADER + "a.png, ,,\n", ("line 2: 'a.png' has no label",)),
    "label with a control character": (
        "list.csv",
        HEADER + "a.png,ca\bt,,\nb.png,dog,,\n",
        ("list.csv holds 'a.png', which has unprintable characters in its label 'ca\\x08t'", "line 2): rename it."),
    ),
    "group with a control character": (
        "list.csv",
        HEADER + "a.png,cat,,\nb.png,dog,,\x1b[1m\n",
        ("which has unprintable characters in its group '\\x1b[1m'", "line 3): rename it."),
    ),
    "lone surrogate": (
        "list.jsonl",
        '{"file": "\\ud800.png", "label": "cat", "split": "", "group": ""}',
        ("1 of 1 files are not there", "'\\ud800.png'"),
    ),
    "no file name": ("list.csv", HEADER + ",cat,,\n", ("line 2 names no file", "'file' is empty")),
    "file name of two lines": (
        "list.csv",
        HEADER + '"a\nb.png",cat,,\n',
        ("1 of 1 files are not there", "'a\\nb.png'"),
    ),
    "absolute path": ("list.csv", HEADER + "/etc/passwd,cat,,\n", ("line 2 has the absolute path '/etc/passwd'",)),
    "drive": ("list.csv", HEADER + "C:\\a.png,cat,,\n", ("line 2 has the absolute path",)),
    "network share": ("list.csv", HEADER + "\\\\host\\a.png,cat,,\n", ("line 2 has the absolute path",)),
    "path that climbs": ("list.csv", HEADER + "../a.png,cat,,\n", ("line 2: '../a.png' climbs out",)),
    "path that climbs within": ("list.csv", HEADER + "x\\..\\..\\a.png,cat,,\n", ("line 2:", "climbs out")),
    "the folder itself": ("list.csv", HEADER + "./,cat,,\n", ("line 2: './' is the list's own folder",)),
    "file twice": (
        "list.csv",
        HEADER + "a.png,cat,,\nb.png,dog,,\n./a.png,cat,,\n",
        ("line 4 lists 'a.png' again, with the same label, 'cat', as", "line 2"),
    ),
    "two labels": (
        "list.csv",
        HEADER + "a.png,cat,,\na.png,dog,,\n",
        ("line 3 calls 'a.png' 'dog'", "line 2 calls it 'cat'", "one label"),
    ),
    "files missing": (
        "list.csv",
        HEADER + "a.png,cat,,\n" + "".join(f"gone-{number}.png,dog,,\n" for number in range(9)),
        ("9 of 10 files are not there", "'gone-0.png', 'gone-1.png'", "and 4 more", "Paths begin at the list's folder"),
    ),
    "file name beyond the file system's": (
        "list.csv",
        HEADER + f"{'x' * 300},cat,,\n",
        ("1 of 1 files are not there",),
    ),
    "file name of a page": ("list.csv", HEADER + f"{'x' * 1001},cat,,\n", ("line 2: 'file' holds 1,001 letters",)),
    "unknown split": ("list.csv", HEADER + "a.png,cat,trian,\n", ("line 2: no split is called 'trian'", "'train'?")),
    "split is a number": ("list.csv", HEADER + "a.png,cat,1,\n", ("line 2: no split is called '1'. Known: train",)),
    "nothing to train on": (
        "list.csv",
        HEADER + "a.png,cat,test,\nb.png,dog,val,\n",
        ("places no picture in the training split", "'split'"),
    ),
    "group in two splits": (
        "list.csv",
        HEADER + "a.png,cat,train,tom\nb.png,dog,test,tom\n",
        ("The group 'tom' is divided", "line 2 places it in train", "line 3 in test"),
    ),
    "one class": ("list.csv", HEADER + "a.png,cat,,\nb.png,cat,,\n", ("one class only, 'cat'", "at least two")),
    "NUL byte": ("list.csv", HEADER + "a.png,ca\0t,,\n", ("line 2 holds a NUL byte",)),
    "Latin-1": ("list.csv", (HEADER + "ä.png,cat,,\n").encode("latin-1"), ("line 2 is not UTF-8 (byte 0xE4)",)),
    "UTF-16": ("list.csv", HEADER.encode("utf-16"), ("is UTF-16 text", "CSV UTF-8")),
    "unknown suffix": ("list.txt", HEADER, (".csv, .tsv, .tab, .jsonl, .ndjson, .parquet", "in '.txt'")),
    "JSON suffix": ("list.json", "[]", ("in '.json'", "is no JSON lines")),
    "no Parquet": ("list.parquet", b"PAR1 hello PAR1", ("list.parquet is damaged or no Parquet file",)),
    "no bytes of Parquet": ("list.parquet", b"", ("list.parquet is damaged or no Parquet file",)),
}


def refusal(path: Path, kind: type[Exception] = DataError, **settings: Any) -> str:
    with pytest.raises(kind) as caught:
        check(path, **settings)
    return str(caught.value)


def check(path: Path, **settings: Any) -> None:
    columns = {"split_column": "split", "group_column": "group", **settings}
    source = open_source(TableConfig(path=str(path), **columns))
    refuse_faults(source.shown_path, source.entries())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_gets_its_message(fault: str, folder: Path) -> None:
    name, content, says = FAULTS[fault]
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    message = refusal(folder / name)
    assert str(folder) in message or "The group" in message
    for part in says:
        assert part in message
    assert len(message) < 1200


PARQUET: dict[str, tuple[dict[str, list[Any]], tuple[str, ...]]] = {
    "column missing": ({"path": ["a.png"], "label": ["cat"]}, ("no column 'file'", "Known: path, label")),
    "no rows": ({"file": [], "label": []}, ("lists no pictures",)),
    "label missing": ({"file": ["a.png", "b.png"], "label": ["cat", None]}, ("row 2: 'b.png' has no label",)),
    "pictures in place of names": (
        {"file": [{"bytes": b"x", "path": "a.png"}], "label": ["cat"]},
        ("row 1: 'file' must be text or a number, but is an object",),
    ),
    "bytes": ({"file": [b"a.png"], "label": ["cat"]}, ("row 1: 'file' must be text or a number, but is bytes",)),
}


@pytest.mark.parametrize("fault", PARQUET)
def test_fault_of_a_parquet_gets_its_message(fault: str, folder: Path) -> None:
    columns, says = PARQUET[fault]
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "list.parquet")
    message = refusal(folder / "list.parquet", split_column=None, group_column=None)
    for part in says:
        assert part in message


def test_truncated_parquet(folder: Path) -> None:
    path = folder / "list.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"file": ["a.png"] * 99, "label": ["cat"] * 99}), path)
    path.write_bytes(path.read_bytes()[:-9])
    assert "list.parquet is damaged or no Parquet file" in refusal(path)


PLACES: dict[str, tuple[Callable[[Path], Path], type[Exception], str]] = {
    "no such list": (lambda folder: folder / "lst.csv", DataError, "No file or folder"),
    "folder": (lambda folder: folder, DataError, "is a folder. Name the list itself, for example"),
    "pipe": (lambda folder: _pipe(folder / "list.csv"), DataError, "is no ordinary file"),
    "folder named as a list": (lambda folder: _folder(folder / "x.csv"), DataError, "x.csv is a folder"),
    "pipe named by no suffix": (lambda folder: _pipe(folder / "list"), DataError, "lists end in .csv"),
    "pipe named as Parquet": (lambda folder: _pipe(folder / "list.parquet"), DataError, "is no ordinary file"),
}


def _pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("fault", PLACES)
def test_place_that_is_no_list(fault: str, folder: Path) -> None:
    make, kind, says = PLACES[fault]
    assert says in refusal(make(folder), kind)


def test_folder_is_answered_with_the_list_in_it(folder: Path) -> None:
    (folder / "mine.tsv").touch()
    assert refusal(folder).endswith(f"for example {folder}/mine.tsv.")


def test_no_path(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.path: say where the list is"):
        open_source(TableConfig())


def test_list_that_is_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_file, "MAX_TABLE_BYTES", 10)
    (folder / "list.csv").write_text(HEADER)
    assert "list.csv holds 23 bytes; a list has at most 10." in refusal(folder / "list.csv")


def test_pictures_are_checked_as_in_every_source(folder: Path) -> None:
    (folder / "page.png").write_text("<html>")
    (folder / "cat").mkdir()
    (folder / "list.csv").write_text("file,label\na.png,cat\nb.png,dog\npage.png,dog\ncat,cat\n")
    with pytest.raises(DataError) as caught:
        load_pack(TableConfig(path=str(folder / "list.csv")))
    assert "2 of 4 pictures cannot be used" in str(caught.value)
    assert "page.png is no picture of a known kind" in str(caught.value)
    assert "cat is no ordinary file" in str(caught.value)
