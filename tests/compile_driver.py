"""Train small networks with a compiled step and without, and write down what came of it.

In a process of its own, where no type checks stand between torch's compiler and the networks. Arguments: the scenario,
and the file for what came of it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conviction.core.device import CompileMode
from conviction.core.records import to_json
from conviction.fit.lookahead import Lookahead, LookaheadConfig
from conviction.fit.loop import Trainer
from conviction.fit.optimizer import SgdConfig
from conviction.fit.progressive import SizeStep
from small_training import PLAIN, RICH, ignore, run, trainer

EPOCHS = 3
POOLED: dict[str, Any] = {"blocks": [{"filters": 4, "normalization": "batch"}], "global_pooling": "average"}
TIMED: dict[str, Any] = {"blocks": [{"filters": 4, "normalization": "batch", "bias_epochs": 1, "pooling": {}}]}


def pair(settings: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The same training uncompiled and compiled."""
    found: dict[str, Any] = {}
    modes: tuple[CompileMode, ...] = ("none", "fused")
    for mode in modes:
        notes: list[str] = []
        made = trainer(settings, compile=mode, note=notes.append, **options)
        found[mode] = {**outcome(made), "notes": notes}
    return found


def outcome(made: Trainer) -> dict[str, Any]:
    losses: list[float] = []
    take_step = made.take_step

    def keep(batch: Any) -> tuple[Tensor, Tensor]:
        loss, logits = take_step(batch)
        losses.append(loss.item())
        return loss, logits

    made.take_step = keep
    records = run(made, EPOCHS)
    compiled = made._compiled
    return {
        "losses": losses,
        "records": [to_json(record) for record in records],
        "weights": {name: value.clone() for name, value in made.network.state_dict().items()},
        "num_variants": len(compiled._variants) if compiled else 0,
    }


def dropped() -> dict[str, Any]:
    return pair(RICH)


def changing() -> dict[str, Any]:
    """Another size of pictures in the first epoch, and a bias that stops after it."""
    sizes = (SizeStep(epochs=1, size_px=4),)
    return {"sizes": pair(POOLED, progressive_sizes=sizes), "biases": pair(TIMED, gradient_clip_norm=0.5)}


def looking_ahead() -> dict[str, Any]:
    found: dict[str, Any] = {}
    modes: tuple[CompileMode, ...] = ("none", "fused")
    for mode in modes:
        made = trainer(PLAIN, optimizer=SgdConfig(learning_rate=0.05, momentum=0.9), compile=mode)
        made.lookahead = Lookahead(LookaheadConfig(every_steps=2), made.network, 7 * EPOCHS)
        found[mode] = outcome(made)
    return found


def rounded() -> dict[str, Any]:
    return pair(RICH, precision="bfloat16")


def resumed() -> dict[str, Any]:
    """The second epoch of a training, and of another one that begins with it."""
    whole = trainer(RICH, compile="fused")
    before = torch.get_rng_state()
    seconds = whole.compile_step()
    untouched = torch.equal(before, torch.get_rng_state())
    drawn = {name: value.clone() for name, value in whole.network.state_dict().items()}
    fresh = trainer(RICH).network.state_dict()
    unchanged = all(torch.equal(drawn[name], value) for name, value in fresh.items())
    run(whole, 1)
    other = trainer(RICH, compile="fused")
    other.network.load_state_dict(whole.network.state_dict())
    other.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
    for made in (whole, other):
        made.train_epoch(2, ignore)
    return {
        "seconds": seconds,
        "untouched": untouched,
        "unchanged": unchanged,
        "whole": whole.network.state_dict(),
        "resumed": other.network.state_dict(),
    }


class Looking(nn.Module):
    """Asks for a value on the way, which no compiler can know."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images if images.sum().item() > 0 else images + 0.0)


def looking() -> dict[str, Any]:
    found: dict[str, Any] = {}
    modes: tuple[CompileMode, ...] = ("none", "fused")
    for mode in modes:
        notes: list[str] = []
        made = trainer(RICH)
        inner = made.network
        made = Trainer(Looking(inner), *_rest(made), compile=mode, note=notes.append)
        found[mode] = {**outcome(made), "notes": notes}
    return found


def _rest(made: Trainer) -> tuple[Any, ...]:
    return made.optimizer, made.schedule, made.loss, made.train, made.validation, made.seed


def plain() -> dict[str, Any]:
    """Nothing special: for other compilers and folders."""
    return pair(PLAIN)


SCENARIOS: dict[str, Callable[[], dict[str, Any]]] = {
    scenario.__name__: scenario for scenario in (dropped, changing, looking_ahead, rounded, resumed, looking, plain)
}


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1].split(","):
        torch.save(SCENARIOS[name](), Path(sys.argv[2]) / f"{name}.pt")


if __name__ == "__main__":
    main()
