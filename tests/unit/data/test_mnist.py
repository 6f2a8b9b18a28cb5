import gzip
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from conviction.core.errors import DataError
from conviction.data.pack import SPLIT_CODES, load_pack
from conviction.data.source import mnist
from conviction.data.source.base import open_source
from conviction.data.source.mnist import MnistConfig
from pictures import write_class_folders

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
LABELS = {"train": [7, 0, 7, 9], "t10k": [1, 9]}


def idx_images(images: np.ndarray) -> bytes:
    return struct.pack(">IIII", 0x803, *images.shape) + images.tobytes()


def idx_labels(labels: list[int]) -> bytes:
    return struct.pack(">II", 0x801, len(labels)) + bytes(labels)


def images_of(part: str) -> np.ndarray:
    """Pictures of 3×2 whose pixels tell their place."""
    start = 0 if part == "train" else 100
    return np.arange(start, start + 6 * len(LABELS[part]), dtype=np.uint8).reshape(-1, 3, 2)


def official(folder: Path, zipped: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        part = name.split("-")[0]
        content = idx_images(images_of(part)) if "images" in name else idx_labels(LABELS[part])
        (folder / f"{name}{'.gz' if zipped else ''}").write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_the_four_official_files(tmp_path: Path, zipped: bool) -> None:
    pack = load_pack(MnistConfig(path=str(official(tmp_path / "set", zipped))))
    assert pack.classes == tuple("0123456789")
    assert pack.paths == ("test/00000", "test/00001", "train/00000", "train/00001", "train/00002", "train/00003")
    assert pack.labels.tolist() == [1, 9, 7, 0, 7, 9]
    assert pack.splits.tolist() == [SPLIT_CODES["test"]] * 2 + [SPLIT_CODES["train"]] * 4
    assert pack.images.shape == (6, 3, 2, 1)
    assert pack.images[0].ravel().tolist() == [100, 101, 102, 103, 104, 105]
    assert pack.images[5].ravel().tolist() == [18, 19, 20, 21, 22, 23]
    assert pack.shown_path == "set"


def test_gzipped_and_plain_files_give_the_same_pictures(tmp_path: Path) -> None:
    plain = load_pack(MnistConfig(path=str(official(tmp_path / "plain"))))
    zipped = load_pack(MnistConfig(path=str(official(tmp_path / "zipped", zipped=True))))
    assert plain.digest == zipped.digest


@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
def test_official_files_are_found_below_the_data_folders(
    tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    official(tmp_path / "data" / below)
    monkeypatch.setenv("CONVICTION_DATA", f"{tmp_path / 'nowhere'}:{tmp_path / 'data'}")
    assert len(open_source(MnistConfig()).entries()) == 6


def test_the_other_spelling_of_the_official_names(tmp_path: Path) -> None:
    for file in official(tmp_path / "set").iterdir():
        file.rename(file.with_name(file.name.replace("-idx", ".idx")))
    assert len(open_source(MnistConfig(path=str(tmp_path / "set"))).entries()) == 6


def test_class_folders_called_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path / "mnist" / "train", {"0": 2, "1": 2})
    monkeypatch.setenv("CONVICTION_DATA", str(tmp_path))
    pack = load_pack(MnistConfig())
    assert (pack.classes, pack.images.shape) == (("0", "1"), (4, 8, 8, 1))


def damaged(tmp_path: Path, name: str, content: bytes) -> str:
    folder = official(tmp_path / "set")
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_pack(MnistConfig(path=str(folder)))
    assert name in str(caught.value)
    return str(caught.value)


def test_wrong_magic_is_refused(tmp_path: Path) -> None:
    images, labels = idx_images(images_of("train")), idx_labels(LABELS["train"])
    assert "no IDX file of images" in damaged(tmp_path, NAMES[0], b"\0\0\x08\x01" + images[4:])
    assert "no IDX file of digits' labels" in damaged(tmp_path, NAMES[1], b"\0\0\x08\x03" + labels[4:])


@pytest.mark.parametrize("length", [0, 3, 7, 15, -1])
def test_truncated_files_are_refused(tmp_path: Path, length: int) -> None:
    assert NAMES[0] in damaged(tmp_path, NAMES[0], idx_images(images_of("train"))[:length])
    assert NAMES[1] in damaged(tmp_path, NAMES[1], idx_labels(LABELS["train"])[: min(length, 7)])


@pytest.mark.parametrize("length", [0, 5, 30, -1])
def test_truncated_gzip_is_refused(tmp_path: Path, length: int) -> None:
    folder = official(tmp_path / "set", zipped=True)
    path = folder / f"{NAMES[0]}.gz"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=NAMES[0]):
        load_pack(MnistConfig(path=str(folder)))


def test_a_gzip_file_that_inflates_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "MAX_FILE_BYTES", 1000)
    folder = official(tmp_path / "set", zipped=True)
    (folder / f"{NAMES[0]}.gz").write_bytes(gzip.compress(bytes(1001)))
    with pytest.raises(DataError, match="more than 1,000 bytes: no file of MNIST"):
        load_pack(MnistConfig(path=str(folder)))


def test_a_label_beyond_nine_is_refused(tmp_path: Path) -> None:
    assert "no IDX file of digits' labels" in damaged(tmp_path, NAMES[1], idx_labels([7, 0, 10, 9]))


def test_empty_files_are_refused(tmp_path: Path) -> None:
    assert "no IDX file of digits' labels" in damaged(tmp_path, NAMES[1], idx_labels([]))
    assert "no IDX file of images" in damaged(tmp_path, NAMES[0], idx_images(np.zeros((4, 0, 2), np.uint8)))


@pytest.mark.parametrize("labels", [[7, 0, 7], [7, 0, 7, 9, 9]])
def test_other_numbers_of_labels_than_pictures_are_refused(tmp_path: Path, labels: list[int]) -> None:
    assert "different numbers" in damaged(tmp_path, NAMES[1], idx_labels(labels))


def test_a_set_that_lacks_a_file_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = official(tmp_path / "set")
    next(folder.glob("t10k-labels*")).unlink()
    with pytest.raises(DataError, match=r"holds some of MNIST's four files, but lacks t10k-labels-idx1-ubyte\.gz"):
        load_pack(MnistConfig(path=str(folder)))


@pytest.mark.slow
def test_the_complete_set(real_data: Path) -> None:
    source = open_source(MnistConfig(path=str(real_data / "mnist.tar.xz")))
    entries = source.entries()
    assert Counter(entry.split for entry in entries) == {"train": 60_000, "test": 10_000}
    assert source.classes() == tuple("0123456789")
    # The published counts of the digit 5 are the lowest in both splits.
    fives = Counter(entry.split for entry in entries if entry.label == "5")
    assert fives == {"train": 5421, "test": 892}


@pytest.mark.slow
def test_the_complete_set_as_a_pack(real_data: Path) -> None:
    pack = load_pack(MnistConfig(path=str(real_data / "mnist.tar.xz")))
    assert pack.images.shape == (70_000, 28, 28, 1)
    # The mean and the deviation that every tutorial gives for the training pictures.
    train = np.asarray(pack.images[pack.splits == SPLIT_CODES["train"]], np.float64) / 255
    assert (round(train.mean(), 4), round(train.std(), 4)) == (0.1307, 0.3081)
