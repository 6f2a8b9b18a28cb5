"""Where torch keeps what it compiles, and what becomes of libraries that lost their end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from conviction.fit import compile_cache
from conviction.fit.compile_cache import instead_of, remember_libraries, use_cache_folder

VARIABLE, CPU = "TORCHINDUCTOR_CACHE_DIR", torch.device("cpu")


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "TORCH_WARM_POOL"):
        # Set first, so that whatever a test sets is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "compiled"


def another_process(monkeypatch: pytest.MonkeyPatch) -> Path | None:
    monkeypatch.delenv(VARIABLE)
    return use_cache_folder(CPU)


def library(folder: Path, name: str) -> Path:
    path = folder / "ab" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(name.encode() * 100)
    return path


def test_it_is_ours_and_empty(folder: Path) -> None:
    assert use_cache_folder(CPU) is None
    assert os.environ[VARIABLE] == str(folder)
    assert os.environ["TORCH_WARM_POOL"] == "0"


def test_processes_that_compile_for_a_gpu_stay() -> None:
    use_cache_folder(torch.device("cuda"))
    assert "TORCH_WARM_POOL" not in os.environ


def test_the_users_own_stays(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv(VARIABLE, "/elsewhere")
    assert use_cache_folder(CPU) is None
    remember_libraries()
    assert os.environ[VARIABLE] == "/elsewhere"
    assert not folder.exists()


def test_libraries_that_are_not_as_they_were_are_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache_folder(CPU)
    whole, shorter, changed = (library(folder, f"{name}.so") for name in ("whole", "shorter", "changed"))
    source = library(folder, "source.py")
    remember_libraries()
    unknown = library(folder, "unknown.so")
    os.truncate(shorter, 300)
    content = bytearray(changed.read_bytes())
    content[500] ^= 1
    changed.write_bytes(content)
    assert another_process(monkeypatch) == folder
    assert [path.exists() for path in (whole, source, shorter, changed, unknown)] == [True, True, False, False, False]


@pytest.mark.parametrize("damaged", ["", "[1]", '{"ab/one.so": 3}', '"text"'])
def test_without_their_sums_none_is_trusted(damaged: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache_folder(CPU)
    one = library(folder, "one.so")
    remember_libraries()
    assert list(json.loads((folder / "libraries.json").read_text())) == ["ab/one.so"]
    (folder / "libraries.json").write_text(damaged)
    another_process(monkeypatch)
    assert not one.exists()


def test_another_folder_stays_where_it_helps(folder: Path) -> None:
    use_cache_folder(CPU)
    library(folder, "one.so")

    def fail() -> None:
        with instead_of(folder):
            assert os.environ[VARIABLE] != str(folder)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert os.environ[VARIABLE] == str(folder)
    assert (folder / "ab" / "one.so").exists()
    with instead_of(folder):
        pass
    assert os.listdir(os.environ[VARIABLE]) == []
    assert not folder.exists()
    assert use_cache_folder(CPU) is None


def test_where_nothing_can_be_written_libraries_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert use_cache_folder(CPU) is None
    assert not os.environ[VARIABLE].startswith(str(tmp_path / "cache"))
    assert Path(os.environ[VARIABLE]).is_dir()
    Path(os.environ[VARIABLE]).rmdir()


def test_a_sum_that_cannot_be_written_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache_folder(CPU)
    one = library(folder, "one.so")

    def full(*arguments: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(compile_cache, "write_json", full)
    remember_libraries()
    another_process(monkeypatch)
    assert not one.exists()
