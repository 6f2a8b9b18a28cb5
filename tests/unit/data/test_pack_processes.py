"""Several processes, and killed ones, at one cache."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from archives import contents_of, write_archive
from conviction.core.files import is_locked
from conviction.data.pack import load_pack
from conviction.data.source.folder import FolderConfig
from pictures import write_class_folders

# Decodes slowly, so that processes meet; prints a line when it builds, and the digest at the end.
BUILDER = """
import sys, time
from conviction.data import pack
from conviction.data.source.folder import FolderConfig
path, pause_s = sys.argv[1], float(sys.argv[2])
decode, build = pack.decode, pack._build
def slow(*arguments):
    time.sleep(pause_s)
    return decode(*arguments)
def told(*arguments):
    print("building", flush=True)
    build(*arguments)
pack.decode, pack._build = slow, told
print(pack.load_pack(FolderConfig(path=path)).digest)
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "photos", {"cat": 3, "dog": 3})


def builder(source: Path, pause_s: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(source), str(pause_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.split()


def building(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "packs").glob(".building-*"))


def wait_until_building(process: subprocess.Popen[str], tmp_path: Path) -> Path:
    deadline = time.monotonic() + 30
    while not building(tmp_path):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return building(tmp_path)[0]


def killed_builder(source: Path, tmp_path: Path) -> Path:
    """The folder that a process left which was killed while it built."""
    process = builder(source, 60)
    folder = wait_until_building(process, tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert folder.is_dir()
    return folder


def test_two_processes_build_one_pack_once(photos: Path) -> None:
    outputs = [finished(process) for process in [builder(photos, 0.2), builder(photos, 0.2)]]
    assert sum(output.count("building") for output in outputs) == 1
    assert outputs[0][-1] == outputs[1][-1] == load_pack(FolderConfig(path=str(photos))).digest


def test_two_processes_with_equal_copies_build_one_pack_once(photos: Path, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "one.tar", contents_of(photos))
    shutil.copy(archive, tmp_path / "two.tar")
    outputs = [finished(process) for process in [builder(archive, 0.2), builder(tmp_path / "two.tar", 0.2)]]
    assert sum(output.count("building") for output in outputs) == 1
    assert outputs[0][-1] == outputs[1][-1]


def test_a_killed_build_hinders_no_later_one(photos: Path, tmp_path: Path) -> None:
    killed_builder(photos, tmp_path)
    assert not any(is_locked(lock) for lock in (tmp_path / "cache" / "packs").glob("*.lock"))
    pack = load_pack(FolderConfig(path=str(photos)))
    assert pack.images.shape == (6, 8, 8, 3)
    assert building(tmp_path) == []


def test_what_a_killed_build_left_is_removed_by_the_build_of_another_source(photos: Path, tmp_path: Path) -> None:
    killed_builder(photos, tmp_path)
    load_pack(FolderConfig(path=str(write_class_folders(tmp_path / "others", {"ant": 1, "bee": 1}))))
    assert building(tmp_path) == []


def test_the_folder_of_a_living_builder_is_left_alone(photos: Path, tmp_path: Path) -> None:
    process = builder(photos, 0.7)
    folder = wait_until_building(process, tmp_path)
    load_pack(FolderConfig(path=str(write_class_folders(tmp_path / "others", {"ant": 1, "bee": 1}))))
    assert folder.is_dir()
    assert len(finished(process)) == 2
    assert building(tmp_path) == []
