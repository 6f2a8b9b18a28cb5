"""The ConvNet's training step beside what this machine computes: which share of its operations a second it reaches.

    make bench                      or: python benchmarks/share_of_ceiling.py

Measured by `conviction bench`, five times, in the precision that `convnet-cifar10` has here. `share_of_matrix_product`
is of the fastest matrix product, `share_of_ceiling` of the fastest product or convolution. A share of the ceiling above
1 says that another program held it up: measure again on a quiet machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any

from record import child_environment, show, this_environment, write_section

RECIPE, NUM_RUNS, SECONDS = "convnet-cifar10", 5, 12
SHARES = ("share_of_matrix_product", "share_of_ceiling")


def measure() -> dict[str, Any]:
    command = [sys.executable, "-m", "conviction", "bench", RECIPE, "--seconds", str(SECONDS), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=child_environment())
    return dict(json.loads(done.stdout))


def spread(shares: list[float]) -> dict[str, float]:
    return {"median": median(shares), "smallest": min(shares), "largest": max(shares)}


def main() -> None:
    runs = [measure() for _ in range(NUM_RUNS)]
    found = {
        "recipe": RECIPE,
        "precision": runs[0]["training"]["precision"],
        "batch_size": runs[0]["training"]["batch_size"],
        "num_runs": NUM_RUNS,
        **{name: spread([run["training"][name] for run in runs]) for name in SHARES},
        "step_gflop_a_second": [round(run["training"]["step_flops"] / 1e9, 1) for run in runs],
        "matrix_product_gflop_a_second": [round(run["training"]["matrix_flops"] / 1e9, 1) for run in runs],
        "ceiling_gflop_a_second": [round(run["training"]["ceiling_flops"] / 1e9, 1) for run in runs],
        "ceiling_operation": [run["training"]["ceiling_operation"] for run in runs],
        "step_images_per_s": [round(run["training"]["step_images_per_s"]["median"], 1) for run in runs],
        "loop_images_per_s": [round(run["training"]["loop_images_per_s"]["median"], 1) for run in runs],
        "warnings": sorted({warning for run in runs for warning in run["warnings"]}),
    }
    show(found)
    write_section("share_of_ceiling", found, this_environment(RECIPE))


if __name__ == "__main__":
    main()
