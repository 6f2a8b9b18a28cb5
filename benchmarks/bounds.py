"""How fast a machine could compute a network's products, one by one, at the rate of its fastest product.

Part of the machine's page (targets.py). A target beyond such a bound is missed by whatever computes all these
products; how near the measured figure comes says what is left to gain. Poolings, normalisations and the optimiser count
nothing.
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


def markdown(
    sections: dict[str, Any], recipes: dict[str, str], targets: dict[str, dict[str, float]], names: dict[str, str]
) -> list[str]:
    """The part of the machine's page; nothing where the ceiling was not measured.

    `recipes` says of each network of the peers' benchmark which recipe it is, `targets` its ratios to each peer, and
    `names` what these are called.
    """
    if (measured := sections.get("share_of_ceiling", {}).get("ceiling_gflop_a_second")) is None:
        return []
    ceiling = 1e9 * median(measured)
    lines = [
        "## What this machine's ceiling allows",
        "",
        f"Its fastest product does {ceiling / 1e9:,.0f} GFLOP/s (`benchmarks/share_of_ceiling.py`). At that rate, with",
        "all but the products of a network for nothing, what computes all of them cannot pass the third column.",
        "",
        "| work | products | at the ceiling | measured | share |",
        "|---|---|---|---|---|",
    ]
    beyond: list[str] = []
    for network, about in sections.get("peers", {}).get("networks", {}).items():
        name, flop = recipes[network], step_flop(recipes[network])
        bound, ours = ceiling / flop, about["ours"]["images_per_s"]["median"]
        columns = (f"{flop / 1e6:,.0f} MFLOP an image", f"{bound:,.0f} images a second", f"{ours:,.0f}")
        lines.append(_row(f"`{name}`, whole loop", *columns, ours / bound))
        for peer, ratio in targets[network].items():
            if (theirs := about["peers"].get(peer)) and (wanted := ratio * theirs["images_per_s"]["median"]) > bound:
                beyond.append(
                    f"{ratio:g} × {names[peer]} would be {wanted:,.0f} images a second of `{name}`: beyond the ceiling."
                )
    for name, about in sections.get("speed_recipes", {}).get("recipes", {}).items():
        flop = training_flop(name, NUM_PICTURES - about["seeds"][0]["num_validation"])
        bound, ours = flop / ceiling, about["figures"]["train_s"]["mean"]
        lines.append(
            _row(f"`{name}`, training", f"{flop / 1e12:,.0f} TFLOP", f"{bound:,.0f} s", f"{ours:,.0f} s", bound / ours)
        )
    return [*lines, *(["", *beyond] if beyond else [])]


def _row(work: str, products: str, bound: str, measured: str, share: float) -> str:
    return f"| {work} | {products} | {bound} | {measured} | {100 * share:.0f} % |"
