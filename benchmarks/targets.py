"""What was aimed at and what was reached, side by side: `benchmarks/results/<machine>.md`, from the sections beside it.

make bench                      or: python benchmarks/targets.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import bounds
from record import FOLDER, machine_path, read_sections, this_environment

NAMES = {
    "pytorch": "plain PyTorch",
    "lightning": "Lightning",
    "fastai": "fastai",
    "keras-torch": "Keras on torch",
    "keras-jax": "Keras on JAX",
}
PEER_TARGETS = {
    "lab-c": {"pytorch": 2.5, "lightning": 2.7, "fastai": 3.0, "keras-torch": 4.5, "keras-jax": 6.0},
    "lab-a-bn": {"pytorch": 2.2},
}
PEER_RECIPES = {"lab-c": "alexnet-cifar10", "lab-a-bn": "convnet-bn-cifar10"}
WORK = {"lab-c": "lab C's network", "lab-a-bn": "lab A's ConvNet with batch normalisation"}
PUBLISHED = "speed-cifar10-sgd"
SPEED_RECIPES = ("speed-cifar10", "speed-cifar10-quick", PUBLISHED)
LEAST_SEEDS = 5


@dataclass(frozen=True)
class Target:
    """A row of the table: what is measured, the bound, and where the figure stands in the sections of a machine."""

    work: str
    bound: float
    side: Literal["at least", "at most"]
    unit: str
    find: Callable[[dict[str, Any]], float]
    # The smallest and the largest of what the figure is the median of.
    spread: Callable[[dict[str, Any]], tuple[float, float]] | None = None
    # What figures say of why it is missed.
    why: Callable[[dict[str, Any]], str | None] | None = None

    def row(self, sections: dict[str, Any]) -> tuple[str, str, str, str]:
        """Work, target, figure and verdict."""
        sign = "≥" if self.side == "at least" else "≤"
        wanted = f"{sign} {self.bound:g}{self.unit}"
        try:
            found = self.find(sections)
        except KeyError:
            return self.work, wanted, "–", "not measured"
        shown = f"{found:.2f}"
        if self.spread:
            low, high = self.spread(sections)
            shown += f" ({low:.2f} … {high:.2f})"
        is_met = found >= self.bound if self.side == "at least" else found <= self.bound
        verdict = "met" if is_met else "**missed**"
        if self.why and not is_met and (reason := self.why(sections)):
            verdict += f": {reason}"
        return self.work, wanted, shown + self.unit, verdict


def _of_a_peer(network: str, peer: str, part: str) -> Callable[[dict[str, Any]], float]:
    return lambda sections: float(sections["peers"]["networks"][network]["peers"][peer]["ratio"][part])


def _peer_target(network: str, peer: str, bound: float) -> Target:
    def why(sections: dict[str, Any]) -> str | None:
        recipe, about = PEER_RECIPES[network], sections["peers"]["networks"][network]
        if (allowed := bounds.loop_at_ceiling(sections, recipe)) is None:
            return None
        wanted = bound * about["peers"][peer]["images_per_s"]["median"]
        ours = about["ours"]["images_per_s"]["median"]
        return (
            f"that would be {wanted:,.0f} images a second; the ceiling (below) allows {allowed:,.0f}, of which "
            f"{100 * ours / allowed:.0f} % are reached"
        )

    low, high = (_of_a_peer(network, peer, part) for part in ("smallest", "largest"))
    return Target(
        f"{WORK[network]}, whole training loop, against {NAMES[peer]}",
        *(bound, "at least", " ×"),
        _of_a_peer(network, peer, "median"),
        lambda sections: (low(sections), high(sections)),
        why,
    )


def _share_of_product(part: str) -> Callable[[dict[str, Any]], float]:
    return lambda sections: float(sections["share_of_ceiling"]["share_of_matrix_product"][part])


def _starts(sections: dict[str, Any]) -> list[float]:
    return list(sections["start_and_epoch"]["command_first_step_s"])


def _frozen_ratios(sections: dict[str, Any]) -> list[float]:
    return list(sections["frozen_head"]["ratios"])


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _over_seeds(recipe: str, figure: str, scale: float = 1.0) -> Callable[[dict[str, Any]], float]:
    """The mean over the seeds, infinite where a seed never came so far."""

    def find(sections: dict[str, Any]) -> float:
        found = sections["speed_recipes"]["recipes"][recipe]
        if found["num_seeds"] < LEAST_SEEDS:
            raise KeyError(recipe)
        about = found["figures"][figure]
        return scale * float(about["mean"]) if about["num_seeds"] == found["num_seeds"] else math.inf

    return find


def _times_the_published(sections: dict[str, Any]) -> float:
    """How many times as long the published recipe trains, by the means over the seeds."""
    published, ours = (_over_seeds(recipe, "train_s")(sections) for recipe in (PUBLISHED, "speed-cifar10"))
    return published / ours


def _why_not_so_right(figure: str) -> Callable[[dict[str, Any]], str | None]:
    """What the published recipe reaches on the same pictures."""

    def why(sections: dict[str, Any]) -> str | None:
        published = sections["speed_recipes"]["recipes"].get(PUBLISHED)
        if published is None:
            return None
        count, reached = published["num_seeds"], 100 * published["figures"][figure]["mean"]
        return (
            f"`{PUBLISHED}`, the published recipe with {_of_published(sections):.2f} times the operations, reaches "
            f"{reached:.2f} % here ({count} seed{'s' * (count > 1)})"
        )

    return why


def _of_published(sections: dict[str, Any]) -> float:
    """How many times the operations of `speed-cifar10` the published recipe has."""
    return bounds.training_tflop(sections, PUBLISHED) / bounds.training_tflop(sections, "speed-cifar10")


def _why_so_long(sections: dict[str, Any]) -> str | None:
    if (allowed := bounds.training_at_ceiling(sections, "speed-cifar10")) is None:
        return None
    tflop = bounds.training_tflop(sections, "speed-cifar10")
    return f"the products of its training, {tflop:,.0f} TFLOP, take {allowed:,.0f} s at the ceiling (below)"


def _why_no_larger_ratio(sections: dict[str, Any]) -> str | None:
    if bounds.ceiling_flops(sections) is None:
        return None
    ours, theirs = (
        100 * (bounds.training_at_ceiling(sections, recipe) or 0.0) / _over_seeds(recipe, "train_s")(sections)
        for recipe in ("speed-cifar10", PUBLISHED)
    )
    return (
        f"it has {_of_published(sections):.2f} times fewer operations, at {ours:.0f} % of the ceiling (smaller "
        f"pictures, batches of 256, Muon); batches of 1,024 whole pictures come to {theirs:.0f} %"
    )


def _most_memory(sections: dict[str, Any]) -> float:
    seeds = sections["speed_recipes"]["recipes"]["speed-cifar10"]["seeds"]
    if len(seeds) < LEAST_SEEDS:
        raise KeyError("speed-cifar10")
    return max(float(seed["peak_memory_bytes"]) for seed in seeds) / 1e9


TARGETS = [
    *(_peer_target(network, peer, bound) for network, each in PEER_TARGETS.items() for peer, bound in each.items()),
    Target(
        "the ConvNet's training step: floating-point operations a second, of those of a matrix product",
        *(0.75, "at least", ""),
        _share_of_product("median"),
        lambda sections: (_share_of_product("smallest")(sections), _share_of_product("largest")(sections)),
    ),
    Target(
        "`speed-cifar10` on `cifar10-jpeg75`: test accuracy in several views, mean over the seeds",
        *(91.0, "at least", " %"),
        _over_seeds("speed-cifar10", "test_accuracy", 100),
        why=_why_not_so_right("test_accuracy"),
    ),
    Target(
        "the same: test accuracy in one view, mean over the seeds",
        *(89.8, "at least", " %"),
        _over_seeds("speed-cifar10", "test_accuracy_one_view", 100),
        why=_why_not_so_right("test_accuracy_one_view"),
    ),
    Target(
        "the same: training without validation, mean over the seeds",
        *(300.0, "at most", " s"),
        _over_seeds("speed-cifar10", "train_s"),
        why=_why_so_long,
    ),
    # 597 s and 300 s, on a processor with bfloat16.
    Target(
        f"the same: training without validation, against the published recipe `{PUBLISHED}`",
        *(1.99, "at least", " ×"),
        _times_the_published,
        why=_why_no_larger_ratio,
    ),
    Target("the same: peak resident memory, the most of the seeds", 1.5, "at most", " GB", _most_memory),
    Target(
        "`speed-cifar10-quick`: training to 80 % of the validation pictures, mean over the seeds",
        *(60.0, "at most", " s"),
        _over_seeds("speed-cifar10-quick", "to_80_percent_train_s"),
    ),
    Target(
        "head on a frozen SqueezeNet, Imagenette, 20 epochs, beside a loop that recomputes it (2 epochs, times 10)",
        *(10.0, "at least", " ×"),
        lambda sections: median(_frozen_ratios(sections)),
        lambda sections: _ends(_frozen_ratios(sections)),
    ),
    Target(
        "command to first step, warm cache, `alexnet-cifar10`",
        *(3.0, "at most", " s"),
        lambda sections: median(_starts(sections)),
        lambda sections: _ends(_starts(sections)),
    ),
    Target(
        "peak resident memory, CIFAR-10, `alexnet-cifar10`",
        *(1.5, "at most", " GB"),
        lambda sections: float(sections["start_and_epoch"]["peak_memory_bytes"]) / 1e9,
    ),
]


def page(sections: dict[str, Any], environment: dict[str, Any]) -> str:
    """The whole page of a machine."""
    about = f"{environment['processor']}, {environment['threads']} threads, " + ", ".join(
        environment["instruction_sets"]
    )
    if environment["device"] != "cpu":
        about = f"{environment['device_name']}, beside {about}"
    lines = [
        "# Targets and figures",
        "",
        f"{about}. Written by `make bench` from the figures beside it,",
        "where the versions stand too. Behind a median stand the smallest and the largest value.",
        "",
        "| work | target | measured | |",
        "|---|---|---|---|",
        *("| " + " | ".join(target.row(sections)) + " |" for target in TARGETS),
    ]
    if "bfloat16" not in environment["precision"]:
        lines += ["", "The targets are for processors with bfloat16 instructions, which this one lacks."]
    if allowed := bounds.markdown(sections, PEER_RECIPES):
        lines += ["", *allowed]
    if profile := sections.get("step_profile"):
        from step_profile import markdown as of_profile

        lines += ["", *of_profile(profile)]
    if recipes := sections.get("speed_recipes"):
        from recipe_summary import markdown as of_recipes

        lines += ["", *of_recipes(recipes)]
    if ablations := sections.get("ablations"):
        from ablations import markdown as of_ablations

        lines += ["", *of_ablations(ablations)]
    if peers := sections.get("peers"):
        from peers.verdict import markdown

        lines += ["", *markdown(peers)]
    return "\n".join(lines) + "\n"


def write_page(environment: dict[str, Any]) -> None:
    path = machine_path(environment, ".md")
    text = page(read_sections(environment), environment)
    path.write_text(text)
    print(text)
    print(f"written to {path.relative_to(FOLDER.parent.parent)}")


if __name__ == "__main__":
    write_page(this_environment("convnet-cifar10"))
