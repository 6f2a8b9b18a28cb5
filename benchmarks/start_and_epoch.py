"""Packing, start and epoch of `alexnet-cifar10` on real CIFAR-10 pictures: seconds and memory on this machine.

    make bench                      needs cifar10-jpeg75.tar.xz in a folder of CONVICTION_DATA

Each figure comes from a process of its own. Results go to benchmarks/results/<processor>.json.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from typing import Any

from record import child_environment, show, this_environment, write_section

RECIPE, PICTURES = "alexnet-cifar10", "cifar10-jpeg75"
NUM_WARM_STARTS = 3
# Runs in a process of its own; says when things happened, in seconds since the process was asked for.
CHILD = """
import os, sys, time
asked = float(sys.argv[1])
from conviction import train
from conviction.fit.watcher import Watcher

class Clock(Watcher):
    def __init__(self):
        self.seen = set()
    def say(self, what):
        if what not in self.seen:
            self.seen.add(what)
            print(what, time.time() - asked, flush=True)
    def started(self, summary, num_epochs, folder):
        self.say("prepared")
    def epoch(self, record, timing, is_best):
        self.say(f"epoch_{record.epoch}")
        print(f"epoch_{record.epoch}_s", timing.train_s + timing.validation_s, flush=True)
        print("peak_memory_bytes", timing.peak_memory_bytes, flush=True)
    def step(self, epoch, num_done, num_steps):
        if num_done == 1:
            self.say("first_step")
            if sys.argv[3] == "start":
                os._exit(0)

print("imported", time.time() - asked, flush=True)
train(sys.argv[2], {"data.path": sys.argv[4], "fit.epochs": int(sys.argv[5])}, watcher=Clock())
"""


def measure(until: str, num_epochs: int, environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-c", CHILD, str(time.time()), RECIPE, until, PICTURES, str(num_epochs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = child_environment(CONVICTION_HOME=f"{folder}/runs", CONVICTION_CACHE=f"{folder}/cache")
        cold = measure("start", 1, environment)
        warm = [measure("start", 1, environment) for _ in range(NUM_WARM_STARTS)]
        trained = measure("end", 2, environment)
    fastest = min(warm, key=lambda run: run["first_step"])
    results: dict[str, Any] = {
        "recipe": RECIPE,
        "pictures": PICTURES,
        "packing_s": cold["prepared"] - fastest["prepared"],
        "warm_first_step_s": sorted(run["first_step"] for run in warm),
        "of_which_imports_s": sorted(run["imported"] for run in warm),
        "epoch_with_validation_s": [trained["epoch_1_s"], trained["epoch_2_s"]],
        "peak_memory_bytes": trained["peak_memory_bytes"],
    }
    show(results)
    write_section("start_and_epoch", results, this_environment(RECIPE))


if __name__ == "__main__":
    main()
