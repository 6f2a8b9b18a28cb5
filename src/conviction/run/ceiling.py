"""The ceilings of a machine: how fast it multiplies matrices, convolves, and copies memory, whatever the network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, Literal

import torch
from torch.nn import functional

from conviction.core.bench_record import Ceiling, Rate
from conviction.core.device import choose_precision
from conviction.run.stopwatch import time_repeatedly

Layout = Literal["NCHW", "channels_last"]
_DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
PRECISIONS = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "tf32", "bfloat16", "float16")}
# A product of 1024×1024 does not fill every machine, and one of 4096×4096 takes seconds where bfloat16 is emulated.
_SIDES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192, 16384)}
_BATCHES = {"cpu": 64, "cuda": 1024}
_CHANNELS, _MAP_PX, _KERNEL_PX = 256, 16, 3
# More than any cache holds.
_COPIED_BYTES = {"cpu": 2**28, "cuda": 2**30}


def measure_ceilings(device: torch.device, budget_s: float) -> tuple[Ceiling, ...]:
    """Matrix products and convolutions in each precision of the device."""
    precisions = PRECISIONS[device.type]
    each_s = budget_s / (3 * len(precisions))
    found = [matrix_ceiling(device, precision, each_s) for precision in precisions]
    layouts: tuple[Layout, ...] = ("NCHW", "channels_last")
    for precision in precisions:
        found += [convolution_ceiling(device, precision, layout, each_s) for layout in layouts]
    return tuple(found)


def matrix_ceiling(device: torch.device, precision: str, budget_s: float) -> Ceiling:
    """The fastest of products of square matrices, from small ones up to those that the time allows."""
    best: Ceiling | None = None
    sides, expected_s = _SIDES[device.type], 0.0
    for side in sides:
        # The next one takes eight times as long, and is worked out five times at least.
        if best is not None and 5 * expected_s > budget_s:
            break
        dtype = _DTYPES[precision]
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        product = torch.empty(side, side, device=device, dtype=dtype)
        with products_in(precision):
            work = functools.partial(torch.mm, left, right, out=product)
            seconds = time_repeatedly(work, budget_s / len(sides), waiting(device))
        expected_s = 8 * median(seconds)
        rate = Rate.of(2 * side**3, seconds)
        if best is None or rate.median > best.flops.median:
            emulated = _is_emulated(precision, device)
            best = Ceiling("matrix product", precision, "", f"{side}×{side}", rate, emulated)
    assert best is not None
    return best


@torch.no_grad()
def convolution_ceiling(device: torch.device, precision: str, layout: Layout, budget_s: float) -> Ceiling:
    """A 3×3 convolution of 256 maps to 256, of 16×16, forward."""
    dtype, batch = _DTYPES[precision], _BATCHES[device.type]
    order = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    maps = torch.randn(batch, _CHANNELS, _MAP_PX, _MAP_PX, device=device).to(dtype, memory_format=order)
    kernel = torch.randn(_CHANNELS, _CHANNELS, _KERNEL_PX, _KERNEL_PX, device=device).to(dtype, memory_format=order)
    with products_in(precision):
        work = functools.partial(functional.conv2d, maps, kernel, padding=_KERNEL_PX // 2)
        seconds = time_repeatedly(work, budget_s, waiting(device))
    flop = 2 * maps.numel() * _CHANNELS * _KERNEL_PX**2
    size = f"{batch}×{_CHANNELS}×{_MAP_PX}×{_MAP_PX}"
    rate = Rate.of(flop, seconds)
    return Ceiling("convolution", precision, layout, size, rate, _is_emulated(precision, device))


def measure_copying(device: torch.device, budget_s: float) -> Rate:
    """Bytes a second that are read and written as memory is copied, both counted."""
    num_bytes = _COPIED_BYTES[device.type]
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return Rate.of(2 * num_bytes, time_repeatedly(lambda: target.copy_(source), budget_s, waiting(device)))


def waiting(device: torch.device) -> Callable[[], object]:
    """What waits until the device has done all that it was given."""
    return functools.partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Inside this block a GPU computes float32 products in full, or rounded to TF32 where `precision` says so."""
    backends: Any = torch.backends
    places = (backends.cuda.matmul, backends.cudnn.conv)
    former = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield
    finally:
        for place, value in zip(places, former, strict=True):
            place.fp32_precision = value


def _is_emulated(precision: str, device: torch.device) -> bool:
    return precision == "bfloat16" and choose_precision("auto", device) != "bfloat16"
