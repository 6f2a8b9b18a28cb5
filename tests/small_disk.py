"""Small file systems in memory, which tests fill or make read-only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(place: Path, options: str) -> Path:
    """A small file system of its own; who mounts it unmounts it."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this user cannot mount a file system: {done.stderr.strip()}")
    return place


def unmount(place: Path) -> None:
    """Lazily: what the caught error's frames hold open is closed by the garbage collector, whenever that runs."""
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def make_read_only(place: Path) -> None:
    """Of a file system that is mounted there."""
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of such a size, while the block runs."""
    mount(place, f"size={size}")
    try:
        yield place
    finally:
        unmount(place)
