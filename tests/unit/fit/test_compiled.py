"""A compiled training step computes what the network computes as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compile_driver
from conviction.core.device import CompileMode
from conviction.fit import compiled
from conviction.fit.compile_cache import KeptCode
from conviction.fit.compiled import MOST_VARIANTS, CompiledForward, compiler_command

CPP_ERROR = "C++ compile error\n\nCommand:\ng++ a -o b\n\nOutput:\n"
needs_compiler = pytest.mark.skipif(shutil.which(compiler_command()) is None, reason="there is no C++ compiler")


def drive(scenarios: str, folder: Path, **environment: str) -> dict[str, Any]:
    """What came of scenarios, by name."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, compile_driver.__file__, scenarios, str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "CONVICTION_CACHE": str(folder / "cache"), "TMPDIR": str(folder), **environment},
    )
    assert done.returncode == 0, done.stderr
    # Compilers have much to say that does not concern who trains.
    assert done.stderr == ""
    return {name: torch.load(folder / f"{name}.pt") for name in scenarios.split(",")}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    names = "dropped,changing,looking_ahead,rounded,resumed,looking"
    return drive(names, tmp_path_factory.mktemp("compiled"))


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert list(first) == list(second)
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def assert_same_training(found: dict[str, Any], within: float) -> None:
    """Losses of each step, figures and weights; the names of the weights too."""
    assert found["fused"]["losses"] == pytest.approx(found["none"]["losses"], rel=within)
    assert largest_difference(found["none"]["weights"], found["fused"]["weights"]) < within
    for plain, fused in zip(found["none"]["records"], found["fused"]["records"], strict=True):
        assert fused["validation"]["loss"] == pytest.approx(plain["validation"]["loss"], rel=within)


