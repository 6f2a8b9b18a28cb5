"""Whether compiling the training step repays its seconds: tried once in a process of its own, and remembered."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conviction.core.device import CompileMode
from conviction.core.errors import ConvictionError
from conviction.core.files import make_folder, read_json, write_json
from conviction.core.records import from_json, to_json
from conviction.data.source.locate import cache_folder
from conviction.fit.compiled import MOST_VARIANTS, compiler_command
from conviction.fit.loop import Trainer
from conviction.fit.progressive import size_in_epoch
from conviction.nets.bias_epochs import bias_epochs_of
from conviction.run.prepared import Prepared
from conviction.run.recipe import Recipe, load_recipe

# Trainings that are expected to be shorter, by their uncompiled steps, try nothing. On processors compiled steps were
# slower than uncompiled ones wherever that was measured, so that little is spent on the hope of another outcome.
LEAST_TRAINING_S = {"cpu": 7200.0, "cuda": 600.0}
# Of the expected time of training, trying may take so much.
_MOST_SHARE, _MOST_S = {"cpu": 0.02, "cuda": 0.1}, 600.0
# What a compiled step has to gain, as any other way, and how many times over it has to repay compiling.
LEAST_GAIN, LEAST_RETURN = 1.1, 2.0


@dataclass(frozen=True)
class Tried:
    """What came of compiling: its seconds, and those of a step beside one that is not compiled; or why it was not."""

    mode: CompileMode
    fault: str = ""
    compile_s: float = 0.0
    step_s: float = 0.0
    usual_step_s: float = 0.0

    def __str__(self) -> str:
        if self.fault:
            return self.fault
        return (
            f"Compiled ({self.mode}, {self.compile_s:.0f} s), a training step takes {1000 * self.step_s:.1f} ms, and "
            f"{1000 * self.usual_step_s:.1f} ms as it is."
        )

    def repays(self, num_steps: int, num_variants: int = 1) -> bool:
        """Whether it does in so many steps, where it has to be compiled so many times."""
        if self.fault or self.step_s * LEAST_GAIN >= self.usual_step_s:
            return False
        return num_steps * (self.usual_step_s - self.step_s) > LEAST_RETURN * num_variants * self.compile_s


def with_compiled_step(trainer: Trainer, prepared: Prepared, epoch: int = 1) -> tuple[Trainer, Prepared]:
    """The same, its step compiled for an epoch where the machine says so; where that fails, both without."""
    if prepared.machine.compile == "none" or prepared.machine.num_processes > 1:
        return trainer, prepared
    prepared.machine.engage()
    trainer.note("Compiling the training step.")
    seconds = trainer.compile_step(epoch)
    if seconds is None:
        uncompiled = replace(prepared, machine=replace(prepared.machine, compile="none"))
        return replace(trainer, compile="none"), uncompiled
    trainer.note(f"Compiled it in {seconds:.0f} s.")
    return trainer, prepared


def open_modes(prepared: Prepared) -> tuple[CompileMode, ...]:
    """In which modes the recipe lets the training step be compiled, where that may help."""
    recipe, machine = prepared.recipe, prepared.machine
    # Behind frozen layers there is little left to compile.
    if recipe.fit.compile != "auto" or machine.num_processes > 1 or recipe.network.freeze is not None:
        return ()
    if machine.device.type == "cuda":
        return ("fused", "cuda_graphs")
    return ("fused",) if _compiler_path() else ()


def settle_compiling(
    prepared: Prepared,
    step_s: float,
    about: dict[str, Any],
    build: Callable[[Prepared], Trainer],
    note: Callable[[str], None],
) -> Prepared:
    """The same, compiled where that repays itself in this training; `step_s` is what a step takes uncompiled.

    `about` is all that this time depends on. Trying takes at most a small share of the training.
    """
    recipe, modes = prepared.recipe, open_modes(prepared)
    num_steps = recipe.fit.epochs * prepared.training_stream().num_batches
    expected_s, device = num_steps * step_s, prepared.machine.device.type
    way = [prepared.machine.precision, prepared.machine.memory_format]
    about = {**about, "way": way, "compiler": _compiler_identity()}
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    path = cache_folder() / "fastest" / f"{key}-compiled.json"
    given_s = min(_MOST_S, _MOST_SHARE[device] * expected_s)
    tried = _remembered(path, modes, given_s)
    if tried is None:
        if not modes or expected_s < LEAST_TRAINING_S[device]:
            return prepared
        note(f"Trying whether compiling the training step repays itself, for at most {given_s:.0f} s.")
        tried = try_modes(prepared, modes, given_s)
        # Where it cannot be kept, the next start tries again.
        with suppress(ConvictionError):
            make_folder(path.parent)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            found = {"given_s": given_s, "tried": [to_json(one) for one in tried], "measured_at": now, "about": about}
            write_json(path, found)
        note(" ".join(map(str, tried)))
    mode = choose(tried, num_steps, lambda: num_variants(build(prepared), recipe.fit.epochs))
    return replace(prepared, machine=replace(prepared.machine, compile=mode))


def choose(tried: Sequence[Tried], num_steps: int, count_variants: Callable[[], int] = lambda: 1) -> CompileMode:
    """The mode in which so many steps are over first, if it repays itself; `none` otherwise."""
    if not any(one.repays(num_steps) for one in tried):
        return "none"
    count = count_variants()
    worth = [one for one in tried if one.repays(num_steps, count)]
    if not worth or count > MOST_VARIANTS:
        return "none"
    return min(worth, key=lambda one: num_steps * one.step_s + count * one.compile_s).mode


def num_variants(trainer: Trainer, num_epochs: int) -> int:
    """How many times the step is compiled in a training: for each size of pictures and each choice of what trains."""
    ends = set(bias_epochs_of(trainer.network).values())
    epochs = range(1, num_epochs + 1)
    return len({(size_in_epoch(trainer.progressive_sizes, e), tuple(e <= end for end in ends)) for e in epochs})


def try_modes(prepared: Prepared, modes: Sequence[CompileMode], given_s: float) -> list[Tried]:
    """Try them in a process of its own, which a compiler may crash, and which is killed when its time is over."""
    job = {
        "recipe": _as_settled(prepared).settings(),
        "picture_shape": prepared.picture_shape,
        "num_classes": len(prepared.pack.classes),
        "modes": modes,
    }
    too_slow = f"The training step is not compiled: that takes longer than {given_s:.0f} s here."
    missing = "The training step is not compiled: trying it failed."
    with tempfile.TemporaryDirectory(prefix="conviction-") as folder:
        result = Path(folder) / "tried.json"
        if not _run_trial({**job, "result": str(result)}, given_s, folder):
            missing = too_slow
        try:
            tried = [from_json(Tried, one) for one in read_json(result)]
        except (ConvictionError, TypeError, KeyError, ValueError):
            tried = []
    return [*tried, *(Tried(mode, missing) for mode in modes[len(tried) :])]


def _run_trial(job: dict[str, Any], given_s: float, folder: str) -> bool:
    """Whether the process ended by itself in its time; temporary files lie in the folder."""
    command = [sys.executable, "-P", "-m", "conviction.run.compile_trial"]
    # One that has ended does not read.
    with (
        suppress(BrokenPipeError),
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TMPDIR": folder},
            # With its session, the compilers that it started are killed.
            start_new_session=True,
        ) as process,
    ):
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            process.wait(given_s)
        except subprocess.TimeoutExpired:
            return False
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return True


def _as_settled(prepared: Prepared) -> Recipe:
    """The recipe with all that was settled by now."""
    machine = prepared.machine
    settled = {
        "precision": machine.precision,
        "memory_format": machine.memory_format,
        "threads": machine.threads,
        "device": machine.device.type,
        "compile": "none",
    }
    return load_recipe(prepared.recipe, {f"fit.{key}": value for key, value in settled.items()})


def _compiler_identity() -> list[str | int]:
    """Which compiler there is: another one is tried anew."""
    found = _compiler_path()
    if found is None:
        return []
    about = Path(found).resolve().stat()
    return [compiler_command(), found, about.st_size, about.st_mtime_ns]


def _compiler_path() -> str | None:
    """The first word of its command, as `CXX="ccache g++"` may have several."""
    try:
        words = shlex.split(compiler_command())
    except ValueError:
        return None
    return shutil.which(words[0]) if words else None


def _remembered(path: Path, modes: Sequence[CompileMode], given_s: float) -> list[Tried] | None:
    """What was tried before; None where nothing was, or where the time was too short and is now twice as long."""
    try:
        found = read_json(path)
        tried = [from_json(Tried, one) for one in found["tried"]]
        if [one.mode for one in tried] != list(modes):
            return None
        if not all(map(math.isfinite, (one.compile_s + one.step_s + one.usual_step_s for one in tried))):
            return None
        was_too_short = any(one.fault for one in tried) and 2 * float(found["given_s"]) <= given_s
    except (ConvictionError, KeyError, TypeError, ValueError):
        return None
    return None if was_too_short else tried
