"""A trial of compiling the training step: `python -m conviction.run.compile_trial`, as `try_modes` starts it.

The job comes as a line of JSON. What was found is written to the file that it names, after each mode.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from conviction.core import rng
from conviction.core.device import CompileMode
from conviction.core.files import write_json
from conviction.core.records import to_json
from conviction.run.compiling import Tried
from conviction.run.fastest import take_step
from conviction.run.prepared import Machine, Prepared
from conviction.run.random_pictures import with_random_pictures
from conviction.run.recipe import load_recipe
from conviction.run.starting import build_trainer

_WARMUP_STEPS, _MEASURED_STEPS, _LONGEST_S = 2, 10, 10.0


def main() -> NoReturn:
    """Do the job on standard input."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    do(job)
    # Without waiting for what compilers have started.
    os._exit(0)


def do(job: dict[str, Any]) -> None:
    """Try each mode on random pictures."""
    recipe = load_recipe(job["recipe"])
    machine = Machine.for_recipe(recipe)
    machine.engage()
    channels, height, width = job["picture_shape"]
    prepared = with_random_pictures(recipe, (channels, height, width), job["num_classes"], machine, 1)
    tried = []
    for mode in job["modes"]:
        tried.append(to_json(try_mode(prepared, mode)))
        write_json(Path(job["result"]), tried)


def try_mode(prepared: Prepared, mode: CompileMode) -> Tried:
    """Compile, then take a few steps in turn with an uncompiled trainer: the shortest counts for each."""
    notes: list[str] = []
    usual = build_trainer(prepared)
    machine = replace(prepared.machine, compile=mode)
    compiled = build_trainer(replace(prepared, machine=machine), note=notes.append)
    with rng.torch_default(prepared.recipe.seed, "fastest"):
        compile_s = compiled.compile_step()
        if compile_s is None:
            return Tried(mode, " ".join(notes))
        usual.network.train()
        batch = next(usual.train.shuffled(rng.generator(prepared.recipe.seed, "fastest"), seed=prepared.recipe.seed))
        for _ in range(_WARMUP_STEPS):
            take_step(usual, batch)
            take_step(compiled, batch)
        steps: list[tuple[float, float]] = []
        began = time.perf_counter()
        while len(steps) < _MEASURED_STEPS and (len(steps) < 2 or time.perf_counter() - began < _LONGEST_S):
            steps.append((take_step(usual, batch), take_step(compiled, batch)))
    usual_s, compiled_s = zip(*steps, strict=True)
    return Tried(mode, "", compile_s, min(compiled_s), min(usual_s))


def _end_with_parent() -> None:
    """Nothing more is written to the standard input: its end says that the process above is gone."""
    sys.stdin.read()
    # The compilers too.
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
