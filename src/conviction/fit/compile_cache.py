"""What torch compiled for a network, kept for later trainings in one file with a checksum.

torch trusts its cache folder: a library there that lost its end kills the process, and a changed bit computes something
else. So it works in a folder of this process alone, and from one process to the next goes an archive, which is whole or
not used at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from conviction.core.device import device_name, processor_flags
from conviction.core.files import make_folder, write_bytes
from conviction.data.source.locate import cache_folder
from conviction.fit.compile_folder import PREFIX, folder_of_process

# A network's code takes a few megabytes.
MOST_KEPT = 64
_VARIABLE, _TRITON_VARIABLE = "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"
_SUFFIX = ".zip"
# How torch calls the folder that it takes, and writes into the variable, where nobody chose one.
_TORCHS_PREFIX = "torchinductor_"
_DIGEST_BYTES = hashlib.sha256().digest_size
# torch's own, which say nothing to another process.
_LOCKS = "locks"


class KeptCode:
    """The compiled code of what `about` says, on a device with one version of torch.

    Where something else has the same `about`, its code lies beside: torch knows by its own sums what is what. Who has
    set torch's own variable knows better: then nothing is kept here.
    """

    def __init__(self, about: Sequence[str], device: torch.device) -> None:
        # Libraries use all instructions of the processor.
        flags = sorted(processor_flags()) if device.type == "cpu" else []
        key = json.dumps([torch.__version__, device_name(device), flags, *about])
        self._path = cache_folder() / "compiled" / (hashlib.sha256(key.encode()).hexdigest()[:32] + _SUFFIX)
        self._folder: Path | None = None
        self._kept: list[str] = []
        self._had_archive = False
        if device.type == "cpu":
            # Processes that would compile for a GPU.
            os.environ.setdefault("TORCH_WARM_POOL", "0")

    def bring(self) -> None:
        """Give torch a folder that holds what was kept, or nothing.

        Raises: OSError where the system's temporary folder does not take it.
        """
        if _is_somebody_elses(os.environ.get(_VARIABLE)):
            return
        # Long-lived processes see their temporary files cleaned away.
        if self._folder is None or not self._folder.is_dir():
            self._folder = self._unpacked()
        os.environ[_VARIABLE] = str(self._folder)
        if not _is_somebody_elses(os.environ.get(_TRITON_VARIABLE)):
            # Derived by torch from the other, for an earlier folder.
            os.environ.pop(_TRITON_VARIABLE, None)

    def _unpacked(self) -> Path:
        folder = Path(tempfile.mkdtemp(dir=folder_of_process()))
        archive = self._whole_archive()
        self._had_archive, self._kept = False, []
        if archive is not None:
            try:
                with zipfile.ZipFile(io.BytesIO(archive)) as packed:
                    packed.extractall(folder)
                    self._kept = sorted(packed.namelist())
            except BaseException as error:
                # A full disk is no fault of the archive.
                self._had_archive = not isinstance(error, OSError)
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self._had_archive = True
            with suppress(OSError):
                # The longest unused goes first.
                os.utime(self._path)
        return folder

    def keep(self) -> None:
        """Save what torch has compiled since. Where that fails, it is compiled again."""
        if self._folder is None or os.environ.get(_VARIABLE) != str(self._folder):
            return
        # Nothing about saving is worth a training.
        with suppress(Exception):
            files = {str(path.relative_to(self._folder)): path for path in self._folder.rglob("*") if path.is_file()}
            names = sorted(name for name in files if Path(name).parts[0] != _LOCKS)
            if names == self._kept:
                return
            packed = io.BytesIO()
            # Clocks without a battery begin in 1970, and the format in 1980.
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
                for name in names:
                    archive.write(files[name], name)
            content = packed.getvalue()
            make_folder(self._path.parent)
            digest = hashlib.sha256(content).digest()
            write_bytes(self._path, digest + content)
            self._kept = names
            _remove_longest_unused(self._path.parent)

    def forget(self) -> None:
        """What was kept does not work: the next training compiles anew."""
        if self._had_archive:
            with suppress(OSError):
                self._path.unlink()

    def _whole_archive(self) -> bytes | None:
        """None where there is none, or it is not as it was written."""
        with suppress(OSError):
            content = self._path.read_bytes()
            digest, archive = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
            if hashlib.sha256(archive).digest() == digest:
                return archive
        return None


def _is_somebody_elses(folder: str | None) -> bool:
    """Whether the user chose a folder for torch.

    Ours are left by this process, or by the one that started it; torch writes down its own as soon as it asks for it.
    """
    parts = Path(folder).parts if folder else ()
    return bool(parts) and not any(part.startswith((PREFIX, _TORCHS_PREFIX)) for part in parts)


def _remove_longest_unused(folder: Path) -> None:
    found = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in found[MOST_KEPT:]:
        path.unlink(missing_ok=True)
