from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archives import contents_of, write_archive
from conviction.core.errors import DataError
from conviction.data.audit import gather as gather_module
from conviction.data.audit.gather import gather, thumbnails_of
from conviction.data.pack import load_pack
from conviction.data.source.digits import DigitsConfig
from conviction.data.source.folder import FolderConfig
from conviction.data.split import SplitConfig, divide
from pictures import save, scene, write_class_folders


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "photos", {"cat": 12, "dog": 12}, (12, 9))


def test_a_row_for_each_picture(photos: Path) -> None:
    found = gather(FolderConfig(path=str(photos)))
    assert [entry.path for entry in found.entries][:2] == ["cat/cat-000.png", "cat/cat-001.png"]
    assert found.thumbnails.shape == (24, 32, 32)
    assert found.sizes_px.tolist() == [[12, 9]] * 24
    assert len(set(found.digests)) == 24
    assert found.faults == {}


@pytest.mark.parametrize("suffix", [".tar.xz", ".zip"])
def test_archives_give_the_same(photos: Path, tmp_path: Path, suffix: str) -> None:
    plain = gather(FolderConfig(path=str(photos)))
    packed = gather(FolderConfig(path=str(write_archive(tmp_path / f"photos{suffix}", contents_of(photos)))))
    assert plain.digests == packed.digests
    assert np.array_equal(plain.thumbnails, packed.thumbnails)
    assert np.array_equal(plain.measures, packed.measures)


def test_digests_are_of_pixels_and_size_not_of_files(tmp_path: Path) -> None:
    pixels = scene(0, (8, 6))
    root = tmp_path / "photos"
    save(pixels, root / "a" / "1.png")
    save(pixels, root / "a" / "2.bmp")
    save(pixels.reshape(6, 8, 3), root / "b" / "3.png")
    save(np.repeat(pixels[:, :, :1], 3, axis=2), root / "b" / "4.png")
    Image.fromarray(pixels[:, :, 0]).save(root / "b" / "5.png")
    one, two, other_size, colour, grey = gather(FolderConfig(path=str(root))).digests
    assert one == two != other_size
    assert colour == grey != one


def test_unreadable_files_are_listed_with_their_reason(photos: Path) -> None:
    (photos / "cat" / "empty.png").write_bytes(b"")
    (photos / "cat" / "text.jpg").write_text("hello")
    (photos / "dog" / "gone.png").symlink_to("nowhere")
    found = gather(FolderConfig(path=str(photos)))
    reasons = {found.entries[row].path: reason for row, reason in found.faults.items()}
    assert reasons.keys() == {"cat/empty.png", "cat/text.jpg", "dog/gone.png"}
    assert reasons["cat/empty.png"] == "is empty (0 bytes)"
    assert reasons["cat/text.jpg"].startswith("is no picture of a known kind")
    assert "nowhere" in reasons["dog/gone.png"]
    assert all(found.digests[row] == b"" for row in found.faults)


def test_the_division_is_that_of_training(photos: Path) -> None:
    (photos / "cat" / "empty.png").write_bytes(b"")
    config = FolderConfig(path=str(photos), unreadable="skip", image_size_px=8)
    for seed in range(3):
        assert divide(gather(config).to_divide(), SplitConfig(), seed).digest() == (
            divide(load_pack(config), SplitConfig(), seed).digest()
        )


def test_pictures_of_any_size_are_read(photos: Path) -> None:
    save(scene(0, (300, 500)), photos / "cat" / "large.png")
    found = gather(FolderConfig(path=str(photos)))
    assert [300, 500] in found.sizes_px.tolist()


def test_sources_of_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    found = gather(DigitsConfig(), lambda *step: told.append(step))
    assert found.sizes_px.tolist() == [[8, 8]] * 1797
    assert told[-1] == ("reading", 1797, 1797)


def test_a_source_that_changes_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gather_module.decode

    def decode(*given: object) -> np.ndarray:
        (photos / "dog" / "dog-011.png").unlink(missing_ok=True)
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(gather_module, "decode", decode)
    with pytest.raises(DataError, match="changed while it was being read"):
        gather(FolderConfig(path=str(photos)))


def test_thumbnails_keep_proportions_and_small_pictures(photos: Path) -> None:
    save(scene(0, (300, 600)), photos / "cat" / "large.png")
    (photos / "cat" / "text.jpg").write_text("hello")
    wanted = ["cat/large.png", "cat/cat-000.png", "cat/text.jpg", "cat/absent.png"]
    found = thumbnails_of(FolderConfig(path=str(photos)), wanted, 96)
    assert {path: image.size for path, image in found.items()} == {
        "cat/large.png": (96, 48),
        "cat/cat-000.png": (9, 12),
    }
