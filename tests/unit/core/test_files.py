import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conviction.core.errors import RunError, StorageError
from conviction.core.files import (
    TEMPORARY_PREFIX,
    is_locked,
    locked,
    make_folder,
    read_json,
    remove_leftovers,
    write_atomically,
    write_json,
    write_text,
)
from small_disk import make_read_only, small_disk

HOLDER = """
import sys, time
from pathlib import Path
from conviction.core.files import locked
with locked(Path(sys.argv[1]), wait=False) as free:
    print(free, flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    with small_disk(tmp_path / "small", "64k") as place:
        yield place


def test_a_file_is_written_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "first ü\u2028\n")
    write_text(path, "second")
    assert path.read_text(encoding="utf-8") == "second"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("fault", [ValueError("our own"), KeyboardInterrupt()])
def test_a_writer_that_fails_midway_leaves_the_old_content_alone(tmp_path: Path, fault: BaseException) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half of the n")
        assert path.read_text() == "old"
        raise fault

    with pytest.raises(type(fault)):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_a_storage_error_and_the_old_content_stays(disk: Path) -> None:
    path = disk / "a.txt"
    write_text(path, "old")
    with pytest.raises(StorageError) as caught:
        write_text(path, "x" * 1_000_000)
    assert caught.value.message == (
        f"Cannot write {path}: the disk is full: free some space, or put the folder elsewhere."
    )
    assert path.read_text() == "old"
    assert names(disk) == ["a.txt"]
    write_text(path, "the space is free again")


def test_a_read_only_folder_is_a_storage_error_and_the_old_content_stays(disk: Path) -> None:
    path = disk / "a.txt"
    write_text(path, "old")
    make_read_only(disk)
    for refused in (
        lambda: write_text(path, "new"),
        lambda: make_folder(disk / "new"),
        lambda: locked(disk / ".lock").__enter__(),
    ):
        with pytest.raises(StorageError, match="the file system is read-only"):
            refused()
    assert path.read_text() == "old"
    assert not is_locked(disk / ".lock")


def test_a_missing_permission_is_a_storage_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="permission is missing"):
        write_text(tmp_path / "a.txt", "new")


def test_what_stands_in_the_way_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for refused in (lambda: make_folder(tmp_path / "file"), lambda: make_folder(tmp_path / "file" / "below")):
        with pytest.raises(StorageError, match="a file stands where a folder is needed"):
            refused()
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        write_text(tmp_path / "file" / "a.txt", "new")
    with pytest.raises(StorageError, match="a folder stands where a file is needed"):
        write_text(tmp_path / "folder", "new")
    with pytest.raises(StorageError, match="its folder does not exist"):
        write_text(tmp_path / "absent" / "a.txt", "new")
    assert names(tmp_path) == ["file", "folder"]


def test_folders_are_made_with_what_leads_to_them_and_may_be_there(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_json_keeps_its_value_and_its_letters(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"classes": ["Größe", "\u2028"], "loss": 0.1, "none": None}
    write_json(path, value)
    assert "Größe" in path.read_text(encoding="utf-8")
    assert read_json(path) == value


def test_a_file_name_that_is_no_utf_8_survives_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "a.json", {"path": name})
    assert read_json(tmp_path / "a.json") == {"path": name}


def test_a_number_that_json_has_not_is_our_own_bug_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1} x', b"\xff", b"[" * 100_000, b"1" * 5000])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path} is damaged: ")


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a\.json is missing: the folder .* is not a whole run"):
        read_json(tmp_path / "a.json")


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from conviction.core.files import write_atomically\n"
        "write_atomically(Path(sys.argv[1]), lambda path: (path.write_text('half'), os.kill(os.getpid(), 9)))"
    )
    path = tmp_path / "[a]" / "a.txt"
    path.parent.mkdir()
    path.write_text("old")
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert [name.startswith(TEMPORARY_PREFIX) for name in names(path.parent)] == [True, False]
    remove_leftovers(path.parent)
    assert names(path.parent) == ["a.txt"]
    assert path.read_text() == "old"
    remove_leftovers(tmp_path / "absent")


def test_a_lock_excludes_a_second_holder_until_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert not is_locked(path)
    with locked(path, wait=False) as first:
        assert first
        assert is_locked(path)
        with locked(path, wait=False) as second:
            assert not second
        assert is_locked(path), "who was refused must not let go of the holder's lock"
    assert not is_locked(path)


def test_a_lock_is_let_go_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), locked(tmp_path / ".lock"):
        raise ValueError("inside")
    assert not is_locked(tmp_path / ".lock")


def test_a_lock_holds_across_processes_and_ends_with_kill_9(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert is_locked(path)
        with locked(path, wait=False) as free:
            assert not free
    finally:
        holder.kill()
        holder.communicate()
    assert not is_locked(path)
    with locked(path, wait=False) as free:
        assert free


def test_a_waiting_holder_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    order = []

    def wait() -> None:
        with locked(path) as free:
            order.append(("second", free))

    with locked(path):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.1)
        order.append(("first", True))
    waiting.join()
    assert order == [("first", True), ("second", True)]


def test_a_look_from_outside_never_takes_the_lock_from_its_next_holder(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.touch()
    # The shared lock is what `is_locked` takes for an instant.
    look = os.open(path, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    ending = threading.Timer(0.05, os.close, [look])
    ending.start()
    with locked(path, wait=False) as free:
        assert free
    ending.join()


def run_python(code: str, *arguments: str | Path) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_forked_worker_that_outlives_the_block_keeps_no_lock(tmp_path: Path) -> None:
    code = """
import os, signal, sys, time
from pathlib import Path
from conviction.core.files import is_locked, locked
with locked(Path(sys.argv[1])):
    worker = os.fork()
    if worker == 0:
        time.sleep(60)
print(is_locked(Path(sys.argv[1])))
os.kill(worker, signal.SIGKILL)
"""
    assert run_python(code, tmp_path / ".lock") == "False\n"


def test_a_forked_worker_that_leaves_the_block_lets_its_parent_keep_the_lock(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from conviction.core.files import is_locked, locked
with locked(Path(sys.argv[1])):
    worker = os.fork()
    if worker != 0:
        os.waitpid(worker, 0)
        print(is_locked(Path(sys.argv[1])))
"""
    assert run_python(code, tmp_path / ".lock") == "True\n"
