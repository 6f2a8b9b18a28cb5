"""Train small networks as one process or as several, which are forked from this one, and write down what came of it.

Arguments: the number of processes, and a folder, which gets a file for each scenario and process.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from conviction.augment import AUGMENTATIONS, build_augmentations
from conviction.core.records import to_json
from conviction.data.stream import Share
from conviction.fit.distributed import SharedTrainer, process_group
from conviction.fit.loop import Trainer
from conviction.fit.optimizer import SgdConfig
from small_training import NUM_CLASSES, PLAIN, RICH, ignore, trainer

MOVES = ({"name": "random_crop", "padding_px": 2}, {"name": "horizontal_flip"}, {"name": "rotate", "degrees": 20})
COLOURS = ({"name": "horizontal_flip"}, {"name": "brightness", "p": 0.5}, {"name": "mixup", "alpha": 1.0})
NORMALIZED = {
    "blocks": [{"filters": 4, "normalization": "batch"}, {"filters": 4, "normalization": "layer", "pooling": {}}],
    "dense": [{"units": 8, "normalization": "batch", "dropout": 0.2}],
}
# So many values that rounding turns a ReLU or a maximum over.
WIDE = {
    "blocks": [{"filters": 128, "normalization": "batch", "pooling": {}}, {"filters": 256, "normalization": "batch"}],
}
# Of 50 images, batches of 16 leave 2 for the last, and batches of 49 become one of 50.
SCENARIOS: dict[str, dict[str, Any]] = {
    "plain": {"settings": PLAIN, "batch_size": 8},
    "dropout": {"settings": RICH, "batch_size": 8},
    "normalized": {"settings": NORMALIZED, "batch_size": 16, "gradient_clip_norm": 0.5},
    "moved": {"settings": PLAIN, "batch_size": 16, "augments": MOVES},
    "mixed": {"settings": RICH, "batch_size": 16, "augments": COLOURS, "optimizer": SgdConfig(learning_rate=0.02)},
    "joined": {"settings": NORMALIZED, "batch_size": 49, "measure_train_fixed": True},
    "timed": {"settings": {"blocks": [{"filters": 4, "bias_epochs": 1, "pooling": {}}]}, "batch_size": 16},
    "double": {"settings": WIDE, "batch_size": 16, "double": True},
    "bfloat16": {"settings": NORMALIZED, "batch_size": 16, "precision": "bfloat16"},
}


def outcome(scenario: dict[str, Any], kind: type[Trainer], share: Share | None) -> dict[str, Any]:
    """The gradients of the first step, and weights and figures after two epochs."""
    options = dict(scenario)
    configs = [AUGMENTATIONS[one["name"]].config.model_validate(one) for one in options.pop("augments", ())]
    augment = build_augmentations(configs, (3, 6, 6), NUM_CLASSES) if configs else None
    made = trainer(augment=augment, kind=kind, share=share, **options)
    gradients: dict[str, torch.Tensor] = {}

    def keep(done: int, steps: int) -> None:
        if not gradients:
            gradients.update({name: weight.grad.clone() for name, weight in made.network.named_parameters()})

    records = [made.epoch_zero()[0], made.train_epoch(1, keep)[0], made.train_epoch(2, ignore)[0]]
    return {
        "gradients": gradients,
        "weights": made.network.state_dict(),
        "records": [to_json(record) for record in records],
    }


def work(rank: int, num_processes: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(num_processes), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with process_group(torch.device("cpu")) if num_processes > 1 else nullcontext() as share:
        kind = SharedTrainer if share else Trainer
        for name, scenario in SCENARIOS.items():
            torch.save(outcome(scenario, kind, share), folder / f"{name}-{num_processes}-{rank}.pt")
    # Its import takes seconds in every process.
    assert "torch._dynamo" not in sys.modules


def main() -> None:
    folder = Path(sys.argv[2])
    for num_processes in map(int, sys.argv[1].split(",")):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = []
        for rank in range(num_processes):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    work(rank, num_processes, port, folder)
                    code = 0
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(codes):
            sys.exit(f"{num_processes} processes ended with {codes}")


if __name__ == "__main__":
    main()
