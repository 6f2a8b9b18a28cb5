"""Conviction beside its peers on the same work, in one run: images a second of the whole training loop, and the losses.

    make bench-peers                or, in benchmarks/: python -m peers.compare [--quick] [--rounds N] [--peers NAME …]

Needs cifar10-jpeg75.tar.xz in a folder of CONVICTION_DATA and the peers in .bench-venv (benchmarks/peers/setup.sh). In
each round every program runs once, in a process of its own and in an order that turns from round to round: one epoch
over the same pictures from the same weights, the first steps not timed. `--quick` shows that everything works; its
figures are not written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from record import child_environment, machine_path, this_environment, write_section
from targets import NAMES, PEER_RECIPES, PEER_TARGETS, WORK, write_page

from peers.arrays import write_arrays
from peers.pictures import PICTURES, take, unpack, write_start
from peers.run_conviction import overrides
from peers.task import Task
from peers.verdict import OURS, draw, markdown, spread_of, summarise

BENCHMARKS = Path(__file__).parents[1]
PEER_PYTHON = BENCHMARKS.parent / ".bench-venv" / "bin" / "python"
# Steps to warm up, and to measure: about ten seconds of the fastest program on two cores.
STEPS, QUICK_STEPS = {"lab-c": (20, 100), "lab-a-bn": (4, 16)}, {"lab-c": (2, 4), "lab-a-bn": (1, 2)}
NUM_ROUNDS, QUICK_ROUNDS = 5, 2
LONGEST_S = 900


def run(program: str, task: Task, folder: Path) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    task = replace(task, started=time.time())
    task.write(folder / "task.json")
    name, _, backend = program.partition("-")
    python = sys.executable if program == OURS else str(PEER_PYTHON)
    environment = child_environment(CONVICTION_CACHE=str(folder / "cache"), KERAS_HOME=str(folder / "keras"))
    if backend:
        environment["KERAS_BACKEND"] = backend
    done = subprocess.run(
        [python, "-m", f"peers.run_{name}", str(folder / "task.json")],
        capture_output=True,
        text=True,
        env=environment,
        cwd=BENCHMARKS,
        timeout=LONGEST_S,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{program} failed:\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(network: str, peers: list[str], steps: tuple[int, int], num_rounds: int, folder: Path) -> dict[str, Any]:
    """All rounds of one network."""
    task = Task(network, PEER_RECIPES[network], str(folder / network), str(folder / "start.npz"), 0, *steps, 0.0)
    take(folder / PICTURES, folder / network, task.num_pictures)
    write_arrays(folder / network)
    programs = [OURS, *peers]
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(num_rounds):
        task = replace(task, seed=number)
        write_start(task.recipe, overrides(task), folder / "start.npz")
        turned = programs[number % len(programs) :] + programs[: number % len(programs)]
        found = {}
        for program in turned:
            found[program] = run(program, task, folder)
            shown = {name: found[program][name] for name in ("images_per_s", "first_step_s", "mean_loss")}
            print(f"{WORK[network]}, round {number + 1}, {program:12}", *(f"{value:9.3f}" for value in shown.values()))
            sys.stdout.flush()
        rounds.append({program: found[program] for program in programs})
    ours = [each[OURS] for each in rounds]
    return {
        "warmup_steps": steps[0],
        "measured_steps": steps[1],
        "num_rounds": num_rounds,
        "ours": {
            "precision": ours[0]["precision"],
            "images_per_s": spread_of([one["images_per_s"] for one in ours]),
            "first_step_s": spread_of([one["first_step_s"] for one in ours]),
        },
        "peers": summarise(rounds, network),
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps of each, to see that it works")
    parser.add_argument("--rounds", type=int, help=f"how often each is measured; {NUM_ROUNDS} by default")
    parser.add_argument("--networks", nargs="+", choices=list(PEER_RECIPES), default=list(PEER_RECIPES))
    parser.add_argument("--peers", nargs="+", choices=list(NAMES), help="by default all that compute on this device")
    asked = parser.parse_args()
    num_rounds = asked.rounds or (QUICK_ROUNDS if asked.quick else NUM_ROUNDS)
    environment = this_environment(PEER_RECIPES["lab-c"])
    # JAX is installed for processors alone: beside the others on a GPU its figure would mean nothing.
    possible = [peer for peer in NAMES if peer != "keras-jax" or environment["device"] == "cpu"]
    peers = asked.peers or possible
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CONVICTION_CACHE"] = str(folder / "cache")
        unpack(folder)
        print(f"{'':44}{'images/s':>9}{'1st step':>10}{'loss':>10}")
        networks = {
            network: measure(
                network,
                [peer for peer in peers if peer in PEER_TARGETS[network]],
                (QUICK_STEPS if asked.quick else STEPS)[network],
                num_rounds,
                folder,
            )
            for network in asked.networks
        }
    section = {
        "pictures": PICTURES,
        "decoded": True,
        "batch_size": Task.batch_size,
        "load_average": load_average,
        "networks": networks,
    }
    print("\n".join(markdown(section)))
    is_whole = set(peers) >= set(possible) and set(asked.networks) == set(PEER_RECIPES) and num_rounds >= NUM_ROUNDS
    if asked.quick or not is_whole:
        print("\nNot written: this was not the whole benchmark.")
        return
    write_section("peers", section, environment)
    title = f"Training beside other programs: {environment['processor']}, {environment['threads']} threads"
    draw(section, title, machine_path(environment, "-peers.png"))
    write_page(environment)


if __name__ == "__main__":
    main()
