"""From measurements to ratios, agreement of the losses, a table and a figure. Imports no torch."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean, median
from typing import Any

from targets import NAMES, PEER_TARGETS, WORK

OURS = "conviction"
# Logits of the same weights, computed in float32 by other programs.
LARGEST_LOGITS_DIFFERENCE = 1e-3
# What precision and order of summation may do to a mean loss beside the noise that is measured.
LOSS_TOLERANCE = 0.02


def summarise(rounds: list[dict[str, dict[str, Any]]], network: str) -> dict[str, dict[str, Any]]:
    """For each peer: ratios of images a second within a round, and how the losses compare after the same steps."""
    found = {}
    for peer in rounds[0]:
        if peer == OURS:
            continue
        pairs = [(each[OURS], each[peer]) for each in rounds]
        ratios = [ours["images_per_s"] / theirs["images_per_s"] for ours, theirs in pairs]
        found[peer] = {
            "ratio": spread_of(ratios),
            "target": PEER_TARGETS[network].get(peer),
            "images_per_s": spread_of([theirs["images_per_s"] for _, theirs in pairs]),
            "first_step_s": spread_of([theirs["first_step_s"] for _, theirs in pairs]),
            "loss": compare_losses([ours["mean_loss"] for ours, _ in pairs], [t["mean_loss"] for _, t in pairs]),
            "logits_difference": max(theirs["logits_difference"] for _, theirs in pairs),
            "same_network": max(theirs["logits_difference"] for _, theirs in pairs) <= LARGEST_LOGITS_DIFFERENCE,
            "versions": pairs[0][1]["versions"],
        }
    return found


def spread_of(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "smallest": min(values), "largest": max(values)}


def compare_losses(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """The mean difference of runs that began with the same weights, and whether it is within three standard errors.

    Pictures come in other orders and other crops: that is the noise. A tolerance stands for precision.
    """
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    count, middle = len(differences), mean(differences)
    # A single pair has no noise to be measured by: then it is not judged. `stdev` takes no NaN.
    error = math.sqrt(sum((d - middle) ** 2 for d in differences) / (count - 1) / count) if count > 1 else None
    return {
        "ours": mean(ours),
        "theirs": mean(theirs),
        "difference": middle,
        "standard_error": error,
        "agrees": None if error is None else abs(middle) <= LOSS_TOLERANCE + 3 * error,
    }


def markdown(section: dict[str, Any]) -> list[str]:
    """The table of a machine's file."""
    about = f"batches of {section['batch_size']}, random crop and flip, SGD with momentum, {section['pictures']}"
    lines = [
        "## Beside its peers",
        "",
        f"Images a second of the whole training loop, {about}. Each measurement is a process of its own; a ratio is",
        "that of two in the same round; the median of the rounds, and in brackets the smallest and the largest. The",
        "mean training loss is over all steps from the same initial weights.",
    ]
    if not section.get("decoded"):
        lines += [
            "Measured before plain PyTorch and Lightning had decoded pictures: here they open JPEG files,",
            "which takes them longer (by 21 and 13 % on an AMD EPYC).",
        ]
    else:
        lines.append("fastai opens JPEG files, as its loaders do; the others have decoded pictures in memory.")
    for network, found in section["networks"].items():
        ours = found["ours"]
        lines += [
            "",
            f"**{WORK[network]}**, {found['num_rounds']} rounds of {found['measured_steps']} steps after "
            f"{found['warmup_steps']} to warm up. Conviction in {ours['precision']}: "
            f"{_shown(ours['images_per_s'], ',.0f')} images a second, first step after "
            f"{_shown(ours['first_step_s'], '.1f')} s.",
            "",
            "| peer | images a second | Conviction ÷ peer | target | | first step after | loss: ours − theirs | |",
            "|---|---|---|---|---|---|---|---|",
            *("| " + " | ".join(_cells(peer, about)) + " |" for peer, about in found["peers"].items()),
        ]
    return lines


def _cells(peer: str, about: dict[str, Any]) -> list[str]:
    loss, target = about["loss"], about["target"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    error = "" if loss["standard_error"] is None else f" ± {loss['standard_error']:.3f}"
    says = {None: "one round: not judged", True: "agree", False: "**disagree**"}[loss["agrees"]]
    return [
        f"{NAMES[peer]} ({versions})",
        _shown(about["images_per_s"], ",.0f"),
        f"{_shown(about['ratio'], '.2f')} ×",
        "" if target is None else f"≥ {target:g} ×",
        "" if target is None else "met" if about["ratio"]["median"] >= target else "**missed**",
        f"{_shown(about['first_step_s'], '.1f')} s",
        f"{loss['ours']:.3f} − {loss['theirs']:.3f} = {loss['difference']:+.3f}{error}",
        says if about["same_network"] else f"**another network**: logits differ by {about['logits_difference']:.2g}",
    ]


def _shown(spread: dict[str, float], form: str) -> str:
    return f"{spread['median']:{form}} ({spread['smallest']:{form}} … {spread['largest']:{form}})"


def draw(section: dict[str, Any], title: str, path: Path) -> None:
    """Images a second of each, with their range, and the ratio written beside; a panel for each network."""
    from conviction.report.figure import BLUE, GREY, ORANGE, new_figure, save_figure

    networks = section["networks"]
    num_rows = [1 + len(found["peers"]) for found in networks.values()]
    figure = new_figure(8.5, 1.3 + 0.42 * sum(num_rows) + 0.55 * len(networks))
    panels = figure.subplots(len(networks), 1, squeeze=False, gridspec_kw={"height_ratios": num_rows})[:, 0]
    for axes, (network, found) in zip(panels, networks.items(), strict=True):
        names = [f"Conviction ({found['ours']['precision']})", *(NAMES[peer] for peer in found["peers"])]
        spreads = [found["ours"]["images_per_s"], *(about["images_per_s"] for about in found["peers"].values())]
        notes = ["", *(_note(about) for about in found["peers"].values())]
        largest = max(spread["largest"] for spread in spreads)
        for row, (spread, note) in enumerate(zip(spreads, notes, strict=True)):
            colour = BLUE if row == 0 else ORANGE
            axes.plot([spread["smallest"], spread["largest"]], [row, row], color=colour, lw=2.5, solid_capstyle="butt")
            axes.plot(spread["median"], row, "o" if row == 0 else "s", color=colour, ms=7)
            axes.text(spread["largest"] + 0.02 * largest, row, note, va="center", fontsize=8, color="#333333")
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1.5 * largest)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{WORK[network]} (n = {found['num_rounds']} rounds)", fontsize=9, loc="left", color=GREY)
    panels[-1].set_xlabel(
        f"images a second, whole loop, batches of {section['batch_size']} from {section['pictures']}\n"
        "mark: median, line: smallest to largest"
    )
    save_figure(figure, title, path)


def _note(about: dict[str, Any]) -> str:
    ratio, target = about["ratio"], about["target"]
    shown = f"Conviction {ratio['median']:.2f} × as fast ({ratio['smallest']:.2f} … {ratio['largest']:.2f}"
    if target is not None:
        shown += f"; target {target:g}{'' if ratio['median'] >= target else ', missed'}"
    return f"{shown})"
