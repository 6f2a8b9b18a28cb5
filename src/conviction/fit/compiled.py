"""A network's forward and backward pass in training, compiled by torch.compile where that works.

The network stays as it is: compiled are functions that call it, so that weights and running statistics are its own, and
whoever validates, saves or freezes it knows of nothing.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from conviction.core.device import CompileMode
from conviction.fit.compile_cache import KeptCode

Forward = Callable[[Tensor], Tensor]
# Each size of pictures, and each choice of weights that train, is compiled for itself.
MOST_VARIANTS = 8
# Before a GPU's graph is replayed, its kernels run once, and once more to be recorded.
_REHEARSALS: dict[CompileMode, int] = {"none": 0, "fused": 1, "cuda_graphs": 3}
_LONGEST_REASON = 160
# Behind it torch tells what the C++ compiler said.
_OUTPUT = "Output:"


class CompiledForward:
    """A network's forward pass in training, and with it its backward pass, compiled for batches of `num_images`.

    Other batches, and what cannot be compiled, are computed as they are; then a note says why. The random numbers are
    those that the network would draw uncompiled.
    """

    def __init__(self, network: nn.Module, mode: CompileMode, num_images: int, note: Callable[[str], None]) -> None:
        self._network = network
        self._mode = mode
        self._num_images = num_images
        self._note = note
        self._variants: dict[object, Forward | None] = {}
        self._code: KeptCode | None = None
        self.compile_s = 0.0

    def __call__(self, images: Float[Tensor, "B ..."]) -> Float[Tensor, "B K"]:
        """The logits."""
        forward = self._forward_for(images) if len(images) == self._num_images else None
        return self._network(images) if forward is None else self._run(forward, images)

    def can(self, images: Float[Tensor, "B ..."]) -> bool:
        """Whether such a batch is computed by compiled code; it is compiled where it was not."""
        return len(images) == self._num_images and self._forward_for(images) is not None

    def _forward_for(self, images: Tensor) -> Forward | None:
        variant = (images.shape, tuple(weight.requires_grad for weight in self._network.parameters()))
        if variant not in self._variants:
            self._variants[variant] = self._compile(images)
        return self._variants[variant]

    def _compile(self, images: Tensor) -> Forward | None:
        if len(self._variants) >= MOST_VARIANTS:
            if len(self._variants) == MOST_VARIANTS:
                self._note(
                    f"The training step was compiled in {MOST_VARIANTS} variants; others are computed as they are."
                )
            return None
        start = time.perf_counter()
        code = self._code_on(images.device)
        try:
            with _quiet(), _nothing_changed(self._network, images.device):
                code.bring()
                forward = self._rehearsed(images)
        # Compilers fail in many ways. What is the network's own fault shows again where it is computed as it is.
        except Exception as error:
            # Where another variant works, it is not the kept code that is at fault.
            if not (isinstance(error, torch.OutOfMemoryError) or any(self._variants.values())):
                code.forget()
            self._note(f"The training step is not compiled ({_reason(error)}), but computed as it is.")
            return None
        else:
            code.keep()
            return forward
        finally:
            self.compile_s += time.perf_counter() - start

    def _code_on(self, device: torch.device) -> KeptCode:
        """Of all variants together."""
        if self._code is None:
            self._code = KeptCode([self._mode, str(self._num_images), str(self._network)], device)
        return self._code

    def _rehearsed(self, images: Tensor) -> Forward:
        forward = _compiled(self._network, self._mode)
        for _ in range(_REHEARSALS[self._mode]):
            self._rehearse(forward, images)
        return forward

    def _run(self, forward: Forward, images: Tensor) -> Tensor:
        if self._mode == "cuda_graphs":
            # What the step before left in the graph's memory is not read any more.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return forward(images)

    def _rehearse(self, forward: Forward, images: Tensor) -> None:
        """A step without an optimiser: the backward pass is compiled when it is needed first."""
        logits = self._run(forward, images)
        # As in training, where gradients are computed outside of autocast.
        with torch.autocast(images.device.type, enabled=False):
            logits.float().square().mean().backward()  # type: ignore[no-untyped-call]
        self._network.zero_grad(set_to_none=True)


def compiler_command() -> str:
    """The C++ compiler that torch calls on a processor, whether it is there or not."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def _compiled(network: nn.Module, mode: CompileMode) -> Forward:
    def forward(images: Tensor) -> Tensor:
        return network(images)  # type: ignore[no-any-return]

    # torch counts the variants of a function's code, which all such functions would share, and at eight it gives up.
    own = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    options: dict[str, str | int | bool | Callable[..., object]] = {
        # Random numbers as they would be drawn uncompiled.
        "fallback_random": True,
        "triton.cudagraphs": mode == "cuda_graphs",
        # 150 MB in the system's temporary folder, for two files of C++.
        "cpp_cache_precompile_headers": False,
    }
    return torch.compile(own, fullgraph=True, dynamic=False, options=options)


@contextmanager
def _nothing_changed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Put running statistics, gradients and the random generators back, whatever happens inside the block."""
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            network.zero_grad(set_to_none=True)
            with torch.no_grad():
                for buffer, value in before:
                    buffer.copy_(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the compiler's warnings and messages, which concern those who work on it."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """The beginning of what the compiler says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if _OUTPUT in lines[:-1]:
        # Of C++ and its long command, its own words: the first error, else the first line.
        words = lines[lines.index(_OUTPUT) + 1 :]
        lines = [f"{type(error).__name__}: {next((line for line in words if 'error:' in line), words[0])}"]
    text = " ".join([type(error).__name__ if not lines else "", *lines[:2]]).strip().rstrip(".:")
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON].rstrip()} …"
