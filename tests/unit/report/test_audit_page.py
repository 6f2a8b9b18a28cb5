from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conviction.core.audit_record import AuditPicture, DuplicatePair, PictureFinding, UnreadableFile
from conviction.core.errors import ConfigError, StorageError
from conviction.report.audit_page import audit_page, check_page_path, shown_pictures, write_audit_page
from conviction.report.audit_text import (
    balance_line,
    duplicate_line,
    group_words,
    label_line,
    leak_line,
    odd_line,
    size_line,
)
from small_audit import PICTURES, audit_record, pair

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>&'</style>"
URI = "data:image/png;base64,AAAA"


class Page(HTMLParser):
    """Every tag and attribute of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def hostile_page() -> str:
    named = AuditPicture(HOSTILE, HOSTILE, "train")
    return audit_page(
        audit_record(
            DuplicatePair("exact", 1.0, named, PICTURES["t1"]),
            path=HOSTILE,
            command=HOSTILE,
            classes=(HOSTILE, "dog"),
            counts={split: {HOSTILE: 3, "dog": 1} for split in ("train", "validation", "test")},
            unreadable=(UnreadableFile(named, HOSTILE),),
            findings=(PictureFinding("dark", named, HOSTILE),),
            notes=(HOSTILE,),
        ),
        {HOSTILE: URI},
    )


def test_hostile_names_are_text() -> None:
    page = Page(hostile_page())
    assert "script" not in page.tags
    assert {name for name, _ in page.attributes} <= {
        *("lang", "charset", "name", "content", "http-equiv", "class", "scope", "style", "src", "alt")
    }
    assert {value for name, value in page.attributes if name == "src"} == {URI}
    # Title, heading, class and label of the picture, its path, reason, the note, the command, and so on.
    assert page.text.count(HOSTILE) >= 10


def test_the_page_needs_nothing_else() -> None:
    text = hostile_page()
    assert re.findall(r"https?://|url\(|@import|<link|<script", text.replace(HOSTILE, "")) == []
    assert "default-src 'none'" in text


def test_thumbnails_of_test_pictures_are_those_of_leaks_alone() -> None:
    record = audit_record(
        pair("a1", "t1"),
        pair("t1", "t2"),
        pair("t3", "t4"),
        findings=(PictureFinding("empty", PICTURES["t4"], "is of one colour alone"),),
    )
    assert shown_pictures(record) == {"a1", "t1"}
    page = Page(audit_page(record, dict.fromkeys(shown_pictures(record), URI)))
    assert page.tags.count("img") == 2
    assert "t2" in page.text
    assert page.text.count("not shown") == 4


def test_every_group_stands_once_under_its_heading() -> None:
    record = audit_record(pair("a1", "t1"), pair("a2", "d1"), pair("a3", "a4"), pair("t3", "t4"))
    page = Page(audit_page(record, {}))
    for heading in ("in different splits", "with different labels", "within training or validation", "within test"):
        assert f"Copies {heading} (1)" in page.text
    assert page.tags.count("article") == 4


def test_long_lists_say_what_is_left_out() -> None:
    many = [AuditPicture(f"many-{number:03d}", "cat", "train") for number in range(400)]
    record = audit_record(
        *(DuplicatePair("exact", 1.0, many[number], many[number + 1]) for number in range(0, 200, 2)),
        *(DuplicatePair("exact", 1.0, many[200], other) for other in many[201:220]),
        findings=tuple(PictureFinding("dark", one, "is very dark") for one in many[:30]),
        unreadable=tuple(UnreadableFile(one, "is gone") for one in many[:201]),
    )
    text = Page(audit_page(record, {})).text
    assert "41 more groups not shown here" in text
    assert "and 8 more of this group" in text
    assert "6 more pictures not shown here" in text
    assert "1 more file not shown here" in text


def test_sentences_by_hand() -> None:
    record = audit_record(pair("a1", "t1"), pair("a2", "t2", "near", 0.91), pair("a2", "d1", "near", 0.875))
    assert size_line(record) == "76 pictures of 2 classes (60 training, 8 validation, 8 test)"
    assert leak_line(record) == "2 of 8 test pictures have a copy in another split"
    assert label_line(record) == "1 group of copies with different labels"
    assert duplicate_line(record) == "3 pairs in 2 groups (5 pictures)"
    assert odd_line(record) == "1 very dark"
    assert balance_line(record) == "uneven: 20 training pictures of 'dog' to 40 of 'cat', 2.0 times as many"
    assert [group_words(group) for group in record.groups] == [
        "near, similarity 0.875 or more: 3 pictures in different splits, with different labels",
        "exact: 2 pictures in different splits",
    ]


@pytest.mark.parametrize(
    ("fewest", "most", "word"),
    [
        (40, 40, "even: 40 training pictures of each class"),
        (21, 40, "nearly even"),
        (4, 40, "very uneven"),
        (0, 3, "no"),
    ],
)
def test_balance(fewest: int, most: int, word: str) -> None:
    by_class = {"cat": most, "dog": fewest}
    assert word in balance_line(audit_record(counts={"train": by_class, "validation": by_class, "test": by_class}))


def test_nothing_found() -> None:
    record = audit_record(unreadable=(), findings=(), by_nature={}, num_plain=0, notes=())
    page = Page(audit_page(record, {}))
    assert leak_line(record) == "no picture has a copy in another split"
    assert "Pairs of copies" not in page.text
    assert ("class", "warn") not in page.attributes


def test_written_whole(tmp_path: Path) -> None:
    write_audit_page(audit_record(), {}, tmp_path / "audit.html")
    assert (tmp_path / "audit.html").read_text(encoding="utf-8") == audit_page(audit_record(), {})


def test_a_path_that_cannot_be_written_is_refused_early(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"written as \.html, but got 'audit\.pdf'"):
        check_page_path(Path("audit.pdf"))
    with pytest.raises(StorageError, match="its folder does not exist"):
        check_page_path(tmp_path / "nowhere" / "audit.html")
    (tmp_path / "audit.html").mkdir()
    with pytest.raises(StorageError, match="a folder stands where a file is needed"):
        check_page_path(tmp_path / "audit.html")


def test_it_opens_without_torch() -> None:
    code = "import sys, conviction.report.audit_page; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
