from pathlib import Path

import pytest

from conviction.core.errors import DataError
from conviction.data.source.locate import cache_folder, data_folders, find_by_name, locate


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two data folders, and a working folder beside them."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second, tmp_path / "work"):
        folder.mkdir()
    monkeypatch.setenv("CONVICTION_DATA", f"{first}:{tmp_path / 'absent'}::{second}")
    monkeypatch.chdir(tmp_path / "work")
    return first, second


def test_the_data_folders_are_searched_in_their_order(folders: tuple[Path, Path]) -> None:
    first, second = folders
    (second / "photos.tar.gz").touch()
    assert locate("photos") == second / "photos.tar.gz"
    (first / "photos.zip").touch()
    assert locate("photos") == first / "photos.zip"
    assert locate("photos.tar.gz") == second / "photos.tar.gz"
    (first / "photos").mkdir()
    assert locate("photos") == first / "photos"


def test_a_path_comes_before_a_name(folders: tuple[Path, Path]) -> None:
    (folders[0] / "photos").mkdir()
    Path("photos").mkdir()
    assert locate("photos") == Path("photos")


def test_an_absent_path_is_answered_with_the_nearest_name(folders: tuple[Path, Path]) -> None:
    (folders[0] / "imagenette.tar.xz").touch()
    with pytest.raises(DataError, match=r"No file or folder 'imagenete'\. Did you mean 'imagenette'") as caught:
        locate("imagenete")
    assert str(folders[1]) in str(caught.value)
    with pytest.raises(DataError, match=r"Did you mean 'first'\?"):
        locate(f"{folders[0].parent}/firts")


def test_without_data_folders_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVICTION_DATA", raising=False)
    assert data_folders() == []
    with pytest.raises(DataError, match="none, as CONVICTION_DATA is not set"):
        locate("photos")


@pytest.mark.parametrize("path", ["a" * 300, "~nobody-of-this-name/photos", "a\0b", "photos/" * 1000])
def test_paths_that_no_file_can_have(folders: tuple[Path, Path], path: str) -> None:
    with pytest.raises(DataError):
        locate(path)


def test_a_name_without_a_file_is_not_found(folders: tuple[Path, Path]) -> None:
    assert find_by_name("photos") is None


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("CONVICTION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/conviction")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert cache_folder() == Path("/home/ada/.cache/conviction")
