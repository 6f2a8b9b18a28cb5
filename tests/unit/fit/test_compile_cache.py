"""Where torch keeps what it compiles, and what becomes of libraries that lost their end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from conviction.fit import compile_cache
from conviction.fit.compile_cache import remember_libraries, replacing_damaged, use_cache_folder

VARIABLE, CPU = "TORCHINDUCTOR_CACHE_DIR", torch.device("cpu")


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "TORCH_WARM_POOL"):
        # Set first, so that whatever a test sets is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(compile_cache, "_holding", compile_cache._Holding())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "compiled"


def another_process(monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """What it finds once this one has ended."""
    monkeypatch.delenv(VARIABLE)
    compile_cache._holding.release()
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


def test_one_process_at_a_time_has_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache_folder(CPU)
    one = library(folder, "one.so")
    mine = compile_cache._holding
    # Another one, which was started by this one or not.
    for inherited in (True, False):
        monkeypatch.setattr(compile_cache, "_holding", compile_cache._Holding())
        if not inherited:
            monkeypatch.delenv(VARIABLE)
        assert use_cache_folder(CPU) is None
        assert os.environ[VARIABLE] != str(folder)
        remember_libraries()
        Path(os.environ[VARIABLE]).rmdir()
        monkeypatch.setenv(VARIABLE, str(folder))
    assert [path.name for path in folder.iterdir() if path.suffix == ".json"] == []
    assert one.exists()
    mine.release()
    assert use_cache_folder(CPU) == folder


def test_another_folder_stays_where_it_helps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache_folder(CPU)
    library(folder, "one.py")
    triton = str(folder / "triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", triton)

    def fail() -> None:
        with replacing_damaged(folder):
            assert os.environ[VARIABLE] != str(folder)
            raise KeyError

    assert another_process(monkeypatch) == folder
    with pytest.raises(KeyError):
        fail()
    # Once is enough to try.
    assert use_cache_folder(CPU) is None
    assert os.environ[VARIABLE] == str(folder)
    assert (folder / "ab" / "one.py").exists()
    assert os.environ["TRITON_CACHE_DIR"] == triton
    with replacing_damaged(folder):
        pass
    assert os.listdir(os.environ[VARIABLE]) == []
    assert "TRITON_CACHE_DIR" not in os.environ
    assert [path.name for path in folder.iterdir()] == [".lock"]
    assert use_cache_folder(CPU) is None
    assert os.environ[VARIABLE] != str(folder)


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
