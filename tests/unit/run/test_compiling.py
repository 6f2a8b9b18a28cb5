"""Whether the training step is compiled: what is tried, what is remembered, and what is chosen."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conviction.core.device import CompileMode
from conviction.core.run_folder import RunFolder
from conviction.fit.compiled import compiler_command
from conviction.fit.loop import Trainer
from conviction.run import compiling, fastest
from conviction.run.compiling import (
    LEAST_TRAINING_S,
    Tried,
    choose,
    num_variants,
    open_modes,
    settle_compiling,
    try_modes,
    with_compiled_step,
)
from conviction.run.fastest import settle
from conviction.run.prepared import Machine, Prepared, prepare
from conviction.run.recipe import load_recipe
from conviction.run.starting import build_trainer

# Of 1000 steps, each saves 50 ms of 150: 50 s.
GAIN = Tried("fused", "", compile_s=20.0, step_s=0.1, usual_step_s=0.15)
NUM_STEPS_AN_EPOCH = 17


@pytest.mark.parametrize(
    ("tried", "num_steps", "count", "expected"),
    [
        (GAIN, 1000, 1, True),
        # 40 s have to be passed: twice the compiling.
        (GAIN, 801, 1, True),
        (GAIN, 799, 1, False),
        (GAIN, 1000, 2, False),
        (GAIN, 1601, 2, True),
        # A gain of less than a tenth is noise, however long the training.
        (replace(GAIN, step_s=0.137), 10**9, 1, False),
        (replace(GAIN, step_s=0.136), 10**9, 1, True),
        (replace(GAIN, step_s=0.2), 10**9, 1, False),
        (Tried("fused", "no compiler"), 10**9, 1, False),
    ],
)
def test_the_steps_to_come_have_to_repay_compiling_twice(
    tried: Tried, num_steps: int, count: int, expected: bool
) -> None:
    assert tried.repays(num_steps, count) == expected
    assert choose([tried], num_steps, lambda: count) == ("fused" if expected else "none")


def test_the_mode_that_is_over_first_is_taken() -> None:
    # A step is 20 ms shorter, and compiling takes 40 s longer: even at 2000 steps.
    graphs = Tried("cuda_graphs", "", compile_s=60.0, step_s=0.08, usual_step_s=0.15)
    assert choose([GAIN, graphs], 1900) == "fused"
    assert choose([GAIN, graphs], 2100) == "cuda_graphs"
    assert choose([Tried("fused", "no"), graphs], 2100) == "cuda_graphs"


def test_more_variants_than_are_compiled_are_none() -> None:
    assert choose([GAIN], 10**6, lambda: 8) == "fused"
    assert choose([GAIN], 10**6, lambda: 9) == "none"


@pytest.fixture
def training() -> Prepared:
    """Digits in 17 steps an epoch, for 1700 steps."""
    settings = {"fit.epochs": 100, "fit.precision": "float32", "fit.memory_format": "contiguous", "fit.device": "cpu"}
    recipe = load_recipe("digits", settings)
    found = prepare(recipe, Machine.for_recipe(recipe))
    assert found.training_stream().num_batches == NUM_STEPS_AN_EPOCH
    return found


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that stands for one."""
    path = tmp_path / "compiler"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    return path


def changed(prepared: Prepared, **fit: Any) -> Prepared:
    recipe = load_recipe(prepared.recipe, {f"fit.{key}": value for key, value in fit.items()})
    return replace(prepared, recipe=recipe, machine=Machine.for_recipe(recipe))


