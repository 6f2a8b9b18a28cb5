"""A standardisation is fitted once to the same pictures and rows, and anew to others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conviction.data.pack import Pack, load_pack
from conviction.data.source.folder import FolderConfig
from conviction.data.standardize import (
    STANDARDIZATIONS,
    ChannelConfig,
    FixedConfig,
    StandardizeConfig,
    ZcaConfig,
    fit_standardization,
)
from conviction.run import fitted_once
from conviction.run.fitted_once import fit_once
from pictures import write_class_folders

ROWS = np.arange(8)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return load_pack(FolderConfig(path=str(write_class_folders(tmp_path / "photos", {"cat": 6, "dog": 6}))))


@pytest.fixture
def num_fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the standardisations that were fitted."""
    fitted: list[str] = []

    def counted(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray) -> Any:
        fitted.append(config.name)
        return fit_standardization(config, images, rows)

    monkeypatch.setattr(fitted_once, "fit_standardization", counted)
    return fitted


def kept_files(pack: Pack) -> list[Path]:
    return sorted(Path(pack.images.filename).parent.glob("standardization-*"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["channel", "per_image", "zca", "pca"])
def test_what_was_fitted_is_kept_to_the_last_bit(name: str, pack: Pack, num_fits: list[str]) -> None:
    config = STANDARDIZATIONS[name].config()
    assert isinstance(config, StandardizeConfig)
    first, again = fit_once(config, pack, ROWS), fit_once(config, pack, ROWS[::-1])
    assert num_fits == [name]
    assert first == again == fit_standardization(config, pack.images, ROWS)


def test_other_rows_settings_and_pictures_are_fitted_anew(pack: Pack, num_fits: list[str], tmp_path: Path) -> None:
    fit_once(ZcaConfig(), pack, ROWS)
    fit_once(ZcaConfig(), pack, ROWS[1:])
    fit_once(ZcaConfig(epsilon=0.5), pack, ROWS)
    fit_once(ChannelConfig(), pack, ROWS)
    other = load_pack(FolderConfig(path=str(write_class_folders(tmp_path / "others", {"cat": 6, "dog": 7}))))
    fit_once(ZcaConfig(), other, ROWS)
    assert num_fits == ["zca", "zca", "zca", "channel", "zca"]


def test_damaged_files_are_passed_over(pack: Pack, num_fits: list[str]) -> None:
    first = fit_once(ZcaConfig(), pack, ROWS)
    (path,) = kept_files(pack)
    content = path.read_bytes()
    for damaged in (b"", content[:-9], content[:-9] + b"damaged!!"):
        path.write_bytes(damaged)
        assert fit_once(ZcaConfig(), pack, ROWS) == first
        assert path.read_bytes() == content
    assert len(num_fits) == 4


def test_what_reads_no_pictures_is_not_kept(pack: Pack) -> None:
    fit_once(FixedConfig(mean=(0.5,) * 3, deviation=(0.5,) * 3), pack, ROWS)
    assert kept_files(pack) == []


def test_those_that_were_not_used_longest_are_removed(
    pack: Pack, num_fits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitted_once, "_MOST_KEPT", 3)
    for most in (1, 2, 3, 1, 4, 1, 5):
        fit_once(ChannelConfig(), pack, ROWS[:most])
        # Times of files are no finer than a tick of the clock.
        time.sleep(0.02)
    assert len(kept_files(pack)) == 3
    assert len(num_fits) == 5
    for most in (1, 4, 5):
        fit_once(ChannelConfig(), pack, ROWS[:most])
    assert len(num_fits) == 5


def test_folds_are_all_kept(pack: Pack, num_fits: list[str]) -> None:
    for _ in range(2):
        for left_out in range(8):
            fit_once(ChannelConfig(), pack, np.delete(ROWS, left_out))
    assert len(num_fits) == 8


def test_a_file_of_another_name_is_not_taken(pack: Pack, num_fits: list[str]) -> None:
    fit_once(ChannelConfig(), pack, ROWS)
    (path,) = kept_files(pack)
    content = path.read_bytes()
    expected = fit_once(ZcaConfig(), pack, ROWS)
    (other,) = set(kept_files(pack)) - {path}
    other.write_bytes(content)
    assert fit_once(ZcaConfig(), pack, ROWS) == expected
    assert num_fits == ["channel", "zca", "zca"]


def test_where_it_cannot_be_kept_it_is_fitted_each_time(
    pack: Pack, num_fits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise fitted_once.ConvictionError("No room is left.")

    monkeypatch.setattr(fitted_once, "save_tensors", full)
    assert fit_once(ChannelConfig(), pack, ROWS) == fit_once(ChannelConfig(), pack, ROWS)
    assert num_fits == ["channel", "channel"]