@needs_compiler
@pytest.mark.slow
class TestReally:
    def test_dropout_drops_the_same(self, outcomes: dict[str, Any]) -> None:
        # Two other masks would part the losses of single steps by more than a hundredth.
        assert_same_training(outcomes["dropped"], 1e-5)
        assert len(outcomes["dropped"]["fused"]["losses"]) == 21
        assert outcomes["dropped"]["fused"]["notes"] == []
        # The last batch of each epoch, of two pictures, is not compiled for itself.
        assert outcomes["dropped"]["fused"]["num_variants"] == 1

    def test_it_is_compiled_code_that_computes(self, outcomes: dict[str, Any]) -> None:
        """Rounded otherwise than uncompiled: else a test of agreement would say nothing."""
        assert outcomes["dropped"]["fused"]["losses"] != outcomes["dropped"]["none"]["losses"]

    @pytest.mark.parametrize("change", ["sizes", "biases"])
    def test_each_size_and_each_choice_of_weights_is_a_variant(self, change: str, outcomes: dict[str, Any]) -> None:
        found = outcomes["changing"][change]
        assert_same_training(found, 1e-5)
        assert (found["fused"]["num_variants"], found["fused"]["notes"]) == (2, [])

    def test_lookahead_moves_the_weights_that_are_compiled(self, outcomes: dict[str, Any]) -> None:
        assert_same_training(outcomes["looking_ahead"], 1e-5)

    def test_bfloat16_agrees_as_far_as_it_is_exact(self, outcomes: dict[str, Any]) -> None:
        assert_same_training(outcomes["rounded"], 2e-2)
        assert outcomes["rounded"]["fused"]["notes"] == []

    def test_a_resumed_training_ends_with_the_same_bits(self, outcomes: dict[str, Any]) -> None:
        found = outcomes["resumed"]
        assert largest_difference(found["whole"], found["resumed"]) == 0

    def test_compiling_leaves_no_trace(self, outcomes: dict[str, Any]) -> None:
        found = outcomes["resumed"]
        assert found["seconds"] > 0
        assert found["untouched"]
        assert found["unchanged"]

    def test_what_cannot_be_compiled_is_computed_as_it_is(self, outcomes: dict[str, Any]) -> None:
        found = outcomes["looking"]
        assert found["fused"]["losses"] == found["none"]["losses"]
        assert largest_difference(found["none"]["weights"], found["fused"]["weights"]) == 0
        (note,) = found["fused"]["notes"]
        assert note.startswith("The training step is not compiled (")
        assert note.endswith("), but computed as it is.")

    @pytest.mark.parametrize("compiler", ["/bin/false", "/nowhere/g++"])
    def test_a_broken_or_missing_compiler_costs_a_note(self, compiler: str, tmp_path: Path) -> None:
        found = drive("plain", tmp_path / "drive", CXX=compiler)["plain"]
        assert found["fused"]["losses"] == found["none"]["losses"]
        assert len(found["fused"]["notes"]) == 1

    def test_what_was_compiled_is_not_compiled_again_unless_it_was_damaged(self, tmp_path: Path) -> None:
        # In a folder that a command line would take apart.
        folder, log, counted = tmp_path / "a (drive's)", tmp_path / "log", tmp_path / "counted"
        counted.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {shutil.which(compiler_command())} "$@"\n')
        counted.chmod(0o755)

        def libraries_compiled() -> tuple[int, dict[str, Any]]:
            log.write_text("")
            found = drive("plain", folder, CXX=str(counted), TMPDIR=str(tmp_path))["plain"]
            assert found["fused"]["notes"] == []
            return sum(".so" in line for line in log.read_text().splitlines()), found["fused"]["losses"]

        num_first, first = libraries_compiled()
        assert num_first > 0
        assert libraries_compiled() == (0, first)
        (kept,) = (folder / "cache" / "compiled").iterdir()
        os.truncate(kept, kept.stat().st_size - 1000)
        assert libraries_compiled() == (num_first, first)
        assert libraries_compiled() == (0, first)

    def test_without_a_cache_folder_it_compiles_and_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("in the way")
        found = drive("plain", tmp_path / "drive", CONVICTION_CACHE=str(tmp_path / "cache"))["plain"]
        assert_same_training(found, 1e-5)
        assert (found["fused"]["num_variants"], found["fused"]["notes"]) == (1, [])
        assert [path.name for path in (tmp_path / "drive").iterdir()] == ["plain.pt"]

    def test_a_compilers_own_words_are_told(self, tmp_path: Path) -> None:
        compiler = tmp_path / "compiler"
        real = shutil.which(compiler_command())
        refused = 'case "$*" in *main*) echo "in a file" >&2; echo "a.cpp:3: error: no such luck" >&2; exit 1;; esac'
        compiler.write_text(f'#!/bin/sh\n{refused}\nexec {real} "$@"\n')
        compiler.chmod(0o755)
        (note,) = drive("plain", tmp_path / "drive", CXX=str(compiler))["plain"]["fused"]["notes"]
        assert note.endswith("a.cpp:3: error: no such luck), but computed as it is.")


