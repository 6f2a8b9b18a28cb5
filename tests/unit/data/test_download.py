import hashlib
import http.client
import io
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from conviction.core.errors import DataError
from conviction.data.source.download import OfficialFile, fetch

CONTENT = b"the published bytes" * 1000
FILE = OfficialFile("set.tar", "https://example.org/set.tar", len(CONTENT), hashlib.md5(CONTENT).hexdigest())


class Network:
    """Answers with `content` to `urlopen`, or raises it."""

    def __init__(self, content: bytes | Exception) -> None:
        self.content = content
        self.asked: list[str] = []

    def __call__(self, url: str, timeout: float) -> Any:
        self.asked.append(url)
        if isinstance(self.content, Exception):
            raise self.content
        return io.BytesIO(self.content)


def network(monkeypatch: pytest.MonkeyPatch, content: bytes | Exception) -> Network:
    answers = Network(content)
    monkeypatch.setattr(urllib.request, "urlopen", answers)
    return answers


def files_below(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_a_file_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = network(monkeypatch, CONTENT)
    assert fetch(FILE).read_bytes() == CONTENT
    assert fetch(FILE) == tmp_path / "cache" / "downloads" / "set.tar"
    assert answers.asked == ["https://example.org/set.tar"]
    assert files_below(tmp_path) == ["set.tar"]


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], b"x" * len(CONTENT)])
def test_other_bytes_are_refused_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    network(monkeypatch, content)
    with pytest.raises(DataError, match=rf"other bytes than the published ones \(MD5 .*, expected {FILE.md5}\)"):
        fetch(FILE)
    assert files_below(tmp_path) == []


def test_an_answer_without_end_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        num_read = 0

        def read(self, size: int = -1) -> bytes:
            self.num_read += size
            assert self.num_read < 10_000_000
            return bytes(size)

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Endless())
    with pytest.raises(DataError, match=f"more than the published {len(CONTENT):,} bytes"):
        fetch(FILE)
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    "fault",
    [
        urllib.error.URLError("Name or service not known"),
        urllib.error.HTTPError(FILE.url, 404, "Not Found", None, None),  # type: ignore[arg-type]
        TimeoutError("timed out"),
        ConnectionResetError("reset"),
        socket.gaierror(-2, "unknown name"),
        http.client.BadStatusLine("garbage"),
        http.client.IncompleteRead(b""),
    ],
)
def test_without_a_network_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    network(monkeypatch, fault)
    with pytest.raises(DataError, match=r"set\.tar is not here, and fetching it failed .*CONVICTION_DATA"):
        fetch(FILE)
    assert files_below(tmp_path) == []


def test_a_connection_that_breaks_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise ConnectionResetError("reset by peer")
            return super().read(100)

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Breaking(CONTENT))
    with pytest.raises(DataError, match="reset by peer"):
        fetch(FILE)
    assert files_below(tmp_path) == []
