"""The ConvNet's training step beside this machine's matrix product: which share of its operations a second it reaches.

    make bench                      or: python benchmarks/share_of_ceiling.py

Measured by `conviction bench`, five times, in the precision that `convnet-cifar10` has here. A share above 1 says that
another program held up the product: measure again on a quiet machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any

from record import child_environment, show, this_environment, write_section

RECIPE, NUM_RUNS, SECONDS = "convnet-cifar10", 5, 12


def measure() -> dict[str, Any]:
    command = [sys.executable, "-m", "conviction", "bench", RECIPE, "--seconds", str(SECONDS), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=child_environment())
    return dict(json.loads(done.stdout))


def main() -> None:
    runs = [measure() for _ in range(NUM_RUNS)]
    shares = [run["training"]["share_of_ceiling"] for run in runs]
    found = {
        "recipe": RECIPE,
        "precision": runs[0]["training"]["precision"],
        "batch_size": runs[0]["training"]["batch_size"],
        "num_runs": NUM_RUNS,
        "share_of_ceiling": {"median": median(shares), "smallest": min(shares), "largest": max(shares)},
        "step_gflop_a_second": [round(run["training"]["step_flops"] / 1e9, 1) for run in runs],
        "matrix_product_gflop_a_second": [round(run["training"]["ceiling_flops"] / 1e9, 1) for run in runs],
        "step_images_per_s": [round(run["training"]["step_images_per_s"]["median"], 1) for run in runs],
        "loop_images_per_s": [round(run["training"]["loop_images_per_s"]["median"], 1) for run in runs],
        "warnings": sorted({warning for run in runs for warning in run["warnings"]}),
    }
    show(found)
    write_section("share_of_ceiling", found, this_environment(RECIPE))


if __name__ == "__main__":
    main()
