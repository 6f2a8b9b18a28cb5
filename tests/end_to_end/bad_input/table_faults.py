"""Lists of pictures and divisions that cannot be used."""

from __future__ import annotations

from pathlib import Path

from bad_input.case import Arguments, case, command_case, digits_with, two_classes

HEADER = "file,label,split,group\n"
LINES = "".join(f"{label}/{label}-{number:03d}.png,{label},,\n" for label in ("cat", "dog") for number in range(12))


def listed(folder: Path, text: str | bytes, *assignments: str, name: str = "list.csv") -> Arguments:
    """Train on `folder/photos/list.csv`, which holds `text`."""
    place = two_classes(folder) / name
    place.write_bytes(text.encode() if isinstance(text, str) else text)
    return table(place, *assignments)


def table(place: Path, *assignments: str) -> Arguments:
    columns = ("data.split_column=split", "data.group_column=group")
    return digits_with("data=table", f"data.path={place}", *columns, "network=digits", *assignments)


command_case("Lists", "no path", "config", ("data.path: say where the list is",), *digits_with("data=table"))
command_case(
    "Lists",
    "one column for two things",
    "config",
    ("must differ, but two are 'label'",),
    *digits_with("data=table", "data.group_column=label"),
)


@case("Lists", "folder in place of a list", "data", "is a folder", "for example")
def _folder(folder: Path) -> Arguments:
    return table(two_classes(folder))


@case("Lists", "unknown suffix", "data", "lists end in .csv", "in '.txt'")
def _suffix(folder: Path) -> Arguments:
    return listed(folder, HEADER + LINES, name="list.txt")


@case("Lists", "empty list", "data", "list.csv is empty")
def _empty(folder: Path) -> Arguments:
    return listed(folder, "")


@case("Lists", "no header", "data", "has no header", "'cat/cat-000.png'")
def _headless(folder: Path) -> Arguments:
    return listed(folder, LINES)


@case("Lists", "column with another name", "data", "no column 'file'", "Did you mean 'filename'?")
def _column(folder: Path) -> Arguments:
    return listed(folder, "filename,label,split,group\n" + LINES)


@case("Lists", "line with too many fields", "data", "line 26 has 5 fields where the header has 4")
def _fields(folder: Path) -> Arguments:
    return listed(folder, HEADER + LINES + "cat/a, b.png,cat,,\n")


@case("Lists", "line that is no JSON", "data", "list.jsonl, line 2 is not JSON")
def _json(folder: Path) -> Arguments:
    whole = '{"file": "cat/cat-000.png", "label": "cat", "split": null, "group": null}\n'
    return listed(folder, whole + whole[:30], name="list.jsonl")


@case("Lists", "damaged Parquet", "data", "list.parquet is damaged or no Parquet file")
def _parquet(folder: Path) -> Arguments:
    return listed(folder, b"PAR1 and nothing else", name="list.parquet")


@case("Lists", "not UTF-8", "data", "line 26 is not UTF-8 (byte 0xE4)")
def _latin(folder: Path) -> Arguments:
    return listed(folder, (HEADER + LINES + "bär.png,bear,,\n").encode("latin-1"))


@case("Lists", "picture without a label", "data", "line 26: 'cat/x.png' has no label")
def _label(folder: Path) -> Arguments:
    return listed(folder, HEADER + LINES + "cat/x.png,,,\n")


@case("Lists", "path that climbs out", "data", "line 26: '../evil.png' climbs out of the list's folder")
def _climbs(folder: Path) -> Arguments:
    return listed(folder, HEADER + LINES + "../evil.png,cat,,\n")


@case("Lists", "pictures that are not there", "data", "2 of 26 files are not there: 'cat/x.png', 'cat/y.png'")
def _missing(folder: Path) -> Arguments:
    return listed(folder, HEADER + LINES + "cat/x.png,cat,,\ncat/y.png,cat,,\n")


@case("Lists", "picture with two labels", "data", "line 26 calls 'cat/cat-000.png' 'dog'", "line 2 calls it 'cat'")
def _contradiction(folder: Path) -> Arguments:
    return listed(folder, HEADER + LINES + "cat/cat-000.png,dog,,\n")


@case("Lists", "unknown split", "data", "no split is called 'tset'", "Did you mean 'test'?")
def _split(folder: Path) -> Arguments:
    return listed(folder, HEADER + LINES.replace(",cat,,", ",cat,tset,"))


@case("Lists", "group in two splits", "data", "The group 'tom' is divided", "A group belongs to one split")
def _group(folder: Path) -> Arguments:
    text = LINES.replace("0.png,cat,,", "0.png,cat,train,tom").replace("1.png,cat,,", "1.png,cat,test,tom")
    return listed(folder, HEADER + text)


@case("Lists", "too few groups", "data", "The class 'cat' has pictures of 2 groups to divide, too few")
def _groups(folder: Path) -> Arguments:
    text = "".join(
        f"{line},{'ab'[number % 2] if 'cat' in line else number}\n"
        for number, line in enumerate(line.removesuffix(",") for line in LINES.splitlines())
    )
    return listed(folder, HEADER + text)


command_case(
    "Lists", "folds without a fold", "config", ("folds=5 needs `fold`", "1 to 5"), *digits_with("split.folds=5")
)
command_case(
    "Lists",
    "fold beyond the folds",
    "config",
    ("`fold <= folds` must hold, but got 6 and 5",),
    *digits_with("split.folds=5", "split.fold=6"),
)
command_case(
    "Lists",
    "two ways to divide",
    "config",
    ("train_per_class and folds are two ways",),
    *digits_with("split.train_per_class=70", "split.folds=5", "split.fold=1"),
)
command_case(
    "Lists",
    "more of each class than there are",
    "data",
    ("The class '0' has 178 pictures", "split.train_per_class=177 cannot be met"),
    *digits_with("split.train_per_class=177"),
)


@case("Lists", "division that leaves pictures out", "data", "leaves out 1,796 of 1,797 pictures", "'digit-0001'")
def _left_out(folder: Path) -> Arguments:
    (folder / "mine.csv").write_text("file,split\ndigit-0000,train\n")
    return digits_with(f"split.file={folder / 'mine.csv'}")


@case("Lists", "division of other pictures", "data", "1 of 1 pictures are not there: 'digit-0.png'", "'digit-0000'")
def _unknown(folder: Path) -> Arguments:
    (folder / "mine.csv").write_text("file,split\ndigit-0.png,train\n")
    return digits_with(f"split.file={folder / 'mine.csv'}")
