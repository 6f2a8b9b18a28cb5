"""What was compiled goes whole from one process to the next, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conviction.core.errors import StorageError
from conviction.core.files import is_locked, locked
from conviction.fit import compile_cache, compile_folder
from conviction.fit.compile_cache import KeptCode

VARIABLE, TRITON, CPU = "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", torch.device("cpu")


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, TRITON, "TORCH_WARM_POOL"):
        # Set first, so that whatever a test sets is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    compile_folder._folder.cache_clear()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "compiled"


def brought(about: str = "network") -> tuple[KeptCode, Path]:
    """As another process has it: the code, and where torch works."""
    code = KeptCode([about], CPU)
    code.bring()
    return code, Path(os.environ[VARIABLE])


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode() * 100)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_compiled_comes_back(kept: Path) -> None:
    code, first = brought()
    assert files(first) == {}
    assert os.environ["TORCH_WARM_POOL"] == "0"
    write(first, "ab/one.so", "cd/two.py", "locks/three.lock", "top")
    code.keep()
    _, second = brought()
    assert second != first
    assert files(second) == {name: name.encode() * 100 for name in ("ab/one.so", "cd/two.py", "top")}
    assert len(list(kept.iterdir())) == 1


def test_each_has_its_own() -> None:
    code, first = brought()
    write(first, "ab/one.so")
    code.keep()
    assert files(brought("another")[1]) == {}
    assert len(files(brought()[1])) == 1


def test_another_torch_or_processor_compiles_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    code, first = brought()
    write(first, "ab/one.so")
    code.keep()
    with monkeypatch.context() as patch:
        patch.setattr(compile_cache, "device_name", lambda device: "another")
        assert files(brought()[1]) == {}
    with monkeypatch.context() as patch:
        patch.setattr(compile_cache, "processor_flags", lambda: frozenset({"avx2"}))
        assert files(brought()[1]) == {}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "3.0")
        assert files(brought()[1]) == {}
    assert len(files(brought()[1])) == 1


def test_later_variants_join(kept: Path) -> None:
    code, first = brought()
    write(first, "ab/one.so")
    code.keep()
    (path,) = kept.iterdir()
    before = path.stat().st_ino
    code.keep()
    assert path.stat().st_ino == before
    code, second = brought()
    code.keep()
    assert path.stat().st_ino == before
    write(second, "cd/two.so")
    code.keep()
    assert list(files(brought()[1])) == ["ab/one.so", "cd/two.so"]


def test_it_works_where_two_take_turns() -> None:
    one, first = brought("one")
    two, second = brought("two")
    write(second, "ab/two.so")
    # torch works for the other one now.
    write(first, "ab/not-yet.so")
    one.keep()
    assert files(brought("one")[1]) == {}
    (first / "ab" / "not-yet.so").unlink()
    one.bring()
    assert os.environ[VARIABLE] == str(first)
    write(first, "ab/one.so")
    two.keep()
    one.keep()
    two.bring()
    two.keep()
    assert list(files(brought("one")[1])) == ["ab/one.so"]
    assert list(files(brought("two")[1])) == ["ab/two.so"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), is_cut=st.booleans())
def test_what_is_damaged_anywhere_is_not_used(place: float, bit: int, is_cut: bool, kept: Path) -> None:
    code, first = brought()
    write(first, "ab/one.so", "cd/two.py")
    code.keep()
    (path,) = kept.iterdir()
    content = bytearray(path.read_bytes())
    position = int(place * len(content))
    content[position] ^= 1 << bit
    path.write_bytes(content[:position] if is_cut else content)
    code, second = brought()
    assert files(second) == {}
    write(second, "ab/one.so")
    code.keep()
    assert list(files(brought()[1])) == ["ab/one.so"]
    path.unlink()


def test_what_does_not_work_is_forgotten(kept: Path) -> None:
    code, first = brought()
    # Another process may have kept what works.
    code.forget()
    write(first, "ab/one.so")
    code.keep()
    again, _ = brought()
    again.forget()
    again.forget()
    assert list(kept.iterdir()) == []
    assert files(brought()[1]) == {}


def test_the_users_own_folder_stays(kept: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    code, folder = brought()
    code.keep()
    code.forget()
    assert folder == tmp_path / "own"
    assert not folder.exists()
    assert not kept.exists()


@pytest.mark.parametrize("chosen", ["", "/of/the/process/above/torchinductor_somebody"])
def test_what_torch_chose_is_not_the_users(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes its choice into the environment, as soon as somebody makes an optimiser."""
    monkeypatch.setenv(VARIABLE, chosen)
    monkeypatch.setenv(TRITON, f"{chosen}/triton/0" if chosen else "")
    _, folder = brought()
    assert folder.parent.name.startswith("conviction-compiled-")
    assert TRITON not in os.environ


def test_code_lies_in_the_cache_folder_where_the_temporary_one_does_not_suit(
    kept: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("a temporary folder", "it's"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
        compile_folder._folder.cache_clear()
        assert brought()[1].parent.parent == kept
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    real = os.statvfs

    class NoCode:
        f_flag = os.ST_NOEXEC | os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda path: NoCode if str(path).endswith("temporary") else real(path))
    compile_folder._folder.cache_clear()
    code, folder = brought()
    assert folder.parent.parent == kept
    write(folder, "ab/one.so")
    code.keep()
    assert list(files(brought()[1])) == ["ab/one.so"]
    # Where neither suits, the temporary folder is as good.
    monkeypatch.setattr(os, "statvfs", lambda path: NoCode)
    compile_folder._folder.cache_clear()
    assert brought()[1].parent.parent == tmp_path / "temporary"


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    names = ("abandoned", "alive", "young", "never-locked")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "temporary" / "conviction-compiled-link").symlink_to(tmp_path / "elsewhere")
    os.utime(tmp_path / "temporary" / "conviction-compiled-link", (0, 0), follow_symlinks=False)
    folders = {name: tmp_path / "temporary" / f"conviction-compiled-{name}" for name in names}
    for name, folder in folders.items():
        folder.mkdir()
        if name != "never-locked":
            write(folder, ".lock")
        if name != "young":
            os.utime(folder, (0, 0))
    with locked(folders["alive"] / ".lock") as held:
        assert held
        _, own = brought()
    assert own.exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert [name for name, folder in folders.items() if folder.exists()] == ["alive", "young"]


