"""How fast a machine would compute a network's products, at the rate of its fastest one, and nothing else.

Part of the machine's page (targets.py). How near the measured figure comes says what is left to gain. The rate is that
of one large convolution or matrix product; single ones of a network may be somewhat faster, most are slower. Poolings,
normalisations and the optimiser count nothing.
"""

from __future__ import annotations

from statistics import median
from typing import Any

PICTURE, NUM_CLASSES, NUM_PICTURES = (3, 32, 32), 10, 50_000
_BATCH_SIZE = 8


def step_flop(recipe: str, size_px: int = PICTURE[1]) -> float:
    """Floating-point operations of a training step for each picture: two for each multiply-accumulate."""
    from conviction.nets.block import build_network
    from conviction.nets.step_cost import training_step_macs
    from conviction.run.recipe import load_recipe

    network = build_network(load_recipe(recipe).network, PICTURE, NUM_CLASSES)
    shape = (PICTURE[0], size_px, size_px)
    return 2 * training_step_macs(network, shape, _BATCH_SIZE) / _BATCH_SIZE


def training_flop(recipe: str, num_pictures: int) -> float:
    """Of a whole training on so many pictures, in the sizes of its epochs."""
    from conviction.fit.progressive import size_in_epoch
    from conviction.run.recipe import load_recipe

    fit = load_recipe(recipe).fit
    sizes = [size_in_epoch(fit.progressive_sizes, epoch) or PICTURE[1] for epoch in range(1, fit.epochs + 1)]
    each = {size_px: step_flop(recipe, size_px) for size_px in set(sizes)}
    return num_pictures * sum(each[size_px] for size_px in sizes)


def ceiling_flops(sections: dict[str, Any]) -> float | None:
    """Floating-point operations a second of the machine's fastest product; None where that was not measured."""
    measured = sections.get("share_of_ceiling", {}).get("ceiling_gflop_a_second")
    return None if measured is None else 1e9 * median(measured)


def loop_at_ceiling(sections: dict[str, Any], recipe: str) -> float | None:
    """Images a second of a training loop."""
    ceiling = ceiling_flops(sections)
    return None if ceiling is None else ceiling / step_flop(recipe)


def training_at_ceiling(sections: dict[str, Any], recipe: str) -> float | None:
    """Seconds of a training that was measured."""
    ceiling = ceiling_flops(sections)
    return None if ceiling is None else training_flop(recipe, _num_train(sections, recipe)) / ceiling


def training_tflop(sections: dict[str, Any], recipe: str) -> float:
    """Its operations, in 10¹². Raises: KeyError where that training was not measured."""
    return training_flop(recipe, _num_train(sections, recipe)) / 1e12


def _num_train(sections: dict[str, Any], recipe: str) -> int:
    return NUM_PICTURES - int(sections["speed_recipes"]["recipes"][recipe]["seeds"][0]["num_validation"])


def markdown(sections: dict[str, Any], recipes: dict[str, str]) -> list[str]:
    """The part of the machine's page; nothing where the ceiling was not measured.

    `recipes` says of each network of the peers' benchmark which recipe it is.
    """
    if (ceiling := ceiling_flops(sections)) is None:
        return []
    lines = [
        "## What this machine's ceiling allows",
        "",
        f"Its fastest product does {ceiling / 1e9:,.0f} GFLOP/s (`benchmarks/share_of_ceiling.py`). At that rate, with",
        "all but the products of a network for nothing, the third column would be reached. Single products of a step",
        "may be some per cent faster, most are slower.",
        "",
        "| work | products | at the ceiling | measured | share |",
        "|---|---|---|---|---|",
    ]
    for network, about in sections.get("peers", {}).get("networks", {}).items():
        name = recipes[network]
        flop, bound = step_flop(name), loop_at_ceiling(sections, name)
        ours = about["ours"]["images_per_s"]["median"]
        columns = (f"{flop / 1e6:,.0f} MFLOP an image", f"{bound:,.0f} images a second", f"{ours:,.0f}")
        lines.append(_row(f"`{name}`, whole loop", *columns, ours / bound))
    for name, about in sections.get("speed_recipes", {}).get("recipes", {}).items():
        bound, ours = training_at_ceiling(sections, name), about["figures"]["train_s"]["mean"]
        columns = (f"{training_tflop(sections, name):,.0f} TFLOP", f"{bound:,.0f} s", f"{ours:,.0f} s")
        lines.append(_row(f"`{name}`, training", *columns, bound / ours))
    return lines


def _row(work: str, products: str, bound: str, measured: str, share: float) -> str:
    return f"| {work} | {products} | {bound} | {measured} | {100 * share:.0f} % |"
