"""What training steps spend their time on: the reason where a target is missed.

    make bench                      or: python benchmarks/step_profile.py

By torch's profiler on one thread, so that no operation counts another's waiting, in the precision that the recipe has
here, on made-up pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from record import show, this_environment, write_section

RECIPES = ("alexnet-cifar10", "convnet-bn-cifar10", "speed-cifar10")
SECTION = "step_profile"
WARMUP_STEPS, MEASURED_STEPS = 5, 5
# By the names that torch gives them on a processor. What fills with zeros is what a pooling's gradient begins with.
KINDS: Mapping[str, tuple[str, ...]] = {
    "convolutions": ("convolution", "conv2d"),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "pooling": ("pool", "aten::fill_", "aten::zero_"),
    "activations": ("relu", "threshold", "clamp_min", "gelu"),
    "normalisations": ("batch_norm", "layer_norm", "group_norm"),
}
REST = "all else"
# What instructions for bfloat16 make faster.
PRODUCTS = ("convolutions", "matrix products")


def kind_of(operation: str) -> str:
    """What an operation of torch belongs to, by its name."""
    return next((kind for kind, parts in KINDS.items() if any(part in operation.lower() for part in parts)), REST)


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """The share of each kind in the time of all operations."""
    total = sum(seconds.values())
    found = dict.fromkeys((*KINDS, REST), 0.0)
    for operation, value in seconds.items():
        found[kind_of(operation)] += value / total
    return found


def speedup(shares: Mapping[str, float], of_products: float = 2.0) -> float:
    """How many times faster a step is whose products are so many times faster, and all else as it is."""
    products = sum(shares[kind] for kind in PRODUCTS)
    return 1 / (1 - products + products / of_products)


def left_to_gain(shares: Mapping[str, float]) -> float:
    """How many times faster a step would be that does nothing but its products."""
    return 1 / sum(shares[kind] for kind in PRODUCTS)


def measure(name: str) -> dict[str, Any]:
    """The shares of the step of a recipe, on whole pictures, and its seconds."""
    from torch.profiler import ProfilerActivity, profile

    from conviction.core import rng
    from conviction.run.prepared import Machine
    from conviction.run.random_pictures import with_random_pictures
    from conviction.run.recipe import load_recipe
    from conviction.run.starting import build_trainer

    recipe = load_recipe(name, {"fit.threads": 1, "fit.compile": "none", "fit.progressive_sizes": []})
    machine = Machine.for_recipe(recipe)
    machine.engage()
    trainer = build_trainer(with_random_pictures(recipe, (3, 32, 32), 10, machine, 2))
    trainer.network.train()
    batch = next(trainer.train.shuffled(rng.generator(0, "profile")))
    for _ in range(WARMUP_STEPS):
        trainer.take_step(batch)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(MEASURED_STEPS):
            trainer.take_step(batch)
    seconds = {one.key: one.self_cpu_time_total / 1e6 / MEASURED_STEPS for one in profiled.key_averages()}
    return {
        "batch_size": recipe.fit.batch_size,
        "precision": machine.precision,
        "step_s": sum(seconds.values()),
        "shares": shares(seconds),
    }


def markdown(section: dict[str, Any]) -> list[str]:
    """The part of the machine's page."""
    found: dict[str, dict[str, Any]] = section["recipes"]
    in_bfloat16 = any(about["precision"] == "bfloat16" for about in found.values())
    told, column = (
        ("would gain if all but convolutions and matrix products took no time.", "products alone")
        if in_bfloat16
        else ("would gain if convolutions and matrix products took half, as with bfloat16.", "products twice as fast")
    )
    lines = [
        "## What a training step spends its time on",
        "",
        "On one thread, of torch's operations in forward pass, backward pass and optimiser. The last column says what",
        f"a step {told}",
        "",
        f"| recipe | {' | '.join((*KINDS, REST))} | {column} |",
        f"|---|{'---|' * (len(KINDS) + 2)}",
    ]
    for name, about in found.items():
        parts = " | ".join(f"{100 * about['shares'][kind]:.0f} %" for kind in (*KINDS, REST))
        gain = (left_to_gain if in_bfloat16 else speedup)(about["shares"])
        lines.append(f"| `{name}`, {about['precision']} | {parts} | {gain:.2f} × |")
    return lines


def main() -> None:
    found = {name: measure(name) for name in RECIPES}
    show(found)
    write_section(SECTION, {"recipes": found}, this_environment(RECIPES[0]))


if __name__ == "__main__":
    main()