def test_what_a_process_leaves_to_those_it_starts_is_not_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = brought()
    monkeypatch.setenv(TRITON, str(first / "triton" / "0"))
    compile_folder._folder.cache_clear()
    _, second = brought()
    assert second.parent != first.parent
    assert TRITON not in os.environ


def test_the_users_triton_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRITON, "/elsewhere")
    brought()
    assert os.environ[TRITON] == "/elsewhere"


def test_processes_that_compile_for_a_gpu_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_cache, "device_name", lambda device: "a GPU")
    KeptCode([], torch.device("cuda"))
    assert "TORCH_WARM_POOL" not in os.environ


def refuse(*arguments: object) -> None:
    raise StorageError("full")


def test_no_clock_and_no_other_fault_of_saving_stops_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    code, first = brought()
    write(first, "ab/one.so")
    with monkeypatch.context() as patch:

        def too_large(*arguments: object) -> None:
            raise MemoryError

        patch.setattr(compile_cache, "write_bytes", too_large)
        code.keep()
    os.utime(first / "ab" / "one.so", (0, 0))
    code.keep()
    assert len(files(brought()[1])) == 1


def test_what_was_cleaned_away_comes_back() -> None:
    code, first = brought()
    write(first, "ab/one.so")
    code.keep()
    shutil.rmtree(first.parent)
    code.bring()
    second = Path(os.environ[VARIABLE])
    assert list(files(second)) == ["ab/one.so"]
    # Others see that it is in use.
    assert is_locked(second.parent / ".lock")
    assert list(files(brought()[1])) == ["ab/one.so"]
    # And the archive too.
    shutil.rmtree(second.parent)
    code.forget()
    code.bring()
    write(Path(os.environ[VARIABLE]), "ab/one.so")
    code.keep()
    assert list(files(brought()[1])) == ["ab/one.so"]


def test_what_cannot_be_unpacked_leaves_nothing(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, first = brought()
    write(first, "ab/one.so")
    code.keep()
    again = KeptCode(["network"], CPU)
    with monkeypatch.context() as patch:

        def half(archive: Any, folder: Path) -> None:
            (folder / "ab").mkdir()
            raise OSError("full")

        patch.setattr(compile_cache.zipfile.ZipFile, "extractall", half)
        with pytest.raises(OSError, match="full"):
            again.bring()
        # It is not the archive that is at fault.
        again.forget()
    assert sorted(path.name for path in first.parent.iterdir()) == [".lock", first.name]
    again.bring()
    assert list(files(Path(os.environ[VARIABLE]))) == ["ab/one.so"]
    (path,) = kept.iterdir()
    path.write_bytes(hashlib.sha256(b"no zip").digest() + b"no zip")
    last = KeptCode(["network"], CPU)
    with pytest.raises(zipfile.BadZipFile):
        last.bring()
    last.forget()
    assert list(kept.iterdir()) == []


@pytest.mark.parametrize("fault", ["folder", "full"])
def test_what_cannot_be_kept_is_compiled_again(fault: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, first = brought()
    write(first, "ab/one.so")
    with monkeypatch.context() as patch:
        if fault == "folder":
            kept.parent.mkdir(exist_ok=True)
            kept.write_text("in the way")
        else:
            patch.setattr(compile_cache, "write_bytes", refuse)
        code.keep()
        assert files(brought()[1]) == {}
    if fault == "folder":
        kept.unlink()
    code.bring()
    code.keep()
    assert files(brought()[1]) != {}


def test_the_longest_unused_is_removed(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_cache, "MOST_KEPT", 2)
    for number, about in enumerate(("one", "two", "three")):
        code, folder = brought(about)
        write(folder, "ab/one.so")
        code.keep()
        os.utime(code._path, ns=(number, number))
        # Using it counts.
        brought("one")
    assert [len(files(brought(about)[1])) for about in ("one", "two", "three")] == [1, 0, 1]


def run(program: str, tmp_path: Path) -> None:
    begin = "import os, torch\nfrom conviction.fit.compile_cache import KeptCode\n"
    begin += "torch.optim.SGD([torch.zeros(1)], lr=0.1)\nassert os.environ.get('TORCHINDUCTOR_CACHE_DIR')\n"
    begin += "code = KeptCode(['network'], torch.device('cpu'))\ncode.bring()\n"
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    subprocess.run([sys.executable, "-c", begin + program], check=True, env=environment, timeout=120)


def test_a_process_leaves_nothing_behind(tmp_path: Path) -> None:
    # An optimiser lets torch write its own folder into the environment.
    run("assert 'conviction-compiled-' in os.environ['TORCHINDUCTOR_CACHE_DIR']", tmp_path)
    assert list((tmp_path / "temporary").glob("conviction*")) == []


def test_a_forked_process_takes_nothing_away(tmp_path: Path) -> None:
    ends: Callable[[str], str] = "import sys\nif os.fork() == 0: sys.exit()\nos.wait()\n{}".format
    run(ends("assert os.path.isdir(os.environ['TORCHINDUCTOR_CACHE_DIR'])"), tmp_path)
    assert list((tmp_path / "temporary").glob("conviction*")) == []
