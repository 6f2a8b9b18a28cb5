"""What every data source keeps to, whatever its files look like."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from archives import contents_of, write_archive
from conviction.data.decode import DecodeSettings, decode
from conviction.data.pack import load_pack
from conviction.data.source import SOURCES, SourceConfig
from conviction.data.source.base import Source, open_source
from pictures import write_class_folders


def folder(tmp_path: Path) -> str:
    root = write_class_folders(tmp_path / "photos" / "train", {"cat": 3, "dog": 2, "ant": 1})
    write_class_folders(root.parent / "test", {"dog": 1})
    return str(root.parent)


def archive(tmp_path: Path) -> str:
    return str(write_archive(tmp_path / "photos.tar.xz", contents_of(Path(folder(tmp_path)))))


def mnist(tmp_path: Path) -> str:
    for part, count in (("train", 12), ("t10k", 3)):
        images = (
            struct.pack(">IIII", 0x803, count, 4, 5) + bytes(range(20 * count % 256)) + bytes(20 * count // 256 * 256)
        )
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(images[: 16 + 20 * count])
        labels = bytes(number % 10 for number in range(count))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels)
    return str(tmp_path)


def cifar10(tmp_path: Path) -> str:
    root = tmp_path / "cifar-10-batches-bin"
    root.mkdir()
    for number, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        (root / f"{name}.bin").write_bytes((bytes([number]) + bytes([number]) * 3072) * 2)
    return str(root)


def table(tmp_path: Path) -> str:
    root = Path(folder(tmp_path))
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    # Without a line feed at the end, so that the last letter is one of a label.
    lines = [f"{name},{name.split('/')[0]},{name.split('/')[1]}" for name in names]
    (root / "list.csv").write_text("\n".join(["file,split,label", *lines]))
    return str(root / "list.csv")


def tab_separated(tmp_path: Path) -> str:
    place = Path(table(tmp_path))
    place.with_suffix(".tsv").write_text(place.read_text().replace(",", "\t"))
    return str(place.with_suffix(".tsv"))


def saved_data_set(tmp_path: Path) -> str:
    return str(shutil.copytree(Path(__file__).parents[1] / "data_sets" / "splits", tmp_path / "saved"))


def published_data_set(tmp_path: Path) -> str:
    return str(shutil.copytree(Path(__file__).parents[1] / "data_sets" / "published", tmp_path / "published"))


def embedded(tmp_path: Path) -> None:
    return None


MADE: dict[str, list[Callable[[Path], str | None]]] = {
    "folder": [folder, archive],
    "mnist": [mnist, folder, archive],
    "cifar10": [cifar10, folder, archive],
    "table": [table, tab_separated],
    "hugging_face": [saved_data_set, published_data_set],
    "digits": [embedded],
}


@pytest.mark.parametrize(
    ("name", "make"),
    [(entry.name, make) for entry in SOURCES for make in MADE[entry.name]],
    ids=lambda part: getattr(part, "__name__", part),
)
class TestEverySource:
    @pytest.fixture
    def config(self, name: str, make: Callable[[Path], str | None], tmp_path: Path) -> SourceConfig:
        return SOURCES[name].config(path=make(tmp_path))  # type: ignore[return-value, call-arg]

    @pytest.fixture
    def source(self, config: SourceConfig) -> Source:
        return open_source(config)

    def test_entries_are_sorted_and_unique(self, source: Source) -> None:
        paths = [entry.path for entry in source.entries()]
        assert paths == sorted(set(paths))
        assert len(paths) > 6

    def test_labels_are_classes_and_classes_are_unique(self, source: Source) -> None:
        classes = source.classes()
        assert {entry.label for entry in source.entries()} <= set(classes)
        assert len(classes) == len(set(classes)) >= 2

    def test_reading_gives_exactly_the_entries(self, source: Source) -> None:
        assert sorted(name for name, _ in source.read()) == [entry.path for entry in source.entries()]

    def test_every_content_is_a_picture(self, source: Source) -> None:
        for _, content in source.read():
            array = (
                decode(content, DecodeSettings("rgb", None, "crop", 10**6)) if isinstance(content, bytes) else content
            )
            assert array.dtype == np.uint8
            assert array.ndim == 3
            assert array.shape[2] in (1, 3)

    def test_splits_are_given_for_all_pictures_or_for_none(self, source: Source) -> None:
        splits = {entry.split for entry in source.entries()}
        assert splits == {None} or ("train" in splits and None not in splits)

    def test_another_opening_gives_the_same(self, source: Source, config: SourceConfig) -> None:
        again = open_source(config)
        # In another order of calls, as what is found out first may not matter.
        contents = [(name, bytes(content)) for name, content in again.read()]
        assert [(name, bytes(content)) for name, content in source.read()] == contents
        for ask in (
            lambda asked: asked.digest(),
            lambda asked: asked.stamp(),
            lambda asked: asked.classes(),
            lambda asked: asked.entries(),
            lambda asked: asked.notes(),
            lambda asked: asked.shown_path,
        ):
            assert ask(source) == ask(again) == ask(source)

    def test_stamp_and_digest_follow_the_content(self, source: Source, config: SourceConfig) -> None:
        if config.path is None:
            pytest.skip("nothing on disk can change")
        before = source.stamp(), source.digest()
        place = Path(config.path)
        changed = max(path for path in [place, *place.rglob("*")] if path.is_file())
        content = changed.read_bytes()
        changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        again = open_source(config)
        assert again.stamp() != before[0]
        assert again.digest() != before[1]

    def test_the_pack_holds_what_was_read(self, source: Source, config: SourceConfig) -> None:
        pack = load_pack(config)
        entries = source.entries()
        assert pack.paths == tuple(entry.path for entry in entries)
        assert [pack.classes[label] for label in pack.labels] == [entry.label for entry in entries]
        assert pack.shown_path == source.shown_path
        settings = DecodeSettings(config.color, None, "crop", 10**6)
        for name, content in source.read():
            image = pack.images[pack.paths.index(name)]
            expected = decode(content, settings) if isinstance(content, bytes) else content
            assert np.array_equal(image, np.broadcast_to(expected, image.shape))