def test_variants_are_sizes_and_choices_of_what_trains(training: Prepared) -> None:
    def count(settings: dict[str, Any]) -> int:
        recipe = load_recipe(training.recipe, {"fit.epochs": 10, **settings})
        return num_variants(build_trainer(replace(training, recipe=recipe)), 10)

    pooled = {"preset": "digits", "global_pooling": "average"}
    sizes = [{"epochs": 2, "size_px": 6}, {"epochs": 2, "size_px": 7}]
    assert count({}) == 1
    assert count({"network": pooled, "fit.progressive_sizes": sizes}) == 3
    # Epochs 1 and 2 on 6 pixels, 3 with the bias and 4 without on 7, the rest on 8.
    timed = {"name": "blocks", "blocks": [{"filters": 4, "bias_epochs": 3}], "global_pooling": "average"}
    assert count({"network": timed, "fit.progressive_sizes": sizes}) == 4
    assert count({"network": timed}) == 2


class TestWhatIsOpen:
    def test_where_there_is_a_compiler(self, training: Prepared, compiler: Path) -> None:
        assert open_modes(training) == ("fused",)
        compiler.unlink()
        assert open_modes(training) == ()

    @pytest.mark.parametrize(("before", "is_open"), [("", True), ("'", False), ("no-such-program ", False)])
    def test_where_its_command_has_several_words(
        self, before: str, is_open: bool, training: Prepared, compiler: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CXX", f"{before}{compiler} --some-option")
        assert open_modes(training) == (("fused",) if is_open else ())

    def test_on_a_gpu(self, training: Prepared) -> None:
        machine = replace(training.machine, device=torch.device("cuda"))
        assert open_modes(replace(training, machine=machine)) == ("fused", "cuda_graphs")

    @pytest.mark.parametrize("mode", ["none", "fused"])
    def test_not_where_the_recipe_says_it(self, mode: str, training: Prepared, compiler: Path) -> None:
        assert open_modes(changed(training, compile=mode)) == ()

    def test_not_on_several_processes(self, training: Prepared, compiler: Path) -> None:
        machine = replace(training.machine, num_processes=2)
        assert open_modes(replace(training, machine=machine)) == ()

    def test_not_behind_frozen_layers(self, training: Prepared, compiler: Path) -> None:
        recipe = load_recipe(training.recipe, {"network.freeze": "all_but_head"})
        assert open_modes(replace(training, recipe=recipe)) == ()


class TestSettling:
    """1700 steps of so many seconds that the training is just long enough, or too short, for trying."""

    LONG_S, SHORT_S = 1.01 * LEAST_TRAINING_S["cpu"] / 1700, 0.99 * LEAST_TRAINING_S["cpu"] / 1700

    @pytest.fixture(autouse=True)
    def _compiler(self, compiler: Path) -> None:
        self.notes: list[str] = []
        self.given: list[float] = []

    def settle(self, training: Prepared, step_s: float, monkeypatch: pytest.MonkeyPatch, found: Tried) -> CompileMode:
        def try_modes(prepared: Prepared, modes: tuple[CompileMode, ...], given_s: float) -> list[Tried]:
            assert modes == ("fused",)
            self.given.append(given_s)
            return [found]

        monkeypatch.setattr(compiling, "try_modes", try_modes)
        settled = settle_compiling(training, step_s, {"of": "a test"}, build_trainer, self.notes.append)
        mode = settled.machine.compile
        assert settled == replace(training, machine=replace(training.machine, compile=mode))
        return mode

    def test_it_is_tried_once_and_remembered(self, training: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
        for _ in range(2):
            assert self.settle(training, self.LONG_S, monkeypatch, GAIN) == "fused"
        assert self.given == [pytest.approx(1.01 * 7200 / 50)]
        assert self.notes == [
            "Trying whether compiling the training step repays itself, for at most 145 s.",
            "Compiled (fused, 20 s), a training step takes 100.0 ms, and 150.0 ms as it is.",
        ]

    def test_a_short_training_tries_nothing(self, training: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.settle(training, self.SHORT_S, monkeypatch, GAIN) == "none"
        assert self.given == self.notes == []

    def test_nor_does_it_take_what_a_long_one_found(self, training: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.settle(training, self.LONG_S, monkeypatch, GAIN) == "fused"
        # 799 steps of 50 ms are less than two times 20 s; 816 are more.
        assert self.settle(changed(training, epochs=47), self.LONG_S, monkeypatch, GAIN) == "none"
        assert self.settle(changed(training, epochs=48), self.LONG_S, monkeypatch, GAIN) == "fused"
        assert len(self.given) == 1

    def test_the_longest_trainings_wait_ten_minutes(self, training: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settle(training, 3600.0, monkeypatch, GAIN)
        assert self.given == [600.0]

    def test_what_failed_is_not_tried_again(self, training: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
        failed = Tried("fused", "It takes too long.")
        for _ in range(2):
            assert self.settle(training, self.LONG_S, monkeypatch, failed) == "none"
        assert self.notes[1:] == ["It takes too long."]
        # Twice the time may be enough.
        assert self.settle(training, 1.99 * self.LONG_S, monkeypatch, GAIN) == "none"
        assert self.settle(training, 2.01 * self.LONG_S, monkeypatch, GAIN) == "fused"

    def test_another_compiler_is_tried_anew(
        self, training: Prepared, compiler: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.settle(training, self.LONG_S, monkeypatch, Tried("fused", "No."))
        compiler.write_text("#!/bin/sh\nexit 0\n")
        assert self.settle(training, self.LONG_S, monkeypatch, GAIN) == "fused"

    @pytest.mark.parametrize("damage", ["", "{}", '{"given_s": 5, "tried": 3}', '{"given_s": 5, "tried": [{}]}'])
    def test_what_is_damaged_is_tried_anew(
        self, damage: str, training: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        self.settle(training, self.LONG_S, monkeypatch, GAIN)
        (kept,) = (tmp_path / "cache" / "fastest").iterdir()
        assert json.loads(kept.read_text())["tried"][0]["compile_s"] == 20.0
        kept.write_text(damage)
        assert self.settle(training, self.LONG_S, monkeypatch, GAIN) == "fused"
        assert len(self.given) == 2

    def test_where_nothing_can_be_kept_it_is_tried_each_time(
        self, training: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "cache" / "fastest").write_text("in the way")
        for _ in range(2):
            assert self.settle(training, self.LONG_S, monkeypatch, GAIN) == "fused"
        assert len(self.given) == 2


def test_it_is_one_more_way_of_the_fastest(training: Prepared, compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step's time of the other ways decides whether it is tried, and it is tried in the fastest of them."""
    tried: list[str] = []

    def try_modes(prepared: Prepared, modes: tuple[CompileMode, ...], given_s: float) -> list[Tried]:
        tried.append(prepared.machine.memory_format)
        return [GAIN]

    monkeypatch.setattr(compiling, "try_modes", try_modes)
    seconds = {"channels_last": 6.0, "contiguous": 5.0}
    monkeypatch.setattr(fastest, "_step_s", lambda prepared, build: seconds[prepared.machine.memory_format])
    prepared = changed(training, memory_format="auto")
    for _ in range(2):
        settled = settle(prepared, build_trainer, lambda note: None)
        assert (settled.machine.memory_format, settled.machine.compile) == ("contiguous", "fused")
    assert tried == ["contiguous"]
    # An estimate does not wait for it.
    assert settle(prepared, build_trainer, lambda note: None, try_compiling=False).machine.compile == "none"


class TestTrying:
    @pytest.fixture
    def program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Put a shell script in the place of Python."""
        path = tmp_path / "python"

        def write(text: str) -> None:
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)

        monkeypatch.setattr(sys, "executable", str(path))
        return write

    def test_one_that_takes_too_long_is_killed_with_all_that_it_started(
        self, training: Prepared, program: Callable[[str], None], tmp_path: Path
    ) -> None:
        program(f"sleep 77 & echo $! > {tmp_path}/child; sleep 77")
        tried = try_modes(training, ("fused", "cuda_graphs"), 1.0)
        fault = "The training step is not compiled: that takes longer than 1 s here."
        assert tried == [Tried("fused", fault), Tried("cuda_graphs", fault)]
        child = int((tmp_path / "child").read_text())
        for _ in range(100):
            if not _is_alive(child):
                break
            time.sleep(0.05)
        assert not _is_alive(child)

    @pytest.mark.parametrize("text", ["exit 3", "kill -9 $$", "read job; exit 0"])
    def test_one_that_crashes_is_a_fault(self, text: str, training: Prepared, program: Callable[[str], None]) -> None:
        program(text)
        fault = "The training step is not compiled: trying it failed."
        assert try_modes(training, ("fused",), 30.0) == [Tried("fused", fault)]

    def test_what_was_found_before_its_end_counts(self, training: Prepared, program: Callable[[str], None]) -> None:
        found = json.dumps([{"mode": "fused", "compile_s": 2.5, "step_s": 0.5, "usual_step_s": 0.75}])
        program(f'read job; file=${{job##*\'"result": "\'}}; echo \'{found}\' > "${{file%%\\"*}}"; sleep 77')
        first, second = try_modes(training, ("fused", "cuda_graphs"), 2.0)
        assert first == Tried("fused", "", 2.5, 0.5, 0.75)
        assert "longer than 2 s" in second.fault

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which(compiler_command()) is None, reason="there is no C++ compiler")
    def test_really(self, training: Prepared, tmp_path: Path) -> None:
        (tried,) = try_modes(training, ("fused",), 1000.0)
        assert tried.fault == ""
        assert tried.compile_s > 100 * tried.step_s > 0
        assert tried.usual_step_s > 0
        assert (tmp_path / "cache" / "compiled").is_dir()

    @pytest.mark.slow
    def test_a_compiler_that_fails_says_so(self, training: Prepared, compiler: Path) -> None:
        (tried,) = try_modes(training, ("fused",), 200.0)
        assert tried.fault.startswith("The training step is not compiled (")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # Nobody has asked yet how it ended.
    return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] != "Z"


class TestBeginning:
    def compiled(self, training: Prepared, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(Trainer, "compile_step", lambda trainer, epoch: seconds)
        prepared = changed(training, compile="fused")
        self.notes: list[str] = []
        trainer, settled = with_compiled_step(build_trainer(prepared, note=self.notes.append), prepared)
        assert trainer.compile == settled.machine.compile
        return settled.machine.compile

    def test_the_seconds_are_told(self, training: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.compiled(training, 12.3, monkeypatch) == "fused"
        assert self.notes == ["Compiling the training step.", "Compiled it in 12 s."]

    def test_what_fails_is_recorded_as_it_is_computed(
        self, training: Prepared, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.compiled(training, None, monkeypatch) == "none"

    def test_nothing_is_compiled_where_nothing_is_asked_for(self, training: Prepared) -> None:
        trainer = build_trainer(training)
        assert with_compiled_step(trainer, training) == (trainer, training)
        assert trainer.compile_step() is None


class TestRecorded:
    """What a run's `environment.json` says counts, not its recipe."""

    def folder(self, tmp_path: Path, **recorded: str) -> RunFolder:
        about = {"device": "cpu", "precision": "float32", "threads": 1, **recorded}
        (tmp_path / "environment.json").write_text(json.dumps(about))
        return RunFolder(tmp_path)

    def test_a_run_goes_on_as_it_began(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, compile="fused")
        assert Machine.recorded(folder, load_recipe("digits")).compile == "fused"
        folder = self.folder(tmp_path, compile="none")
        assert Machine.recorded(folder, load_recipe("digits", {"fit.compile": "fused"})).compile == "none"

    def test_runs_from_before_there_was_a_choice_compile_nothing(self, tmp_path: Path) -> None:
        assert Machine.recorded(self.folder(tmp_path), load_recipe("digits")).compile == "none"

    def test_a_run_of_a_gpu_is_evaluated_anywhere(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, compile="cuda_graphs", device="cuda")
        recipe = load_recipe("digits", {"fit.compile": "cuda_graphs"})
        assert Machine.for_evaluation(folder, recipe).compile == "none"