class Compiler:
    """Stands for torch's: what it gives computes the network, and it counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: Exception | None = None) -> None:
        self.num_compiled = self.num_computed = 0
        self.asked: list[str] = []
        self.fault = fault
        monkeypatch.setattr(compiled, "_compiled", self.compile)
        for name in ("bring", "keep", "forget"):
            monkeypatch.setattr(KeptCode, name, lambda code, name=name: self.asked.append(name))

    def compile(self, network: nn.Module, mode: CompileMode) -> Callable[[Tensor], Tensor]:
        self.num_compiled += 1

        def forward(images: Tensor) -> Tensor:
            self.num_computed += 1
            logits = network(images)
            if self.fault is not None:
                raise self.fault
            return logits

        return forward


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))


def images(count: int = 4, size_px: int = 3) -> Tensor:
    return torch.arange(count * 2.0 * size_px**2).reshape(count, 2, size_px, size_px)


def refuse(note: str) -> None:
    raise AssertionError(note)


def test_batches_of_another_number_are_computed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(monkeypatch)
    forward = CompiledForward(network(), "fused", 4, refuse)
    for count in (4, 3, 4, 5, 1):
        if count > 1:
            assert forward(images(count)).shape == (count, 3)
        assert forward.can(images(count)) == (count == 4)
    # Once to try it.
    assert (compiler.num_compiled, compiler.num_computed) == (1, 3)
    assert compiler.asked == ["bring", "keep"]


def test_more_variants_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, notes = Compiler(monkeypatch), []
    forward = CompiledForward(network(), "fused", 4, notes.append)
    for size_px in range(1, MOST_VARIANTS + 4):
        assert forward(images(size_px=size_px)).shape == (4, 3)
    assert compiler.num_compiled == MOST_VARIANTS
    assert notes == ["The training step was compiled in 8 variants; others are computed as they are."]


def test_a_fault_leaves_no_trace_and_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    Compiler(monkeypatch, RuntimeError("no luck:\n\n  today.\nmore"))
    notes: list[str] = []
    usual, tried = network(), network()
    forward = CompiledForward(tried, "fused", 4, notes.append)
    torch.manual_seed(1)
    expected = [usual(images()), usual(images())]
    torch.manual_seed(1)
    found = [forward(images()), forward(images())]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(usual.buffers(), tried.buffers(), strict=True))
    assert all(weight.grad is None for weight in tried.parameters())
    assert notes == ["The training step is not compiled (no luck: today), but computed as it is."]


def test_what_does_not_work_is_forgotten_unless_memory_was_short(monkeypatch: pytest.MonkeyPatch) -> None:
    for fault, asked in ((RuntimeError("no luck"), ["bring", "forget"]), (torch.OutOfMemoryError("full"), ["bring"])):
        compiler = Compiler(monkeypatch, fault)
        assert not CompiledForward(network(), "fused", 4, lambda note: None).can(images())
        assert compiler.asked == asked


def test_what_works_for_another_size_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(monkeypatch)
    forward = CompiledForward(network(), "fused", 4, lambda note: None)
    assert forward.can(images())
    compiler.fault = RuntimeError("no luck")
    assert not forward.can(images(size_px=5))
    assert compiler.asked == ["bring", "keep", "bring"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("", "RuntimeError"),
        (CPP_ERROR + "In a file\nb.cpp: fatal error: none\n", "b.cpp: fatal error: none"),
        (CPP_ERROR + "Killed\nsoon", "RuntimeError: Killed"),
        (CPP_ERROR, "C++ compile error Command"),
        ("long " * 100, "long …"),
    ],
)
def test_the_beginning_of_a_reason(said: str, shown: str) -> None:
    found = compiled._reason(RuntimeError(said))
    assert found.endswith(shown)
    assert len(found) <= 162


def test_the_networks_own_fault_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    Compiler(monkeypatch)
    forward = CompiledForward(nn.BatchNorm1d(2), "fused", 1, lambda note: None)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        forward(torch.zeros(1, 2))


def test_an_interruption_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    Compiler(monkeypatch, KeyboardInterrupt())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        CompiledForward(network(), "fused", 4, refuse)(images())


def test_a_graph_is_recorded_before_it_is_used_and_each_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(monkeypatch)
    begun: list[int] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(compiler.num_computed))
    forward = CompiledForward(network(), "cuda_graphs", 4, refuse)
    for _ in range(3):
        forward(images())
    assert begun == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("mode", "graphs"), [("fused", False), ("cuda_graphs", True)])
def test_what_torch_is_asked_for(mode: CompileMode, graphs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    codes: list[object] = []

    def remember(function: Any, **options: Any) -> Any:
        asked.append(options)
        codes.append(function.__code__)
        return function

    monkeypatch.setattr(torch, "compile", remember)
    for _ in range(2):
        found = compiled._compiled(nn.Flatten(), mode)
        assert found(images()).shape == (4, 18)
    options = {"fallback_random": True, "triton.cudagraphs": graphs, "cpp_cache_precompile_headers": False}
    assert asked == [{"fullgraph": True, "dynamic": False, "options": options}] * 2
    # torch keeps what it compiled with the code: each has its own.
    assert codes[0] is not codes[1]
