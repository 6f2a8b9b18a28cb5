import io
import os
import pickle
import tarfile
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archives import write_archive
from conviction.core.errors import DataError
from conviction.data.pack import SPLIT_CODES, load_pack
from conviction.data.source.base import open_source
from conviction.data.source.cifar10 import CLASSES, Cifar10Config
from pictures import write_class_folders

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def rows_of(batch: int) -> np.ndarray:
    """Two pictures: planes of red, green and blue, each of one grey level that tells batch and picture."""
    planes = [[[40 * batch + 10 * picture + channel] * 1024 for channel in range(3)] for picture in range(2)]
    return np.array(planes, np.uint8).reshape(2, 3072)


def labels_of(batch: int) -> list[int]:
    return [batch, 9 - batch]


def python_two_pickle(content: dict[str, Any]) -> bytes:
    """Protocol 2 with the official files' module name of old."""
    return pickle.dumps(content, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def python_version() -> dict[str, bytes]:
    contents = {"batches.meta": python_two_pickle({"label_names": list(CLASSES)}), "readme.html": b"<html>"}
    for number, name in enumerate(BATCHES):
        batch = {b"labels": labels_of(number), b"data": rows_of(number), b"batch_label": name.encode()}
        contents[name] = python_two_pickle(batch)
    return contents


def binary_version() -> dict[str, bytes]:
    contents = {"batches.meta.txt": "\n".join(CLASSES).encode()}
    for number, name in enumerate(BATCHES):
        pairs = zip(labels_of(number), rows_of(number), strict=True)
        contents[f"{name}.bin"] = b"".join(bytes([label]) + row.tobytes() for label, row in pairs)
    return contents


def write(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def official(tmp_path: Path, kind: str, contents: dict[str, bytes] | None = None) -> Path:
    """The official files by their official name, made small."""
    python = "py" in kind
    contents = contents or (python_version() if python else binary_version())
    folder = f"cifar-10-batches-{'py' if python else 'bin'}"
    if kind.endswith(".tar.gz"):
        return write_archive(tmp_path / kind, {f"{folder}/{name}": content for name, content in contents.items()})
    return write(tmp_path / folder, contents)


KINDS = ["cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "batches-py", "batches-bin"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_official_files(tmp_path: Path, kind: str) -> None:
    place = official(tmp_path, kind)
    pack = load_pack(Cifar10Config(path=str(place)))
    assert pack.classes == CLASSES
    assert pack.images.shape == (12, 32, 32, 3)
    assert pack.paths[:3] == ("data_batch_1/00000", "data_batch_1/00001", "data_batch_2/00000")
    assert pack.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5, 5, 4]
    assert pack.splits.tolist() == [SPLIT_CODES["train"]] * 10 + [SPLIT_CODES["test"]] * 2
    assert (pack.images[3] == [50, 51, 52]).all()
    assert (pack.images[10] == [200, 201, 202]).all()
    assert pack.shown_path == place.name


def test_rows_run_from_left_to_right(tmp_path: Path) -> None:
    contents = binary_version()
    ramp = np.arange(3072, dtype=np.uint16).astype(np.uint8)
    contents["data_batch_1.bin"] = bytes([0]) + ramp.tobytes() + bytes([1]) + bytes(3072)
    pack = load_pack(Cifar10Config(path=str(official(tmp_path, "batches-bin", contents))))
    assert pack.images[0, 0, :3, 0].tolist() == [0, 1, 2]
    assert pack.images[0, :3, 0, 0].tolist() == [0, 32, 64]


@pytest.mark.parametrize("kind", KINDS)
def test_official_files_are_found_in_the_data_folders(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = official(tmp_path, kind)
    monkeypatch.setenv("CONVICTION_DATA", str(tmp_path))
    source = open_source(Cifar10Config())
    assert (len(source.entries()), source.shown_path) == (12, place.name)


def test_class_folders_called_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path / "cifar10" / "train", {"airplane": 1, "bird": 1}, (32, 32))
    monkeypatch.setenv("CONVICTION_DATA", str(tmp_path))
    assert load_pack(Cifar10Config()).classes == ("airplane", "bird")


def refusal(place: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_pack(Cifar10Config(path=str(place)))
    return str(caught.value)


def test_a_missing_batch_is_refused(tmp_path: Path) -> None:
    contents = python_version()
    del contents["data_batch_4"]
    assert "lacks some of the six batches" in refusal(official(tmp_path, "batches-py", contents))


def test_batches_that_stand_there_twice_are_refused(tmp_path: Path) -> None:
    message = refusal(official(tmp_path, "batches-py", python_version() | binary_version()))
    assert "holds batches of CIFAR-10 twice" in message


@pytest.mark.parametrize("length", [0, 1, 3072, 3074, -1])
def test_truncated_binary_batches_are_refused(tmp_path: Path, length: int) -> None:
    contents = binary_version()
    contents["data_batch_2.bin"] = contents["data_batch_2.bin"][:length]
    assert "data_batch_2.bin" in refusal(official(tmp_path, "batches-bin", contents))


@pytest.mark.parametrize("length", [0, 1, 100, 3000, -1])
def test_truncated_pickles_are_refused(tmp_path: Path, length: int) -> None:
    contents = python_version()
    contents["data_batch_2"] = contents["data_batch_2"][:length]
    assert "data_batch_2 is no batch of CIFAR-10" in refusal(official(tmp_path, "batches-py", contents))


def test_a_label_beyond_nine_is_refused(tmp_path: Path) -> None:
    contents = binary_version()
    contents["test_batch.bin"] = bytes([10]) + contents["test_batch.bin"][1:]
    assert "test_batch.bin is no batch of CIFAR-10" in refusal(official(tmp_path, "batches-bin", contents))


@pytest.mark.parametrize(
    "batch",
    [
        {b"labels": [0, 10], b"data": rows_of(0)},
        {b"labels": [0, -1], b"data": rows_of(0)},
        {b"labels": [0], b"data": rows_of(0)},
        {b"labels": [[0], [1]], b"data": rows_of(0)},
        {b"labels": [0, 1], b"data": rows_of(0).astype(np.float32)},
        {b"labels": [0, 1], b"data": rows_of(0)[:, :3071]},
        {b"labels": [0, 1], b"data": "text"},
        {b"labels": ["a", "b"], b"data": rows_of(0)},
        {b"labels": [0, 1]},
        ["no", "mapping"],
    ],
)
def test_pickles_of_something_else_are_refused(tmp_path: Path, batch: Any) -> None:
    contents = python_version() | {"data_batch_3": python_two_pickle(batch)}
    assert "data_batch_3 is no batch of CIFAR-10" in refusal(official(tmp_path, "batches-py", contents))


class Calls:
    """Pickles to a call of its function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, exec, os.mkdir, getattr, open])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, function: Any) -> None:
    trace = tmp_path / "trace"
    command = {os.system: f"mkdir {trace}", os.mkdir: str(trace)}.get(
        function, f"__import__('os').mkdir({str(trace)!r})"
    )
    arguments = (os, "system") if function is getattr else (command,)
    attack = Calls(function, *(("x", "upper") if function is getattr else arguments))
    contents = python_version() | {"data_batch_1": pickle.dumps({b"labels": attack}, protocol=2)}
    assert "which no official file of CIFAR-10 does: it is refused" in refusal(
        official(tmp_path, "batches-py", contents)
    )
    assert not trace.exists()


def no_network(*_: Any, **__: Any) -> Any:
    raise urllib.error.URLError("no network here")


def test_other_pictures_under_a_like_name_are_pointed_to_but_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(tmp_path / "cifar10-jpeg75.tar.xz", {"cat/1.jpg": b""})
    monkeypatch.setenv("CONVICTION_DATA", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(DataError, match=r"--set data\.path=cifar10-jpeg75\.tar\.xz") as caught:
        open_source(Cifar10Config())
    assert "cifar-10-python.tar.gz is not here" in str(caught.value)


def test_the_official_archive_under_another_name_is_no_silent_success(tmp_path: Path) -> None:
    place = official(tmp_path, "cifar-10-python.tar.gz").rename(tmp_path / "mine.tar.gz")
    assert "mine.tar.gz" in refusal(place)


def test_an_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(buffer.getvalue())
    assert "link" in refusal(tmp_path / "cifar-10-python.tar.gz")


@pytest.mark.slow
def test_the_complete_set(real_data: Path) -> None:
    source = open_source(Cifar10Config(path=str(real_data / "cifar10-jpeg75.tar.xz")))
    counts = Counter((entry.split, entry.label) for entry in source.entries())
    assert counts == {("train", label): 5000 for label in CLASSES} | {("test", label): 1000 for label in CLASSES}
    assert source.classes() == CLASSES
