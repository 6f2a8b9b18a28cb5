"""The machine at hand: which device computes, in which precision, with how many threads and how much memory."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from conviction.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]
PrecisionName = Literal["auto", "float32", "bfloat16"]
MemoryFormat = Literal["channels_last", "contiguous"]
MemoryFormatName = Literal["auto", "channels_last", "contiguous"]
CompileMode = Literal["none", "fused", "cuda_graphs"]
CompileName = Literal["auto", "none", "fused", "cuda_graphs"]
BFLOAT16_INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_CORES = Path("/sys/devices/system/cpu")


def choose_device(name: DeviceName) -> torch.device:
    """`auto` takes the GPU where there is one.

    Raises: ConfigError where `cuda` is asked for and torch finds none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("`fit.device: cuda` was asked for, but torch finds no CUDA device. Use `auto` or `cpu`.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def choose_precision(name: PrecisionName, device: torch.device) -> Literal["float32", "bfloat16"]:
    """`auto` takes bfloat16 where the processor or the GPU computes in it, and float32 elsewhere.

    A processor without such instructions emulates bfloat16 several times slower than float32.
    """
    if name != "auto":
        return name
    return "bfloat16" if has_bfloat16(device) else "float32"


def choose_compile(name: CompileName, device: torch.device) -> CompileMode:
    """`auto` compiles nothing until that was tried.

    Raises: ConfigError where `cuda_graphs` is asked for on another device.
    """
    if name == "cuda_graphs" and device.type != "cuda":
        raise ConfigError(
            "`fit.compile: cuda_graphs` was asked for, but this training computes on a processor. Use `auto`, `fused` "
            "or `none`."
        )
    return "none" if name == "auto" else name


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(processor_flags() & BFLOAT16_INSTRUCTIONS)


def device_name(device: torch.device) -> str:
    """What the processor or the GPU is called."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return processor_name()


def compute_float32_in_full() -> None:
    """Let a GPU compute float32 as such: torch's convolutions round its numbers to TF32 unless they are told not to."""
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; where it is there already, itself.

    To a GPU it goes while that computes: an ordinary copy would first wait until all that it was given is done.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    # torch keeps the pinned copy until it has arrived.
    return tensor.pin_memory().to(device, non_blocking=True)


@functools.cache
def processor_flags() -> frozenset[str]:
    """The instruction sets that the processor names, as Linux lists them; empty elsewhere."""
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def processor_name() -> str:
    """The processor's name as Linux lists it, or the architecture."""
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_physical_cores() -> int:
    """Of the cores that this process may use, those that share no arithmetic unit with another.

    Linux tells it; elsewhere each counts for itself.
    """
    if not hasattr(os, "sched_getaffinity"):
        return num_cores()
    found = {_siblings(core) for core in os.sched_getaffinity(0)}
    return num_cores() if "" in found else len(found)


def _siblings(core: int) -> str:
    """The cores that share their units with this one, itself among them; empty where Linux does not say."""
    with suppress(OSError):
        return (_CORES / f"cpu{core}" / "topology" / "thread_siblings_list").read_text().strip()
    return ""


def num_threads() -> int:
    """The threads to compute with: OMP_NUM_THREADS where that is set, else one for each core."""
    return threads_asked_for() or num_cores()


def threads_asked_for() -> int | None:
    """The number in OMP_NUM_THREADS; None where that is not set, or not to a number."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) or None if wanted.isdecimal() else None


# So many turns of a loop, about 0.1 ms; OpenMP's own are some milliseconds.
_TURNS = "20000"


def wait_briefly() -> None:
    """Let threads that wait for one another give their cores away soon; to be called before torch is loaded.

    OpenMP's threads look for work for milliseconds, on cores that others need: beside one busy program a training step
    on two cores took 235 ms instead of 135, and on an idle machine as long as before. Who set OpenMP's own variables
    knows better.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _TURNS)


def peak_memory_bytes() -> int:
    """The most resident memory that this process has had since it started."""
    # Linux hands `ru_maxrss` on from the process that started this one, however large that was.
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# The parameters of glibc's `mallopt`, and a size that no tensor in use reaches.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _NEVER_BYTES = -1, -3, 2**30


def keep_freed_memory() -> bool:
    """Let this process keep the memory that a training step frees, for the next step; whether the C library does.

    glibc gives large pieces back to the system at once. The next step then asks for them again, and the system fills
    them with zeros page by page: a fifth of a step's time, measured on two cores.
    """
    if (mallopt := _of_c_library("mallopt")) is None:
        return False
    kept = [mallopt(option, _NEVER_BYTES) for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)]
    return all(kept)


def give_back_freed_memory() -> bool:
    """Give the memory that `keep_freed_memory` kept back to the system, once; whether the C library can.

    For what comes next needs pieces of other sizes, which do not fit where these were, and would lie beside them.
    """
    if (malloc_trim := _of_c_library("malloc_trim")) is None:
        return False
    malloc_trim(0)
    return True


def _of_c_library(name: str) -> Callable[..., int] | None:
    """A function of glibc; None where the C library is another one."""
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
    return function


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
