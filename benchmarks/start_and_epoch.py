"""Packing, start and epoch of `alexnet-cifar10` on real CIFAR-10 pictures: seconds and memory on this machine.

    make bench                      needs cifar10-jpeg75.tar.xz in a folder of CONVICTION_DATA

Each figure comes from a process of its own. Results go to benchmarks/results/<processor>.json.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from record import child_environment, show, this_environment, write_section

RECIPE, PICTURES = "alexnet-cifar10", "cifar10-jpeg75"
NUM_WARM_STARTS = 5
COMMAND = Path(__file__).parent / "clocked_command.py"


def measure(until: Literal["start", "end"], environment: dict[str, str], *settings: str) -> dict[str, float]:
    """When things happened in a training by the command; `start` ends it behind its first step."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said"
        training = ["train", RECIPE, *(f"--set={setting}" for setting in (f"data.path={PICTURES}", *settings))]
        command = [sys.executable, str(COMMAND), str(time.time()), until, str(file), *training]
        subprocess.run(command, capture_output=True, check=True, env=environment)
        return {name: float(value) for name, value in (line.split() for line in file.read_text().splitlines())}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = child_environment(CONVICTION_HOME=f"{folder}/runs", CONVICTION_CACHE=f"{folder}/cache")
        # In so few steps no ways to compute are measured.
        cold = measure("start", environment, "fit.epochs=1")
        # Here they are, which takes memory too; the starts behind it find what was chosen.
        trained = measure("end", environment, "fit.epochs=2")
        warm = [measure("start", environment) for _ in range(NUM_WARM_STARTS)]
    fastest = min(warm, key=lambda run: run["first_step"])
    results: dict[str, Any] = {
        "recipe": RECIPE,
        "pictures": PICTURES,
        "packing_s": cold["prepared"] - fastest["prepared"],
        "command_first_step_s": sorted(run["first_step"] for run in warm),
        "epoch_with_validation_s": [trained["epoch_1_s"], trained["epoch_2_s"]],
        "peak_memory_bytes": trained["peak_memory_bytes"],
    }
    show(results)
    write_section("start_and_epoch", results, this_environment(RECIPE))


if __name__ == "__main__":
    main()
