"""A standardisation is fitted once to the same pictures and rows, and anew to others."""

from __future__ import annotations

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


def test_the_oldest_are_removed(pack: Pack) -> None:
    for most in range(1, 8):
        fit_once(ChannelConfig(), pack, ROWS[:most])
    assert len(kept_files(pack)) == fitted_once._MOST_KEPT
    fit_once(ChannelConfig(), pack, ROWS[:7])
    assert len(kept_files(pack)) == fitted_once._MOST_KEPT


def test_where_it_cannot_be_kept_it_is_fitted_each_time(
    pack: Pack, num_fits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise fitted_once.ConvictionError("No room is left.")

    monkeypatch.setattr(fitted_once, "save_tensors", full)
    assert fit_once(ChannelConfig(), pack, ROWS) == fit_once(ChannelConfig(), pack, ROWS)
    assert num_fits == ["channel", "channel"]
